//! How commands fail: one line on stderr, and an exit code.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use clap::error::ErrorKind;
use tmem_bench::BenchError;
use tmem_control::ControlError;

use crate::Outcome;

/// The command could not be done.
const FAILED: u8 = 1;
/// What was asked makes no sense.
const WRONG_USAGE: u8 = 2;

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be done: exit code 1.
    Failed(anyhow::Error),
    /// It was asked for in a way that makes no sense: exit code 2.
    Usage(String),
}

impl Failure {
    /// Prints the failure and gives its exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (text, code) = match self {
            Self::Failed(error) => (chain(error), FAILED),
            Self::Usage(text) => (text.clone(), WRONG_USAGE),
        };
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "tmem: {}", one_line(&text));
        ExitCode::from(code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        // A value that would be wrong usage as a flag is wrong usage in a file, too.
        let in_a_file = matches!(
            error.downcast_ref(),
            Some(
                ControlError::Config { .. }
                    | ControlError::PoolTooLarge { .. }
                    | ControlError::ReserveTooLarge { .. }
                    | ControlError::NbdTls { .. }
                    | ControlError::Cluster { .. }
                    | ControlError::EtcdKey { .. }
                    | ControlError::EtcdKeyAlone { .. }
                    | ControlError::UserWithoutSandbox { .. }
            )
        );
        if in_a_file || matches!(error.downcast_ref(), Some(BenchError::Usage(_))) {
            Self::Usage(error.to_string())
        } else {
            Self::Failed(error)
        }
    }
}

/// Help and version are printed and done; anything else becomes one line with the way to the help.
pub(crate) fn from_clap(error: clap::Error, command: &clap::Command) -> Outcome {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(error.print()?);
    }
    let command =
        command_path(command, env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()));
    let said = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a command is missing".to_owned(),
        _ => summary(&error.to_string()),
    };
    Err(Failure::Usage(format!("{said}; see `{command} --help`")))
}

/// An error and its causes, each said once: many errors name their cause themselves.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    text
}

/// The subcommand that the arguments name, as far as they do.
fn command_path(mut command: &clap::Command, arguments: impl Iterator<Item = String>) -> String {
    let mut path = command.get_name().to_owned();
    for argument in arguments {
        if let Some(subcommand) = command.find_subcommand(&argument) {
            command = subcommand;
            path.push(' ');
            path.push_str(&argument);
        }
    }
    path
}

/// The sentences of a rendered clap error, without its usage block.
fn summary(rendered: &str) -> String {
    let said = rendered.split("\nUsage: ").next().unwrap_or(rendered);
    let said = said.split("\nFor more information").next().unwrap_or(said);
    let sentences: Vec<String> = said
        .split("\n\n")
        .map(|paragraph| one_line(paragraph.trim().trim_start_matches("error: ")))
        .filter(|sentence| !sentence.is_empty())
        .collect();
    sentences.join("; ")
}

/// Joins lines, and leaves no control characters that a terminal would obey.
fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    joined.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clap_error_becomes_one_line() {
        let rendered = "error: the following required arguments were not provided:\n  --size <SIZE>\n  --vhost-user <SOCKET>\n\n\
                        Usage: tmem disk add --size <SIZE> --vhost-user <SOCKET> <NAME>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            summary(rendered),
            "the following required arguments were not provided: --size <SIZE> --vhost-user <SOCKET>"
        );
        let rendered = "error: unexpected argument '--siz' found\n\n  tip: a similar argument exists: '--size'\n\n\
                        Usage: tmem disk add <NAME>\n";
        assert_eq!(
            summary(rendered),
            "unexpected argument '--siz' found; tip: a similar argument exists: '--size'"
        );
    }

    #[test]
    fn a_cause_is_said_once() {
        let refused = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let plain = anyhow::Error::new(refused).context("cannot open /x");
        assert_eq!(chain(&plain), "cannot open /x: permission denied");
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let named = ControlError::ConfigRead { path: "/x".into(), source };
        assert_eq!(chain(&named.into()).matches("permission denied").count(), 1);
    }

    #[test]
    fn the_help_that_is_named_is_the_subcommands() {
        let command = clap::Command::new("tmem")
            .subcommand(clap::Command::new("disk").subcommand(clap::Command::new("add")))
            .subcommand(clap::Command::new("status"));
        for (arguments, path) in [
            (&["disk", "add", "vm1", "--size", "4X"][..], "tmem disk add"),
            (&["--runtime-dir", "/d", "status"], "tmem status"),
            (&["nonsense"], "tmem"),
        ] {
            assert_eq!(command_path(&command, arguments.iter().map(|a| (*a).to_owned())), path);
        }
    }
}
