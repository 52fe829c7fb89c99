//! Everything that can go wrong in this crate.

use std::{io, path::PathBuf};

/// What failed, on what, and the way out. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// A label that is none.
    #[error("`{text}` is no label for what fails together: write 1 to 63 of A-Z a-z 0-9 . _ -")]
    Domain {
        /// What was written.
        text: String,
    },
    /// A file of the node's directory, or an invitation.
    #[error("{path} {what}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {why}; {way_out}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A second cluster in one directory.
    #[error(
        "this host is in a cluster already, by {directory}; to leave that for good, stop tmem and move the directory away"
    )]
    AlreadyInACluster {
        /// Its directory.
        directory: PathBuf,
    },
    /// Half a cluster.
    #[error(
        "{path} is there already, of an earlier cluster or one that was not finished; move {directory} away, and try again"
    )]
    LeftOver {
        /// What is there.
        path: PathBuf,
        /// Where.
        directory: PathBuf,
    },
    /// No cluster.
    #[error(
        "{directory} has no cluster: run `tmem cluster init` for a new one, or `tmem cluster invite NAME` on the host that made yours and `tmem cluster join FILE` here"
    )]
    NotInACluster {
        /// Where one was looked for.
        directory: PathBuf,
    },
    /// Certificates are made elsewhere.
    #[error(
        "{directory} has no ca-key.pem: certificates are made on the host where `tmem cluster init` was run; do it there"
    )]
    NoAuthority {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A name that no certificate can carry.
    #[error(
        "`{name}` is no name for a node: use a host's name such as host-a, 1 to 63 of a-z 0-9 . - with letters or digits at the start and end of each part, and a letter in the last one"
    )]
    Name {
        /// What was written.
        name: String,
    },
    /// The host that has the authority invites itself.
    #[error("{name} is this host itself; for a new certificate of its own run `tmem cluster renew`")]
    InvitedItself {
        /// Its name.
        name: String,
    },
    /// An invitation for a host that is somebody else.
    #[error(
        "{path} is for node {invited} of cluster {cluster}, and this host is {name} of {own_cluster}; ask for one for {name} there"
    )]
    OtherInvitation {
        /// The invitation.
        path: PathBuf,
        /// Whom it is for.
        invited: String,
        /// Of which cluster.
        cluster: String,
        /// Who is here.
        name: String,
        /// Of which cluster.
        own_cluster: String,
    },
    /// Certificates and keys that do not go with each other.
    #[error(
        "{path} does not go with the others in {directory}: {why}; have this host invited again, and `tmem cluster join --renew FILE`"
    )]
    Certificates {
        /// One of them.
        path: PathBuf,
        /// Where.
        directory: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// A certificate that says no node's name, or several.
    #[error("the peer's certificate is not of a node: {why}")]
    NoNodesCertificate {
        /// What it says instead.
        why: String,
    },
    /// The kernel gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// A life that has been too long.
    #[error("{path}: the epoch cannot become any greater; have this host invited again")]
    LastEpoch {
        /// The file.
        path: PathBuf,
    },
    /// A peer of the list that makes no sense.
    #[error(
        "`{text}` is no peer: {why}; write NAME=IP:PORT or NAME=IP:PORT,DOMAIN such as host-b=10.0.0.2:7790,rack-1"
    )]
    Peer {
        /// What was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A list in which something is there twice.
    #[error("peer {name}: {why}")]
    Peers {
        /// Which.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// An address of etcd's that makes no sense.
    #[error(
        "`{text}` is no address of etcd: write http://HOST:PORT or https://HOST:PORT such as https://10.0.0.1:2379"
    )]
    Endpoint {
        /// What was written.
        text: String,
    },
    /// Addresses of etcd's with and without TLS.
    #[error(
        "{one} and {other} are not spoken to in the same way: all of one etcd are https:// or all are http://"
    )]
    MixedEndpoints {
        /// The first.
        one: String,
        /// One that is not like it.
        other: String,
    },
    /// Files for TLS to etcd that are not what they should be.
    #[error("{key}: {why}; {way_out}")]
    EtcdTls {
        /// Which file.
        key: &'static str,
        /// What is wrong with it.
        why: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A login with nothing in it.
    #[error("{key} is empty: give both etcd-user and etcd-password-file, or none of them")]
    EtcdLogin {
        /// Which part.
        key: &'static str,
    },
    /// The thread for it cannot be started.
    #[error("cannot start the thread that asks etcd who is there: {0}")]
    Thread(io::Error),
}
