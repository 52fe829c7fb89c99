//! A QEMU guest with a balloon, whose program is busy or idle as it is told.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{monitor::Monitor, scenario::Scenario};
use crate::{Daemon, QemuGuest};

const BOOTS: Duration = Duration::from_secs(90);
const FILLS: Duration = Duration::from_secs(180);
const BALLOONS: Duration = Duration::from_secs(180);
const ENDS: Duration = Duration::from_secs(240);
/// A balloon that is so near to what it should be is there.
const NEAR_BYTES: u64 = 4 << 20;

/// One guest.
pub struct Machine {
    name: &'static str,
    guest: QemuGuest,
    control: UnixStream,
    monitor: Monitor,
    /// The monitor that is for a balancer.
    pub balancers_monitor: PathBuf,
    /// The socket of its guest agent.
    pub agent: PathBuf,
    seen: usize,
}

impl Machine {
    /// Boots a guest of the scenario's largest size that swaps to a disk of the same name, and has its program fill its memory.
    ///
    /// # Errors
    /// It does not come up.
    pub fn boot(daemon: &Daemon, name: &'static str, scenario: &Scenario, program: &Path) -> Result<Machine> {
        daemon.add_disk(name, "512M", &[])?;
        let place = |what: &str| daemon.directory().join(format!("{name}.{what}"));
        let (own, balancers_monitor, control, agent) =
            (place("own"), place("qmp"), place("ctl"), place("qga"));
        let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
        let serial =
            |id: &str, path: &Path| format!("socket,id={id},path={},server=on,wait=off", path.display());
        let mut arguments = daemon.guest_arguments(name, "qemu", scenario.ceiling_mib)?;
        arguments.extend(
            [
                ["-device", "virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on"].map(str::to_owned),
                ["-qmp".to_owned(), socket(&own)],
                ["-qmp".to_owned(), socket(&balancers_monitor)],
                ["-chardev".to_owned(), serial("control", &control)],
                ["-serial", "chardev:control"].map(str::to_owned),
                ["-chardev".to_owned(), serial("agent", &agent)],
                ["-serial", "chardev:agent"].map(str::to_owned),
            ]
            .concat(),
        );
        let script = format!(
            "stty -F /dev/ttyS1 raw -echo\nswapon /dev/vda\nqemu-ga -m isa-serial -p /dev/ttyS2 -t /run &\necho @booted\n\
             /{program} {mib} < /dev/ttyS1\n",
            program = "check_pages",
            mib = scenario.working_set_mib
        );
        let guest = QemuGuest::boot_with_balloon_and_disk(name, &arguments, program, &script)?;
        guest.wait_for("@booted", BOOTS)?;
        let control = UnixStream::connect(&control).context("cannot connect to the guest's serial line")?;
        let monitor = Monitor::connect(&own)?;
        guest.wait_for("@filled", FILLS)?;
        Ok(Machine { name, guest, control, monitor, balancers_monitor, agent, seen: 0 })
    }

    /// Its name, and that of its disk.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Gives it so much, and waits until it has come there.
    ///
    /// # Errors
    /// It does not.
    pub fn set_size(&mut self, bytes: u64) -> Result<()> {
        let end = Instant::now() + BALLOONS;
        self.monitor.balloon(bytes)?;
        loop {
            let size_bytes = self.size_bytes()?;
            if size_bytes.abs_diff(bytes) <= NEAR_BYTES {
                break;
            }
            ensure!(
                Instant::now() < end,
                "{}: its balloon stays at {size_bytes} bytes, not {bytes}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// What it has, in bytes.
    ///
    /// # Errors
    /// Its monitor does not say.
    pub fn size_bytes(&mut self) -> Result<u64> {
        self.monitor.size_bytes()
    }

    /// Has its program be busy or idle.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn tell(&mut self, busy: bool) -> Result<()> {
        self.say(if busy { "busy\n" } else { "idle\n" })
    }

    fn say(&mut self, line: &str) -> Result<()> {
        self.control
            .write_all(line.as_bytes())
            .with_context(|| format!("{}: cannot tell it `{line}`", self.name))
    }

    /// Operations that its program has said it did since this was asked last.
    ///
    /// # Errors
    /// It found a wrong page.
    pub fn work(&mut self) -> Result<u64> {
        let lines = self.guest.lines_after(self.seen);
        self.seen += lines.len();
        if let Some(wrong) = lines.iter().find(|line| line.starts_with("@wrong") || line.starts_with("@exit"))
        {
            anyhow::bail!("guest {}: {wrong}", self.name);
        }
        let counted = lines
            .iter()
            .filter_map(|line| line.strip_prefix("@work ")?.split(' ').next()?.parse::<u64>().ok());
        Ok(counted.sum())
    }

    /// Has its program compare every page and end.
    ///
    /// # Errors
    /// A page is wrong, or it does not end in time.
    pub fn finish(mut self) -> Result<()> {
        self.say("end\n")?;
        self.guest.wait_for("@verified", ENDS).with_context(|| format!("guest {}", self.name))?;
        Ok(())
    }
}
