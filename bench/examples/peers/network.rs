//! Two network namespaces and the path between them: a pair of veth.

use std::{fs::File, os::fd::AsFd, process::Command};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The lenders' address, and that of redis-server. Nobody else is in these namespaces.
pub(crate) const LENDER_ADDRESS: &str = "10.77.0.1";
const BORROWER_ADDRESS: &str = "10.77.0.2";

/// Removed when it is dropped.
pub(crate) struct Network {
    lender: String,
    borrower: String,
}

impl Network {
    pub(crate) fn make() -> Result<Self> {
        let name = |end: &str| format!("tmem-bench-{}-{end}", std::process::id());
        // From here on what was made is removed, whatever fails.
        let network = Self { lender: name("lender"), borrower: name("borrower") };
        let (lender, borrower) = (network.lender.as_str(), network.borrower.as_str());
        ip(&["netns", "add", lender])?;
        ip(&["netns", "add", borrower])?;
        ip(&[
            "-n", lender, "link", "add", "lend", "type", "veth", "peer", "name", "borrow", "netns", borrower,
        ])?;
        for (namespace, link, address) in
            [(lender, "lend", LENDER_ADDRESS), (borrower, "borrow", BORROWER_ADDRESS)]
        {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", link])?;
            ip(&["-n", namespace, "link", "set", link, "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// This thread, and those that it starts, are in the borrower's namespace from now on.
    pub(crate) fn enter_borrower(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.borrower);
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {path}"))
    }

    /// A command that runs where the lenders are, and is killed when this process is.
    pub(crate) fn at_lender(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        // Both become the program they are told, so the child's id is the program's.
        command.args(["netns", "exec", &self.lender, "setpriv", "--pdeathsig", "KILL", program]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.lender, &self.borrower] {
            // It was perhaps not made; the pair goes with either.
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(arguments).output().context("cannot run ip: install iproute2")?;
    ensure!(
        done.status.success(),
        "ip {}: {} (network namespaces need root)",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}
