//! The paths that can still be opened, by Landlock (landlock(7)): what is open stays open, everything else is out of reach.
//!
//! Rules hold for files and directories as they are found when the rules are made, and for all that is below directories, later too.
//! One that is removed and made again is another one, and so is a file system that is mounted anew: that is why the rules are for what the
//! kernel shows, and whatever else a process has to open later somebody else opens for it.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::error::SandboxError;

/// The newest version whose rights have been thought through. Later ones restrict more, such as connecting to sockets by their paths.
const KNOWN: ABI = ABI::V8;

/// What may be done with a file, or with everything below a directory. Nothing can be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAccess {
    /// Files can be read and directories listed.
    Read,
    /// What exists can be written to as well, and devices take ioctls. Nothing can be made or removed, anywhere.
    Write,
}

impl PathAccess {
    fn rights(self) -> BitFlags<AccessFs> {
        let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
        let write = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});
        match self {
            Self::Read => read,
            Self::Write => read | write,
        }
    }
}

/// What stands between the process and the paths that it was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathWall {
    /// Nothing: the kernel has no Landlock, or it is turned off. What the process's user may open, it may.
    Absent,
    /// Nothing: the kernel has Landlock and did not take the rules.
    Refused,
    /// As much as the kernel knows of: its Landlock is of this version, in which not everything can be forbidden.
    Partial(i32),
    /// All of it: the kernel's Landlock is of this version, or of a later one.
    Whole(i32),
}

impl fmt::Display for PathWall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "not confined to its paths, because the kernel has no Landlock"),
            Self::Refused => write!(f, "not confined to its paths, because that was refused"),
            Self::Partial(version) => write!(f, "confined to its paths as far as Landlock {version} can"),
            Self::Whole(version) => write!(f, "confined to its paths (Landlock {version})"),
        }
    }
}

/// What is asked of the kernel.
pub(crate) struct Rules<'a> {
    pub(crate) paths: &'a [(PathBuf, PathAccess)],
    /// Whether abstract sockets of other programs can be connected to.
    pub(crate) abstract_sockets: bool,
    /// Whether others can be connected to over TCP.
    pub(crate) tcp_connections: bool,
}

impl Rules<'_> {
    /// Builds the wall around the calling thread and those that it will make. TCP connections, unless they are asked for, ports of TCP and signals to other
    /// processes end at it, too, as far as the kernel knows how. Gives the paths that are not there, for which there is no rule then.
    pub(crate) fn enforce(&self) -> Result<(PathWall, Vec<PathBuf>), SandboxError> {
        let scope = match self.abstract_sockets {
            true => Scope::Signal.into(),
            false => Scope::from_all(KNOWN),
        };
        let network = match self.tcp_connections {
            true => AccessNet::BindTcp.into(),
            false => AccessNet::from_all(KNOWN),
        };
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(network)?
            .scope(scope)?
            .create()?;
        let mut missing = Vec::new();
        for (path, access) in self.paths {
            match PathFd::new(path) {
                Ok(open) => rules = rules.add_rule(PathBeneath::new(open, rights_on(path, *access)))?,
                Err(_) => missing.push(path.clone()),
            }
        }
        let status = rules.restrict_self()?;
        let LandlockStatus::Available { effective_abi, .. } = status.landlock else {
            return Ok((PathWall::Absent, missing));
        };
        let version = effective_abi as i32;
        let wall = match status.ruleset {
            RulesetStatus::FullyEnforced => PathWall::Whole(version),
            RulesetStatus::PartiallyEnforced => PathWall::Partial(version),
            RulesetStatus::NotEnforced => PathWall::Absent,
        };
        Ok((wall, missing))
    }
}

/// Rights on directories are an error on anything else.
fn rights_on(path: &Path, access: PathAccess) -> BitFlags<AccessFs> {
    match path.is_dir() {
        true => access.rights(),
        false => access.rights() & AccessFs::from_file(KNOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_is_more_than_reading_and_neither_executes_nor_makes_anything() {
        let [read, write] = [PathAccess::Read, PathAccess::Write].map(PathAccess::rights);
        assert!(write.contains(read) && read != write);
        let never = make_bitflags!(AccessFs::{Execute | MakeReg | MakeSock | MakeDir | MakeChar | MakeBlock
            | MakeSym | MakeFifo | RemoveFile | RemoveDir | Refer});
        assert!(!write.intersects(never));
        assert!(AccessFs::from_all(KNOWN).contains(write | never));
    }
}
