//! What a balancer tells the daemon, and what the daemon tells it: the two halves of `POST /api/v1/balance`.
//!
//! The balancer is a process of its own, because it talks to hypervisors and the process that serves may talk to nobody. It says here what it
//! sees and does, so that there is one place to look at, and takes along what people want of it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::AdminError;

/// A balancer that has been silent for so long is not there any more. It reports every second.
const SILENCE: Duration = Duration::from_secs(15);
/// Decisions that the daemon remembers.
const KEPT_DECISIONS: usize = 100;
/// Orders that wait to be taken along, at most.
const MAX_ORDERS: usize = 64;

/// Body of `POST /api/v1/balance`: what a balancer sees and does. Sizes are in bytes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BalanceReport {
    /// Process id of the balancer.
    pub pid: u32,
    /// Its policy: `reuse`, `committed-as` or `static`.
    pub policy: String,
    /// It only says what it would do.
    pub dry_run: bool,
    /// Seconds from one decision to the next.
    pub interval_seconds: f64,
    /// What all guests together may have.
    pub budget_bytes: u64,
    /// Whom it looks after, by name.
    pub guests: Vec<BalancedGuest>,
    /// Its decisions, oldest first. In a report: those since the last one that was taken.
    pub decisions: Vec<BalanceDecision>,
    /// The number of the last order that it has carried out.
    pub heard: u64,
    /// It is about to end.
    #[serde(default)]
    pub is_ending: bool,
}

/// A guest or cgroup as the balancer sees it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BalancedGuest {
    /// Its name; that of its client, if it has one.
    pub name: String,
    /// How it is told: `qemu`, `cloud-hypervisor`, `firecracker` or `cgroup`.
    pub kind: String,
    /// What it has.
    pub size_bytes: u64,
    /// What it is to have.
    pub target_bytes: u64,
    /// It never gets less.
    pub floor_bytes: u64,
    /// It never gets more.
    pub ceiling_bytes: u64,
    /// What a swap-in of it counts, 100 being the usual.
    pub weight: u32,
    /// It can be reached.
    pub answers: bool,
    /// What it says that it could use without swapping.
    pub available_bytes: Option<u64>,
    /// Of the last ten seconds, the part during which something of it waited for memory, as it says, 0 to 1.
    pub pressure: Option<f64>,
    /// Why its target is what it is.
    pub reason: String,
    /// What is wrong with it, if anything.
    pub trouble: Option<String>,
}

/// One change of a target.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BalanceDecision {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whose.
    pub guest: String,
    /// From what it had, in bytes.
    pub from_bytes: u64,
    /// To what it is to have, in bytes.
    pub to_bytes: u64,
    /// Why.
    pub reason: String,
}

/// Body of `PATCH /api/v1/balance`, and what a balancer takes along: what is named changes, the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalanceOrder {
    /// It ends, and guests are left like this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<StopHow>,
    /// Whether it only says what it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// New limits, by guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guests: BTreeMap<String, LimitChanges>,
}

/// How guests are left when the balancer ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopHow {
    /// With what they have.
    Leave,
    /// With their ceilings.
    Restore,
}

/// What is named changes, the rest stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitChanges {
    /// It never gets less, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor_bytes: Option<u64>,
    /// It never gets more, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling_bytes: Option<u64>,
    /// What a swap-in of it counts, 1 to 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// An order with its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NumberedOrder {
    /// They rise. It is in the report's `heard` when it has been carried out.
    pub number: u64,
    /// What to do.
    pub order: BalanceOrder,
}

/// Answer to `PATCH /api/v1/balance`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct OrderAccepted {
    /// The balancer has carried it out once its report's `heard` is as high.
    pub(crate) number: u64,
}

/// Answer to `POST /api/v1/balance`: what the balancer has not carried out yet, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BalanceOrders {
    /// Maybe none.
    pub orders: Vec<NumberedOrder>,
}

/// What the daemon keeps of a balancer. Lost with the process: the balancer tells it again.
#[derive(Debug, Default)]
pub(crate) struct Balancing {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: Option<(Instant, BalanceReport)>,
    orders: Vec<NumberedOrder>,
    last_number: u64,
}

