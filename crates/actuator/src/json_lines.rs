//! A line of JSON each way, as QEMU's monitor and the guest's agent have it.
//!
//! Not the crate `qapi` (0.15): it takes lines of any length; an event that it does not know ends its connection, and every release of QEMU
//! has new ones; it panics when a command was given up and another follows; and the agent can leave a connection's old answers in the
//! channel, past which it finds no way (`guest-sync-delimited`). Its types for all of QEMU are 55 MB to build, for six commands.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    ActuatorError, cpu_time,
    limits::{MAX_ANSWER_BYTES, quoted},
};

/// What is read at once, in bytes: a usual answer.
const CHUNK_BYTES: usize = 4096;

/// A connection.
pub(crate) struct JsonLines {
    place: PathBuf,
    stream: UnixStream,
    /// What was received and not taken yet.
    received: Vec<u8>,
    /// Of it, so many bytes were looked at and have no end of a line.
    looked_at: usize,
    /// How many bytes may come before the next command.
    left_bytes: usize,
}

impl JsonLines {
    /// Connects.
    pub(crate) async fn connect(place: &Path) -> Result<JsonLines, ActuatorError> {
        let unreachable = |source| ActuatorError::Unreachable { place: place.into(), source };
        let stream = UnixStream::connect(place).await.map_err(unreachable)?;
        let received = Vec::new();
        Ok(JsonLines { place: place.into(), stream, received, looked_at: 0, left_bytes: MAX_ANSWER_BYTES })
    }

    /// How long whoever answers has kept CPUs busy, where it is a hypervisor.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        cpu_time::of_peer(&self.stream)
    }

    /// Where it is.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Sends a line, behind these bytes. Answers may be as long as they may from here on.
    pub(crate) async fn send(&mut self, before: &[u8], line: &Value) -> Result<(), ActuatorError> {
        self.left_bytes = MAX_ANSWER_BYTES;
        let bytes = [before, line.to_string().as_bytes(), b"\n"].concat();
        self.stream.write_all(&bytes).await.map_err(|error| self.broke_off(error))
    }

    /// The next line, as it is.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>, ActuatorError> {
        loop {
            if let Some(end) = self.received[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=self.looked_at + end).collect();
                line.pop();
                self.looked_at = 0;
                return Ok(line);
            }
            self.looked_at = self.received.len();
            let mut chunk = [0; CHUNK_BYTES];
            let got = self.stream.read(&mut chunk).await.map_err(|error| self.broke_off(error))?;
            if got == 0 {
                return Err(self.broke_off("it closed the connection"));
            }
            let (place, limit_bytes) = (self.place.clone(), MAX_ANSWER_BYTES);
            let too_long = ActuatorError::TooLong { place, limit_bytes };
            self.left_bytes = self.left_bytes.checked_sub(got).ok_or(too_long)?;
            self.received.extend_from_slice(&chunk[..got]);
        }
    }

    /// The next line that is not empty.
    pub(crate) async fn value(&mut self) -> Result<Value, ActuatorError> {
        loop {
            let line = self.line().await?;
            if !line.trim_ascii().is_empty() {
                return serde_json::from_slice(&line).map_err(|_| self.garbage(&line));
            }
        }
    }

    /// What it answered makes no sense.
    pub(crate) fn garbage(&self, answer: &[u8]) -> ActuatorError {
        let what = quoted(&String::from_utf8_lossy(answer));
        ActuatorError::Garbage { place: self.place.clone(), what }
    }

    fn broke_off(&self, why: impl ToString) -> ActuatorError {
        ActuatorError::BrokeOff { place: self.place.clone(), why: why.to_string() }
    }
}

/// What an answer returns, or what the other side says is wrong with the command. `None`: it is no answer.
pub(crate) fn returned(answer: &mut Value) -> Option<Result<Value, String>> {
    if let Some(value) = answer.get_mut("return") {
        return Some(Ok(value.take()));
    }
    let error = answer.get("error")?;
    let text = error.get("desc").and_then(Value::as_str).map_or_else(|| error.to_string(), str::to_owned);
    Some(Err(quoted(&text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(future)
    }

    /// A connection to somebody who sends these pieces and goes.
    async fn hears(pieces: Vec<Vec<u8>>) -> JsonLines {
        let (stream, mut other) = UnixStream::pair().expect("a pair");
        tokio::spawn(async move {
            for piece in pieces {
                // It fails when the test has heard enough.
                let _ = other.write_all(&piece).await;
                tokio::task::yield_now().await;
            }
        });
        let (received, left_bytes) = (Vec::new(), MAX_ANSWER_BYTES);
        JsonLines { place: "/x".into(), stream, received, looked_at: 0, left_bytes }
    }

    proptest! {
        /// However the bytes arrive, lines are those that were sent, and what is no line any more is an error.
        #[test]
        fn lines_are_those_that_were_sent(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| bytes[cut[0]..cut[1]].to_vec()).collect();
            let mut expected: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            expected.pop();
            run(async {
                let mut lines = hears(pieces).await;
                for line in expected {
                    assert_eq!(lines.line().await.expect("a line"), line);
                }
                assert!(matches!(lines.line().await, Err(ActuatorError::BrokeOff { .. })));
            });
        }

        /// Whatever a line is, it is JSON or garbage.
        #[test]
        fn a_line_is_json_or_garbage(line in prop::collection::vec(any::<u8>(), 1..100)) {
            run(async {
                let mut lines = hears(vec![line.clone(), b"\n7\n".to_vec()]).await;
                match lines.value().await {
                    Ok(mut value) => drop(returned(&mut value)),
                    Err(error) => {
                        let text = error.to_string();
                        assert!(matches!(error, ActuatorError::Garbage { .. }), "{text}");
                        assert!(!text.contains('\n') && text.len() < 2000, "{text}");
                    }
                }
            });
        }
    }

    #[test]
    fn an_answer_without_end_ends() {
        run(async {
            let mut lines = hears(vec![vec![b'x'; 1 << 16]; 100]).await;
            assert!(matches!(lines.line().await, Err(ActuatorError::TooLong { .. })));
            assert!(lines.received.len() <= MAX_ANSWER_BYTES);
        });
    }

    #[test]
    fn an_answer_returns_something_or_says_why_not() {
        assert_eq!(returned(&mut json!({"return": {"a": 1}})), Some(Ok(json!({"a": 1}))));
        assert_eq!(
            returned(&mut json!({"error": {"desc": "no\nballoon"}})),
            Some(Err(r"no\nballoon".into()))
        );
        assert_eq!(returned(&mut json!({"error": 7})), Some(Err("7".into())));
        assert_eq!(returned(&mut json!({"event": "RESET"})), None);
        assert_eq!(returned(&mut json!([])), None);
    }
}
