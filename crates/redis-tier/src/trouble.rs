//! What an error of the server says about the tier.

use redis::{ErrorKind, RedisError};
use tmem_store::TierState;
use tmem_tier::Trouble;

/// The state that an error puts the tier in, and for people what it is and what to do.
pub(crate) fn of(what: &str, error: &RedisError) -> Trouble {
    let (state, way_out) = state_after(error);
    let text = match (error.is_timeout(), error.is_connection_refusal()) {
        (true, _) => "the server does not answer".to_owned(),
        (_, true) => "nobody listens there".to_owned(),
        _ => describe(error),
    };
    (state, format!("{what}: {text}{way_out}"))
}

/// Whether somebody has to set it right, so that nothing is gained by waiting.
pub(crate) fn is_lasting(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(code(error).as_deref(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "WRONGTYPE"))
}

fn state_after(error: &RedisError) -> (TierState, &'static str) {
    match code(error).as_deref() {
        Some("OOM") => (TierState::Full, "; raise its maxmemory, or remove disks"),
        Some("READONLY") => (TierState::ReadOnly, "; give the address of the master"),
        Some("MISCONF") => {
            (TierState::ReadOnly, "; see the server's log, or set its stop-writes-on-bgsave-error to no")
        }
        Some("NOAUTH" | "WRONGPASS") => (TierState::Failing, "; give the password with redis-password-file"),
        Some("NOPERM") => (TierState::Failing, "; docs/redis.md has the commands that the user needs"),
        Some("MOVED" | "ASK") => (TierState::Failing, "; it is a cluster: write redis-cluster://"),
        Some(_) => (TierState::Failing, ""),
        None if error.kind() == ErrorKind::AuthenticationFailed => {
            (TierState::Failing, "; give the password with redis-password-file")
        }
        None if error.is_timeout() => (TierState::Failing, ""),
        None if error.is_io_error() || error.kind() == ErrorKind::ClusterConnectionNotFound => {
            (TierState::Missing, "")
        }
        None => (TierState::Failing, ""),
    }
}

/// The first word of what the server said.
fn code(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    errors.first().map(|(_, error)| error.code().to_owned())
}

/// One line.
fn describe(error: &RedisError) -> String {
    let text = match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => format!("{} {}", first.code(), first.details().unwrap_or_default()),
        _ => error.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn server_error(code: &str) -> RedisError {
        redis::make_extension_error(code.to_owned(), Some("it says so".to_owned()))
    }

    #[test]
    fn every_error_has_its_state_and_a_way_out() {
        for (code, state) in [
            ("OOM", TierState::Full),
            ("MISCONF", TierState::ReadOnly),
            ("NOAUTH", TierState::Failing),
            ("WRONGPASS", TierState::Failing),
            ("NOREPLICAS", TierState::Failing),
        ] {
            let (found, text) = of("writing", &server_error(code));
            assert_eq!(found, state, "{code}");
            assert!(text.starts_with("writing: ") && text.contains("it says so"), "{text}");
        }
        let io = |kind: io::ErrorKind| of("reading", &RedisError::from(io::Error::from(kind)));
        assert_eq!(io(io::ErrorKind::WouldBlock).0, TierState::Failing);
        assert!(io(io::ErrorKind::WouldBlock).1.contains("does not answer"));
        assert_eq!(io(io::ErrorKind::ConnectionRefused).0, TierState::Missing);
        assert_eq!(io(io::ErrorKind::HostUnreachable).0, TierState::Missing);
        assert!(is_lasting(&server_error("NOPERM")) && !is_lasting(&server_error("LOADING")));
    }
}
