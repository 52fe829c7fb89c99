//! One HTTP request on a Unix socket.

use std::{path::Path, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{
    ActuatorError, cpu_time,
    limits::{MAX_ANSWER_BYTES, quoted},
};

/// The longest head of an answer, in bytes. The least that hyper takes is 8192.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// An answer, whatever it says.
pub(crate) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    cpu_time: Option<Duration>,
}

/// Asks, on a connection of its own.
pub(crate) async fn ask(
    place: &Path,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<Answer, ActuatorError> {
    let unreachable = |source| ActuatorError::Unreachable { place: place.into(), source };
    let stream = UnixStream::connect(place).await.map_err(unreachable)?;
    let cpu_time = cpu_time::of_peer(&stream);
    let broke_off = |error: hyper::Error| ActuatorError::BrokeOff {
        place: place.into(),
        why: quoted(&error.to_string()),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broke_off)?;
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| ActuatorError::BrokeOff { place: place.into(), why: error.to_string() })?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broke_off)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => broke_off(*error),
                Err(_) => ActuatorError::TooLong { place: place.into(), limit_bytes: MAX_ANSWER_BYTES },
            }
        })?;
        Ok(Answer { status, body: body.to_bytes().into(), cpu_time })
    };
    // The connection moves the bytes. It ends with the exchange, which also says what is wrong with it.
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    let mut moving = true;
    std::future::poll_fn(|context| {
        moving = moving && connection.as_mut().poll(context).is_pending();
        exchange.as_mut().poll(context)
    })
    .await
}

impl Answer {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// How long the process that answered has kept CPUs busy, where it is a hypervisor.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        self.cpu_time
    }

    /// What a yes says.
    pub(crate) fn read<T: DeserializeOwned>(&self, place: &Path, request: &str) -> Result<T, ActuatorError> {
        self.done(place, request)?;
        serde_json::from_slice(&self.body).map_err(|_| ActuatorError::Garbage {
            place: place.into(),
            what: format!("to {request}: {}", self.text()),
        })
    }

    /// That it is a yes.
    pub(crate) fn done(&self, place: &Path, request: &str) -> Result<(), ActuatorError> {
        if self.status.is_success() {
            return Ok(());
        }
        let why = format!("{} {}", self.status.as_u16(), self.text());
        Err(ActuatorError::Refused { place: place.into(), request: request.to_owned(), why })
    }

    fn text(&self) -> String {
        quoted(&String::from_utf8_lossy(&self.body))
    }
}
