//! The other end of the admin socket, for the command line.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{
    ADMIN_SOCKET, AdminError, BalanceOrder, BalanceOrders, BalanceReport, ClientChanges, ClientStatus,
    ControlError, DiskInfo, DiskList, DiskName, DiskSpec, ForgottenReport, KnobChanges, KnobList, Status,
    UpgradeStatus, balancing::OrderAccepted,
};

/// The largest answer taken, in bytes: some ten thousand clients.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// The daemon itself gives up after 300 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(310);

/// Talks to the daemon of one runtime directory, one request at a time, blocking.
pub struct AdminClient {
    socket: PathBuf,
    patience: Duration,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl AdminClient {
    /// A client of the daemon that owns this directory. Nothing is connected yet.
    pub fn new(runtime_dir: &Path) -> Self {
        Self { socket: runtime_dir.join(ADMIN_SOCKET), patience: ANSWER_TIMEOUT }
    }

    /// The same, that waits for an answer for so long. By itself it waits for as long as the daemon may take.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// `GET /api/v1/status`.
    ///
    /// # Errors
    /// No daemon, or it broke off.
    pub fn status(&self) -> Result<Status, ControlError> {
        self.parsed(&self.status_json()?)
    }

    /// The same as the daemon wrote it, with fields that this client does not know.
    ///
    /// # Errors
    /// As [`AdminClient::status`].
    pub fn status_json(&self) -> Result<String, ControlError> {
        self.request(Method::GET, "/api/v1/status", Bytes::new())
    }

    /// `GET /api/v1/disks`.
    ///
    /// # Errors
    /// No daemon, or it broke off.
    pub fn disks(&self) -> Result<Vec<DiskInfo>, ControlError> {
        let text = self.request(Method::GET, "/api/v1/disks", Bytes::new())?;
        self.parsed::<DiskList>(&text).map(|list| list.disks)
    }

    /// `POST /api/v1/disks`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn add_disk(&self, spec: &DiskSpec) -> Result<DiskInfo, ControlError> {
        let body = serde_json::to_vec(spec).map_err(|error| self.broke_off(&error))?;
        let text = self.request(Method::POST, "/api/v1/disks", Bytes::from(body))?;
        self.parsed(&text)
    }

