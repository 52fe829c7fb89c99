//! The command line of `tmem bench vhost`.

use std::path::PathBuf;

use crate::{error::BenchError, load::LoadArgs};

/// Drives the virtqueue of a vhost-user-blk socket with random 4 KiB reads and writes of real pages.
///
/// THE DISK'S CONTENT IS OVERWRITTEN.
#[derive(Clone, Debug, clap::Args)]
pub struct VhostArgs {
    /// The vhost-user-blk socket to drive; what the disk holds is overwritten
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Virtqueues to use, requests spread evenly over them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub queues: u16,
    /// What goes through them.
    #[command(flatten)]
    pub load: LoadArgs,
}

impl VhostArgs {
    /// Refuses what makes no sense before anything is touched.
    pub(super) fn check(&self) -> Result<(), BenchError> {
        if self.queues == 0 {
            return Err(BenchError::Usage("--queues 0: give at least 1".into()));
        }
        self.load.check()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use std::path::Path;

    use tmem_control::ByteSize;

    use super::*;
    use crate::load::Completion;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: VhostArgs,
    }

    fn parse(line: &str) -> Result<VhostArgs, String> {
        let line = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        line.args.check().map_err(|error| error.to_string())?;
        Ok(line.args)
    }

    #[test]
    fn defaults_are_depth_1_and_32_with_polling() {
        let args = parse("x --socket s").unwrap();
        assert_eq!((args.load.depth, args.load.read_percent), (vec![1, 32], vec![100, 0, 50]));
        assert_eq!((args.load.completion, args.load.size), (Completion::Poll, ByteSize::from_bytes(1 << 30)));
    }

    #[test]
    fn nonsense_is_refused_with_its_name() {
        for (line, name) in [
            ("x --socket s --depth 0", "--depth"),
            ("x --socket s --depth 1,1000", "--depth"),
            ("x --socket s --seconds 0", "--seconds"),
            ("x --socket s --seconds NaN", "--seconds"),
            ("x --socket s --queues 0", "--queues"),
            ("x --socket s --read-percent 101", "--read-percent"),
            ("x --socket s --size 1Z", "--size"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(name), "{line}: {error}");
        }
    }

    #[test]
    fn region_must_fit_the_disk() {
        let args = parse("x --socket s --size 1G").unwrap();
        assert_eq!(args.load.region_blocks(Path::new("s"), 1 << 30).unwrap(), 262_144);
        assert!(matches!(
            args.load.region_blocks(Path::new("s"), (1 << 30) - 4096),
            Err(BenchError::DiskTooSmall { .. })
        ));
        let args = parse("x --socket s --size 64K").unwrap();
        assert!(matches!(args.load.region_blocks(Path::new("s"), 1 << 30), Err(BenchError::Usage(_))));
    }
}
