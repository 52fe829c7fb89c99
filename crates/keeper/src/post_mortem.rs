//! What can be seen of a hung worker from outside, before it is killed: where its threads are, in the kernel's words.
//!
//! Looking takes memory and files, which the keeper does not ask for after its start. So a child does it.

use std::{fmt::Write as _, fs};

/// Has a grandchild of this process say what the threads of `worker` are at; the child between the two ends at once, so that nobody has to wait
/// for the other.
pub(crate) fn describe(worker: libc::pid_t) {
    // SAFETY: this process has one thread, so its children may do anything. It is of no concern if they do not come to be.
    unsafe {
        match libc::fork() {
            0 => {
                if libc::fork() == 0 {
                    let text = threads_of(worker);
                    libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
                }
                libc::_exit(0)
            }
            child => {
                libc::waitpid(child, std::ptr::null_mut(), 0);
            }
        }
    }
}

fn threads_of(worker: libc::pid_t) -> String {
    let mut text = String::new();
    let tasks = fs::read_dir(format!("/proc/{worker}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let file = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = file("stat");
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?");
        let (name, waits, stack) = (file("comm"), file("wchan"), file("stack"));
        let waits = if waits.is_empty() || waits == "0" { "nothing" } else { waits.as_str() };
        let stack =
            stack.lines().map(|line| line.split_whitespace().last().unwrap_or("")).collect::<Vec<_>>();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "tmem: error: thread {} {} is in state {state}, waits in the kernel for {waits}; its stack there: {}",
            task.file_name().display(),
            name.trim(),
            stack.join(" ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_says_what_its_threads_are_at() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread =
            std::thread::Builder::new().name("waits".to_owned()).spawn(move || receiver.recv()).unwrap();
        let start = std::time::Instant::now();
        // A thread names itself, in its own time.
        while !threads_of(std::process::id() as libc::pid_t).contains(" waits is in state ") {
            assert!(start.elapsed().as_secs() < 20, "{}", threads_of(std::process::id() as libc::pid_t));
            std::thread::yield_now();
        }
        drop(sender);
        assert!(thread.join().unwrap().is_err());
    }
}
