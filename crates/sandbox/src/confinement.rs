//! The walls in their order.

use std::{fmt, io, path::PathBuf};

use crate::{
    capabilities::{self, Capabilities, Capability},
    error::SandboxError,
    filters::{self, Extras},
    paths::{PathAccess, PathWall, Rules},
    threads,
    user::User,
};

/// What a process is to be confined to.
#[derive(Clone, Debug, Default)]
pub struct Confinement {
    /// Who it becomes. Only root can become somebody else. `None`: it stays who it is.
    pub user: Option<User>,
    /// What it keeps of the capabilities that it has.
    pub capabilities: Capabilities,
    /// What it can open. What is said of a directory and of something in it adds up.
    pub paths: Vec<(PathBuf, PathAccess)>,
    /// What it has to do beyond what all have to.
    pub extras: Extras,
    /// Whether it connects to abstract sockets, which have no path, of programs outside.
    pub abstract_sockets: bool,
}

/// What a process is confined to. Its text is for people: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// The name of who it became, if it was to become somebody.
    pub user: Option<String>,
    /// The capabilities that it still has.
    pub capabilities: Capabilities,
    /// What stands between it and other paths.
    pub paths: PathWall,
    /// Paths that it was given, but that are not there. It cannot open them later either.
    pub missing: Vec<PathBuf>,
    /// What it can do beyond what all can.
    pub extras: Extras,
}

impl Confinement {
    /// Confines the process, for good. What it has open stays open. Threads to come are confined as it is.
    ///
    /// # Errors
    /// There are other threads, which would not be confined; nothing has changed then. Or the kernel refuses a wall, other than that of
    /// paths where it has no Landlock: then some walls stand and others do not, and the process should end.
    pub fn apply(&self) -> Result<Confined, SandboxError> {
        threads::check_alone()?;
        capabilities::bound(self.capabilities)?;
        // Before it becomes another user, who may not be able to reach all paths; what that needs is open then.
        let rules = Rules { paths: &self.paths, abstract_sockets: self.abstract_sockets };
        let (paths, missing) = rules.enforce()?;
        if let Some(user) = self.user.as_ref().filter(|user| !user.is_current()) {
            user.assume()?;
        }
        let kept = match paths {
            PathWall::Absent => self.capabilities.without(Capability::DacOverride),
            _ => self.capabilities,
        };
        let capabilities = capabilities::keep(kept)?;
        // What guests stored must not be in a file because the daemon crashed, nor be read by others of the same user.
        set("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, 0)?;
        set("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)?;
        filters::enforce(self.extras)?;
        let user = self.user.as_ref().map(|user| user.name().to_owned());
        Ok(Confined { user, capabilities, paths, missing, extras: self.extras })
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "user {user}, ")?;
        }
        write!(f, "capabilities: {}, {}, confined to its system calls", self.capabilities, self.paths)?;
        match self.extras {
            Extras { ublk: true, .. } => write!(f, " and those for ublk"),
            Extras { rings: true, .. } => write!(f, " and its io_urings"),
            Extras { .. } => Ok(()),
        }
    }
}

fn set(step: &'static str, option: libc::c_int, value: libc::c_ulong) -> Result<(), SandboxError> {
    let none: libc::c_ulong = 0;
    // SAFETY: takes numbers only.
    match unsafe { libc::prctl(option, value, none, none, none) } {
        0 => Ok(()),
        _ => Err(SandboxError::Process { step, error: io::Error::last_os_error() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_what_holds() {
        let mut confined = Confined {
            user: Some("tmem".into()),
            capabilities: Capabilities::NONE,
            paths: PathWall::Whole(7),
            missing: Vec::new(),
            extras: Extras::default(),
        };
        assert_eq!(
            confined.to_string(),
            "user tmem, capabilities: none, confined to its paths (Landlock 7), confined to its system calls"
        );
        confined.user = None;
        confined.paths = PathWall::Absent;
        confined.extras.rings = true;
        let text = confined.to_string();
        assert!(
            text.contains("no Landlock") && text.ends_with("io_urings") && !text.contains("user"),
            "{text}"
        );
    }
}
