//! The pages that are written: real ones, from a file or from a program started for it.

use std::{fs, path::Path};

use crate::{error::BenchError, page::PAGE_BYTES, sample};

/// How many pages to take of a program when no file was given: 64 MiB.
const SAMPLE_PAGES: u64 = 16_384;

/// Page content, one page behind the other.
pub(crate) struct Content {
    /// Whole pages, at least one.
    pub(crate) bytes: Vec<u8>,
    /// Where they come from, in words.
    pub(crate) source: String,
}

impl Content {
    /// Reads the pages of `file`, or of a freshly started `python3` when there is none.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self, BenchError> {
        let (bytes, source) = match file {
            Some(path) => {
                let name = path.display().to_string();
                let bytes = fs::read(path)
                    .map_err(|error| BenchError::Pages(format!("{name}: cannot be read: {error}")))?;
                (bytes, name)
            }
            None => (sample::python_pages(SAMPLE_PAGES)?, "memory of python3".into()),
        };
        if bytes.is_empty() || bytes.len() % PAGE_BYTES != 0 {
            let len = bytes.len();
            return Err(BenchError::Pages(format!("{source}: {len} bytes are not a number of 4 KiB pages")));
        }
        Ok(Self { bytes, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_hold_whole_pages() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (len, fits) in [(0, false), (4096, true), (5000, false), (8192, true)] {
            fs::write(file.path(), vec![1; len]).unwrap();
            assert_eq!(Content::load(Some(file.path())).is_ok(), fits, "{len}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Content::load(Some(Path::new("/no/such/pages"))).err().unwrap().to_string();
        assert!(error.starts_with("/no/such/pages") && error.contains("bench/corpus"), "{error}");
    }

    #[test]
    fn without_a_file_pages_come_from_a_program() {
        let content = Content::load(None).unwrap();
        let distinct: std::collections::HashSet<&[u8]> = content.bytes.chunks_exact(PAGE_BYTES).collect();
        assert!(distinct.len() > 100, "{} distinct pages", distinct.len());
    }
}
