//! The command line of `tmem bench nbd`.

use std::path::PathBuf;

use crate::{error::BenchError, load::LoadArgs};

/// Drives an NBD export with random 4 KiB reads and writes of real pages.
///
/// THE EXPORT'S CONTENT IS OVERWRITTEN.
#[derive(Clone, Debug, clap::Args)]
pub struct NbdArgs {
    /// The Unix socket of the NBD server to drive; what the export holds is overwritten
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// The export's name; none is the server's default
    #[arg(long, value_name = "NAME", default_value = "")]
    pub export: String,
    /// Connections to use, requests spread evenly over them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub connections: u16,
    /// What goes through them.
    #[command(flatten)]
    pub load: LoadArgs,
}

impl NbdArgs {
    /// Refuses what makes no sense before anything is touched.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if !(1..=64).contains(&self.connections) {
            return Err(BenchError::Usage(format!("--connections {}: give 1 to 64", self.connections)));
        }
        self.load.check()
    }
}
