//! Daemons on hosts at one switch, each a node of one cluster. Host 0 is `node-0`, and so on.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{daemon::Daemon, network::Network, places, tool::succeed};

const PORT: u16 = 7790;

/// Whatever has to happen in a cluster has happened by then.
const SOON: Duration = Duration::from_secs(60);

/// Who knows the others.
#[derive(Clone, Debug)]
pub enum Membership {
    /// Each of them, by a list.
    List,
    /// etcd, at these addresses.
    Etcd(Vec<String>),
}

/// The hosts. Dropping them kills all daemons.
pub struct ClusterHosts {
    nodes: Vec<Option<Daemon>>,
    membership: Membership,
    /// Which of them have a tier on a disk.
    with_disk: BTreeSet<u8>,
    directory: TempDir,
    // Goes last.
    network: Network,
}

impl ClusterHosts {
    /// So many hosts, each invited by host 0. No daemon runs yet.
    ///
    /// # Errors
    /// A program is missing, or the kernel does not allow it.
    pub fn new(hosts: u8) -> Result<Self> {
        let directory = places::scratch()?;
        let network = Network::new(hosts)?;
        let cluster = Self {
            nodes: (0..hosts).map(|_| None).collect(),
            membership: Membership::List,
            with_disk: BTreeSet::new(),
            directory,
            network,
        };
        cluster.tmem(&["init", "--name", "node-0"], 0)?;
        for host in 1..hosts {
            let invitation = cluster.directory.path().join(format!("{host}.invitation"));
            let invitation = invitation.display().to_string();
            cluster.tmem(&["invite", &node(host), "--output", &invitation], 0)?;
            cluster.tmem(&["join", &invitation], host)?;
        }
        Ok(cluster)
    }

    fn tmem(&self, arguments: &[&str], host: u8) -> Result<()> {
        let mut command = Command::new(places::tmem_binary()?);
        command.arg("cluster").args(arguments).arg("--dir").arg(self.of_node(host));
        succeed(command).map(drop)
    }

    /// The directory with a node's identity.
    fn of_node(&self, host: u8) -> PathBuf {
        self.directory.path().join(node(host))
    }

    /// How nodes that are started from now on know each other.
    pub fn set_membership(&mut self, membership: Membership) {
        self.membership = membership;
    }

    /// A host that is started from now on has a tier on a disk, with room for all.
    pub fn give_disk(&mut self, host: u8) {
        self.with_disk.insert(host);
    }

