//! The file that is written: there whole under its name, or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use crate::error::BenchError;

/// A file that gets its name when it is finished. Dropped before, nothing is left of it.
///
/// Only its owner can read it: it holds what a process had in memory.
pub(super) struct Output {
    file: BufWriter<File>,
    half_done: TempPath,
    path: PathBuf,
    replace: bool,
}

impl Output {
    /// Errors: the path is taken and not to be replaced, or its folder cannot be written to.
    pub(super) fn begin(path: &Path, replace: bool) -> Result<Self, BenchError> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.is_file() => return Err(BenchError::OutputNotAFile(path.into())),
            Ok(_) if !replace => return Err(BenchError::OutputExists(path.into())),
            _ => {}
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".tmem-sample-").tempfile_in(folder);
        // Only the kind: the rest of the message names a file that the caller never asked for.
        let failed = |error: io::Error| BenchError::Output { path: path.into(), error: error.kind().into() };
        let (file, half_done) = file.map_err(failed)?.into_parts();
        Ok(Self { file: BufWriter::with_capacity(1 << 20, file), half_done, path: path.into(), replace })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BenchError> {
        self.file.write_all(bytes).map_err(|error| BenchError::Output { path: self.path.clone(), error })
    }

    /// Gives the file its name.
    pub(super) fn finish(mut self) -> Result<(), BenchError> {
        self.file.flush().map_err(|error| BenchError::Output { path: self.path.clone(), error })?;
        let Self { half_done, path, replace, .. } = self;
        let named = if replace { half_done.persist(&path) } else { half_done.persist_noclobber(&path) };
        named.map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => BenchError::OutputExists(path),
            _ => BenchError::Output { path, error: error.error },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let mut output = Output::begin(&path, false).unwrap();
        output.write(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut output = Output::begin(&path, false).unwrap();
        output.write(b"whole").unwrap();
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(matches!(Output::begin(&path, false), Err(BenchError::OutputExists(_))));
        Output::begin(&path, true).unwrap().finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert!(matches!(Output::begin(folder.path(), true), Err(BenchError::OutputNotAFile(_))));
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pages");
        let output = Output::begin(&path, false).unwrap();
        fs::write(&path, "somebody else's").unwrap();
        assert!(matches!(output.finish(), Err(BenchError::OutputExists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
    }
}
