//! What can go wrong.

use std::io;

/// Why a process is not confined, or not by all walls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// There are other threads, which would stay as they are.
    #[error(
        "the process has {threads} threads, and only the one that asks would be confined; this is a bug of tmem: until it is mended, \
         start it with --sandbox off"
    )]
    OtherThreads {
        /// How many there are in all.
        threads: usize,
    },
    /// The threads cannot be counted.
    #[error(
        "cannot count the threads of this process in /proc/self/task: {error}; mount /proc, or start with --sandbox off"
    )]
    Threads {
        /// What the OS said.
        error: io::Error,
    },
    /// The file of users cannot be read.
    #[error("cannot read the users in {path}: {error}; name no user, or start with --sandbox off")]
    Users {
        /// The file.
        path: &'static str,
        /// What the OS said.
        error: io::Error,
    },
    /// Nobody has that name.
    #[error("there is no user `{name}` in /etc/passwd; make it (`useradd --system {name}`), or name another")]
    NoSuchUser {
        /// The name.
        name: String,
    },
    /// The process is somebody, but not root, who alone can become another.
    #[error("cannot become user `{name}`: only root can; start as root or as that user, or name none")]
    NotRoot {
        /// Who it was to be.
        name: String,
    },
    /// The kernel did not make it that user.
    #[error("cannot become user `{name}` ({step}): {error}; name another, or start with --sandbox off")]
    Become {
        /// Who it was to be.
        name: String,
        /// The call that failed.
        step: &'static str,
        /// What the OS said.
        error: io::Error,
    },
    /// The process was to end with its parent, which has just ended.
    #[error("the process that started this one has died")]
    ParentDied,
    /// Capabilities could not be dropped.
    #[error("cannot drop capabilities ({step}): {error}; start with --sandbox off")]
    Capabilities {
        /// The call that failed.
        step: &'static str,
        /// What the OS said.
        error: io::Error,
    },
    /// A setting of the process was refused.
    #[error("cannot confine the process ({step}): {error}; start with --sandbox off")]
    Process {
        /// The call that failed.
        step: &'static str,
        /// What the OS said.
        error: io::Error,
    },
    /// The kernel has Landlock and did not take the rules.
    #[error("cannot confine the process to its paths (Landlock): {0}; start with --sandbox off")]
    Paths(#[from] landlock::RulesetError),
    /// The filter is wrong, or this is no architecture for it.
    #[error("cannot make the filter of system calls: {0}; start with --sandbox off")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel did not take the filter.
    #[error("cannot confine the process to its system calls (seccomp): {0}; start with --sandbox off")]
    SystemCalls(#[from] seccompiler::Error),
}

impl SandboxError {
    /// Whether the process was to become somebody and has not.
    pub fn is_about_user(&self) -> bool {
        matches!(self, Self::NotRoot { .. } | Self::Become { .. } | Self::ParentDied)
    }
}