    /// Their network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Starts a host's daemon with a pool of that size and more lines in its section `[cluster]`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(&mut self, host: u8, pool_size: &str, more: &str) -> Result<()> {
        let file = self.directory.path().join(format!("{}.toml", node(host)));
        fs::write(&file, self.configuration(host, more)?).context("cannot write a configuration")?;
        let flags = ["--config".to_owned(), file.display().to_string()];
        let daemon = Daemon::start_with(pool_size, &flags, Some(self.network.host(host)?))?;
        self.nodes[usize::from(host)] = Some(daemon);
        Ok(())
    }

    /// Has a host be the node of another one, with a copy of its identity as it is now.
    ///
    /// # Errors
    /// It can't be copied.
    pub fn become_copy_of(&self, node: u8, host: u8) -> Result<()> {
        fs::remove_dir_all(self.of_node(host)).context("cannot remove an identity")?;
        let mut command = Command::new("cp");
        command.arg("-a").arg(self.of_node(node)).arg(self.of_node(host));
        succeed(command).map(drop)
    }

    fn configuration(&self, host: u8, more: &str) -> Result<String> {
        let mut text = String::from("write-back-age = 1\n");
        if self.with_disk.contains(&host) {
            let path = self.directory.path().join(format!("{}.tier", node(host)));
            writeln!(text, "tier = \"{}\"\ntier-size = \"256M\"", path.display())?;
        }
        text.push_str("[cluster]\n");
        writeln!(text, "listen = \"{}\"", Network::address(host, PORT))?;
        writeln!(text, "directory = \"{}\"", self.of_node(host).display())?;
        match &self.membership {
            Membership::List => {
                let hosts = 0..u8::try_from(self.nodes.len())?;
                let list: Vec<String> =
                    hosts.map(|host| format!("{}={}", node(host), Network::address(host, PORT))).collect();
                writeln!(text, "peers = {list:?}")?;
            }
            Membership::Etcd(endpoints) => writeln!(text, "etcd = {endpoints:?}")?,
        }
        writeln!(text, "{more}")?;
        Ok(text)
    }

    /// A host's daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn daemon(&self, host: u8) -> Result<&Daemon> {
        self.nodes.get(usize::from(host)).and_then(Option::as_ref).context("no daemon runs there")
    }

    /// `kill -9` for all of a host's daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, host: u8) -> Result<()> {
        let mut daemon = self.nodes[usize::from(host)].take().context("no daemon runs there")?;
        daemon.kill();
        Ok(())
    }

    /// Its orderly end: what it logged.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self, host: u8) -> Result<Vec<String>> {
        self.nodes[usize::from(host)].take().context("no daemon runs there")?.stop()
    }

    /// What a host's status says of the cluster.
    ///
    /// # Errors
    /// It does not answer.
    pub fn report(&self, host: u8) -> Result<Value> {
        Ok(self.daemon(host)?.status()?["cluster"].clone())
    }

    /// A number of what a host borrows.
    ///
    /// # Errors
    /// It does not answer, or borrows nothing.
    pub fn borrowing(&self, host: u8, field: &str) -> Result<u64> {
        let report = self.report(host)?;
        report["borrowing"][field].as_u64().with_context(|| format!("no {field}: {report:#}"))
    }

    /// Waits until a host reaches so many lenders that have room, and all that it has there has its copies.
    ///
    /// # Errors
    /// In vain.
    pub fn wait_until_whole(&self, host: u8, lenders: usize) -> Result<()> {
        self.wait(host, |report| {
            let borrowing = &report["borrowing"];
            let peers = borrowing["peers"].as_array()?.iter();
            let here = peers.filter(|peer| peer["state"] == "connected" && peer["free_bytes"] != 0).count();
            let is_whole = borrowing["wanting_extents"] == 0 && borrowing["is_complete"] == true;
            (here >= lenders && is_whole).then_some(())
        })
    }

    /// Waits until a number of what a host borrows is as it should be.
    ///
    /// # Errors
    /// In vain.
    pub fn wait_for(&self, host: u8, field: &str, is_enough: impl Fn(u64) -> bool) -> Result<u64> {
        self.wait(host, |report| report["borrowing"][field].as_u64().filter(|number| is_enough(*number)))
    }

    /// Waits until what a host lends is as it should be.
    ///
    /// # Errors
    /// In vain.
    pub fn wait_for_lent(&self, host: u8, is_enough: impl Fn(u64) -> bool) -> Result<u64> {
        self.wait(host, |report| report["lending"]["lent_bytes"].as_u64().filter(|bytes| is_enough(*bytes)))
    }

    /// Waits until a host knows so many others, and that is how it is.
    ///
    /// # Errors
    /// In vain.
    pub fn wait_until_known(&self, host: u8, others: usize) -> Result<()> {
        self.wait(host, |report| {
            let known = report["borrowing"]["peers"].as_array().map(Vec::len);
            (known == Some(others) && report["is_current"] == true).then_some(())
        })
    }

    /// Waits until something is so in what a host's status says of the cluster.
    ///
    /// # Errors
    /// In vain.
    pub fn wait_until(&self, host: u8, is_so: impl Fn(&Value) -> bool) -> Result<()> {
        self.wait(host, |report| is_so(report).then_some(()))
    }

    fn wait<T>(&self, host: u8, found: impl Fn(&Value) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + SOON;
        loop {
            let report = self.report(host)?;
            if let Some(found) = found(&report) {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "in vain: {report:#}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the processes of a host's daemon where they are, or has them go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn set_stopped(&self, host: u8, is_stopped: bool) -> Result<()> {
        let daemon = self.daemon(host)?;
        let signal = if is_stopped { "-STOP" } else { "-CONT" };
        // A stopped worker does not say which it is.
        let script = format!("kill {signal} {0} $(cat /proc/{0}/task/{0}/children)", daemon.keeper());
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        succeed(command).map(drop)
    }
}

fn node(host: u8) -> String {
    format!("node-{host}")
}
