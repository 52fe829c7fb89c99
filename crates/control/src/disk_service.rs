//! Disks as the admin API sees them. What serves them is the binary's business.

use std::{
    fmt,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use tmem_store::{ClientSettings, Weight};

use crate::{ByteSize, ControlError, DedupChoice, DiskName, NbdAddress};

/// The unit of a disk's size, in bytes: one page.
const BLOCK_BYTES: u64 = 4096;
/// The smallest disk, in bytes. Swap smaller than this is a slip of the pen.
const MIN_DISK_BYTES: u64 = 1 << 20;
/// The longest path a Unix socket can have, in bytes: `sun_path` less its terminator.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// [`DiskInfo::transport`] of a disk on a vhost-user socket.
pub const TRANSPORT_VHOST_USER_BLK: &str = "vhost-user-blk";
/// [`DiskInfo::transport`] of a disk that is exported over NBD.
pub const TRANSPORT_NBD: &str = "nbd";
/// [`DiskInfo::transport`] of a disk that is a block device of the daemon's host.
pub const TRANSPORT_UBLK: &str = "ublk";

/// How guests are to reach a disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frontend {
    /// A virtual machine monitor connects.
    VhostUser {
        /// Absolute path of the socket. Nothing may be there yet.
        socket: PathBuf,
        /// Virtqueues offered to the guest, one or more.
        queues: u16,
    },
    /// NBD clients connect.
    Nbd(NbdAddress),
    /// It is a block device of the daemon's own host.
    Ublk {
        /// Queues of the device, one or more. None: one for each CPU.
        queues: Option<u16>,
        /// The block device, once there is one.
        device: Option<PathBuf>,
    },
}

impl Frontend {
    /// Four queues: a guest uses one per CPU at most, and a queue that nobody uses costs a sleeping thread.
    const DEFAULT_QUEUES: u16 = 4;

    /// From what was given of each.
    ///
    /// # Errors
    /// What is wrong with that, in words.
    pub fn new(
        vhost_user: Option<PathBuf>,
        nbd: Option<NbdAddress>,
        ublk: bool,
        queues: Option<u16>,
    ) -> Result<Self, &'static str> {
        match (vhost_user, nbd, ublk, queues) {
            (Some(socket), None, false, queues) => {
                Ok(Self::VhostUser { socket, queues: queues.unwrap_or(Self::DEFAULT_QUEUES) })
            }
            (None, None, true, queues) => Ok(Self::Ublk { queues, device: None }),
            (None, Some(address), false, None) => Ok(Self::Nbd(address)),
            (None, Some(_), false, Some(_)) => {
                Err("queues are vhost-user's and ublk's; an NBD client opens as many connections as it likes")
            }
            (None, None, false, _) => Err("neither vhost-user, nbd nor ublk is given; give one of them"),
            _ => Err("vhost-user, nbd and ublk exclude each other; give one of them"),
        }
    }

    /// The Unix socket, if it has one.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::VhostUser { socket, .. } | Self::Nbd(NbdAddress::Unix(socket)) => Some(socket),
            Self::Nbd(NbdAddress::Tcp(_)) | Self::Ublk { .. } => None,
        }
    }

    /// Whether two disks can have both: only the address of NBD is shared.
    pub fn is_compatible(&self, other: &Self) -> bool {
        let both_nbd = matches!((self, other), (Self::Nbd(_), Self::Nbd(_)));
        both_nbd || self.socket().is_none() || self.socket() != other.socket()
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VhostUser { socket, .. } => socket.display().fmt(f),
            Self::Nbd(address) => address.fmt(f),
            Self::Ublk { device: Some(device), .. } => device.display().fmt(f),
            Self::Ublk { device: None, .. } => f.write_str("ublk"),
        }
    }
}

/// What a new disk holds before anybody writes to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// An empty Linux swap area with the label `tmem`.
    #[default]
    Swap,
    /// Zeroes.
    None,
}

impl FromStr for DiskFormat {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text {
            "swap" => Ok(Self::Swap),
            "none" => Ok(Self::None),
            _ => Err(ControlError::Format { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Swap => "swap",
            Self::None => "none",
        })
    }
}

