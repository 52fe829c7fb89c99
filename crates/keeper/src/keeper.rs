//! The keeper's life.
//!
//! ```text
//! start --> serving --dies--> the spare one at once, or a new one at once or after a pause --> serving
//!              |                 '--too often--> held, until SIGHUP
//!              |--SIGHUP, upgrade--> another stands by --it wants to take--> the old one is killed --> serving
//!              '--SIGTERM, SIGINT--> the worker ends, and so does the keeper
//! ```

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{io::Errno, net::RecvFlags};

use crate::{
    errands::Errands,
    fd_store::FdStore,
    hired::Hired,
    holder::{Holder, answer},
    log_lines::{Complaints, say},
    own_memory::stay_in_memory,
    process::{End, Prepared, Program},
    restarts::{Restarts, Verdict},
    signals::Signals,
    spare::Spare,
    upgrading::Upgrading,
    wire::{self, Code, Datagram, Reason},
};

mod patience;

/// How a keeper is to behave.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// With so many deaths of workers in a minute no other is started until SIGHUP; 0: always, 1000 at most.
    pub deaths_per_minute: u32,
    /// A worker that serves no longer after its start is killed.
    pub start: Duration,
    /// A worker that has been silent for so long is killed.
    pub patience: Option<Duration>,
    /// The tier: the only path that is opened for a worker.
    pub tier: Option<PathBuf>,
}

impl KeeperOptions {
    /// Opening a store with 64 GiB of pages takes seconds, one with a terabyte some minutes.
    pub const START: Duration = Duration::from_secs(600);
}

/// A keeper could not be started.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The OS would not give it what it needs.
    #[error("cannot start the keeper: {0}")]
    Start(#[from] io::Error),
}

/// See the module.
pub struct Keeper<'p> {
    program: Prepared<'p>,
    options: KeeperOptions,
    signals: Signals,
    holder: Holder,
    restarts: Restarts,
    serving: Option<Hired>,
    /// Of the program on disk, to follow as soon as it can.
    next: Option<Hired>,
    /// Follows when the one that serves dies.
    spare: Spare,
    /// What has become of the last program that was to take over.
    upgrading: Upgrading,
    /// While a program serves that has yet to show that it can: the one before it.
    before: Option<OwnedFd>,
    /// The program of the worker that is to be started, and when.
    start_at: Option<(Instant, OwnedFd)>,
    /// The last try to start one failed, which was said.
    start_failed: bool,
    stopping: bool,
    complaints: Complaints,
    /// Some worker has served: guests may depend on what is held.
    has_served: bool,
    /// The death that the spare one follows. It is said when that one serves: the log may be a file on the very swap that nobody serves until then.
    unsaid: Option<(libc::pid_t, End)>,
    /// Workers that died, those apart that made way for another.
    deaths: u32,
    polled: Vec<libc::pollfd>,
}

/// After a failed fork or exec: memory may come back.
const RETRY: Duration = Duration::from_millis(100);
/// A service manager that is too busy is told again after so long.
const MANAGER_MS: libc::c_int = 100;
/// More calls than fit in a worker's socket. One that says more and more does not keep others waiting.
const CALLS_AT_ONCE: usize = 1024;

