//! Those whom guests are asked of, played: in threads, one connection at a time, until the test drops them.
// Each test file takes a part of it.
#![allow(dead_code, clippy::expect_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    thread,
};

use tempfile::TempDir;

/// A socket, and what becomes of whoever connects.
pub struct Mock {
    directory: TempDir,
}

impl Mock {
    pub fn start(mut serve: impl FnMut(UnixStream) + Send + 'static) -> Mock {
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("socket")).expect("a socket");
        // It ends with the test's process.
        thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.expect("a connection"))));
        Mock { directory }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }
}

/// An HTTP server: method, path and body make a status and a body.
pub struct Rest(Mock);

impl Rest {
    pub fn start(mut answer: impl FnMut(&str, &str, &str) -> (u16, String) + Send + 'static) -> Rest {
        Rest(Mock::start(move |mut stream| {
            let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).expect("a head") == 0 {
                    return;
                }
            }
            let length = head.to_lowercase().split("content-length: ").nth(1).map_or(0, |rest| {
                rest.split("\r\n").next().expect("a line").parse::<usize>().expect("a length")
            });
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            let mut words = head.split(' ');
            let (method, path) = (words.next().expect("a method"), words.next().expect("a path"));
            let (status, text) = answer(method, path, &String::from_utf8(body).expect("text"));
            let length =
                if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", text.len()) };
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{length}\r\n{text}");
            // It fails where nobody waits any more.
            let _ = stream.write_all(answer.as_bytes());
        }))
    }

    pub fn socket(&self) -> PathBuf {
        self.0.socket()
    }
}

/// Somebody who says this, and then that without end; nothing: the end.
pub struct Bytes(Mock);

impl Bytes {
    /// At once.
    pub fn start(first: &[u8], again: &[u8]) -> Bytes {
        Bytes::new(false, first, again)
    }

    /// When something was asked.
    pub fn answer(first: &[u8], again: &[u8]) -> Bytes {
        Bytes::new(true, first, again)
    }

    fn new(asked: bool, first: &[u8], again: &[u8]) -> Bytes {
        let (first, again) = (first.to_vec(), again.to_vec());
        Bytes(Mock::start(move |mut stream| {
            if asked {
                let _ = stream.read(&mut [0; 4096]);
            }
            let _ = stream.write_all(&first);
            // So that what was said is not lost with what was not read.
            if again.is_empty() {
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 4096]);
            }
            while !again.is_empty() && stream.write_all(&again).is_ok() {}
        }))
    }

    pub fn socket(&self) -> PathBuf {
        self.0.socket()
    }
}
