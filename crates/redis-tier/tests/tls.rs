//! TLS: servers with a certificate from an authority that is trusted, and from others.
#![allow(clippy::unwrap_used, reason = "helper functions here are for tests alone")]

mod support;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use support::{
    Server,
    conformance::{Extent, assert_kept},
    open,
};
use tmem_redis_tier::RedisTierOptions;
use tmem_store::{Tier, TierCopy, TierState};

fn openssl(directory: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// An authority, and a certificate of 127.0.0.1 from it.
fn make_certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl(
        directory,
        &format!(
            "req -x509 {key} -keyout server.key -out server.pem -subj /CN=server -CA ca.pem -CAkey ca.key \
             -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1"
        ),
    );
}

fn certified(directory: &Path) -> (Server, u16) {
    let path = |name: &str| -> PathBuf { directory.join(name) };
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let files =
        [path("server.pem"), path("server.key"), path("ca.pem")].map(|path| path.display().to_string());
    let arguments = [
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &files[0],
        "--tls-key-file",
        &files[1],
        "--tls-ca-cert-file",
        &files[2],
        "--tls-auth-clients",
        "no",
    ];
    (Server::redis(&arguments), port)
}

#[test]
fn a_server_is_trusted_if_its_authority_is() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let others = tempfile::tempdir().unwrap();
    make_certificates(others.path());
    let (server, port) = certified(directory.path());
    let options = |host: &str, ca: &Path| RedisTierOptions {
        address: format!("rediss://{host}:{port}").parse().unwrap(),
        ca_pem: Some(fs::read(ca.join("ca.pem")).unwrap()),
        outage_patience: Duration::ZERO,
        ..server.options()
    };
    let tier = open(&options("127.0.0.1", directory.path()));
    assert_eq!((tier.state(), tier.trouble()), (TierState::Ready, None));
    let copy = TierCopy { place: 1, writing: 1 };
    tier.write(&[Extent::new(1).write(copy)]).unwrap();
    assert_kept(&tier, copy, &Extent::new(1));
    for (host, ca) in [("127.0.0.1", others.path()), ("localhost", directory.path())] {
        let tier = open(&options(host, ca));
        assert_ne!(tier.state(), TierState::Ready, "{host}");
        let trouble = tier.trouble().unwrap();
        assert!(trouble.contains("certificate"), "{trouble}");
        assert!(tier.write(&[Extent::new(1).write(copy)]).is_err());
    }
}
