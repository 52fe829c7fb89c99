//! How long a hypervisor's process has kept CPUs busy, as the host's kernel counts: whether its guest does anything.

use std::{fs, time::Duration};

use tokio::net::UnixStream;

/// Names of processes that run guests, as far as the kernel keeps them. A manager may have made the socket for one, and what that does says nothing.
const HYPERVISORS: [&str; 3] = ["qemu-", "cloud-hyper", "firecracker"];

/// The CPU time of whoever listens at the other end, all its threads together. `None`: it is no hypervisor, or the kernel does not say.
pub(crate) fn of_peer(stream: &UnixStream) -> Option<Duration> {
    let process = stream.peer_cred().ok()?.pid()?;
    in_stat(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?, ticks_per_second()?)
}

/// From `/proc/PID/stat`: the name in parentheses, which may have any characters in it, then fields from the third on, of which the 14th and 15th are
/// time in user mode and in the kernel, in ticks.
fn in_stat(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    let (before, fields) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    if !HYPERVISORS.iter().any(|hypervisor| name.starts_with(hypervisor)) {
        return None;
    }
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let all = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_secs_f64(all as f64 / ticks_per_second as f64))
}

fn ticks_per_second() -> Option<u64> {
    // SAFETY: asks for a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_times_count_and_only_a_hypervisors() {
        let stat = "7 (qemu-system-x) (86) S 1 7 7 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 3 0 99 1 1";
        assert_eq!(in_stat(stat, 100), Some(Duration::from_secs(4)));
        assert_eq!(in_stat(&stat.replace("qemu-", "libvirtd"), 100), None);
    }

    proptest! {
        #[test]
        fn any_text_is_no_time_or_one(text in "[(qemu) 0-9-]{0,60}") {
            let _ = in_stat(&text, 100);
        }
    }
}
