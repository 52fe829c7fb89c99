//! Handshakes in memory, each with something wrong.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS12,
};
use time::{Duration, OffsetDateTime};
use tmem_cluster::NodeName;

use super::{Authority, TlsFiles, authority::Issued, explain, fit, peer_name, server_name};
use crate::ClusterId;

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

struct Cluster {
    authority: Authority,
    certificate: String,
}

impl Cluster {
    fn new(id: u128) -> Self {
        let (authority, Issued { certificate, .. }) = Authority::make(ClusterId(id)).unwrap();
        Self { authority, certificate }
    }

    fn configs(&self, issued: &Issued, name: &NodeName) -> Configs {
        let files =
            TlsFiles { authority: &self.certificate, certificate: &issued.certificate, key: &issued.key };
        fit(&files, name).unwrap()
    }

    fn node(&self, text: &str) -> Configs {
        self.configs(&self.authority.issue(&name(text)).unwrap(), &name(text))
    }
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// What the server and what the client ended with. A client is done a message before its server, and hears what the server
/// says of its certificate after that.
fn shake_hands(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    expected: &str,
) -> (Result<ServerConnection, Error>, Result<ClientConnection, Error>) {
    let mut server = ServerConnection::new(server).unwrap();
    let mut client = ClientConnection::new(client, server_name(&name(expected)).unwrap()).unwrap();
    let (mut server_error, mut client_error) = (None, None);
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while server_error.is_none() && !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server_error = server.process_new_packets().err();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while client_error.is_none() && !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client_error = client.process_new_packets().err();
        }
    }
    (server_error.map_or(Ok(server), Err), client_error.map_or(Ok(client), Err))
}

/// Both ends' lines for a handshake that must fail.
fn lines(server: Arc<ServerConfig>, client: Arc<ClientConfig>, expected: &str) -> (String, String) {
    let (at_server, at_client) = shake_hands(server, client, expected);
    let lines = (
        explain(&at_server.map(drop).expect_err("the server refuses"), "10.0.0.1:5"),
        explain(&at_client.map(drop).expect_err("the client is refused"), "host-b (10.0.0.2:7790)"),
    );
    for line in [&lines.0, &lines.1] {
        assert!(!line.contains('\n') && line.starts_with(['1', 'h']), "{line}");
    }
    lines
}

fn assert_says(line: &str, part: &str) {
    assert!(line.contains(part), "{line:?} does not say {part:?}");
}

#[test]
fn two_nodes_of_a_cluster_know_each_other_by_name() {
    let cluster = Cluster::new(1);
    let (server, client) = shake_hands(cluster.node("host-b").0, cluster.node("host-a").1, "host-b");
    let (server, client) = (server.unwrap(), client.unwrap());
    assert!(!server.is_handshaking() && !client.is_handshaking());
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(peer_name(server.peer_certificates().unwrap()).unwrap(), name("host-a"));
    assert_eq!(peer_name(client.peer_certificates().unwrap()).unwrap(), name("host-b"));
}

#[test]
fn a_certificate_made_later_with_the_same_key_is_of_the_same_cluster() {
    let (_, root) = Authority::make(ClusterId(1)).unwrap();
    let later = Authority::with_key(ClusterId(1), &root.key).unwrap();
    let cluster = Cluster { authority: later, certificate: root.certificate };
    let (server, client) = shake_hands(cluster.node("host-b").0, cluster.node("host-a").1, "host-b");
    assert!(server.is_ok() && client.is_ok());
}

#[test]
fn another_clusters_certificate_is_refused_on_both_sides() {
    let (ours, theirs) = (Cluster::new(1), Cluster::new(2));
    // The client refuses the server's.
    let (at_server, at_client) = lines(theirs.node("host-b").0, ours.node("host-a").1, "host-b");
    assert_says(&at_client, "not of this cluster");
    assert_says(&at_server, "another cluster");
    // The server refuses the client's: who trusts both still has a certificate of one only.
    let issued = theirs.authority.issue(&name("host-a")).unwrap();
    let (at_server, at_client) =
        lines(ours.node("host-b").0, ours.configs(&issued, &name("host-a")).1, "host-b");
    assert_says(&at_server, "not of this cluster");
    assert_says(&at_client, "another cluster");
}

