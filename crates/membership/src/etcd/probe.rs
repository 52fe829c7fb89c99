//! A handshake to find out why TLS fails.
//!
//! A server that wants a certificate says so after the client is done, and closes the connection. A client that sent a request by then may hear
//! only of the end. This one sends nothing, and listens.

use std::{
    io::{self, Read},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream, crypto::ring, pki_types::ServerName};

use super::{
    server::Server,
    settings::{Scheme, host_and_port},
};

/// For a connection, and for each word of the server.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a handshake ended with.
#[derive(Debug)]
pub(crate) enum Handshake {
    /// The server does not speak TLS, or refuses, or is not believed.
    Failed(rustls::Error),
    /// It speaks TLS, and is not spoken to in it.
    SpeaksTls,
}

/// Waits for some seconds at most. `None`: nothing is found to be wrong with TLS.
pub(crate) fn handshake(server: &Server) -> Option<Handshake> {
    let (host, port) = host_and_port(&server.endpoint)?;
    let mut socket = connect(host, port)?;
    let config = match (server.settings.scheme, &server.settings.tls) {
        (Scheme::Https, Some(tls)) => tls.config().ok()?,
        _ => believes_nobody()?,
    };
    let error = shake_hands(config, host, &mut socket)?;
    match (server.settings.scheme, error) {
        (Scheme::Https, error) => Some(Handshake::Failed(error)),
        (Scheme::Http, rustls::Error::InvalidCertificate(_)) => Some(Handshake::SpeaksTls),
        (Scheme::Http, _) => None,
    }
}

fn connect(host: &str, port: u16) -> Option<TcpStream> {
    let address = (host, port).to_socket_addrs().ok()?.next()?;
    let socket = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).and_then(|()| socket.set_write_timeout(Some(PATIENCE))).ok()?;
    Some(socket)
}

fn believes_nobody() -> Option<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    Some(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// What TLS fails with, be it after the handshake.
fn shake_hands(mut config: ClientConfig, host: &str, socket: &mut TcpStream) -> Option<rustls::Error> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(config), name).ok()?;
    let read = Stream::new(&mut connection, socket).read(&mut [0; 1]);
    read.err().and_then(tls_error)
}

fn tls_error(error: io::Error) -> Option<rustls::Error> {
    error.into_inner()?.downcast::<rustls::Error>().ok().map(|error| *error)
}