/// A disk that somebody asks for: the body of `POST /api/v1/disks`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "DiskBody", into = "DiskBody")]
pub struct DiskSpec {
    /// Its name, and its client's.
    pub name: DiskName,
    /// What the guest sees as the disk's size, in bytes: a multiple of 4096, 1 MiB or more.
    pub size_bytes: u64,
    /// How guests reach it.
    pub frontend: Frontend,
    /// The most of the pool that its pages may take, in bytes. None: up to the pool's limit.
    pub cap_bytes: Option<u64>,
    /// Its share of the pool under pressure, relative to others'.
    pub weight: Weight,
    /// With whose pages its own may share memory.
    pub dedup: DedupChoice,
    /// What it holds at first.
    pub format: DiskFormat,
}

/// A [`DiskSpec`] in JSON.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskBody {
    name: DiskName,
    size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vhost_user: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbd: Option<NbdAddress>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ublk: bool,
    #[serde(default)]
    cap_bytes: Option<u64>,
    #[serde(default)]
    weight: Option<u32>,
    #[serde(default)]
    dedup: DedupChoice,
    #[serde(default)]
    format: DiskFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    queues: Option<u16>,
}

impl TryFrom<DiskBody> for DiskSpec {
    type Error = String;

    fn try_from(body: DiskBody) -> Result<Self, String> {
        let DiskBody { name, size_bytes, vhost_user, nbd, ublk, cap_bytes, weight, dedup, format, queues } =
            body;
        let weight = disk_weight(&name, weight)?;
        match Frontend::new(vhost_user, nbd, ublk, queues) {
            Ok(frontend) => Ok(Self { name, size_bytes, frontend, cap_bytes, weight, dedup, format }),
            Err(wrong) => Err(format!("disk {name}: {wrong}")),
        }
    }
}

impl From<DiskSpec> for DiskBody {
    fn from(spec: DiskSpec) -> Self {
        let DiskSpec { name, size_bytes, frontend, cap_bytes, weight, dedup, format } = spec;
        let weight = Some(weight.get());
        let (vhost_user, nbd, ublk, queues) = match frontend {
            Frontend::VhostUser { socket, queues } => (Some(socket), None, false, Some(queues)),
            Frontend::Nbd(address) => (None, Some(address), false, None),
            Frontend::Ublk { queues, .. } => (None, None, true, queues),
        };
        Self { name, size_bytes, vhost_user, nbd, ublk, cap_bytes, weight, dedup, format, queues }
    }
}

/// A weight as it is written for a disk.
///
/// # Errors
/// It is out of its range, said of the disk.
pub(crate) fn disk_weight(name: &DiskName, weight: Option<u32>) -> Result<Weight, String> {
    weight.map_or(Ok(Weight::default()), Weight::new).map_err(|error| format!("disk {name}: {error}"))
}

impl DiskSpec {
    /// With whose pages its own share memory: what was asked for, but on ublk with none. What sharing takes grows as pages come,
    /// and whoever serves swap takes no memory at that moment.
    pub fn dedup_in_effect(&self) -> DedupChoice {
        match self.frontend {
            Frontend::Ublk { .. } => DedupChoice::Off,
            _ => self.dedup.clone(),
        }
    }

    /// Whether the request makes sense on its own, whatever else exists.
    ///
    /// # Errors
    /// [`AdminError::Invalid`] that names the disk, the field and what to write.
    pub fn check(&self) -> Result<(), AdminError> {
        let size = ByteSize::from_bytes(self.size_bytes);
        let wrong = |what: String| Err(AdminError::Invalid(format!("disk {}: {what}", self.name)));
        if self.size_bytes < MIN_DISK_BYTES {
            return wrong(format!("size {size} is too small; give at least 1M"));
        }
        if !self.size_bytes.is_multiple_of(BLOCK_BYTES) {
            let nearest = ByteSize::from_bytes(self.size_bytes / BLOCK_BYTES * BLOCK_BYTES);
            return wrong(format!("size {size} is not a multiple of 4K, the page size; {nearest} would be"));
        }
        if self.cap_bytes == Some(0) {
            return wrong("cap 0 leaves no room for a page; give a size, or no cap at all".to_owned());
        }
        if let Some(Err(error)) = self.cap_bytes.map(ClientSettings::check_cap) {
            return wrong(error.to_string());
        }
        if let Frontend::VhostUser { queues: 0, .. } | Frontend::Ublk { queues: Some(0), .. } = self.frontend
        {
            return wrong("queues 0 would serve nobody; give 1 or more".to_owned());
        }
        if let (Frontend::Ublk { .. }, DedupChoice::Domain(domain)) = (&self.frontend, &self.dedup) {
            return wrong(format!(
                "dedup {domain}: a disk on ublk shares its pages with no other, because what that takes is not set aside for swap; \
                 leave dedup out"
            ));
        }
        let Some(path) = self.frontend.socket() else { return Ok(()) };
        let socket = path.display();
        if !path.is_absolute() {
            return wrong(format!(
                "socket path `{socket}` is relative; give it from the root, as in /run/tmem/{}.sock",
                self.name
            ));
        }
        let path = path.as_os_str().as_bytes();
        if path.len() > MAX_SOCKET_PATH_BYTES {
            return wrong(format!(
                "socket path `{socket}` has {} bytes, and Unix sockets take {MAX_SOCKET_PATH_BYTES}; choose a shorter directory",
                path.len()
            ));
        }
        if path.iter().any(u8::is_ascii_control) {
            return wrong("the socket path has control characters in it; choose a plain one".to_owned());
        }
        Ok(())
    }
}

