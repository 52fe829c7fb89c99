//! What the worker is confined to: what it still has to open after everything that takes privileges is open.

use std::{
    env,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::Path,
    sync::OnceLock,
};

use anyhow::{Context, Result};
use tmem_control::{Config, ControlError, DiskSpec, Frontend, NbdAddress, Sandbox};
use tmem_sandbox::{Capabilities, Capability, Confinement, Extras, PathAccess, SandboxError, User};
use tmem_transport::directory_of;

/// Who the worker becomes where nobody says so, if there is such a user.
const DEFAULT_USER: &str = "tmem";

/// What it reads of the kernel, from moment to moment or when a disk is added: the host's memory, its own threads and cgroup, how many
/// CPUs there are, and random numbers. Of `/proc` all, because the directories in it are new ones whenever the kernel forgot them; files
/// of other processes are closed to it by Landlock itself.
const READ: [&str; 4] = ["/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/urandom"];

/// Beyond that with ublk: devices, wherever they will be. They cannot be named before they are there.
const READ_FOR_UBLK: &str = "/sys";
const WRITE_FOR_UBLK: [&str; 2] = ["/dev", "/sys/devices/virtual/block"];

/// A process is confined once, for good.
static IN_EFFECT: OnceLock<String> = OnceLock::new();

/// What this process is confined to, for people. `None`: it is not.
pub(crate) fn in_effect() -> Option<String> {
    IN_EFFECT.get().cloned()
}

/// Says so, to whoever reads the log of a daemon that serves.
pub(crate) fn announce() {
    if let Some(text) = IN_EFFECT.get() {
        log::info!("confined: {text}");
    }
}

/// Whether a configuration's user can be had.
///
/// # Errors
/// There is no such user, or no sandbox that would make use of one.
pub(crate) fn check(config: &Config) -> Result<()> {
    user(config)?;
    Ok(())
}

/// Confines the process, which has one thread, if the configuration says so. `left_disks` are those that it goes on with.
///
/// # Errors
/// It cannot be done as asked. The process may be confined in part, and is of no use.
pub(crate) fn confine(config: &Config, runtime_dir: &Path, left_disks: &[DiskSpec]) -> Result<()> {
    let user = user(config)?;
    if config.sandbox == Sandbox::Off {
        return Ok(());
    }
    let ublk = tmem_ublk::is_prepared();
    let confinement = Confinement {
        user,
        capabilities: capabilities(ublk),
        paths: paths(config, runtime_dir, left_disks, ublk),
        extras: Extras { socket_files: true, rings: config.tier.is_some(), ublk },
        abstract_sockets: env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_bytes().starts_with(b"@")),
    };
    let confined = confinement.apply().context("cannot confine the daemon")?;
    for path in &confined.missing {
        log::warn!("{} is not there: this daemon cannot use it until it is started again", path.display());
    }
    IN_EFFECT.get_or_init(|| confined.to_string());
    Ok(())
}

/// Who the worker becomes.
fn user(config: &Config) -> Result<Option<User>> {
    match (&config.user, config.sandbox) {
        (Some(name), Sandbox::Off) => Err(ControlError::UserWithoutSandbox { name: name.clone() }.into()),
        (Some(name), Sandbox::On) => Ok(Some(User::named(name)?)),
        (None, Sandbox::On) if User::can_change() => match User::named(DEFAULT_USER) {
            Ok(user) => Ok(Some(user)),
            Err(SandboxError::NoSuchUser { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
        (None, _) => Ok(None),
    }
}

/// Socket files and the tier are made and opened in directories of others; the paths say which. The rest is what ublk's driver wants.
fn capabilities(ublk: bool) -> Capabilities {
    let for_ublk = [Capability::SysAdmin, Capability::SysResource, Capability::IpcLock];
    let for_ublk = for_ublk.into_iter().filter(|_| ublk);
    for_ublk.chain([Capability::DacOverride]).collect()
}

fn paths(
    config: &Config,
    runtime_dir: &Path,
    left_disks: &[DiskSpec],
    ublk: bool,
) -> Vec<(std::path::PathBuf, PathAccess)> {
    let mut paths: Vec<_> = READ.iter().map(|path| (path.into(), PathAccess::Read)).collect();
    // Its own program, for the names of functions when a thread is asked where it is.
    paths.extend(env::current_exe().map(|program| (program, PathAccess::Read)));
    paths.push((runtime_dir.to_owned(), PathAccess::Make));
    let sockets = config.disks.iter().chain(left_disks).filter_map(|disk| match &disk.frontend {
        Frontend::VhostUser { socket, .. } => Some(socket),
        Frontend::Nbd(NbdAddress::Unix(socket)) => Some(socket),
        Frontend::Nbd(NbdAddress::Tcp(_)) | Frontend::Ublk { .. } => None,
    });
    paths.extend(sockets.map(|socket| (directory_of(socket).to_owned(), PathAccess::Make)));
    paths.extend(config.tier.iter().map(|tier| (tier.clone(), PathAccess::Write)));
    // By its descriptor: nobody else finds the way to it.
    paths.extend(
        tmem_store::never_swapped()
            .map(|directory| (format!("/proc/self/fd/{}", directory.as_raw_fd()).into(), PathAccess::Write)),
    );
    if ublk {
        paths.push((READ_FOR_UBLK.into(), PathAccess::Read));
        paths.extend(WRITE_FOR_UBLK.iter().map(|path| (path.into(), PathAccess::Write)));
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("t.toml")).expect("config")
    }

    #[test]
    fn a_user_needs_the_sandbox() {
        let error = check(&config("user = \"root\"")).expect_err("no sandbox").to_string();
        assert!(error.contains("root") && error.contains("--sandbox on"), "{error}");
        check(&config("user = \"root\"\nsandbox = \"on\"")).expect("root is there");
        assert!(check(&config("user = \"no-such-user\"\nsandbox = \"on\"")).is_err());
        check(&config("")).expect("nothing is asked for");
    }

    #[test]
    fn paths_are_those_of_sockets_and_the_tier() {
        let config = config(
            "tier = \"/data/tier\"\n[[disk]]\nname = \"a\"\nsize = \"1M\"\nvhost-user = \"/vm/a.sock\"\n\
             [[disk]]\nname = \"b\"\nsize = \"1M\"\nnbd = \"127.0.0.1:10809\"\n",
        );
        let paths = paths(&config, Path::new("/run/x"), &config.disks, false);
        let of =
            |access| paths.iter().filter(move |path| path.1 == access).map(|path| path.0.to_str().unwrap());
        assert_eq!(of(PathAccess::Make).collect::<Vec<_>>(), ["/run/x", "/vm", "/vm"]);
        assert_eq!(of(PathAccess::Write).collect::<Vec<_>>(), ["/data/tier"]);
        assert!(READ.into_iter().all(|read| of(PathAccess::Read).any(|path| path == read)));
    }
}
