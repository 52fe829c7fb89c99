//! The keys of `[cluster]` that say how etcd is spoken to: whether they go with each other.

use crate::{ClusterSettings, ControlError};

impl ClusterSettings {
    /// Those that are given make sense, and none is missing beside them.
    pub(crate) fn check_etcd_keys(&self) -> Result<(), ControlError> {
        let tls = [
            ("etcd-ca", self.etcd_ca.is_some()),
            ("etcd-certificate", self.etcd_certificate.is_some()),
            ("etcd-key", self.etcd_key.is_some()),
        ];
        let login = [
            ("etcd-user", self.etcd_user.is_some()),
            ("etcd-password-file", self.etcd_password_file.is_some()),
        ];
        let first_of =
            |keys: &[(&'static str, bool)]| keys.iter().find(|(_, given)| *given).map(|(key, _)| *key);
        let wrong = |key, why| Err(ControlError::EtcdKey { key, why });
        if self.etcd.is_empty()
            && let Some(key) = first_of(&tls).or(first_of(&login))
        {
            return wrong(
                key,
                "it is for etcd, and there is none: say with `etcd` where it is, or leave this out",
            );
        }
        if self.etcd.iter().any(|endpoint| endpoint.starts_with("http://"))
            && let Some(key) = first_of(&tls)
        {
            return wrong(
                key,
                "it is for TLS, and `etcd` says http://: write https:// there, or leave this out",
            );
        }
        for pair in [[tls[1], tls[2]], login] {
            match pair {
                [(key, true), (missing, false)] | [(missing, false), (key, true)] => {
                    return Err(ControlError::EtcdKeyAlone { key, missing });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::Config;

    /// What is wrong with such a section.
    fn check(text: &str) -> Result<(), String> {
        let text = format!("[cluster]\nlisten = \"10.0.0.1:7790\"\n{text}");
        let config = Config::parse(&text, Path::new("t.toml")).expect("it can be read");
        config.cluster().map(drop).map_err(|error| error.to_string())
    }

    const HTTP: &str = "etcd = [\"http://e:1\"]";
    const HTTPS: &str = "etcd = [\"https://e:1\", \"https://f:1\"]";

    #[test]
    fn what_goes_together_is_taken() {
        let (tls, login) = (
            "etcd-ca = \"/c\"\netcd-certificate = \"/d\"\netcd-key = \"/k\"",
            "etcd-user = \"tmem\"\netcd-password-file = \"/p\"",
        );
        for text in [
            HTTPS.to_owned(),
            format!("{HTTPS}\netcd-ca = \"/c\""),
            format!("{HTTPS}\n{tls}"),
            format!("{HTTPS}\n{tls}\n{login}"),
            format!("{HTTP}\n{login}"),
        ] {
            assert_eq!(check(&text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_does_not_is_one_line_that_names_the_key_and_the_way_out() {
        let peers = "peers = [\"b=10.0.0.2:1\"]";
        for (text, key, way_out) in [
            (format!("{peers}\netcd-ca = \"/c\""), "etcd-ca", "`etcd`"),
            (format!("{peers}\netcd-user = \"u\""), "etcd-user", "`etcd`"),
            (format!("{peers}\netcd-password-file = \"/p\""), "etcd-password-file", "leave this out"),
            (format!("{HTTP}\netcd-ca = \"/c\""), "etcd-ca", "https://"),
            (format!("{HTTP}\netcd-certificate = \"/c\"\netcd-key = \"/k\""), "etcd-certificate", "https://"),
            (format!("{HTTP}\netcd-key = \"/k\""), "etcd-key", "https://"),
            (format!("{HTTPS}\netcd-certificate = \"/c\""), "etcd-certificate", "without etcd-key"),
            (format!("{HTTPS}\netcd-key = \"/k\""), "etcd-key", "without etcd-certificate"),
            (format!("{HTTPS}\netcd-user = \"u\""), "etcd-user", "without etcd-password-file"),
            (format!("{HTTP}\netcd-password-file = \"/p\""), "etcd-password-file", "without etcd-user"),
        ] {
            let error = check(&text).expect_err(&text);
            assert!(error.starts_with(&format!("[cluster] {key}")), "{error}");
            assert!(error.contains(way_out) && !error.contains('\n'), "{error}");
        }
    }
}