/// A disk that is being served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its name, and its client's.
    pub name: DiskName,
    /// What the guest sees as its size, in bytes.
    pub size_bytes: u64,
    /// The most of the pool that its pages may take, in bytes.
    pub cap_bytes: Option<u64>,
    /// Its share of the pool under pressure, relative to others'.
    pub weight: u32,
    /// With whose pages its own may share memory.
    pub dedup: DedupChoice,
    /// What it held at first.
    pub format: DiskFormat,
    /// How guests reach it: [`TRANSPORT_VHOST_USER_BLK`], [`TRANSPORT_NBD`] or [`TRANSPORT_UBLK`].
    pub transport: String,
    /// The Unix socket where guests reach it; null where there is none.
    pub socket: Option<PathBuf>,
    /// The TCP address where guests reach it; null where there is none.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// The block device of the daemon's host; null where there is none.
    #[serde(default)]
    pub device: Option<PathBuf>,
    /// Virtqueues offered to the guest, or queues of the block device; null where there are none.
    pub queues: Option<u16>,
    /// Whether a guest is connected now, or the block device is swap or mounted.
    pub connected: bool,
}

impl DiskInfo {
    /// A new disk, to which nobody is connected.
    pub fn new(spec: &DiskSpec, frontend: &Frontend) -> Self {
        let (transport, queues) = match frontend {
            Frontend::VhostUser { queues, .. } => (TRANSPORT_VHOST_USER_BLK, Some(*queues)),
            Frontend::Nbd(_) => (TRANSPORT_NBD, None),
            Frontend::Ublk { queues, .. } => (TRANSPORT_UBLK, *queues),
        };
        let (address, device) = match frontend {
            Frontend::Nbd(NbdAddress::Tcp(address)) => (Some(*address), None),
            Frontend::Ublk { device, .. } => (None, device.clone()),
            _ => (None, None),
        };
        Self {
            name: spec.name.clone(),
            size_bytes: spec.size_bytes,
            cap_bytes: spec.cap_bytes,
            weight: spec.weight.get(),
            dedup: spec.dedup_in_effect(),
            format: spec.format,
            transport: transport.to_owned(),
            socket: frontend.socket().map(Path::to_owned),
            address,
            device,
            queues,
            connected: false,
        }
    }
}

/// The answer to `GET /api/v1/disks`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DiskList {
    /// By name.
    pub disks: Vec<DiskInfo>,
}

/// Disks come and go through this. Methods may block, and are called on threads that may.
pub trait DiskService: Send + Sync {
    /// Makes a disk and serves it. The specification was checked.
    ///
    /// # Errors
    /// The name or the socket is taken, or a part of it cannot be made; nothing is left behind then.
    fn add(&self, spec: &DiskSpec) -> Result<DiskInfo, AdminError>;

    /// Stops serving a disk and gives its pages back. With `force`, even while a guest is connected.
    ///
    /// # Errors
    /// No such disk, or a guest is connected and `force` is not set; nothing has changed then.
    fn remove(&self, name: &DiskName, force: bool) -> Result<(), AdminError>;

    /// Every disk that is being served, by name.
    fn list(&self) -> Vec<DiskInfo>;
}

/// Why the admin API says no. The text names the thing and the way out, in one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdminError {
    /// The request makes no sense (HTTP 400).
    #[error("{0}")]
    Invalid(String),
    /// What it names does not exist (HTTP 404).
    #[error("{0}")]
    NotFound(String),
    /// It makes sense, but not in the present state (HTTP 409).
    #[error("{0}")]
    Conflict(String),
    /// The OS or the daemon failed at it (HTTP 500).
    #[error("{0}")]
    Failed(String),
}

#[cfg(test)]
mod tests;
