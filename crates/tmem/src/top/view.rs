//! What is shown now: the last looks, and what the keys chose.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use ratatui::widgets::TableState;

use super::{
    guests::{Guest, guests},
    look::Look,
};

/// Swap-in rates that are remembered of each guest: a wide terminal's width.
const HISTORY: usize = 300;
/// A daemon that takes so much longer than the interval does not answer.
const GRACE: Duration = Duration::from_secs(2);

/// By what the list is sorted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Sort {
    #[default]
    Name,
    Size,
    Pool,
    SwapIns,
    SwapOuts,
    Refused,
}

impl Sort {
    /// The next one, and after the last the first.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Name => Self::Size,
            Self::Size => Self::Pool,
            Self::Pool => Self::SwapIns,
            Self::SwapIns => Self::SwapOuts,
            Self::SwapOuts => Self::Refused,
            Self::Refused => Self::Name,
        }
    }

    /// For the last line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Size => "memory",
            Self::Pool => "pool",
            Self::SwapIns => "swap-ins",
            Self::SwapOuts => "swap-outs",
            Self::Refused => "refused",
        }
    }

    /// What counts; `None`: the name.
    fn measure(self, guest: &Guest) -> Option<f64> {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        match self {
            Self::Name => None,
            Self::Size => bytes(guest.size_bytes()),
            Self::Pool => bytes(guest.used_bytes()),
            Self::SwapIns => guest.rates.swap_ins,
            Self::SwapOuts => guest.rates.swap_outs,
            Self::Refused => guest.rates.refused,
        }
    }
}

/// What is shown.
pub(super) struct View {
    /// The last look.
    pub(super) look: Look,
    /// The guests of the last look, as they are sorted.
    pub(super) guests: Vec<Guest>,
    /// By what.
    pub(super) sort: Sort,
    /// What is seen is not taken.
    pub(super) paused: bool,
    /// The help is shown in the place of the list.
    pub(super) help: bool,
    /// Why the last question had no answer, if it had none.
    pub(super) failure: Option<String>,
    /// Where the list is scrolled to.
    pub(super) table: TableState,
    interval: Duration,
    answered: Instant,
    selected: Option<String>,
    swap_ins: BTreeMap<String, VecDeque<Option<u64>>>,
}

impl View {
    /// A view of what was seen first; there are no rates yet.
    pub(super) fn new(look: Look, interval: Duration) -> Self {
        let mut view = Self {
            guests: guests(None, &look),
            answered: look.at,
            look,
            sort: Sort::default(),
            paused: false,
            help: false,
            failure: None,
            table: TableState::new(),
            interval,
            selected: None,
            swap_ins: BTreeMap::new(),
        };
        view.remember();
        view
    }

    /// Takes what was seen, or why nothing was. While paused, only whether there was an answer counts.
    pub(super) fn take(&mut self, seen: Result<Look, String>) {
        match seen {
            Err(failure) => self.failure = Some(failure),
            Ok(look) => {
                self.failure = None;
                self.answered = look.at;
                if !self.paused {
                    self.guests = guests(Some(&self.look), &look);
                    self.look = look;
                    self.remember();
                    self.arrange();
                }
            }
        }
    }

