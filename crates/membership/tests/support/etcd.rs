//! etcd servers.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use etcd_client::{Client, ConnectOptions, Error};
use tempfile::TempDir;

/// How servers are spoken to.
#[derive(Clone, Default)]
pub struct Ways {
    /// What they are started with beside what all are.
    pub arguments: Vec<String>,
    /// Whether clients speak TLS with them.
    pub is_https: bool,
    /// As whom this test asks them.
    pub options: ConnectOptions,
}

/// One server or several that are one etcd.
pub struct Etcd {
    ways: Ways,
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
        Self::start_as(members, Ways::default())
    }

    /// One server that is spoken to in another way.
    pub fn start_with(ways: Ways) -> Self {
        Self::start_as(1, ways)
    }

    /// One that this test does not believe to be etcd.
    pub fn start_unasked(ways: Ways) -> Self {
        Self::start_until(1, ways, Self::listens)
    }

    fn start_as(members: usize, ways: Ways) -> Self {
        Self::start_until(members, ways, Self::answers)
    }

    fn start_until(members: usize, ways: Ways, is_there: impl Fn(&mut Self) -> bool) -> Self {
        for _ in 0..5 {
            let ports = (0..members).map(|_| (free_port(), free_port())).collect();
            let mut etcd = Self {
                ways: ways.clone(),
                directory: tempfile::tempdir().unwrap(),
                ports,
                servers: (0..members).map(|_| None).collect(),
            };
            (0..members).for_each(|member| etcd.spawn(member));
            if is_there(&mut etcd) {
                return etcd;
            }
        }
        panic!("etcd does not start; is the package etcd-server installed?");
    }

    /// A port at which nothing is, and the etcd that may be started there.
    pub fn not_yet() -> Self {
        Self {
            ways: Ways::default(),
            directory: tempfile::tempdir().unwrap(),
            ports: vec![(free_port(), free_port())],
            servers: vec![None],
        }
    }

    pub fn address(&self, member: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[member].0))
    }

    pub fn endpoints(&self) -> Vec<String> {
        let scheme = self.scheme();
        (0..self.ports.len()).map(|member| format!("{scheme}://{}", self.address(member))).collect()
    }

    fn scheme(&self) -> &'static str {
        if self.ways.is_https { "https" } else { "http" }
    }

    /// Asks as somebody else from now on.
    pub fn ask_as(&mut self, options: ConnectOptions) {
        self.ways.options = options;
    }

    /// What all members have said so far, in lines.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Starts a member again, with what its disk has.
    pub fn restart(&mut self, member: usize) {
        self.spawn(member);
        assert!(self.answers(), "etcd does not answer again");
    }

    /// The same, where this test does not believe it to be etcd.
    pub fn restart_unasked(&mut self, member: usize) {
        self.spawn(member);
        assert!(self.listens(), "etcd does not listen again");
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
        let client = format!("{}://127.0.0.1:{client}", self.scheme());
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
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &all.join(","), "--logger", "zap", "--log-outputs", "stderr"])
            .args(&self.ways.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the package etcd-server is installed");
        self.servers[member] = Some(server);
    }

    /// Whether it comes so far as to answer.
    fn answers(&mut self) -> bool {
        self.comes_up(|etcd| etcd.ask(async |mut client| client.get("x", None).await).is_ok())
    }

    /// Whether it comes so far as to accept connections.
    fn listens(&mut self) -> bool {
        self.comes_up(|etcd| TcpStream::connect(etcd.address(0)).is_ok())
    }

    fn comes_up(&mut self, is_up: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if is_up(self) {
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
    pub fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> Result<T, Error>) -> Result<T, Error> {
        self.ask_with(self.ways.options.clone(), question)
    }

    /// The same as somebody else.
    pub fn ask_with<T>(
        &self,
        options: ConnectOptions,
        question: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let member = self.servers.iter().position(Option::is_some).expect("one that runs");
        let endpoint = self.endpoints().swap_remove(member);
        let options = options.with_timeout(Duration::from_secs(10));
        runtime.block_on(async { question(Client::connect([endpoint], Some(options)).await?).await })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.servers.len()).for_each(|member| self.kill(member));
    }
}
