//! The program that guests run: fills memory, swaps, compares every byte.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::places;

const GUEST_PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest");

/// Compiles the checker into a directory. Static, so that it runs in a guest that has no libraries.
///
/// # Errors
/// There is no C compiler, or it refuses.
pub fn build_checker(directory: &Path) -> Result<PathBuf> {
    build_guest_program("check_pages", directory)
}

/// Compiles one of the programs in `guest/` into a directory.
///
/// # Errors
/// As [`build_checker`].
pub fn build_guest_program(name: &str, directory: &Path) -> Result<PathBuf> {
    let source = format!("{GUEST_PROGRAMS}/{name}.c");
    let binary = directory.join(name);
    let output = Command::new(places::program("gcc")?)
        .args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .context("cannot run gcc")?;
    if !output.status.success() {
        bail!("gcc cannot compile {source}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(binary)
}