    /// `DELETE /api/v1/disks/{name}`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn remove_disk(&self, name: &DiskName, force: bool) -> Result<(), ControlError> {
        let path = format!("/api/v1/disks/{name}?force={force}");
        self.request(Method::DELETE, &path, Bytes::new()).map(|_| ())
    }

    /// `DELETE /api/v1/cluster/borrowers/{name}`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn forget_borrower(&self, name: &str) -> Result<ForgottenReport, ControlError> {
        let path = format!("/api/v1/cluster/borrowers/{}", in_path(name));
        self.parsed(&self.request(Method::DELETE, &path, Bytes::new())?)
    }

    /// `PATCH /api/v1/clients/{name}`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn change_client(&self, name: &str, changes: &ClientChanges) -> Result<ClientStatus, ControlError> {
        let body = serde_json::to_vec(changes).map_err(|error| self.broke_off(&error))?;
        let path = format!("/api/v1/clients/{}", in_path(name));
        let text = self.request(Method::PATCH, &path, Bytes::from(body))?;
        self.parsed(&text)
    }

    /// `GET /api/v1/knobs`.
    ///
    /// # Errors
    /// No daemon, or it broke off.
    pub fn knobs(&self) -> Result<KnobList, ControlError> {
        self.parsed(&self.knobs_json()?)
    }

    /// The same as the daemon wrote it.
    ///
    /// # Errors
    /// As [`AdminClient::knobs`].
    pub fn knobs_json(&self) -> Result<String, ControlError> {
        self.request(Method::GET, "/api/v1/knobs", Bytes::new())
    }

    /// `PATCH /api/v1/knobs`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn set_knobs(&self, changes: &KnobChanges) -> Result<KnobList, ControlError> {
        let body = serde_json::to_vec(changes).map_err(|error| self.broke_off(&error))?;
        let text = self.request(Method::PATCH, "/api/v1/knobs", Bytes::from(body))?;
        self.parsed(&text)
    }

    /// `GET /api/v1/upgrade`.
    ///
    /// # Errors
    /// No daemon, or it broke off.
    pub fn upgrade_status(&self) -> Result<UpgradeStatus, ControlError> {
        self.parsed(&self.request(Method::GET, "/api/v1/upgrade", Bytes::new())?)
    }

    /// `POST /api/v1/upgrade`.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn upgrade(&self) -> Result<UpgradeStatus, ControlError> {
        self.parsed(&self.request(Method::POST, "/api/v1/upgrade", Bytes::new())?)
    }

    /// `POST /api/v1/balance`: tells what a balancer sees and does. Gives what people want of it.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn report_balance(&self, report: &BalanceReport) -> Result<BalanceOrders, ControlError> {
        let body = serde_json::to_vec(report).map_err(|error| self.broke_off(&error))?;
        let text = self.request(Method::POST, "/api/v1/balance", Bytes::from(body))?;
        self.parsed(&text)
    }

    /// `PATCH /api/v1/balance`: has the balancer take an order along. Gives its number, which the report's `heard` reaches.
    ///
    /// # Errors
    /// No daemon, it broke off, or it said no.
    pub fn order_balance(&self, order: &BalanceOrder) -> Result<u64, ControlError> {
        let body = serde_json::to_vec(order).map_err(|error| self.broke_off(&error))?;
        let text = self.request(Method::PATCH, "/api/v1/balance", Bytes::from(body))?;
        self.parsed::<OrderAccepted>(&text).map(|accepted| accepted.number)
    }

    fn broke_off(&self, why: &dyn std::fmt::Display) -> ControlError {
        ControlError::Conversation { path: self.socket.clone(), why: why.to_string() }
    }

    fn no_daemon(&self, source: io::Error) -> ControlError {
        ControlError::NoDaemon { path: self.socket.clone(), source }
    }

    fn parsed<T: DeserializeOwned>(&self, text: &str) -> Result<T, ControlError> {
        serde_json::from_str(text)
            .map_err(|error| self.broke_off(&format!("its answer cannot be read ({error})")))
    }

    /// The body of an answer that says yes.
    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<String, ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.broke_off(&error))?;
        runtime.block_on(async {
            match tokio::time::timeout(self.patience, self.exchange(method, path, body)).await {
                Ok(answer) => answer,
                Err(_) => {
                    Err(self.broke_off(&format!("no answer within {} seconds", self.patience.as_secs())))
                }
            }
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<String, ControlError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.no_daemon(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broke_off(&error))?;
        // The connection moves the bytes; what goes wrong with it is told by the request, too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "tmem")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broke_off(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broke_off(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| self.broke_off(&error))?
            .to_bytes();
        let text = String::from_utf8(body.into()).map_err(|error| self.broke_off(&error))?;
        if status.is_success() {
            return Ok(text);
        }
        let ErrorBody { error } = self.parsed(&text)?;
        Err(ControlError::Admin(match status {
            StatusCode::NOT_FOUND => AdminError::NotFound(error),
            StatusCode::CONFLICT => AdminError::Conflict(error),
            status if status.is_client_error() => AdminError::Invalid(error),
            _ => AdminError::Failed(error),
        }))
    }
}

/// A name as a part of a path: whatever else has a meaning there is escaped.
fn in_path(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let escaped = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        assert_eq!(in_path("vm-1.a_B"), "vm-1.a_B");
        assert_eq!(in_path("a/b?c d%"), "a%2Fb%3Fc%20d%25");
        assert_eq!(in_path("ü"), "%C3%BC");
    }
}