impl Balancing {
    /// Takes a report, and gives the orders that wait. `now` is when it came.
    ///
    /// # Errors
    /// [`AdminError::Conflict`]: another balancer is there. The two would take from each other's guests what they gave.
    pub(crate) fn report(
        &self,
        mut report: BalanceReport,
        now: Instant,
    ) -> Result<BalanceOrders, AdminError> {
        let mut inner = self.lock();
        inner.forget_the_silent(now);
        if let Some((_, other)) = &inner.last
            && other.pid != report.pid
        {
            let pid = other.pid;
            return Err(AdminError::Conflict(format!(
                "a balancer with process id {pid} reports to this daemon already; `tmem balance stop` ends it"
            )));
        }
        if report.is_ending {
            inner.forget();
            return Ok(BalanceOrders::default());
        }
        let known = inner.last.take().map(|(_, before)| before);
        let mut decisions = known.map(|before| before.decisions).unwrap_or_default();
        decisions.append(&mut report.decisions);
        decisions.drain(..decisions.len().saturating_sub(KEPT_DECISIONS));
        report.decisions = decisions;
        // A daemon that was replaced begins to count anew, and its numbers must be news.
        inner.last_number = inner.last_number.max(report.heard);
        inner.orders.retain(|order| order.number > report.heard);
        inner.last = Some((now, report));
        Ok(BalanceOrders { orders: inner.orders.clone() })
    }

    /// Has the balancer take an order along. Gives its number.
    ///
    /// # Errors
    /// [`AdminError::NotFound`]: no balancer, or it has no such guest. [`AdminError::Invalid`]: limits that make no sense.
    /// [`AdminError::Conflict`]: it takes none of those before.
    pub(crate) fn order(&self, order: BalanceOrder, now: Instant) -> Result<u64, AdminError> {
        let mut inner = self.lock();
        inner.forget_the_silent(now);
        let Some((_, report)) = &inner.last else {
            return Err(AdminError::NotFound(
                "no balancer reports to this daemon; `tmem balance start` starts one".to_owned(),
            ));
        };
        for (name, changes) in &order.guests {
            check_limits(report, name, changes)?;
        }
        if inner.orders.len() >= MAX_ORDERS {
            return Err(AdminError::Conflict(
                "the balancer does not take its orders; look at its log".to_owned(),
            ));
        }
        inner.last_number += 1;
        let number = inner.last_number;
        inner.orders.push(NumberedOrder { number, order });
        Ok(number)
    }

