//! `tmem balance`: start, stop, status, limit, dry-run, replay.

mod replay;
mod start;
mod status;

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use tmem_control::{AdminClient, BalanceOrder, ByteSize, DiskName, LimitChanges, StopHow};

use crate::Outcome;

/// The balancer looks for orders every second, and may be in the middle of asking guests.
const PATIENCE: Duration = Duration::from_secs(15);

/// `tmem balance`: without a subcommand it is `start`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Box<start::Start>,
}

#[derive(Subcommand)]
enum Command {
    /// Look after guests and cgroups, in the foreground, until SIGTERM, SIGINT or `tmem balance stop`
    Start(Box<start::Start>),
    /// End the balancer
    Stop(Stop),
    /// Show guests, their targets and the last decisions with their reasons
    Status(status::Arguments),
    /// Change a guest's limits, until the balancer ends
    Limit(Limit),
    /// Have the balancer only say what it would do (on), or do it (off)
    DryRun(DryRun),
    /// Run the policies over a trace, without any guest
    Replay(replay::Arguments),
}

#[derive(Args)]
struct Stop {
    /// Give every guest its ceiling first, as far as there is memory; without it all keep what they have
    #[arg(long)]
    restore: bool,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Limits {
    /// It never gets less, such as 256M
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    floor: Option<ByteSize>,
    /// It never gets more
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    ceiling: Option<ByteSize>,
    /// What a swap-in of it counts, 1 to 10000; 100 is the usual
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<u32>,
}

#[derive(Args)]
struct Limit {
    /// Name of the guest
    name: DiskName,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Args)]
struct DryRun {
    /// Whether it only says what it would do
    #[arg(value_name = "on|off")]
    switch: Switch,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Runs one of them.
pub(crate) fn run(arguments: Arguments, client: AdminClient) -> Outcome {
    match arguments.command.unwrap_or(Command::Start(arguments.start)) {
        Command::Start(arguments) => start::run(*arguments, client),
        Command::Stop(Stop { restore }) => {
            let how = if restore { StopHow::Restore } else { StopHow::Leave };
            order(&client, &BalanceOrder { stop: Some(how), ..BalanceOrder::default() })
        }
        Command::Status(arguments) => status::run(&arguments, &client),
        Command::Limit(Limit { name, limits }) => {
            let changes = LimitChanges {
                floor_bytes: limits.floor.map(ByteSize::bytes),
                ceiling_bytes: limits.ceiling.map(ByteSize::bytes),
                weight: limits.weight,
            };
            let guests = [(name.to_string(), changes)].into();
            order(&client, &BalanceOrder { guests, ..BalanceOrder::default() })
        }
        Command::DryRun(DryRun { switch }) => {
            let dry_run = Some(switch == Switch::On);
            order(&client, &BalanceOrder { dry_run, ..BalanceOrder::default() })
        }
        Command::Replay(arguments) => replay::run(&arguments),
    }
}

/// Has the balancer carry it out, and waits until it has.
fn order(client: &AdminClient, order: &BalanceOrder) -> Outcome {
    let number = client.order_balance(order)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match client.status()?.balance {
            None if order.stop.is_some() => return Ok(()),
            None => {
                let why = "the balancer or the daemon ended meanwhile; `tmem balance status` shows whether to try again";
                return Err(anyhow!(why).into());
            }
            Some(report) if report.heard >= number => return Ok(()),
            Some(report) if Instant::now() > end => {
                let (pid, seconds) = (report.pid, PATIENCE.as_secs());
                let error = anyhow!(
                    "the balancer (process id {pid}) has not done so after {seconds} s; look at its log"
                );
                return Err(error.into());
            }
            Some(_) => sleep(Duration::from_millis(100)),
        }
    }
}
