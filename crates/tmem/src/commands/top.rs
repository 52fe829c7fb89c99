//! `tmem top`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use tmem_control::AdminClient;

use super::print;
use crate::{Outcome, top};

/// How often one may ask, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// `tmem top`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Seconds from one look to the next, 0.1 to 3600
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,
    /// Print one picture as text and end; it takes one interval, since rates need two looks
    #[arg(long)]
    once: bool,
}

/// Shows it.
pub(crate) fn run(arguments: &Arguments, client: AdminClient) -> Outcome {
    if arguments.once {
        return print(&top::once(&client, arguments.interval)?);
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        let text = "this is no terminal; `tmem status` prints the same numbers, and `tmem top --once` one picture as text";
        return Err(anyhow!(text).into());
    }
    top::watch(client, arguments.interval)
}

fn interval(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if INTERVALS.contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("write seconds, 0.1 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_a_number_of_seconds() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "NaN", "inf", "3601", "1s"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
