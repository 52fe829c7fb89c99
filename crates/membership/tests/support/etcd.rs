//! etcd servers.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions, Error};
use tempfile::TempDir;

/// One server or several that are one etcd.
pub struct Etcd {
    directory: TempDir,
    ports: Vec<(u16, u16)>,
    servers: Vec<Option<Child>>,
}

/// A port that nobody has. Somebody may take it before it is used; then the server ends, and others are drawn.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// One server.
    pub fn start() -> Self {
        Self::start_members(1)
    }

    /// So many servers.
    pub fn start_members(members: usize) -> Self {
        for _ in 0..5 {
            let ports = (0..members).map(|_| (free_port(), free_port())).collect();
            let mut etcd = Self {
                directory: tempfile::tempdir().unwrap(),
                ports,
                servers: (0..members).map(|_| None).collect(),
            };
            (0..members).for_each(|member| etcd.spawn(member));
            if etcd.answers() {
                return etcd;
            }
        }
        panic!("etcd does not start; is the package etcd-server installed?");
    }

    /// A port at which nothing is, and the etcd that may be started there.
    pub fn not_yet() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            ports: vec![(free_port(), free_port())],
            servers: vec![None],
        }
    }

    pub fn address(&self, member: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[member].0))
    }

    pub fn endpoints(&self) -> Vec<String> {
        (0..self.ports.len()).map(|member| format!("http://{}", self.address(member))).collect()
    }

    /// Starts a member again, with what its disk has.
    pub fn restart(&mut self, member: usize) {
        self.spawn(member);
        assert!(self.answers(), "etcd does not answer again");
    }

    /// It loses all that it knows.
    pub fn forget(&mut self) {
        (0..self.ports.len()).for_each(|member| {
            self.kill(member);
            fs::remove_dir_all(self.data(member)).unwrap();
        });
        (0..self.ports.len()).for_each(|member| self.spawn(member));
        assert!(self.answers(), "etcd does not answer again");
    }

    /// kill -9.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut server) = self.servers[member].take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Sends a signal to a member.
    pub fn signal(&self, member: usize, signal: &str) {
        let server = self.servers[member].as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &server]).status().unwrap().success());
    }

    pub fn put(&self, key: &str, value: &str) {
        self.ask(async |mut client| client.put(key, value, None).await.map(drop)).unwrap();
    }

    pub fn delete(&self, key: &str) {
        self.ask(async |mut client| client.delete(key, None).await.map(drop)).unwrap();
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        let answer = self.ask(async |mut client| client.get(key, None).await).unwrap();
        answer.kvs().first().map(|kv| kv.value_str().unwrap().to_owned())
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.path().join(member.to_string())
    }

    fn spawn(&mut self, member: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.ports[member];
        let all: Vec<String> = self
            .ports
            .iter()
            .enumerate()
            .map(|(member, (_, peer))| format!("m{member}={}", url(*peer)))
            .collect();
        let log =
            fs::File::options().create(true).append(true).open(self.directory.path().join("log")).unwrap();
        let server = Command::new("etcd")
            .args(["--name", &format!("m{member}"), "--data-dir"])
            .arg(self.data(member))
            .args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &all.join(","), "--logger", "zap", "--log-outputs", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the package etcd-server is installed");
        self.servers[member] = Some(server);
    }

    /// Whether it comes so far as to answer.
    fn answers(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if self.ask(async |mut client| client.get("x", None).await).is_ok() {
                return true;
            }
            let has_ended = |server: &mut Option<Child>| {
                server.as_mut().is_some_and(|it| it.try_wait().unwrap().is_some())
            };
            if self.servers.iter_mut().any(has_ended) {
                return false;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Asks a member that runs.
    fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let member = self.servers.iter().position(Option::is_some).expect("one that runs");
        let endpoint = self.endpoints().swap_remove(member);
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(10));
        runtime.block_on(async { question(Client::connect([endpoint], Some(options)).await?).await })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.servers.len()).for_each(|member| self.kill(member));
    }
}
