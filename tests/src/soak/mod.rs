//! Clients at work while the daemon goes wrong on purpose.
//!
//! Two daemons of the build with the feature `fault-injection`, with plans that follow from one seed:
//!
//! - The *strict* one has only faults that no client may see: its worker dies, memory is refused, writes to the tier fail or take long. A real
//!   guest swaps to it and compares every byte, clients over NBD know what each page may read as, and disks come and go.
//! - The *damaged* one has all faults: bits of blocks and index entries are turned over, writes to the tier are torn, reads fail. There a read
//!   may be an error if the daemon said before that it would damage just this, and never anything else than what was written.
//!
//! | file | job |
//! |---|---|
//! | `contents` | pages that follow from a number |
//! | `model` | what each page may read as |
//! | `client`, `nbd` | a client that writes, reads, compares, and connects again |
//! | `watch` | what the daemon says that it damaged |
//! | `tally` | what the clients saw |
//! | `side` | one daemon with its clients |

mod client;
pub(crate) mod contents;
mod model;
pub(crate) mod nbd;
mod side;
mod tally;
mod watch;

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::places;
use side::Side;

/// How often it is said how things are.
const PROGRESS: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where chance begins.
    pub seed: u64,
    /// For how long the clients are at work.
    pub time: Duration,
    /// Whether a real guest swaps, too.
    pub with_guest: bool,
    /// Whether the daemons' logs are kept even if all is well.
    pub keep_logs: bool,
}

/// Runs until the time is up or `stop` is set, and says on stdout how things are. False: something was lost or wrong.
///
/// # Errors
/// The daemons or the guest cannot be started.
pub fn run(options: Options, stop: &AtomicBool) -> Result<bool> {
    let Options { seed, time, with_guest, .. } = options;
    println!("soak: seed {seed}, {} s", time.as_secs());
    places::faulty_binary()?;
    let strict = Side::strict(seed)?;
    let damaged = Side::damaged(seed)?;
    let guest = if with_guest { Some(strict.boot_guest(seed, time)?) } else { None };
    let (ends, all_said) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Instant::now();
    thread::scope(|scope| {
        let sides = [&strict, &damaged];
        let watching = sides.map(|side| scope.spawn(|| side.watch(&all_said)));
        let clients: Vec<_> = sides.iter().flat_map(|side| side.start_clients(scope, seed, &ends)).collect();
        let mut said = Instant::now();
        while start.elapsed() < time && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                sides.iter().for_each(|side| println!("{:5} s {side}", start.elapsed().as_secs()));
            }
        }
        ends.store(true, Relaxed);
        clients.into_iter().for_each(|client| drop(client.join()));
        if let Some(guest) = guest
            && !stop.load(Relaxed)
        {
            strict.finish_guest(guest, time);
        }
        if !stop.load(Relaxed) {
            strict.check_that_all_goes_back();
        }
        all_said.store(true, Relaxed);
        watching.into_iter().for_each(|watching| drop(watching.join()));
    });
    for side in [&strict, &damaged] {
        side.panics().iter().for_each(|line| println!("!!! {line}"));
        println!("soak: {side}");
    }
    let (lost, wrong) = (strict.lost() + damaged.lost(), strict.wrong() + damaged.wrong());
    println!(
        "soak: seed {seed}, {} s, {} deaths of workers, {} other faults, {} pages compared: {lost} lost, {wrong} wrong",
        start.elapsed().as_secs(),
        strict.deaths() + damaged.deaths(),
        strict.faults() + damaged.faults(),
        strict.compared_pages() + damaged.compared_pages(),
    );
    if lost + wrong > 0 || options.keep_logs {
        for side in [&strict, &damaged] {
            side.keep_log(seed)?;
        }
    }
    Ok(lost + wrong == 0)
}
