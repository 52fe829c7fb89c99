//! Asks all guests at once, and remembers what they said.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tmem_actuator::{ActuatorError, Address, Guest, Seen};
use tmem_control::{GuestAddress, GuestSpec};
use tokio::{sync::Mutex, task::JoinSet};

/// A guest that hung is asked again after so long, so that it does not hold up the others each time.
const PAUSE: Duration = Duration::from_secs(30);

/// A guest that is looked after.
pub(super) struct Managed {
    pub(super) spec: GuestSpec,
    guest: Arc<Mutex<Guest>>,
    /// What it said last, as long as it is there.
    pub(super) seen: Option<Seen>,
    /// What it said last is of this round.
    pub(super) answers: bool,
    /// What is wrong with it.
    pub(super) trouble: Option<String>,
    /// CPUs that it has kept busy since the look before.
    pub(super) cpus: Option<f64>,
    /// When it was looked at, and how long it had kept CPUs busy then.
    cpu_time: Option<(Instant, Duration)>,
    /// What it was told last, in bytes.
    pub(super) told: Option<u64>,
    asked_again: Option<Instant>,
}

impl Managed {
    pub(super) fn new(spec: GuestSpec) -> Managed {
        let guest = Arc::new(Mutex::new(Guest::new(address(&spec.address))));
        Managed {
            spec,
            guest,
            seen: None,
            cpus: None,
            cpu_time: None,
            answers: false,
            trouble: None,
            told: None,
            asked_again: None,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        address(&self.spec.address).kind()
    }

    fn take_in(&mut self, looked: Result<Seen, ActuatorError>) {
        match looked {
            Ok(seen) => {
                self.say(None);
                self.count_cpus(seen.cpu_time, Instant::now());
                (self.seen, self.answers) = (Some(seen), true);
            }
            Err(error) => {
                self.answers = false;
                if is_absent(&error) {
                    // When it is started again it has what it was started with.
                    (self.seen, self.told) = (None, None);
                } else if takes_too_long(&error) {
                    self.asked_again = Some(Instant::now() + PAUSE);
                }
                self.say(Some(error.to_string()));
            }
        }
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

/// Nobody is there, so nobody has any memory.
fn is_absent(error: &ActuatorError) -> bool {
    match error {
        ActuatorError::Unreachable { .. } => true,
        ActuatorError::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

fn takes_too_long(error: &ActuatorError) -> bool {
    matches!(error, ActuatorError::Late { .. } | ActuatorError::Taken { .. })
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
    for (index, managed) in guests.iter().enumerate() {
        if managed.asked_again.is_none_or(|at| at <= now) {
            let guest = Arc::clone(&managed.guest);
            looks.spawn(async move { (index, guest.lock().await.look().await) });
        }
    }
    for (index, looked) in looks.join_all().await {
        guests[index].asked_again = None;
        guests[index].take_in(looked);
    }
}

/// Tells guests, by index, what they are to have.
pub(super) async fn tell(guests: &mut [Managed], targets: Vec<(usize, u64)>) {
    let mut tellings = JoinSet::new();
    for (index, target_bytes) in targets {
        let guest = Arc::clone(&guests[index].guest);
        tellings.spawn(async move { (index, target_bytes, guest.lock().await.set(target_bytes).await) });
    }
    for (index, target_bytes, told) in tellings.join_all().await {
        let managed = &mut guests[index];
        match told {
            Ok(()) => managed.told = Some(target_bytes),
            // It is tried again the next time.
            Err(error) => {
                managed.told = None;
                managed.say(Some(error.to_string()));
            }
        }
    }
}
