//! An etcd server on a host of a test's own.

use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use crate::{network::Network, places, process::Process};

const START: Duration = Duration::from_secs(30);
const PORT: u16 = 2379;

/// A server. Dropping it kills the server and removes what it has.
pub struct Etcd {
    process: Process,
    host: u8,
    directory: TempDir,
}

impl Etcd {
    /// Starts one on a host, and waits until it serves.
    ///
    /// # Errors
    /// There is no etcd, or it does not come up.
    pub fn start(network: &Network, host: u8) -> Result<Self> {
        let directory = places::scratch()?;
        let process = serve(network, host, &directory)?;
        Ok(Self { process, host, directory })
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        endpoint(self.host, PORT)
    }

    /// `kill -9`. What it has stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after that.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_again(&mut self, network: &Network) -> Result<()> {
        self.process = serve(network, self.host, &self.directory)?;
        Ok(())
    }
}

fn endpoint(host: u8, port: u16) -> String {
    format!("http://{}", Network::address(host, port))
}

fn serve(network: &Network, host: u8, directory: &TempDir) -> Result<Process> {
    let mut command = network.host(host)?.command(places::program("etcd")?)?;
    let (client, peer) = (endpoint(host, PORT), endpoint(host, PORT + 1));
    command.arg("--data-dir").arg(directory.path());
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}"), "--log-level", "warn"]);
    let process = Process::start("etcd", &mut command)?;
    let deadline = std::time::Instant::now() + START;
    let knock = || -> Result<bool> {
        let address = Network::address(host, PORT);
        let mut knock = network.host(host)?.command("timeout")?;
        let script = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
        Ok(knock.args(["1", "bash", "-c", &script]).output()?.status.success())
    };
    while !knock()? {
        anyhow::ensure!(std::time::Instant::now() < deadline, "etcd does not come up: {:?}", process.lines());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(process)
}
