//! Whether a block device is in use: as swap, mounted, or under another device.

use std::{fs, path::Path};

/// Whether the device of that path, `ublkbN` below `/dev`, is swap, mounted, or held by another device.
pub(crate) fn is_in_use(device: &Path) -> bool {
    is_swap(device) || is_mounted(device) || is_held(device)
}

/// Whether the device is swap now.
pub(crate) fn is_swap(device: &Path) -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swap_areas(&swaps).any(|area| is_same(Path::new(area), device))
}

/// The first column, without its heading. The kernel writes a blank in a path as `\040`; no device of ours has one.
fn swap_areas(swaps: &str) -> impl Iterator<Item = &str> {
    swaps.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next())
}

/// Swap may have been turned on by another name of the device, such as one below `/dev/disk`.
fn is_same(path: &Path, device: &Path) -> bool {
    path == device || fs::canonicalize(path).is_ok_and(|path| path == device)
}

fn is_mounted(device: &Path) -> bool {
    let Some(number) = device_number(device) else { return false };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounted_numbers(&mounts).any(|mounted| mounted == number)
}

/// The third column: `major:minor` of what is mounted.
fn mounted_numbers(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| line.split_ascii_whitespace().nth(2))
}

fn device_number(device: &Path) -> Option<String> {
    let name = device.file_name()?.to_str()?;
    Some(fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?.trim_end().to_owned())
}

fn is_held(device: &Path) -> bool {
    let name = device.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    fs::read_dir(format!("/sys/block/{name}/holders")).is_ok_and(|mut holders| holders.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found() {
        let swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                     /dev/ublkb0                             partition\t262140\t\t0\t\t-2\n\
                     /swap.img                               file\t\t1024\t\t0\t\t-3\n";
        assert_eq!(swap_areas(swaps).collect::<Vec<_>>(), ["/dev/ublkb0", "/swap.img"]);
        assert_eq!(swap_areas("").count(), 0);
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      40 22 259:3 / /mnt rw - ext4 /dev/ublkb1 rw\n";
        assert_eq!(mounted_numbers(mounts).collect::<Vec<_>>(), ["254:0", "259:3"]);
    }

    #[test]
    fn a_device_that_is_not_there_is_not_in_use() {
        assert!(!is_in_use(Path::new("/dev/ublkb4095")));
    }
}
