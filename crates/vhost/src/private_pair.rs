//! A socket pair for a library that insists on accepting.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tmem_transport::{bind, directory_of};

/// A listener with one connection to it already waiting, for a library that insists on accepting. The file
/// between them exists for a moment, beside `socket`, for the daemon's own user alone.
pub(crate) fn private_pair(socket: &Path) -> io::Result<(UnixListener, UnixStream)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = directory_of(socket).join(format!(".tmem-{}-{number:x}", std::process::id()));
    let listener = bind(&path, 0o600)?;
    let stream = UnixStream::connect(&path);
    fs::remove_file(&path)?;
    Ok((listener, stream?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_pair_is_connected_and_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let (listener, stream) = private_pair(&directory.path().join("s")).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let (other, _) = listener.accept().unwrap();
        drop(stream);
        assert_eq!(io::Read::read(&mut &other, &mut [0]).unwrap(), 0);
    }
}
