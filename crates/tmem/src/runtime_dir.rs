//! The runtime directory: which one, and that at most one daemon owns it.

use std::{
    env,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};

const ROOT_DIR: &str = "/run/tmem";
const LOCK_FILE: &str = "lock";
/// Others may pass through to the guests' sockets, which have modes of their own; the admin socket is 0600.
const DIR_MODE: u32 = 0o755;

/// The directory that was asked for, or the default one.
pub(crate) fn resolve(asked: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(dir) = asked {
        return std::path::absolute(&dir)
            .with_context(|| format!("cannot use --runtime-dir {}", dir.display()));
    }
    if is_root() {
        return Ok(ROOT_DIR.into());
    }
    let base = env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()).map(PathBuf::from);
    match base {
        Some(base) if base.is_absolute() => Ok(base.join("tmem")),
        _ => bail!(
            "no runtime directory: XDG_RUNTIME_DIR is not set for this user; name one with --runtime-dir DIR"
        ),
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// This process owns the runtime directory for as long as this lives.
///
/// The lock is the kernel's and ends with the process, however that ends. The file stays: removing it would let two
/// daemons lock two files of one name.
pub(crate) struct Ownership {
    _lock: File,
}

impl Ownership {
    /// Makes the directory where needed and takes its lock.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).with_context(|| {
                format!("cannot make runtime directory {}; name another with --runtime-dir", dir.display())
            })?;
        }
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| {
                format!("cannot open lock file {}; name another directory with --runtime-dir", path.display())
            })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder
                    .trim()
                    .parse::<u32>()
                    .map_or("a daemon".to_owned(), |pid| format!("the daemon with pid {pid}"));
                return Err(anyhow!(
                    "{} belongs to {holder}; stop it, or choose another directory with --runtime-dir",
                    dir.display()
                ));
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        write_pid(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { _lock: file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_the_second_is_told_whose_it_is() {
        let dir = tempfile::tempdir().expect("dir");
        let dir = dir.path().join("deep/tmem");
        let first = Ownership::take(&dir).expect("free");
        let error = Ownership::take(&dir).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains(&std::process::id().to_string()) && error.contains("--runtime-dir"),
            "{error}"
        );
        drop(first);
        Ownership::take(&dir).map(|_| ()).expect("free again");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let dir = file.path().join("tmem");
        let error = format!("{:#}", Ownership::take(&dir).map(|_| ()).unwrap_err());
        assert!(error.contains(&dir.display().to_string()) && error.contains("--runtime-dir"), "{error}");
    }
}
