//! What a process runs in may refuse walls: it goes on with the others, and says which do not stand.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::{collections::BTreeMap, fs};

use common::{End, FINE, call, child, is_root};
use libc::{EPERM, c_long};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tmem_sandbox::{Confinement, PathAccess, PathWall, User};

/// Refuses calls, as a container may.
fn refuse(calls: &[c_long], action: SeccompAction) {
    // SAFETY: takes numbers only.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let rules: BTreeMap<_, _> = calls.iter().map(|call| (*call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    apply_filter(&program).unwrap();
}

fn confinement() -> Confinement {
    let user = is_root().then(|| User::named("nobody").unwrap());
    Confinement { user, paths: vec![("/proc".into(), PathAccess::Read)], ..Confinement::default() }
}

fn in_child(steps: impl FnOnce()) {
    let (end, said) = child(steps);
    assert_eq!(end, End::Exited(FINE), "{said}");
}

const LANDLOCK: [c_long; 3] =
    [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
const IDENTITY: [c_long; 4] =
    [libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid, libc::SYS_capset];

#[test]
fn everything_may_be_refused() {
    let calls = [&LANDLOCK[..], &IDENTITY, &[libc::SYS_prctl, libc::SYS_seccomp]].concat();
    for action in [SeccompAction::Errno(EPERM as u32), SeccompAction::Errno(libc::ENOSYS as u32)] {
        in_child(|| {
            refuse(&calls, action.clone());
            let confined = confinement().apply().unwrap();
            assert_eq!((confined.user, confined.capabilities, confined.system_calls), (None, None, false));
            assert!(matches!(confined.paths, PathWall::Absent | PathWall::Refused));
            assert!(confined.refused.len() >= 4, "{:?}", confined.refused);
            fs::read("/etc/passwd").unwrap();
        });
    }
}

#[test]
fn what_is_left_stands() {
    // As the default profile of some containers, which know no Landlock, and where nobody becomes anybody.
    let calls = [&LANDLOCK[..], &IDENTITY[..3]].concat();
    let is_root = is_root();
    in_child(|| {
        refuse(&calls, SeccompAction::Errno(EPERM as u32));
        let confined = confinement().apply().unwrap();
        assert!(confined.system_calls && confined.user.is_none());
        assert_eq!(confined.refused.len(), usize::from(is_root), "{:?}", confined.refused);
        assert!(matches!(confined.paths, PathWall::Absent | PathWall::Refused), "{}", confined.paths);
        assert_eq!(call(libc::SYS_kill, [1, 0, 0, 0, 0]), Some(EPERM));
    });
    in_child(|| {
        refuse(&[libc::SYS_landlock_restrict_self], SeccompAction::Errno(libc::E2BIG as u32));
        let confined = confinement().apply().unwrap();
        assert!(confined.system_calls && confined.user.is_some() == is_root);
        assert!(confined.refused.len() <= 1, "{:?}", confined.refused);
    });
}
