//! `tmem top` in a real terminal, with a real daemon.

use std::time::Duration;

use anyhow::{Context, Result};
use tmem_tests::{Daemon, Terminal};

/// Nothing here takes more than two seconds; this is for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const TOP: [&str; 3] = ["top", "--interval", "0.2"];

/// Waits for the end of a program that was asked for it, and sees that the terminal is as it was.
fn ends_well(terminal: &mut Terminal, settings: [u32; 4]) -> Result<()> {
    let status = terminal.wait(PATIENCE)?;
    assert!(status.success(), "{status}");
    // What it wrote last may still be on its way.
    terminal.wait_for("the usual screen", PATIENCE, |_| terminal.is_plain())?;
    assert_eq!(terminal.settings()?, settings, "the line is set as before");
    Ok(())
}

fn send(process: u32, signal: libc::c_int) -> Result<()> {
    let id = libc::pid_t::try_from(process)?;
    // SAFETY: kill() touches no memory. Nobody has waited for this child.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    Ok(())
}

#[test]
fn a_disk_comes_and_goes_and_q_ends_it() -> Result<()> {
    let daemon = Daemon::start("64M")?;
    let mut terminal = daemon.terminal(&TOP, 100, 30)?;
    let settings = terminal.settings()?;
    terminal.wait_for("an empty list", PATIENCE, |screen| screen.contains("no guests yet"))?;
    assert!(!terminal.is_plain());
    assert_ne!(terminal.settings()?, settings, "keys come one by one");
    daemon.add_disk("vm1", "64M", &[])?;
    let line = |screen: &str, words: &str| screen.lines().any(|line| line.starts_with(words));
    terminal.wait_for("a disk", PATIENCE, |screen| line(screen, "vm1      no guest "))?;
    for (columns, rows) in [(40, 12), (80, 24), (10, 4), (200, 50)] {
        terminal.resize(columns, rows)?;
        terminal.wait_for("a picture of that size", PATIENCE, |screen| {
            screen.lines().next_back().is_some_and(|last| last.starts_with("q quit"))
                && screen.lines().count() == usize::from(rows)
        })?;
    }
    terminal.press("ss?")?;
    terminal.wait_for("the help", PATIENCE, |screen| {
        screen.contains("select a guest") && screen.contains("s sort: pool")
    })?;
    terminal.press("x")?;
    terminal.wait_for("the list", PATIENCE, |screen| line(screen, "vm1 "))?;
    daemon.tmem_ok(&["disk", "rm", "vm1"])?;
    terminal.wait_for("an empty list", PATIENCE, |screen| screen.contains("no guests yet"))?;
    terminal.press("q")?;
    ends_well(&mut terminal, settings)
}

#[test]
fn a_terminal_is_given_back_however_it_ends() -> Result<()> {
    let daemon = Daemon::start("64M")?;
    let shown =
        |terminal: &Terminal| terminal.wait_for("a picture", PATIENCE, |screen| screen.contains("q quit"));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let mut terminal = daemon.terminal(&TOP, 80, 24)?;
        let settings = terminal.settings()?;
        shown(&terminal)?;
        send(terminal.id(), signal)?;
        ends_well(&mut terminal, settings).with_context(|| format!("signal {signal}"))?;
    }
    for keys in ["\u{3}", "\u{1b}"] {
        let mut terminal = daemon.terminal(&TOP, 80, 24)?;
        let settings = terminal.settings()?;
        shown(&terminal)?;
        terminal.press(keys)?;
        ends_well(&mut terminal, settings).with_context(|| format!("{keys:?}"))?;
    }
    Ok(())
}

#[test]
fn what_a_balancer_says_does_nothing_to_the_terminal() -> Result<()> {
    let daemon = Daemon::start("64M")?;
    daemon.report_balance("evil\u{1b}]0;pwned\u{7}\u{1b}[3J", "because\r\n\u{9b}5m")?;
    let mut terminal = daemon.terminal(&TOP, 120, 30)?;
    let settings = terminal.settings()?;
    terminal.wait_for("its guest", PATIENCE, |screen| {
        screen.contains(r"evil\u{1b}]0;pwned\u{7}\u{1b}[3J") && screen.contains(r"512M: because\r\n\u{9b}5m")
    })?;
    terminal.press("q")?;
    ends_well(&mut terminal, settings)?;
    let written = terminal.bytes();
    for foreign in [&b"\x1b]0;"[..], b"\x07", b"\x1b[3J", "\u{9b}".as_bytes()] {
        assert!(!written.windows(foreign.len()).any(|bytes| bytes == foreign), "{foreign:?}");
    }
    Ok(())
}

#[test]
fn a_daemon_that_goes_away_is_waited_for() -> Result<()> {
    let mut daemon = Daemon::start("64M")?;
    daemon.add_disk("before", "64M", &[])?;
    let mut terminal = daemon.terminal(&TOP, 100, 24)?;
    let settings = terminal.settings()?;
    terminal.wait_for("its disk", PATIENCE, |screen| screen.contains("before"))?;
    daemon.kill();
    terminal.wait_for("what is wrong", PATIENCE, |screen| {
        screen.contains("no answer since 1 s") && screen.contains("\nbefore ")
    })?;
    daemon.start_again("64M")?;
    daemon.add_disk("after", "64M", &[])?;
    terminal.wait_for("the next daemon's disk", PATIENCE, |screen| {
        screen.contains("\nafter ") && !screen.contains("before") && !screen.contains("no answer")
    })?;
    terminal.press("q")?;
    ends_well(&mut terminal, settings)
}

#[test]
fn without_a_terminal_it_says_what_to_do() -> Result<()> {
    let mut daemon = Daemon::start("64M")?;
    daemon.add_disk("vm1", "64M", &[])?;
    let answer = daemon.tmem(&["top"])?;
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""));
    assert!(
        answer.stderr.contains("`tmem status`") && answer.stderr.lines().count() == 1,
        "{}",
        answer.stderr
    );
    daemon.report_balance("vm1\u{1b}[2J", "why\u{7}")?;
    let text = daemon.tmem_ok(&["top", "--once", "--interval", "0.1"])?;
    assert!(
        text.starts_with("tmem ") && text.contains("\nvm1      ") && text.contains(r"why\u{7}"),
        "{text}"
    );
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    daemon.kill();
    for arguments in [&["top", "--once"][..], &["top"]] {
        let answer = daemon.tmem(arguments)?;
        assert_eq!((answer.code, answer.stderr.lines().count()), (Some(1), 1), "{}", answer.stderr);
    }
    let answer = daemon.tmem(&["top", "--interval", "0"])?;
    assert_eq!(answer.code, Some(2), "{}", answer.stderr);
    Ok(())
}
