//! System calls, one by one: what a confined process can do, what it is refused, and what it dies of.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod common;

use std::{
    os::{fd::AsRawFd, unix::net::UnixStream},
    process::Command,
    ptr,
    sync::mpsc,
    thread,
    time::Duration,
};

use common::{call, child, confined, dies, errno};
use libc::{EBADF, EFAULT, EINVAL, ENOSYS, EPERM, c_long};
use tmem_sandbox::{Confinement, Extras, SandboxError};

fn with(extras: Extras) -> Confinement {
    Confinement { extras, ..Confinement::default() }
}

fn map(protection: libc::c_int) -> *mut libc::c_void {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping, where the kernel finds room.
    unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) }
}

#[test]
fn what_the_daemon_does_it_still_can() {
    confined(&Confinement::default(), |_| {
        let (tell, told) = mpsc::channel();
        let names = thread::Builder::new().name("worker".to_owned()).spawn(move || {
            thread::sleep(Duration::from_millis(1));
            tell.send(thread::current().name().map(str::to_owned)).unwrap();
        });
        assert_eq!(told.recv().unwrap().as_deref(), Some("worker"));
        names.unwrap().join().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        // SAFETY: a name that ends in 0.
        let memory = unsafe { libc::memfd_create(c"pages".as_ptr(), libc::MFD_CLOEXEC) };
        // SAFETY: takes numbers only.
        assert!(memory >= 0 && errno(unsafe { libc::ftruncate(memory, 8192) }.into()).is_none());
        let pages = map(libc::PROT_READ | libc::PROT_WRITE);
        assert_ne!(pages, libc::MAP_FAILED);
        // SAFETY: a page that was just mapped, and is not used.
        assert_eq!(errno(unsafe { libc::madvise(pages, 4096, libc::MADV_DONTDUMP) }.into()), None);
        // SAFETY: as before.
        assert_eq!(errno(unsafe { libc::mprotect(pages, 4096, libc::PROT_NONE) }.into()), None);
        // A queue of a guest looks like that whether it was kicked.
        let kick = call(libc::SYS_eventfd2, [0; 5]);
        assert_eq!(kick, None);
        let looked = call(libc::SYS_preadv2, [one.as_raw_fd() as u64, 0, 0, u64::MAX, u64::MAX]);
        assert_ne!(looked, Some(ENOSYS));
        drop((one, other));
        vec![0u8; 64 << 20].iter().for_each(|byte| assert_eq!(*byte, 0));
    });
}

#[test]
fn sockets_are_of_three_families() {
    confined(&Confinement::default(), |_| {
        let socket = |family: libc::c_int, kind: libc::c_int| {
            call(libc::SYS_socket, [family as u64, kind as u64, 0, 0, 0])
        };
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, libc::SOCK_STREAM), None, "{family}");
        }
        for family in [libc::AF_NETLINK, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_XDP, -1] {
            assert_eq!(socket(family, libc::SOCK_RAW), Some(EPERM), "{family}");
        }
        // The kernel looks at 32 bits.
        let disguised = 1 << 32 | libc::AF_NETLINK as u64;
        assert_eq!(call(libc::SYS_socket, [disguised, libc::SOCK_RAW as u64, 0, 0, 0]), Some(EPERM));
    });
}

