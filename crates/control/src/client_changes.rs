//! What can be changed of a client while the daemon runs.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use tmem_store::{Client, ClientSettings, Store, StoreError, Weight};

use crate::AdminError;

/// Body of `PATCH /api/v1/clients/NAME`: what is named changes, all at once, and the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientChanges {
    /// Whether its puts are refused from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// The most of the pool that its pages may take, in bytes; null: up to the pool's limit.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_a_value")]
    pub cap_bytes: Option<Option<u64>>,
    /// Its share under pressure, relative to others'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A field that is absent and one that is null are not the same.
fn null_is_a_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ClientChanges {
    /// Sees whether they can be made to a client of the store, and makes none.
    ///
    /// # Errors
    /// [`AdminError::NotFound`]: there is none of that name. [`AdminError::Invalid`]: a value is out of its range. Nothing has
    /// changed then.
    pub(crate) fn check(&self, store: &Store, name: &str) -> Result<CheckedChanges, AdminError> {
        let client = store.client(name).ok_or_else(|| no_such_client(name))?;
        let invalid = |error: StoreError| AdminError::Invalid(format!("client {name}: {error}"));
        let weight = self.weight.map(Weight::new).transpose().map_err(invalid)?;
        if self.cap_bytes == Some(Some(0)) {
            return Err(AdminError::Invalid(format!(
                "client {name}: cap 0 leaves no room for a page; give a size, or none to lift it"
            )));
        }
        let Self { frozen, cap_bytes, .. } = *self;
        if let Some(Some(cap_bytes)) = cap_bytes {
            ClientSettings::check_cap(cap_bytes).map_err(invalid)?;
        }
        Ok(CheckedChanges { client, frozen, cap_bytes, weight })
    }
}

/// Changes that can be made.
pub(crate) struct CheckedChanges {
    client: Arc<Client>,
    frozen: Option<bool>,
    cap_bytes: Option<Option<u64>>,
    weight: Option<Weight>,
}

impl CheckedChanges {
    /// Makes them. A client that was removed meanwhile takes them along.
    pub(crate) fn apply(self) {
        let Self { client, frozen, cap_bytes, weight } = self;
        let _removed = client.change(|settings| {
            settings.frozen = frozen.unwrap_or(settings.frozen);
            settings.cap_bytes = cap_bytes.unwrap_or(settings.cap_bytes);
            settings.weight = weight.unwrap_or(settings.weight);
        });
        if let Some(frozen) = frozen {
            log::info!("client {}: {}", client.name(), if frozen { "frozen" } else { "thawed" });
        }
    }
}

pub(crate) fn no_such_client(name: &str) -> AdminError {
    AdminError::NotFound(format!("client {name} does not exist; `tmem status` shows those that do"))
}

#[cfg(test)]
mod tests {
    use tmem_store::{ClientKind, ClientOptions, Dedup, StoreOptions};

    use super::*;

    fn read(body: &str) -> Result<ClientChanges, String> {
        serde_json::from_str(body).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_stays_and_null_is_no_cap() {
        let store = Store::new(StoreOptions { limit_bytes: 8 << 20 }).expect("store");
        let options = ClientOptions {
            name: "vm1".to_owned(),
            kind: ClientKind::Native,
            cap_bytes: Some(4096),
            weight: Weight::default(),
            dedup: Dedup::Alone,
        };
        let client = store.create_client(options).expect("client");
        let mut expected = client.settings();
        let mut change = |body: &str, expect: &dyn Fn(&mut ClientSettings)| {
            let change = read(body).expect("a body");
            change.check(&store, "vm1").expect("change").apply();
            expect(&mut expected);
            assert_eq!(client.settings(), expected, "{body}");
            assert_eq!(read(&serde_json::to_string(&change).expect("json")), Ok(change));
        };
        change("{}", &|_| {});
        change(r#"{"frozen": true}"#, &|settings| settings.frozen = true);
        change(r#"{"weight": 7}"#, &|settings| settings.weight = Weight::new(7).expect("weight"));
        change(r#"{"cap_bytes": null, "frozen": false}"#, &|settings| {
            (settings.cap_bytes, settings.frozen) = (None, false);
        });
        change(r#"{"cap_bytes": 8192}"#, &|settings| settings.cap_bytes = Some(8192));
        for (body, mentions) in [
            (r#"{"frozen": true, "weight": 0}"#, "1 to 10000"),
            (r#"{"frozen": true, "cap_bytes": 0}"#, "none to lift it"),
            (r#"{"frozen": true, "cap_bytes": 1099511627777}"#, "1024 GiB"),
        ] {
            let checked = read(body).expect("a body").check(&store, "vm1");
            let Err(AdminError::Invalid(text)) = checked else { panic!("{body} passes") };
            assert!(text.starts_with("client vm1: ") && text.contains(mentions), "{text}");
            assert_eq!(client.settings(), expected, "{body}");
        }
        let checked = ClientChanges::default().check(&store, "vm9");
        assert!(
            matches!(&checked, Err(AdminError::NotFound(text)) if text.contains("vm9") && text.contains("tmem status"))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for body in
            ["", r#"{"frozn": true}"#, r#"{"frozen": "yes"}"#, r#"{"weight": -1}"#, r#"{"cap_bytes": "1M"}"#]
        {
            assert!(read(body).is_err(), "{body}");
        }
    }
}
