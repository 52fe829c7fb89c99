//! A device from its birth to its end.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use tmem_disk::{BLOCK_BYTES, Format, SwapDisk};

use crate::{
    control::Device,
    error::UblkError,
    in_use, left_devices,
    lost_pages::LostPages,
    options::{MAX_REQUEST_BYTES, QUEUE_DEPTH, UblkOptions},
    process,
    queue::Queue,
    swap_off::swap_off,
};

/// A disk that is a block device of this host. Dropping it takes the device away.
pub struct UblkFrontend {
    disk: Arc<SwapDisk>,
    path: PathBuf,
    queues: u16,
    /// None once it is stopped.
    running: Option<Running>,
}

struct Running {
    device: Device,
    threads: Vec<JoinHandle<()>>,
}

impl UblkFrontend {
    /// Makes the device, or takes over the one that a dead daemon left of this disk, and starts its queues' threads. Makes sure first that the whole process is fit to serve swap: its threads
    /// are I/O flushers and its memory is locked.
    ///
    /// # Errors
    /// The kernel has no ublk, the process may not use it or may not be made fit, or the driver refuses. Nothing is left behind.
    pub fn start(disk: Arc<SwapDisk>, options: &UblkOptions) -> Result<Self, UblkError> {
        let queues = options.queues()?;
        let left = left_devices::take(&options.owner, &disk);
        let was_left = left.is_some();
        let device = match left {
            Some(left) => left,
            None => {
                let mark = left_devices::mark_of(&options.owner, disk.name());
                Device::add(queues, QUEUE_DEPTH, MAX_REQUEST_BYTES, mark)?
            }
        };
        process::make_fit(device.info().queues())?;
        if was_left {
            device.start_recovery()?;
        } else {
            device.describe(disk.size_bytes(), MAX_REQUEST_BYTES)?;
        }
        let has_lost = was_left && !options.pages_are_left;
        let lost = Arc::new(if has_lost { lost_with_the_former(&disk) } else { LostPages::default() });
        let path = PathBuf::from(format!("/dev/ublkb{}", device.info().number()));
        let queues = device.info().queues();
        let mut running = Running { device, threads: Vec::new() };
        // Dropped before the device is: it cannot be deleted while it is open.
        let file = Arc::new(running.device.open()?);
        running.start_queues(&disk, &lost, &file, options)?;
        drop(file);
        if was_left {
            running.device.end_recovery()?;
        } else {
            running.device.start()?;
        }
        if has_lost {
            log::warn!(
                "disk {}: took over {} of a daemon that died; what was stored there is lost, and reading it is an error",
                disk.name(),
                path.display()
            );
        }
        do_not_throttle(&path);
        Ok(Self { disk, path, queues, running: Some(running) })
    }

    /// The block device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Queues that it has.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Whether the device is swap, mounted or held by another device.
    pub fn is_in_use(&self) -> bool {
        in_use::is_in_use(&self.path)
    }

    /// Takes the device away. If it is swap it is turned off first, so that nothing is lost; where that fails, as for lack of
    /// memory, what is swapped out is lost, and the log says so.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        let (name, path) = (self.disk.name(), self.path.display());
        if in_use::is_swap(&self.path)
            && let Err(error) = swap_off(&self.path)
        {
            log::error!(
                "disk {name}: {path} is swap and cannot be turned off: {error}; what is swapped out to it is lost"
            );
        }
        running.end(name);
    }
}

impl Drop for UblkFrontend {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    /// Starts the threads and waits until each has asked for requests.
    fn start_queues(
        &mut self,
        disk: &Arc<SwapDisk>,
        lost: &Arc<LostPages>,
        file: &Arc<File>,
        options: &UblkOptions,
    ) -> Result<(), UblkError> {
        let (ready, told) = mpsc::channel();
        let queues = self.device.info().queues();
        for number in 0..queues {
            let queue = Queue {
                disk: disk.clone(),
                lost: lost.clone(),
                device: file.clone(),
                number,
                depth: self.device.info().depth(),
                max_request_bytes: MAX_REQUEST_BYTES as usize,
                numbering: self.device.numbering(),
                poll_limit: options.poll_limit.clone(),
            };
            let ready = ready.clone();
            let thread = thread::Builder::new().spawn(move || queue.run(&ready));
            self.threads.push(thread.map_err(|error| UblkError::Thread { error })?);
        }
        drop(ready);
        for _ in 0..queues {
            told.recv().map_err(|error| UblkError::Thread { error: io::Error::other(error) })??;
        }
        Ok(())
    }

    fn end(mut self, disk: &str) {
        if let Err(error) = self.device.stop() {
            log::warn!("disk {disk}: cannot stop ublk device {}: {error}", self.device.info().number());
        }
        self.join();
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    /// Before the device is deleted nobody may have it open.
    fn drop(&mut self) {
        let _ = self.device.stop();
        self.join();
    }
}

/// Everything, but for the header of a new swap area, which is there again.
fn lost_with_the_former(disk: &SwapDisk) -> LostPages {
    let lost = LostPages::all(disk.size_bytes());
    if disk.format() == Format::Swap {
        lost.forget(0, BLOCK_BYTES);
    }
    lost
}

/// Turns off what the kernel does to keep writes from delaying reads on a slow disk (CONFIG_BLK_WBT): it lets writes wait for each other,
/// and here those are what gets memory back. Kernels may be built without it.
fn do_not_throttle(device: &Path) {
    if let Some(name) = device.file_name().and_then(|name| name.to_str()) {
        let _ = fs::write(format!("/sys/block/{name}/queue/wbt_lat_usec"), "0");
    }
}
