//! A store, disks and knobs behind the admin API, and a connection whose peer has said everything already.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, atomic::AtomicU32},
    task::{Context, Poll},
    time::Duration,
};

use tmem_control::{
    Access, AdminError, Config, Control, DedupChoice, DiskFormat, DiskInfo, DiskName, DiskService, DiskSpec,
    KnobChanges, KnobList, Knobs, Processes, Succession, UpgradeState, serve_stream,
};
use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_store::{
    ClientKind, ClientOptions, ClientSettings, ClientUsage, Dedup, Store, StoreOptions, Weight,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Runtime,
};

const LIMIT: u64 = 4 << 20;
/// The client that is always there.
const CLIENT: &str = "vm1";

/// Everything that is kept from input to input.
pub struct Rig {
    runtime: Runtime,
    store: Arc<Store>,
    disks: Arc<Disks>,
    knobs: Arc<Knobs>,
    control: Arc<Control>,
}

/// What a request may change.
#[derive(PartialEq, Debug)]
pub struct State {
    knobs: KnobList,
    settings: Vec<(String, ClientSettings)>,
    disks: Vec<DiskInfo>,
    limit_bytes: u64,
}

impl Rig {
    pub fn new() -> Rig {
        // Time stands still while there is something to do, and else goes on to the next timeout at once.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let store = Store::new(StoreOptions { limit_bytes: LIMIT }).expect("a store");
        let options = ClientOptions {
            name: CLIENT.to_owned(),
            kind: ClientKind::Disk,
            cap_bytes: None,
            weight: Weight::default(),
            dedup: Dedup::Alone,
        };
        store.create_client(options).expect("a client");
        let disks = Arc::new(Disks { store: store.clone(), by_name: Mutex::default() });
        let (knobs, control) = parts(&store, &disks);
        Rig { runtime, store, disks, knobs, control }
    }

    /// Everything is as at the start.
    pub fn begin(&mut self) {
        (self.knobs, self.control) = parts(&self.store, &self.disks);
    }

    /// Takes back what an input can have changed.
    pub fn end(&mut self) {
        self.disks.by_name.lock().expect("a lock").clear();
        self.knobs.set(&changes(&parts(&self.store, &self.disks).0.list())).expect("defaults");
        self.store.set_limit_bytes(LIMIT).expect("a limit");
        let client = self.store.client(CLIENT).expect("the client");
        client.change(|settings| *settings = ClientSettings::default()).expect("settings");
        assert_eq!(self.store.clients().len(), 1, "a disk that is gone left its client");
    }

    /// What a peer gets that says this and then nothing more.
    pub fn ask(&self, said: Vec<u8>, piece: usize, access: Access) -> Vec<u8> {
        let sent = Arc::<Mutex<Vec<u8>>>::default();
        let stream = Said { said: io::Cursor::new(said), piece, sent: sent.clone() };
        self.runtime.block_on(serve_stream(stream, self.control.clone(), access));
        std::mem::take(&mut *sent.lock().expect("a lock"))
    }

    pub fn state(&self) -> State {
        let settings = |usage: ClientUsage| {
            let client = self.store.client(&usage.name).expect("a client that was named");
            (usage.name, client.settings())
        };
        State {
            knobs: self.knobs.list(),
            settings: self.store.clients().into_iter().map(settings).collect(),
            disks: self.disks.list(),
            limit_bytes: self.store.limit_bytes(),
        }
    }

    /// What knobs are shown at can be set, and is what they are at already.
    pub fn check_knobs(&self) {
        let shown = self.knobs.list();
        self.knobs.set(&changes(&shown)).expect("what is shown can be set");
        assert_eq!(self.knobs.list(), shown);
    }
}

/// A process without a keeper, that nothing takes over from.
struct Alone;

impl Succession for Alone {
    fn processes(&self) -> Processes {
        Processes { keeper: 1, worker: 2, worker_deaths: 0, spare: None, uptime: Duration::ZERO }
    }

    fn upgrade(&self) -> Result<(), AdminError> {
        Err(AdminError::Conflict("there is no keeper".to_owned()))
    }

    fn upgrade_state(&self) -> UpgradeState {
        UpgradeState::None
    }
}

fn parts(store: &Arc<Store>, disks: &Arc<Disks>) -> (Arc<Knobs>, Arc<Control>) {
    let config = Config { pool_size: tmem_control::ByteSize::from_bytes(LIMIT).into(), ..Config::default() };
    let knobs = Arc::new(Knobs::new(config, store.clone(), Arc::<AtomicU32>::default()));
    let control = Control::new(store.clone(), disks.clone(), knobs.clone(), Arc::new(Alone), None);
    (knobs, Arc::new(control))
}

fn changes(list: &KnobList) -> KnobChanges {
    KnobChanges { knobs: list.knobs.iter().map(|knob| (knob.name.clone(), knob.value.clone())).collect() }
}

/// Disks that nothing serves.
struct Disks {
    store: Arc<Store>,
    by_name: Mutex<BTreeMap<DiskName, (DiskInfo, SwapDisk)>>,
}

impl DiskService for Disks {
    fn add(&self, spec: &DiskSpec) -> Result<DiskInfo, AdminError> {
        let options = DiskOptions {
            name: spec.name.to_string(),
            size_bytes: spec.size_bytes,
            cap_bytes: spec.cap_bytes,
            weight: spec.weight,
            dedup: match spec.dedup_in_effect() {
                DedupChoice::Alone => Dedup::Alone,
                DedupChoice::Off => Dedup::Off,
                DedupChoice::Domain(name) => Dedup::Domain(name.to_string()),
            },
            format: if spec.format == DiskFormat::Swap { Format::Swap } else { Format::None },
        };
        let disk = SwapDisk::create(&self.store, options)
            .map_err(|error| AdminError::Conflict(error.to_string()))?;
        let info = DiskInfo::new(spec, &spec.frontend);
        self.by_name.lock().expect("a lock").insert(spec.name.clone(), (info.clone(), disk));
        Ok(info)
    }

    fn remove(&self, name: &DiskName, _force: bool) -> Result<(), AdminError> {
        let disk = self.by_name.lock().expect("a lock").remove(name);
        disk.map(drop).ok_or_else(|| AdminError::NotFound(format!("there is no disk {name}")))
    }

    fn list(&self) -> Vec<DiskInfo> {
        self.by_name.lock().expect("a lock").values().map(|(info, _)| info.clone()).collect()
    }
}

/// Gives the peer's bytes in pieces, then nothing for ever, and keeps what is sent.
struct Said {
    said: io::Cursor<Vec<u8>>,
    piece: usize,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = (self.said.position() as usize).min(self.said.get_ref().len());
        let rest = &self.said.get_ref()[at..];
        if rest.is_empty() {
            return Poll::Pending;
        }
        let len = rest.len().min(buffer.remaining()).min(self.piece);
        buffer.put_slice(&rest[..len]);
        self.said.set_position((at + len) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sent.lock().expect("a lock").extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
