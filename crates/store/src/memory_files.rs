//! Where memory files come from: the kernel's own (memfd), or a file system in memory that is never swapped out.
//!
//! A daemon whose host swaps to it must not be swapped out itself. Locking (mlock(2)) holds for what a mapping has touched, and ends with the
//! mapping: when a process dies, all that it has stored could be swapped out, to the device that nobody serves, before the next one has touched it.
//! Files of a tmpfs that is mounted `noswap` (Linux 6.4) stay in memory whoever maps them. It has no place among the directories: who has a file of it
//! keeps it alive.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SealFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags},
};

/// The root of the file system, once there is one.
static NEVER_SWAPPED: OnceLock<OwnedFd> = OnceLock::new();

/// Nobody can change the length of a file with these, so nothing that is mapped can vanish.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// From now on this process makes memory files that are never swapped out.
///
/// # Errors
/// The kernel is older than Linux 6.4, or the process lacks CAP_SYS_ADMIN.
pub fn never_swap_memory_files() -> io::Result<()> {
    if NEVER_SWAPPED.get().is_some() {
        return Ok(());
    }
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(context.as_fd(), "noswap")?;
    // No limit: that is the store's business.
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", "0")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "nr_inodes", "0")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    NEVER_SWAPPED.get_or_init(|| root);
    Ok(())
}

/// The directory that files are made in which are never swapped out, if this process makes such.
pub fn never_swapped() -> Option<&'static OwnedFd> {
    NEVER_SWAPPED.get()
}

/// An empty memory file without a limit to its length.
///
/// # Errors
/// The OS refuses.
pub fn new_memory_file(name: &str) -> io::Result<OwnedFd> {
    match never_swapped() {
        Some(root) => in_file_system(root),
        None => Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?),
    }
}

/// A memory file of that length, for ever where that can be had. Untouched parts take no memory, and read as zeroes.
///
/// # Errors
/// The OS refuses.
pub fn memory_file_of_length(name: &str, len_bytes: usize) -> io::Result<OwnedFd> {
    let (file, seal) = match never_swapped() {
        // Nobody has it but who is given it.
        Some(root) => (in_file_system(root)?, false),
        None => {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            (rustix::fs::memfd_create(name, flags)?, true)
        }
    };
    rustix::fs::ftruncate(&file, len_bytes as u64)?;
    if seal {
        rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
    }
    Ok(file)
}

/// Makes sure that a file is one of those.
///
/// # Errors
/// It is none, its length is another, or could be sealed and is not.
pub fn check_memory_file(file: &OwnedFd, len_bytes: usize) -> io::Result<()> {
    let seals = rustix::fs::fcntl_get_seals(file).map_err(|_| io::Error::other("it is no memory file"))?;
    let found = rustix::fs::fstat(file)?;
    if !seals.contains(SEALS) && (is_kernels_own(found.st_dev)? || found.st_nlink > 0) {
        return Err(io::Error::other("its length is not sealed"));
    }
    if found.st_size != len_bytes as i64 {
        return Err(io::Error::other(format!("it has {} bytes instead of {len_bytes}", found.st_size)));
    }
    Ok(())
}

/// Whether files of that file system are made by memfd_create.
fn is_kernels_own(device: u64) -> io::Result<bool> {
    let another = rustix::fs::memfd_create("tmem-look", MemfdFlags::CLOEXEC)?;
    Ok(rustix::fs::fstat(another)?.st_dev == device)
}

/// A file without a name. Without a name none can be given to it, either.
fn in_file_system(root: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    Ok(rustix::fs::openat(root, ".", flags, Mode::RUSR | Mode::WUSR)?)
}
