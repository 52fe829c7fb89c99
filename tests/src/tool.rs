//! Programs that are run to their end.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::places;

/// The program of a Debian package with arguments. Python programs get Debian's Python, whose modules they need.
///
/// # Errors
/// The program is missing.
pub fn tool(name: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(places::program(name)?);
    command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    Ok(command)
}

/// Runs a command that has to succeed, and returns what it printed.
///
/// # Errors
/// It cannot be run or fails; what it complained about is part of the error.
pub fn succeed(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}:\n{stdout}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(stdout)
}

/// Runs a command that has to fail, and returns what it complained about.
///
/// # Errors
/// It cannot be run or succeeds.
pub fn fail(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        bail!("{command:?} succeeded:\n{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}
