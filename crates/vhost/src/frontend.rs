//! Listens for guests, one at a time.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tmem_disk::SwapDisk;
use tmem_transport::{LogLimit, SocketFile, thread_name};
use vmm_sys_util::event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier};

use crate::connection::{Caller, Connection, News};
use crate::counters::{Counters, VhostCounts};
use crate::error::VhostError;
use crate::options::VhostOptions;

/// How long a second guest waits for the first to leave. A hypervisor that is started as soon as the one before has ended, or
/// been killed, would otherwise come too early now and then.
const PATIENCE: Duration = Duration::from_millis(500);
/// Pause after a failed accept, so that a lack of descriptors does not turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One vhost-user socket serving one disk. Dropping it stops it.
pub struct VhostFrontend {
    thread: Option<JoinHandle<()>>,
    stop: EventNotifier,
    connected: Arc<AtomicBool>,
    counters: Arc<Counters>,
}

impl VhostFrontend {
    /// Makes the socket and the thread that listens on it. The threads of the queues come with a guest.
    ///
    /// # Errors
    /// The options make no sense, or the socket can't be made: see [`VhostError`].
    pub fn start(disk: Arc<SwapDisk>, options: VhostOptions) -> Result<VhostFrontend, VhostError> {
        options.check()?;
        let path = options.socket.clone();
        let thread_error = |error| VhostError::Thread { path: path.clone(), error };
        let (stopped, stop) = new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK)
            .map_err(thread_error)?;
        let socket = SocketFile::make_kept(&options.socket, options.socket_mode, &options.estate)?;
        let connected = Arc::new(AtomicBool::new(false));
        let counters = Arc::new(Counters::default());
        let name = thread_name::of("vhost", disk.name(), "");
        let mut listening = Listening {
            disk,
            options,
            socket,
            stopped,
            connected: connected.clone(),
            counters: counters.clone(),
            connection: None,
            newcomer: None,
            log_limit: LogLimit::default(),
            visits: LogLimit::default(),
            leaves: LogLimit::default(),
        };
        listening.take_up();
        let thread = Builder::new().name(name).spawn(move || listening.run()).map_err(thread_error)?;
        Ok(VhostFrontend { thread: Some(thread), stop, connected, counters })
    }

    /// Whether a guest is connected now.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// What has happened on the socket so far.
    pub fn counts(&self) -> VhostCounts {
        self.counters.snapshot()
    }

    /// Closes the connection if any, ends and joins the threads, removes the socket.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for VhostFrontend {
    fn drop(&mut self) {
        if let Err(error) = self.stop.notify() {
            log::error!("cannot stop a vhost-user frontend: {error}");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a vhost-user frontend's thread panicked");
        }
    }
}

/// What the listening thread owns.
struct Listening {
    disk: Arc<SwapDisk>,
    options: VhostOptions,
    socket: SocketFile,
    stopped: EventConsumer,
    connected: Arc<AtomicBool>,
    counters: Arc<Counters>,
    connection: Option<Connection>,
    /// When the guest that waits for the one that is connected to leave is turned away.
    newcomer: Option<Instant>,
    /// Limits the lines about connections that came to nothing: hypervisors try again every second.
    log_limit: LogLimit,
    /// Limits the lines about guests that come, and about those that leave.
    visits: LogLimit,
    leaves: LogLimit,
}

impl Listening {
    fn run(mut self) {
        let read = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        loop {
            let mut polled = vec![read(self.stopped.as_raw_fd()), read(self.socket.listener.as_raw_fd())];
            polled.extend(self.connection.as_ref().map(|connection| read(connection.poll_fd())));
            let mut timeout = -1;
            if let Some(until) = self.newcomer {
                // It is known of already.
                polled[1].fd = -1;
                timeout = until.saturating_duration_since(Instant::now()).as_millis() as i32 + 1;
            }
            // SAFETY: the set is valid for its length.
            let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                log::error!("socket {}: cannot wait: {error}", self.options.socket.display());
                break;
            }
            if polled[0].revents != 0 {
                break;
            }
            // First the guest that is there: where it has left, the next may come in.
            self.hear();
            match self.newcomer {
                Some(until) if self.connection.is_some() => {
                    if Instant::now() >= until {
                        self.newcomer = None;
                        self.turn_away();
                    }
                }
                Some(_) => {
                    self.newcomer = None;
                    self.accept();
                }
                None if polled[1].revents == 0 => {}
                None if self.connection.is_some() => self.newcomer = Some(Instant::now() + PATIENCE),
                None => self.accept(),
            }
        }
        self.disconnect(false);
        self.socket.remove();
    }

    /// Goes on with the guest of the process before this one, if there was one.
    fn take_up(&mut self) {
        let name = self.disk.name().to_owned();
        let Some(number) = self.options.estate.take_guest(&name) else { return };
        match Connection::open(Caller::Left(number), &self.disk, &self.options, &self.counters) {
            Ok(connection) => self.enter(connection),
            Err(error) => {
                log::error!("disk {name}: cannot go on with its guest: {error}");
                self.options.estate.close(number);
            }
        }
    }

    fn enter(&mut self, connection: Connection) {
        Counters::count(&self.counters.connections);
        self.connection = Some(connection);
        self.connected.store(true, Ordering::Relaxed);
    }

    fn hear(&mut self) {
        match self.connection.as_mut().map_or(News::None, Connection::news) {
            News::None => {}
            News::Over => self.disconnect(false),
            News::Broken => self.disconnect(true),
        }
    }

    fn disconnect(&mut self, broken: bool) {
        if let Some(connection) = self.connection.take() {
            connection.close(broken, &self.leaves);
            self.connected.store(false, Ordering::Relaxed);
        }
    }

    fn accept(&mut self) {
        let socket = self.options.socket.display();
        let caller = Caller::New(&self.socket.listener);
        match Connection::open(caller, &self.disk, &self.options, &self.counters) {
            Ok(connection) => {
                if let Some(hidden) = self.visits.admit(Instant::now()) {
                    log::info!("socket {socket}: guest connected ({hidden} more before it)");
                }
                self.enter(connection);
            }
            // It has left meanwhile.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if let Some(hidden) = self.log_limit.admit(Instant::now()) {
                    log::error!(
                        "socket {socket}: cannot serve the guest that connected: {error} ({hidden} like it not logged)"
                    );
                }
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }

    /// The guests that came while the first one stays.
    fn turn_away(&mut self) {
        while self.turn_one_away() {}
    }

    /// Whether there was one.
    fn turn_one_away(&mut self) -> bool {
        let socket = self.options.socket.display();
        match self.socket.listener.accept() {
            Ok(_) => {
                Counters::count(&self.counters.refused_connections);
                if let Some(hidden) = self.log_limit.admit(Instant::now()) {
                    log::warn!(
                        "socket {socket}: refused a second guest while one is connected ({hidden} like it not logged)"
                    );
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                if let Some(hidden) = self.log_limit.admit(Instant::now()) {
                    log::warn!(
                        "socket {socket}: cannot accept a guest: {error} ({hidden} like it not logged)"
                    );
                }
                std::thread::sleep(ACCEPT_PAUSE);
                false
            }
        }
    }
}
