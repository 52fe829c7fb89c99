//! The rival: redis-server without persistence, and a client that does as little as one can.
//!
//! Commands are made ready in a buffer and sent with one call; of answers it reads as much as has come and looks at no more than it has to.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    child::{Child, resident_bytes},
    content::{Block, Content, MAX_BLOCK_BYTES},
    interrupt,
    network::{LENDER_ADDRESS, Network},
    side::{Memory, Side, UNDER_WAY, by_threads},
};

/// Its own namespace has nobody else.
const PORT: u16 = 6379;

/// How long it may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent at once of a long pipeline, and received at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

pub(crate) struct Redis {
    link: Link,
    child: Child,
    content: Arc<Content>,
    is_dead: Vec<bool>,
    base: (u64, u64),
}

impl Redis {
    pub(crate) fn start(network: &Network, content: &Arc<Content>) -> Result<Self> {
        let mut command = network.at_lender("redis-server");
        command.args(["--bind", LENDER_ADDRESS, "--port", &PORT.to_string(), "--protected-mode", "no"]);
        command.args(["--save", "", "--appendonly", "no", "--dir", "/tmp"]);
        // It would fill its pipe, which nobody reads.
        command.args(["--logfile", "/dev/null"]);
        let child = Child::start(command)?;
        let deadline = Instant::now() + PATIENCE;
        let link = loop {
            match TcpStream::connect((LENDER_ADDRESS, PORT)) {
                Ok(socket) => break Link::over(socket)?,
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).context("redis-server does not answer: install redis-server");
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        let is_dead = vec![false; content.blocks.len()];
        let mut side = Self { link, child, content: Arc::clone(content), is_dead, base: (0, 0) };
        side.base = side.used()?;
        Ok(side)
    }

    /// Memory as it says, and as the kernel does.
    fn used(&mut self) -> Result<(u64, u64)> {
        let mut command = Vec::new();
        add_command(&mut command, &[b"INFO", b"memory"]);
        self.link.send(&command)?;
        let info = String::from_utf8_lossy(self.link.bulk()?).into_owned();
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        let said = used.context("redis-server does not say its memory")?.trim().parse()?;
        Ok((said, resident_bytes(self.child.id())?))
    }

    /// Gets blocks, [`UNDER_WAY`] at a time: pages per second. Asks for more as soon as something has come if it `refills`, else when all has.
    fn get_pipelined(&mut self, blocks: &[usize], refills: bool) -> Result<f64> {
        let mut into = [0; MAX_BLOCK_BYTES];
        let mut commands = Vec::new();
        let (mut asked, mut answered) = (0, 0);
        let start = Instant::now();
        while answered < blocks.len() {
            interrupt::check()?;
            // As many more as have been answered: there are always so many under way, or about to be.
            while asked < blocks.len() && asked < answered + UNDER_WAY {
                add_command(&mut commands, &[b"GET", &key(self.content.blocks[blocks[asked]])]);
                asked += 1;
            }
            self.link.send(&commands)?;
            commands.clear();
            loop {
                let block = self.content.blocks[blocks[answered]];
                let found = self.link.bulk()?;
                let into = &mut into[..block.run.bytes as usize];
                ensure!(found.len() == into.len(), "redis: another block came");
                into.copy_from_slice(found);
                ensure!(*into == *self.content.bytes(block), "redis: another block came");
                answered += 1;
                if answered == asked || refills && !self.link.has_more() {
                    break;
                }
            }
        }
        Ok(blocks.len() as f64 / start.elapsed().as_secs_f64())
    }
}

impl Side for Redis {
    fn name(&self) -> &str {
        "redis"
    }

    fn empty(&mut self) -> Result<()> {
        self.is_dead.fill(false);
        let mut command = Vec::new();
        add_command(&mut command, &[b"FLUSHALL", b"SYNC"]);
        self.link.send(&command)?;
        self.link.ok()
    }

