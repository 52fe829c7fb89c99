//! A network of a test's own, in which addresses beyond the host can be had without anybody else's seeing them.

use std::{ffi::OsStr, process::Command, time::Duration};

use anyhow::Result;

use crate::{places, process::Process};

/// An address in it that is not the host itself as programs see it (of the block for documentation, RFC 5737).
pub const FOREIGN_ADDRESS: &str = "192.0.2.1";

/// It ends by itself after so long.
const LONGEST_SECONDS: u32 = 3600;

const SET_UP: Duration = Duration::from_secs(15);

/// A network namespace with a loopback device that also has [`FOREIGN_ADDRESS`]. Dropping it ends it.
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// Makes one. Needs no root where the kernel lets users have namespaces.
    ///
    /// # Errors
    /// A program is missing, or the kernel does not allow it.
    pub fn new() -> Result<Self> {
        let mut command = Command::new(places::program("unshare")?);
        command.args(["--map-root-user", "--net"]);
        Self::held_by(command)
    }

    /// Another one whose devices can be moved between the two.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn inside(&self) -> Result<Self> {
        let mut command = self.command(places::program("unshare")?)?;
        command.arg("--net");
        Self::held_by(command)
    }

    fn held_by(mut command: Command) -> Result<Self> {
        let script = format!(
            "ip link set lo up && ip addr add {FOREIGN_ADDRESS}/32 dev lo && echo @up && exec sleep {LONGEST_SECONDS}"
        );
        command.args(["sh", "-c", &script]);
        let holder = Process::start("the network namespace", &mut command)?;
        holder.wait_for("@up", SET_UP)?;
        Ok(Self { holder })
    }

    /// The process that holds it.
    pub(crate) fn id(&self) -> u32 {
        self.holder.id()
    }

    /// A program in it.
    ///
    /// # Errors
    /// nsenter is missing.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(places::program("nsenter")?);
        command.args([
            "--target",
            &self.holder.id().to_string(),
            "--user",
            "--net",
            "--preserve-credentials",
        ]);
        command.arg(program);
        Ok(command)
    }
}
