//! QEMU's monitor protocol, QMP (<https://www.qemu.org/docs/master/interop/qmp-spec.html>): a greeting, then commands and their answers, with
//! events in between.

use std::{path::Path, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    ActuatorError,
    json_lines::{JsonLines, returned},
};

/// QEMU greets at once whoever it talks to; this is for a busy host. Less than a call may take, so that the error is the one that helps.
const GREETING: Duration = Duration::from_millis(1500);

/// A monitor that takes commands.
pub(crate) struct Monitor {
    lines: JsonLines,
}

impl Monitor {
    /// Connects and negotiates.
    pub(crate) async fn connect(place: &Path) -> Result<Monitor, ActuatorError> {
        let mut lines = JsonLines::connect(place).await?;
        let taken = |_| ActuatorError::Taken { place: place.into() };
        let greeting = tokio::time::timeout(GREETING, lines.value()).await.map_err(taken)??;
        if greeting.get("QMP").is_none() {
            return Err(lines.garbage(greeting.to_string().as_bytes()));
        }
        let mut monitor = Monitor { lines };
        monitor.command("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    /// How long QEMU has kept CPUs busy, if it is QEMU that listens.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.lines.cpu_time()
    }

    /// Has a command carried out.
    pub(crate) async fn command(&mut self, name: &str, arguments: Value) -> Result<Value, ActuatorError> {
        self.lines.send(b"", &json!({"execute": name, "arguments": arguments})).await?;
        loop {
            let mut answer = self.lines.value().await?;
            if answer.get("event").is_some() {
                continue;
            }
            let place = self.lines.place();
            return match returned(&mut answer) {
                Some(Ok(value)) => Ok(value),
                Some(Err(why)) => {
                    Err(ActuatorError::Refused { place: place.into(), request: name.to_owned(), why })
                }
                None => Err(self.lines.garbage(answer.to_string().as_bytes())),
            };
        }
    }

    /// Has a command carried out whose answer is such a thing.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &mut self,
        name: &str,
        arguments: Value,
    ) -> Result<T, ActuatorError> {
        let answer = self.command(name, arguments).await?;
        let text = answer.to_string();
        serde_json::from_value(answer).map_err(|_| self.lines.garbage(text.as_bytes()))
    }
}