/// Whoever could make an authority of the same name has not its key.
#[test]
fn an_authority_of_the_same_name_is_another_one() {
    let (ours, forged) = (Cluster::new(1), Cluster::new(1));
    let issued = forged.authority.issue(&name("host-a")).unwrap();
    let (at_server, _) = lines(ours.node("host-b").0, ours.configs(&issued, &name("host-a")).1, "host-b");
    assert_says(&at_server, "not of this cluster");
}

#[test]
fn an_expired_certificate_is_said_to_be_expired_on_both_sides() {
    let cluster = Cluster::new(1);
    let yesterday = OffsetDateTime::now_utc() - Duration::days(1);
    let old = |text| {
        let issued = cluster.authority.issue_until(&name(text), yesterday).unwrap();
        cluster.configs(&issued, &name(text))
    };
    let (at_server, at_client) = lines(cluster.node("host-b").0, old("host-a").1, "host-b");
    assert_says(&at_server, "its certificate has expired");
    assert_says(&at_client, "this host's certificate has expired");
    let (at_server, at_client) = lines(old("host-b").0, cluster.node("host-a").1, "host-b");
    assert_says(&at_client, "its certificate has expired");
    assert_says(&at_server, "this host's certificate has expired");
}

#[test]
fn another_node_than_the_expected_one_is_named() {
    let cluster = Cluster::new(1);
    let (_, at_client) = lines(cluster.node("host-c").0, cluster.node("host-a").1, "host-b");
    assert_says(&at_client, "host-c");
}

#[test]
fn a_borrower_without_a_certificate_is_refused() {
    let cluster = Cluster::new(1);
    let client = without_certificate(&cluster, &[&rustls::version::TLS13]);
    let (at_server, at_client) = lines(cluster.node("host-b").0, client, "host-b");
    assert_says(&at_server, "shows no certificate");
    assert_says(&at_client, "wants a certificate");
}

#[test]
fn an_older_tls_is_refused_on_both_sides() {
    let cluster = Cluster::new(1);
    let (at_server, at_client) =
        lines(cluster.node("host-b").0, without_certificate(&cluster, &[&TLS12]), "host-b");
    assert_says(&at_server, "does not speak TLS 1.3");
    assert_says(&at_client, "does not speak TLS 1.3");
    // A lender that speaks nothing newer.
    let issued = cluster.authority.issue(&name("host-b")).unwrap();
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let (_, at_client) = shake_hands(Arc::new(server), cluster.node("host-a").1, "host-b");
    assert_says(&explain(&at_client.map(drop).expect_err("refused"), "host-b"), "does not speak TLS 1.3");
}

#[test]
fn noise_is_no_tls() {
    let cluster = Cluster::new(1);
    let mut server = ServerConnection::new(cluster.node("host-b").0).unwrap();
    server.read_tls(&mut &b"GET / HTTP/1.1\r\nHost: host-b\r\n\r\n"[..]).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert_says(&explain(&error, "10.0.0.1:5"), "does not speak TLS");
}

#[test]
fn files_that_do_not_go_with_each_other_are_refused() {
    let cluster = Cluster::new(1);
    let (one, other) = (name("host-a"), name("host-b"));
    let (mine, another) = (cluster.authority.issue(&one).unwrap(), cluster.authority.issue(&one).unwrap());
    let certificate = &cluster.certificate;
    for (files, name, file) in [
        (
            TlsFiles { authority: certificate, certificate: &mine.certificate, key: &mine.key },
            &other,
            "node.pem",
        ),
        (
            TlsFiles { authority: certificate, certificate: &mine.certificate, key: &another.key },
            &one,
            "node-key.pem",
        ),
        (TlsFiles { authority: certificate, certificate: "", key: &mine.key }, &one, "node.pem"),
        (TlsFiles { authority: certificate, certificate: &mine.certificate, key: "x" }, &one, "node-key.pem"),
        (TlsFiles { authority: "", certificate: &mine.certificate, key: &mine.key }, &one, "ca.pem"),
        (TlsFiles { authority: certificate, certificate, key: &mine.key }, &one, "node.pem"),
    ] {
        let (named, why) = fit(&files, name).map(drop).expect_err(file);
        assert_eq!(named, file, "{why}");
    }
}

fn without_certificate(
    cluster: &Cluster,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut authorities = RootCertStore::empty();
    authorities.add(CertificateDer::from_pem_slice(cluster.certificate.as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Arc::new(client)
}
