//! Cloud Hypervisor: `--disk vhost_user=on`, guest memory with `shared=on`.

use anyhow::{Result, bail};

use super::{Guest, shell_lines};

pub(super) fn arguments(guest: &Guest<'_>) -> Result<Vec<String>> {
    let Guest { name, socket, queues, memory, .. } = guest;
    if socket.contains([',', '"', '[', ']']) {
        bail!(
            "disk {name}: Cloud Hypervisor splits its options at the characters in {socket}; add the disk again with a plain path"
        );
    }
    Ok(vec![
        "--memory".to_owned(),
        format!("size={memory},shared=on"),
        "--disk".to_owned(),
        format!("vhost_user=on,socket={socket},num_queues={queues}"),
    ])
}

pub(super) fn instructions(guest: &Guest<'_>) -> Result<String> {
    Ok(format!(
        "# Add to the cloud-hypervisor command line. --disk is given once: further disks follow in the same --disk.\n{}",
        shell_lines(&arguments(guest)?)
    ))
}
