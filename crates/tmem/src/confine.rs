//! What the worker is confined to. Whatever takes privileges is open by then, or the keeper does it: sockets with their files, and the tier.

use std::{
    env,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::PathBuf,
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use tmem_control::{Config, ControlError, Sandbox};
use tmem_sandbox::{Capabilities, Capability, Confinement, Extras, PathAccess, SandboxError, User};

/// Who the worker becomes where nobody says so, if there is such a user.
const DEFAULT_USER: &str = "tmem";

/// What it reads of the kernel, from moment to moment or when a disk is added: the host's memory, its own threads and cgroup, how many
/// CPUs there are, and random numbers. Of `/proc` all, because the directories in it are new ones whenever the kernel forgot them; files
/// of other processes are closed to it by Landlock itself.
const READ: [&str; 4] = ["/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/dev/urandom"];

/// Beyond that with ublk: devices, wherever they will be. They cannot be named before they are there.
const READ_FOR_UBLK: &str = "/sys";
const WRITE_FOR_UBLK: [&str; 2] = ["/dev", "/sys/devices/virtual/block"];

/// Beyond that where there are servers or peers: what its name is looked up with, whenever there is a new connection.
const READ_FOR_NAMES: [&str; 5] =
    ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"];

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

/// Confines the process, which has one thread, if the configuration says so. Walls that the kernel, or a container, refuses are left out, and
/// the log says which.
///
/// # Errors
/// There are other threads, or it cannot become the user that was asked for. The process may be confined in part, and is of no use.
pub(crate) fn confine(config: &Config) -> Result<()> {
    let user = user(config)?;
    if config.sandbox == Sandbox::Off {
        return Ok(());
    }
    let ublk = tmem_ublk::is_prepared();
    // To the server that is the tier, if it is one, to peers, and to etcd.
    let tcp_connections = config.redis_tier()?.is_some() || config.cluster()?.is_some();
    let confinement = Confinement {
        user,
        capabilities: capabilities(ublk),
        paths: paths(ublk, tcp_connections),
        extras: Extras { rings: config.tier()?.is_some(), ublk },
        tcp_connections,
        abstract_sockets: env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_bytes().starts_with(b"@")),
    };
    let confined = confinement.apply().context("cannot confine the daemon")?;
    for refusal in &confined.refused {
        if config.user.is_some() && confined.user.is_none() && refusal.is_about_user() {
            bail!("cannot confine the daemon: {refusal}");
        }
        log::warn!("not all walls of the sandbox stand: {refusal}");
    }
    for path in &confined.missing {
        log::debug!("{} is not there, and cannot be read when it is", path.display());
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

/// What ublk's driver wants, whose devices are root's.
fn capabilities(ublk: bool) -> Capabilities {
    let for_ublk =
        [Capability::SysAdmin, Capability::SysResource, Capability::IpcLock, Capability::DacOverride];
    for_ublk.into_iter().filter(|_| ublk).collect()
}

fn paths(ublk: bool, tcp_connections: bool) -> Vec<(PathBuf, PathAccess)> {
    let mut paths: Vec<_> = READ.iter().map(|path| (path.into(), PathAccess::Read)).collect();
    // Its own program, for the names of functions when a thread is asked where it is.
    paths.extend(env::current_exe().map(|program| (program, PathAccess::Read)));
    // By its descriptor: nobody else finds the way to it.
    paths.extend(
        tmem_store::never_swapped()
            .map(|directory| (format!("/proc/self/fd/{}", directory.as_raw_fd()).into(), PathAccess::Write)),
    );
    if tcp_connections {
        paths.extend(READ_FOR_NAMES.iter().map(|path| (path.into(), PathAccess::Read)));
    }
    if ublk {
        paths.push((READ_FOR_UBLK.into(), PathAccess::Read));
        paths.extend(WRITE_FOR_UBLK.iter().map(|path| (path.into(), PathAccess::Write)));
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("t.toml")).expect("config")
    }

    #[test]
    fn a_user_needs_the_sandbox() {
        let error = check(&config("user = \"root\"\nsandbox = \"off\"")).expect_err("no sandbox").to_string();
        assert!(error.contains("root") && error.contains("--sandbox on"), "{error}");
        check(&config("user = \"root\"")).expect("root is there");
        assert!(check(&config("user = \"no-such-user\"")).is_err());
        check(&config("")).expect("nothing is asked for");
    }

    #[test]
    fn nothing_but_what_the_kernel_shows_is_in_reach() {
        let program = env::current_exe().expect("its path");
        let shown = |path: &Path| READ.iter().any(|read| Path::new(read) == path) || path == program;
        assert!(paths(false, false).iter().all(|(path, access)| *access == PathAccess::Read && shown(path)));
        assert_eq!(capabilities(false), Capabilities::NONE);
    }
}
