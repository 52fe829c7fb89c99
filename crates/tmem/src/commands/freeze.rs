//! `tmem freeze` and `tmem thaw`.

use clap::Args;
use tmem_control::{AdminClient, ClientChanges};

use crate::Outcome;

/// `tmem freeze` and `tmem thaw`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Name of the client; a disk's client has its name
    client: String,
}

/// Freezes or thaws a client.
pub(crate) fn run(arguments: &Arguments, frozen: bool, client: &AdminClient) -> Outcome {
    let changes = ClientChanges { frozen: Some(frozen), ..ClientChanges::default() };
    client.change_client(&arguments.client, &changes)?;
    Ok(())
}
