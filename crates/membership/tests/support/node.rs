//! Nodes, and what they were told.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tmem_membership::{
    Announcement, Epoch, EtcdSettings, Identity, Member, Running, Source, View, setup, start,
};

use super::wait_until;

/// The shortest that etcd gives.
pub const LEASE: Duration = Duration::from_secs(2);

/// The directories of a cluster's nodes.
pub struct Cluster(TempDir);

impl Cluster {
    /// With the first node, `host-a`.
    pub fn new() -> Self {
        let cluster = Self(tempfile::tempdir().unwrap());
        setup::init(&cluster.directory("host-a"), "host-a").unwrap();
        cluster
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another node, in a directory of its own.
    pub fn join(&self, directory: &str, name: &str) -> PathBuf {
        let file = self.0.path().join(format!("{directory}.json"));
        setup::invite(&self.directory("host-a"), name, &file).unwrap();
        setup::join(&self.directory(directory), &file).unwrap();
        self.directory(directory)
    }

    /// What nobody should do.
    pub fn copy(&self, from: &str, to: &str) -> PathBuf {
        fs::create_dir(self.directory(to)).unwrap();
        for entry in fs::read_dir(self.directory(from)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.directory(to).join(entry.file_name())).unwrap();
        }
        self.directory(to)
    }

    pub fn key(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}/{name}", self.prefix())
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> String {
        let id = Identity::load(&self.directory("host-a")).unwrap().cluster();
        format!("/tmem/{id}/")
    }
}

/// A node that takes part.
pub struct Node {
    pub identity: Arc<Identity>,
    running: Option<Running>,
    views: Arc<Mutex<Vec<View>>>,
    fenced: Arc<Mutex<Vec<Epoch>>>,
    cannot_begin: Arc<AtomicBool>,
}

impl Node {
    /// Starts with empty memory, in a new epoch, and lends at 127.0.0.1 and this port.
    pub fn start(directory: &Path, port: u16, endpoints: &[String]) -> Self {
        Self::start_with(directory, port, EtcdSettings::new(endpoints).unwrap())
    }

    /// The same, with an etcd that wants more than to be found.
    pub fn start_with(directory: &Path, port: u16, settings: EtcdSettings) -> Self {
        let node = Self::load(directory);
        node.identity.advance_epoch(None).unwrap();
        node.run(port, settings)
    }

    /// Two of them, that see each other.
    pub fn two(cluster: &Cluster, settings: &EtcdSettings) -> [Self; 2] {
        let nodes = [
            Self::start_with(&cluster.directory("host-a"), 7001, settings.clone()),
            Self::start_with(&cluster.join("host-b", "host-b"), 7002, settings.clone()),
        ];
        nodes[0].wait_to_see(&["host-b"]);
        nodes[1].wait_to_see(&["host-a"]);
        nodes
    }

    /// Goes on in the epoch in which the process before it was.
    pub fn go_on(directory: &Path, port: u16, endpoints: &[String]) -> Self {
        Self::load(directory).run(port, EtcdSettings::new(endpoints).unwrap())
    }

    fn load(directory: &Path) -> Self {
        let identity = Arc::new(Identity::load(directory).unwrap());
        Self {
            identity,
            running: None,
            views: Arc::default(),
            fenced: Arc::default(),
            cannot_begin: Arc::default(),
        }
    }

    fn run(mut self, port: u16, settings: EtcdSettings) -> Self {
        let settings = settings.with_lease(LEASE);
        let announcement = Announcement {
            address: ([127, 0, 0, 1], port).into(),
            domain: Some(format!("rack-{port}")),
            free_bytes: 1 << 20,
        };
        let views = Arc::clone(&self.views);
        let on_view = move |view| views.lock().unwrap().push(view);
        let (identity, fenced) = (Arc::clone(&self.identity), Arc::clone(&self.fenced));
        let cannot_begin = Arc::clone(&self.cannot_begin);
        let on_fenced = move |at_least| {
            fenced.lock().unwrap().push(at_least);
            if cannot_begin.load(Ordering::SeqCst) {
                return Err("the disk is full".to_owned());
            }
            identity.advance_epoch(Some(at_least)).map(drop).map_err(|error| error.to_string())
        };
        let running =
            start(&Source::Etcd(settings), &self.identity, announcement, on_view, on_fenced).unwrap();
        self.running = Some(running);
        self
    }

    /// From now on no new epoch can begin, or can again.
    pub fn fail_epochs(&self, is_failing: bool) {
        self.cannot_begin.store(is_failing, Ordering::SeqCst);
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn leave(mut self) {
        self.running.take().unwrap().leave();
    }

    pub fn views(&self) -> Vec<View> {
        self.views.lock().unwrap().clone()
    }

    /// What it was told at last.
    pub fn view(&self) -> View {
        self.views.lock().unwrap().last().cloned().unwrap_or_default()
    }

    pub fn fenced(&self) -> Vec<Epoch> {
        self.fenced.lock().unwrap().clone()
    }

    /// Those that it sees now. `None`: it does not know.
    pub fn sees(&self) -> Option<Vec<String>> {
        let view = self.view();
        view.is_current.then(|| view.members.iter().map(|member| member.name.to_string()).collect())
    }

    #[track_caller]
    pub fn wait_to_see(&self, names: &[&str]) {
        let mut last = None;
        wait_until(&format!("{} sees {names:?}", self.identity.name()), || {
            last = self.sees();
            last.as_deref() == Some(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..])
        });
    }

    /// Waits until it says of itself that something is wrong, in one line with this in it.
    #[track_caller]
    pub fn wait_for_trouble(&self, part: &str) -> String {
        let mut last = None;
        wait_until(&format!("{} says {part:?}", self.identity.name()), || {
            last = self.running().trouble();
            last.as_ref().is_some_and(|trouble| trouble.contains(part))
        });
        let trouble = last.unwrap();
        assert!(!trouble.contains('\n'), "{trouble}");
        trouble
    }

    pub fn member(&self, name: &str) -> Option<Member> {
        self.view().members.into_iter().find(|member| member.name.as_str() == name)
    }
}
