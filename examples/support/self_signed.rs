//! A certificate for an example that was given none.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use greenroom::tls;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};

/// How long it is good for, from a day before it is made.
const GOOD_FOR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A file with a certificate in PEM format, for clients to trust. Goes when this goes.
pub(crate) struct CertificateFile(PathBuf);

impl CertificateFile {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// In the directory for temporary files, where others may write: a name that is taken, by a link
    /// of theirs for instance, is never written to, and nobody but this user may write to the file.
    fn write(pem: &str) -> io::Result<CertificateFile> {
        let id = std::process::id();
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let mut n = 0;
        loop {
            let path = std::env::temp_dir().join(format!("greenroom-{id}-{n}.pem"));
            match options.open(&path) {
                Ok(mut file) => {
                    let written = CertificateFile(path);
                    file.write_all(pem.as_bytes())?;
                    return Ok(written);
                }
                // Of a process that had this id before, and was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && n < 1000 => n += 1,
                Err(error) => {
                    let text = format!("cannot write {}: {error}", path.display());
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
    }
}

impl Drop for CertificateFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A server with a new self-signed certificate for `localhost`, its addresses and these further names
/// or addresses, and the file by which clients come to trust it. The key (ECDSA on P-256) is never
/// written anywhere.
pub(crate) fn self_signed(names: &[&str]) -> io::Result<(tls::Server, CertificateFile)> {
    let names = ["localhost", "127.0.0.1", "::1"].iter().chain(names);
    let names: Vec<String> = names.map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?;
    params.not_before = rcgen::date_time_ymd(1969, 12, 31) + now;
    params.not_after = params.not_before + GOOD_FOR;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
        .distinguished_name
        .push(DnType::CommonName, "greenroom example");
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let identity = tls::Identity::from_pem(certificate.pem(), key.serialize_pem())?;
    let server = tls::Server::builder().identity(identity).build()?;
    Ok((server, CertificateFile::write(&certificate.pem())?))
}
