//! What the balancer is told: its section of the configuration, and the guests that it looks after.

use std::{collections::BTreeSet, fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::{
    ByteSize, ControlError, DiskName,
    written::{number, text_or_number},
};

/// The section `[balance]`. [`BalanceSettings::default`] is what holds where it says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BalanceSettings {
    /// What decides.
    pub policy: PolicyName,
    /// From one decision to the next.
    pub interval: Interval,
    /// What all guests together may have.
    pub budget: Budget,
    /// It only says what it would do.
    pub dry_run: bool,
    /// A guest that swaps in no more than this part of its pages in a minute is idle.
    #[serde(deserialize_with = "percent_in_a_file")]
    pub idle_swap_ins: IdleSwapIns,
    /// One that waits for memory for a larger part of its time is not.
    #[serde(deserialize_with = "percent_in_a_file")]
    pub idle_pressure: IdlePressure,
    /// An idle guest is tried with less of what it has above its floor: so much of it at a time.
    #[serde(deserialize_with = "percent_in_a_file")]
    pub step: Step,
    /// Guests and cgroups.
    #[serde(rename = "guest", deserialize_with = "checked_guests")]
    pub guests: Vec<GuestSpec>,
}

/// A balancer's policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PolicyName {
    /// Memory goes where it saves the most swap-ins.
    #[default]
    Reuse,
    /// Xen's formula.
    CommittedAs,
    /// Nobody gets more or less.
    Static,
}

impl PolicyName {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::CommittedAs => "committed-as",
            Self::Static => "static",
        }
    }
}

impl FromStr for PolicyName {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        let all = [Self::Reuse, Self::CommittedAs, Self::Static];
        all.into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| ControlError::Policy { text: text.to_owned() })
    }
}

impl<'de> Deserialize<'de> for PolicyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Seconds from one decision to the next, 1 to 3600.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interval(u32);

impl Interval {
    /// As a time.
    pub fn time(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl Default for Interval {
    /// What a balloon moves meanwhile is seen, and a guest that thrashes does not wait long.
    fn default() -> Self {
        Self(5)
    }
}

impl FromStr for Interval {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse() {
            Ok(seconds @ 1..=3600) => Ok(Self(seconds)),
            _ => Err(ControlError::Interval { text: text.to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer)
    }
}

/// What all guests together may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Budget {
    /// What they have, and what the host has available beyond half of its reserve.
    #[default]
    Auto,
    /// So much.
    Fixed(ByteSize),
}

impl FromStr for Budget {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        if text == "auto" { Ok(Self::Auto) } else { Ok(Self::Fixed(text.parse()?)) }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a size or \"auto\"")
    }
}

/// A part in percent, 0 to 100 in steps of a thousandth, of which `DEFAULT` thousandths are the default.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Percent<const DEFAULT: u32>(u32);

/// 0.2% of its pages in a minute.
pub type IdleSwapIns = Percent<200>;
/// 0.1% of its time.
pub type IdlePressure = Percent<100>;
/// 3% of what it has above its floor.
pub type Step = Percent<3000>;

impl<const DEFAULT: u32> Percent<DEFAULT> {
    /// As a part of one.
    pub fn part(self) -> f64 {
        f64::from(self.0) / 100_000.0
    }
}

impl<const DEFAULT: u32> Default for Percent<DEFAULT> {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl<const DEFAULT: u32> fmt::Display for Percent<DEFAULT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

impl<const DEFAULT: u32> FromStr for Percent<DEFAULT> {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self, ControlError> {
        match text.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self((percent * 1000.0).round() as u32)),
            _ => Err(ControlError::Percent { text: text.to_owned() }),
        }
    }
}

fn percent_in_a_file<'de, D: Deserializer<'de>, const DEFAULT: u32>(
    deserializer: D,
) -> Result<Percent<DEFAULT>, D::Error> {
    f64::deserialize(deserializer)?.to_string().parse().map_err(de::Error::custom)
}

