//! The subcommands, one file each.

mod balance;
mod bench;
mod cluster;
mod disk;
mod freeze;
mod guest_config;
mod knobs;
mod sample;
mod serve;
mod status;
mod top;
mod upgrade;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Subcommand;
use tmem_control::AdminClient;

use crate::{Outcome, runtime_dir};

/// A subcommand. A new one is a variant here, an arm below and a file.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground
    Serve(Box<serve::Arguments>),
    /// Add, remove and list swap disks
    #[command(subcommand)]
    Disk(disk::Command),
    /// Show what the pool holds
    Status(status::Arguments),
    /// Watch guests, the pool and the balancer live
    Top(top::Arguments),
    /// Show the knobs: settings of the running daemon
    Get(knobs::GetArguments),
    /// Change knobs of the running daemon; until it ends
    Set(knobs::SetArguments),
    /// Refuse a client's new pages; those it has can be fetched and forgotten
    ///
    /// A guest whose disk is frozen gets an I/O error on each write, keeps the page in its own memory and goes on; a page that it
    /// writes while frozen is not in the pool any more, also not as it was before. The client stays frozen until it is thawed.
    Freeze(freeze::Arguments),
    /// Take a frozen client's pages again
    Thaw(freeze::Arguments),
    /// Have the program on disk take over from the running one; guests go on
    ///
    /// Put the new version in the place of the old one first. It looks whether it can go on with what the running one has stored, and takes
    /// over within some tens of milliseconds, or leaves everything as it is and exits with 1.
    Upgrade,
    /// Give memory to the guests that gain most by it: look after them, and what they have
    ///
    /// Without a subcommand it is `start`. The balancer is a process of its own; it asks guests over their monitors, and the daemon how often they swap in.
    Balance(Box<balance::Arguments>),
    /// Lend memory to other hosts and borrow theirs: certificates, and how it goes
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Print what a guest needs to use a disk
    GuestConfig(guest_config::Arguments),
    /// Write the pages of a running process to a file, for benchmarks
    ///
    /// The file gets the process's resident anonymous pages, 4 KiB each, in the order of their addresses: its private memory, also
    /// pages of files that it has changed for itself. Pages that are not in memory are left alone; nothing is swapped in for this. The
    /// process goes on meanwhile, unless --stop is given.
    Sample(sample::Arguments),
    /// Measure tmem or a peer
    #[command(subcommand)]
    Bench(bench::Command),
}

impl Command {
    /// Runs it. Every command but `serve`, most of `cluster`, `sample` and `bench` talks to the daemon of the runtime directory.
    pub(crate) fn run(self, runtime_dir: Option<PathBuf>) -> Outcome {
        let client = |dir| runtime_dir::resolve(dir).map(|dir| AdminClient::new(&dir));
        match self {
            Self::Serve(arguments) => serve::run(*arguments, &runtime_dir::resolve(runtime_dir)?),
            Self::Disk(command) => disk::run(command, &client(runtime_dir)?),
            Self::Status(arguments) => status::run(&arguments, &client(runtime_dir)?),
            Self::Top(arguments) => top::run(&arguments, client(runtime_dir)?),
            Self::Get(arguments) => knobs::get(&arguments, &client(runtime_dir)?),
            Self::Set(arguments) => knobs::set(arguments, &client(runtime_dir)?),
            Self::Freeze(arguments) => freeze::run(&arguments, true, &client(runtime_dir)?),
            Self::Thaw(arguments) => freeze::run(&arguments, false, &client(runtime_dir)?),
            Self::Upgrade => upgrade::run(&client(runtime_dir)?),
            Self::Balance(arguments) => balance::run(*arguments, client(runtime_dir)?),
            Self::Cluster(command) => cluster::run(command, || client(runtime_dir)),
            Self::GuestConfig(arguments) => guest_config::run(&arguments, &client(runtime_dir)?),
            Self::Sample(arguments) => sample::run(&arguments),
            Self::Bench(command) => bench::run(&command),
        }
    }
}

/// Writes to stdout. A reader that has gone away (`tmem status | head -1`) is no failure.
pub(crate) fn print(text: &str) -> Outcome {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
