//! What system calls cost before and after a process has confined itself: `cargo run --release -p tmem-sandbox --example cost`. In turns, in
//! CPU time, and the least of many: what else the machine does is not to be seen in it.
//!
//! A call that is always let through, one whose arguments are looked at, and a byte through a socket and back.
#![allow(clippy::expect_used)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
};

use tmem_sandbox::{Confinement, Extras};

const CALLS: u32 = 2000;
const MEASUREMENTS: u32 = 200;
const ROUNDS: u32 = 3;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("measure") {
        if std::env::args().nth(2).as_deref() == Some("confined") {
            let extras = Extras { rings: true, ..Extras::default() };
            Confinement { extras, ..Confinement::default() }.apply().expect("confined");
        }
        return measure();
    }
    let program = std::env::current_exe().expect("this program");
    for round in 1..=ROUNDS {
        for how in ["as-it-is", "confined"] {
            print!("round {round} {how:9}");
            std::io::stdout().flush().expect("stdout");
            let status = Command::new(&program).args(["measure", how]).status().expect("this program again");
            assert!(status.success());
        }
    }
}

fn measure() {
    let (mut one, mut other) = UnixStream::pair().expect("sockets");
    // SAFETY: takes nothing.
    let always = nanoseconds(|| _ = unsafe { libc::syscall(libc::SYS_getppid) });
    // SAFETY: an address that is none is an error, after the filter has looked at it.
    let looked_at = nanoseconds(|| _ = unsafe { libc::syscall(libc::SYS_mprotect, 1, 0, 0) });
    let socket = nanoseconds(|| {
        one.write_all(b"!").expect("write");
        other.read_exact(&mut [0]).expect("read");
    });
    println!(" getppid {always:.0} ns, mprotect {looked_at:.0} ns, a byte through a socket {socket:.0} ns");
}

/// The least of so many measurements.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let mut measure = || {
        let start = cpu_nanoseconds();
        (0..CALLS).for_each(|_| call());
        (cpu_nanoseconds() - start) as f64 / f64::from(CALLS)
    };
    (0..MEASUREMENTS).map(|_| measure()).fold(f64::MAX, f64::min)
}

fn cpu_nanoseconds() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a time is written to, which lives until the call returns.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
