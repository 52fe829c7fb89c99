//! Pages in this program's memory.

use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::Path,
};

use crate::error::BenchError;

/// Bytes of a page, the unit of everything.
pub const PAGE_BYTES: usize = 4096;

/// A page where O_DIRECT wants it: at an address that is a multiple of its size.
#[derive(Clone)]
#[repr(C, align(4096))]
pub(crate) struct Page(pub(crate) [u8; PAGE_BYTES]);

impl Page {
    /// A page of one repeated byte.
    pub(crate) fn filled(byte: u8) -> Self {
        Self([byte; PAGE_BYTES])
    }

    /// Whether the page repeats one 8-byte word.
    pub(crate) fn is_same_filled(&self) -> bool {
        self.0[8..] == self.0[..PAGE_BYTES - 8]
    }
}

/// Reads a file of raw pages. Errors: it is missing, empty, or not a whole number of pages.
pub(crate) fn read_file(path: &Path) -> Result<Vec<Page>, BenchError> {
    let name = path.display();
    let unreadable = |error| BenchError::Pages(format!("{name}: cannot be read: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let not_whole = || BenchError::Pages(format!("{name}: {bytes} bytes are not a number of 4 KiB pages"));
    if bytes == 0 || bytes % PAGE_BYTES as u64 != 0 {
        return Err(not_whole());
    }
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut pages = vec![Page::filled(0); (bytes / PAGE_BYTES as u64) as usize];
    for page in &mut pages {
        file.read_exact(&mut page.0).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => not_whole(),
            _ => unreadable(error),
        })?;
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_must_hold_whole_pages() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (len, fits) in [(0, false), (4096, true), (5000, false), (8192, true)] {
            fs::write(file.path(), vec![1; len]).unwrap();
            assert_eq!(read_file(file.path()).is_ok(), fits, "{len}");
        }
        let missing = read_file(Path::new("/no/such/pages")).err().unwrap().to_string();
        assert!(missing.starts_with("/no/such/pages") && missing.contains("bench/corpus"), "{missing}");
    }

    #[test]
    fn one_word_repeated_is_same_filled() {
        let mut page = Page::filled(7);
        assert!(page.is_same_filled());
        page.0[4095] = 8;
        assert!(!page.is_same_filled());
    }
}
