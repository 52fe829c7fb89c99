//! Firecracker: a drive with `socket` instead of a file (a developer preview there). It puts guest memory into a shared
//! memfd by itself as soon as there is such a drive.

use super::Guest;

const MIB: u64 = 1 << 20;

pub(super) fn instructions(guest: &Guest<'_>) -> String {
    // Firecracker takes letters, digits and underscores in a drive's id.
    let id: String = guest.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    // The same rules of escaping hold for a JSON string, and Rust's own differ only where control characters are.
    let socket = guest.socket.replace('\\', "\\\\").replace('"', "\\\"");
    let drive =
        format!("{{\"drive_id\": \"tmem_{id}\", \"socket\": \"{socket}\", \"is_root_device\": false}}");
    format!(
        "# Before the guest starts, on Firecracker's API socket. Memory needs no flag: Firecracker shares it by itself.\n\
         curl --unix-socket \"$FIRECRACKER_SOCKET\" -X PUT http://localhost/machine-config -H 'Content-Type: application/json' \\\n\
        \x20 -d '{{\"vcpu_count\": 1, \"mem_size_mib\": {mib}}}'\n\
         curl --unix-socket \"$FIRECRACKER_SOCKET\" -X PUT http://localhost/drives/tmem_{id} -H 'Content-Type: application/json' \\\n\
        \x20 -d {drive}\n\n\
         # Or in \"drives\" of its configuration file:\n{plain}\n",
        mib = guest.memory.bytes() / MIB,
        drive = super::shell_quoted(&drive),
        plain = drive,
    )
}
