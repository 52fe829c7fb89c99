//! Who is there, told as it changes.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::watch;

use crate::{
    Epoch, EtcdSettings, Identity, MembershipError, StaticPeer, View, check_peers,
    etcd::{Callbacks, Keeper, Shared, Stop},
    static_peer,
};

/// Who says who is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A list, for two or three hosts.
    Static(Vec<StaticPeer>),
    /// etcd.
    Etcd(EtcdSettings),
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where it lends, as the others reach it.
    pub address: SocketAddr,
    /// What fails together with it.
    pub domain: Option<String>,
    /// What may be borrowed from it, in bytes.
    pub free_bytes: u64,
}

/// Tells `on_view` who is there, now and whenever that changes, until what it returns is dropped. With a list that is once, before this
/// returns; with etcd it is from a thread of its own, at the latest when etcd turned out not to answer.
///
/// `on_fenced` is called when the node's epoch is over because a later one was begun elsewhere under its name, or written down by an
/// administrator. It must see to it that nothing is served any more of what was lent up to now, empty that memory, and call
/// [`Identity::advance_epoch`] with the epoch that it is given, all before it returns. It should take a second at most. If it fails, it
/// says why in one line, and is called again.
///
/// Neither may drop what this returns.
///
/// # Errors
/// A list with a name or an address in it twice; no thread.
pub fn start(
    source: &Source,
    identity: &Arc<Identity>,
    announcement: Announcement,
    on_view: impl Fn(View) + Send + 'static,
    on_fenced: impl Fn(Epoch) -> Result<(), String> + Send + 'static,
) -> Result<Running, MembershipError> {
    let shared = Arc::new(Shared::default());
    shared.set_free_bytes(announcement.free_bytes);
    let (stop, stopped) = watch::channel(Stop::No);
    let settings = match source {
        Source::Etcd(settings) => settings.clone(),
        Source::Static(peers) => {
            check_peers(peers)?;
            on_view(static_peer::view_of(peers, identity.name()));
            return Ok(Running { shared, stop, thread: None });
        }
    };
    let callbacks = Callbacks { on_view: Box::new(on_view), on_fenced: Box::new(on_fenced) };
    let place = (announcement.address, announcement.domain);
    let keeper = Keeper::new(settings, Arc::clone(identity), place, Arc::clone(&shared), callbacks);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(MembershipError::Thread)?;
    let thread = thread::Builder::new()
        .name("membership".to_owned())
        .spawn(move || {
            runtime.block_on(keeper.run(stopped));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })
        .map_err(MembershipError::Thread)?;
    Ok(Running { shared, stop, thread: Some(thread) })
}

/// Membership that goes on. When it is dropped nobody is told any more, and the node stays registered until its lease runs out, so that
/// another process of this host can take over before others miss it.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// What may be borrowed from this node now, in bytes. Others hear of it if it is news, after a while.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.shared.set_free_bytes(bytes);
    }

    /// What is wrong at present, in one line for people.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    /// The node leaves the cluster, as at an orderly end: the others see it at once. Waits for etcd for some seconds at most.
    pub fn leave(mut self) {
        self.end(Stop::AndLeave);
    }

    fn end(&mut self, how: Stop) {
        if let Some(thread) = self.thread.take() {
            self.stop.send_replace(how);
            if thread.join().is_err() {
                log::error!("cluster: the thread that asks etcd who is there has panicked");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(Stop::Quietly);
    }
}
