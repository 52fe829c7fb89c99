//! Whether a server can be trusted with pages: it throws nothing away by itself, and can be written to.

use redis::{RedisResult, Value, cmd};
use tmem_store::{MAX_TIER_BATCH, TIER_EXTENT_BYTES, TierState};
use tmem_tier::Trouble;

use crate::connection::Link;

/// A batch of copies, with what the server needs beyond their bytes: so much is to be free before a full server counts as anything else.
const ROOM_BYTES: u64 = (MAX_TIER_BATCH * TIER_EXTENT_BYTES * 5 / 4) as u64;

/// What one server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Of a member of a cluster, its address.
    member: String,
    max_memory_bytes: u64,
    used_bytes: u64,
    policy: String,
    is_replica: bool,
    /// Whether it writes to a disk whatever it has.
    is_persistent: bool,
}

/// Asks the server, or all masters of a cluster.
pub(crate) fn ask(link: &mut Link) -> RedisResult<Vec<Facts>> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    };
    Ok(match link.ask(&cmd("INFO"))? {
        Value::Map(members) => {
            members.iter().map(|(member, info)| parse(&text(member), &text(info))).collect()
        }
        info => vec![parse("", &text(&info))],
    })
}

fn parse(member: &str, info: &str) -> Facts {
    let mut facts = Facts { member: member.to_owned(), ..Facts::default() };
    for (name, value) in info.lines().filter_map(|line| line.trim().split_once(':')) {
        let number = || value.parse().unwrap_or(0);
        match name {
            "maxmemory" => facts.max_memory_bytes = number(),
            "used_memory" => facts.used_bytes = number(),
            "maxmemory_policy" => facts.policy = value.to_owned(),
            "role" => facts.is_replica = value == "slave",
            "aof_enabled" => facts.is_persistent = value == "1",
            _ => (),
        }
    }
    facts
}

impl Facts {
    /// Whether it keeps what it has over a restart, as far as it says so.
    pub(crate) fn is_persistent(&self) -> bool {
        self.is_persistent
    }

    /// Why copies must not go there. `was_full`: it has just refused some for lack of memory.
    pub(crate) fn objection(&self, was_full: bool) -> Option<Trouble> {
        let member = if self.member.is_empty() { String::new() } else { format!(" of {}", self.member) };
        if self.max_memory_bytes > 0 && self.policy != "noeviction" {
            let policy = if self.policy.is_empty() { "not told" } else { &self.policy };
            let text = format!(
                "the maxmemory-policy{member} is {policy}, so that pages may be thrown away; set it to noeviction"
            );
            return Some((TierState::ReadOnly, text));
        }
        if self.is_replica {
            return Some((
                TierState::ReadOnly,
                format!("the server{member} is a replica; give the address of the master"),
            ));
        }
        let room_bytes = self.max_memory_bytes.saturating_sub(self.used_bytes);
        if was_full && self.max_memory_bytes > 0 && room_bytes < ROOM_BYTES {
            let text = format!(
                "{} of {} bytes of memory{member} are in use; raise its maxmemory, or remove disks",
                self.used_bytes, self.max_memory_bytes
            );
            return Some((TierState::Full, text));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:1000\r\nmaxmemory:100000000\r\n\
                        maxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:master\r\n";

    fn state(info: &str, was_full: bool) -> Option<TierState> {
        parse("a:1", info).objection(was_full).map(|(state, text)| {
            assert!(text.contains("a:1") && text.contains(';'), "{text}");
            state
        })
    }

    #[test]
    fn servers_that_throw_pages_away_are_refused() {
        assert_eq!(state(INFO, true), None);
        assert!(parse("", INFO).is_persistent());
        for policy in ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random", ""] {
            let info = INFO.replace("noeviction", policy);
            assert_eq!(state(&info, false), Some(TierState::ReadOnly), "{policy}");
            // Without a limit nothing is ever thrown away.
            assert_eq!(state(&info.replace("maxmemory:100000000", "maxmemory:0"), true), None);
        }
        assert_eq!(state(&INFO.replace("master", "slave"), false), Some(TierState::ReadOnly));
    }

    #[test]
    fn a_full_server_stays_full_until_there_is_room_for_a_batch() {
        let nearly = INFO.replace("used_memory:1000", "used_memory:99000000");
        assert_eq!(state(&nearly, true), Some(TierState::Full));
        assert_eq!(state(&nearly, false), None);
    }
}
