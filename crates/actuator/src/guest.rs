//! One guest or cgroup, whatever it runs under.

use std::time::Duration;

use tmem_balance::Report;

use crate::{
    ActuatorError, Address, cgroup::Cgroup, cloud_hypervisor::CloudHypervisor, firecracker::Firecracker,
    limits, qemu::Qemu,
};

/// What is seen of a guest.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// What it has now, in bytes: its memory less its balloon. A cgroup: what it uses, or its `memory.high` where that is more.
    pub size_bytes: u64,
    /// What it was started with, in bytes. A cgroup: the least `memory.max` of it and those above it, or the host's memory.
    pub max_bytes: u64,
    /// What it says of itself. `None`: nothing, or nothing new since the last look.
    pub report: Option<Report>,
    /// A cgroup's swap-ins since it was made, in pages. `None` for guests: what they swap in, their client in the store counts.
    pub swap_ins: Option<u64>,
    /// How long it has kept CPUs busy since it was started, as the host counts. `None`: the host does not say.
    pub cpu_time: Option<Duration>,
}

/// A guest or cgroup. It is connected to when it is asked or told, and again after whatever went wrong.
pub struct Guest {
    address: Address,
    told: Told,
}

/// Who is told.
enum Told {
    Qemu(Box<Qemu>),
    CloudHypervisor(CloudHypervisor),
    Firecracker(Firecracker),
    Cgroup(Cgroup),
}

impl Guest {
    /// Nobody is connected to yet.
    pub fn new(address: Address) -> Guest {
        let told = match address.clone() {
            Address::Qemu { monitor, agent } => Told::Qemu(Box::new(Qemu::new(monitor, agent))),
            Address::CloudHypervisor(socket) => Told::CloudHypervisor(CloudHypervisor::new(socket)),
            Address::Firecracker(socket) => Told::Firecracker(Firecracker::new(socket)),
            Address::Cgroup(directory) => Told::Cgroup(Cgroup::new(directory)),
        };
        Guest { address, told }
    }

    /// Asks it. Takes two seconds at most.
    ///
    /// # Errors
    /// It cannot be reached, does not answer in time, or answers what cannot be.
    pub async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let place = self.address.path();
        let seen = match &mut self.told {
            Told::Qemu(qemu) => qemu.look().await,
            Told::CloudHypervisor(vmm) => limits::in_time(place, vmm.look()).await,
            Told::Firecracker(vmm) => limits::in_time(place, vmm.look()).await,
            Told::Cgroup(cgroup) => limits::in_time(place, cgroup.look()).await,
        };
        seen.and_then(|seen| checked(&self.address, seen))
    }

    /// Tells it how much memory to keep. It gets there in its own time, if at all: the next looks say how far it is. More than it was started
    /// with is the same as that. Takes two seconds at most.
    ///
    /// # Errors
    /// As [`Guest::look`], or it refused.
    pub async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let place = self.address.path();
        match &mut self.told {
            Told::Qemu(qemu) => qemu.set(target_bytes).await,
            Told::CloudHypervisor(vmm) => limits::in_time(place, vmm.set(target_bytes)).await,
            Told::Firecracker(vmm) => limits::in_time(place, vmm.set(target_bytes)).await,
            Told::Cgroup(cgroup) => cgroup.set(target_bytes).await,
        }
    }

    /// As [`Address::kind`].
    pub fn kind(&self) -> &'static str {
        self.address.kind()
    }
}

/// What holds of whatever anybody says.
fn checked(address: &Address, seen: Seen) -> Result<Seen, ActuatorError> {
    let place = address.path();
    let max_bytes = limits::memory_bytes(place, "memory", seen.max_bytes)?;
    if seen.size_bytes > max_bytes && address.kind() != "cgroup" {
        let what = format!("that it has {} bytes of {max_bytes}", seen.size_bytes);
        return Err(ActuatorError::Nonsense { place: place.into(), what });
    }
    let report = seen.report.map(|report| Report {
        available_bytes: limits::believable(report.available_bytes, seen.size_bytes),
        committed_bytes: limits::believable(report.committed_bytes, u64::MAX),
        pressure: report.pressure.filter(|pressure| (0.0..=1.0).contains(pressure)),
    });
    // A report in which there is nothing to believe is none.
    Ok(Seen { report: report.filter(|report| *report != Report::default()), ..seen })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(available: u64, committed: u64, pressure: f64) -> Option<Report> {
        let (available_bytes, committed_bytes) = (Some(available), Some(committed));
        Some(Report { available_bytes, committed_bytes, pressure: Some(pressure) })
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let address = Address::Firecracker("/run/fc.sock".into());
        let seen = |report| Seen { size_bytes: 100, max_bytes: 200, report, swap_ins: None, cpu_time: None };
        let believed = |report| checked(&address, seen(report)).expect("a guest").report;
        assert_eq!(believed(report(100, 300, 0.5)), report(100, 300, 0.5));
        assert_eq!(believed(report(101, u64::MAX, 1.5)), None);
        assert_eq!(
            believed(report(u64::MAX, 7, f64::NAN)).and_then(|report| report.committed_bytes),
            Some(7)
        );
        let lies = Seen { size_bytes: 201, ..seen(None) };
        assert!(checked(&address, lies.clone()).is_err());
        assert!(checked(&Address::Cgroup("/x".into()), lies).is_ok(), "one may use more than it is to");
    }

    #[test]
    fn guests_go_from_thread_to_thread() {
        fn goes<T: Send>(_: &T) {}
        let mut guest = Guest::new(Address::Qemu { monitor: "/m".into(), agent: None });
        assert_eq!(guest.kind(), "qemu");
        goes(&guest);
        goes(&guest.look());
        goes(&guest.set(1));
    }
}
