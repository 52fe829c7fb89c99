//! Asks all guests at once, and remembers what they said.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_actuator::{ActuatorError, Address, Guest, Seen};
use tmem_control::{GuestAddress, GuestSpec};
use tokio::{sync::Mutex, task::JoinSet};

/// A guest that hung, or was slow, is asked again after so long, so that it does not hold up the others each time.
const PAUSE: Duration = Duration::from_secs(30);
/// Slow is who takes so long to answer.
const SLOW: Duration = Duration::from_secs(1);
/// Smaller changes are not worth telling a guest.
pub(crate) const LEAST_CHANGE_BYTES: u64 = 1 << 20;

/// Who counts a guest's swap-ins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Counter {
    /// The store, of its client.
    Store,
    /// The kernel, of a cgroup.
    Kernel,
}

/// A guest that is looked after.
pub(super) struct Managed {
    pub(super) spec: GuestSpec,
    /// As its address is called.
    pub(super) kind: &'static str,
    guest: Arc<Mutex<Guest>>,
    /// What it said last, as long as it is there.
    pub(super) seen: Option<Seen>,
    /// What it said last is of this round.
    pub(super) answers: bool,
    /// What is wrong with it.
    pub(super) trouble: Option<String>,
    /// What was wrong when it was told last.
    untold: Option<String>,
    /// CPUs that it has kept busy since the look before.
    pub(super) cpus: Option<f64>,
    /// When it was looked at, and how long it had kept CPUs busy then.
    cpu_time: Option<(Instant, Duration)>,
    /// Who counted its swap-ins last.
    pub(super) counted_by: Option<Counter>,
    /// What it was last decided to have, in bytes, as long as it is there.
    pub(super) decided: Option<u64>,
    /// What it was told last, in bytes, and when.
    told: Option<(u64, Instant)>,
    asked_again: Option<Instant>,
}

impl Managed {
    pub(super) fn new(spec: GuestSpec) -> Managed {
        let guest = Guest::new(address(&spec.address));
        let kind = guest.kind();
        let guest = Arc::new(Mutex::new(guest));
        Managed {
            spec,
            kind,
            guest,
            seen: None,
            answers: false,
            trouble: None,
            untold: None,
            cpus: None,
            cpu_time: None,
            counted_by: None,
            decided: None,
            told: None,
            asked_again: None,
        }
    }

    /// The most that it may have now: one that is silent may be on its way to what it was told.
    pub(super) fn counted_bytes(&self) -> u64 {
        let seen_bytes = self.seen.as_ref().map_or(0, |seen| seen.size_bytes);
        if self.answers { seen_bytes } else { seen_bytes.max(self.decided.unwrap_or(0)) }
    }

    /// Whether it has to be told: that is news to it, or it was told a while ago and is not there.
    pub(super) fn has_to_hear(&self, target_bytes: u64) -> bool {
        let Some(seen) = self.seen.as_ref().filter(|_| self.answers) else { return false };
        let is_away = |least_bytes| seen.size_bytes.abs_diff(target_bytes) >= least_bytes;
        match self.told {
            Some((told_bytes, at)) if told_bytes.abs_diff(target_bytes) < LEAST_CHANGE_BYTES => {
                at.elapsed() >= PAUSE && is_away(2 * LEAST_CHANGE_BYTES)
            }
            Some(_) => true,
            None => is_away(LEAST_CHANGE_BYTES),
        }
    }

    fn take_in(&mut self, looked: Result<Seen, ActuatorError>) {
        match looked {
            Ok(seen) => {
                self.count_cpus(seen.cpu_time, Instant::now());
                (self.seen, self.answers) = (Some(seen), true);
                self.say(self.untold.clone());
            }
            Err(error) => {
                // Whoever answers next may have been started anew.
                (self.answers, self.told) = (false, None);
                if is_absent(&error) {
                    (self.seen, self.decided) = (None, None);
                }
                self.say(Some(error.to_string()));
            }
        }
    }

    /// It may have heard also where it did not say so.
    fn was_told(&mut self, target_bytes: u64, result: Result<(), ActuatorError>) {
        self.told = Some((target_bytes, Instant::now()));
        self.untold = result.err().map(|error| error.to_string());
        self.say(self.untold.clone());
    }

    fn count_cpus(&mut self, cpu_time: Option<Duration>, now: Instant) {
        let before = std::mem::replace(&mut self.cpu_time, cpu_time.map(|time| (now, time)));
        self.cpus = match (before, cpu_time) {
            // Of a process that was started anew there is no difference.
            (Some((at, before)), Some(time)) if now > at => {
                time.checked_sub(before).map(|busy| busy.as_secs_f64() / (now - at).as_secs_f64())
            }
            _ => None,
        };
    }

    fn pause_if(&mut self, took: Duration) {
        self.asked_again = (took >= SLOW).then(|| Instant::now() + PAUSE);
    }

    /// Notes what is wrong, and says it once.
    fn say(&mut self, trouble: Option<String>) {
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(trouble) => log::warn!("guest {}: {trouble}", self.spec.name),
            None => log::info!("guest {}: is there", self.spec.name),
        }
        self.trouble = trouble;
    }
}

/// Nobody is there, so nobody has any memory. Behind a socket that cannot be connected to for another reason there may be a guest.
fn is_absent(error: &ActuatorError) -> bool {
    let (ActuatorError::Unreachable { source, .. } | ActuatorError::File { source, .. }) = error else {
        return false;
    };
    matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn address(address: &GuestAddress) -> Address {
    match address.clone() {
        GuestAddress::Qemu { monitor, agent } => Address::Qemu { monitor, agent },
        GuestAddress::CloudHypervisor(socket) => Address::CloudHypervisor(socket),
        GuestAddress::Firecracker(socket) => Address::Firecracker(socket),
        GuestAddress::Cgroup(directory) => Address::Cgroup(directory),
    }
}

/// Asks all of them. Whoever does not answer in time does not answer.
pub(super) async fn look(guests: &mut [Managed]) {
    let now = Instant::now();
    let mut looks = JoinSet::new();
    for (index, managed) in guests.iter_mut().enumerate() {
        if managed.asked_again.is_none_or(|at| at <= now) {
            let guest = Arc::clone(&managed.guest);
            looks.spawn(async move { timed(index, async { guest.lock().await.look().await }).await });
        } else {
            managed.answers = false;
        }
    }
    for (index, looked, took) in looks.join_all().await {
        guests[index].pause_if(took);
        guests[index].take_in(looked);
    }
}

/// Tells guests, by index, what they are to have.
pub(super) async fn tell(guests: &mut [Managed], targets: Vec<(usize, u64)>) {
    let mut tellings = JoinSet::new();
    for (index, target_bytes) in targets {
        let guest = Arc::clone(&guests[index].guest);
        let told = async move { (target_bytes, guest.lock().await.set(target_bytes).await) };
        tellings.spawn(timed(index, told));
    }
    for (index, (target_bytes, result), took) in tellings.join_all().await {
        guests[index].pause_if(took);
        guests[index].was_told(target_bytes, result);
    }
}

/// With whose it is, and how long it took.
async fn timed<T>(index: usize, work: impl Future<Output = T>) -> (usize, T, Duration) {
    let start = Instant::now();
    let done = work.await;
    (index, done, start.elapsed())
}
