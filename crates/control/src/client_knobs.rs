//! Settings of single clients, as knobs: `vm1.cap`. The table of them.

use std::collections::BTreeMap;

use tmem_store::{ClientSettings, Store, Weight};

use crate::{
    AdminError, ByteSize, ClientChanges, ControlError, KnobInfo, client_changes::CheckedChanges,
    knobs::wrong_value,
};

/// A row of the table.
struct ClientKnob {
    name: &'static str,
    unit: &'static str,
    range: &'static str,
    effect: &'static str,
    get: fn(&ClientSettings) -> String,
    set: fn(&mut ClientChanges, &str) -> Result<(), ControlError>,
}

/// All of them, in the order in which they are shown. A client's knob is named after it: `vm1.cap`.
const CLIENT_KNOBS: [ClientKnob; 2] = [
    ClientKnob {
        name: "cap",
        unit: "size",
        range: "1 to 1T, or none",
        effect: "most of the pool that the client's pages may take; a lower one keeps stored pages and refuses more",
        get: |settings| {
            let cap = settings.cap_bytes.map(ByteSize::from_bytes);
            cap.map_or_else(|| NO_CAP.to_owned(), |cap| cap.to_string())
        },
        set: |changes, text| cap_bytes(text).map(|cap_bytes| changes.cap_bytes = Some(cap_bytes)),
    },
    ClientKnob {
        name: "weight",
        unit: "-",
        range: "1 to 10000",
        effect: "the client's share, relative to others'; beyond it, it does not grow while less than 1/16 of the pool is left",
        get: |settings| settings.weight.to_string(),
        set: |changes, text| {
            let weight: Weight = text.parse().map_err(ControlError::Weight)?;
            changes.weight = Some(weight.get());
            Ok(())
        },
    },
];

/// A client without a cap.
const NO_CAP: &str = "none";

fn cap_bytes(text: &str) -> Result<Option<u64>, ControlError> {
    if text == NO_CAP { Ok(None) } else { text.parse::<ByteSize>().map(|size| Some(size.bytes())) }
}

/// Changes of clients that are asked for, all of them checked together before any is made.
#[derive(Default)]
pub(crate) struct ClientKnobChanges(BTreeMap<String, ClientChanges>);

impl ClientKnobChanges {
    /// Adds one. False: it is not named as a client's knob.
    ///
    /// # Errors
    /// A value that cannot be.
    pub(crate) fn add(&mut self, name: &str, text: &str) -> Result<bool, AdminError> {
        // A client's name may have dots, too.
        let Some((client, name_there)) = name.rsplit_once('.') else { return Ok(false) };
        let Some(knob) = CLIENT_KNOBS.iter().find(|knob| knob.name == name_there) else { return Ok(false) };
        let changes = self.0.entry(client.to_owned()).or_default();
        (knob.set)(changes, text).map_err(|error| wrong_value(name, text, knob.range, &error))?;
        Ok(true)
    }

    /// Sees whether all can be made, and makes none.
    ///
    /// # Errors
    /// A client is not there, or a value cannot be.
    pub(crate) fn check(&self, store: &Store) -> Result<Vec<CheckedChanges>, AdminError> {
        self.0.iter().map(|(client, changes)| changes.check(store, client)).collect()
    }
}

/// The knobs of all clients, by the clients' names.
pub(crate) fn list(store: &Store) -> Vec<KnobInfo> {
    let default = ClientSettings::default();
    let mut clients: Vec<_> =
        store.clients().into_iter().filter_map(|usage| store.client(&usage.name)).collect();
    clients.sort_by(|a, b| a.name().cmp(b.name()));
    let infos = clients.iter().flat_map(|client| {
        let settings = client.settings();
        CLIENT_KNOBS.iter().map(move |knob| KnobInfo {
            name: format!("{}.{}", client.name(), knob.name),
            value: (knob.get)(&settings),
            unit: knob.unit.to_owned(),
            range: knob.range.to_owned(),
            default: (knob.get)(&default),
            effect: knob.effect.to_owned(),
        })
    });
    infos.collect()
}

/// How they are named, for whoever asked for one that is none.
pub(crate) fn names() -> impl Iterator<Item = String> {
    CLIENT_KNOBS.iter().map(|knob| format!("CLIENT.{}", knob.name))
}
