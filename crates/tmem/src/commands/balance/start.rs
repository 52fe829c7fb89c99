//! `tmem balance start`.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr};

use anyhow::Context;
use clap::Args;
use tmem_control::{
    AdminClient, BalanceSettings, Budget, ByteSize, Config, DiskName, GuestParts, GuestSpec, IdlePressure,
    IdleSwapIns, Interval, LogLevel, PolicyName, Reserve, Step, check_names,
};

use crate::{
    Outcome,
    balancing::{Balancing, Records},
    failure::Failure,
    worker,
};

/// What `tmem balance start` takes. Flags win over the file.
#[derive(Args)]
pub(super) struct Start {
    /// Configuration file, of which the section `balance` counts; without it no file is read
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What decides: reuse, committed-as or static [default: reuse]
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyName>,
    /// Seconds from one decision to the next, 1 to 3600 [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    interval: Option<Interval>,
    /// What all guests together may have; auto is what they have and the host has left [default: auto]
    #[arg(long, value_name = "SIZE|auto")]
    budget: Option<Budget>,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// A guest that swaps in no more than so many percent of its pages a minute is idle [default: 0.2]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    idle_swap_ins: Option<IdleSwapIns>,
    /// One that waits for memory for more than so many percent of its time is not [default: 0.1]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    idle_pressure: Option<IdlePressure>,
    /// An idle guest is tried with so many percent less of what it has above its floor at a time [default: 3]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    step: Option<Step>,
    /// A guest under QEMU, by its monitor (repeatable, as all below)
    #[arg(long, value_name = "NAME=SOCKET")]
    qmp: Vec<Named<PathBuf>>,
    /// The socket of its guest agent, for pressure and what programs have asked for
    #[arg(long, value_name = "NAME=SOCKET")]
    agent: Vec<Named<PathBuf>>,
    /// A guest under Cloud Hypervisor, by its API socket
    #[arg(long, value_name = "NAME=SOCKET")]
    cloud_hypervisor: Vec<Named<PathBuf>>,
    /// A guest under Firecracker, by its API socket
    #[arg(long, value_name = "NAME=SOCKET")]
    firecracker: Vec<Named<PathBuf>>,
    /// A cgroup (v2), by its directory
    #[arg(long, value_name = "NAME=DIR")]
    cgroup: Vec<Named<PathBuf>>,
    /// A guest never gets less [default: a quarter of its ceiling; of a cgroup 32M]
    #[arg(long, value_name = "NAME=SIZE")]
    floor: Vec<Named<ByteSize>>,
    /// A guest never gets more [default: what it was started with]
    #[arg(long, value_name = "NAME=SIZE")]
    ceiling: Vec<Named<ByteSize>>,
    /// What a swap-in of a guest counts, 1 to 10000 [default: 100]
    #[arg(long, value_name = "NAME=N")]
    weight: Vec<Named<u32>>,
    /// Write decisions to this file, too, a line each, as JSON
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write what is seen to this file, for `tmem balance replay`
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What goes to stderr: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
}

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
struct Named<T> {
    name: DiskName,
    value: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, with the guest's name")?;
        let name = name.parse().map_err(|error: tmem_control::ControlError| error.to_string())?;
        Ok(Self { name, value: value.parse().map_err(|error: T::Err| error.to_string())? })
    }
}

impl Start {
    /// What file and flags say together.
    fn settings(self, file: BalanceSettings) -> Result<BalanceSettings, Failure> {
        let usage = |error: tmem_control::ControlError| Failure::Usage(error.to_string());
        let flags = self.flagged_guests();
        let mut guests = file.guests;
        for (name, mut parts) in flags {
            parts.name = Some(name.clone());
            match guests.iter_mut().find(|guest| guest.name == name) {
                Some(guest) => change(guest, parts)?,
                None => guests.push(parts.assemble().map_err(usage)?),
            }
        }
        check_names(&guests).map_err(usage)?;
        if guests.is_empty() {
            return Err(Failure::Usage(
                "no guests: name some with --qmp, --cgroup and the like, or in a file with --config; see `tmem balance start --help`"
                    .to_owned(),
            ));
        }
        Ok(BalanceSettings {
            policy: self.policy.unwrap_or(file.policy),
            interval: self.interval.unwrap_or(file.interval),
            budget: self.budget.unwrap_or(file.budget),
            dry_run: self.dry_run || file.dry_run,
            idle_swap_ins: self.idle_swap_ins.unwrap_or(file.idle_swap_ins),
            idle_pressure: self.idle_pressure.unwrap_or(file.idle_pressure),
            step: self.step.unwrap_or(file.step),
            guests,
        })
    }