impl<'p> Keeper<'p> {
    /// Takes all that it needs. The process has one thread, and is the keeper's from here on.
    ///
    /// # Errors
    /// The OS refuses signals or memory.
    pub fn new(program: &'p Program, options: KeeperOptions) -> Result<Keeper<'p>, KeeperError> {
        let program = program.prepare();
        let first = (Instant::now(), program.file()?);
        let (store, left) = FdStore::from_environment()?.unzip();
        let mut holder = Holder::new(Errands::new(options.tier.clone(), true)?, store);
        holder.take_up(left.unwrap_or_default());
        if !holder.is_empty() {
            let (files, guests) = holder.counts();
            say(format_args!(
                "info: goes on with {files} files and sockets and {guests} guests that a keeper before this one held"
            ));
        }
        let keeper = Keeper {
            program,
            restarts: Restarts::new(options.deaths_per_minute),
            signals: Signals::wait_for()?,
            has_served: !holder.is_empty(),
            holder,
            options,
            serving: None,
            next: None,
            spare: Spare::default(),
            upgrading: Upgrading::default(),
            before: None,
            start_at: Some(first),
            start_failed: false,
            stopping: false,
            complaints: Complaints::default(),
            unsaid: None,
            deaths: 0,
            polled: Vec::with_capacity(4 + Holder::MAX_POLLED),
        };
        stay_in_memory();
        Ok(keeper)
    }

    /// Keeps until a worker ends in order or the first one cannot start. Gives the exit code.
    pub fn run(mut self) -> u8 {
        let mut polled = std::mem::take(&mut self.polled);
        loop {
            self.start_if_due();
            self.start_spare_if_due();
            polled.clear();
            let input = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let heard = |hired: &&Hired| hired.is_heard;
            let socket = |hired: &Option<Hired>| {
                hired.as_ref().filter(heard).map_or(-1, |hired| hired.worker.socket.as_raw_fd())
            };
            polled.extend([
                input(self.signals.as_raw_fd()),
                input(socket(&self.serving)),
                input(socket(&self.next)),
                input(socket(&self.spare.hired)),
            ]);
            self.holder.add_to(&mut polled);
            let mut timeout = self.timeout_ms();
            if !self.holder.tell_manager() && !(0..MANAGER_MS).contains(&timeout) {
                timeout = MANAGER_MS;
            }
            // SAFETY: the set is valid for its length.
            if unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) } < 0 {
                continue; // interrupted
            }
            let complaints = &mut self.complaints;
            self.holder.pass_on(&polled[4..], &mut |label, error| complaints.tell(label, error));
            for (at, who) in [(1, Who::Serving), (2, Who::Next), (3, Who::Spare)] {
                if polled[at].revents != 0 {
                    self.hear(who);
                }
            }
            if polled[0].revents != 0
                && let Some(code) = self.heed_signals()
            {
                self.holder.let_go();
                return code;
            }
            self.look_after_hung();
        }
    }

    /// Everything that was asked of it is done before it is believed dead: calls that came before are in its socket.
    fn hear(&mut self, who: Who) {
        for _ in 0..CALLS_AT_ONCE {
            let Some(hired) = self.hired(who) else { return };
            let socket = hired.worker.socket.as_fd();
            let call = match wire::receive(socket, RecvFlags::DONTWAIT) {
                Ok(Some(call)) => call,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is gone and had not read an answer. What it said before that comes now.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Ok(None) | Err(_) => {
                    // Its end comes as a signal.
                    hired.is_heard = false;
                    hired.heard = Instant::now();
                    return;
                }
            };
            hired.heard = Instant::now();
            // One that is gone cannot be answered, and is heard to the end.
            let Err(error) = self.obey(who, call) else { continue };
            if error.kind() == io::ErrorKind::WouldBlock
                && let Some(hired) = self.hired(who)
            {
                say(format_args!("error: worker {} does not read answers and is killed", hired.worker.pid));
                hired.worker.signal(libc::SIGKILL);
                (hired.is_heard, hired.is_ending) = (false, true);
                return;
            }
        }
    }

    fn obey(&mut self, who: Who, call: Datagram) -> io::Result<()> {
        let serves_already = self.serving.is_some();
        let result = match (call.code, who) {
            (Code::Beat, _) => return Ok(()),
            // It may ask for what is not known here, when it is too late for it to leave all as it is.
            (Code::Hello, _) if call.number > wire::VERSION => Err(Errno::PROTO),
            (Code::Hello, Who::Next | Who::Spare) => Ok(u32::from(serves_already)),
            (Code::Hello, Who::Serving) => Ok(0),
            (Code::Take, Who::Serving) => Ok(self.deaths),
            (Code::Ready, Who::Serving) => {
                if let Some(serving) = &mut self.serving {
                    serving.is_ready = true;
                    if std::mem::take(&mut serving.is_on_trial) {
                        (self.upgrading, self.before) = (Upgrading::None, None);
                    }
                }
                self.has_served = true;
                self.say_who_died();
                self.spare.may_come_after_a_pause();
                Ok(0)
            }
            (Code::Take, Who::Next) => {
                if let Some(next) = &mut self.next {
                    next.wants_to_take = true;
                    // While somebody serves: see `unsaid`.
                    say(format_args!("info: worker {} takes over", next.worker.pid));
                }
                self.make_way();
                return Ok(());
            }
            (Code::Take, Who::Spare) => {
                self.spare.hired.iter_mut().for_each(|hired| hired.wants_to_take = true);
                if self.serving.is_none() {
                    self.promote_spare();
                }
                return Ok(());
            }
            (Code::WantSpare, Who::Serving) => Ok(self.spare.is_wanted(call.number)),
            (Code::SparePid, Who::Serving) => Ok(self.spare.ready_pid()),
            (Code::Upgrade, Who::Serving) => self.stand_by(),
            (Code::Upgrading, Who::Serving) => Ok(self.upgrading.number()),
            (Code::List, _) | (_, Who::Serving) => {
                let hired = match who {
                    Who::Serving => &self.serving,
                    Who::Next => &self.next,
                    Who::Spare => &self.spare.hired,
                };
                let Some(hired) = hired else { return Ok(()) };
                return self.holder.serve(call, hired.worker.socket.as_fd());
            }
            _ => Err(Errno::PERM),
        };
        self.hired(who).map_or(Ok(()), |hired| answer(hired.worker.socket.as_fd(), result))
    }

    /// Ends the worker that serves, if the next one waits for that.
    fn make_way(&mut self) {
        match &mut self.serving {
            // It ends in order, and nobody follows.
            Some(_) if self.stopping => {}
            Some(serving) => {
                // Whatever it is at, the next one finds it: that is what everything here is for.
                serving.worker.signal(libc::SIGKILL);
                serving.is_ending = true;
            }
            None => self.promote(),
        }
    }

    fn promote(&mut self) {
        if self.next.as_ref().is_none_or(|next| !next.wants_to_take) {
            return;
        }
        if let Some(next) = self.next.take() {
            self.let_serve(next);
        }
    }

    /// The spare one serves, if it is ready to.
    fn promote_spare(&mut self) {
        if !self.stopping
            && let Some(spare) = self.spare.take()
        {
            self.let_serve(spare);
        }
    }

    fn let_serve(&mut self, hired: Hired) {
        if let Some((_, dead)) = self.start_at.take() {
            self.keep_for_a_trial(&hired, dead);
        }
        self.spare.is_wanted(0);
        let serving = self.serving.insert(hired);
        (serving.worker.started, serving.heard) = (Instant::now(), Instant::now());
        // One that is gone by now is noticed like any other death.
        let _ = answer(serving.worker.socket.as_fd(), Ok(self.deaths));
    }

    /// The program before one that has yet to show that it can serve.
    fn keep_for_a_trial(&mut self, hired: &Hired, before: OwnedFd) {
        if hired.is_on_trial {
            self.before = Some(before);
        }
    }

    /// Starts the program on disk beside the one that serves.
    fn stand_by(&mut self) -> Result<u32, Errno> {
        if self.next.is_some() || self.stopping {
            return Err(Errno::BUSY);
        }
        let file = self.program.newest().map_err(|error| wire::errno(&error))?;
        let worker = self.program.start(&file, &self.signals).map_err(|error| wire::errno(&error))?;
        say(format_args!("info: worker {} stands by", worker.pid));
        self.next = Some(Hired { is_on_trial: true, ..Hired::new(worker, file) });
        self.upgrading = Upgrading::UnderWay;
        Ok(0)
    }

    fn start_if_due(&mut self) {
        let Some((at, file)) = &self.start_at else { return };
        let follows = self.serving.is_some() || self.next.is_some() || self.spare.is_coming();
        if follows || Instant::now() < *at {
            return;
        }
        match self.program.start(file, &self.signals) {
            Ok(worker) => {
                self.start_failed = false;
                if let Some((_, file)) = self.start_at.take() {
                    self.spare.is_wanted(0);
                    self.serving = Some(Hired::new(worker, file));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.start_failed, true) {
                    say(format_args!(
                        "warn: cannot start a worker: {}; trying again and again",
                        Reason(&error)
                    ));
                }
                self.start_at.iter_mut().for_each(|(at, _)| *at = Instant::now() + RETRY);
            }
        }
    }

    /// Starts another worker of the program that serves, to stand by.
    fn start_spare_if_due(&mut self) {
        if !self.may_have_spare() || self.spare.start_at().is_none_or(|at| Instant::now() < at) {
            return;
        }
        let Some(serving) = &self.serving else { return };
        let started = serving.file.try_clone().and_then(|file| {
            let worker = self.program.start(&file, &self.signals)?;
            Ok(Hired::new(worker, file))
        });
        match started {
            Ok(hired) => self.spare.hired = Some(hired),
            Err(error) => self.spare.failed(format_args!("{}", Reason(&error))),
        }
    }

    /// A spare one is for a worker that serves well. While a program takes over, its own comes later.
    fn may_have_spare(&self) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.is_ready && !serving.is_ending)
            && self.next.is_none()
            && !self.stopping
    }

    /// Gives the exit code if all is over.
    fn heed_signals(&mut self) -> Option<u8> {
        while let Some(signal) = self.signals.next() {
            match signal {
                libc::SIGCHLD => {}
                libc::SIGHUP => self.renew(),
                _ => {
                    self.stopping = true;
                    if let Some(next) = &self.next {
                        next.worker.signal(libc::SIGKILL);
                    }
                    self.spare.dismiss();
                    match &mut self.serving {
                        Some(serving) => {
                            serving.worker.signal(libc::SIGTERM);
                            serving.is_ending = true;
                        }
                        None => return Some(1),
                    }
                }
            }
        }
        self.holder.reap();
        self.bury()
    }

    /// SIGHUP: the program on disk takes over, or takes up what is held.
    fn renew(&mut self) {
        if self.stopping {
            return;
        }
        self.restarts.forget();
        self.spare.forget_failures();
        if self.serving.is_some() {
            if let Err(error) = self.stand_by() {
                if self.next.is_none() {
                    self.upgrading = Upgrading::Failed;
                }
                say(format_args!("error: cannot start the program on disk: {}", Reason(&error.into())));
            }
            return;
        }
        // The program of a worker that is to be started after a pause may be the one that does not work.
        match self.program.newest() {
            Ok(file) => (self.start_at, self.upgrading) = (Some((Instant::now(), file)), Upgrading::None),
            Err(error) => say(format_args!("error: cannot open the program on disk: {}", Reason(&error))),
        }
    }

    /// Sees who has died.
    fn bury(&mut self) -> Option<u8> {
        if let Some(end) = self.next.as_ref().and_then(|next| next.worker.ended()) {
            say(format_args!(
                "error: the program on disk did not take over: {end}; the worker before it goes on"
            ));
            (self.next, self.upgrading) = (None, Upgrading::Failed);
        }
        self.spare.bury();
        let end = self.serving.as_ref().and_then(|serving| serving.worker.ended())?;
        self.hear(Who::Serving); // what it still had to say
        let dead = self.serving.take()?;
        self.holder.detach_all();
        let in_order = end == End::Exit(0) && dead.is_ready;
        if !self.stopping && !in_order && self.next.as_ref().is_some_and(|next| next.wants_to_take) {
            // One that never served is nothing to go back to, and leaves what it would have gone back to.
            if dead.is_ready {
                self.before = Some(dead.file);
            }
            self.promote();
            return None;
        }
        if self.stopping || in_order || !self.has_served {
            return Some(match end {
                End::Exit(code) => code,
                // It was told to end before it could do so in order, and had nothing to put in order yet.
                End::Signal(libc::SIGTERM) if self.stopping => 0,
                End::Signal(_) => 1,
            });
        }
        self.deaths = self.deaths.saturating_add(1);
        self.say_who_died();
        if dead.is_on_trial {
            if self.next.is_none() {
                self.upgrading = Upgrading::Failed;
            }
            // Of the program that is asked again nothing is known that would count against it.
            if let Some(before) = self.before.take() {
                say(format_args!(
                    "error: worker {} took over and ended before it served: {end}; the program before it goes on",
                    dead.worker.pid
                ));
                self.start_at = Some((Instant::now(), before));
                return None;
            }
        }
        let (now, pid) = (Instant::now(), dead.worker.pid);
        match self.restarts.after_death(dead.worker.started, now) {
            Verdict::StartAgain { after } => {
                self.unsaid = Some((pid, end));
                self.start_at = Some((now + after, dead.file));
                self.promote_spare();
                if self.serving.is_none() {
                    self.say_who_died();
                }
            }
            Verdict::Hold => {
                self.spare.dismiss();
                say(format_args!(
                    "error: worker {pid} died: {end}; that is the {}th death in a minute, so no other is started. Nothing is lost: pages \
                 and connections are held. Put a program that works in the place of this one, or set right what it says above, then \
                 send SIGHUP to process {} (`systemctl reload tmem`)",
                    self.options.deaths_per_minute,
                    std::process::id()
                ));
            }
        }
        None
    }

    fn say_who_died(&mut self) {
        if let Some((pid, end)) = self.unsaid.take() {
            say(format_args!("error: worker {pid} died: {end}; another one goes on with what is held"));
        }
    }

    fn hired(&mut self, who: Who) -> Option<&mut Hired> {
        match who {
            Who::Serving => self.serving.as_mut(),
            Who::Next => self.next.as_mut(),
            Who::Spare => self.spare.hired.as_mut(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Serving,
    Next,
    Spare,
}
