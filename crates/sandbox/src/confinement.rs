//! The walls in their order.

use std::{fmt, io, path::PathBuf};

use crate::{
    capabilities::{self, Capabilities},
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
    /// Whether it connects to other hosts over TCP. To listen there remains forbidden.
    pub tcp_connections: bool,
}

/// What a process is confined to. Its text is for people: one line.
#[derive(Debug)]
pub struct Confined {
    /// The name of who it became, if it was to become somebody and could.
    pub user: Option<String>,
    /// The capabilities that it still has. `None`: those that it had.
    pub capabilities: Option<Capabilities>,
    /// What stands between it and other paths.
    pub paths: PathWall,
    /// Whether it is confined to its system calls.
    pub system_calls: bool,
    /// Paths that it was given, but that are not there. It cannot open them later either.
    pub missing: Vec<PathBuf>,
    /// What it can do beyond what all can.
    pub extras: Extras,
    /// Why walls do not stand, or not all of one.
    pub refused: Vec<SandboxError>,
}

impl Confinement {
    /// Confines the process, for good. What it has open stays open. Threads to come are confined as it is. A wall that the kernel, or what the
    /// process runs in, refuses is left out, and [`Confined::refused`] says so; the others stand.
    ///
    /// # Errors
    /// There are other threads, which would not be confined, or they cannot be counted. Nothing has changed then.
    pub fn apply(&self) -> Result<Confined, SandboxError> {
        threads::check_alone()?;
        let mut refused = Vec::new();
        let mut try_to = |step: Result<(), SandboxError>| step.map_err(|error| refused.push(error)).is_ok();
        try_to(capabilities::bound(self.capabilities));
        // Before it becomes another user, who may not be able to reach all paths.
        let rules = Rules {
            paths: &self.paths,
            abstract_sockets: self.abstract_sockets,
            tcp_connections: self.tcp_connections,
        };
        let (mut paths, mut missing) = (PathWall::Refused, Vec::new());
        try_to(rules.enforce().map(|built| (paths, missing) = built));
        let mut user = self.user.as_ref();
        user = user.filter(|user| user.is_current() || try_to(user.assume()));
        let mut capabilities = None;
        try_to(capabilities::keep(self.capabilities).map(|left| capabilities = Some(left)));
        // What guests stored must not be in a file because the daemon crashed, nor be read by others of the same user.
        try_to(set("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, 0));
        try_to(set("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1));
        let system_calls = try_to(filters::enforce(self.extras));
        let user = user.map(|user| user.name().to_owned());
        Ok(Confined { user, capabilities, paths, system_calls, missing, extras: self.extras, refused })
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "user {user}, ")?;
        }
        match self.capabilities {
            Some(capabilities) => write!(f, "capabilities: {capabilities}, ")?,
            None => write!(f, "capabilities as they were, ")?,
        }
        write!(f, "{}, ", self.paths)?;
        if !self.system_calls {
            return write!(f, "not confined to its system calls, because that was refused");
        }
        write!(f, "confined to its system calls")?;
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
            capabilities: Some(Capabilities::NONE),
            paths: PathWall::Whole(7),
            system_calls: true,
            missing: Vec::new(),
            extras: Extras::default(),
            refused: Vec::new(),
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
        (confined.capabilities, confined.paths, confined.system_calls) = (None, PathWall::Refused, false);
        let text = confined.to_string();
        assert!(text.contains("as they were") && text.matches("was refused").count() == 2, "{text}");
    }
}
