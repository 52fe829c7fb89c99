//! Connections to one server, or to all members of a cluster.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, Cmd, Connection, ConnectionLike, IntoConnectionInfo, Pipeline, RedisError, RedisResult,
    TlsCertificates, Value,
    cluster::{ClusterClient, ClusterConnection, ClusterPipeline, cluster_pipe},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{error::RedisTierError, options::RedisTierOptions};

/// How often the client library looks for the right member of a cluster, for one command.
const CLUSTER_RETRIES: u32 = 2;
/// And how long it waits in between, in milliseconds.
const CLUSTER_PAUSES_MS: (u64, u64) = (20, 200);

/// What connections are made from.
#[derive(Clone)]
pub(crate) struct Server {
    kind: Kind,
    connect_patience: Duration,
}

#[derive(Clone)]
enum Kind {
    One(Arc<Client>),
    Cluster(Arc<ClusterClient>),
}

/// A connection.
pub(crate) enum Link {
    One(Box<Connection>),
    Cluster(Box<ClusterConnection>),
}

/// Commands that are sent together.
pub(crate) enum Batch {
    One(Pipeline),
    Cluster(ClusterPipeline),
}

impl Server {
    /// Errors: the address and the certificates do not go together. Connects to nobody.
    pub(crate) fn new(options: &RedisTierOptions, patience: Duration) -> Result<Self, RedisTierError> {
        let address = &options.address;
        let wrong =
            |why: RedisError| RedisTierError::Address { name: address.to_string(), why: why.to_string() };
        let no_tls =
            |why: RedisError| RedisTierError::Tls { name: address.to_string(), why: why.to_string() };
        if let Some(pem) = &options.ca_pem {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            if !all.is_ok_and(|all| !all.is_empty()) {
                let why = "what is given as certificates of authorities has none, in PEM".to_owned();
                return Err(RedisTierError::Tls { name: address.to_string(), why });
            }
        }
        let certificates = address.is_tls.then(|| {
            // Whoever comes second uses the first one's.
            let _ = rustls::crypto::ring::default_provider().install_default();
            TlsCertificates { client_tls: None, root_cert: options.ca_pem.clone() }
        });
        let kind = if address.is_cluster {
            let mut builder = ClusterClient::builder(address.urls())
                .connection_timeout(options.connect_patience)
                .response_timeout(patience)
                .retries(CLUSTER_RETRIES)
                .min_retry_wait(CLUSTER_PAUSES_MS.0)
                .max_retry_wait(CLUSTER_PAUSES_MS.1);
            if let Some(password) = &options.password {
                builder = builder.password(&password.0);
            }
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            Kind::Cluster(Arc::new(builder.build().map_err(wrong)?))
        } else {
            let url = address.urls().pop().unwrap_or_default();
            let mut info = url.into_connection_info().map_err(wrong)?;
            if let Some(password) = &options.password {
                let settings = info.redis_settings().clone().set_password(&password.0);
                info = info.set_redis_settings(settings);
            }
            Kind::One(Arc::new(match certificates {
                Some(certificates) => Client::build_with_tls(info, certificates).map_err(no_tls)?,
                None => Client::open(info).map_err(wrong)?,
            }))
        };
        Ok(Self { kind, connect_patience: options.connect_patience })
    }

    /// Connects. The server has `patience` for each answer.
    pub(crate) fn connect(&self, patience: Duration) -> RedisResult<Link> {
        match &self.kind {
            Kind::One(client) => {
                let connection = client.get_connection_with_timeout(self.connect_patience)?;
                connection.set_read_timeout(Some(patience))?;
                connection.set_write_timeout(Some(patience))?;
                Ok(Link::One(Box::new(connection)))
            }
            Kind::Cluster(client) => {
                let connection = client.get_connection()?;
                connection.set_read_timeout(Some(patience))?;
                connection.set_write_timeout(Some(patience))?;
                Ok(Link::Cluster(Box::new(connection)))
            }
        }
    }

    /// For commands to be sent together.
    pub(crate) fn batch(&self) -> Batch {
        match &self.kind {
            Kind::One(_) => Batch::One(redis::pipe()),
            Kind::Cluster(_) => Batch::Cluster(cluster_pipe()),
        }
    }
}

impl Batch {
    pub(crate) fn add(&mut self, command: Cmd) {
        match self {
            Batch::One(pipeline) => drop(pipeline.add_command(command)),
            Batch::Cluster(pipeline) => drop(pipeline.add_command(command)),
        }
    }
}

impl Link {
    /// Sends a command and waits for the answer.
    pub(crate) fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Link::One(connection) => command.query(connection.as_mut()),
            Link::Cluster(connection) => command.query(connection.as_mut()),
        }
    }

    /// Sends commands and waits for all answers.
    pub(crate) fn run(&mut self, batch: &Batch) -> RedisResult<Vec<Value>> {
        match (self, batch) {
            (Link::One(connection), Batch::One(pipeline)) => pipeline.query(connection.as_mut()),
            (Link::Cluster(connection), Batch::Cluster(pipeline)) => pipeline.query(connection.as_mut()),
            _ => Err(RedisError::from((redis::ErrorKind::Client, "commands for another kind of server"))),
        }
    }

    /// Whether it can go on being used after this error: the server has answered everything that it was asked.
    pub(crate) fn is_sound_after(&self, error: &RedisError) -> bool {
        let is_answer = error.clone().into_server_errors().is_some();
        matches!(self, Link::One(connection) if is_answer && connection.is_open())
    }
}
