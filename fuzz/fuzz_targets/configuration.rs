//! The configuration: the whole file, and the short texts in it, on the command line and in knobs.
//!
//! What cannot be is refused in one line that names the file; what can be is shown as it can be written again.
#![no_main]

use std::{
    cell::RefCell,
    fmt::{Debug, Display},
    path::Path,
    str::FromStr,
    sync::{Arc, atomic::AtomicU32},
};

use libfuzzer_sys::fuzz_target;
use tmem_control::{
    BackgroundCpu, ByteSize, Config, ControlError, DedupChoice, DiskFormat, DiskName, DiskSpec, HttpListen,
    KnobChanges, Knobs, LogLevel, MaxCompressed, NbdAddress, PoolCeiling, PoolSize, Reaction, Recompress,
    RecompressAge, RecompressLevel, Reserve, TierMode, WriteBackAge, poll_us,
};
use tmem_store::{Store, StoreOptions, Weight};

thread_local!(static STORE: RefCell<Arc<Store>> =
    RefCell::new(Store::new(StoreOptions { limit_bytes: 4 << 20 }).expect("a store")));

/// A text is refused in words, or shown as it can be written again.
fn text<T: FromStr<Err = ControlError> + Display + PartialEq + Debug>(text: &str) {
    if let Some(value) = silent::<T>(text) {
        assert_eq!(value.to_string().parse::<T>().expect("what is shown can be read"), value);
    }
}

/// The same for what is shown by its knob only.
fn silent<T: FromStr<Err = ControlError>>(text: &str) -> Option<T> {
    text.parse().map_err(|error: ControlError| assert!(!error.to_string().is_empty())).ok()
}

fn all_texts(said: &str) {
    text::<ByteSize>(said);
    text::<PoolSize>(said);
    text::<Reserve>(said);
    text::<PoolCeiling>(said);
    text::<HttpListen>(said);
    text::<NbdAddress>(said);
    text::<DiskName>(said);
    text::<DiskFormat>(said);
    text::<DedupChoice>(said);
    text::<TierMode>(said);
    text::<WriteBackAge>(said);
    text::<LogLevel>(said);
    silent::<Recompress>(said);
    silent::<RecompressAge>(said);
    silent::<RecompressLevel>(said);
    silent::<BackgroundCpu>(said);
    silent::<MaxCompressed>(said);
    silent::<Reaction>(said);
    let _ = poll_us(said);
    if let Ok(weight) = said.parse::<Weight>() {
        assert_eq!(weight.to_string().parse::<Weight>().expect("what is shown can be read"), weight);
    }
    if let Ok(size) = said.parse::<ByteSize>() {
        assert!(size.rounded().len() <= 6, "{}", size.rounded());
    }
}

fn whole_file(said: &str) {
    let path = Path::new("/etc/tmem.toml");
    let config = match Config::parse(said, path) {
        Ok(config) => config,
        Err(error) => {
            let error = error.to_string();
            assert!(!error.contains('\n') && error.contains("/etc/tmem.toml"), "{error:?}");
            return;
        }
    };
    for disk in &config.disks {
        assert_eq!(disk.check(), Ok(()));
        let body = serde_json::to_string(disk).expect("JSON");
        assert_eq!(&serde_json::from_str::<DiskSpec>(&body).expect("what was written"), disk);
    }
    let _ = (config.tier(), config.nbd_tls(), config.write_back(), config.recompression());
    let store = STORE.with_borrow(Arc::clone);
    let knobs = Knobs::new(config, store, Arc::<AtomicU32>::default());
    let shown = knobs.list();
    let same = shown.knobs.iter().map(|knob| (knob.name.clone(), knob.value.clone())).collect();
    knobs.set(&KnobChanges { knobs: same }).expect("what is shown can be set");
    assert_eq!(knobs.list(), shown);
}

fuzz_target!(|input: &[u8]| {
    let Ok(said) = std::str::from_utf8(input) else { return };
    all_texts(said);
    whole_file(said);
});
