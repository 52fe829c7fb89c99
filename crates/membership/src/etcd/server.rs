//! One of etcd's addresses: connections to it, and what its answers mean.

use std::{error::Error as _, future::Future, sync::Arc, time::Duration};

use etcd_client::{Client, ConnectOptions, Error};
use tokio::{task, time};

use super::{EtcdSettings, ended::Ended, probe, words};

/// So long an answer is waited for: half of it is more than etcd takes when its disk is slow, and all of it less than a lease has left.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// One of etcd's addresses.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) settings: Arc<EtcdSettings>,
    /// What the keys begin with that a node reads and writes there.
    pub(crate) prefix: String,
}

impl Server {
    /// Connects, and logs in where there is a login. A login that runs out is renewed by whoever asks next.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        let mut options = ConnectOptions::new().with_connect_timeout(ANSWER).with_require_leader(true);
        if let Some(tls) = &self.settings.tls {
            options = options.with_tls(tls.options());
        }
        if let Some(login) = &self.settings.login {
            options = options.with_user(&login.user, &login.password).with_auto_token_refresh(true);
        }
        Client::connect([&self.endpoint], Some(options)).await
    }

    /// What etcd answers, in time.
    pub(crate) async fn answer<T>(&self, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Ended> {
        match time::timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.refused_or_lost(&error).await),
            Err(_) => Err(self.silent()),
        }
    }

    /// What an error means of somebody who asked. Where a connection ended without a reason, that is looked for.
    pub(crate) async fn refused_or_lost(&self, error: &Error) -> Ended {
        match error {
            Error::GRpcStatus(status)
                if status.source().is_some() && words::of_connection(self, status.source()).is_none() =>
            {
                let why = time::timeout(ANSWER, self.probed()).await;
                why.ok().flatten().map_or_else(|| self.failed(error), |why| self.wrong(why))
            }
            error => self.failed(error),
        }
    }

    /// Why TLS fails, where the connection alone did not say it: it may be closed before its last word is read.
    async fn probed(&self) -> Option<String> {
        let server = self.clone();
        let probed = task::spawn_blocking(move || probe::handshake(&server)).await;
        words::of_handshake(self, &probed.ok()??)
    }

    /// What an error means.
    pub(crate) fn failed(&self, error: &Error) -> Ended {
        self.wrong(match error {
            Error::GRpcStatus(status) => match status.source() {
                // etcd itself says so.
                None => words::of_refusal(self, status.message()),
                cause => {
                    words::of_connection(self, cause).unwrap_or_else(|| words::said(status.message(), cause))
                }
            },
            Error::TransportError(error) => words::said(&error.to_string(), error.source()),
            other => words::said(&other.to_string(), None),
        })
    }

    /// What etcd says that it does not do.
    pub(crate) fn refused(&self, message: &str) -> Ended {
        self.wrong(words::of_refusal(self, message))
    }

    pub(crate) fn silent(&self) -> Ended {
        self.wrong("no answer".to_owned())
    }

    pub(crate) fn wrong(&self, why: String) -> Ended {
        Ended::Failed { endpoint: self.endpoint.clone(), why }
    }

    pub(crate) fn given_up(&self, why: &'static str) -> Ended {
        Ended::GivenUp { endpoint: self.endpoint.clone(), why }
    }
}
