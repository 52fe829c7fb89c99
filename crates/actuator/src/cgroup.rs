//! A cgroup of version 2 (<https://docs.kernel.org/admin-guide/cgroup-v2.html>), on the host or in a guest.
//!
//! Its size is what it uses (`memory.current`), or what it may use where that is more: a `memory.high` that was set is memory that was given to it, as a
//! deflated balloon is. One without `memory.high` has what it uses.

use std::{
    fs::OpenOptions,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tmem_balance::Report;
use tokio::task::spawn_blocking;

use crate::{
    ActuatorError, Seen,
    kernel_text::{meminfo_bytes, some_pressure, stat},
    limits,
    reclaim::Reclaim,
};

/// `memory.stat` has some 1.5 KiB, `/proc/meminfo` as much.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// See the module.
pub(crate) struct Cgroup {
    directory: PathBuf,
    reclaim: Arc<Reclaim>,
}

impl Cgroup {
    pub(crate) fn new(directory: PathBuf) -> Cgroup {
        Cgroup { reclaim: Arc::new(Reclaim::new(directory.clone())), directory }
    }

    /// Reading can wait for the kernel, so it is done where waiting is allowed.
    pub(crate) async fn look(&mut self) -> Result<Seen, ActuatorError> {
        let directory = self.directory.clone();
        let looked = spawn_blocking(move || look(&directory)).await;
        looked.unwrap_or_else(|error| Err(file_error(&self.directory, io::Error::other(error))))
    }

    /// As much of it as is done in time; the rest goes on.
    pub(crate) async fn set(&mut self, target_bytes: u64) -> Result<(), ActuatorError> {
        let (directory, reclaim) = (self.directory.clone(), Arc::clone(&self.reclaim));
        let turn = reclaim.begin()?;
        let told = spawn_blocking(move || {
            let target = (target_bytes < max_bytes(&directory)?).then_some(target_bytes);
            turn.tell(target, limits::deadline())
        });
        match tokio::time::timeout(limits::CALL, told).await {
            Ok(told) => {
                told.unwrap_or_else(|error| Err(file_error(&self.directory, io::Error::other(error))))
            }
            Err(_) => Ok(()),
        }
    }
}

fn look(directory: &Path) -> Result<Seen, ActuatorError> {
    let max_bytes = max_bytes(directory)?;
    let current_bytes = current_bytes(directory)?;
    let limit_bytes = limit_bytes(&directory.join("memory.high"))?.unwrap_or(0).min(max_bytes);
    let size_bytes = current_bytes.max(limit_bytes);
    let stats = read(&directory.join("memory.stat"))?;
    // Kernels without pressure information have no such file, and those told to keep none refuse to read it.
    let pressure = read(&directory.join("memory.pressure")).ok();
    let cpu_time = read(&directory.join("cpu.stat")).ok().and_then(|text| stat(&text, "usage_usec"));
    let cpu_time = cpu_time.map(Duration::from_micros);
    // Cached files that nobody has used twice go without anybody's waiting for them.
    let unused_bytes = stat(&stats, "inactive_file").unwrap_or(0).min(current_bytes);
    let report = Report {
        available_bytes: Some(size_bytes - current_bytes + unused_bytes),
        committed_bytes: None,
        pressure: pressure.as_deref().and_then(some_pressure),
    };
    Ok(Seen { size_bytes, max_bytes, report: Some(report), swap_ins: swap_ins(&stats), cpu_time })
}

/// Pages: `pswpin` says it since Linux 6.14, and refaults of anonymous pages nearly the same since 5.9. Before, only faults that waited for a disk are counted.
fn swap_ins(stats: &str) -> Option<u64> {
    ["pswpin", "workingset_refault_anon", "pgmajfault"].iter().find_map(|name| stat(stats, name))
}

/// The least `memory.max` of a cgroup and those above it, or the host's memory.
fn max_bytes(directory: &Path) -> Result<u64, ActuatorError> {
    let mut least_bytes = limit_bytes(&directory.join("memory.max"))?;
    for above in directory.ancestors().skip(1) {
        // The uppermost has none.
        let Ok(limit) = limit_bytes(&above.join("memory.max")) else { break };
        least_bytes = [least_bytes, limit].into_iter().flatten().min();
    }
    let meminfo = Path::new("/proc/meminfo");
    let host_bytes =
        meminfo_bytes(&read(meminfo)?, "MemTotal").ok_or_else(|| garbage(meminfo, "no MemTotal"))?;
    Ok(least_bytes.unwrap_or(u64::MAX).min(host_bytes))
}

/// What it uses.
pub(crate) fn current_bytes(directory: &Path) -> Result<u64, ActuatorError> {
    let path = directory.join("memory.current");
    let text = read(&path)?;
    text.trim().parse().map_err(|_| garbage(&path, &text))
}

/// A limit. `None`: there is none.
fn limit_bytes(path: &Path) -> Result<Option<u64>, ActuatorError> {
    let text = read(path)?;
    match text.trim() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| garbage(path, &text)),
    }
}

fn read(path: &Path) -> Result<String, ActuatorError> {
    let failed = |error| file_error(path, error);
    let mut open = OpenOptions::new();
    // What is no file of a cgroup does not keep anybody waiting.
    let file = open.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

pub(crate) fn file_error(path: &Path, source: io::Error) -> ActuatorError {
    ActuatorError::File { path: path.into(), source }
}

fn garbage(path: &Path, text: &str) -> ActuatorError {
    ActuatorError::Garbage { place: path.into(), what: limits::quoted(text) }
}
