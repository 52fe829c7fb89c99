//! What a plan says.

use std::{fmt, str::FromStr, time::Duration};

use crate::points::{Fault, Point};

/// Which faults, how often, and the seed that everything follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where chance begins.
    pub seed: u64,
    /// Places of death. `None`: any.
    pub kills: Vec<(Option<Point>, When)>,
    /// How often each of [`Fault::ALL`] comes, once in so many times, and how long it takes.
    pub faults: Vec<(Fault, u64, Duration)>,
    /// How often a bit of a stored page is turned over.
    pub flip_arena: Option<Duration>,
    /// How often a bit of an index entry is.
    pub flip_index: Option<Duration>,
}

/// Which passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// One in so many.
    OneIn(u64),
    /// The nth, in the first worker of a daemon alone.
    Nth(u64),
}

/// A text that is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No such fault.
    #[error("there is no fault `{0}`; there are seed, kill, flip-arena, flip-index, {faults}", faults = names(Fault::ALL.iter().map(|fault| fault.name())))]
    Fault(String),
    /// No such place.
    #[error("`{0}` is no place to be killed at; there are *, {points}", points = names(Point::ALL.iter().map(|point| point.name())))]
    Point(String),
    /// Something is said in another way than it can be.
    #[error("`{part}` should be like {like}")]
    Form {
        /// What was said.
        part: String,
        /// What would do.
        like: &'static str,
    },
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let mut plan = Plan::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let form = |like| move || PlanError::Form { part: part.to_owned(), like };
            let (name, value) = part.split_once('=').ok_or_else(form("tier-fail=1/50"))?;
            match name {
                "seed" => plan.seed = value.parse().map_err(|_| form("seed=7")())?,
                "kill" => {
                    let bad = form("kill=block:1/20000, or kill=block:500 for the 500th time");
                    let (point, when) = value.split_once(':').ok_or_else(&bad)?;
                    plan.kills.push((point_of(point)?, when_of(when).ok_or_else(bad)?));
                }
                "flip-arena" => plan.flip_arena = Some(time_of(value).ok_or_else(form("flip-arena=500ms"))?),
                "flip-index" => plan.flip_index = Some(time_of(value).ok_or_else(form("flip-index=500ms"))?),
                _ => {
                    let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
                    let fault = *fault.ok_or_else(|| PlanError::Fault(name.to_owned()))?;
                    let (odds, time) = match fault.is_slowness() {
                        true => {
                            let bad = form("tier-slow=1/20:300ms");
                            let (odds, time) = value.split_once(':').ok_or_else(&bad)?;
                            (odds, time_of(time).ok_or_else(bad)?)
                        }
                        false => (value, Duration::ZERO),
                    };
                    let one_in = odds_of(odds).ok_or_else(form("refuse-memory=1/500"))?;
                    plan.faults.push((fault, one_in, time));
                }
            }
        }
        Ok(plan)
    }
}

fn point_of(text: &str) -> Result<Option<Point>, PlanError> {
    match Point::ALL.iter().find(|point| point.name() == text) {
        Some(point) => Ok(Some(*point)),
        None if text == "*" => Ok(None),
        None => Err(PlanError::Point(text.to_owned())),
    }
}

fn when_of(text: &str) -> Option<When> {
    odds_of(text)
        .map(When::OneIn)
        .or_else(|| text.parse().ok().filter(|n| (1..1 << 62).contains(n)).map(When::Nth))
}

fn odds_of(text: &str) -> Option<u64> {
    text.strip_prefix("1/")?.parse().ok().filter(|one_in| (1..1 << 62).contains(one_in))
}

fn time_of(text: &str) -> Option<Duration> {
    text.strip_suffix("ms")?.parse().ok().filter(|ms| (1..=60_000).contains(ms)).map(Duration::from_millis)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        for (point, when) in &self.kills {
            let name = point.map_or("*", Point::name);
            match when {
                When::OneIn(n) => write!(f, ",kill={name}:1/{n}")?,
                When::Nth(n) => write!(f, ",kill={name}:{n}")?,
            }
        }
        for (fault, one_in, time) in &self.faults {
            write!(f, ",{}=1/{one_in}", fault.name())?;
            if fault.is_slowness() {
                write!(f, ":{}ms", time.as_millis())?;
            }
        }
        for (name, every) in [("flip-arena", self.flip_arena), ("flip-index", self.flip_index)] {
            if let Some(every) = every {
                write!(f, ",{name}={}ms", every.as_millis())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        for text in [
            "seed=0",
            "seed=7,kill=block:1/20000,kill=*:1/1000000,kill=memo:3,tier-fail=1/50,tier-torn=1/100,tier-slow=1/20:300ms,\
             refuse-memory=1/500,flip-arena=500ms,flip-index=40ms",
        ] {
            assert_eq!(text.parse::<Plan>().unwrap().to_string(), text);
        }
        assert_eq!("".parse(), Ok(Plan::default()));
        for point in Point::ALL {
            assert!(format!("kill={}:1/5", point.name()).parse::<Plan>().is_ok());
        }
    }

    #[test]
    fn what_is_no_plan_is_said_with_the_way_out() {
        for (text, way_out) in [
            ("tier-fial=1/50", "tier-fail"),
            ("kill=blokc:1/5", "block"),
            ("kill=block", "kill=block:1/20000"),
            ("kill=block:0", "kill=block:1/20000"),
            ("tier-fail=50", "1/500"),
            ("tier-fail=1/0", "1/500"),
            ("tier-slow=1/5", "tier-slow=1/20:300ms"),
            ("flip-arena=5s", "500ms"),
            ("seed=x", "seed=7"),
            ("seed", "tier-fail=1/50"),
        ] {
            let error = text.parse::<Plan>().unwrap_err().to_string();
            assert!(error.contains(way_out), "{text}: {error}");
        }
    }
}
