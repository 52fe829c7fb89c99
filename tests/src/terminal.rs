//! A terminal whose screen can be read, with a program in it.

use std::{
    fs::File,
    io::{Read, Write},
    mem::MaybeUninit,
    num::NonZeroU16,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Command, ExitStatus},
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use vt100::Parser;

const POLL: Duration = Duration::from_millis(20);

/// A terminal with a running program. Dropping it kills the program.
pub struct Terminal {
    child: Child,
    /// The person's end.
    keyboard: File,
    /// The program's end: kept open, so that its settings can be read after the program.
    line: OwnedFd,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    parser: Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Starts a program in a terminal of this size.
    ///
    /// # Errors
    /// The OS has no terminal, or the program cannot be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let (mut ours, mut theirs) = (-1, -1);
        let size = window(columns, rows);
        // SAFETY: both numbers are writable, nothing is said of a name or settings, and `size` outlives the call.
        if unsafe { libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null(), &size) } != 0 {
            return Err(std::io::Error::last_os_error()).context("no terminal");
        }
        // SAFETY: openpty() has just made both, and nobody else has them.
        let (ours, line) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        let end = || line.try_clone().context("cannot share the terminal");
        command.stdin(end()?).stdout(end()?).stderr(end()?).env("TERM", "xterm-256color");
        // SAFETY: setsid() and ioctl() may be called after fork() and touch no memory; standard input is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().context("cannot start a program in a terminal")?;
        // The command holds ends of the terminal.
        drop(command);
        let seen = Arc::new(Mutex::new(Seen {
            parser: Parser::new(cells(rows), cells(columns), 0),
            bytes: Vec::new(),
        }));
        let (mut output, sink) = (ours.try_clone().context("cannot share the terminal")?, Arc::clone(&seen));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut seen = sink.lock().unwrap_or_else(PoisonError::into_inner);
                seen.parser.process(&bytes[..count]);
                seen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Ok(Self { child, keyboard: ours, line, seen })
    }

    /// Types this.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes()).context("cannot type")
    }

    /// Gives it another size.
    ///
    /// # Errors
    /// The OS refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        self.lock().parser.set_size(cells(rows), cells(columns));
        let size = window(columns, rows);
        // SAFETY: the request reads a winsize, which outlives the call.
        if unsafe { libc::ioctl(self.keyboard.as_raw_fd(), libc::TIOCSWINSZ, &size) } != 0 {
            return Err(std::io::Error::last_os_error()).context("cannot resize the terminal");
        }
        Ok(())
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.lock().parser.screen().contents()
    }

    /// All that the program ever wrote.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Whether it is as a shell wants it: the usual screen, with a cursor.
    pub fn is_plain(&self) -> bool {
        let seen = self.lock();
        !(seen.parser.screen().alternate_screen() || seen.parser.screen().hide_cursor())
    }

    /// Waits until the screen is so.
    ///
    /// # Errors
    /// The time is up; `what` says what did not come true.
    pub fn wait_for(&self, what: &str, timeout: Duration, is_so: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !is_so(&self.screen()) {
            if Instant::now() > deadline {
                bail!("not within {timeout:?}: {what}; the screen:\n{}", self.screen());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until the program has ended, and all that it wrote was seen.
    ///
    /// # Errors
    /// The time is up.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the program")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it still runs after {timeout:?}; the screen:\n{}", self.screen());
            }
            thread::sleep(POLL);
        }
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the line is set: flags of input, output, control and local handling.
    ///
    /// # Errors
    /// The OS does not say.
    pub fn settings(&self) -> Result<[u32; 4]> {
        let mut settings = MaybeUninit::<libc::termios>::zeroed();
        // SAFETY: `settings` is writable for one termios, and all zeroes is a valid one.
        let settings = unsafe {
            if libc::tcgetattr(self.line.as_raw_fd(), settings.as_mut_ptr()) != 0 {
                return Err(std::io::Error::last_os_error()).context("cannot read the terminal's settings");
            }
            settings.assume_init()
        };
        Ok([settings.c_iflag, settings.c_oflag, settings.c_cflag, settings.c_lflag])
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It fails only for a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The screen that is read is never without a cell.
fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).unwrap_or(NonZeroU16::MIN)
}

fn window(columns: u16, rows: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