/// One child for each, because none survives.
#[test]
fn what_only_an_attack_would_do_is_deadly() {
    let path = c"/proc/self/exe".as_ptr() as u64;
    let parent = u64::from(std::process::id());
    let deadly: &[(&str, c_long, [u64; 5])] = &[
        ("execve", libc::SYS_execve, [path, 0, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [0, path, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as u64, parent, 0, 0, 0]),
        ("process_vm_readv", libc::SYS_process_vm_readv, [parent, 0, 0, 0, 0]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [parent, 0, 0, 0, 0]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, [0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [path, path, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [path, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [path, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, 0, 0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, 0, 0, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0, 0, 0]),
        ("personality", libc::SYS_personality, [0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [path, 0, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [path, 0, 0, 0, 0]),
    ];
    for (name, number, arguments) in deadly {
        for ublk in [false, true] {
            dies(&with(Extras { ublk, ..Extras::default() }), name, || {
                call(*number, *arguments);
            });
        }
    }
    // As a library would do it: in a child, which dies of it, or not at all.
    confined(&Confinement::default(), |_| {
        Command::new("/bin/true").status().expect_err("no process to run it in");
    });
}

/// Programs of other architectures number their calls in other ways.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_by_other_numbers_lead_nowhere() {
    confined(&Confinement::default(), |_| {
        // mount, and getpid, as x32 programs call them.
        assert_eq!(call(0x4000_0000 | libc::SYS_mount, [0; 5]), Some(ENOSYS));
        assert_eq!(call(0x4000_0000 | libc::SYS_getpid, [0; 5]), Some(ENOSYS));
    });
    let (end, said) = child(|| {
        Confinement::default().apply().unwrap();
        // SAFETY: getpid, as 32-bit programs call it, which changes nothing but what is said here.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20u64 => _, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
        };
    });
    // A kernel without such programs has no such interrupt.
    assert!(matches!(end, common::End::Killed(libc::SIGSYS | libc::SIGSEGV)), "{end:?} {said}");
}

#[test]
fn nothing_becomes_executable() {
    confined(&Confinement::default(), |_| {
        let write = libc::PROT_READ | libc::PROT_WRITE;
        for protection in [libc::PROT_EXEC, libc::PROT_READ | libc::PROT_EXEC, write | libc::PROT_EXEC] {
            assert_eq!(map(protection), libc::MAP_FAILED);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(EPERM));
            let page = map(write);
            // SAFETY: a page that was just mapped, and is not used.
            assert_eq!(errno(unsafe { libc::mprotect(page, 4096, protection) }.into()), Some(EPERM));
        }
        assert_eq!(call(libc::SYS_pkey_mprotect, [0, 4096, libc::PROT_EXEC as u64, 0, 0]), Some(ENOSYS));
    });
}

#[test]
fn threads_are_made_but_no_processes_nor_namespaces() {
    confined(&with(Extras { ublk: true, rings: true }), |_| {
        let clone = |flags: libc::c_int| call(libc::SYS_clone, [flags as u64, 0, 0, 0, 0]);
        assert_eq!(clone(libc::SIGCHLD), Some(EPERM));
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            assert_eq!(clone(flag | libc::CLONE_THREAD), Some(EPERM));
        }
        // With neither memory nor signals in common it is no thread, which the kernel says itself.
        assert_eq!(clone(libc::CLONE_THREAD), Some(EINVAL));
        // Newer than a filter can look into: libraries fall back to the above.
        assert_eq!(call(libc::SYS_clone3, [0; 5]), Some(ENOSYS));
        #[cfg(target_arch = "x86_64")]
        assert_eq!((call(libc::SYS_fork, [0; 5]), call(libc::SYS_vfork, [0; 5])), (Some(EPERM), Some(EPERM)));
        thread::spawn(|| ()).join().unwrap();
    });
}

/// A thread made later has nothing that the first one had not.
#[test]
fn threads_are_confined_as_their_maker_is() {
    confined(&Confinement::default(), |_| {
        let refused = thread::spawn(|| call(libc::SYS_socket, [libc::AF_NETLINK as u64, 3, 0, 0, 0])).join();
        assert_eq!(refused.unwrap(), Some(EPERM));
    });
}

#[test]
fn settings_are_of_the_harmless_kind() {
    confined(&Confinement::default(), |_| {
        let prctl = |option: libc::c_int, value: u64| call(libc::SYS_prctl, [option as u64, value, 0, 0, 0]);
        assert_eq!(prctl(libc::PR_SET_NAME, c"name".as_ptr() as u64), None);
        for option in [libc::PR_SET_DUMPABLE, libc::PR_SET_PTRACER, libc::PR_SET_SECCOMP, libc::PR_SET_MM] {
            assert_eq!(prctl(option, 1), Some(EPERM), "{option}");
        }
        let (one, _other) = UnixStream::pair().unwrap();
        let ioctl = |request: u64| call(libc::SYS_ioctl, [one.as_raw_fd() as u64, request, 0, 0, 0]);
        assert_eq!(ioctl(libc::FIONREAD), Some(EFAULT));
        assert_eq!(ioctl(libc::TIOCSTI), Some(EPERM));
        assert_eq!(ioctl(libc::SIOCGIFCONF), Some(EPERM));
        let limit = |pid: u64| call(libc::SYS_prlimit64, [pid, libc::RLIMIT_NOFILE.into(), 0, 0, 0]);
        assert_eq!((limit(0), limit(1)), (None, Some(EPERM)));
        assert_eq!(call(libc::SYS_seccomp, [0; 5]), Some(EPERM));
    });
}

#[test]
fn rings_are_made_and_used_by_whoever_needs_them() {
    let enter = || call(libc::SYS_io_uring_enter, [u64::from(u32::MAX), 0, 0, 0, 0]);
    let setup = || call(libc::SYS_io_uring_setup, [0; 5]);
    let lock = || call(libc::SYS_mlockall, [0; 5]);
    let answers = |extras| {
        move |expected: [bool; 3]| {
            confined(&with(extras), |_| {
                let answers = [enter(), setup(), lock()];
                assert_eq!(answers.map(|answer| answer != Some(ENOSYS)), expected, "{extras:?}: {answers:?}");
            });
        }
    };
    answers(Extras::default())([false, false, false]);
    answers(Extras { rings: true, ..Extras::default() })([true, false, false]);
    answers(Extras { ublk: true, ..Extras::default() })([true, true, true]);
    confined(&with(Extras { rings: true, ..Extras::default() }), |_| assert_eq!(enter(), Some(EBADF)));
}

#[test]
fn other_threads_are_an_error_and_nothing_has_changed() {
    let (end, said) = child(|| {
        let (stop, stopped) = mpsc::channel::<()>();
        let other = thread::spawn(move || stopped.recv().is_err());
        let error = Confinement::default().apply().unwrap_err();
        assert!(matches!(error, SandboxError::OtherThreads { threads: 2 }), "{error}");
        drop(stop);
        other.join().unwrap();
        assert_eq!(call(libc::SYS_socket, [libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0, 0, 0]), None);
        // Without the other thread it works; a moment may pass until the kernel has taken it off its list.
        let applied = (0..1000).find_map(|_| {
            thread::sleep(Duration::from_millis(1));
            Confinement::default().apply().ok()
        });
        assert!(applied.is_some());
    });
    assert_eq!(end, common::End::Exited(common::FINE), "{said}");
}
