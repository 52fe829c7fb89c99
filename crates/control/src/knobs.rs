//! Settings that can be changed while the daemon runs: the one table of them, and how a change takes effect.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tmem_store::Store;

use crate::{
    AdminError, BackgroundCpu, Config, ControlError, HostMemory, PoolSize, PoolSizing, Recompress,
    ZeroOnFlush,
    client_changes::CheckedChanges,
    client_knobs::{self, ClientKnobChanges},
    host_memory_bytes, poll_us,
};

/// A row of the table. Values are read by the parsers of the configuration, under the configuration's names.
struct Knob {
    name: &'static str,
    unit: &'static str,
    range: &'static str,
    effect: &'static str,
    get: fn(&Config) -> String,
    set: fn(&mut Config, &str) -> Result<(), ControlError>,
}

/// All knobs, in the order in which they are shown.
const KNOBS: [Knob; 14] = [
    Knob {
        name: "pool-size",
        unit: "size",
        range: "1M to the host's memory, or auto",
        effect: "hard limit of the pool, auto: what the host can spare; a lower one keeps stored pages and refuses new ones",
        get: |config| config.pool_size.to_string(),
        set: |config, text| text.parse().map(|value| config.pool_size = value),
    },
    Knob {
        name: "reserve",
        unit: "size",
        range: "less than the host's memory, or auto",
        effect: "what a pool of size auto leaves to the host; auto is 1/16 of its memory, 128M to 4G",
        get: |config| config.reserve.to_string(),
        set: |config, text| text.parse().map(|value| config.reserve = value),
    },
    Knob {
        name: "pool-ceiling",
        unit: "size",
        range: "1M or more, or none",
        effect: "most that a pool of size auto may grow to, however much the host can spare",
        get: |config| config.pool_ceiling.to_string(),
        set: |config, text| text.parse().map(|value| config.pool_ceiling = value),
    },
    Knob {
        name: "reaction-ms",
        unit: "ms",
        range: "10 to 10000",
        effect: "how often a pool of size auto looks at the host, at least, once it holds more than 16M",
        get: |config| config.reaction.milliseconds().to_string(),
        set: |config, text| text.parse().map(|value| config.reaction = value),
    },
    Knob {
        name: "poll-us",
        unit: "us",
        range: "0 to 1000000",
        effect: "longest time a thread looks for the next request before it sleeps; 0 is never",
        get: |config| config.poll_us.to_string(),
        set: |config, text| poll_us(text).map(|value| config.poll_us = value),
    },
    Knob {
        name: "max-compressed",
        unit: "%",
        range: "1 to 100",
        effect: "largest compressed page worth keeping, of 4096 bytes; larger ones are refused, 100 keeps all",
        get: |config| config.max_compressed.percent().to_string(),
        set: |config, text| text.parse().map(|value| config.max_compressed = value),
    },
    Knob {
        name: "recompress",
        unit: "-",
        range: "on, off",
        effect: "whether cold pages are compressed harder",
        get: |config| if config.recompress == Recompress::On { "on" } else { "off" }.to_owned(),
        set: |config, text| text.parse().map(|value| config.recompress = value),
    },
    Knob {
        name: "recompress-age",
        unit: "s",
        range: "1 to 86400",
        effect: "time without a put or a get after which a page is cold",
        get: |config| config.recompress_age.seconds().to_string(),
        set: |config, text| text.parse().map(|value| config.recompress_age = value),
    },
    Knob {
        name: "recompress-level",
        unit: "-",
        range: "1 to 19",
        effect: "level of Zstandard for cold pages",
        get: |config| config.recompress_level.level().to_string(),
        set: |config, text| text.parse().map(|value| config.recompress_level = value),
    },
    Knob {
        name: "background-cpu",
        unit: "%",
        range: "1 to 100",
        effect: "most of one CPU that compaction and recompression take",
        get: |config| config.background_cpu.percent().to_string(),
        set: |config, text| text.parse().map(|value| config.background_cpu = value),
    },
    Knob {
        name: "tier-mode",
        unit: "-",
        range: "write-back, write-through",
        effect: "whether pages go to the tier when they have to, or as soon as an extent is full; memory has them as long as there is room",
        get: |config| config.tier_mode.to_string(),
        set: |config, text| text.parse().map(|value| config.tier_mode = value),
    },
    Knob {
        name: "write-back-age",
        unit: "s",
        range: "1 to 86400, or off",
        effect: "time without a put or a get after which a cold page goes to the tier, off: only when the pool needs room",
        get: |config| config.write_back_age.to_string(),
        set: |config, text| text.parse().map(|value| config.write_back_age = value),
    },
    Knob {
        name: "zero-on-flush",
        unit: "-",
        range: "on, off",
        effect: "whether the blocks of forgotten pages are overwritten with zeroes at once",
        get: |config| if config.zero_on_flush == ZeroOnFlush::On { "on" } else { "off" }.to_owned(),
        set: |config, text| text.parse().map(|value| config.zero_on_flush = value),
    },
    Knob {
        name: "log-level",
        unit: "-",
        range: "error, warn, info, debug, trace",
        effect: "what goes to stderr",
        get: |config| config.log_level.filter().as_str().to_ascii_lowercase(),
        set: |config, text| text.parse().map(|value| config.log_level = value),
    },
];

