//! One daemon that goes wrong on purpose, with its clients.

use std::{
    env, fmt, fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{
    client::{Client, Place},
    tally::Tally,
    watch::Watch,
};
use crate::{Daemon, Random, UmlGuest, build_checker, places};

/// A command may meet a worker that dies, or is not there yet.
const PATIENCE: Duration = Duration::from_secs(60);
/// A guest that has come to its last round compares all pages once more.
const LAST_ROUND: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A disk that clients have over NBD.
struct Disk {
    name: &'static str,
    pages: u32,
    /// In the order in which disks are made.
    pool: u16,
    clients: u32,
}

/// See the module.
pub(super) struct Side {
    name: &'static str,
    daemon: Daemon,
    disks: &'static [Disk],
    /// Whether nothing is damaged, and disks come and go.
    is_strict: bool,
    watch: Watch,
    tally: Tally,
    _tier: TempDir,
}

/// Each place has its own odds, so that rare ones come as well: a death every two seconds in all, as many as a machine with two CPUs can take
/// and still get something done in between.
const STRICT_PLAN: &str = "kill=*:1/300000,kill=catalog:1/60,kill=memo:1/40,kill=files:1/40,kill=take-over:1/30,kill=start:1/30,\
     kill=recovery:1/20000,kill=compaction:1/60000,kill=write-back:1/300,kill=promotion:1/10000,kill=used-ring:1/60000,\
     kill=nbd-answer:1/150000,kill=extent:1/4000,kill=tier-table:1/4000,kill=ages:1/8000,kill=memory:1/3000,\
     refuse-memory=1/60,tier-fail=1/40,tier-slow=1/20:200ms,tier-read-slow=1/3000:100ms";
const DAMAGED_PLAN: &str = "kill=*:1/250000,kill=take-over:1/30,kill=compaction:1/60000,kill=write-back:1/300,kill=promotion:1/10000,\
     kill=extent:1/4000,kill=tier-table:1/4000,kill=recovery:1/20000,\
     refuse-memory=1/60,tier-fail=1/40,tier-slow=1/30:200ms,tier-torn=1/15,tier-read-fail=1/3000,tier-read-slow=1/3000:100ms,\
     flip-arena=400ms,flip-index=700ms";

const GUEST: &str = "guest";
const GUEST_MIB: u64 = 256;
const STRICT_DISKS: &[Disk] = &[Disk { name: "strict", pages: 12 << 10, pool: 1, clients: 2 }];
const DAMAGED_DISKS: &[Disk] = &[
    Disk { name: "damaged-one", pages: 8 << 10, pool: 0, clients: 1 },
    Disk { name: "damaged-two", pages: 8 << 10, pool: 1, clients: 1 },
];

impl Side {
    pub(super) fn strict(seed: u64) -> Result<Self> {
        let side = Self::start("strict", "64M", STRICT_PLAN, seed, STRICT_DISKS, true)?;
        let socket = side.daemon.directory().join(format!("{GUEST}.sock")).display().to_string();
        side.tmem(&["disk", "add", GUEST, "--size", "512M", "--vhost-user", &socket], "exists")?;
        side.add_disks()?;
        Ok(side)
    }

    pub(super) fn damaged(seed: u64) -> Result<Self> {
        let side = Self::start("damaged", "24M", DAMAGED_PLAN, seed + 1, DAMAGED_DISKS, false)?;
        side.add_disks()?;
        Ok(side)
    }

    fn start(
        name: &'static str,
        pool_size: &str,
        plan: &str,
        seed: u64,
        disks: &'static [Disk],
        is_strict: bool,
    ) -> Result<Self> {
        let tier = places::scratch()?;
        let path = tier.path().join("tier").display().to_string();
        // Which of the two modes each side has depends on the seed.
        let bit = |n: u32, yes, no| if (seed >> n).is_multiple_of(2) { yes } else { no };
        let mode = bit(0, "write-back", "write-through");
        let (age, zeroes) = (bit(1, "off", "3"), bit(2, "off", "on"));
        let fixed = ["--worker-deaths", "0", "--recompress-age", "5", "--tier", &path, "--tier-size", "384M"];
        let chosen = ["--tier-mode", mode, "--write-back-age", age, "--zero-on-flush", zeroes];
        println!("{name}: {}", chosen.join(" "));
        let flags = [&fixed[..], &chosen[..]].concat();
        let flags = flags.into_iter().map(str::to_owned).collect::<Vec<_>>();
        // A daemon whose first worker dies before it is ready ends, as it should. Another seed has another course.
        let start = |n: u64| {
            let plan = format!("seed={},{plan}", seed + (n << 32));
            println!("{name}: TMEM_FAULTS={plan}");
            Daemon::start_faulty(pool_size, &flags, &plan)
        };
        let mut daemon = start(0);
        for n in 1..10 {
            daemon = daemon.or_else(|_| start(n));
        }
        let daemon = daemon?;
        Ok(Self {
            name,
            daemon,
            disks,
            is_strict,
            watch: Watch::default(),
            tally: Tally::default(),
            _tier: tier,
        })
    }

    fn add_disks(&self) -> Result<()> {
        self.disks.iter().try_for_each(|disk| self.add_nbd_disk(disk.name, disk.pages))
    }

    fn socket(&self, disk: &str) -> PathBuf {
        self.daemon.directory().join(format!("{disk}.nbd"))
    }

    /// All disks over NBD are one dedup domain.
    fn add_nbd_disk(&self, name: &str, pages: u32) -> Result<()> {
        let (socket, size) = (self.socket(name).display().to_string(), format!("{}K", pages * 4));
        let what = ["--size", &size, "--format", "none", "--dedup", "soak", "--nbd", &socket];
        self.tmem(&[&["disk", "add", name], &what[..]].concat(), "exists")
    }

    /// Runs a command until it succeeds. Where a worker died, `done` is what is said when the one before did it already.
    fn tmem(&self, arguments: &[&str], done: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.daemon.tmem(arguments)?;
            if answer.code == Some(0) || answer.stderr.contains(done) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("tmem {} does not succeed: {}", arguments.join(" "), answer.stderr);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Hears what the daemon says until it is told to stop.
    pub(super) fn watch(&self, stop: &AtomicBool) {
        let mut known = 0;
        loop {
            let is_last = stop.load(Relaxed);
            let lines = self.daemon.lines_after(known);
            known += lines.len();
            let mut said = self.watch.lock();
            lines.iter().for_each(|line| said.hear(line));
            if self.is_strict {
                said.panics.extend(lines.into_iter().filter(|line| line.contains("are damaged")));
            }
            drop(said);
            if is_last {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Starts the clients, each a thread.
    pub(super) fn start_clients<'scope, 'side: 'scope>(
        &'side self,
        scope: &'scope Scope<'scope, 'side>,
        seed: u64,
        stop: &'side AtomicBool,
    ) -> Vec<ScopedJoinHandle<'scope, ()>> {
        let mut threads = Vec::new();
        for disk in self.disks {
            for first in 0..disk.clients {
                let place = self.place(disk.name, disk.pool, stop);
                let seed = seed ^ (u64::from(disk.pool) << 48);
                threads.push(scope.spawn(move || {
                    Client::new(place, disk.pages, first, disk.clients, seed).run(u64::MAX);
                }));
            }
        }
        if self.is_strict {
            threads.push(scope.spawn(move || {
                if let Err(error) = self.visit(seed, stop) {
                    self.tally.lost(&format!("a disk that comes and goes: {error:#}"));
                }
            }));
        }
        threads
    }

    fn place<'a>(&'a self, export: &str, pool: u16, stop: &'a AtomicBool) -> Place<'a> {
        let (watch, tally) = (&self.watch, &self.tally);
        Place { socket: self.socket(export), export: export.to_owned(), pool, watch, tally, stop }
    }

    /// Disks come, are used a little, and go; the pool shrinks and grows; the program is replaced by itself.
    fn visit(&self, seed: u64, stop: &AtomicBool) -> Result<()> {
        const PAGES: u32 = 2048;
        let mut random = Random::new(seed);
        let pool = self.disks.len() as u16 + 1;
        while !stop.load(Relaxed) {
            self.add_nbd_disk("visitor", PAGES)?;
            let place = self.place("visitor", pool, stop);
            Client::new(place, PAGES, 0, 1, random.draw()).run(100);
            self.tmem(&["disk", "rm", "visitor", "--force"], "does not exist")?;
            let limit = format!("pool-size={}M", 48 + random.below(32));
            self.tmem(&["set", &limit], "nothing else will do")?;
            if random.below(8) == 0 {
                let _ = self.daemon.tmem(&["upgrade"])?; // of no use while the worker just dies
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }

    /// A guest that swaps for so long.
    pub(super) fn boot_guest(&self, seed: u64, time: Duration) -> Result<UmlGuest> {
        let checker = build_checker(self.daemon.directory())?;
        let script = format!(
            "swapon LABEL=tmem\n{} {GUEST_MIB} {} 0 seconds={}\n\
             echo \"@read_errors $(dmesg | grep -c 'Read-error on swap-device' || true)\"\n",
            checker.display(),
            seed % 1000,
            time.as_secs()
        );
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UmlGuest::boot(&self.daemon, GUEST, &script) {
                Err(error) if Instant::now() > deadline => return Err(error).context("the guest"),
                Err(_) => thread::sleep(Duration::from_millis(100)), // the worker died over it
                guest => return guest,
            }
        }
    }

    pub(super) fn finish_guest(&self, guest: UmlGuest, time: Duration) {
        match guest.finish(time + LAST_ROUND) {
            Err(error) if format!("{error:#}").contains("MISMATCH") => {
                self.tally.wrong(&format!("{error:#}"))
            }
            Err(error) => self.tally.lost(&format!("{error:#}")),
            Ok(console) => {
                let has = |start: &str| console.iter().any(|line| line.starts_with(start));
                let verified = console.iter().find(|line| line.starts_with("VERIFIED "));
                println!("guest: {}", verified.map_or("", String::as_str));
                if verified.is_none() || !has("@read_errors 0") {
                    self.tally.lost(&format!("the guest: {}", console.join("\n")));
                }
            }
        }
    }

    /// Rule 7: with the disks all memory goes.
    pub(super) fn check_that_all_goes_back(&self) {
        let names = self.disks.iter().map(|disk| disk.name).chain([GUEST]);
        let removed: Result<()> = names
            .into_iter()
            .try_for_each(|name| self.tmem(&["disk", "rm", name, "--force"], "does not exist"));
        let deadline = Instant::now() + PATIENCE;
        let is_gone =
            || ["used_bytes", "held_bytes"].iter().all(|field| matches!(self.daemon.pool(field), Ok(0)));
        while removed.is_ok() && !is_gone() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        if removed.is_err() || !is_gone() {
            self.tally.lost(&format!("memory does not go back: {removed:?}, {:#?}", self.daemon.status()));
        }
    }

    /// Writes down what the daemon said.
    pub(super) fn keep_log(&self, seed: u64) -> Result<()> {
        let path = env::temp_dir().join(format!("tmem-soak-{seed}-{}.log", self.name));
        fs::write(&path, self.daemon.lines_after(0).join("\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("soak: what the {} daemon said is in {}", self.name, path.display());
        Ok(())
    }

    /// What the daemon should never say.
    pub(super) fn panics(&self) -> Vec<String> {
        self.watch.lock().panics.clone()
    }

    pub(super) fn lost(&self) -> u64 {
        self.tally.lost.load(Relaxed) + self.watch.lock().panics.len() as u64
    }

    pub(super) fn wrong(&self) -> u64 {
        self.tally.wrong.load(Relaxed)
    }

    pub(super) fn compared_pages(&self) -> u64 {
        self.tally.compared_pages.load(Relaxed)
    }

    pub(super) fn deaths(&self) -> u64 {
        self.watch.lock().deaths()
    }

    pub(super) fn faults(&self) -> u64 {
        self.watch.lock().faults.values().sum()
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.watch.lock();
        let list = |counts: &std::collections::BTreeMap<String, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        write!(
            f,
            "{}: {} deaths ({}), faults ({}), {}",
            self.name,
            said.deaths(),
            list(&said.deaths),
            list(&said.faults),
            self.tally
        )
    }
}
