//! A user of etcd's.

use std::fmt;

use crate::MembershipError;

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Login {
    pub(crate) fn new(user: &str, password: &str) -> Result<Self, MembershipError> {
        let empty = |key| Err(MembershipError::EtcdLogin { key });
        match (user, password) {
            ("", _) => empty("etcd-user"),
            (_, "") => empty("etcd-password-file"),
            _ => Ok(Self { user: user.to_owned(), password: password.to_owned() }),
        }
    }
}

/// The password is not for logs.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}
