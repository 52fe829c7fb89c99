//! What a worker has to know of the one before it, beside the store: the configuration as it was read, knobs as they were set since, and disks. A small
//! memory file of its own, replaced as a whole with each change.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tmem_control::{DiskSpec, KnobValues};
use tmem_faults::Point;
use tmem_keeper::Estate;

/// What the keeper knows it by.
const NAME: &str = "memo";
const FILE_NAME: &str = "tmem-memo";

/// See the module. A version that reads it takes what it knows, and refuses disks that it does not understand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memo {
    /// The configuration file's text, if there was one.
    pub(crate) config: Option<String>,
    /// All that are not clients'.
    pub(crate) knobs: KnobValues,
    /// With addresses and devices as they came to be.
    pub(crate) disks: Vec<DiskSpec>,
    /// When the first worker started, in seconds since the host's start.
    pub(crate) first_started: u64,
    /// The least epoch that this host may begin in its cluster: another began one under its name.
    #[serde(default)]
    pub(crate) least_epoch: Option<u64>,
}

impl Memo {
    /// The one that was left, if any.
    ///
    /// # Errors
    /// It cannot be read: another version may have written it.
    pub(crate) fn left(estate: &Estate) -> Result<Option<Memo>> {
        let Some(file) = estate.take(NAME) else { return Ok(None) };
        Self::read(file).context("cannot read what the worker before this one has left").map(Some)
    }

    fn read(file: OwnedFd) -> Result<Memo> {
        let mut file = File::from(file);
        file.rewind()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn write(&self) -> io::Result<File> {
        let mut file = File::from(tmem_store::new_memory_file(FILE_NAME)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(file)
    }
}

/// Keeps the memo as things are.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    estate: Arc<Estate>,
    memo: Arc<Mutex<Memo>>,
}

impl Memory {
    /// Begins with this, which is left to the next worker at once.
    pub(crate) fn new(estate: Arc<Estate>, memo: Memo) -> Result<Memory> {
        let memory = Memory { estate, memo: Arc::default() };
        memory.change(|changed| *changed = memo)?;
        Ok(memory)
    }

    /// Changes it. When this returns, the next worker will know. Errors: there is no memory for it, or the keeper is gone.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Memo)) -> Result<()> {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = memo.clone();
        change(&mut changed);
        let file =
            changed.write().context("cannot make a memory file for what the next worker has to know")?;
        tmem_faults::pass(Point::Memo);
        self.estate.keep(NAME, file.as_fd()).context("cannot leave it to the keeper")?;
        tmem_faults::pass(Point::Memo);
        *memo = changed;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_read_as_it_was_written() {
        let config = "[[disk]]\nname = \"vm1\"\nsize = \"1G\"\nnbd = \"127.0.0.1:10809\"\nweight = 7\n";
        let parsed = tmem_control::Config::parse(config, "x".as_ref()).expect("parses");
        let knobs = [("reserve".to_owned(), "2G".to_owned())].into();
        let memo = Memo {
            config: Some(config.to_owned()),
            knobs,
            disks: parsed.disks,
            first_started: 7,
            least_epoch: None,
        };
        let file = memo.write().expect("written");
        let read = Memo::read(file.into()).expect("read");
        assert_eq!((read.config, read.knobs, read.disks), (memo.config, memo.knobs, memo.disks));
    }

    #[test]
    fn what_another_version_wrote_is_refused_by_name() {
        let memo = r#"{"config":null,"knobs":{},"disks":[{"name":"a","size_bytes":1048576,"carrier-pigeon":"x"}],
            "first_started":0}"#;
        let mut file = Memo::default().write().expect("made");
        file.set_len(0).expect("cut");
        file.rewind().expect("rewound");
        file.write_all(memo.as_bytes()).expect("written");
        assert!(Memo::read(file.into()).expect_err("refused").to_string().contains("carrier-pigeon"));
    }
}
