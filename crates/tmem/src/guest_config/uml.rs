//! User-mode Linux: a kernel parameter. Its memory is a shared file already.

use anyhow::{Result, bail};

use super::{Guest, shell_lines};

/// The id of a block device in virtio's list.
const VIRTIO_ID_BLOCK: u32 = 2;

pub(super) fn arguments(guest: &Guest<'_>) -> Result<Vec<String>> {
    let Guest { name, socket, memory, .. } = guest;
    if socket.contains(|c: char| c.is_whitespace() || c == ':' || c == '"') {
        bail!(
            "disk {name}: the kernel's command line cannot carry the path {socket}; add the disk again without spaces, colons and quotes in it"
        );
    }
    Ok(vec![format!("mem={memory}"), format!("virtio_uml.device={socket}:{VIRTIO_ID_BLOCK}")])
}

pub(super) fn instructions(guest: &Guest<'_>) -> Result<String> {
    Ok(format!("# Add to the linux.uml command line:\n{}", shell_lines(&arguments(guest)?)))
}
