//! QEMU: `vhost-user-blk-pci` on a character device, guest memory in a shared memfd.

use super::{Guest, shell_lines};

pub(super) fn arguments(guest: &Guest<'_>) -> Vec<String> {
    let memory = guest.memory;
    let Guest { name, queues, .. } = guest;
    // In QEMU's option lists a comma ends a value, and two stand for one.
    let socket = guest.socket.replace(',', ",,");
    [
        "-m".to_owned(),
        memory.to_string(),
        "-object".to_owned(),
        format!("memory-backend-memfd,id=mem,size={memory},share=on"),
        "-numa".to_owned(),
        "node,memdev=mem".to_owned(),
        "-chardev".to_owned(),
        format!("socket,id=tmem-{name},path={socket}"),
        "-device".to_owned(),
        format!("vhost-user-blk-pci,chardev=tmem-{name},num-queues={queues}"),
    ]
    .into()
}

pub(super) fn instructions(guest: &Guest<'_>) -> String {
    format!(
        "# Add to the QEMU command line. All of the guest's memory must be in the shared memfd: keep -m and size= alike, and\n\
         # give the first three options once, however many disks there are.\n{}",
        shell_lines(&arguments(guest))
    )
}