/// A knob as the admin API shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnobInfo {
    /// Its name, the configuration's.
    pub name: String,
    /// What it is at now.
    pub value: String,
    /// The unit of value and range; `-` where there is none.
    pub unit: String,
    /// What it may be.
    pub range: String,
    /// What it is at when nobody says otherwise.
    pub default: String,
    /// What it does.
    pub effect: String,
}

/// Answer of `GET` and `PATCH /api/v1/knobs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KnobList {
    /// All of them.
    pub knobs: Vec<KnobInfo>,
}

/// Body of `PATCH /api/v1/knobs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnobChanges {
    /// New values by name.
    pub knobs: BTreeMap<String, String>,
}

/// The knobs of a running daemon.
pub struct Knobs {
    store: Arc<Store>,
    poll_us: Arc<AtomicU32>,
    now: Mutex<Config>,
    watcher: OnceLock<Watcher>,
}

/// Values of knobs, by their names.
pub type KnobValues = BTreeMap<String, String>;

type Watcher = Box<dyn Fn(KnobValues) + Send + Sync>;

impl Config {
    /// Sets knobs as a daemon had them that this one succeeds. Errors: a value that makes no sense; those of knobs that there are no more
    /// are left out.
    pub fn set_knobs(&mut self, values: &KnobValues) -> Result<(), ControlError> {
        let known = |name| KNOBS.iter().find(|knob| knob.name == name);
        values
            .iter()
            .filter_map(|(name, text)| Some((known(name)?, text)))
            .try_for_each(|(knob, text)| (knob.set)(self, text))
    }

    fn knobs(&self) -> KnobValues {
        KNOBS.iter().map(|knob| (knob.name.to_owned(), (knob.get)(self))).collect()
    }
}

impl Knobs {
    /// At what the configuration says, which already holds in the store and in `poll_us`, the limit that frontends share.
    pub fn new(config: Config, store: Arc<Store>, poll_us: Arc<AtomicU32>) -> Self {
        Self { store, poll_us, now: Mutex::new(config), watcher: OnceLock::new() }
    }

    /// Has somebody told of all values when one has changed, the clients' apart. There can be one.
    pub fn watch(&self, watcher: impl Fn(KnobValues) + Send + Sync + 'static) {
        let _only_the_first = self.watcher.set(Box::new(watcher));
    }

    /// What all but the clients' are at.
    pub fn values(&self) -> KnobValues {
        self.lock().knobs()
    }

    /// What background work may take now.
    pub fn background_cpu(&self) -> BackgroundCpu {
        self.lock().background_cpu
    }

    /// How often a pool of size auto is to look at the host now.
    pub fn reaction(&self) -> Duration {
        self.lock().reaction.time()
    }

    /// What is left to a host with so much memory now, in bytes. `None`: that is more than it has.
    pub fn reserve_bytes(&self, host_bytes: u64) -> Option<u64> {
        self.lock().reserve.bytes(host_bytes).ok()
    }

