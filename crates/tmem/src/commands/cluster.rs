//! `tmem cluster`: init, invite, join, renew, forget; and status, which has a file of its own.

mod status;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tmem_control::AdminClient;
use tmem_membership::{DEFAULT_DIRECTORY, Identity, certificates, setup};

use super::print;
use crate::{Outcome, figures::size};

/// What can be done with the cluster that this host is in.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a cluster, with this host as its first node
    ///
    /// This host gets the key with which the certificates of all nodes are made. Keep a copy of it, where nobody else can read it.
    Init(Init),
    /// Write a file that makes another host a node; on the host where the cluster was made
    Invite(Invite),
    /// Become a node, with a file from `tmem cluster invite`
    Join(Join),
    /// Make a new certificate for the host where the cluster was made; others are invited again and `join --renew`
    Renew(Renew),
    /// Show whom this host lends to and from whom it borrows
    Status(status::Arguments),
    /// Forget what a host has here that will not come back
    ///
    /// A host whose daemon ended in order has had it forgotten. One that died keeps it, in case it is there again, until this host needs the memory. It must be away: see
    /// `tmem cluster status`.
    Forget(Forget),
}

/// Where the files are.
#[derive(Args)]
pub(crate) struct Directory {
    /// Directory of this node's identity and certificates
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIRECTORY)]
    dir: PathBuf,
}

/// `tmem cluster init`.
#[derive(Args)]
pub(crate) struct Init {
    /// Name of this host in the cluster: 1 to 63 of a-z 0-9 . - [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    at: Directory,
}

/// `tmem cluster invite`.
#[derive(Args)]
pub(crate) struct Invite {
    /// Name of the other host: 1 to 63 of a-z 0-9 . -
    name: String,
    /// The file to write [default: NAME.tmem-invitation in the current directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    at: Directory,
}

/// `tmem cluster join`.
#[derive(Args)]
pub(crate) struct Join {
    /// The file that `tmem cluster invite` wrote, brought here where nobody else can read it
    file: PathBuf,
    /// This host is that node already: take the new certificate only
    #[arg(long)]
    renew: bool,
    #[command(flatten)]
    at: Directory,
}

/// `tmem cluster renew`.
#[derive(Args)]
pub(crate) struct Renew {
    #[command(flatten)]
    at: Directory,
}

/// `tmem cluster forget`.
#[derive(Args)]
pub(crate) struct Forget {
    /// Name of the host, as `tmem cluster status` has it
    name: String,
}

/// Runs it. Nothing here but `status` and `forget` talks to a daemon.
pub(crate) fn run(command: Command, client: impl FnOnce() -> Result<AdminClient>) -> Outcome {
    match command {
        Command::Status(arguments) => status::run(&arguments, &client()?),
        Command::Forget(forget) => {
            let forgotten = client()?.forget_borrower(&forget.name)?;
            let (copies, lent) = (forgotten.copies, size(forgotten.lent_bytes));
            print(&format!("{copies} copies of {} are forgotten, {lent}\n", forget.name))
        }
        Command::Init(init) => {
            let name = init.name.map_or_else(host_name, Ok)?;
            let node = setup::init(&init.at.dir, &name)?;
            let at = init.at.dir.display();
            print(&format!(
                "cluster {} is made, and this host is its node {} ({at})\n\
                 keep a copy of {at}/{{ca-key.pem,invited.json}} where nobody else can read it: certificates are made with it\n\
                 next, for each other host: tmem cluster invite NAME\n",
                node.cluster(),
                node.name(),
            ))
        }
        Command::Invite(invite) => {
            let file = invite.output.unwrap_or_else(|| format!("{}.tmem-invitation", invite.name).into());
            setup::invite(&invite.at.dir, &invite.name, &file)?;
            let (name, file) = (invite.name, file.display());
            print(&format!(
                "{file} makes a host {name}; it holds the private key, so let nobody else read it\n\
                 next: scp {file} root@{name}: and, there, tmem cluster join {}\n\
                 or, if it is {name} already and only needs a new certificate: tmem cluster join --renew {}\n",
                base_name(&file.to_string()),
                base_name(&file.to_string()),
            ))
        }
        Command::Join(join) if join.renew => {
            let node = setup::renew_from(&join.at.dir, &join.file)?;
            renewed(&node, &format!("rm {} here and where it was made, and ", join.file.display()))
        }
        Command::Join(join) => {
            let node = setup::join(&join.at.dir, &join.file)?;
            print(&format!(
                "this host is node {} of cluster {} ({})\n\
                 next: rm {} here and where it was made, and say in [cluster] of tmem.toml where the others are\n",
                node.name(),
                node.cluster(),
                join.at.dir.display(),
                join.file.display(),
            ))
        }
        Command::Renew(renew) => renewed(&setup::renew(&renew.at.dir)?, ""),
    }
}

fn renewed(node: &Identity, first: &str) -> Outcome {
    let days = certificates::days_left(node.directory())?;
    print(&format!(
        "node {} has a certificate for {days} days\nnext: {first}tmem upgrade, with which the daemon takes it\n",
        node.name(),
    ))
}

/// The kernel's name for this host, in the letters of a node's.
fn host_name() -> anyhow::Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read this host's name; give one with --name")?;
    Ok(name.trim().to_ascii_lowercase())
}

fn base_name(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}
