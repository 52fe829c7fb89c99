//! How etcd is spoken to: what the configuration says, with the files that it names.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use tmem_control::ClusterSettings;
use tmem_membership::{EtcdSettings, EtcdTls};

use crate::trusted;

/// What the configuration asks for. Reads certificates, key and password: this process may not do so later.
///
/// # Errors
/// These can't be read, or are not what they should be.
pub(super) fn settings(settings: &ClusterSettings) -> Result<EtcdSettings> {
    let mut etcd = EtcdSettings::new(&settings.etcd).context("[cluster] etcd")?;
    if etcd.is_https() {
        etcd = etcd.with_tls(tls(settings)?);
    }
    if let (Some(user), Some(path)) = (&settings.etcd_user, &settings.etcd_password_file) {
        let text = String::from_utf8(read("etcd-password-file", path)?)
            .with_context(|| format!("[cluster] etcd-password-file: {} is no text", path.display()))?;
        etcd = etcd.with_login(user, text.trim_end_matches(['\r', '\n'])).context("[cluster]")?;
    }
    Ok(etcd)
}

/// Says what is possible and not wise.
pub(super) fn warn(settings: &ClusterSettings) {
    let is_plain = settings.etcd.iter().any(|endpoint| endpoint.starts_with("http://"));
    if is_plain && settings.etcd_user.is_some() {
        log::warn!(
            "cluster: the password for etcd goes over http://, where whoever listens on the way can read it; write https:// in etcd"
        );
    }
}

fn tls(settings: &ClusterSettings) -> Result<EtcdTls> {
    let authorities = match &settings.etcd_ca {
        Some(path) => read("etcd-ca", path)?,
        None => trusted::certificates()
            .context("[cluster] this system has no list of whom it trusts; say with etcd-ca who signs etcd's certificates")?,
    };
    let own = match (&settings.etcd_certificate, &settings.etcd_key) {
        (Some(certificate), Some(key)) => {
            Some((read("etcd-certificate", certificate)?, read("etcd-key", key)?))
        }
        _ => None,
    };
    EtcdTls::new(authorities, own).context("[cluster]")
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("[cluster] {key}: cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_what_is_wrong_with_one_names_its_key() {
        let home = tempfile::tempdir().expect("directory");
        let at = |name: &str| home.path().join(name);
        let made = rcgen::generate_simple_self_signed(["host-a".to_owned()]).expect("certificate");
        fs::write(at("certificate"), made.cert.pem()).expect("written");
        fs::write(at("key"), made.signing_key.serialize_pem()).expect("written");
        fs::write(at("password"), "secret\n").expect("written");
        fs::write(at("empty"), "\n").expect("written");
        fs::write(at("binary"), [0xff]).expect("written");
        let all = ClusterSettings {
            etcd: vec!["https://h:1".to_owned()],
            etcd_ca: Some(at("certificate")),
            etcd_certificate: Some(at("certificate")),
            etcd_key: Some(at("key")),
            etcd_user: Some("tmem".to_owned()),
            etcd_password_file: Some(at("password")),
            ..ClusterSettings::default()
        };
        let authority = made.cert.pem().into_bytes();
        let own = (authority.clone(), made.signing_key.serialize_pem().into_bytes());
        let expected = EtcdSettings::new(&["https://h:1"]).expect("an address");
        let expected = expected.with_tls(EtcdTls::new(authority, Some(own)).expect("they go together"));
        assert_eq!(settings(&all).expect("read"), expected.with_login("tmem", "secret").expect("a login"));
        for (wrong, part) in [
            (ClusterSettings { etcd_ca: Some(at("nothing")), ..all.clone() }, "etcd-ca: cannot read"),
            (ClusterSettings { etcd_ca: Some(at("key")), ..all.clone() }, "etcd-ca: it has no certificate"),
            (ClusterSettings { etcd_key: Some(at("certificate")), ..all.clone() }, "etcd-key: "),
            (ClusterSettings { etcd_password_file: Some(at("empty")), ..all.clone() }, "etcd-password-file"),
            (ClusterSettings { etcd_password_file: Some(at("binary")), ..all.clone() }, "is no text"),
            (ClusterSettings { etcd: vec!["https://h:1".into(), "http://h:1".into()], ..all }, "all of one"),
        ] {
            let error = format!("{:#}", settings(&wrong).expect_err(part));
            assert!(error.contains("[cluster]") && error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
