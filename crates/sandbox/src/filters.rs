//! The programs that tell the kernel which system calls to carry out (seccomp(2)).
//!
//! Three of them, and the sternest answer counts: one that kills, one that refuses, and one that knows what there is. The kernel
//! remembers which calls all of them let through whatever the arguments, so that those cost next to nothing.

use std::collections::BTreeMap;

use libc::{c_long, *};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::{
    error::SandboxError,
    system_calls::{
        ALLOWED, ALLOWED_OLD, ALLOWED_WITH_RINGS, ALLOWED_WITH_UBLK, DEADLY, DEADLY_HERE, IOCTLS, NAMESPACES,
        PRCTLS, PRCTLS_WITH_UBLK, REFUSED, REFUSED_OLD, SOCKET_FAMILIES,
    },
};

/// What the process has to do beyond what all have to.
///
/// Requests on an io_uring are carried out whatever is forbidden as a system call: opening files and connecting among them. Only the wall
/// of paths stands in their way. So rings are as few as can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Goes on using io_urings that it has. New ones it cannot make.
    pub rings: bool,
    /// Serves block devices of this host: makes io_urings, locks memory.
    pub ublk: bool,
}

/// Rules of a filter: a call with conditions matches when one of its rules does; without rules, always.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Confines the calling thread and those that it will make. Needs `no_new_privs`.
pub(crate) fn enforce(extras: Extras) -> Result<(), SandboxError> {
    let refused = refused(extras)?;
    let known = allowed(extras).chain(refused.keys().copied()).map(always).collect();
    let deadly = DEADLY.iter().chain(DEADLY_HERE).copied().map(always).collect();
    apply_filter(&program(deadly, SeccompAction::KillProcess, SeccompAction::Allow)?)?;
    apply_filter(&program(known, SeccompAction::Allow, SeccompAction::Errno(ENOSYS as u32))?)?;
    // Last: it refuses the calls that it was made by.
    apply_filter(&program(refused, SeccompAction::Errno(EPERM as u32), SeccompAction::Allow)?)?;
    Ok(())
}

fn always(call: c_long) -> (c_long, Vec<SeccompRule>) {
    (call, Vec::new())
}

/// Calls of another architecture, such as those of 32-bit programs, are deadly.
fn program(
    rules: Rules,
    on_match: SeccompAction,
    otherwise: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, on_match, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn allowed(extras: Extras) -> impl Iterator<Item = c_long> {
    let rings: &[c_long] = if extras.rings { ALLOWED_WITH_RINGS } else { &[] };
    let ublk: &[c_long] = if extras.ublk { ALLOWED_WITH_UBLK } else { &[] };
    [ALLOWED, ALLOWED_OLD, rings, ublk].concat().into_iter()
}

/// What is known and not carried out: some calls always, some by their arguments.
fn refused(extras: Extras) -> Result<Rules, BackendError> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_OLD).copied().map(always).collect();
    rules.insert(SYS_socket, vec![none_of(0, SOCKET_FAMILIES.iter().map(|family| *family as u64))?]);
    rules.insert(SYS_socketpair, vec![none_of(0, [AF_UNIX as u64])?]);
    // Without an address: a name for a Unix socket that the kernel chooses, and no file.
    rules.insert(SYS_bind, vec![none_of(2, [size_of::<sa_family_t>() as u64])?]);
    rules.insert(SYS_ioctl, vec![none_of(1, IOCTLS.iter().copied())?]);
    let more: &[c_int] = if extras.ublk { PRCTLS_WITH_UBLK } else { &[] };
    rules.insert(SYS_prctl, vec![none_of(0, PRCTLS.iter().chain(more).map(|option| *option as u64))?]);
    rules.insert(SYS_mmap, vec![any_bit(2, PROT_EXEC as u64)?]);
    rules.insert(SYS_mprotect, vec![any_bit(2, PROT_EXEC as u64)?]);
    // Limits of, and signals to, this process alone.
    rules.insert(SYS_prlimit64, vec![none_of(0, [0])?]);
    rules.insert(SYS_tgkill, vec![none_of(0, [std::process::id().into()])?]);
    let mut clone = NAMESPACES.iter().map(|flag| any_bit(0, *flag as u64)).collect::<Result<Vec<_>, _>>()?;
    // Threads, but no processes.
    let is_process = SeccompCmpOp::MaskedEq(CLONE_THREAD as u64);
    clone.push(rule(vec![condition(0, is_process, 0)?])?);
    // clone3 has its flags where a filter cannot look, and is unknown; libraries then use this one.
    rules.insert(SYS_clone, clone);
    Ok(rules)
}

/// Matches when an argument is none of these numbers. The kernel looks at the lower 32 bits of such arguments.
fn none_of(argument: u8, numbers: impl IntoIterator<Item = u64>) -> Result<SeccompRule, BackendError> {
    let differs = |number| condition(argument, SeccompCmpOp::Ne, number);
    rule(numbers.into_iter().map(differs).collect::<Result<_, _>>()?)
}

/// Matches when an argument has this bit.
fn any_bit(argument: u8, bit: u64) -> Result<SeccompRule, BackendError> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(bit), bit)?])
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value & u64::from(u32::MAX))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_can_be_made_for_every_choice() {
        for (rings, ublk) in [(false, false), (true, false), (true, true)] {
            let extras = Extras { rings, ublk };
            let refused = refused(extras).unwrap();
            assert!(refused.contains_key(&SYS_clone) && !refused.contains_key(&SYS_clone3));
            program(refused, SeccompAction::Errno(1), SeccompAction::Allow).unwrap();
            let calls: Vec<_> = allowed(extras).collect();
            assert!(!calls.contains(&SYS_fchmodat));
            assert_eq!(calls.contains(&SYS_io_uring_setup), ublk);
            assert_eq!(calls.contains(&SYS_io_uring_enter), rings || ublk);
            assert_eq!(calls.contains(&SYS_mlockall), ublk);
        }
    }
}
