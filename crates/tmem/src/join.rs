//! Waiting for a thread of the daemon to end.

use std::thread::JoinHandle;

/// Waits for a thread that was told to end, once. That it panicked is logged: whoever is just being dropped can do no more.
pub(crate) fn join(thread: &mut Option<JoinHandle<()>>, name: &str) {
    if let Some(thread) = thread.take()
        && thread.join().is_err()
    {
        log::error!("the {name} thread panicked");
    }
}
