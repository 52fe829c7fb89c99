//! A daemon in a cluster that a real etcd knows, which wants TLS and a certificate, on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed step is a failed test

mod common;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{Daemon, Killed, eventually, run};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Files of etcd and of its clients, and the port where it is.
struct Home {
    directory: TempDir,
    port: u16,
}

impl Home {
    /// With an authority, and certificates of etcd and of a host from it.
    fn new() -> Self {
        let home = Self { directory: tempfile::tempdir().expect("directory"), port: free_port() };
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "who signs");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        fs::write(home.at("ca.pem"), params.self_signed(&key).expect("certificate").pem()).expect("ca.pem");
        let issuer = Issuer::new(params, key);
        for name in ["etcd", "host"] {
            let key = KeyPair::generate().expect("key");
            let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &issuer).expect("certificate");
            fs::write(home.at(&format!("{name}.pem")), certificate.pem()).expect("certificate");
            fs::write(home.at(&format!("{name}-key.pem")), key.serialize_pem()).expect("key");
        }
        home
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn shown(&self, name: &str) -> String {
        self.at(name).to_str().expect("text").to_owned()
    }

    /// etcd that lets in whoever has a certificate, and is reached.
    fn start_etcd(&mut self) -> Killed {
        for _ in 0..5 {
            let (client, peer) =
                (format!("https://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", free_port()));
            let child = Command::new("etcd")
                .args([
                    "--name",
                    "e",
                    "--data-dir",
                    &self.shown("data"),
                    "--initial-cluster",
                    &format!("e={peer}"),
                ])
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--cert-file", &self.shown("etcd.pem"), "--key-file", &self.shown("etcd-key.pem")])
                .args(["--client-cert-auth", "--trusted-ca-file", &self.shown("ca.pem")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(self.at("log")).expect("log"))
                .spawn()
                .expect("the package etcd-server is installed");
            let mut etcd = Killed(Some(child));
            let mut has_ended = false;
            eventually("etcd listens, or ends", || {
                has_ended = etcd.0.as_mut().is_some_and(|etcd| etcd.try_wait().expect("wait").is_some());
                has_ended || TcpStream::connect(("127.0.0.1", self.port)).is_ok()
            });
            if !has_ended {
                return etcd;
            }
            // Somebody took the port before it did.
            let _ = fs::remove_dir_all(self.at("data"));
            self.port = free_port();
        }
        panic!("etcd does not start");
    }

    /// The configuration of a host in a cluster of its own, with these keys beside where etcd is.
    fn configuration(&self, name: &str, keys: &str) -> String {
        let directory = self.shown(&format!("{name}-cluster"));
        if !Path::new(&directory).exists() {
            run(&["cluster", "init", "--name", name, "--dir", &directory]).ok();
        }
        let text = format!(
            "pool-size = \"64M\"\n[cluster]\nlisten = \"127.0.0.1:{}\"\ndirectory = \"{directory}\"\n{keys}\n",
            free_port()
        );
        fs::write(self.at(name), text).expect("configuration");
        self.shown(name)
    }

    /// The host has this certificate from now on.
    fn give(&self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) {
        fs::write(self.at("host.pem"), certificate).expect("certificate");
        fs::write(self.at("host-key.pem"), key).expect("key");
    }

    fn etcd(&self) -> String {
        format!("etcd = [\"https://127.0.0.1:{}\"]\netcd-ca = \"{}\"", self.port, self.shown("ca.pem"))
    }
}

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("port").port()
}

/// Waits until `tmem cluster status` says this.
fn waits_to_say(daemon: &Daemon, part: &str) {
    eventually(part, || daemon.run(&["cluster", "status"]).ok().contains(part));
}

#[test]
fn a_confined_daemon_shows_etcd_its_certificate_as_it_was_when_it_began() {
    let mut home = Home::new();
    let _etcd = home.start_etcd();
    let keys = format!(
        "{}\netcd-certificate = \"{}\"\netcd-key = \"{}\"",
        home.etcd(),
        home.shown("host.pem"),
        home.shown("host-key.pem")
    );
    let daemon = Daemon::start_with(&["--config", &home.configuration("host-a", &keys)]);
    waits_to_say(&daemon, "members by etcd\n");
    let cluster = &daemon.status()["cluster"];
    assert_eq!((&cluster["is_current"], &cluster["trouble"]), (&true.into(), &serde_json::Value::Null));
    // Whoever serves next shows what is in the files by then.
    let good = ["host.pem", "host-key.pem"].map(|name| fs::read(home.at(name)).expect("read"));
    let stranger = rcgen::generate_simple_self_signed(["host-a".to_owned()]).expect("certificate");
    home.give(stranger.cert.pem(), stranger.signing_key.serialize_pem());
    daemon.run(&["upgrade"]).ok();
    waits_to_say(&daemon, "it does not accept etcd-certificate");
    let [certificate, key] = good;
    home.give(certificate, key);
    daemon.run(&["upgrade"]).ok();
    waits_to_say(&daemon, "members by etcd\n");
}

#[test]
fn a_daemon_that_etcd_turns_away_goes_on_and_says_why() {
    let mut home = Home::new();
    let _etcd = home.start_etcd();
    let daemon = Daemon::start_with(&["--config", &home.configuration("host-a", &home.etcd())]);
    waits_to_say(&daemon, "give etcd-certificate and etcd-key");
    let worker = daemon.worker();
    daemon.add("vm1", "16M");
    assert_eq!((daemon.worker(), &daemon.status()["cluster"]["is_current"]), (worker, &false.into()));
}

#[test]
fn a_password_in_the_clear_is_warned_of_and_stays_out_of_the_log() {
    let home = Home::new();
    fs::write(home.at("password"), "a secret\n").expect("password");
    let keys = format!(
        "etcd = [\"http://127.0.0.1:{}\"]\netcd-user = \"tmem\"\netcd-password-file = \"{}\"",
        home.port,
        home.shown("password")
    );
    let config = home.configuration("host-a", &keys);
    let (daemon, log) = Daemon::start_with_log(&["--log-level", "trace", "--config", &config]);
    waits_to_say(&daemon, "tried again");
    let text = fs::read_to_string(log).expect("log");
    assert!(text.contains("the password for etcd goes over http://") && !text.contains("a secret"), "{text}");
}

#[test]
fn keys_that_make_no_sense_are_one_line() {
    let home = Home::new();
    for (keys, code, mentions) in [
        ("peers = [\"b=10.0.0.2:1\"]\netcd-ca = \"/c\"", 2, ["[cluster] etcd-ca", "leave this out"]),
        ("etcd = [\"http://h:1\"]\netcd-ca = \"/c\"", 2, ["[cluster] etcd-ca", "https://"]),
        (
            "etcd = [\"https://h:1\"]\netcd-key = \"/k\"",
            2,
            ["[cluster] etcd-key", "without etcd-certificate"],
        ),
        ("etcd = [\"http://h:1\", \"https://i:1\"]", 1, ["http://h:1 and https://i:1", "all"]),
        ("etcd = [\"https://h:1\"]\netcd-ca = \"/nowhere/c\"", 1, ["[cluster] etcd-ca", "/nowhere/c"]),
    ] {
        run(&["serve", "--http", "off", "--config", &home.configuration("host-a", keys)])
            .fails(code, &mentions);
    }
}
