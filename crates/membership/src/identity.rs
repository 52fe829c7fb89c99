//! Which node this is, and in which stretch of its life.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tmem_cluster::{Epoch, NodeId, NodeName};

use crate::{ClusterId, MembershipError, directory::Directory, directory::EPOCH, directory::NODE, random};

/// A node as its directory says. One process at a time has it.
///
/// Its epoch is a number in a file. It grows each time the memory that is lent starts empty ([`Identity::advance_epoch`]), and stays when a
/// process takes over what another one held.
#[derive(Debug)]
pub struct Identity {
    directory: Directory,
    cluster: ClusterId,
    name: NodeName,
    nonce: String,
    life: Mutex<Life>,
}

/// A stretch of a node's life. Its number is compared with others; what was drawn with it tells it from the one that a copy of this
/// directory has begun under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) epoch: Epoch,
    pub(crate) drawn: u64,
}

/// `node.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    cluster: ClusterId,
    name: String,
    nonce: String,
}

impl Identity {
    /// Writes the files of a node that has not lived yet; its epochs begin after `before`.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub(crate) fn create(
        directory: &Directory,
        cluster: ClusterId,
        name: NodeName,
        before: Epoch,
    ) -> Result<Self, MembershipError> {
        let nonce = format!("{:032x}", u128::from_le_bytes(random::bytes()?));
        let life = Life { epoch: before, drawn: 0 };
        directory.write(EPOCH, &life.text())?;
        let file = NodeFile { cluster, name: name.to_string(), nonce: nonce.clone() };
        let text = serde_json::to_string_pretty(&file).map_err(|error| damaged(directory, NODE, error))?;
        directory.write(NODE, &(text + "\n"))?;
        Ok(Self { directory: directory.clone(), cluster, name, nonce, life: Mutex::new(life) })
    }

    /// The node whose directory this is, in the epoch that it was in last.
    ///
    /// # Errors
    /// A directory without a cluster; files that cannot be read or are damaged.
    pub fn load(directory: &Path) -> Result<Self, MembershipError> {
        let directory = Directory::at(directory);
        let text = directory.read(NODE)?;
        let file: NodeFile = serde_json::from_str(&text).map_err(|error| damaged(&directory, NODE, error))?;
        let name = file.name.parse().map_err(|error| damaged(&directory, NODE, error))?;
        let text = directory.read(EPOCH)?;
        let life = Life::read(&text).ok_or_else(|| damaged(&directory, EPOCH, "no epoch in it"))?;
        Ok(Self { directory, cluster: file.cluster, name, nonce: file.nonce, life: Mutex::new(life) })
    }

    /// Its cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its name there.
    pub fn name(&self) -> NodeName {
        self.name
    }

    /// Its name as a number.
    pub fn node_id(&self) -> NodeId {
        self.name.node_id()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The epoch that it is in.
    pub fn epoch(&self) -> Epoch {
        self.life().epoch
    }

    /// Begins another stretch of its life, because the memory that is lent begins empty, or has to: in the next epoch, or in `at_least` if
    /// that is greater. When this returns, the disk has it.
    ///
    /// # Errors
    /// The file cannot be written. The epoch is then what it was, and nothing may be lent: what was lent in it before would be mistaken for
    /// what is lent now.
    pub fn advance_epoch(&self, at_least: Option<Epoch>) -> Result<Epoch, MembershipError> {
        let mut life = self.lock();
        let path = || self.directory.file(EPOCH);
        let next = life.epoch.0.checked_add(1).ok_or_else(|| MembershipError::LastEpoch { path: path() })?;
        let epoch = Epoch(at_least.map_or(next, |least| least.0.max(next)));
        let new = Life { epoch, drawn: u64::from_le_bytes(random::bytes()?) };
        self.directory.write(EPOCH, &new.text())?;
        *life = new;
        Ok(epoch)
    }

    pub(crate) fn life(&self) -> Life {
        *self.lock()
    }

    /// Drawn with the directory: who has it is this host, or a copy of it.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        // What is in there is changed as a whole.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn text(self) -> String {
        format!("{} {:016x}\n", self.epoch.0, self.drawn)
    }

    fn read(text: &str) -> Option<Self> {
        let (epoch, drawn) = text.strip_suffix('\n')?.split_once(' ')?;
        let life = Self { epoch: Epoch(epoch.parse().ok()?), drawn: u64::from_str_radix(drawn, 16).ok()? };
        (life.epoch.0 > 0).then_some(life)
    }
}

fn damaged(directory: &Directory, file: &str, why: impl ToString) -> MembershipError {
    let path: PathBuf = directory.file(file);
    let way_out = "move the directory away, and have this host invited again with `tmem cluster invite`";
    MembershipError::Damaged { path, why: why.to_string(), way_out }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn identity(path: &Path) -> Identity {
        let directory = Directory::at(path);
        directory.make_empty().unwrap();
        Identity::create(&directory, ClusterId(7), "host-a".parse().unwrap(), Epoch(1 << 32)).unwrap()
    }

    #[test]
    fn a_node_is_what_its_directory_says() {
        let directory = tempfile::tempdir().unwrap();
        let made = identity(directory.path());
        let read = Identity::load(directory.path()).unwrap();
        assert_eq!((read.cluster(), read.name(), read.nonce()), (ClusterId(7), made.name(), made.nonce()));
        assert_eq!(read.node_id(), made.name().node_id());
        assert_eq!((read.epoch(), read.life()), (made.epoch(), made.life()));
    }

    #[test]
    fn epochs_grow_and_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let mut last = identity(directory.path()).life();
        for at_least in [None, Some(Epoch(3)), Some(Epoch(5 << 32)), Some(Epoch(5 << 32)), None] {
            let identity = Identity::load(directory.path()).unwrap();
            assert_eq!(identity.life(), last);
            let epoch = identity.advance_epoch(at_least).unwrap();
            assert!(epoch > last.epoch && Some(epoch) >= at_least, "{epoch:?} after {last:?}");
            assert_ne!(identity.life().drawn, last.drawn);
            last = identity.life();
        }
        assert_eq!(last.epoch, Epoch((5 << 32) + 2));
    }

    #[test]
    fn an_epoch_that_the_disk_does_not_have_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let identity = identity(directory.path());
        let before = identity.life();
        // No file can take the place of a directory.
        fs::remove_file(directory.path().join(EPOCH)).unwrap();
        fs::create_dir(directory.path().join(EPOCH)).unwrap();
        let error = identity.advance_epoch(None).unwrap_err().to_string();
        assert!(error.contains("epoch cannot be written"), "{error}");
        assert_eq!(identity.life(), before);
    }

    #[test]
    fn damaged_files_are_named_and_no_file_is_no_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let error = Identity::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("tmem cluster init") && !error.contains('\n'), "{error}");
        identity(directory.path());
        let whole = fs::read_to_string(directory.path().join(EPOCH)).unwrap();
        for text in ["", "7", "0 0\n", "1 x\n", "1 2", "-1 2\n", &whole[..whole.len() - 1]] {
            fs::write(directory.path().join(EPOCH), text).unwrap();
            let error = Identity::load(directory.path()).unwrap_err().to_string();
            assert!(error.contains("epoch is damaged") && error.contains("invite"), "{error}");
        }
        fs::write(directory.path().join(NODE), "{\"cluster\": 7}").unwrap();
        let error = Identity::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("node.json is damaged") && !error.contains('\n'), "{error}");
    }
}