/// A guest or cgroup that the balancer looks after.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSpec {
    /// Its name; that of its client in the pool, if it has one.
    pub name: DiskName,
    /// Where it is told.
    pub address: GuestAddress,
    /// It never gets less; `None`: than a quarter of its ceiling.
    pub floor: Option<ByteSize>,
    /// It never gets more; `None`: than it was started with.
    pub ceiling: Option<ByteSize>,
    /// What a swap-in of it counts, 1 to 10000, 100 being the usual.
    pub weight: u32,
}

/// Where a guest is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuestAddress {
    /// QEMU.
    Qemu {
        /// Its monitor, which speaks QMP.
        monitor: PathBuf,
        /// The guest agent's socket.
        agent: Option<PathBuf>,
    },
    /// Cloud Hypervisor's API socket.
    CloudHypervisor(PathBuf),
    /// Firecracker's API socket.
    Firecracker(PathBuf),
    /// A cgroup's directory.
    Cgroup(PathBuf),
}

/// A guest in the words of the file and the flags, which name its parts one by one.
#[derive(Clone, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct GuestParts {
    /// Its name.
    pub name: Option<DiskName>,
    /// QEMU's monitor.
    pub qmp: Option<PathBuf>,
    /// The guest agent's socket.
    pub agent: Option<PathBuf>,
    /// Cloud Hypervisor's API socket.
    pub cloud_hypervisor: Option<PathBuf>,
    /// Firecracker's API socket.
    pub firecracker: Option<PathBuf>,
    /// A cgroup's directory.
    pub cgroup: Option<PathBuf>,
    /// It never gets less.
    pub floor: Option<ByteSize>,
    /// It never gets more.
    pub ceiling: Option<ByteSize>,
    /// What a swap-in of it counts.
    pub weight: Option<u32>,
}

impl GuestParts {
    /// The guest that they make up.
    ///
    /// # Errors
    /// [`ControlError::Guest`]: something is missing, too much, or makes no sense.
    pub fn assemble(self) -> Result<GuestSpec, ControlError> {
        let Some(name) = self.name else {
            return Err(ControlError::Guest { name: "without a name".to_owned(), why: "name is missing" });
        };
        let wrong = |why| ControlError::Guest { name: name.to_string(), why };
        if self.agent.is_some() && self.qmp.is_none() {
            return Err(wrong("agent is for a guest with qmp"));
        }
        let agent = self.agent;
        let mut addresses = [
            self.qmp.map(|monitor| GuestAddress::Qemu { monitor, agent }),
            self.cloud_hypervisor.map(GuestAddress::CloudHypervisor),
            self.firecracker.map(GuestAddress::Firecracker),
            self.cgroup.map(GuestAddress::Cgroup),
        ]
        .into_iter()
        .flatten();
        let (Some(address), None) = (addresses.next(), addresses.next()) else {
            return Err(wrong("give one of qmp, cloud-hypervisor, firecracker and cgroup"));
        };
        let weight = self.weight.unwrap_or(100);
        let guest = GuestSpec { name, address, floor: self.floor, ceiling: self.ceiling, weight };
        guest.check()?;
        Ok(guest)
    }
}

impl GuestSpec {
    /// Sees whether its limits make sense.
    ///
    /// # Errors
    /// [`ControlError::Guest`].
    pub fn check(&self) -> Result<(), ControlError> {
        let wrong = |why| Err(ControlError::Guest { name: self.name.to_string(), why });
        if !(1..=10_000).contains(&self.weight) {
            return wrong("weights are 1 to 10000");
        }
        if self.ceiling.is_some_and(|ceiling| ceiling < self.floor.unwrap_or(ByteSize::from_bytes(1))) {
            return wrong("its ceiling is below its floor");
        }
        Ok(())
    }
}

fn checked_guests<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<GuestSpec>, D::Error> {
    let parts = Vec::<GuestParts>::deserialize(deserializer)?;
    let guests: Vec<_> =
        parts.into_iter().map(GuestParts::assemble).collect::<Result<_, _>>().map_err(de::Error::custom)?;
    check_names(&guests).map_err(de::Error::custom)?;
    Ok(guests)
}

