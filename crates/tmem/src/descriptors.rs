//! How many descriptors the daemon may have.
//!
//! Each connection takes some, and a guest one for each part of its memory besides. What a process starts with (1024 as a rule) is for
//! programs that use select(2); the hard limit is what whoever started the daemon lets it have. The worker inherits it from the keeper,
//! which needs as many.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one.
pub(crate) fn allow_all() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        let error = io::Error::from(error);
        eprintln!(
            "tmem: warn: cannot raise the limit on descriptors, which stays at {:?}: {error}",
            limit.current
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        allow_all();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
