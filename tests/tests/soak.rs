//! The short form of `scripts/soak`: clients compare every byte while the daemon goes wrong on purpose in every way there is (rules 1, 2 and 4).
//!
//! `TMEM_SEED` repeats a run as far as a seed can.

use std::{env, sync::atomic::AtomicBool, time::Duration};

use anyhow::{Context, Result, ensure};
use tmem_tests::soak::{self, Options};

const TIME: Duration = Duration::from_secs(20);

#[test]
fn r1_nothing_is_lost_or_wrong_whatever_fails() -> Result<()> {
    let seed = env::var("TMEM_SEED").map_or(Ok(1), |text| text.parse()).context("TMEM_SEED")?;
    let options = Options { seed, time: TIME, with_guest: true, keep_logs: false };
    ensure!(soak::run(options, &AtomicBool::new(false))?, "something was lost or wrong: see above");
    Ok(())
}
