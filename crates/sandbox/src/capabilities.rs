//! Capabilities (capabilities(7)), and dropping them.

use std::{fmt, io};

use crate::error::SandboxError;

/// A privilege that may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Opens files whoever they belong to: here ublk's devices, which are root's.
    DacOverride,
    /// Locks memory beyond its limit.
    IpcLock,
    /// Many things; here ublk's control device, and turning swap off.
    SysAdmin,
    /// Here: being an I/O flusher, and not being killed when memory runs out.
    SysResource,
}

impl Capability {
    const ALL: [Self; 4] = [Self::DacOverride, Self::IpcLock, Self::SysAdmin, Self::SysResource];

    /// Of `include/uapi/linux/capability.h`.
    fn number(self) -> u32 {
        match self {
            Self::DacOverride => 1,
            Self::IpcLock => 14,
            Self::SysAdmin => 21,
            Self::SysResource => 24,
        }
    }

    /// As capabilities(7) has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::IpcLock => "CAP_IPC_LOCK",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysResource => "CAP_SYS_RESOURCE",
        }
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability.number())
    }

    /// Those in both.
    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its members.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |capability| self.0 & 1 << capability.number() != 0)
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(members: I) -> Self {
        members.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Capability::name).collect();
        f.write_str(if names.is_empty() { "none".to_owned() } else { names.join(" ") }.as_str())
    }
}

/// Takes everything else out of the bounding set, as long as the process may: no program that it started could ever have it. Whoever is
/// not root has no say in that, and nothing to lose.
pub(crate) fn bound(kept: Capabilities) -> Result<(), SandboxError> {
    for number in 0..u64::BITS {
        if kept.0 & 1 << number != 0 {
            continue;
        }
        // SAFETY: takes numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) } == 0 {
            continue;
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // This kernel has no such capability, nor any after it; or the process may not.
            Some(libc::EINVAL | libc::EPERM) => return Ok(()),
            _ => return Err(SandboxError::Capabilities { step: "PR_CAPBSET_DROP", error }),
        }
    }
    Ok(())
}

/// Drops what is not to be kept from every other set. Gives what is left: what was not there before is not there after.
pub(crate) fn keep(kept: Capabilities) -> Result<Capabilities, SandboxError> {
    // SAFETY: takes numbers only.
    let cleared = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::c_ulong::from(PR_CAP_AMBIENT_CLEAR_ALL),
            0 as libc::c_ulong,
            0,
            0,
        )
    };
    if cleared != 0 {
        return Err(SandboxError::Capabilities { step: "PR_CAP_AMBIENT", error: io::Error::last_os_error() });
    }
    let left = kept.and(permitted()?);
    let half = |shift: u32| {
        let bits = (left.0 >> shift) as u32;
        Sets { effective: bits, permitted: bits, inheritable: 0 }
    };
    let mut sets = [half(0), half(32)];
    call(libc::SYS_capset, &mut sets)
        .map_err(|error| SandboxError::Capabilities { step: "capset", error })?;
    Ok(left)
}

/// Whether the process has what becoming another user takes: CAP_SETGID and CAP_SETUID, of `include/uapi/linux/capability.h`.
pub(crate) fn can_change_user() -> bool {
    let needed = Capabilities(1 << 6 | 1 << 7);
    permitted().is_ok_and(|has| has.and(needed) == needed)
}

fn permitted() -> Result<Capabilities, SandboxError> {
    let mut sets = [Sets::default(); 2];
    call(libc::SYS_capget, &mut sets)
        .map_err(|error| SandboxError::Capabilities { step: "capget", error })?;
    Ok(Capabilities(u64::from(sets[0].permitted) | u64::from(sets[1].permitted) << 32))
}

/// Of `include/uapi/linux/prctl.h`.
const PR_CAP_AMBIENT_CLEAR_ALL: u32 = 4;
/// Of `include/uapi/linux/capability.h`: two halves of 32 bits each.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capget(2) or capset(2) for the calling thread.
fn call(number: libc::c_long, sets: &mut [Sets; 2]) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: both calls take such a header and two such sets for this version; either may be written to, and both outlive the call.
    match unsafe { libc::syscall(number, &raw mut header, sets.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_have_their_members() {
        let set: Capabilities = [Capability::SysAdmin, Capability::DacOverride].into_iter().collect();
        assert_eq!(set.to_string(), "CAP_DAC_OVERRIDE CAP_SYS_ADMIN");
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert_eq!(set.and(Capabilities::NONE.with(Capability::SysAdmin)).0, 1 << 21);
    }

    /// The kernel shows in `/proc/self/status` what the call reads.
    #[test]
    fn what_is_permitted_is_read() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let shown = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
        assert_eq!(permitted().unwrap().0, u64::from_str_radix(shown.trim(), 16).unwrap());
    }
}
