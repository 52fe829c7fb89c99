//! libvirt: a `vhostuser` disk (libvirt 7.1 or later) and shared memory backing.

use super::Guest;

const KIB: u64 = 1 << 10;

pub(super) fn instructions(guest: &Guest<'_>) -> String {
    format!(
        "# With `virsh edit`, into <domain>: memory that tmem may share (it has to be all of the guest's).\n\
         <memory unit='KiB'>{memory}</memory>\n\
         <memoryBacking>\n\
        \x20 <source type='memfd'/>\n\
        \x20 <access mode='shared'/>\n\
         </memoryBacking>\n\n\
         # Into <devices>; choose a target that is free.\n\
         <disk type='vhostuser' device='disk' snapshot='no'>\n\
        \x20 <driver name='qemu' type='raw' queues='{queues}'/>\n\
        \x20 <source type='unix' path='{socket}'/>\n\
        \x20 <target dev='vdz' bus='virtio'/>\n\
         </disk>\n\n\
         # libvirt runs QEMU as a user of its own (libvirt-qemu on Debian), which must be let in to the socket:\n\
         setfacl -m u:libvirt-qemu:rw {shell_socket}\n",
        memory = guest.memory.bytes() / KIB,
        queues = guest.queues,
        socket = xml_escaped(guest.socket),
        shell_socket = super::shell_quoted(guest.socket),
    )
}

pub(super) fn xml_escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('\'', "&apos;")
        .replace('"', "&quot;")
}