    /// What the balancer said last, with the decisions that are remembered. `None`: there is none.
    pub(crate) fn latest(&self, now: Instant) -> Option<BalanceReport> {
        let mut inner = self.lock();
        inner.forget_the_silent(now);
        inner.last.as_ref().map(|(_, report)| report.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget_the_silent(&mut self, now: Instant) {
        if self.last.as_ref().is_some_and(|(at, _)| now.saturating_duration_since(*at) > SILENCE) {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.last = None;
        self.orders.clear();
    }
}

/// Limits have to make sense together with those that stay.
fn check_limits(report: &BalanceReport, name: &str, changes: &LimitChanges) -> Result<(), AdminError> {
    let Some(guest) = report.guests.iter().find(|guest| guest.name == name) else {
        return Err(AdminError::NotFound(format!(
            "the balancer has no guest {name}; `tmem balance status` shows those that it has"
        )));
    };
    // Nobody knows what one has that is not there.
    let is_there = guest.ceiling_bytes > 0;
    let floor_bytes = changes.floor_bytes.or(is_there.then_some(guest.floor_bytes));
    let ceiling_bytes = changes.ceiling_bytes.or(is_there.then_some(guest.ceiling_bytes));
    if let (Some(floor_bytes), Some(ceiling_bytes)) = (floor_bytes, ceiling_bytes)
        && floor_bytes > ceiling_bytes
    {
        return Err(AdminError::Invalid(format!(
            "guest {name}: a floor of {floor_bytes} bytes is above its ceiling of {ceiling_bytes}; give both where both change"
        )));
    }
    if changes.weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
        return Err(AdminError::Invalid(format!("guest {name}: weights are 1 to 10000")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(pid: u32, heard: u64, decisions: &[&str]) -> BalanceReport {
        let decision =
            |guest: &&str| BalanceDecision { guest: (*guest).to_owned(), ..BalanceDecision::default() };
        let guest = BalancedGuest {
            name: "vm".to_owned(),
            floor_bytes: 10,
            ceiling_bytes: 20,
            ..BalancedGuest::default()
        };
        BalanceReport {
            pid,
            heard,
            guests: vec![guest],
            decisions: decisions.iter().map(decision).collect(),
            ..BalanceReport::default()
        }
    }

    fn stop() -> BalanceOrder {
        BalanceOrder { stop: Some(StopHow::Leave), ..BalanceOrder::default() }
    }

    #[test]
    fn an_order_is_given_until_it_is_carried_out() {
        let (balancing, now) = (Balancing::default(), Instant::now());
        assert!(matches!(balancing.order(stop(), now), Err(AdminError::NotFound(_))));
        assert_eq!(balancing.report(report(1, 7, &[]), now).unwrap(), BalanceOrders::default());
        let number = balancing.order(stop(), now).unwrap();
        assert_eq!(number, 8, "after those of a daemon before this one");
        for _ in 0..2 {
            let orders = balancing.report(report(1, 7, &[]), now).unwrap().orders;
            assert_eq!(orders, [NumberedOrder { number, order: stop() }]);
        }
        assert_eq!(balancing.report(report(1, 8, &[]), now).unwrap().orders, []);
        for _ in 0..MAX_ORDERS {
            balancing.order(stop(), now).unwrap();
        }
        assert!(matches!(balancing.order(stop(), now), Err(AdminError::Conflict(_))));
    }

    #[test]
    fn decisions_add_up_and_a_silent_balancer_is_forgotten() {
        let (balancing, now) = (Balancing::default(), Instant::now());
        balancing.report(report(1, 0, &["a"]), now).unwrap();
        balancing.report(report(1, 0, &[]), now).unwrap();
        balancing.report(report(1, 0, &["b"]), now).unwrap();
        let names = |report: BalanceReport| -> Vec<String> {
            report.decisions.into_iter().map(|decision| decision.guest).collect()
        };
        assert_eq!(names(balancing.latest(now + SILENCE).unwrap()), ["a", "b"]);
        balancing.report(report(1, 0, &["c"; 2 * KEPT_DECISIONS]), now).unwrap();
        assert_eq!(names(balancing.latest(now).unwrap()), ["c"; KEPT_DECISIONS]);
        assert!(matches!(balancing.report(report(2, 0, &["d"]), now), Err(AdminError::Conflict(_))));
        let last = BalanceReport { is_ending: true, ..report(1, 0, &["d"]) };
        balancing.report(last, now).unwrap();
        assert_eq!(balancing.latest(now), None);
        balancing.report(report(2, 0, &["e"]), now).unwrap();
        assert_eq!(names(balancing.latest(now).unwrap()), ["e"], "another balancer");
        let later = now + SILENCE + Duration::from_millis(1);
        assert_eq!(balancing.latest(later), None);
        assert!(matches!(balancing.order(stop(), later), Err(AdminError::NotFound(_))));
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        let (balancing, now) = (Balancing::default(), Instant::now());
        balancing.report(report(1, 0, &[]), now).unwrap();
        let order = |name: &str, changes| {
            let guests = BTreeMap::from([(name.to_owned(), changes)]);
            balancing.order(BalanceOrder { guests, ..BalanceOrder::default() }, now)
        };
        let changes = LimitChanges::default();
        assert!(matches!(order("who", changes), Err(AdminError::NotFound(_))));
        for wrong in [
            LimitChanges { floor_bytes: Some(21), ..changes },
            LimitChanges { ceiling_bytes: Some(9), ..changes },
            LimitChanges { weight: Some(0), ..changes },
            LimitChanges { weight: Some(10_001), ..changes },
        ] {
            assert!(matches!(order("vm", wrong), Err(AdminError::Invalid(_))), "{wrong:?}");
        }
        let right = LimitChanges { floor_bytes: Some(30), ceiling_bytes: Some(40), weight: Some(200) };
        assert!(order("vm", right).is_ok());
    }
}
