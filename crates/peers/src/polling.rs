//! Looking for bytes a short while before sleeping: to be woken costs more than a round trip between two hosts takes.

use std::{
    io,
    time::{Duration, Instant},
};

use tmem_transport::PollPolicy;

use crate::stream::Stream;

/// For how long it is looked at most. A round trip between hosts side by side takes a tenth of it; but the first are measured with all threads asleep,
/// and where a processor has to be woken first, as in virtual machines, that adds up to 100 us. With a limit below that nothing would ever come in time.
const LIMIT_US: u32 = 200;

/// When a thread that receives looks, and when it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Polling {
    policy: PollPolicy,
    /// Since when nothing has come, and whether it was looked for in vain.
    wait: Option<(Instant, bool)>,
    /// How often it was looked in vain since something was last found, and how many times are left to be slept through for it.
    vain: u32,
    skipped: u32,
}

/// After looking in vain, 2 to the power of this many times at most are slept through: the peer may wait for this very processor.
const MOST_VAIN: u32 = 6;

impl Polling {
    /// As [`Stream::receive`]. It looks only if it may: not where others of this process have better to do with the processor.
    pub(crate) fn receive(&mut self, stream: &Stream, into: &mut [u8], may_look: bool) -> io::Result<usize> {
        let is_first = self.wait.is_none();
        let (since, in_vain) = self.wait.get_or_insert_with(|| (Instant::now(), false));
        let mut window_us = if is_first && may_look { self.policy.window_us(LIMIT_US) } else { 0 };
        if window_us > 0 && self.skipped > 0 {
            self.skipped -= 1;
            window_us = 0;
        }
        let mut looked = None;
        if window_us > 0 {
            let end = *since + Duration::from_micros(u64::from(window_us));
            loop {
                looked = stream.receive_if_there(into)?;
                if looked.is_some() || Instant::now() >= end {
                    break;
                }
                std::hint::spin_loop();
            }
            *in_vain = looked.is_none();
            self.vain = if *in_vain { (self.vain + 1).min(MOST_VAIN) } else { 0 };
            self.skipped = (1 << self.vain) - 1;
        }
        let received = match looked {
            Some(received) => received,
            None => stream.receive(into)?,
        };
        if let Some((since, in_vain)) = self.wait.take() {
            let gap_us = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
            self.policy.request_after(gap_us, in_vain, LIMIT_US);
        }
        Ok(received)
    }
}
