//! A program that takes over and then cannot go on: the one before it does, with all that was stored (rule 1).

use std::time::Duration;

use anyhow::{Result, ensure};
use tmem_tests::{Daemon, succeed, tool};

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs lines of Python with `h` connected to the disk.
fn over_nbd(place: &str, lines: &str) -> Result<()> {
    let uri = format!("nbd+unix:///plain?socket={place}");
    succeed(tool("nbdsh", &["-u", &uri, "-c", lines])?).map(drop)
}

fn version_that_serves(daemon: &Daemon) -> Result<String> {
    Ok(std::fs::read_link(format!("/proc/{}/exe", daemon.worker()?))?.display().to_string())
}

#[test]
fn r1_a_program_that_fails_after_it_took_over_is_followed_by_the_one_before_it() -> Result<()> {
    // Without a death before, the first time that each of them comes there.
    for place in ["start", "take-over", "memo"] {
        let daemon = Daemon::start_copy("64M", &format!("kill={place}:1"))?;
        let socket = daemon.directory().join("plain.sock").display().to_string();
        daemon.add_nbd_disk("plain", "16M", &socket, &["--format", "none"])?;
        over_nbd(&socket, "h.pwrite(b'kept' * 1024, 8192)")?;
        let before = daemon.worker()?;
        daemon.replace_program(true)?;
        let answer = daemon.tmem(&["upgrade"])?;
        ensure!(answer.code == Some(1), "{place}: {:?} {}{}", answer.code, answer.stdout, answer.stderr);
        ensure!(
            answer.stderr.contains("did not take over") && answer.stderr.contains("log"),
            "{}",
            answer.stderr
        );
        daemon.wait_for_worker_after(before, PATIENCE)?;
        let log = daemon.lines_after(0).join("\n");
        ensure!(
            log.contains("took over and ended before it served: it was killed by signal "),
            "{place}: {log}"
        );
        over_nbd(&socket, "assert h.pread(4096, 8192) == b'kept' * 1024")?;
        ensure!(daemon.status()?["worker_deaths"] == 1, "{}", daemon.status()?);
        // It was replaced on disk, and that is what runs.
        let program = version_that_serves(&daemon)?;
        ensure!(program.ends_with("/tmem (deleted)"), "{place}: {program}");
        // Whoever mends it has it.
        daemon.replace_program(false)?;
        let told = daemon.tmem_ok(&["upgrade"])?;
        ensure!(told.contains("has taken over"), "{told}");
        over_nbd(&socket, "assert h.pread(4096, 8192) == b'kept' * 1024")?;
        daemon.stop()?;
    }
    Ok(())
}
