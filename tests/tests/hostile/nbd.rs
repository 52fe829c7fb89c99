//! As much of an NBD client as it takes to be honest, and to be anything else.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const TRIM: u16 = 4;
pub const WRITE_ZEROES: u16 = 6;

const REQUEST_MAGIC: u32 = 0x2560_9513;

/// Guards against hanging, nothing else.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Nbd(pub UnixStream);

impl Nbd {
    /// Chooses an export, the old way.
    pub fn open(socket: &Path, name: &str) -> io::Result<Nbd> {
        let mut stream = connect(socket)?;
        stream.read_exact(&mut [0; 18])?;
        stream.write_all(&hello(name))?;
        stream.read_exact(&mut [0; 10])?;
        Ok(Nbd(stream))
    }

    pub fn send(&mut self, command: u16, offset: u64, len: u32, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&request(command, offset, len))?;
        self.0.write_all(payload)
    }

    /// What a request is answered with: 0, or an error's number.
    pub fn ask(&mut self, command: u16, offset: u64, len: u32, payload: &[u8]) -> io::Result<u32> {
        self.send(command, offset, len, payload)?;
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply)?;
        Ok(u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]))
    }

    pub fn write(&mut self, page: u64, bytes: &[u8]) -> io::Result<()> {
        match self.ask(WRITE, page * 4096, bytes.len() as u32, bytes)? {
            0 => Ok(()),
            error => Err(io::Error::other(format!("write of page {page}: error {error}"))),
        }
    }

    pub fn read(&mut self, page: u64) -> io::Result<Vec<u8>> {
        match self.ask(READ, page * 4096, 4096, &[])? {
            0 => {
                let mut bytes = vec![0; 4096];
                self.0.read_exact(&mut bytes)?;
                Ok(bytes)
            }
            error => Err(io::Error::other(format!("read of page {page}: error {error}"))),
        }
    }
}

pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The client's flags, and an option that names the export.
pub fn hello(name: &str) -> Vec<u8> {
    let mut bytes = 3u32.to_be_bytes().to_vec();
    bytes.extend(b"IHAVEOPT");
    bytes.extend(1u32.to_be_bytes());
    bytes.extend((name.len() as u32).to_be_bytes());
    bytes.extend(name.as_bytes());
    bytes
}

pub fn request(command: u16, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes
}

/// Reads until the other side closes. False: it does not, within the stream's patience.
pub fn is_hung_up_on(mut stream: &UnixStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            }
        }
    }
}
