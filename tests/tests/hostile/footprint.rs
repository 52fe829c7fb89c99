//! What the daemon holds of its host, and that it is the same again.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tmem_tests::Daemon;

/// Threads of the admin API that wait for more work end after ten seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// Memory that the allocator keeps for threads that are gone.
const ALLOWANCE_KIB: u64 = 32 << 10;

/// Of the process that serves and of its keeper.
#[derive(Clone, Debug)]
pub struct Footprint {
    pub worker: u32,
    pub descriptors: [usize; 2],
    pub threads: [usize; 2],
    /// Pages in the pool are not among it.
    pub memory_kib: [u64; 2],
}

impl Footprint {
    pub fn of(daemon: &Daemon) -> Result<Footprint> {
        let worker = daemon.worker()?;
        let of_both = |what: &dyn Fn(&Path) -> Result<usize>| -> Result<[usize; 2]> {
            Ok([what(&process(worker))?, what(&process(daemon.keeper()))?])
        };
        let count = |directory: &Path| -> Result<usize> { Ok(fs::read_dir(directory)?.count()) };
        let memory = of_both(&|process| Ok(memory_kib(process)? as usize))?;
        Ok(Footprint {
            worker,
            descriptors: of_both(&|process| count(&process.join("fd")))?,
            threads: of_both(&|process| count(&process.join("task")))?,
            memory_kib: memory.map(|kib| kib as u64),
        })
    }

    /// Waits until the daemon holds no more than this again. It is the same process.
    pub fn comes_back(&self, daemon: &Daemon, case: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Footprint::of(daemon).with_context(|| format!("after {case}"))?;
            ensure!(now.worker == self.worker, "{case}: another worker serves");
            let is_back = (0..2).all(|i| {
                now.descriptors[i] <= self.descriptors[i]
                    && now.threads[i] <= self.threads[i]
                    && now.memory_kib[i] <= self.memory_kib[i] + ALLOWANCE_KIB
            });
            if is_back {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{case}: before {self:?}, after {now:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn process(id: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{id}"))
}

fn memory_kib(process: &Path) -> Result<u64> {
    let status = fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
