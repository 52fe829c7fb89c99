//! Where things are. Each function fails with the way out when its thing is not there.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// The tmem binary: `TMEM_BINARY`, or the one of this build.
pub(crate) fn tmem_binary() -> Result<PathBuf> {
    binary("tmem", "TMEM_BINARY", "build it with `cargo build -p tmem`, or run scripts/test")
}

/// The one that goes wrong on purpose: `TMEM_FAULTY_BINARY`, or the one beside that of this build.
pub(crate) fn faulty_binary() -> Result<PathBuf> {
    binary("tmem-faulty", "TMEM_FAULTY_BINARY", "scripts/test and scripts/soak build it")
}

fn binary(name: &str, variable: &str, way_out: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return existing(PathBuf::from(path), &format!("{variable} names no file"));
    }
    // A test is TARGET/PROFILE/deps/NAME-HASH, a program of ours TARGET/PROFILE/NAME, as the binary is.
    let test = env::current_exe().context("where this test is")?;
    let folder = test.parent().with_context(|| format!("no folder; set {variable}"))?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    existing(profile.join(name), way_out)
}

/// A file that `scripts/test` puts into `target/guests` of the checkout.
pub(crate) fn guest_file(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests").join(name);
    existing(path, "scripts/test fetches it")
}

/// A file that is installed beside the program.
pub(crate) fn packaging(name: &str) -> Result<PathBuf> {
    existing(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name), "it is in the repository")
}

/// A program of a Debian package.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("program {name} is missing; scripts/test installs it"),
    }
}

/// A new folder below `/tmp`, whatever `TMPDIR` says: kernels take its path on their command line, where blanks
/// and long paths (of sockets) do not work.
pub(crate) fn scratch() -> Result<TempDir> {
    tempfile::Builder::new().prefix("tmem-test.").tempdir_in("/tmp").context("cannot make a folder in /tmp")
}

fn existing(path: PathBuf, way_out: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is missing; {way_out}", path.display());
    }
    Ok(path)
}
