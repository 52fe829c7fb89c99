//! How much memory there is for this process, is left, and how much the host's tasks wait for some.

use std::{fs, io, time::Duration};

use crate::{ControlError, memory_cgroup::MemoryCgroup};

/// The host's memory at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostMemory {
    /// MemTotal of `/proc/meminfo`, or the limit of the memory cgroup that this process is in, if that is less, in bytes.
    pub total_bytes: u64,
    /// MemAvailable: what programs can still have without swapping, or what this process can before its cgroup's limit, in bytes.
    pub available_bytes: u64,
    /// For how long some task has waited for memory since the host was started: `some total` of `/proc/pressure/memory`. `None`: the
    /// kernel does not say.
    pub stalled: Option<Duration>,
}

impl HostMemory {
    /// What the kernel says now.
    ///
    /// # Errors
    /// [`ControlError::HostMemory`] where `/proc/meminfo` cannot be read or does not say.
    pub fn read() -> Result<Self, ControlError> {
        let [total_bytes, available_bytes] = read_meminfo(["MemTotal", "MemAvailable"])?;
        // Kernels without pressure information, and those told to keep none, have no such file.
        let pressure = fs::read_to_string("/proc/pressure/memory").ok();
        let cgroup = MemoryCgroup::read();
        let (most_bytes, left_bytes) =
            cgroup.map_or((u64::MAX, u64::MAX), |cgroup| (cgroup.limit_bytes, cgroup.available_bytes));
        Ok(Self {
            total_bytes: total_bytes.min(most_bytes),
            available_bytes: available_bytes.min(left_bytes),
            stalled: pressure.as_deref().and_then(stalled),
        })
    }
}

/// The whole host's memory at one moment, whatever cgroup this process is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WholeHost {
    /// MemTotal of `/proc/meminfo`, in bytes.
    pub total_bytes: u64,
    /// MemAvailable: what programs can still have without swapping, in bytes.
    pub available_bytes: u64,
}

impl WholeHost {
    /// What the kernel says now.
    ///
    /// # Errors
    /// As [`HostMemory::read`].
    pub fn read() -> Result<Self, ControlError> {
        let [total_bytes, available_bytes] = read_meminfo(["MemTotal", "MemAvailable"])?;
        Ok(Self { total_bytes, available_bytes })
    }
}

/// [`HostMemory::total_bytes`].
///
/// # Errors
/// As [`HostMemory::read`].
pub fn host_memory_bytes() -> Result<u64, ControlError> {
    Ok(HostMemory::read()?.total_bytes)
}

/// MemFree of `/proc/meminfo`: what nobody uses at all, in bytes.
///
/// # Errors
/// As [`HostMemory::read`].
pub fn free_memory_bytes() -> Result<u64, ControlError> {
    let [free_bytes] = read_meminfo(["MemFree"])?;
    Ok(free_bytes)
}

/// These lines of `/proc/meminfo`, in bytes, of one moment.
fn read_meminfo<const N: usize>(names: [&str; N]) -> Result<[u64; N], ControlError> {
    let text = fs::read_to_string("/proc/meminfo").map_err(ControlError::HostMemory)?;
    let mut bytes = [0; N];
    for (bytes, name) in bytes.iter_mut().zip(names) {
        *bytes = meminfo_bytes(&text, name).ok_or_else(|| {
            let missing = format!("no {name} in it");
            ControlError::HostMemory(io::Error::new(io::ErrorKind::InvalidData, missing))
        })?;
    }
    Ok(bytes)
}

fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn stalled(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kib() {
        let text = "MemTotal:       24684468 kB\nMemFree: 1 kB\nMemAvailable:  2 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(24684468 * 1024));
        assert_eq!(meminfo_bytes(text, "MemAvailable"), Some(2048));
        assert_eq!(meminfo_bytes("MemFree: 1 kB\n", "MemTotal"), None);
        assert_eq!(meminfo_bytes("MemTotal: many kB\n", "MemTotal"), None);
    }

    #[test]
    fn pressure_is_read_in_microseconds() {
        let text = "some avg10=0.12 avg60=0.00 avg300=0.00 total=1500\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(stalled(text), Some(Duration::from_micros(1500)));
        assert_eq!(stalled("full total=7\n"), None);
        assert_eq!(stalled("some total=x\n"), None);
    }

    #[test]
    fn this_host_has_memory() {
        let host = HostMemory::read().expect("meminfo");
        assert!(host.total_bytes > host.available_bytes && host.available_bytes > 1 << 20, "{host:?}");
        assert_eq!(host_memory_bytes().expect("meminfo"), host.total_bytes);
        assert!((1 << 20..host.total_bytes).contains(&free_memory_bytes().expect("meminfo")));
        let whole = WholeHost::read().expect("meminfo");
        assert!(
            whole.total_bytes >= host.total_bytes && whole.total_bytes > whole.available_bytes,
            "{whole:?}"
        );
    }
}
