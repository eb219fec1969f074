//! When the certificates end that the configuration names.
//! Must never be asked between two reloads: what is in the files then is not what is in use.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::parse_x509_certificate;

use crate::config::Config;

/// A certificate's file and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ending {
    pub(super) file: String,
    /// Seconds since 1970.
    pub(super) at_unix_s: f64,
}

/// The files of certificates that pgweir shows to others, each once.
fn files(config: &Config) -> Vec<&PathBuf> {
    let mut files: Vec<&PathBuf> = Vec::new();
    files.extend(&config.listen.client_tls_cert_file);
    files.extend(&config.stats.tls_cert_file);
    files.extend(config.databases.values().filter_map(|database| database.server_tls_cert_file.as_ref()));
    files.extend(config.cache.redis.as_ref().and_then(|redis| redis.tls_cert_file.as_ref()));
    files.sort();
    files.dedup();
    files
}

/// When the first of the certificates in each file ends, of which all are shown; files that cannot be read are left out. May block for as long as the file system does.
pub(super) fn endings(config: &Config) -> Vec<Ending> {
    let ending = |file: &&PathBuf| Some(Ending { file: file.display().to_string(), at_unix_s: end(file)? });
    files(config).iter().filter_map(ending).collect()
}

fn end(file: &Path) -> Option<f64> {
    let ends = |certificate: CertificateDer<'_>| {
        let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    };
    let all = CertificateDer::pem_file_iter(file).ok()?.filter_map(|certificate| ends(certificate.ok()?));
    all.min().map(|end| end as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_what_it_says() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.pem");
        let early = params.self_signed(&key).unwrap().pem();
        params.not_after = rcgen::date_time_ymd(2041, 5, 6);
        let late = params.self_signed(&key).unwrap().pem();
        for text in [&early, &format!("{late}{early}"), &format!("{early}{late}")] {
            std::fs::write(&file, text).unwrap();
            // date -d '2031-05-06 UTC' +%s
            assert_eq!(end(&file), Some(1_935_792_000.0));
        }
        std::fs::write(&file, "nothing").unwrap();
        assert_eq!(end(&file), None);
    }
}
