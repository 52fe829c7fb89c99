//! A service manager as far as keepers know one: it takes what they want held, and gives it to the next. That systemd itself does so is shown where a
//! whole daemon runs under it.

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{net::UnixDatagram, process::CommandExt},
    },
    path::Path,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// Says that there is such a manager, and where.
const NOTIFY: &str = "NOTIFY_SOCKET";
/// Has the keeper take what this manager held: only it knows its own number.
const GIVEN: &str = "KEEPER_TEST_GIVEN";

type Held = BTreeMap<String, Vec<OwnedFd>>;

/// See the module.
pub struct Manager {
    held: Arc<Mutex<Held>>,
    address: std::path::PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Manager {
    pub fn new(directory: &Path) -> Manager {
        let address = directory.join("notify");
        let socket = UnixDatagram::bind(&address).unwrap();
        let held = Arc::new(Mutex::new(Held::new()));
        let thread = thread::spawn({
            let held = Arc::clone(&held);
            move || while hear(&socket, &held) {}
        });
        Manager { held, address, thread: Some(thread) }
    }

    /// What it holds. It hears nothing meanwhile.
    pub fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a keeper start under it, and gives it what is held.
    pub fn prepare(&self, keeper: &mut Command) {
        let held = self.held();
        let mut names = Vec::new();
        let mut files: Vec<OwnedFd> = Vec::new();
        for (name, ends) in held.iter() {
            names.extend(ends.iter().map(|_| name.as_str()));
            files.extend(ends.iter().map(|end| end.try_clone().unwrap()));
        }
        let count = files.len();
        keeper.env(NOTIFY, &self.address).env(GIVEN, "yes");
        keeper.env("LISTEN_FDS", count.to_string()).env("LISTEN_FDNAMES", names.join(":"));
        // SAFETY: only system calls, between fork and exec.
        unsafe {
            keeper.pre_exec(move || {
                for file in &files {
                    libc::fcntl(file.as_raw_fd(), libc::F_DUPFD, 500);
                }
                for number in 0..count as i32 {
                    libc::dup2(500 + number, 3 + number);
                    libc::close(500 + number);
                }
                Ok(())
            });
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"quit", &self.address));
        self.thread.take().map(JoinHandle::join);
    }
}

/// In the keeper that such a manager has started.
pub fn is_ours() {
    if std::env::var_os(GIVEN).is_some() {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var("LISTEN_PID", std::process::id().to_string()) };
    }
}

fn hear(socket: &UnixDatagram, held: &Mutex<Held>) -> bool {
    let mut bytes = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags).unwrap();
    let text = String::from_utf8(bytes[..received.bytes].to_vec()).unwrap();
    let mut ends = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            ends.extend(rights);
        }
    }
    let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
    match text.lines().next() {
        Some("FDSTORE=1") => {
            assert!(text.contains("\nFDPOLL=0\n"), "{text}");
            held.entry(name).or_default().extend(ends);
        }
        Some("FDSTOREREMOVE=1") => drop(held.remove(&name)),
        Some("quit") => return false,
        _ => panic!("{text}"),
    }
    true
}