    /// Gives a pool of size auto the limit that the rule says, and says which. `None`: the pool's size is fixed.
    pub fn size_pool(&self, rule: &mut PoolSizing, host: &HostMemory, now: Duration) -> Option<u64> {
        let config = self.lock();
        if config.pool_size != PoolSize::Auto {
            return None;
        }
        rule.set_reserve_bytes(config.reserve.bytes(host.total_bytes).ok()?);
        rule.set_ceiling_bytes(config.pool_ceiling.bytes());
        let limit_bytes = rule.limit_bytes(host, self.store.held_bytes(), now);
        self.store.set_limit_bytes(limit_bytes).ok()?;
        Some(limit_bytes)
    }

    /// All of them.
    pub fn list(&self) -> KnobList {
        let (now, default) = (self.lock(), Config::default());
        let info = |knob: &Knob| KnobInfo {
            name: knob.name.to_owned(),
            value: (knob.get)(&now),
            unit: knob.unit.to_owned(),
            range: knob.range.to_owned(),
            default: (knob.get)(&default),
            effect: knob.effect.to_owned(),
        };
        let mut knobs: Vec<_> = KNOBS.iter().map(info).collect();
        knobs.extend(client_knobs::list(&self.store));
        KnobList { knobs }
    }

    /// Changes all that are named, or none.
    ///
    /// # Errors
    /// [`AdminError::Invalid`]: there is no such knob, or a value is out of its range. [`AdminError::NotFound`]: there is no such client.
    pub fn set(&self, changes: &KnobChanges) -> Result<(), AdminError> {
        let mut now = self.lock();
        let mut new = now.clone();
        let mut of_clients = ClientKnobChanges::default();
        for (name, text) in &changes.knobs {
            if of_clients.add(name, text)? {
                continue;
            }
            let knob = KNOBS.iter().find(|knob| knob.name == name).ok_or_else(|| unknown(name))?;
            (knob.set)(&mut new, text).map_err(|error| wrong(knob, text, &error))?;
        }
        // The parsers have checked most; what only the store and the host know is asked before anything changes, the pool's size last
        // of it.
        let of_clients = of_clients.check(&self.store)?;
        let [pool_size, reserve, ..] = &KNOBS;
        if new.reserve != now.reserve {
            let possible = host_memory_bytes().and_then(|host_bytes| new.reserve.bytes(host_bytes));
            possible.map_err(|error| wrong(reserve, &new.reserve.to_string(), &error))?;
        }
        if new.pool_size != now.pool_size {
            let wrong = |error: &dyn std::fmt::Display| wrong(pool_size, &new.pool_size.to_string(), error);
            // A pool of size auto gets its limit from whoever looks at the host next.
            if let Some(limit_bytes) = new.pool_size.fixed_bytes().map_err(|error| wrong(&error))? {
                self.store.set_limit_bytes(limit_bytes).map_err(|error| wrong(&error))?;
            }
        }
        of_clients.into_iter().for_each(CheckedChanges::apply);
        self.store.set_recompression(new.recompression()).map_err(|e| AdminError::Failed(e.to_string()))?;
        self.store.set_write_back_options(new.write_back());
        self.store.wake_write_back();
        self.store.set_max_payload_bytes(new.max_compressed.bytes());
        self.store.set_zero_on_flush(new.zero_on_flush == ZeroOnFlush::On);
        self.poll_us.store(new.poll_us, Ordering::Relaxed);
        log::set_max_level(new.log_level.filter());
        *now = new;
        if let Some(watcher) = self.watcher.get() {
            watcher(now.knobs());
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Config> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong(knob: &Knob, text: &str, error: &dyn std::fmt::Display) -> AdminError {
    wrong_value(knob.name, text, knob.range, error)
}

/// What is said to a value that cannot be.
pub(crate) fn wrong_value(name: &str, text: &str, range: &str, error: &dyn std::fmt::Display) -> AdminError {
    AdminError::Invalid(format!("{name}={text}: {error}; its range is {range}; nothing was changed"))
}

fn unknown(name: &str) -> AdminError {
    let names: Vec<_> = KNOBS.iter().map(|knob| knob.name.to_owned()).chain(client_knobs::names()).collect();
    AdminError::Invalid(format!("there is no knob `{name}`; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests;
