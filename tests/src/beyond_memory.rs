//! A guest that needs more memory than it and the pool have, and compares every byte of it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{build_checker, daemon::Daemon, uml::UmlGuest};

const TIMEOUT: Duration = Duration::from_secs(200);

/// Its name, and that of its disk.
const DISK: &str = "uml";

/// The guest, which runs.
pub struct BeyondMemory(UmlGuest);

impl BeyondMemory {
    /// Boots it on a disk `uml`, which there has to be. 224 MiB in a guest of 192, of pages that hardly compress: far more than a pool of 24 MiB
    /// holds has to go somewhere.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn boot(daemon: &Daemon) -> Result<Self> {
        let checker = build_checker(daemon.directory())?;
        let script = format!(
            "swapon LABEL=tmem\n\
             {} 224 51 1 kind=random\n\
             echo \"@write_errors $(dmesg | grep -c 'Write-error on swap-device' || true)\"\n\
             echo \"@read_errors $(dmesg | grep -c 'Read-error on swap-device' || true)\"\n",
            checker.display()
        );
        UmlGuest::boot(daemon, DISK, &script).map(Self)
    }

    /// Waits for its end: every byte was as it should be, without an error.
    ///
    /// # Errors
    /// Not so, or it does not end.
    pub fn end_well(self, daemon: &Daemon) -> Result<()> {
        self.end(daemon, &["@read_errors 0", "@write_errors 0"])
    }

    /// The same, though writes may have been refused, which left pages in the guest's own memory.
    ///
    /// # Errors
    /// As [`BeyondMemory::end_well`].
    pub fn end_well_but_for_refusals(self, daemon: &Daemon) -> Result<()> {
        self.end(daemon, &["@read_errors 0"])
    }

    fn end(self, daemon: &Daemon, lines: &[&str]) -> Result<()> {
        let console = self.0.finish(TIMEOUT)?;
        let all = console.join("\n");
        ensure!(console.iter().any(|line| line.starts_with("VERIFIED ")), "not verified:\n{all}");
        for expected in lines {
            ensure!(console.iter().any(|line| line == expected), "no {expected}:\n{all}");
        }
        let status = daemon.status()?;
        ensure!(daemon.client(DISK, "checksum_errors")? == 0, "{status:#}");
        Ok(())
    }
}
