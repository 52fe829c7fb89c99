//! Where in the table a page may be: linear hashing.

use crate::block::PayloadCrc;

/// A bucket, and how many bits of the hash it has used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bucket: u32,
    pub(super) level: u32,
}

/// The checksum is as good as a hash; the other one is a bijection of it.
pub(super) fn hashes(crc: PayloadCrc) -> [u32; 2] {
    let mixed = crc.0.wrapping_mul(0x9e37_79b1);
    [crc.0, mixed ^ mixed >> 15]
}

/// Which bucket a hash belongs to, when there are so many. `None`: there are none.
pub(super) fn place(hash: u32, buckets: u32) -> Option<Place> {
    if buckets == 0 {
        return None;
    }
    let rounded = buckets.next_power_of_two();
    let level = rounded.trailing_zeros();
    let bucket = hash & (rounded - 1);
    let half = rounded / 2;
    // A bucket in the upper half that is not there yet is still part of its counterpart in the lower half.
    if bucket >= buckets {
        Some(Place { bucket: bucket & (half - 1), level: level - 1 })
    } else if bucket >= half || bucket + half < buckets {
        Some(Place { bucket, level })
    } else {
        Some(Place { bucket, level: level - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_splits_into_itself_and_the_new_one(crc in any::<u32>(), buckets in 1..100_000u32) {
            let (before, after) = (place(crc, buckets).unwrap(), place(crc, buckets + 1).unwrap());
            prop_assert!(before.bucket < buckets);
            if before.bucket != after.bucket {
                prop_assert_eq!(after.bucket, buckets);
                prop_assert_eq!(place(buckets, buckets).unwrap(), before);
                prop_assert_eq!(crc >> before.level & 1, 1);
            }
            prop_assert_eq!(after.level - before.level, u32::from(place(buckets, buckets) == Some(before)));
        }
    }
}
