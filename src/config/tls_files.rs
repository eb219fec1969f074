//! Whether the certificate, key and CA files that a configuration names can be used, and fit each other.
//! Must never show what is in them, nor keep it: the start reads them again (`net::tls`).

use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::check::Check;
use super::leaf::FilePath;
use super::reader::{Field, Span};

const CERTIFICATE: &str = "a file that holds a certificate, in PEM";
const KEY: &str =
    "a file that holds a private key without a passphrase, in PEM (openssl pkey takes the passphrase away)";

/// What a file was read for; `None` if it cannot be opened, which is told elsewhere.
type Read<T> = Option<Result<T, &'static str>>;

impl Check<'_> {
    /// Notes what is wrong with the files of one side; its keys begin with `side`: `client_`, `server_`, or nothing.
    pub(super) fn tls_files(
        &mut self,
        side: &str,
        cert: &Field<FilePath>,
        key: &Field<FilePath>,
        ca: &Field<FilePath>,
    ) {
        self.authorities_of(&format!("{side}tls_ca_file"), ca);
        let (Some((cert_path, cert_span)), Some((key_path, key_span))) = (self.named(cert), self.named(key)) else {
            return;
        };
        let (cert_key, key_key) = (format!("{side}tls_cert_file"), format!("{side}tls_key_file"));
        let (certs, private) = (certificates(&cert_path), private_key(&key_path));
        let (Some(certs), Some(private)) = (certs, private) else { return };
        let swapped = certs.is_err() && private.is_err();
        if swapped && matches!((private_key(&cert_path), certificates(&key_path)), (Some(Ok(_)), Some(Ok(_)))) {
            let title = format!("`{cert_key}` holds a private key, and `{key_key}` a certificate");
            return self.reader.note(cert_span, title, |problem| problem.expected("them the other way round"));
        }
        if let Err(why) = &certs {
            let title = format!("`{cert_key}`: {} {why}", cert_path.display());
            self.reader.note(cert_span.clone(), title, |problem| problem.expected(CERTIFICATE));
        }
        if let Err(why) = &private {
            let title = format!("`{key_key}`: {} {why}", key_path.display());
            self.reader.note(key_span.clone(), title, |problem| problem.expected(KEY));
        }
        let (Ok(certs), Ok(private)) = (certs, private) else { return };
        match CertifiedKey::from_der(certs, private, &aws_lc_rs::default_provider()) {
            Ok(_) => {}
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                let title = format!("`{key_key}` is not the key of the certificate in `{cert_key}`");
                let expected = "the private key that the certificate was made for; it must be the first in its file";
                self.reader.note(key_span, title, |problem| problem.expected(expected));
            }
            Err(error) => {
                let title = format!("`{cert_key}`: {} cannot be used: {error}", cert_path.display());
                let expected = match error.to_string().contains("UnsupportedCertVersion") {
                    true => "a certificate of X.509 version 3; `openssl x509 -req` makes one with `-extfile`",
                    false => "a certificate and key for TLS 1.2 or later",
                };
                self.reader.note(cert_span, title, |problem| problem.expected(expected));
            }
        }
    }

    /// Notes what is wrong with the file of authorities that the key `name` names.
    pub(super) fn authorities_of(&mut self, name: &str, ca: &Field<FilePath>) {
        if let Some((path, span)) = self.named(ca) {
            self.authorities(name, &path, span);
        }
    }

    fn authorities(&mut self, name: &str, path: &Path, span: Span) {
        let expected = "certificates of authorities, in PEM";
        match certificates(path) {
            None => {}
            Some(Err(why)) => {
                let title = format!("`{name}`: {} {why}", path.display());
                self.reader.note(span, title, |problem| problem.expected(expected));
            }
            Some(Ok(certs)) => {
                let mut roots = RootCertStore::empty();
                if let Some(error) = certs.into_iter().find_map(|cert| roots.add(cert).err()) {
                    let title = format!("`{name}`: {} cannot be used: {error}", path.display());
                    self.reader.note(span, title, |problem| problem.expected(expected));
                }
            }
        }
    }

    fn named(&self, field: &Field<FilePath>) -> Option<(PathBuf, Span)> {
        match field {
            Field::Set(file, span) => Some((self.outside.directory.join(&file.0), span.clone())),
            Field::Absent | Field::Bad => None,
        }
    }
}

fn certificates(path: &Path) -> Read<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    match read() {
        Ok(certs) if certs.is_empty() => Some(Err("holds no certificate")),
        Ok(certs) => Some(Ok(certs)),
        Err(error) => why(&error, "holds no certificate").map(Err),
    }
}

fn private_key(path: &Path) -> Read<PrivateKeyDer<'static>> {
    match PrivateKeyDer::from_pem_file(path) {
        Ok(key) => Some(Ok(key)),
        Err(error) => why(&error, "holds no private key, or one with a passphrase").map(Err),
    }
}

/// Never the error's own words, which could quote the file.
fn why(error: &pem::Error, nothing: &'static str) -> Option<&'static str> {
    match error {
        pem::Error::Io(_) => None,
        pem::Error::NoItemsFound => Some(nothing),
        _ => Some("is not PEM"),
    }
}
