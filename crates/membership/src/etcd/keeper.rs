//! Sessions with etcd, one after the other, in a thread of their own.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time};

use super::{EtcdSettings, ended::Ended, keys::Keys, said::Said, server::Server, session};
use crate::{Epoch, Identity, View, random};

/// After the first failure, and doubled with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// At most: who comes back after an outage shall not be missed for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Who is told.
pub(crate) struct Callbacks {
    pub(crate) on_view: Box<dyn Fn(View) + Send>,
    pub(crate) on_fenced: Box<dyn Fn(Epoch) -> Result<(), String> + Send>,
}

/// What the thread and whoever started it both look at.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    free_bytes: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace_trouble(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

/// How a keeper ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It does not.
    No,
    /// The key stays as long as the lease does: another process takes over.
    Quietly,
    /// The node leaves.
    AndLeave,
}

/// Keeps a node registered, and tells who else is.
pub(crate) struct Keeper {
    pub(crate) identity: Arc<Identity>,
    pub(crate) address: SocketAddr,
    pub(crate) domain: Option<String>,
    pub(crate) settings: Arc<EtcdSettings>,
    pub(crate) keys: Keys,
    pub(crate) shared: Arc<Shared>,
    callbacks: Callbacks,
    /// The lease, as long as it may be alive.
    pub(crate) lease: Option<i64>,
    /// The name was this process's once.
    pub(crate) had_name: bool,
    told: Option<View>,
    said: Said,
}

impl Keeper {
    pub(crate) fn new(
        settings: EtcdSettings,
        identity: Arc<Identity>,
        (address, domain): (SocketAddr, Option<String>),
        shared: Arc<Shared>,
        callbacks: Callbacks,
    ) -> Self {
        let keys = Keys::of(identity.cluster());
        Self {
            identity,
            address,
            domain,
            settings: Arc::new(settings),
            keys,
            shared,
            callbacks,
            lease: None,
            had_name: false,
            told: None,
            said: Said::default(),
        }
    }

    /// Goes on until it is stopped.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<Stop>) {
        tokio::select! {
            () = self.sessions() => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => {}
        }
        let leaves = *stop.borrow() == Stop::AndLeave;
        if leaves && let Some(lease) = self.lease {
            session::leave(&self.servers(), lease).await;
        }
    }

    async fn sessions(&mut self) {
        let servers = self.servers();
        let (mut pause, mut next) = (FIRST_PAUSE, 0);
        loop {
            let mut was_current = false;
            let ended = session::run(self, &servers[next % servers.len()], &mut was_current).await;
            if was_current {
                pause = FIRST_PAUSE;
            }
            self.lost_sight();
            self.say(&ended);
            if ended.is_passing() && was_current {
                continue;
            }
            next += 1;
            if matches!(ended, Ended::Failed { .. }) && !next.is_multiple_of(servers.len()) {
                continue;
            }
            time::sleep(jittered(pause)).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn servers(&self) -> Vec<Server> {
        let server = |endpoint: &String| Server {
            endpoint: endpoint.clone(),
            settings: Arc::clone(&self.settings),
            prefix: self.keys.prefix().to_owned(),
        };
        self.settings.endpoints.iter().map(server).collect()
    }

    /// The view, where it is another one than before.
    pub(crate) fn tell(&mut self, view: View) {
        if self.told.as_ref() != Some(&view) {
            self.told = Some(view.clone());
            (self.callbacks.on_view)(view);
        }
    }

    /// All is well.
    pub(crate) fn say_well(&mut self, endpoint: &str, nodes: usize) {
        self.said.forget();
        if self.shared.replace_trouble(None).is_some() || self.told.is_none() {
            log::info!(
                "cluster: {} is registered in etcd at {endpoint} as {}, among {nodes} nodes",
                self.identity.name(),
                self.address,
            );
        }
    }

    /// Has another epoch begin, `at_least` this one.
    pub(crate) fn begin_epoch(&self, at_least: Epoch) -> Result<(), Ended> {
        (self.callbacks.on_fenced)(at_least).map_err(|why| Ended::NoEpoch { why })?;
        let epoch = self.identity.epoch();
        if epoch < at_least {
            return Err(Ended::NoEpoch {
                why: format!("it is {}, and {} was asked for", epoch.0, at_least.0),
            });
        }
        log::warn!(
            "cluster: this node's epoch was over; what it had been lent is gone, and epoch {} begins",
            epoch.0
        );
        Ok(())
    }

    fn lost_sight(&mut self) {
        let last = self.told.clone().unwrap_or_default();
        self.tell(View { is_current: false, ..last });
    }

    /// Each trouble is said once, however often it is tried again.
    fn say(&mut self, ended: &Ended) {
        let line = ended.to_string();
        if self.said.is_news(&line) {
            log::warn!("cluster: {line}");
        }
        self.shared.replace_trouble(Some(line));
    }
}

/// Three quarters to five quarters of it, so that a thousand nodes do not come back at the same time.
fn jittered(pause: Duration) -> Duration {
    let [byte] = random::bytes::<1>().unwrap_or([128]);
    pause * (192 + u32::from(byte) / 2) / 256
}
