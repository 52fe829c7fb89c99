//! The file that makes a host a node of a cluster.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, MembershipError};

/// The version of the file.
pub(super) const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invitation {
    #[serde(rename = "tmem-invitation")]
    pub(super) version: u32,
    pub(super) cluster: ClusterId,
    pub(super) name: String,
    /// The node's epochs are greater.
    pub(super) before_epoch: u64,
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// What is looked at first: later versions may have other fields.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "tmem-invitation")]
    version: u32,
}

impl Invitation {
    pub(super) fn text(&self) -> Result<String, MembershipError> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| MembershipError::Damaged {
            path: "invitation".into(),
            why: error.to_string(),
            way_out: "try again",
        })
    }

    pub(super) fn read(text: &str) -> Result<Self, String> {
        let Ok(Head { version }) = serde_json::from_str(text) else {
            return Err("it is no invitation".to_owned());
        };
        if version != VERSION {
            return Err(format!("it is of version {version}, and this tmem knows {VERSION}"));
        }
        let invitation: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if invitation.before_epoch == 0 {
            return Err("its epoch is 0".to_owned());
        }
        Ok(invitation)
    }
}
