//! What `tmem cluster init`, `invite`, `join` and `renew` do.
//!
//! The authority's key stays on the host that made the cluster. An invitation is one file with all that another host needs, its private key among
//! it, to be carried there by hand. Each invitation of a name begins its epochs above all that an earlier invitation can have reached. So
//! a host that was set up anew is never taken for what it was before.

mod invitation;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use tmem_cluster::{Epoch, NodeName};

use crate::{
    ClusterId, Identity, MembershipError,
    certificates::{Authority, TlsFiles, check_name, fit},
    directory::{AUTHORITY, AUTHORITY_KEY, CERTIFICATE, Directory, INVITED, KEY, failed, write_new},
};
use invitation::Invitation;

/// Epochs between an invitation of a name and the next. A node that restarts each second has enough of them for 136 years.
const EPOCHS_OF_AN_INVITATION: u64 = 1 << 32;

/// Makes a cluster, its authority, and this host its first node.
///
/// # Errors
/// A name that is none, a directory with something of a cluster in it, files that cannot be written.
pub fn init(directory: &Path, name: &str) -> Result<Identity, MembershipError> {
    let name = check_name(name)?;
    let directory = Directory::at(directory);
    directory.make_empty()?;
    let cluster = ClusterId::draw()?;
    let (authority, root) = Authority::make(cluster)?;
    let node = authority.issue(&name)?;
    directory.write(AUTHORITY_KEY, &root.key)?;
    directory.write(AUTHORITY, &root.certificate)?;
    directory.write(INVITED, "{}\n")?;
    directory.write(KEY, &node.key)?;
    directory.write(CERTIFICATE, &node.certificate)?;
    Identity::create(&directory, cluster, name, first_epoch(1))
}

/// Writes an invitation for another host to a file that is not there yet.
///
/// # Errors
/// A name that is none or this host's own, no authority here, a file that is there already or cannot be written.
pub fn invite(directory: &Path, name: &str, file: &Path) -> Result<(), MembershipError> {
    let name = check_name(name)?;
    let directory = Directory::at(directory);
    let own = Identity::load(directory.path())?;
    if own.name() == name {
        return Err(MembershipError::InvitedItself { name: name.to_string() });
    }
    let authority = authority(&directory, own.cluster())?;
    let invited = count(&directory, &name)?;
    let issued = authority.issue(&name)?;
    let invitation = Invitation {
        version: invitation::VERSION,
        cluster: own.cluster(),
        name: name.to_string(),
        before_epoch: first_epoch(invited).0,
        authority: directory.read(AUTHORITY)?,
        certificate: issued.certificate,
        key: issued.key,
    };
    write_new(file, &invitation.text()?).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => {
            failed(file, "is not overwritten; remove it, or write to another file", source)
        }
        _ => failed(file, "cannot be written", source),
    })
}

/// Makes this host the node of an invitation.
///
/// # Errors
/// A file that is no invitation, a directory with something of a cluster in it, files that cannot be written.
pub fn join(directory: &Path, file: &Path) -> Result<Identity, MembershipError> {
    let (invitation, name) = read(file)?;
    let directory = Directory::at(directory);
    directory.make_empty()?;
    directory.write(KEY, &invitation.key)?;
    directory.write(AUTHORITY, &invitation.authority)?;
    directory.write(CERTIFICATE, &invitation.certificate)?;
    Identity::create(&directory, invitation.cluster, name, Epoch(invitation.before_epoch))
}

/// Takes only the certificate of an invitation, for the node that this host is already.
///
/// # Errors
/// As [`join`]; an invitation for another node.
pub fn renew_from(directory: &Path, file: &Path) -> Result<Identity, MembershipError> {
    let (invitation, name) = read(file)?;
    let directory = Directory::at(directory);
    let own = Identity::load(directory.path())?;
    if (own.cluster(), own.name()) != (invitation.cluster, name) {
        return Err(MembershipError::OtherInvitation {
            path: file.to_owned(),
            invited: name.to_string(),
            cluster: invitation.cluster.to_string(),
            name: own.name().to_string(),
            own_cluster: own.cluster().to_string(),
        });
    }
    replace(&directory, &invitation.key, &invitation.certificate)?;
    Ok(own)
}

/// Makes a new certificate for the host that has the authority.
///
/// # Errors
/// No authority here, files that cannot be written.
pub fn renew(directory: &Path) -> Result<Identity, MembershipError> {
    let directory = Directory::at(directory);
    let own = Identity::load(directory.path())?;
    let issued = authority(&directory, own.cluster())?.issue(&own.name())?;
    replace(&directory, &issued.key, &issued.certificate)?;
    Ok(own)
}

/// Whoever is interrupted between the two finds that they do not go with each other, and does it again.
fn replace(directory: &Directory, key: &str, certificate: &str) -> Result<(), MembershipError> {
    directory.write(KEY, key)?;
    directory.write(CERTIFICATE, certificate)
}

fn first_epoch(invited: u64) -> Epoch {
    Epoch(invited.saturating_mul(EPOCHS_OF_AN_INVITATION))
}

fn authority(directory: &Directory, cluster: ClusterId) -> Result<Authority, MembershipError> {
    let key = directory.read(AUTHORITY_KEY)?;
    Authority::with_key(cluster, &key).map_err(|error| MembershipError::Damaged {
        path: directory.file(AUTHORITY_KEY),
        why: error.to_string(),
        way_out: "put it back from a copy, or set up a new cluster",
    })
}

/// How often a name has been invited, this time included.
fn count(directory: &Directory, name: &NodeName) -> Result<u64, MembershipError> {
    let damaged = |error: serde_json::Error| MembershipError::Damaged {
        path: directory.file(INVITED),
        why: error.to_string(),
        way_out: "put it back from a copy, or set up a new cluster",
    };
    let mut all: BTreeMap<String, u64> = serde_json::from_str(&directory.read(INVITED)?).map_err(damaged)?;
    let invited = all.entry(name.to_string()).or_default();
    *invited = invited.saturating_add(1);
    let invited = *invited;
    directory.write(INVITED, &(serde_json::to_string_pretty(&all).map_err(damaged)? + "\n"))?;
    Ok(invited)
}

fn read(file: &Path) -> Result<(Invitation, NodeName), MembershipError> {
    let text = fs::read_to_string(file).map_err(|source| failed(file, "cannot be read", source))?;
    let wrong = |why: String| MembershipError::Damaged {
        path: PathBuf::from(file),
        why,
        way_out: "it must be as `tmem cluster invite` wrote it",
    };
    let invitation = Invitation::read(&text).map_err(wrong)?;
    let name = check_name(&invitation.name)?;
    let files = TlsFiles {
        authority: &invitation.authority,
        certificate: &invitation.certificate,
        key: &invitation.key,
    };
    fit(&files, &name).map_err(|(_, why)| wrong(why))?;
    Ok((invitation, name))
}

#[cfg(test)]
mod tests;
