//! Hosts of a test's own: network namespaces with addresses of their own at one switch, whose cables can be pulled.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{namespace::Namespace, tool::succeed};

/// The network of all hosts (of the block for benchmarks, RFC 2544). Host `n` is 198.18.0.`n + 1`.
const NETWORK: [u8; 3] = [198, 18, 0];

/// Hosts at one switch. Dropping it ends them.
pub struct Network {
    hosts: Vec<Namespace>,
    // Goes last: the other ends of their cables are in it.
    switch: Namespace,
}

impl Network {
    /// So many hosts that reach each other.
    ///
    /// # Errors
    /// A program is missing, or the kernel does not allow it.
    pub fn new(hosts: u8) -> Result<Self> {
        let switch = Namespace::new()?;
        shell(&switch, "ip link add switch type bridge && ip link set switch up")?;
        let mut network = Self { hosts: Vec::new(), switch };
        for number in 0..hosts {
            let host = network.switch.inside()?;
            let (port, pid) = (port(number), host.id());
            let cable = format!(
                "ip link add {port} type veth peer name eth0 netns {pid} && ip link set {port} master switch up"
            );
            shell(&network.switch, &cable)?;
            let address = address(number);
            let plug = format!("ip addr add {address}/24 dev eth0 && ip link set eth0 up");
            shell(&host, &plug)?;
            network.hosts.push(host);
        }
        Ok(network)
    }

    /// One of the hosts, from 0.
    ///
    /// # Errors
    /// There are not so many.
    pub fn host(&self, number: u8) -> Result<&Namespace> {
        self.hosts.get(usize::from(number)).context("there is no such host")
    }

    /// An address of a host.
    pub fn address(number: u8, port: u16) -> SocketAddr {
        SocketAddr::from((address(number), port))
    }

    /// Pulls a host's cable.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn cut(&self, number: u8) -> Result<()> {
        self.set_port(number, "down")
    }

    /// Puts it back.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub fn mend(&self, number: u8) -> Result<()> {
        self.set_port(number, "up")
    }

    /// Whether a host reaches another one, where nobody listens on the port for discarding.
    ///
    /// # Errors
    /// A program is missing.
    pub fn reaches(&self, from: u8, to: u8) -> Result<bool> {
        let mut knock = self.host(from)?.command("timeout")?;
        knock.args(["1", "bash", "-c", &format!("echo > /dev/tcp/{}/9", address(to))]).env("LC_ALL", "C");
        let output = knock.output().context("cannot start timeout")?;
        Ok(String::from_utf8_lossy(&output.stderr).contains("Connection refused"))
    }

    fn set_port(&self, number: u8, state: &str) -> Result<()> {
        shell(&self.switch, &format!("ip link set {} {state}", port(number)))
    }

    /// How long it may take on a busy machine until a cable that was put back is of use.
    pub const SET_UP: Duration = Duration::from_secs(15);
}

fn shell(place: &Namespace, script: &str) -> Result<()> {
    let mut command = place.command("sh")?;
    command.args(["-c", script]);
    succeed(command).map(drop)
}

/// The switch's end of a cable.
fn port(host: u8) -> String {
    format!("port{host}")
}

fn address(host: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, host + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_reach_each_other_until_a_cable_is_pulled() {
        let network = Network::new(3).unwrap();
        assert!(network.reaches(0, 1).unwrap() && network.reaches(2, 0).unwrap());
        network.cut(1).unwrap();
        assert!(!network.reaches(0, 1).unwrap() && network.reaches(0, 2).unwrap());
        network.mend(1).unwrap();
        let begun = std::time::Instant::now();
        while !network.reaches(0, 1).unwrap() {
            assert!(begun.elapsed() < Network::SET_UP, "the cable is back");
        }
    }
}
