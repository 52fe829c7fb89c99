//! Disks as the admin API sees them. What serves them is the binary's business.

use std::{fmt, os::unix::ffi::OsStrExt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ByteSize, ControlError, DedupChoice, DiskName};

/// The unit of a disk's size, in bytes: one page.
const BLOCK_BYTES: u64 = 4096;
/// The smallest disk, in bytes. Swap smaller than this is a slip of the pen.
const MIN_DISK_BYTES: u64 = 1 << 20;
/// The longest path a Unix socket can have, in bytes: `sun_path` less its terminator.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// [`DiskInfo::transport`] of a disk on a vhost-user socket.
pub const TRANSPORT_VHOST_USER_BLK: &str = "vhost-user-blk";

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
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Its name, and its client's.
    pub name: DiskName,
    /// What the guest sees as the disk's size, in bytes: a multiple of 4096, 1 MiB or more.
    pub size_bytes: u64,
    /// Absolute path of the socket that the virtual machine monitor connects to. Nothing may be there yet.
    pub vhost_user: PathBuf,
    /// The most of the pool that its pages may take, in bytes. None: up to the pool's limit.
    #[serde(default)]
    pub cap_bytes: Option<u64>,
    /// With whose pages its own may share memory.
    #[serde(default)]
    pub dedup: DedupChoice,
    /// What it holds at first.
    #[serde(default)]
    pub format: DiskFormat,
    /// Virtqueues offered to the guest, one or more.
    #[serde(default = "DiskSpec::default_queues")]
    pub queues: u16,
}

impl DiskSpec {
    /// Four queues: a guest uses one per CPU at most, and a queue that nobody uses costs a sleeping thread.
    pub const fn default_queues() -> u16 {
        4
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
        if self.queues == 0 {
            return wrong("queues 0 would serve nobody; give 1 or more".to_owned());
        }
        let socket = self.vhost_user.display();
        if !self.vhost_user.is_absolute() {
            return wrong(format!(
                "socket path `{socket}` is relative; give it from the root, as in /run/tmem/{}.sock",
                self.name
            ));
        }
        let path = self.vhost_user.as_os_str().as_bytes();
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
    /// With whose pages its own may share memory.
    pub dedup: DedupChoice,
    /// What it held at first.
    pub format: DiskFormat,
    /// How guests reach it: [`TRANSPORT_VHOST_USER_BLK`].
    pub transport: String,
    /// Where guests reach it.
    pub socket: PathBuf,
    /// Virtqueues offered to the guest.
    pub queues: u16,
    /// Whether a guest is connected now.
    pub connected: bool,
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
mod tests {
    use super::*;

    fn spec() -> DiskSpec {
        DiskSpec {
            name: "vm1".parse().expect("name"),
            size_bytes: 4 << 30,
            vhost_user: "/run/tmem/vm1.sock".into(),
            cap_bytes: None,
            dedup: DedupChoice::Alone,
            format: DiskFormat::Swap,
            queues: 1,
        }
    }

    #[test]
    fn sense_passes() {
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn each_nonsense_names_the_disk_and_the_way_out() {
        let long = format!("/{}", "x".repeat(107));
        for (broken, mentions) in [
            (DiskSpec { size_bytes: 0, ..spec() }, "at least 1M"),
            (DiskSpec { size_bytes: (1 << 20) + 4097, ..spec() }, "1028K would be"),
            (DiskSpec { cap_bytes: Some(0), ..spec() }, "no cap at all"),
            (DiskSpec { queues: 0, ..spec() }, "1 or more"),
            (DiskSpec { vhost_user: "vm1.sock".into(), ..spec() }, "/run/tmem/vm1.sock"),
            (DiskSpec { vhost_user: long.into(), ..spec() }, "shorter"),
            (DiskSpec { vhost_user: "/tmp/a\nb".into(), ..spec() }, "plain one"),
        ] {
            let error = broken.check().expect_err(mentions).to_string();
            assert!(
                error.starts_with("disk vm1: ") && error.contains(mentions) && !error.contains('\n'),
                "{error}"
            );
        }
    }

    #[test]
    fn a_body_with_unknown_fields_is_refused() {
        let body = r#"{"name":"vm1","size_bytes":1048576,"vhost_user":"/s","weight":3}"#;
        assert!(serde_json::from_str::<DiskSpec>(body).unwrap_err().to_string().contains("weight"));
        let body = r#"{"name":"vm1","size_bytes":1048576,"vhost_user":"/s"}"#;
        let spec: DiskSpec = serde_json::from_str(body).expect("minimal");
        assert_eq!((spec.cap_bytes, spec.format, spec.queues), (None, DiskFormat::Swap, 4));
    }
}
