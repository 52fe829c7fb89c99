//! Certificates for both ends of TLS, made with openssl.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{namespace::FOREIGN_ADDRESS, places};

const CONFIG: &str = "
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
";

/// An authority, a server and a client that it vouches for, in one folder, named as libnbd and QEMU want them.
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes them in a new folder.
    ///
    /// # Errors
    /// openssl is missing or fails.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let names = format!("subjectAltName = IP:127.0.0.1, IP:{FOREIGN_ADDRESS}\n");
        let config = CONFIG.replace("[client]", &format!("{names}[client]"));
        fs::write(directory.join("openssl.conf"), config).context("cannot write openssl's configuration")?;
        let this = Self { directory: directory.to_owned() };
        this.make("ca", &[])?;
        let signed = ["-CA", "ca-cert.pem", "-CAkey", "ca-key.pem"];
        this.make("server", &signed)?;
        this.make("client", &signed)?;
        Ok(this)
    }

    fn make(&self, name: &str, more: &[&str]) -> Result<()> {
        let (key, cert) = (format!("{name}-key.pem"), format!("{name}-cert.pem"));
        let output = Command::new(places::program("openssl")?)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-config", "openssl.conf", "-extensions", name, "-subj", &format!("/CN=tmem test {name}")])
            .args(["-keyout", &key, "-out", &cert])
            .args(more)
            .current_dir(&self.directory)
            .output()
            .context("cannot run openssl")?;
        if !output.status.success() {
            bail!("openssl made no {cert}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The folder with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What `tmem serve` takes.
    pub fn serve_arguments(&self) -> Vec<String> {
        let files = [
            ("--nbd-tls-cert", "server-cert.pem"),
            ("--nbd-tls-key", "server-key.pem"),
            ("--nbd-tls-client-ca", "ca-cert.pem"),
        ];
        let path = |file: &str| self.directory.join(file).display().to_string();
        files.into_iter().flat_map(|(flag, file)| [flag.to_owned(), path(file)]).collect()
    }
}
