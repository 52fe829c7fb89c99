//! Bytes to a peer and back, plain or TLS 1.3. One thread may receive while others send.

mod tls;

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::net::RecvFlags;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName},
};

use crate::error::readable;
use tls::Tls;

/// The name that a peer's certificates, its own first, are for.
pub type NameOf = Arc<dyn Fn(&[CertificateDer<'_>]) -> Result<String, String> + Send + Sync>;

/// What an error of TLS means to people. `None`: it says so itself.
pub type InWords = fn(&io::Error) -> Option<String>;

/// How peers know each other.
#[derive(Clone)]
pub enum Security {
    /// Not at all: tests, and networks of one's own.
    Plain,
    /// TLS 1.3 with certificates on both sides.
    Tls {
        /// For connections that this node begins. The peer's name is what its certificate has to be for.
        client: Arc<ClientConfig>,
        /// For connections that others begin.
        server: Arc<ServerConfig>,
        /// Who a certificate is for.
        name_of: NameOf,
        /// Why a handshake failed, where that can be said better than TLS does.
        in_words: InWords,
    },
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Security::Plain => "Plain",
            Security::Tls { .. } => "Tls",
        })
    }
}

/// A connection to a peer, as bytes.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Tls>,
    /// The name that the peer's certificate is for. `None`: there is none.
    certified: Option<String>,
    remote: String,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.remote)
    }
}

impl Stream {
    /// Connects to the peer of that name, within about `time` in all.
    ///
    /// # Errors
    /// Nobody there, or not the one who was looked for.
    pub fn connect(address: &str, name: &str, security: &Security, time: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + time;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host: correct the address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(socket) => return Self::begin(socket, name, security, deadline),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn begin(socket: TcpStream, name: &str, security: &Security, deadline: Instant) -> io::Result<Self> {
        let Security::Tls { client, name_of, in_words, .. } = security else { return Self::plain(socket) };
        let server = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(client), server).map_err(io::Error::other)?;
        Self::secure(socket, connection.into(), (name_of, *in_words), deadline)
    }

    /// Takes a connection that another began, and has TLS shake hands within about `time`.
    ///
    /// # Errors
    /// Not the right certificate, or nothing said in time.
    pub fn accept(socket: TcpStream, security: &Security, time: Duration) -> io::Result<Self> {
        let Security::Tls { server, name_of, in_words, .. } = security else { return Self::plain(socket) };
        let connection = ServerConnection::new(Arc::clone(server)).map_err(io::Error::other)?;
        Self::secure(socket, connection.into(), (name_of, *in_words), Instant::now() + time)
    }

    fn plain(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let remote = readable(socket.peer_addr());
        Ok(Self { socket, tls: None, certified: None, remote })
    }

    fn secure(
        socket: TcpStream,
        mut connection: rustls::Connection,
        (name_of, in_words): (&NameOf, InWords),
        deadline: Instant,
    ) -> io::Result<Self> {
        let mut stream = Self::plain(socket)?;
        while connection.is_handshaking() {
            stream.set_times(Some(left(deadline)?), Some(left(deadline)?))?;
            connection.complete_io(&mut (&stream.socket)).map_err(|error| said(error, in_words))?;
        }
        let certificates = connection.peer_certificates().unwrap_or_default();
        stream.certified = Some(name_of(certificates).map_err(io::Error::other)?);
        stream.set_times(None, None)?;
        stream.tls = Some(Tls::over(connection));
        Ok(stream)
    }

    /// How long receiving and sending wait without a byte before they fail with `WouldBlock` or `TimedOut`. `None`: for ever.
    ///
    /// # Errors
    /// The socket is none any more, or a time is zero.
    pub fn set_times(&self, receive: Option<Duration>, send: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(receive)?;
        self.socket.set_write_timeout(send)
    }

    /// Receives some bytes; 0: no more will come. For one thread at a time.
    ///
    /// # Errors
    /// The connection is broken, or the time was up.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => (&self.socket).read(into),
            Some(tls) => tls.receive(&self.socket, into),
        }
    }

    /// As [`Self::receive`], of what is there already. `None`: nothing is.
    pub(crate) fn receive_if_there(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let received = match &self.tls {
            None => recv_if_there(&self.socket, into),
            Some(tls) => tls.receive_if_there(&self.socket, into),
        };
        match received {
            Ok(received) => Ok(Some(received)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends all of the bytes. When another thread is sending, after it.
    ///
    /// # Errors
    /// The connection is broken, or the time was up: then nobody knows what was sent, and the connection is of no use any more.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.tls {
            None => (&self.socket).write_all(bytes),
            Some(tls) => tls.send(&self.socket, bytes),
        }
    }

    /// Ends the connection: whoever waits in it, or will, learns so at once.
    pub fn shut_down(&self) {
        // It fails where the peer has ended the connection already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The name that the peer's certificate is for. `None`: the connection is plain.
    pub fn certified(&self) -> Option<&str> {
        self.certified.as_deref()
    }

    /// The peer's address, for people.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// This side's address.
    ///
    /// # Errors
    /// The socket is none any more.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// What a socket has already; `WouldBlock`: nothing.
fn recv_if_there(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, into, RecvFlags::DONTWAIT)?.0)
}

/// For [`tmem_cluster::wire::FrameReader`].
impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receive(into)
    }
}

/// What is left until then.
pub(crate) fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        left => Ok(left),
    }
}

/// A time that is up is `WouldBlock` here, which says nothing to people.
fn said(error: io::Error, in_words: InWords) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    }
    in_words(&error).map_or(error, io::Error::other)
}
