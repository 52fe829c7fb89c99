use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use tempfile::TempDir;

use super::*;
use crate::certificates::{days_left, tls_configs};

/// A first host, with room for others beside it.
struct Hosts(TempDir);

impl Hosts {
    fn new() -> Self {
        let hosts = Self(tempfile::tempdir().unwrap());
        init(&hosts.at("host-a"), "host-a").unwrap();
        hosts
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn invite(&self, name: &str, file: &str) -> PathBuf {
        invite(&self.at("host-a"), name, &self.at(file)).unwrap();
        self.at(file)
    }

    fn files(&self, host: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(self.at(host)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn one_line(error: &MembershipError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn an_invited_host_is_of_the_cluster_and_has_a_certificate_of_its_own() {
    let hosts = Hosts::new();
    let file = hosts.invite("host-b", "b.json");
    let joined = join(&hosts.at("host-b"), &file).unwrap();
    let first = Identity::load(&hosts.at("host-a")).unwrap();
    assert_eq!((joined.cluster(), joined.name().as_str()), (first.cluster(), "host-b"));
    assert_eq!(Identity::load(&hosts.at("host-b")).unwrap().epoch(), joined.epoch());
    for host in ["host-a", "host-b"] {
        tls_configs(&hosts.at(host)).unwrap();
        assert!((729..=731).contains(&days_left(&hosts.at(host)).unwrap()));
    }
    assert_ne!(
        fs::read(hosts.at("host-a/node-key.pem")).unwrap(),
        fs::read(hosts.at("host-b/node-key.pem")).unwrap()
    );
}

#[test]
fn the_authoritys_key_stays_and_nobody_else_reads_anything() {
    let hosts = Hosts::new();
    let file = hosts.invite("host-b", "b.json");
    join(&hosts.at("host-b"), &file).unwrap();
    assert_eq!(
        Vec::from_iter(hosts.files("host-b")),
        ["ca.pem", "epoch", "node-key.pem", "node.json", "node.pem"]
    );
    let key = fs::read_to_string(hosts.at("host-a/ca-key.pem")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!fs::read_to_string(&file).unwrap().contains(secret));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    for host in ["host-a", "host-b"] {
        assert_eq!(mode(&hosts.at(host)), 0o700);
        for name in hosts.files(host) {
            assert_eq!(mode(&hosts.at(host).join(&name)), 0o600, "{name}");
        }
    }
}

#[test]
fn nothing_is_overwritten() {
    let hosts = Hosts::new();
    let file = hosts.invite("host-b", "b.json");
    let before = fs::read(&file).unwrap();
    let error = one_line(&invite(&hosts.at("host-a"), "host-c", &file).unwrap_err());
    assert!(error.contains("b.json is not overwritten"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let key = fs::read(hosts.at("host-a/ca-key.pem")).unwrap();
    for error in
        [init(&hosts.at("host-a"), "host-z").unwrap_err(), join(&hosts.at("host-a"), &file).unwrap_err()]
    {
        assert!(one_line(&error).contains("in a cluster already"), "{error}");
    }
    assert_eq!(fs::read(hosts.at("host-a/ca-key.pem")).unwrap(), key);
    assert_eq!(Identity::load(&hosts.at("host-a")).unwrap().name().as_str(), "host-a");
}

/// Whoever joins again under a name that was there is never in an epoch that the earlier one can have been in.
#[test]
fn epochs_of_a_later_invitation_are_later() {
    let hosts = Hosts::new();
    let first = join(&hosts.at("one"), &hosts.invite("host-b", "1.json")).unwrap();
    let mut last = first.epoch();
    for _ in 0..20 {
        last = first.advance_epoch(None).unwrap();
    }
    let second = join(&hosts.at("two"), &hosts.invite("host-b", "2.json")).unwrap();
    assert!(second.epoch() > last);
    assert_ne!(second.nonce(), first.nonce());
}

#[test]
fn a_renewed_certificate_leaves_node_and_epoch_as_they_are() {
    let hosts = Hosts::new();
    let joined = join(&hosts.at("host-b"), &hosts.invite("host-b", "1.json")).unwrap();
    joined.advance_epoch(None).unwrap();
    let certificate = |host: &str| fs::read(hosts.at(host).join("node.pem")).unwrap();
    let (a, b) = (certificate("host-a"), certificate("host-b"));
    renew_from(&hosts.at("host-b"), &hosts.invite("host-b", "2.json")).unwrap();
    renew(&hosts.at("host-a")).unwrap();
    assert!(certificate("host-a") != a && certificate("host-b") != b);
    for host in ["host-a", "host-b"] {
        tls_configs(&hosts.at(host)).unwrap();
    }
    let again = Identity::load(&hosts.at("host-b")).unwrap();
    assert_eq!((again.life(), again.nonce()), (joined.life(), joined.nonce()));

    let error = one_line(&renew_from(&hosts.at("host-b"), &hosts.invite("host-c", "3.json")).unwrap_err());
    assert!(error.contains("for node host-c") && error.contains("this host is host-b"), "{error}");
    let error = one_line(&renew(&hosts.at("host-b")).unwrap_err());
    assert!(error.contains("ca-key.pem") && error.contains("do it there"), "{error}");
}

#[test]
fn what_makes_no_sense_is_refused_with_the_way_out() {
    let hosts = Hosts::new();
    let nowhere = hosts.at("nowhere");
    for (error, part) in [
        (init(&nowhere, "10.0.0.1").unwrap_err(), "use a host's name"),
        (invite(&nowhere, "host-b", &hosts.at("x")).unwrap_err(), "tmem cluster init"),
        (invite(&hosts.at("host-a"), "host-a", &hosts.at("x")).unwrap_err(), "tmem cluster renew"),
        (invite(&hosts.at("host-a"), "Host B", &hosts.at("x")).unwrap_err(), "`Host B`"),
        (join(&nowhere, &hosts.at("y")).unwrap_err(), "y cannot be read"),
    ] {
        assert!(one_line(&error).contains(part), "{error}");
    }
    assert!(!nowhere.exists() && !hosts.at("x").exists());
}

#[test]
fn a_file_that_is_no_invitation_makes_no_node() {
    let hosts = Hosts::new();
    let good = fs::read_to_string(hosts.invite("host-b", "b.json")).unwrap();
    let other_key = fs::read_to_string(hosts.at("host-a/node-key.pem")).unwrap();
    let with = |field: &str, value: serde_json::Value| {
        let mut all: serde_json::Value = serde_json::from_str(&good).unwrap();
        all[field] = value;
        all.to_string()
    };
    for (text, part) in [
        (String::new(), "no invitation"),
        (good[..good.len() / 2].to_owned(), "no invitation"),
        (with("tmem-invitation", 2.into()), "version 2"),
        (with("name", "host-c".into()), "it is for host-b"),
        (with("name", "../x".into()), "no name for a node"),
        (with("before_epoch", 0.into()), "epoch is 0"),
        (with("key", other_key.into()), "key"),
        (with("cluster", "7".into()), "32 hexadecimal digits"),
    ] {
        fs::write(hosts.at("bad.json"), &text).unwrap();
        let error = one_line(&join(&hosts.at("host-b"), &hosts.at("bad.json")).unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!hosts.at("host-b").exists());
    }
}
