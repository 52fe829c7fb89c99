//! The directory of a node: which files are in it, and how they are written.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::MembershipError;

/// Which cluster and which node; written last, so that where it is, everything is.
pub(crate) const NODE: &str = "node.json";
/// The stretch of the node's life.
pub(crate) const EPOCH: &str = "epoch";
/// The authority's certificate.
pub(crate) const AUTHORITY: &str = "ca.pem";
/// Its private key: on the host alone that made the cluster.
pub(crate) const AUTHORITY_KEY: &str = "ca-key.pem";
/// The node's certificate.
pub(crate) const CERTIFICATE: &str = "node.pem";
/// Its private key.
pub(crate) const KEY: &str = "node-key.pem";
/// How often each name was invited: beside the authority's key.
pub(crate) const INVITED: &str = "invited.json";

const ALL: [&str; 7] = [NODE, EPOCH, AUTHORITY, AUTHORITY_KEY, CERTIFICATE, KEY, INVITED];

/// A node's directory, which nobody but its owner may enter.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes it where it is missing, and sees that nothing of a cluster is in it.
    pub(crate) fn make_empty(&self) -> Result<(), MembershipError> {
        if self.file(NODE).exists() {
            return Err(MembershipError::AlreadyInACluster { directory: self.0.clone() });
        }
        if let Some(left) = ALL.iter().map(|name| self.file(name)).find(|path| path.exists()) {
            return Err(MembershipError::LeftOver { path: left, directory: self.0.clone() });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| failed(&self.0, "cannot be made", source))
    }

    pub(crate) fn read(&self, name: &str) -> Result<String, MembershipError> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if name == NODE => {
                MembershipError::NotInACluster { directory: self.0.clone() }
            }
            io::ErrorKind::NotFound if name == AUTHORITY_KEY => {
                MembershipError::NoAuthority { directory: self.0.clone() }
            }
            _ => failed(&path, "cannot be read", source),
        })
    }

    /// Puts a file there, in place of one that is there: after a crash it is the old or the new one, and once this returned the new one.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), MembershipError> {
        let path = self.file(name);
        let wrong = |source| failed(&path, "cannot be written", source);
        let beside = self.file(&format!("{name}.new"));
        // What is left of a write that was cut off: its mode may be anybody's.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => {}
        }
        write_new(&beside, text).map_err(wrong)?;
        fs::rename(&beside, &path).map_err(wrong)?;
        File::open(&self.0).and_then(|directory| directory.sync_all()).map_err(wrong)
    }
}

/// Makes a file that only its owner can read, and waits until it is on the disk.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

pub(crate) fn failed(path: &Path, what: &'static str, source: io::Error) -> MembershipError {
    MembershipError::File { path: path.to_owned(), what, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_is_its_owners_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(&temporary.path().join("a/cluster"));
        directory.make_empty().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(directory.path()), 0o700);
        // What a write left that was cut off.
        fs::write(directory.file("epoch.new"), "half").unwrap();
        for text in ["one", "two"] {
            directory.write(EPOCH, text).unwrap();
            assert_eq!(directory.read(EPOCH).unwrap(), text);
        }
        assert_eq!(mode(&directory.file(EPOCH)), 0o600);
        assert!(!directory.file("epoch.new").exists());
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::at(temporary.path());
        directory.write(AUTHORITY_KEY, "precious").unwrap();
        let error = directory.make_empty().unwrap_err().to_string();
        assert!(error.contains("ca-key.pem") && error.contains("move"), "{error}");
        directory.write(NODE, "{}").unwrap();
        assert!(matches!(directory.make_empty(), Err(MembershipError::AlreadyInACluster { .. })));
        assert_eq!(directory.read(AUTHORITY_KEY).unwrap(), "precious");
    }
}