    fn put(&mut self) -> Result<f64> {
        let content = Arc::clone(&self.content);
        let mut sending = self.link.socket.try_clone()?;
        let start = Instant::now();
        thread::scope(|scope| {
            // One thread says everything, the other hears what becomes of it: the pipeline is never empty.
            let said = scope.spawn(|| {
                let mut commands = Vec::with_capacity(2 * CHUNK_BYTES);
                for block in &content.blocks {
                    add_command(&mut commands, &[b"SET", &key(*block), content.bytes(*block)]);
                    if commands.len() >= CHUNK_BYTES {
                        sending.write_all(&commands)?;
                        commands.clear();
                    }
                }
                sending.write_all(&commands)
            });
            for _ in &content.blocks {
                self.link.ok()?;
            }
            said.join().ok().context("the sender panicked")??;
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(content.blocks.len() as f64 / start.elapsed().as_secs_f64())
    }

    fn get_alone(&mut self, blocks: &[usize]) -> Result<Vec<u64>> {
        let mut times = Vec::with_capacity(blocks.len());
        self.link.get_each(&self.content, blocks, |took| times.push(took.as_nanos() as u64))?;
        Ok(times)
    }

    fn get_together(&mut self, blocks: &[usize]) -> Result<f64> {
        // Which of both is faster depends on what else the processors do.
        Ok(self.get_pipelined(blocks, true)?.max(self.get_pipelined(blocks, false)?))
    }

    fn get_by_threads(&mut self, blocks: &[usize]) -> Result<f64> {
        by_threads(blocks, |part, barrier| {
            let link = TcpStream::connect((LENDER_ADDRESS, PORT)).map_err(Into::into).and_then(Link::over);
            barrier.wait();
            link?.get_each(&self.content, part, |_| ())
        })
    }

    fn release(&mut self, blocks: &[usize]) -> Result<()> {
        for part in blocks.chunks(1000) {
            let mut commands = Vec::new();
            for number in part {
                add_command(&mut commands, &[b"DEL", &key(self.content.blocks[*number])]);
                self.is_dead[*number] = true;
            }
            self.link.send(&commands)?;
            for _ in part {
                ensure!(self.link.line()? == b":1", "redis: a block was not there");
            }
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<Memory> {
        // Its allocator gives back what is free in steps.
        thread::sleep(Duration::from_secs(1));
        let (said, resident) = self.used()?;
        let alive = self.content.blocks.iter().zip(&self.is_dead).filter(|(_, is_dead)| !**is_dead);
        Ok(Memory {
            blocks_bytes: alive.map(|(block, _)| u64::from(block.run.bytes)).sum(),
            said_bytes: said.saturating_sub(self.base.0),
            resident_bytes: resident.saturating_sub(self.base.1),
        })
    }
}

/// A block's key: eight bytes, which is short for redis.
fn key(block: Block) -> [u8; 8] {
    (u64::from(block.extent) << 32 | u64::from(block.run.start)).to_be_bytes()
}

fn add_command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    add_length(out, b'*', parts.len());
    for part in parts {
        add_length(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

fn add_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, length);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(kind);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// A connection to it.
struct Link {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What of it was received and not read: from here...
    start: usize,
    /// ...to here.
    end: usize,
}

impl Link {
    fn over(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: vec![0; CHUNK_BYTES], start: 0, end: 0 })
    }

    fn send(&mut self, commands: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(commands)?)
    }

    /// Gets and compares one block after the other.
    fn get_each(
        &mut self,
        content: &Content,
        blocks: &[usize],
        mut note: impl FnMut(Duration),
    ) -> Result<()> {
        let mut into = [0; MAX_BLOCK_BYTES];
        let mut command = Vec::new();
        for number in blocks {
            interrupt::check()?;
            let block = content.blocks[*number];
            let into = &mut into[..block.run.bytes as usize];
            let start = Instant::now();
            command.clear();
            add_command(&mut command, &[b"GET", &key(block)]);
            self.send(&command)?;
            let found = self.bulk()?;
            ensure!(found.len() == into.len(), "redis: another block came");
            into.copy_from_slice(found);
            note(start.elapsed());
            ensure!(*into == *content.bytes(block), "redis: another block came");
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.start < self.end
    }

    fn receive(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let received = self.socket.read(&mut self.buffer[self.end..])?;
        ensure!(received > 0, "redis-server has ended the connection");
        self.end += received;
        Ok(())
    }

    /// A line without its end.
    fn line(&mut self) -> Result<&[u8]> {
        loop {
            let here = &self.buffer[self.start..self.end];
            if let Some(length) = here.iter().position(|byte| *byte == b'\n') {
                let start = self.start;
                self.start += length + 1;
                return Ok(&self.buffer[start..start + length.saturating_sub(1)]);
            }
            self.receive()?;
        }
    }

    fn ok(&mut self) -> Result<()> {
        match self.line()? {
            b"+OK" => Ok(()),
            other => bail!("redis-server says {}", String::from_utf8_lossy(other)),
        }
    }

    /// A value.
    fn bulk(&mut self) -> Result<&[u8]> {
        let line = self.line()?;
        let length = line
            .strip_prefix(b"$")
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let length =
            length.with_context(|| format!("redis-server says {}", String::from_utf8_lossy(line)))?;
        while self.end - self.start < length + 2 {
            self.receive()?;
        }
        let start = self.start;
        self.start += length + 2;
        Ok(&self.buffer[start..start + length])
    }
}
