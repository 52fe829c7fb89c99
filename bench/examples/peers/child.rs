//! A process that was started here.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Ended and waited for when it is dropped.
pub(crate) struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned.with_context(|| format!("cannot start {command:?}"))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.context("a child has no pipes")?;
        Ok(Self { process, input, output: BufReader::new(output) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Says a line to it, and hears one.
    pub(crate) fn ask(&mut self, line: &str) -> Result<String> {
        writeln!(self.input, "{line}")?;
        self.hear()
    }

    /// The next line that it says.
    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "a child of this benchmark has ended early");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It fails only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a process has of memory that is its own, in bytes, that of its memory files included.
pub(crate) fn resident_bytes(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let own = kib.context("a process without memory")?.trim().parse::<u64>()? << 10;
    // Of a memory file a process has what it has looked at; the rest takes as much.
    let mut files = 0;
    for entry in std::fs::read_dir(format!("/proc/{id}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path)?.to_string_lossy().starts_with("/memfd:") {
            files += std::fs::metadata(&path)?.blocks() * 512;
        }
    }
    Ok(own + files)
}
