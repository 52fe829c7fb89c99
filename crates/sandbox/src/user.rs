//! Users by name, and becoming one.
//!
//! Names are looked up in the files themselves: what the C library would ask instead (NSS) is libraries and daemons of others, loaded
//! into this process.

use std::{fs, io};

use crate::{capabilities, error::SandboxError};

const USERS: &str = "/etc/passwd";

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl User {
    /// The user of that name in `/etc/passwd`, with its own group alone.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchUser`], and [`SandboxError::Users`] where the file cannot be read.
    pub fn named(name: &str) -> Result<Self, SandboxError> {
        let users = match fs::read_to_string(USERS) {
            // A system without users' names has none of that name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| SandboxError::Users { path: USERS, error })?,
        };
        Self::find(&users, name).ok_or_else(|| SandboxError::NoSuchUser { name: name.to_owned() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lines are `name:password:uid:gid:…` (passwd(5)).
    fn find(users: &str, name: &str) -> Option<Self> {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (found, uid, gid) = (fields.next()?, fields.nth(1)?, fields.next()?);
            (found == name && !name.is_empty()).then_some(())?;
            Some(Self { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        })
    }

    /// Whether this process can become another user: root with the capabilities for that.
    pub fn can_change() -> bool {
        effective_uid() == 0 && capabilities::can_change_user()
    }

    /// Whether the process is this user already.
    pub(crate) fn is_current(&self) -> bool {
        effective_uid() == self.uid
    }

    /// The process becomes this user, in its group and no other. It keeps its permitted capabilities, which the caller then drops, and the
    /// signal that it gets when its parent dies, which the kernel takes away from whoever becomes another user.
    pub(crate) fn assume(&self) -> Result<(), SandboxError> {
        if effective_uid() != 0 {
            return Err(SandboxError::NotRoot { name: self.name.clone() });
        }
        let check = |step, result: libc::c_int| match result {
            0 => Ok(()),
            _ => {
                Err(SandboxError::Become { name: self.name.clone(), step, error: io::Error::last_os_error() })
            }
        };
        let mut signal: libc::c_int = 0;
        // SAFETY: a number is written to, which lives until the call returns.
        check("PR_GET_PDEATHSIG", unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) })?;
        let parent = parent();
        // SAFETY: takes numbers only.
        check("PR_SET_KEEPCAPS", unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })?;
        // SAFETY: a list of no groups is never read.
        check("setgroups", unsafe { libc::setgroups(0, std::ptr::null()) })?;
        // SAFETY: takes numbers only.
        check("setresgid", unsafe { libc::setresgid(self.gid, self.gid, self.gid) })?;
        // SAFETY: takes numbers only.
        check("setresuid", unsafe { libc::setresuid(self.uid, self.uid, self.uid) })?;
        // SAFETY: takes numbers only.
        check("PR_SET_PDEATHSIG", unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong) })?;
        if signal != 0 && self::parent() != parent {
            // It died in between, and its signal was lost.
            return Err(SandboxError::ParentDied);
        }
        Ok(())
    }
}

fn parent() -> libc::pid_t {
    // SAFETY: takes nothing, touches no memory and cannot fail.
    unsafe { libc::getppid() }
}

/// Whether the process is root.
pub(crate) fn effective_uid() -> libc::uid_t {
    // SAFETY: takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\n# tmem:x:7:7::/:/bin/sh\nbroken\ntmem2:x:8:8::/:\nbad:x:many:1::/:\ntmem:x:998:997::/:/usr/sbin/nologin\n";
        assert_eq!(User::find(users, "tmem"), Some(User { name: "tmem".into(), uid: 998, gid: 997 }));
        for nobody in ["tme", "", "broken", "bad", "tmem:x", "#"] {
            assert_eq!(User::find(users, nobody), None, "{nobody}");
        }
    }

    #[test]
    fn somebody_who_is_not_there_is_named() {
        let error = User::named("no-such-user-here").unwrap_err().to_string();
        assert!(error.contains("`no-such-user-here`"), "{error}");
        assert_eq!(User::named("root").unwrap().uid, 0);
    }
}
