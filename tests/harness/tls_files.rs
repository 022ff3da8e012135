//! A certificate and its key as files, made by openssl.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A folder with a self-signed certificate for `localhost` and 127.0.0.1, and its key. Removed when dropped.
#[derive(Debug)]
pub struct TlsFiles {
    folder: TempDir,
    constraints: &'static str,
}

impl TlsFiles {
    /// A new pair, of the organisation `first`.
    #[expect(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> TlsFiles {
        TlsFiles::constrained("CA:FALSE")
    }

    /// One with a certificate that may sign others, which is what `openssl req -x509` makes if nothing is said.
    pub fn of_authority() -> TlsFiles {
        TlsFiles::constrained("CA:TRUE")
    }

    fn constrained(constraints: &'static str) -> TlsFiles {
        let folder = TempDir::with_prefix("berth-tls-").expect("a temporary folder");
        let files = TlsFiles { folder, constraints };
        files.renew("first");
        files
    }

    /// The certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("tls.crt")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("tls.key")
    }

    /// Replaces both files, as a renewal does: each by a rename.
    ///
    /// # Panics
    /// If openssl fails.
    pub fn renew(&self, organisation: &str) {
        let (certificate, key) = (
            self.folder.path().join("new.crt"),
            self.folder.path().join("new.key"),
        );
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", &format!("/O={organisation}/CN=localhost")])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args([
                "-addext",
                &format!("basicConstraints=critical,{}", self.constraints),
            ])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::rename(key, self.key()).expect("a new key");
        std::fs::rename(certificate, self.certificate()).expect("a new certificate");
    }
}
