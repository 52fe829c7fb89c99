//! `tmem sample`: pages of a running process, for the benchmarks.

use tmem_bench::sample;
pub(crate) use tmem_bench::sample::SampleArgs as Arguments;

use crate::Outcome;

/// Writes the file and says what is in it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    Ok(sample::run(arguments).map_err(anyhow::Error::from)?)
}
