//! Serves one swap disk on a vhost-user socket: `serve_disk SOCKET SIZE_MIB POOL_MIB [POLL_US]`.
//!
//! The smallest program around the crate, to try a guest with. It prints its counters every second while
//! they change, and ends at the end of its input.

use std::error::Error;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tmem_disk::{DiskOptions, Format, SwapDisk};
use tmem_store::{Store, StoreOptions};
use tmem_transport::PollLimit;
use tmem_vhost::{VhostFrontend, VhostOptions};

/// Log lines go to standard error as they are.
struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    log::set_logger(&ToStderr).map_err(|error| error.to_string())?;
    log::set_max_level(log::LevelFilter::Info);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, size, pool, poll @ ..] = args.as_slice() else {
        return Err("usage: serve_disk SOCKET SIZE_MIB POOL_MIB [POLL_US]".into());
    };
    let store = Store::new(StoreOptions { limit_bytes: pool.parse::<u64>()? << 20 })?;
    let size_bytes = size.parse::<u64>()? << 20;
    let disk = SwapDisk::create(
        &store,
        DiskOptions {
            name: "example".into(),
            size_bytes,
            cap_bytes: None,
            weight: tmem_store::Weight::default(),
            dedup: tmem_store::Dedup::Alone,
            format: Format::Swap,
        },
    )?;
    let mut options = VhostOptions::new(socket);
    if let Some(poll_us) = poll.first() {
        options.poll_limit = PollLimit::from_us(poll_us.parse()?);
    }
    let frontend = VhostFrontend::start(Arc::new(disk), options)?;

    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.store(true, Ordering::Relaxed);
    });
    let mut shown = frontend.counts();
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
        let counts = frontend.counts();
        if counts != shown {
            let usage = store.usage();
            println!("{counts:?} stored {} used {}", usage.stored_pages, usage.used_bytes);
            shown = counts;
        }
    }
    frontend.stop();
    Ok(())
}
