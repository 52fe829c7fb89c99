//! Servers of the tests' own: on loopback, in a directory that goes with them, ended by their process.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part; these helpers are for tests alone")]

#[path = "../../../tier/tests/conformance/mod.rs"]
pub mod conformance;

use std::{
    fs::File,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use conformance::{KEY, Rig};
use redis::Value;
use tempfile::TempDir;
use tmem_redis_tier::{RedisTier, RedisTierOptions};
use tmem_store::{Tier, TierCopy, TierState};

/// Both kinds of servers.
pub const BINARIES: [&str; 2] = ["redis-server", "valkey-server"];

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that is to come.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A server, which is killed when this is dropped.
pub struct Server {
    binary: &'static str,
    arguments: Vec<String>,
    pub port: u16,
    directory: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts one that keeps nothing on a disk unless `arguments` say so.
    pub fn start(binary: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self { binary, arguments, port: 0, directory, child: None };
        // Somebody else may have taken the port that was free.
        for _ in 0..10 {
            server.port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            server.spawn();
            if server.comes_up() {
                return server;
            }
            server.kill();
        }
        panic!("{binary} does not start: is it installed?");
    }

    pub fn redis(arguments: &[&str]) -> Self {
        Self::start("redis-server", arguments)
    }

    /// Starts it again as it was.
    pub fn start_again(&mut self) {
        self.spawn();
        assert!(self.comes_up());
    }

    fn spawn(&mut self) {
        let log = File::create(self.directory.path().join("log")).unwrap();
        let child = Command::new(self.binary)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.directory.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; install it", self.binary));
        self.child = Some(child);
    }

    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_ask(&["PING"]).is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// As kill -9 does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, such as STOP.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn options(&self) -> RedisTierOptions {
        RedisTierOptions {
            outage_patience: Duration::ZERO,
            write_patience: Duration::from_secs(2),
            ..RedisTierOptions::new(self.url().parse().unwrap(), 16 << 20)
        }
    }

    pub fn try_ask(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5))?;
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query(&mut connection)
    }

    pub fn ask(&self, words: &[&str]) -> Value {
        self.try_ask(words).unwrap()
    }

    pub fn number(&self, words: &[&str]) -> i64 {
        match self.ask(words) {
            Value::Int(number) => number,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// All keys that there are.
    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = redis::from_redis_value(self.ask(&["KEYS", "*"])).unwrap();
        keys.retain(|key| !key.ends_with(":trial"));
        keys.sort();
        keys
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A tier with the key of all tests.
pub fn open(options: &RedisTierOptions) -> RedisTier {
    let tier = RedisTier::new(options.clone()).unwrap();
    tier.use_key(&KEY);
    tier
}

pub fn wait_until_ready(tier: &RedisTier) {
    eventually("the tier is ready", || {
        tier.probe();
        tier.state() == TierState::Ready
    });
}

/// A tier in servers that are there already.
pub struct RedisRig {
    options: RedisTierOptions,
    tier: Option<RedisTier>,
}

impl RedisRig {
    pub fn new(options: RedisTierOptions) -> Self {
        let mut rig = Self { options, tier: None };
        rig.reopen(&[]);
        rig
    }

    pub fn redis_tier(&self) -> &RedisTier {
        self.tier.as_ref().unwrap()
    }
}

impl Rig for RedisRig {
    fn tier(&self) -> &dyn Tier {
        self.redis_tier()
    }

    fn tend(&self) {
        self.redis_tier().probe();
    }

    fn reopen(&mut self, copies: &[(TierCopy, u32)]) {
        // What is not needed any more goes before; otherwise it would be there until it expires.
        self.tier.iter().for_each(RedisTier::probe);
        self.tier = None;
        let tier = open(&self.options);
        tier.adopt(copies);
        assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
        self.tier = Some(tier);
    }
}
