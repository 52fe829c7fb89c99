//! Who a confined process is, and that it stays so.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::fs;

use common::{call, child, confined, is_root};
use libc::EPERM;
use tmem_sandbox::{Capabilities, Capability, Confinement, PathAccess, SandboxError, User};

/// With a look at what the kernel shows of it.
fn seen(user: Option<User>, capabilities: Capabilities) -> Confinement {
    Confinement {
        user,
        capabilities,
        paths: vec![("/proc".into(), PathAccess::Read)],
        ..Confinement::default()
    }
}

fn field(name: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap();
    line.trim().to_owned()
}

const NONE: &str = "0000000000000000";
const SETS: [&str; 4] = ["CapPrm", "CapEff", "CapInh", "CapAmb"];

#[test]
fn privileges_are_gone_whoever_it_was() {
    confined(&seen(None, Capabilities::NONE), |confined| {
        assert_eq!((confined.user, confined.capabilities), (None, Some(Capabilities::NONE)));
        for set in SETS {
            assert_eq!(field(set), NONE, "{set}");
        }
        assert_eq!(field("CapBnd") == NONE, is_root());
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_NAME, [0u8; 16].as_mut_ptr()) }, 0);
    });
}

#[test]
fn root_becomes_a_user_for_good() {
    if !is_root() {
        return;
    }
    let nobody = User::named("nobody").unwrap();
    confined(&seen(Some(nobody), Capabilities::NONE), |confined| {
        assert_eq!(confined.user.as_deref(), Some("nobody"));
        let ids = field("Uid");
        let ids: Vec<_> = ids.split_whitespace().collect();
        assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0] && *id != "0"), "{ids:?}");
        assert!(field("Gid").split_whitespace().all(|id| id != "0"));
        assert_eq!(field("Groups"), "");
        for set in SETS.into_iter().chain(["CapBnd"]) {
            assert_eq!(field(set), NONE, "{set}");
        }
        for call_back in [libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setfsuid, libc::SYS_setgroups] {
            assert_eq!(call(call_back, [0; 5]), Some(EPERM));
        }
        assert_eq!(call(libc::SYS_setresuid, [0; 5]), Some(EPERM));
        assert_eq!(call(libc::SYS_capset, [0; 5]), Some(EPERM));
        // Not dumpable: the files of what it has in memory are root's.
        fs::read("/proc/self/status").unwrap();
        fs::read("/proc/self/maps").unwrap();
        assert_eq!(fs::read_dir("/proc/self/task").unwrap().count(), 1);
        fs::File::open("/proc/self/mem").unwrap_err();
    });
}

#[test]
fn capabilities_that_were_asked_for_stay() {
    if !is_root() {
        return;
    }
    let kept: Capabilities = [Capability::SysAdmin, Capability::IpcLock].into_iter().collect();
    for user in [None, Some(User::named("nobody").unwrap())] {
        confined(&seen(user, kept), |confined| {
            assert_eq!(confined.capabilities, Some(kept));
            for set in ["CapPrm", "CapEff", "CapBnd"] {
                assert_eq!(field(set), "0000000000204000", "{set}");
            }
            assert_eq!((field("CapInh").as_str(), field("CapAmb").as_str()), (NONE, NONE));
        });
    }
}

/// The kernel forgets that a process is to end with its parent when it becomes another user.
#[test]
fn it_still_ends_with_its_parent() {
    if !is_root() {
        return;
    }
    let (reading, writing) = std::os::unix::net::UnixStream::pair().unwrap();
    let (end, said) = child(|| {
        // SAFETY: what the child does is said below; it has one thread.
        if unsafe { libc::fork() } == 0 {
            // SAFETY: takes numbers only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
            seen(Some(User::named("nobody").unwrap()), Capabilities::NONE).apply().unwrap();
            std::io::Write::write_all(&mut &writing, b"!").unwrap();
            std::thread::sleep(std::time::Duration::from_secs(5));
            std::io::Write::write_all(&mut &writing, b"still here").unwrap();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(1) };
        }
        let mut byte = [0];
        std::io::Read::read_exact(&mut &reading, &mut byte).unwrap();
    });
    assert_eq!(end, common::End::Exited(common::FINE), "{said}");
    drop(writing);
    // The end of the stream: nobody has the other end any more, and nobody has said anything.
    assert_eq!(std::io::Read::read(&mut &reading, &mut [0]).unwrap(), 0);
}

/// What it has not got it cannot keep.
#[test]
fn nothing_is_gained() {
    let all: Capabilities =
        [Capability::SysAdmin, Capability::IpcLock, Capability::SysResource].into_iter().collect();
    let (end, said) = child(|| {
        if is_root() {
            seen(Some(User::named("nobody").unwrap()), Capabilities::NONE)
                .user
                .iter()
                .for_each(become_without);
        }
        let confined = seen(None, all).apply().unwrap();
        assert_eq!(confined.capabilities, Some(Capabilities::NONE));
        assert_eq!(field("CapEff"), NONE);
    });
    assert_eq!(end, common::End::Exited(common::FINE), "{said}");
}

/// As setpriv(1) would do it: an ordinary user.
fn become_without(_: &User) {
    // SAFETY: takes a number only.
    assert_eq!(unsafe { libc::setuid(65534) }, 0);
}

#[test]
fn only_root_becomes_somebody_else() {
    let (end, said) = child(|| {
        if is_root() {
            become_without(&User::named("nobody").unwrap());
        }
        let root = seen(Some(User::named("root").unwrap()), Capabilities::NONE);
        let confined = root.apply().unwrap();
        assert_eq!(confined.user, None);
        let [error] = &confined.refused[..] else { panic!("{:?}", confined.refused) };
        assert!(
            matches!(error, SandboxError::NotRoot { .. }) && error.to_string().contains("`root`"),
            "{error}"
        );
    });
    assert_eq!(end, common::End::Exited(common::FINE), "{said}");
}
