//! How much memory this host has.

use std::{fs, io};

use crate::ControlError;

/// MemTotal of `/proc/meminfo`, in bytes.
///
/// # Errors
/// [`ControlError::HostMemory`] where the file cannot be read or does not say.
pub fn host_memory_bytes() -> Result<u64, ControlError> {
    let text = fs::read_to_string("/proc/meminfo").map_err(ControlError::HostMemory)?;
    mem_total_bytes(&text).ok_or_else(|| {
        ControlError::HostMemory(io::Error::new(io::ErrorKind::InvalidData, "no MemTotal in it"))
    })
}

fn mem_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mem_total_is_read_in_kib() {
        assert_eq!(mem_total_bytes("MemTotal:       24684468 kB\nMemFree: 1 kB\n"), Some(24684468 * 1024));
        assert_eq!(mem_total_bytes("MemFree: 1 kB\n"), None);
        assert_eq!(mem_total_bytes("MemTotal: many kB\n"), None);
    }

    #[test]
    fn this_host_has_memory() {
        assert!(host_memory_bytes().expect("meminfo") > 1 << 20);
    }
}
