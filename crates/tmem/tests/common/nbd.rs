//! A guest's disk: as much of an NBD client as it takes to write, read and trim pages.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use super::Daemon;

pub const PAGE: usize = 4096;

const OPTION_EXPORT_NAME: u32 = 1;
const NO_ZEROES: u32 = 2;
const FIXED_NEWSTYLE: u32 = 1;

/// What the server said no with: an errno.
pub type Refused = u32;

pub struct Disk(UnixStream);

impl Disk {
    /// Makes a disk and connects to it. `more` are more arguments of `tmem disk add`.
    pub fn add(daemon: &Daemon, name: &str, size: &str, more: &[&str]) -> Self {
        let socket = daemon.path("disks.sock");
        let line = [&["disk", "add", name, "--size", size, "--nbd", &socket], more].concat();
        daemon.run(&line).ok();
        Self::connect(daemon, name)
    }

    pub fn connect(daemon: &Daemon, name: &str) -> Self {
        let mut stream = UnixStream::connect(daemon.path("disks.sock")).expect("connect");
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("greeting");
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        let mut said = (FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes().to_vec();
        said.extend(b"IHAVEOPT");
        said.extend(OPTION_EXPORT_NAME.to_be_bytes());
        said.extend((name.len() as u32).to_be_bytes());
        said.extend(name.as_bytes());
        stream.write_all(&said).expect("option");
        stream.read_exact(&mut [0; 10]).expect("size and flags");
        Self(stream)
    }

    pub fn write(&mut self, page: u64, bytes: &[u8]) -> Result<(), Refused> {
        self.request(1, page, bytes.len(), bytes)
    }

    pub fn read(&mut self, page: u64) -> Result<Vec<u8>, Refused> {
        self.request(0, page, PAGE, &[])?;
        let mut bytes = vec![0; PAGE];
        self.0.read_exact(&mut bytes).expect("a page");
        Ok(bytes)
    }

    pub fn trim(&mut self, page: u64, pages: usize) -> Result<(), Refused> {
        self.request(4, page, pages * PAGE, &[])
    }

    fn request(&mut self, command: u16, page: u64, length: usize, payload: &[u8]) -> Result<(), Refused> {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend(0u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(7u64.to_be_bytes());
        request.extend((page * PAGE as u64).to_be_bytes());
        request.extend((length as u32).to_be_bytes());
        request.extend(payload);
        self.0.write_all(&request).expect("request");
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).expect("reply");
        assert_eq!((&reply[..4], &reply[8..]), (&0x6744_6698_u32.to_be_bytes()[..], &7u64.to_be_bytes()[..]));
        match u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]) {
            0 => Ok(()),
            errno => Err(errno),
        }
    }
}

/// A page that does not compress; each number gives another.
pub fn noise(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    (0..PAGE / 8).flat_map(word).collect()
}

/// A page of words, as prose is: the harder it is compressed, the smaller it gets. Each number gives another.
pub fn prose(number: u64) -> Vec<u8> {
    const WORDS: &str = "the of memory and a page to in is that for it swap as was with host be by on not he guest his but at are this \
        have from or had an they which one you were all her she there would their we him been has when who will no more if out so";
    let words: Vec<_> = WORDS.split(' ').collect();
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = Vec::with_capacity(PAGE + 16);
    while page.len() < PAGE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        page.extend(words[(state >> 33) as usize % words.len()].bytes());
        page.push(b' ');
    }
    page.truncate(PAGE);
    page
}
