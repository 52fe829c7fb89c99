//! A keeper with its directory: the program that it starts, and sockets that workers come to.

use std::{
    fs,
    io::{IoSlice, Read},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tempfile::TempDir;
use tmem_keeper::{Keeper, KeeperOptions, Program};

use crate::{
    counted,
    manager::{self, Manager},
    puppet::{PATIENCE, Puppet},
};

/// Names the directory in the environment of a keeper and its workers.
pub const DIRECTORY: &str = "KEEPER_TEST";
const DEATHS: &str = "KEEPER_TEST_DEATHS";
/// Where workers come for commands.
pub const CONTROL: &str = "control";
/// Where they come for guests.
pub const GUESTS: &str = "guests";
/// The tier that workers may open.
pub const TIER: &str = "tier";
/// Stands behind a program, before its name.
pub const PROGRAM_MARK: &str = concat!("\nprogram", " name=");
const PROGRAM: &str = "program";
/// A file that is there for a keeper that does not wait long for a worker.
const IMPATIENT: &str = "impatient";
const START: Duration = Duration::from_secs(3);
/// Exit code of a keeper that asked for memory.
const ALLOCATED: i32 = 99;

/// The keeper's life.
pub fn keep() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let deaths_per_minute = std::env::var(DEATHS).unwrap().parse().unwrap();
    manager::is_ours();
    let program = Program::new(directory.join(PROGRAM), ["worker".into()], []).unwrap();
    let start = if directory.join(IMPATIENT).exists() { START } else { KeeperOptions::START };
    let options =
        KeeperOptions { deaths_per_minute, start, patience: None, tier: Some(directory.join(TIER)) };
    let keeper = Keeper::new(&program, options).unwrap();
    counted::begin();
    let code = keeper.run();
    let allocations = counted::end();
    if allocations > 0 {
        eprintln!("the keeper asked for memory {allocations} times");
        std::process::exit(ALLOCATED);
    }
    std::process::exit(code.into());
}

/// This program under a name.
pub fn with_program(name: &str) -> Vec<u8> {
    let mut bytes = fs::read("/proc/self/exe").unwrap();
    bytes.extend(PROGRAM_MARK.bytes().chain(name.bytes()));
    bytes
}

/// See the module. Dropping it kills the keeper, and with it the workers.
pub struct Stage {
    keeper: Child,
    control: UnixListener,
    guests: UnixListener,
    _unread: Option<OwnedFd>,
    deaths_per_minute: u32,
    /// Behind the keeper: it is to hear of the keeper's end.
    pub manager: Option<Manager>,
    directory: TempDir,
}

impl Stage {
    pub fn new(deaths_per_minute: u32) -> Stage {
        Stage::with(deaths_per_minute, &with_program("first"))
    }

    pub fn with(deaths_per_minute: u32, program: &[u8]) -> Stage {
        Stage::start(deaths_per_minute, program, None)
    }