    /// What the flags say of each guest, by name.
    fn flagged_guests(&self) -> BTreeMap<DiskName, GuestParts> {
        let mut guests = BTreeMap::<DiskName, GuestParts>::new();
        fn all<T: Clone>(
            guests: &mut BTreeMap<DiskName, GuestParts>,
            flags: &[Named<T>],
            part: impl Fn(&mut GuestParts) -> &mut Option<T>,
        ) {
            for flag in flags {
                *part(guests.entry(flag.name.clone()).or_default()) = Some(flag.value.clone());
            }
        }
        all(&mut guests, &self.qmp, |parts| &mut parts.qmp);
        all(&mut guests, &self.agent, |parts| &mut parts.agent);
        all(&mut guests, &self.cloud_hypervisor, |parts| &mut parts.cloud_hypervisor);
        all(&mut guests, &self.firecracker, |parts| &mut parts.firecracker);
        all(&mut guests, &self.cgroup, |parts| &mut parts.cgroup);
        all(&mut guests, &self.floor, |parts| &mut parts.floor);
        all(&mut guests, &self.ceiling, |parts| &mut parts.ceiling);
        all(&mut guests, &self.weight, |parts| &mut parts.weight);
        guests
    }
}

/// Flags change a guest's limits that the file has; where it is told is said in one place.
fn change(guest: &mut GuestSpec, parts: GuestParts) -> Result<(), Failure> {
    let GuestParts { name: _, qmp, agent, cloud_hypervisor, firecracker, cgroup, floor, ceiling, weight } =
        parts;
    if [qmp, agent, cloud_hypervisor, firecracker, cgroup].iter().any(Option::is_some) {
        return Err(Failure::Usage(format!(
            "guest {}: the file says already where it is told; a flag can only change its limits",
            guest.name
        )));
    }
    guest.floor = floor.or(guest.floor);
    guest.ceiling = ceiling.or(guest.ceiling);
    guest.weight = weight.unwrap_or(guest.weight);
    guest.check().map_err(|error| Failure::Usage(error.to_string()))
}

/// Balances until it is told to end.
pub(super) fn run(arguments: Start, client: AdminClient) -> Outcome {
    let file = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    worker::start_logging(arguments.log_level.unwrap_or(file.log_level));
    let reserve: Reserve = file.reserve;
    let records = Records::open(arguments.log.as_deref(), arguments.trace.as_deref())?;
    let settings = arguments.settings(file.balance)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the balancer")?;
    runtime.block_on(Balancing::new(settings, reserve, client, records).run())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tmem_control::GuestAddress;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Start,
    }

    fn settings(flags: &[&str], file: &str) -> Result<BalanceSettings, String> {
        let file = Config::parse(file, "t.toml".as_ref()).unwrap().balance;
        let line = Line::try_parse_from(["x"].iter().chain(flags)).map_err(|error| error.to_string())?;
        line.arguments.settings(file).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn flags_make_guests_and_win_over_the_file() {
        let file = "[balance]\npolicy = \"static\"\nstep = 5\n[[balance.guest]]\nname = \"a\"\ncgroup = \"/a\"\nweight = 7\n";
        let flags = [
            "--policy", "reuse", "--qmp", "b=/q=1", "--agent", "b=/g", "--floor", "a=1M", "--floor", "b=2M",
            "--weight", "b=9",
        ];
        let settings = settings(&flags, file).unwrap();
        assert_eq!((settings.policy, settings.step.part()), (PolicyName::Reuse, 0.05));
        let [a, b] = &settings.guests[..] else { panic!("{settings:?}") };
        assert_eq!((a.floor.map(ByteSize::bytes), a.weight), (Some(1 << 20), 7));
        assert_eq!(b.address, GuestAddress::Qemu { monitor: "/q=1".into(), agent: Some("/g".into()) });
        assert_eq!((b.floor.map(ByteSize::bytes), b.weight), (Some(2 << 20), 9));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let file = "[[balance.guest]]\nname = \"a\"\ncgroup = \"/a\"\n";
        for (flags, file, part) in [
            (&[][..], "", "no guests"),
            (&["--qmp", "/socket"], "", "NAME=VALUE"),
            (&["--floor", "a=1M"], "", "give one of"),
            (&["--qmp", "a=/q"], file, "says already"),
            (&["--floor", "a=much"], file, "is not a size"),
            (&["--weight", "a=0"], file, "1 to 10000"),
            (&["--floor", "a=2M", "--ceiling", "a=1M"], file, "below its floor"),
            (&["--qmp", "a b=/q"], "", "is not a disk name"),
        ] {
            let error = settings(flags, file).unwrap_err();
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }
}
