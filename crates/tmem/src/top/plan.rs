//! Which parts of the picture get how many lines. What is needed most gets its lines first.

/// What there is to show, in lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    /// Above the list.
    pub(super) head: u16,
    /// The list with its heading.
    pub(super) list: u16,
    /// Decisions with their heading; 0: there are none.
    pub(super) decisions: u16,
}

/// Lines of each part, from top to bottom. One more, the last, is for keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Plan {
    pub(super) head: u16,
    pub(super) list: u16,
    /// The selected guest in words.
    pub(super) detail: u16,
    /// Its swap-ins.
    pub(super) chart: u16,
    pub(super) decisions: u16,
}

/// A list of this many lines shows who is there.
const SHORT_LIST: u16 = 4;
/// A heading and two decisions.
const FEW_DECISIONS: u16 = 3;
const MOST_DECISIONS: u16 = 11;
/// Higher, the chart says no more.
const MOST_CHART: u16 = 4;

impl Plan {
    /// For so many lines in all.
    pub(super) fn new(height: u16, wanted: Wanted) -> Self {
        let mut plan = Self::default();
        let mut left = height.saturating_sub(1);
        let mut give = |part: &mut u16, upto: u16| {
            let more = upto.saturating_sub(*part).min(left);
            *part += more;
            left -= more;
        };
        give(&mut plan.head, wanted.head.min(2));
        give(&mut plan.list, wanted.list.min(SHORT_LIST));
        give(&mut plan.head, wanted.head);
        give(&mut plan.detail, 1);
        give(&mut plan.chart, 1);
        give(&mut plan.decisions, wanted.decisions.min(FEW_DECISIONS));
        give(&mut plan.list, wanted.list);
        give(&mut plan.chart, MOST_CHART);
        give(&mut plan.decisions, wanted.decisions.min(MOST_DECISIONS));
        // What nobody needs is between the list and what is below.
        give(&mut plan.list, u16::MAX);
        // A heading alone says nothing.
        if plan.decisions == 1 {
            plan.decisions = 0;
            plan.list += 1;
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_given_and_none_twice() {
        for height in 1..120 {
            for list in [2, 5, 60] {
                let plan = Plan::new(height, Wanted { head: 5, list, decisions: 20 });
                let lines = plan.head + plan.list + plan.detail + plan.chart + plan.decisions;
                assert_eq!(lines, height - 1, "{plan:?}");
            }
        }
        assert_eq!(Plan::new(0, Wanted::default()), Plan::default());
    }

    #[test]
    fn a_low_terminal_keeps_what_matters() {
        let wanted = Wanted { head: 4, list: 51, decisions: 20 };
        let low = Plan::new(12, wanted);
        assert_eq!(low, Plan { head: 4, list: 5, detail: 1, chart: 1, decisions: 0 });
        let usual = Plan::new(24, wanted);
        assert_eq!(usual, Plan { head: 4, list: 14, detail: 1, chart: 1, decisions: 3 });
        let three = Plan::new(3, wanted);
        assert_eq!(three, Plan { head: 2, ..Plan::default() });
    }
}