    /// Its log is a pipe that is full, and nobody reads it.
    pub fn with_full_log() -> Stage {
        let (reader, mut writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        Stage::start(5, &with_program("first"), Some((reader.into(), writer.into())))
    }

    /// Workers have three seconds to be ready.
    pub fn impatient() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(IMPATIENT), "").unwrap();
        Stage::in_directory(directory, 5, &with_program("first"), None, None)
    }

    /// A service manager is there that holds what is held.
    pub fn managed() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let manager = Manager::new(directory.path());
        Stage::in_directory(directory, 5, &with_program("first"), None, Some(manager))
    }

    fn start(deaths_per_minute: u32, program: &[u8], log: Option<(OwnedFd, OwnedFd)>) -> Stage {
        Stage::in_directory(tempfile::tempdir().unwrap(), deaths_per_minute, program, log, None)
    }

    fn in_directory(
        directory: TempDir,
        deaths_per_minute: u32,
        program: &[u8],
        log: Option<(OwnedFd, OwnedFd)>,
        manager: Option<Manager>,
    ) -> Stage {
        let path = |name: &str| directory.path().join(name);
        place(program, &directory);
        let control = UnixListener::bind(path(CONTROL)).unwrap();
        let guests = UnixListener::bind(path(GUESTS)).unwrap();
        let (unread, stderr) = match log {
            Some((reader, writer)) => (Some(reader), Stdio::from(writer)),
            None => (None, Stdio::from(fs::File::create(path("log")).unwrap())),
        };
        for listener in [&control, &guests] {
            listener.set_nonblocking(true).unwrap();
        }
        let keeper = start_keeper(&directory, deaths_per_minute, stderr, manager.as_ref());
        Stage { keeper, control, guests, _unread: unread, deaths_per_minute, manager, directory }
    }

    /// The keeper is killed, and the service manager starts another.
    pub fn keeper_dies(&mut self) {
        self.keeper.kill().unwrap();
        self.keeper.wait().unwrap();
        let log = fs::OpenOptions::new().append(true).open(self.directory.path().join("log")).unwrap();
        // What the one before still had to say is heard by then, as it is by systemd before a death is.
        thread::sleep(Duration::from_millis(100));
        self.keeper =
            start_keeper(&self.directory, self.deaths_per_minute, log.into(), self.manager.as_ref());
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a program in the place of the one that is there.
    pub fn replace(&self, program: &[u8]) {
        self.remove_program();
        place(program, &self.directory);
    }

    pub fn remove_program(&self) {
        fs::remove_file(self.directory.path().join(PROGRAM)).unwrap();
    }

    /// The next worker that comes.
    pub fn worker(&self) -> Puppet {
        Puppet::new(self.comes(&self.control))
    }

    /// One that serves, and has something held.
    pub fn serving(&self) -> Puppet {
        let mut worker = self.worker();
        for command in ["hello", "take", "keep a", "ready"] {
            worker.asks(command);
        }
        worker
    }

    /// A guest that this worker has handed over.
    pub fn guest(&self, worker: &mut Puppet, label: &str) -> UnixStream {
        worker.tells(&format!("adopt {label}"));
        let guest = self.connection();
        worker.answer();
        guest
    }

    pub fn connection(&self) -> UnixStream {
        let guest = self.comes(&self.guests);
        guest.set_read_timeout(Some(PATIENCE)).unwrap();
        guest
    }

    fn comes(&self, listener: &UnixListener) -> UnixStream {
        let start = Instant::now();
        loop {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            assert!(start.elapsed() < PATIENCE, "nobody comes; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: takes two numbers; the child was not waited for.
        unsafe { libc::kill(self.keeper.id() as libc::pid_t, signal) };
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Waits until it has said this.
    pub fn logs(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no `{text}` in:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many workers there are.
    pub fn children(&self) -> usize {
        let id = self.keeper.id();
        fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap().split_whitespace().count()
    }

    /// Waits until there are so many.
    pub fn children_are(&self, many: usize) {
        let start = Instant::now();
        while self.children() != many {
            assert!(start.elapsed() < PATIENCE, "{} children, not {many}", self.children());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How often the keeper woke up in a while in which it has nothing to do.
    pub fn wakeups(&self) -> u64 {
        // What was just asked of it is done by then.
        thread::sleep(Duration::from_millis(100));
        let count = || -> u64 {
            let status = fs::read_to_string(format!("/proc/{}/status", self.keeper.id())).unwrap();
            let number = |name: &str| -> u64 {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().parse().unwrap()
            };
            number("voluntary_ctxt_switches:") + number("nonvoluntary_ctxt_switches:")
        };
        let before = count();
        thread::sleep(Duration::from_millis(300));
        count() - before
    }

    /// The worker serves, ends, and the keeper with it.
    pub fn serves(&mut self, worker: &mut Puppet) {
        for command in ["take", "ready", "on-sigterm 0"] {
            worker.asks(command);
        }
        self.signal(libc::SIGTERM);
        assert_eq!(self.ends(), 0);
    }

    /// Waits for the keeper's end. Gives its exit code.
    pub fn ends(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.keeper.try_wait().unwrap() {
                assert_ne!(status.code(), Some(ALLOCATED), "{}", self.log());
                return status.code().unwrap_or_else(|| -status.signal().unwrap());
            }
            assert!(start.elapsed() < PATIENCE, "the keeper goes on; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn start_keeper(directory: &TempDir, deaths_per_minute: u32, log: Stdio, manager: Option<&Manager>) -> Child {
    let mut keeper = Command::new("/proc/self/exe");
    keeper.env(DIRECTORY, directory.path()).env(DEATHS, deaths_per_minute.to_string());
    keeper.stdin(Stdio::null()).stderr(log);
    if let Some(manager) = manager {
        manager.prepare(&mut keeper);
    }
    keeper.spawn().unwrap()
}

/// Written beside and moved, so that nobody starts a program that is still written to.
fn place(program: &[u8], directory: &TempDir) {
    let new = directory.path().join("new");
    fs::write(&new, program).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, directory.path().join(PROGRAM)).unwrap();
}

/// Waits until it is so.
pub fn eventually(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it never comes to be");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends this with so many descriptors.
pub fn says(to: &UnixStream, bytes: &[u8], descriptors: usize) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptor = [to.as_fd()];
    if descriptors > 0 {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptor)));
    }
    // One that was turned away cannot say any more.
    let _ = rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
}

/// Whether the guest is still connected. One that is not may take a moment to find out.
pub fn is_connected(guest: &UnixStream) -> bool {
    guest.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let read = (&mut &*guest).read(&mut [0]);
    guest.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
