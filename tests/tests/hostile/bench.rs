//! A daemon, a victim, and what a case is done on.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use tmem_tests::Daemon;

use super::{footprint::Footprint, guest::Guest, nbd::Nbd, victim::Victim};

/// Guards against hanging.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    pub daemon: Daemon,
    pub victim: Victim,
    before: Footprint,
}

impl Bench {
    /// `victim` is its transport: `nbd` or `vhost-user`. The disk `hostile` is on both kinds: `hostile` and `hostile-nbd`.
    pub fn new(victim: &str, pool_size: &str) -> Result<Bench> {
        Bench::with(victim, pool_size, &[])
    }

    /// The same with further flags for the daemon.
    pub fn with(victim: &str, pool_size: &str, more: &[String]) -> Result<Bench> {
        raise_own_descriptor_limit();
        let daemon = Daemon::start_with(pool_size, more, None)?;
        let nbd = daemon.directory().join("nbd.sock");
        let place = nbd.to_str().context("UTF-8")?;
        daemon.add_nbd_disk("hostile-nbd", "64M", place, &["--format", "none"])?;
        daemon.add_disk("hostile", "64M", &["--format", "none"])?;
        let victim = match victim {
            "nbd" => {
                daemon.add_nbd_disk("victim", "64M", place, &["--format", "none"])?;
                Victim::over_nbd(&nbd, "victim")?
            }
            _ => {
                daemon.add_disk("victim", "64M", &["--format", "none"])?;
                Victim::over_vhost_user(&daemon.directory().join("victim.sock"))?
            }
        };
        victim.goes_on("the start")?;
        // Whatever the daemon sets up for good at the first of each kind is there afterwards.
        drop(Nbd::open(&nbd, "hostile-nbd")?);
        drop(Guest::connect(&daemon.directory().join("hostile.sock"), 2)?);
        daemon.status()?;
        let before = Footprint::of(&daemon)?;
        let bench = Bench { daemon, victim, before };
        bench.all_is_well("the first of each kind")?;
        Ok(bench)
    }

    pub fn nbd(&self) -> PathBuf {
        self.daemon.directory().join("nbd.sock")
    }

    /// The next hostile guest, once the one before has left.
    pub fn hostile_guest(&self) -> Result<Guest> {
        let free = |daemon: &Daemon| Ok(!daemon.is_connected("hostile")?);
        self.daemon.wait_until("the guest before has left", PATIENCE, free)?;
        Ok(Guest::connect(&self.vhost_user(), 2)?)
    }

    /// The hostile guest's socket.
    pub fn vhost_user(&self) -> PathBuf {
        self.daemon.directory().join("hostile.sock")
    }

    pub fn admin(&self) -> PathBuf {
        self.daemon.directory().join("run/admin.sock")
    }

    pub fn memory_kib(&self) -> Result<[u64; 2]> {
        Ok(Footprint::of(&self.daemon)?.memory_kib)
    }

    pub fn descriptors(&self) -> Result<[usize; 2]> {
        Ok(Footprint::of(&self.daemon)?.descriptors)
    }

    /// While something hostile is still there.
    pub fn goes_on(&self, case: &str) -> Result<()> {
        self.victim.goes_on(case)?;
        self.daemon.status().with_context(|| case.to_owned())?;
        Ok(())
    }

    /// After a case: the victim goes on, and the daemon holds no more than before.
    pub fn all_is_well(&self, case: &str) -> Result<()> {
        self.goes_on(case)?;
        self.before.comes_back(&self.daemon, case)
    }

    pub fn finish(self) -> Result<()> {
        let Bench { daemon, victim, .. } = self;
        victim.finish()?;
        for counter in ["refused_puts", "checksum_errors"] {
            ensure!(daemon.client("victim", counter)? == 0, "{counter}: {:#}", daemon.status()?);
        }
        daemon.stop().map(drop)
    }
}

/// This process holds the other ends of thousands of connections.
fn raise_own_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one limit is read and written.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
