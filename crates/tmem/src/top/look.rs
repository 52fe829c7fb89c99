//! What is asked each time.

use std::time::Instant;

use tmem_control::{AdminClient, ControlError, HostMemory, Status};

/// What was seen at one moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When.
    pub(super) at: Instant,
    /// What the daemon said.
    pub(super) status: Status,
    /// The host's memory; `None` where the kernel does not say.
    pub(super) host: Option<HostMemory>,
}

/// Looks now.
///
/// # Errors
/// No daemon, or it broke off.
pub(super) fn look(client: &AdminClient) -> Result<Look, ControlError> {
    let status = client.status()?;
    Ok(Look { at: Instant::now(), status, host: HostMemory::read().ok() })
}
