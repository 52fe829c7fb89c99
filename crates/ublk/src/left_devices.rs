//! Devices that a daemon left behind when it died. The next one takes over those of its disks, and ends the others.

use std::fs;

use tmem_disk::SwapDisk;

use crate::control::Device;

/// Where the kernel lists the driver's devices.
const LIST: &str = "/sys/class/ublk-char";

/// What stands in a device, so that it is known again: whose it is, and which disk's.
pub(crate) fn mark_of(owner: &str, disk: &str) -> u64 {
    u64::from(hash(owner)) << 32 | u64::from(hash(disk))
}

/// FNV-1a, 32 bits: the next daemon may be of another version, so it must stay what it is.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The device that a dead daemon has left of this disk. One of another size is ended.
pub(crate) fn take(owner: &str, disk: &SwapDisk) -> Option<Device> {
    let mark = mark_of(owner, disk.name());
    let left = left_devices().find(|device| device.info().mark() == mark)?.adopt();
    let fits = left.size_bytes() == Some(disk.size_bytes());
    fits.then_some(left)
}

/// Ends the devices of a daemon that died, but for those that were taken over: whoever waits for their pages gets errors. Gives how many.
pub fn end_left_devices(owner: &str) -> usize {
    let is_ours = |device: &Device| device.info().mark() >> 32 == u64::from(hash(owner));
    left_devices().filter(is_ours).map(Device::adopt).map(drop).count()
}

/// Devices that nobody serves.
fn left_devices() -> impl Iterator<Item = Device> {
    let entries = fs::read_dir(LIST).into_iter().flatten().flatten();
    let number = |name: String| name.strip_prefix("ublkc")?.parse().ok();
    let numbers = entries.filter_map(move |entry| number(entry.file_name().into_string().ok()?));
    numbers.filter_map(Device::find).filter(Device::is_left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_whose_and_which() {
        assert_eq!((hash(""), hash("a")), (0x811c_9dc5, 0xe40c_292c));
        let mark = mark_of("/run/tmem", "swap0");
        assert_eq!(mark >> 32, u64::from(hash("/run/tmem")));
        assert_ne!(mark, mark_of("/run/tmem", "swap1"));
        assert_ne!(mark, mark_of("/run/other", "swap0"));
    }
}
