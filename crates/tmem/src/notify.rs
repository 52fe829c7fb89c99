//! Tells systemd how the service is doing: datagrams to the socket it names in `NOTIFY_SOCKET`, as sd_notify(3) says.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

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
    let Some(target) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(target.as_bytes(), state) {
        log::warn!("cannot tell systemd on {}: {error}", target.display());
    }
}

fn send(target: &[u8], state: &str) -> io::Result<()> {
    let address = match target.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(target))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_abstract_names_are_reached() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("notify");
        let name = format!("tmem-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).expect("path");
        let by_name =
            SocketAddr::from_abstract_name(&name).and_then(|a| UnixDatagram::bind_addr(&a)).expect("name");
        for (socket, target) in
            [(by_path, path.as_os_str().as_bytes().to_vec()), (by_name, format!("@{name}").into_bytes())]
        {
            send(&target, "READY=1").expect("send");
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer).expect("receive");
            assert_eq!(&buffer[..length], b"READY=1");
        }
    }
}
