//! Tells systemd how the service is doing.

use tmem_keeper::{Busy, Manager};

/// The daemon serves. `status` is shown by `systemctl status`.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// The daemon is on its way out.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping");
}

/// Without systemd nothing happens; a systemd that cannot be told is logged, and the daemon goes on.
fn tell(state: &str) {
    let told = Manager::from_environment(Busy::Wait)
        .and_then(|manager| manager.map_or(Ok(()), |manager| manager.tell(state.as_bytes())));
    if let Err(error) = told {
        log::warn!("cannot tell systemd: {error}");
    }
}
