//! The process that lends, and how it is spoken to: a line with its addresses at first; for each line that it hears one with what it holds.

use std::{
    env,
    io::{self, BufRead, Write},
    net::TcpListener,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use tmem_cluster::Epoch;
use tmem_peers::{Identity, Lender as Lent, LendingOptions, LendingServer, Security};

use crate::{
    certificates::Certificates,
    child::{Child, resident_bytes},
    network::{LENDER_ADDRESS, Network},
};

pub(crate) const CLUSTER: u128 = 77;

/// What each lends: much more than is asked for.
const LENT_BYTES: u64 = 4 << 30;

/// What a lender is told at its start, by this program.
#[derive(clap::Args)]
pub(crate) struct LenderArguments {
    /// Lend, for the benchmark that started this
    #[arg(long, hide = true)]
    pub(crate) lend: bool,
    /// Its name
    #[arg(long, hide = true, default_value = "lender-0")]
    name: String,
    /// Where its certificates are; none: plain TCP
    #[arg(long, hide = true)]
    certificates: Option<PathBuf>,
}

/// Lends until nobody speaks to it any more.
pub(crate) fn run(arguments: &LenderArguments) -> Result<()> {
    let listener = TcpListener::bind((LENDER_ADDRESS, 0))?;
    let address = listener.local_addr()?;
    let identity = Identity { cluster: CLUSTER, name: arguments.name.parse()?, epoch: Epoch(1) };
    let security = match &arguments.certificates {
        None => Security::Plain,
        Some(directory) => Certificates::read(directory)?.security()?,
    };
    let options = LendingOptions { max_bytes: LENT_BYTES, ..LendingOptions::default() };
    let server = LendingServer::start(listener, identity, security, options, Lent::default(), || LENT_BYTES)?;
    let mut output = io::stdout().lock();
    writeln!(output, "{address}")?;
    for line in io::stdin().lock().lines() {
        line?;
        let status = server.status();
        writeln!(output, "{} {}", status.needed_bytes, status.held_bytes)?;
    }
    Ok(())
}

/// A lender, as whoever started it sees it.
pub(crate) struct Lender {
    pub(crate) name: String,
    pub(crate) address: String,
    child: Child,
    /// What it has when it lends nothing.
    base_bytes: u64,
}

/// What it says of its memory, and what the kernel says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    pub(crate) needed_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) resident_bytes: u64,
}

impl Lender {
    pub(crate) fn start(name: &str, certificates: Option<&Certificates>, network: &Network) -> Result<Self> {
        let program = env::current_exe()?;
        let mut command = network.at_lender(program.to_str().context("a path that is no text")?);
        command.args(["--lend", "--name", name]);
        if let Some(certificates) = certificates {
            command.arg("--certificates").arg(certificates.directory());
        }
        let mut child = Child::start(command)?;
        let address = child.hear()?;
        Ok(Self { name: name.to_owned(), address, child, base_bytes: 0 })
    }

    /// What it has now is there without anything being lent.
    pub(crate) fn set_base(&mut self) -> Result<()> {
        self.base_bytes = resident_bytes(self.child.id())?;
        Ok(())
    }

    pub(crate) fn holds(&mut self) -> Result<Holds> {
        let said = self.child.ask("holds")?;
        let (needed, held) = said.split_once(' ').context("a lender says something strange")?;
        Ok(Holds {
            needed_bytes: needed.parse()?,
            held_bytes: held.parse()?,
            resident_bytes: resident_bytes(self.child.id())?.saturating_sub(self.base_bytes),
        })
    }

    /// Waits until what it holds changes no more, and long buffers have been given back.
    pub(crate) fn settle(&mut self) -> Result<Holds> {
        let mut before = self.holds()?;
        loop {
            std::thread::sleep(Duration::from_millis(400));
            let now = self.holds()?;
            if (now.held_bytes, now.resident_bytes) == (before.held_bytes, before.resident_bytes) {
                return Ok(now);
            }
            before = now;
        }
    }
}