/// No two guests have the same name.
///
/// # Errors
/// [`ControlError::Guest`].
pub fn check_names(guests: &[GuestSpec]) -> Result<(), ControlError> {
    let mut names = BTreeSet::new();
    match guests.iter().find(|guest| !names.insert(&guest.name)) {
        None => Ok(()),
        Some(guest) => {
            Err(ControlError::Guest { name: guest.name.to_string(), why: "the name is given twice" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<BalanceSettings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn every_key_is_read() {
        let settings = read(
            "policy = \"committed-as\"\ninterval = 7\nbudget = \"6G\"\ndry-run = true\nidle-swap-ins = 1\nidle-pressure = 0.25\nstep = 100.0\n\
             [[guest]]\nname = \"a\"\nqmp = \"/a\"\nagent = \"/g\"\nfloor = \"128M\"\nceiling = \"1G\"\nweight = 50\n\
             [[guest]]\nname = \"b\"\ncloud-hypervisor = \"/b\"\n[[guest]]\nname = \"c\"\nfirecracker = \"/c\"\n[[guest]]\nname = \"d\"\ncgroup = \"/d\"\n",
        )
        .unwrap();
        assert_eq!(
            (settings.policy, settings.interval.time()),
            (PolicyName::CommittedAs, Duration::from_secs(7))
        );
        assert_eq!((settings.budget, settings.dry_run), (Budget::Fixed(ByteSize::from_bytes(6 << 30)), true));
        let parts = (settings.idle_swap_ins.part(), settings.idle_pressure.part(), settings.step.part());
        assert_eq!(parts, (0.01, 0.0025, 1.0));
        let addresses: Vec<_> = settings.guests.iter().map(|guest| guest.address.clone()).collect();
        assert_eq!(
            addresses,
            [
                GuestAddress::Qemu { monitor: "/a".into(), agent: Some("/g".into()) },
                GuestAddress::CloudHypervisor("/b".into()),
                GuestAddress::Firecracker("/c".into()),
                GuestAddress::Cgroup("/d".into())
            ]
        );
        let [first, second, ..] = &settings.guests[..] else { panic!("{settings:?}") };
        assert_eq!((first.floor, first.weight), (Some(ByteSize::from_bytes(128 << 20)), 50));
        assert_eq!((second.ceiling, second.weight), (None, 100));
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let settings = read("").unwrap();
        assert_eq!(settings, BalanceSettings::default());
        let defaults = (settings.idle_swap_ins.part(), settings.idle_pressure.part(), settings.step.part());
        assert_eq!(defaults, (0.002, 0.001, 0.03));
        assert_eq!((settings.interval.time().as_secs(), settings.budget), (5, Budget::Auto));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, part) in [
            ("policy = \"fair\"", "`fair` is no policy"),
            ("interval = 0", "1 to 3600"),
            ("step = 100.5", "0 to 100"),
            ("idle-pressure = nan", "0 to 100"),
            ("budget = \"some\"", "is not a size"),
            ("[[guest]]\nqmp = \"/a\"", "name is missing"),
            ("[[guest]]\nname = \"a\"", "guest a: give one of"),
            ("[[guest]]\nname = \"a\"\nqmp = \"/a\"\ncgroup = \"/b\"", "guest a: give one of"),
            ("[[guest]]\nname = \"a\"\ncgroup = \"/a\"\nagent = \"/b\"", "agent is for"),
            ("[[guest]]\nname = \"a\"\ncgroup = \"/a\"\nweight = 0", "1 to 10000"),
            ("[[guest]]\nname = \"a\"\ncgroup = \"/a\"\nfloor = \"2G\"\nceiling = \"1G\"", "below its floor"),
            ("[[guest]]\nname = \"a\"\ncgroup = \"/a\"\n[[guest]]\nname = \"a\"\ncgroup = \"/b\"", "twice"),
            ("[[guest]]\nname = \"a b\"\ncgroup = \"/a\"", "is not a disk name"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
