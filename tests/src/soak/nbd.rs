//! As much of an NBD client as it takes to have some requests under way and to lose the connection.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::contents::PAGE;

const OPTION_EXPORT_NAME: u32 = 1;
const FIXED_NEWSTYLE_WITHOUT_ZEROES: u32 = 3;

/// No answer takes so long, whatever goes wrong on purpose.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Read = 0,
    Write = 1,
    Trim = 4,
}

pub(crate) struct Connection(UnixStream);

impl Connection {
    pub(crate) fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.read_exact(&mut [0; 18])?;
        let mut said = FIXED_NEWSTYLE_WITHOUT_ZEROES.to_be_bytes().to_vec();
        said.extend(b"IHAVEOPT");
        said.extend(OPTION_EXPORT_NAME.to_be_bytes());
        said.extend((export.len() as u32).to_be_bytes());
        said.extend(export.as_bytes());
        stream.write_all(&said)?;
        stream.read_exact(&mut [0; 10])?; // size and flags
        Ok(Self(stream))
    }

    /// Sends requests of a page each.
    pub(crate) fn send(&mut self, requests: &[(Command, u32, [u8; PAGE])]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(requests.len() * (28 + PAGE));
        for (cookie, (command, page, data)) in requests.iter().enumerate() {
            bytes.extend(0x2560_9513_u32.to_be_bytes());
            bytes.extend([0, 0, 0, *command as u8]);
            bytes.extend((cookie as u64).to_be_bytes());
            bytes.extend((u64::from(*page) * PAGE as u64).to_be_bytes());
            bytes.extend((PAGE as u32).to_be_bytes());
            if *command == Command::Write {
                bytes.extend(data);
            }
        }
        self.0.write_all(&bytes)
    }

    /// The answer to request number `cookie`, the next one: an errno, or 0; of a read, the page with it.
    pub(crate) fn answer(&mut self, command: Command, cookie: usize) -> io::Result<(u32, [u8; PAGE])> {
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply)?;
        let mut expected = 0x6744_6698_u64.to_be_bytes()[4..].to_vec();
        expected.extend((cookie as u64).to_be_bytes());
        if reply[..4] != expected[..4] || reply[8..] != expected[4..] {
            return Err(io::Error::other(format!("{reply:?} answers no request")));
        }
        let error = u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]);
        let mut page = [0; PAGE];
        if command == Command::Read && error == 0 {
            self.0.read_exact(&mut page)?;
        }
        Ok((error, page))
    }
}
