//! Memory files as another process would hold them, and their contents.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Mutex,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, fstat, ftruncate, memfd_create, seek},
    io::{Errno, pread, pwrite},
};
use tmem_store::FileKeeper;

use super::words::{Write, has_to_stay};

#[derive(Default)]
pub struct HeldFiles(Mutex<BTreeMap<String, OwnedFd>>);

/// Everything that is in the files of a store.
pub struct Contents(Vec<FileContents>);

struct FileContents {
    name: String,
    len_bytes: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl HeldFiles {
    /// To be handed over.
    pub fn all(&self) -> Vec<(String, OwnedFd)> {
        let files = self.0.lock().expect("a lock");
        files.iter().map(|(name, file)| (name.clone(), file.try_clone().expect("a descriptor"))).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.0.lock().expect("a lock").keys().cloned().collect()
    }

    pub fn contents(&self) -> Contents {
        let files = self.0.lock().expect("a lock");
        Contents(files.iter().map(|(name, file)| FileContents::read(name, file)).collect())
    }

    /// Carries out a write, if it is one that the store can be asked to bear.
    pub fn write(&self, write: &Write) {
        let files = self.0.lock().expect("a lock");
        let file = |number: u8| files.values().nth(usize::from(number) % files.len()).expect("some file");
        let Some(at) = held_word(file(write.file), write.at) else { return };
        let from = held_word(file(write.from_file()), write.from_at());
        let word = write.word(read_word(file(write.file), at), || {
            from.map_or(0, |from| read_word(file(write.from_file()), from))
        });
        if !has_to_stay(word) {
            pwrite(file(write.file), &word.to_le_bytes(), at).expect("a write");
        }
    }
}

fn read_word(file: &OwnedFd, at: u64) -> u64 {
    let mut bytes = [0; 8];
    pread(file, &mut bytes, at).expect("a read");
    u64::from_le_bytes(bytes)
}

/// Where the n-th word is of what the OS holds, round and round.
fn held_word(file: &OwnedFd, number: u16) -> Option<u64> {
    let ranges = held_ranges(file);
    let words: u64 = ranges.iter().map(|range| (range.end - range.start) / 8).sum();
    let mut number = u64::from(number).checked_rem(words)?;
    for range in ranges {
        let words = (range.end - range.start) / 8;
        if number < words {
            return Some(range.start + number * 8);
        }
        number -= words;
    }
    None
}

fn held_ranges(file: &OwnedFd) -> Vec<Range<u64>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return ranges,
            Err(error) => panic!("{error}"),
        };
        at = seek(file, SeekFrom::Hole(start)).expect("every file ends in a hole");
        ranges.push(start..at);
    }
}

impl FileContents {
    fn read(name: &str, file: &OwnedFd) -> FileContents {
        let part = |range: Range<u64>| {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            assert_eq!(pread(file, &mut bytes, range.start), Ok(bytes.len()));
            // Whole pages of zeroes at the end are as good as none.
            (range.start, bytes)
        };
        let len_bytes = fstat(file).expect("a file").st_size as u64;
        FileContents {
            name: name.to_owned(),
            len_bytes,
            parts: held_ranges(file).into_iter().map(part).collect(),
        }
    }

    fn write(&self) -> OwnedFd {
        let file = memfd_create(&*self.name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .expect("a memory file");
        ftruncate(&file, self.len_bytes).expect("a length");
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).expect("seals");
        for (at, bytes) in &self.parts {
            assert_eq!(pwrite(&file, bytes, *at), Ok(bytes.len()));
        }
        file
    }
}

impl Contents {
    pub fn write(&self) -> HeldFiles {
        HeldFiles(Mutex::new(self.0.iter().map(|file| (file.name.clone(), file.write())).collect()))
    }
}

impl FileKeeper for HeldFiles {
    fn keep(&self, name: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        let before = self.0.lock().expect("a lock").insert(name.to_owned(), file.try_clone_to_owned()?);
        assert!(before.is_none(), "two files of the name {name}");
        Ok(())
    }

    fn release(&self, name: &str) {
        let before = self.0.lock().expect("a lock").remove(name);
        assert!(before.is_some(), "{name} was released twice");
    }
}
