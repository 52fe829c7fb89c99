//! A worker that does what the test tells it, a line each, and the test's end of it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    thread,
    time::Duration,
};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tmem_keeper::{Client, GuestEnds, Upgrading};

use crate::stage::{CONTROL, DIRECTORY, GUESTS, PROGRAM_MARK};

/// Longer than anything takes, however busy the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The test's end.
pub struct Puppet {
    /// Which program it runs.
    pub program: String,
    control: BufReader<UnixStream>,
}

impl Puppet {
    pub fn new(control: UnixStream) -> Puppet {
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut puppet = Puppet { program: String::new(), control: BufReader::new(control) };
        puppet.program = puppet.answer();
        puppet
    }

    /// Tells it to do something and waits for what came of it.
    pub fn asks(&mut self, command: &str) -> String {
        self.tells(command);
        self.answer()
    }

    pub fn tells(&self, command: &str) {
        writeln!(&mut self.control.get_ref(), "{command}").unwrap();
    }

    /// What came of the command before.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        line.pop().expect("a worker that lives");
        line
    }

    /// Tells it to end, and waits for that.
    pub fn dies(self, how: &str) {
        self.tells(how);
        self.ends();
    }

    /// Waits for its end.
    pub fn ends(mut self) {
        let mut rest = Vec::new();
        // A worker that was killed with commands unread resets the connection.
        let _ = self.control.read_to_end(&mut rest);
    }

    /// Waits until it says that SIGTERM came, or is dead.
    pub fn hears_sigterm_or_dies(&mut self) {
        let mut line = String::new();
        let _ = self.control.read_line(&mut line);
    }

    pub fn if_alive(self) -> Option<Puppet> {
        self.control.get_ref().set_nonblocking(true).unwrap();
        let gone = matches!((&mut self.control.get_ref()).read(&mut [0]), Ok(0));
        self.control.get_ref().set_nonblocking(false).unwrap();
        (!gone).then_some(self)
    }
}

/// What a worker is left with.
struct Work {
    keeper: Option<Client>,
    directory: PathBuf,
    control: UnixStream,
    /// Libraries' ends are held by threads.
    lives: Vec<UnixStream>,
    listeners: Vec<UnixListener>,
}

/// The worker's life.
pub fn work() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let keeper = Client::from_environment().unwrap();
    let control = UnixStream::connect(directory.join(CONTROL)).unwrap();
    let program = std::fs::read("/proc/self/exe").unwrap();
    let mark = program.windows(PROGRAM_MARK.len()).rposition(|bytes| bytes == PROGRAM_MARK.as_bytes());
    let name = mark.map_or("?".into(), |at| String::from_utf8_lossy(&program[at + PROGRAM_MARK.len()..]));
    writeln!(&mut &control, "{name}").unwrap();
    let commands = BufReader::new(control.try_clone().unwrap());
    let mut work = Work { keeper, directory, control, lives: Vec::new(), listeners: Vec::new() };
    for command in commands.lines().map_while(Result::ok) {
        let (what, rest) = command.split_once(' ').unwrap_or((&command, ""));
        let answer = work.does(what, rest).unwrap_or_else(|error| error.to_string());
        writeln!(&mut &work.control, "{answer}").unwrap();
    }
}

