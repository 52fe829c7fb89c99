//! TLS, with certificates on both sides.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::{
    error::NbdError,
    link::{Link, Wait},
    socket::Socket,
};

/// A few bytes either fit into the socket or the client has stopped reading.
const GOODBYE_TIME: Duration = Duration::from_secs(1);

/// PEM files that make TLS possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// Certificates of the authorities whose clients are let in.
    pub client_ca: PathBuf,
}

/// A server's identity, and whose clients it lets in.
#[derive(Clone)]
pub struct TlsIdentity(Arc<ServerConfig>);

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsIdentity")
    }
}

impl TlsIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read or holds something else, or a key that does not belong to the certificate.
    pub fn load(files: &TlsFiles) -> Result<Self, NbdError> {
        let wrong = |what, path: &Path, why: String| NbdError::TlsFile { what, path: path.to_owned(), why };
        let certificates = |what, path: &Path| {
            let chain = CertificateDer::pem_file_iter(path)
                .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
                .map_err(|error| wrong(what, path, readable(&error)))?;
            if chain.is_empty() {
                Err(wrong(what, path, "it holds no certificate".to_owned()))
            } else {
                Ok(chain)
            }
        };
        let chain = certificates("certificate", &files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| wrong("private key", &files.key, readable(&error)))?;
        let ca = "certificate of the clients' authority";
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(ca, &files.client_ca)? {
            authorities.add(certificate).map_err(|error| wrong(ca, &files.client_ca, error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
                .build()
                .map_err(|error| wrong(ca, &files.client_ca, error.to_string()))?;
        let unfit =
            |error: rustls::Error| NbdError::TlsIdentity { cert: files.cert.clone(), why: error.to_string() };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(unfit)?;
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands on a connection whose client has been told to begin.
    pub(crate) fn accept(&self, socket: Socket) -> io::Result<TlsLink> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(io::Error::other)?;
        let mut link = TlsLink { connection, socket };
        while link.connection.is_handshaking() {
            link.send_pending()?;
            if link.connection.is_handshaking() && link.take_records(Wait::Yes)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        link.send_pending()?;
        Ok(link)
    }
}

/// PEM errors name neither file nor line, and one of them is only the word "Io".
fn readable(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => "it holds none".to_owned(),
        other => format!("is damaged ({other})"),
    }
}

/// A socket under TLS.
pub(crate) struct TlsLink {
    connection: ServerConnection,
    socket: Socket,
}

impl TlsLink {
    pub(crate) fn socket_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Says goodbye, so that the client knows that nothing was cut off. Does not wait for a client that does not listen.
    pub(crate) fn close(&mut self) {
        self.socket.set_deadline(Some(Instant::now() + GOODBYE_TIME));
        self.connection.send_close_notify();
        // A client that is gone does not mind.
        let _ = self.send_pending();
    }

    fn send_pending(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Wire { socket: &self.socket, wait: Wait::Yes })?;
        }
        Ok(())
    }

    /// Takes what has come and decrypts it; 0 says that no more will come.
    fn take_records(&mut self, wait: Wait) -> io::Result<usize> {
        let taken = self.connection.read_tls(&mut Wire { socket: &self.socket, wait })?;
        if let Err(error) = self.connection.process_new_packets() {
            // The client is told what was wrong, such as a certificate that is missing.
            let _ = self.send_pending();
            return Err(io::Error::other(error));
        }
        Ok(taken)
    }
}

impl Link for TlsLink {
    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            self.take_records(wait)?;
            self.send_pending()?;
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.connection.writer().write(rest)?;
            rest = &rest[taken..];
            self.send_pending()?;
        }
        Ok(())
    }
}

/// The socket as rustls wants it.
struct Wire<'a> {
    socket: &'a Socket,
    wait: Wait,
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.receive_some(buffer, self.wait)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.send_some(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
