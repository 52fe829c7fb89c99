//! A cluster of two or three, as a list.

use std::{fmt, net::SocketAddr, str::FromStr};

use tmem_cluster::NodeName;

use crate::{Member, MembershipError, View, certificates::check_name};

/// A peer of a list: `NAME=IP:PORT` or `NAME=IP:PORT,DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPeer {
    /// What it is called.
    pub name: NodeName,
    /// Where it lends.
    pub address: SocketAddr,
    /// What fails together with it.
    pub domain: Option<String>,
}

impl FromStr for StaticPeer {
    type Err = MembershipError;

    fn from_str(text: &str) -> Result<Self, MembershipError> {
        let shown = || text.chars().filter(|c| !c.is_control()).take(120).collect();
        let wrong = |why| MembershipError::Peer { text: shown(), why };
        let (name, rest) = text.split_once('=').ok_or_else(|| wrong("there is no `=` in it"))?;
        let (address, domain) = match rest.split_once(',') {
            Some((address, domain)) => (address, Some(domain)),
            None => (rest, None),
        };
        let name = check_name(name).map_err(|_| wrong("its name is none"))?;
        let address: SocketAddr = address.parse().map_err(|_| wrong("its address is none"))?;
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(wrong("nobody is at this address"));
        }
        if domain.is_some_and(|domain| !is_domain(domain)) {
            return Err(wrong("its domain is not 1 to 63 of A-Z a-z 0-9 . _ -"));
        }
        Ok(Self { name, address, domain: domain.map(str::to_owned) })
    }
}

impl fmt::Display for StaticPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.address)?;
        self.domain.as_ref().map_or(Ok(()), |domain| write!(f, ",{domain}"))
    }
}

/// Whether this may label what fails together: 1 to 63 of `A-Z a-z 0-9 . _ -`.
pub(crate) fn is_domain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// Whether a label of what fails together is one.
///
/// # Errors
/// [`MembershipError::Domain`].
pub fn check_domain(text: &str) -> Result<(), MembershipError> {
    let shown = || text.chars().filter(|c| !c.is_control()).take(70).collect();
    if is_domain(text) { Ok(()) } else { Err(MembershipError::Domain { text: shown() }) }
}

/// Whether no name and no address is in a list twice.
///
/// # Errors
/// [`MembershipError::Peers`].
pub fn check_peers(peers: &[StaticPeer]) -> Result<(), MembershipError> {
    for (at, peer) in peers.iter().enumerate() {
        let wrong = |why| Err(MembershipError::Peers { name: peer.name.to_string(), why });
        for earlier in &peers[..at] {
            if earlier.name == peer.name {
                return wrong(format!(
                    "it is there twice, at {} and {}; every host needs a name of its own",
                    earlier.address, peer.address
                ));
            }
            if earlier.address == peer.address {
                return wrong(format!(
                    "{} is at {}, too; every host needs an address of its own",
                    earlier.name, peer.address
                ));
            }
        }
    }
    Ok(())
}

/// What a list says to one of its nodes. Its own name may be in the list, so that all nodes can have the same one.
pub(crate) fn view_of(peers: &[StaticPeer], own: NodeName) -> View {
    let member = |peer: &StaticPeer| Member {
        name: peer.name,
        id: peer.name.node_id(),
        address: peer.address,
        domain: peer.domain.clone(),
        epoch: None,
        free_bytes: None,
    };
    let mut members: Vec<Member> = peers.iter().filter(|peer| peer.name != own).map(member).collect();
    members.sort_by_key(|member| member.name);
    View { members, epochs: Vec::new(), is_current: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> StaticPeer {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_comes_back_as_it_was_written() {
        for text in ["host-b=10.0.0.2:7790", "b=[fd00::2]:1,rack-1", "b.example=10.0.0.2:7790,A_b.c"] {
            assert_eq!(peer(text).to_string(), text);
        }
        assert_eq!(peer("b=10.0.0.2:7790,r").domain.as_deref(), Some("r"));
    }

    #[test]
    fn what_makes_no_sense_is_one_line_that_names_it() {
        for text in [
            "",
            "b",
            "=10.0.0.2:1",
            "B=10.0.0.2:1",
            "b=",
            "b=host:7790",
            "b=10.0.0.2",
            "b=10.0.0.2:0",
            "b=0.0.0.0:7",
            "b=10.0.0.2:1,",
            "b=10.0.0.2:1,a b",
            "b=10.0.0.2:1,a,b",
            "b\n=10.0.0.2:1",
        ] {
            let error = text.parse::<StaticPeer>().unwrap_err().to_string();
            assert!(
                error.contains("is no peer") && error.contains("IP:PORT") && !error.contains('\n'),
                "{error}"
            );
        }
        for (list, part) in [
            (["a=10.0.0.1:1", "a=10.0.0.2:1"], "at 10.0.0.1:1 and 10.0.0.2:1"),
            (["a=10.0.0.1:1", "b=10.0.0.1:1"], "a is at 10.0.0.1:1, too"),
        ] {
            let error = check_peers(&list.map(peer)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_list_is_the_same_for_all_and_nobody_sees_himself() {
        let list = ["c=10.0.0.3:1", "a=10.0.0.1:1,r", "b=10.0.0.2:1"].map(peer);
        check_peers(&list).unwrap();
        let view = view_of(&list, "b".parse().unwrap());
        let names: Vec<_> = view.members.iter().map(|member| member.name.to_string()).collect();
        assert_eq!((names, view.is_current), (vec!["a".to_owned(), "c".to_owned()], true));
        assert_eq!(view.members[0].id, "a".parse::<NodeName>().unwrap().node_id());
        assert_eq!((view.members[0].domain.as_deref(), view.members[1].epoch), (Some("r"), None));
    }
}
