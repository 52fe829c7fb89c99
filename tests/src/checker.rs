//! The program that guests run: fills memory, swaps, compares every byte.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::places;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/check_pages.c");

/// Compiles the checker into a directory. Static, so that it runs in a guest that has no libraries.
///
/// # Errors
/// There is no C compiler, or it refuses.
pub fn build_checker(directory: &Path) -> Result<PathBuf> {
    let binary = directory.join("check_pages");
    let output = Command::new(places::program("gcc")?)
        .args(["-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&binary)
        .arg(SOURCE)
        .output()
        .context("cannot run gcc")?;
    if !output.status.success() {
        bail!("gcc cannot compile {SOURCE}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(binary)
}
