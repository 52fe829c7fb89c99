//! Clients and the balancer's guests as one list: who has the same name is one.

use std::collections::BTreeMap;

use tmem_control::{BalancedGuest, ClientStatus};

use super::{look::Look, rates::Rates};

/// A guest, as far as it is known.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Guest {
    /// Its name, as whoever gave it wrote it.
    pub(super) name: String,
    /// As the store sees it.
    pub(super) client: Option<ClientStatus>,
    /// As the balancer sees it.
    pub(super) balanced: Option<BalancedGuest>,
    /// What its client does in a second.
    pub(super) rates: Rates,
}

/// What is most worth knowing of a guest's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// The balancer cannot reach it.
    Silent,
    /// The balancer reaches it, but something is wrong.
    Trouble,
    /// Its puts are refused because somebody said so.
    Frozen,
    /// It uses its disk.
    Connected,
    /// Nobody uses its disk.
    Idle,
    /// It has no disk.
    NoDisk,
}

impl State {
    /// In a word or two.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Silent => "no answer",
            Self::Trouble => "trouble",
            Self::Frozen => "frozen",
            Self::Connected => "connected",
            Self::Idle => "no guest",
            Self::NoDisk => "no disk",
        }
    }
}

impl Guest {
    pub(super) fn state(&self) -> State {
        let disk = self.client.as_ref().and_then(|client| client.disk.as_ref());
        match (&self.balanced, &self.client) {
            (Some(guest), _) if !guest.answers => State::Silent,
            (Some(guest), _) if guest.trouble.is_some() => State::Trouble,
            (_, Some(client)) if client.frozen => State::Frozen,
            _ => {
                disk.map_or(State::NoDisk, |disk| if disk.connected { State::Connected } else { State::Idle })
            }
        }
    }

    pub(super) fn size_bytes(&self) -> Option<u64> {
        self.balanced.as_ref().map(|guest| guest.size_bytes)
    }

    pub(super) fn target_bytes(&self) -> Option<u64> {
        self.balanced.as_ref().map(|guest| guest.target_bytes)
    }

    pub(super) fn used_bytes(&self) -> Option<u64> {
        self.client.as_ref().map(|client| client.used_bytes)
    }

    /// How many bytes of pages a byte of the pool holds.
    pub(super) fn ratio(&self) -> Option<f64> {
        let client = self.client.as_ref().filter(|client| client.used_bytes > 0)?;
        Some(client.logical_bytes as f64 / client.used_bytes as f64)
    }

    pub(super) fn tiered_bytes(&self) -> Option<u64> {
        self.client.as_ref().map(|client| client.tiered_bytes)
    }

    /// The part of the last seconds in which something of it waited for memory, 0 to 1.
    pub(super) fn pressure(&self) -> Option<f64> {
        self.balanced.as_ref().and_then(|guest| guest.pressure)
    }
}

/// All that are known, by name.
pub(super) fn guests(before: Option<&Look>, now: &Look) -> Vec<Guest> {
    let mut known = BTreeMap::<&str, Guest>::new();
    for client in &now.status.clients {
        let guest = known.entry(&client.name).or_default();
        guest.rates = Rates::between(before, now, client);
        guest.client = Some(client.clone());
    }
    for balanced in now.status.balance.iter().flat_map(|report| &report.guests) {
        known.entry(&balanced.name).or_default().balanced = Some(balanced.clone());
    }
    known.into_iter().map(|(name, guest)| Guest { name: name.to_owned(), ..guest }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::samples::{balanced, client, look, report};

    #[test]
    fn who_has_the_same_name_is_one() {
        let mut now = look(vec![client("both", 1), client("disk", 1)]);
        now.status.balance = Some(report(vec![balanced("both"), balanced("vm")]));
        let all = guests(None, &now);
        let known = |guest: &Guest| (guest.name.clone(), guest.client.is_some(), guest.balanced.is_some());
        let expected = [("both", true, true), ("disk", true, false), ("vm", false, true)]
            .map(|(n, c, b)| (n.to_owned(), c, b));
        assert_eq!(all.iter().map(known).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_wrong_comes_before_what_is_right() {
        let mut guest = Guest { client: Some(client("vm", 1)), ..Guest::default() };
        assert_eq!(guest.state(), State::Connected);
        guest.client.as_mut().unwrap().disk.as_mut().unwrap().connected = false;
        assert_eq!(guest.state(), State::Idle);
        guest.client.as_mut().unwrap().frozen = true;
        assert_eq!(guest.state(), State::Frozen);
        guest.balanced = Some(balanced("vm"));
        assert_eq!(guest.state(), State::Frozen);
        guest.balanced.as_mut().unwrap().trouble = Some("slow".to_owned());
        assert_eq!(guest.state(), State::Trouble);
        guest.balanced.as_mut().unwrap().answers = false;
        assert_eq!(guest.state(), State::Silent);
        let lone = Guest { balanced: Some(balanced("vm")), ..Guest::default() };
        assert_eq!(lone.state(), State::NoDisk);
    }
}