impl Work {
    fn does(&mut self, what: &str, rest: &str) -> std::io::Result<String> {
        if what == "close-socket" {
            self.keeper = None;
            return Ok(String::new());
        }
        let keeper = self.keeper.as_ref().unwrap();
        let done = |()| String::new();
        match what {
            "hello" => keeper.hello().map(|serves| u8::from(serves).to_string()),
            "take" => keeper.take().map(|deaths| deaths.to_string()),
            "ready" => keeper.ready().map(done),
            "list" => keeper.list().map(|held| {
                let files = held.files.into_iter().map(|(name, _)| name);
                let guests = held.connections.iter().map(|kept| format!("{}={}", kept.label, kept.number));
                files.chain(guests).collect::<Vec<_>>().join(" ")
            }),
            "keep" => keeper.keep(rest, std::fs::File::open("/dev/null")?.as_fd()).map(done),
            "release" => keeper.release(rest).map(done),
            "close" => keeper.close(rest.parse().unwrap()).map(done),
            "upgrade" => keeper.upgrade().map(done),
            "want-spare" => keeper.want_spare(rest.parse().unwrap()).map(done),
            "spare" => {
                keeper.spare_pid().map(|pid| if pid.is_some() { "stands by" } else { "none" }.to_owned())
            }
            "bind" => {
                let (mode, path) = rest.split_once(' ').unwrap();
                let bound = keeper.bind(path.as_ref(), u32::from_str_radix(mode, 8).unwrap())?;
                let said = if bound.has_replaced { "replaced" } else { "made" };
                self.listeners.push(bound.listener);
                Ok(said.to_owned())
            }
            "bind-and-keep" => {
                let (_, path) = rest.split_once(' ').unwrap();
                let bound = keeper.bind(path.as_ref(), 0o600)?;
                keeper.keep("s", bound.listener.as_fd()).map(|()| "made".to_owned())
            }
            "unbind" => keeper.unbind(rest.as_ref()).map(done),
            "unlisten" => {
                self.listeners.clear();
                Ok(String::new())
            }
            "bind-tcp" => keeper.bind_tcp(rest.parse().unwrap())?.local_addr().map(|at| at.to_string()),
            "open-tier" => {
                let file = keeper.open_tier(rest.parse().unwrap())?;
                let flags = rustix::fs::fcntl_getfl(&file)?;
                Ok(flags.contains(rustix::fs::OFlags::RDWR).to_string())
            }
            "upgrading" => keeper.upgrading().map(|state| {
                match state {
                    Upgrading::None => "none",
                    Upgrading::UnderWay => "under way",
                    Upgrading::Failed => "failed",
                }
                .to_owned()
            }),
            "adopt" => {
                let guest = UnixStream::connect(self.directory.join(GUESTS))?;
                let (ends, life) = ends()?;
                let number = keeper.adopt(rest, guest.as_fd(), ends)?;
                self.lives.push(life);
                Ok(number.to_string())
            }
            "adopt-waiting" => {
                let (label, path) = rest.split_once(' ').unwrap();
                let bound = keeper.bind(path.as_ref(), 0o600)?;
                keeper.keep("listener", bound.listener.as_fd())?;
                let (first, _life) = ends()?;
                let nobody = keeper.adopt(label, bound.listener.as_fd(), first).unwrap_err();
                assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
                writeln!(&mut &self.control, "listens")?;
                let (second, life) = ends()?;
                bound.listener.set_nonblocking(false)?;
                let mut polled = [rustix::event::PollFd::new(&bound.listener, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut polled, None)?;
                let number = keeper.adopt(label, bound.listener.as_fd(), second)?;
                self.lives.push(life);
                Ok(number.to_string())
            }
            "attach" => {
                let (ends, life) = ends()?;
                keeper.attach(rest.parse().unwrap(), ends)?;
                self.lives.push(life);
                Ok(String::new())
            }
            "adopt-and-abort" => {
                let guest = UnixStream::connect(self.directory.join(GUESTS))?;
                let (ends, _life) = ends()?;
                let datagram = [&[8, 0, 0, 0, 0, 0, 0, 0], rest.as_bytes()].concat();
                raw(&datagram, &[guest.as_fd(), ends.library.as_fd(), ends.life.as_fd()])?;
                std::process::abort()
            }
            "raw" => {
                let (code, number) = rest.split_once(' ').unwrap_or((rest, "0"));
                raw(&[code.parse().unwrap(), 0, 0, 0, number.parse().unwrap(), 0, 0, 0], &[])?;
                let mut answer = [0; 8];
                let (bytes, _) = rustix::net::recv(socket(), &mut answer, RecvFlags::empty())?;
                assert_eq!((bytes, answer[0]), (8, 65), "refused");
                Ok(u32::from_ne_bytes(answer[4..].try_into().unwrap()).to_string())
            }
            "flood" => loop {
                raw(&[3, 0, 0, 0, 0, 0, 0, 0], &[])?;
            },
            "on-sigterm" => {
                on_sigterm(rest, &self.control);
                Ok(String::new())
            }
            "exit" => std::process::exit(rest.parse().unwrap()),
            "abort" => std::process::abort(),
            _ => panic!("{what}"),
        }
    }
}

/// The socket to the keeper, under its number.
fn socket() -> BorrowedFd<'static> {
    // SAFETY: a worker starts with it, and these commands come while it is open.
    unsafe { BorrowedFd::borrow_raw(3) }
}

fn raw(datagram: &[u8], descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let parts = [std::io::IoSlice::new(datagram)];
    rustix::net::sendmsg(socket(), &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Ends with this code, or says that it came and waits.
fn on_sigterm(how: &str, control: &UnixStream) {
    // SAFETY: the set is made before it is used. This process has one thread as yet, which blocks the signal for those to come.
    let set = unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    let (code, mut control) = (how.parse().ok(), control.try_clone().unwrap());
    thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both are valid.
        unsafe { libc::sigwait(&set, &mut signal) };
        if let Some(code) = code {
            std::process::exit(code);
        }
        writeln!(control, "SIGTERM").unwrap();
    });
}

/// What a guest is tied to: a thread that answers the first message of all with eight zeroes.
fn ends() -> std::io::Result<(GuestEnds, UnixStream)> {
    let ((mut library, keepers_library), (life, keepers_life)) = (UnixStream::pair()?, UnixStream::pair()?);
    thread::spawn(move || {
        let mut header = [0; 12];
        while library.read_exact(&mut header).is_ok() {
            let bytes = u32::from_ne_bytes(header[8..].try_into().unwrap());
            library.read_exact(&mut vec![0; bytes as usize]).unwrap();
            if header[0] == 1 {
                let answer = [1u32, 5, 8, 0, 0].map(u32::to_ne_bytes).concat();
                let _ = library.write_all(&answer);
            }
        }
    });
    Ok((GuestEnds { library: keepers_library, life: keepers_life }, life))
}