    /// For how long the daemon has not answered; `None`: it does.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.answered);
        (self.failure.is_some() || silence > self.interval + GRACE).then_some(silence)
    }

    /// Sorts by the next column.
    pub(super) fn sort_by_next(&mut self) {
        self.sort = self.sort.next();
        self.arrange();
    }

    /// Selects the guest so many places below, or above; without one selected, the first.
    pub(super) fn select(&mut self, steps: isize) {
        let Some(last) = self.guests.len().checked_sub(1) else { return };
        let place = self.selected_place().map_or(0, |place| place.saturating_add_signed(steps).min(last));
        self.selected = self.guests.get(place).map(|guest| guest.name.clone());
    }

    /// Where the selected guest is, if it is there.
    pub(super) fn selected_place(&self) -> Option<usize> {
        let name = self.selected.as_ref()?;
        self.guests.iter().position(|guest| guest.name == *name)
    }

    /// The selected guest, else the first.
    pub(super) fn looked_at(&self) -> Option<&Guest> {
        self.guests.get(self.selected_place().unwrap_or(0))
    }

    /// A guest's swap-ins in each second, oldest first. `None`: not known.
    pub(super) fn history(&self, guest: &Guest) -> impl DoubleEndedIterator<Item = Option<u64>> + '_ {
        self.swap_ins.get(&guest.name).into_iter().flatten().copied()
    }

    fn remember(&mut self) {
        self.swap_ins.retain(|name, _| self.guests.iter().any(|guest| guest.name == *name));
        for guest in &self.guests {
            let history = self.swap_ins.entry(guest.name.clone()).or_default();
            if history.len() >= HISTORY {
                history.pop_front();
            }
            history.push_back(guest.rates.swap_ins.map(|rate| rate.round() as u64));
        }
    }

    /// Largest first, unknown last, and by name among equals.
    fn arrange(&mut self) {
        let sort = self.sort;
        let measure = |guest: &Guest| sort.measure(guest).unwrap_or(-1.0);
        self.guests.sort_by(|a, b| measure(b).total_cmp(&measure(a)).then_with(|| a.name.cmp(&b.name)));
    }
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

    fn names(view: &View) -> Vec<&str> {
        view.guests.iter().map(|guest| guest.name.as_str()).collect()
    }

    #[test]
    fn the_selection_stays_with_its_guest() {
        let mut view = View::new(look(vec![client("a", 1), client("b", 3), client("c", 2)]), SECOND);
        assert_eq!(view.selected_place(), None);
        view.select(1);
        assert_eq!(view.selected_place(), Some(0));
        view.select(1);
        assert_eq!(view.looked_at().unwrap().name, "b");
        view.sort_by_next();
        view.sort_by_next();
        assert_eq!((view.sort, names(&view)), (Sort::Pool, vec!["b", "c", "a"]));
        assert_eq!(view.selected_place(), Some(0));
        view.select(9);
        assert_eq!(view.looked_at().unwrap().name, "a");
        view.select(-9);
        assert_eq!(view.looked_at().unwrap().name, "b");
        view.take(Ok(look(vec![client("c", 2)])));
        assert_eq!((view.selected_place(), view.looked_at().unwrap().name.as_str()), (None, "c"));
    }

    #[test]
    fn unknown_rates_are_last_whatever_the_others_are() {
        let first = look(vec![client("a", 5), client("b", 5), client("c", 5)]);
        let mut view = View::new(first.clone(), SECOND);
        let later = vec![client("a", 4), client("b", 5), client("c", 9)];
        view.take(Ok(Look { at: first.at + SECOND, ..look(later) }));
        while view.sort != Sort::SwapIns {
            view.sort_by_next();
        }
        assert_eq!(names(&view), ["c", "b", "a"]);
        let history = |name: &str| {
            let guest = view.guests.iter().find(|guest| guest.name == name).unwrap();
            view.history(guest).collect::<Vec<_>>()
        };
        assert_eq!(history("a"), [None, None]);
        assert_eq!(history("c"), [None, Some(4)]);
    }

    #[test]
    fn a_daemon_that_is_silent_or_gone_is_noticed_and_comes_back() {
        let first = look(vec![client("a", 5)]);
        let mut view = View::new(first.clone(), SECOND);
        assert_eq!(view.silence(first.at + SECOND), None);
        assert_eq!(view.silence(first.at + 9 * SECOND), Some(9 * SECOND));
        view.take(Err("gone".to_owned()));
        assert_eq!(view.silence(first.at + SECOND), Some(SECOND));
        assert_eq!(names(&view), ["a"], "the last picture stays");
        view.take(Ok(Look { at: first.at + 3 * SECOND, ..look(vec![client("b", 5)]) }));
        assert_eq!((view.silence(first.at + 4 * SECOND), names(&view)), (None, vec!["b"]));
    }

    #[test]
    fn a_paused_view_does_not_move_but_knows_of_the_daemon() {
        let first = look(vec![client("a", 5)]);
        let mut view = View::new(first.clone(), SECOND);
        view.paused = true;
        view.take(Err("gone".to_owned()));
        assert!(view.silence(first.at).is_some());
        view.take(Ok(Look { at: first.at + SECOND, ..look(vec![client("b", 5)]) }));
        assert_eq!((view.silence(first.at + SECOND), names(&view)), (None, vec!["a"]));
        view.paused = false;
        view.take(Ok(Look { at: first.at + 2 * SECOND, ..look(vec![client("a", 9)]) }));
        assert_eq!(view.guests[0].rates.swap_ins, Some(2.0), "over all the time since");
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut view = View::new(look(vec![client("a", 5), client("b", 5)]), SECOND);
        for _ in 0..2 * HISTORY {
            view.take(Ok(look(vec![client("a", 5)])));
        }
        assert_eq!(view.history(&view.guests[0]).count(), HISTORY);
        assert_eq!(view.swap_ins.len(), 1, "b has gone");
    }
}
