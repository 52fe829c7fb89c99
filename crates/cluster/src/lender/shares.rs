//! Who gives back how much.

/// What each gives back, of what it has, so that `excess` comes together: those who have most come down to one level, and whoever has
/// less than that gives nothing.
pub(super) fn cuts(held: &[u64], excess: u64) -> Vec<u64> {
    let mut most_first: Vec<u64> = held.to_vec();
    most_first.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0u64;
    let mut level = 0;
    for (count, bytes) in (1u64..).zip(&most_first) {
        sum = sum.saturating_add(*bytes);
        let next = most_first.get(count as usize).copied().unwrap_or(0);
        // The level to which so many would have to come down.
        level = sum.saturating_sub(excess) / count;
        if level >= next {
            break;
        }
    }
    held.iter().map(|bytes| bytes.saturating_sub(level)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn who_has_most_gives_first() {
        assert_eq!(cuts(&[10, 100, 90], 5), [0, 5, 0]);
        assert_eq!(cuts(&[10, 100, 90], 30), [0, 20, 10]);
        assert_eq!(cuts(&[10, 100, 90], 500), [10, 100, 90]);
        assert_eq!(cuts(&[10, 100, 90], 0), [0, 0, 0]);
        assert!(cuts(&[], 7).is_empty());
    }

    proptest! {
        #[test]
        fn enough_comes_together_and_nobody_is_left_with_more_than_who_gave(
            held in vec(0u64..10_000, 0..20),
            excess in 0u64..100_000,
        ) {
            let cut = cuts(&held, excess);
            let total: u64 = held.iter().sum();
            let given: u64 = cut.iter().sum();
            // Levels are whole bytes.
            prop_assert!(given >= excess.min(total) && given < excess.min(total) + 20);
            let left = held.iter().zip(&cut).map(|(held, cut)| held - cut);
            let most_left = left.clone().max().unwrap_or(0);
            for (left, cut) in left.zip(&cut) {
                prop_assert!(*cut == 0 || left == most_left);
            }
        }
    }
}
