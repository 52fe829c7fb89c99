//! What a daemon says of the faults it makes: read from its log, line by line.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::contents::{Content, NOTHING};

/// Where a page is: its pool's number, and its own.
pub(super) type Place = (u16, u32);

/// What was said so far.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Said>);

#[derive(Debug, Default)]
pub(super) struct Said {
    /// Deaths, by the place where the worker died.
    pub(super) deaths: BTreeMap<String, u64>,
    /// All other faults, by kind.
    pub(super) faults: BTreeMap<String, u64>,
    /// What should never be said.
    pub(super) panics: Vec<String>,
    /// Pages of which a bit was turned over, and whose clients have not heard of it.
    flipped: Vec<Place>,
    /// What pages held of which a bit was turned over. Pages with equal contents may share their block.
    tainted: HashSet<Content>,
    /// Copies in the tier that are not whole.
    torn: HashSet<(u32, u64)>,
    /// The last time that a page was not to be had from the tier.
    lost_in_tier: HashMap<Place, LostInTier>,
}

#[derive(Clone, Copy, Debug)]
struct LostInTier {
    copy: (u32, u64),
    /// It may be had another time.
    is_unavailable: bool,
    said_at: Instant,
}

/// Why an error was to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// A bit of it was turned over.
    Flipped,
    /// Its copy in the tier is not whole.
    Torn,
    /// The tier's disk failed this once.
    Unavailable,
}

impl Watch {
    pub(super) fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// A line of the log.
    pub(super) fn hear(&mut self, line: &str) {
        if line.contains("panicked at") || line.contains("error: cannot") {
            self.panics.push(line.to_owned());
        }
        let Some(fault) = line.strip_prefix("tmem: fault: ") else { return };
        let number = |name: &str| {
            fault
                .split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let place = (number("pool=") as u16, number("page=") as u32);
        let copy = (number("place=") as u32, number("writing="));
        match fault.split_once(':') {
            Some(("torn", _)) => {
                self.torn.insert(copy);
            }
            Some(("lost in the tier", _)) => {
                let is_unavailable = fault.contains("error=TierUnavailable");
                self.lost_in_tier.insert(place, LostInTier { copy, is_unavailable, said_at: Instant::now() });
            }
            Some((flip, _)) => {
                *self.faults.entry(flip.to_owned()).or_default() += 1;
                self.flipped.push(place);
            }
            None => match fault.strip_prefix("killed at ") {
                Some(point) => *self.deaths.entry(point.to_owned()).or_default() += 1,
                None => *self.faults.entry(fault.to_owned()).or_default() += 1,
            },
        }
    }

    /// Hands a client's thread what it has not heard of: the damaged pages of its own.
    pub(super) fn take_flipped(&mut self, is_own: impl Fn(Place) -> bool) -> Vec<u32> {
        let (own, others) = self.flipped.drain(..).partition(|place| is_own(*place));
        self.flipped = others;
        own.into_iter().map(|(_, page): Place| page).collect()
    }

    /// A page with these contents was damaged.
    pub(super) fn taint(&mut self, contents: impl Iterator<Item = Content>) {
        self.tainted.extend(contents.filter(|content| *content != NOTHING)); // nothing is stored of that
    }

    /// Why a read that began then, of a page that may hold one of these, may have found an error.
    pub(super) fn excuse(
        &self,
        place: Place,
        since: Instant,
        mut may_hold: impl Iterator<Item = Content>,
    ) -> Option<Excuse> {
        if may_hold.any(|content| self.tainted.contains(&content)) {
            return Some(Excuse::Flipped);
        }
        let lost = self.lost_in_tier.get(&place).filter(|lost| lost.said_at >= since)?;
        if lost.is_unavailable {
            let is_made = self.faults.contains_key("tier-read-fail");
            return is_made.then_some(Excuse::Unavailable);
        }
        self.torn.contains(&lost.copy).then_some(Excuse::Torn)
    }

    pub(super) fn deaths(&self) -> u64 {
        self.deaths.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_damage_that_was_told_is_an_excuse() {
        let (mut said, since) = (Said::default(), Instant::now());
        let holds = |content| [Content(content)].into_iter();
        let excuse = |said: &Said, page, content| said.excuse((1, page), since, holds(content));
        for line in [
            "tmem: fault: killed at block",
            "tmem: fault: tier-torn",
            "tmem: fault: torn: place=4 writing=99",
            "tmem: fault: lost in the tier: pool=1 page=5 place=4 writing=99 error=Damaged",
            "tmem: fault: lost in the tier: pool=1 page=6 place=4 writing=98 error=Damaged",
            "tmem: fault: lost in the tier: pool=1 page=7 place=3 writing=7 error=TierUnavailable",
            "tmem: fault: flip-arena: pool=1 page=8",
        ] {
            said.hear(line);
        }
        assert_eq!(excuse(&said, 5, 50), Some(Excuse::Torn));
        assert_eq!(excuse(&said, 6, 60), None, "another copy");
        assert_eq!(excuse(&said, 7, 70), None, "no read was made to fail");
        said.hear("tmem: fault: tier-read-fail");
        assert_eq!(excuse(&said, 7, 70), Some(Excuse::Unavailable));
        assert_eq!(excuse(&said, 8, 80), None, "what it holds is not known yet");
        assert_eq!(said.take_flipped(|(pool, _)| pool == 1), [8]);
        said.taint(holds(80));
        assert_eq!(excuse(&said, 9, 80), Some(Excuse::Flipped), "it may share the block");
        assert_eq!(said.excuse((1, 5), Instant::now(), holds(50)), None, "that was another read");
        assert_eq!((said.deaths(), said.faults["tier-torn"], said.faults["flip-arena"]), (1, 1, 1));
    }
}
