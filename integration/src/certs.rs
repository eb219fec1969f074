//! A certificate authority of a test's own, and a server certificate for `localhost` and 127.0.0.1.
//! It must never be used for anything that outlives the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::error::{During, Result};
use crate::run::Run;

/// Files of a certificate authority and of one server.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority's certificate, for clients.
    pub ca: PathBuf,
    ca_key: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's private key; readable by the account servers run as.
    pub key: PathBuf,
}

/// A certificate that somebody shows, and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key; readable by the account servers run as.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes a certificate in the name of `common_name`, signed by this authority.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn client(&self, common_name: &str) -> Result<Identity> {
        let folder = Run::current()?.folder("client")?;
        let read = |path: &Path| fs::read_to_string(path).during(|| format!("read {}", path.display()));
        let ca_key = KeyPair::from_pem(&read(&self.ca_key)?).during(|| "read the authority's key".into())?;
        let issuer = Issuer::new(authority(), ca_key);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().during(|| "make a key".into())?;
        let certificate = params.signed_by(&key, &issuer).during(|| "sign the client".into())?;
        let files = Identity { certificate: folder.join("client.crt"), key: folder.join("client.key") };
        write(&files.certificate, &certificate.pem(), 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }

    /// Puts a server certificate that ends so much later than now in the place of this one, with another key.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn renew(&self, lasts: Duration) -> Result<()> {
        let read = |path: &Path| fs::read_to_string(path).during(|| format!("read {}", path.display()));
        let ca_key = KeyPair::from_pem(&read(&self.ca_key)?).during(|| "read the authority's key".into())?;
        let issuer = Issuer::new(authority(), ca_key);
        let mut params = CertificateParams::new(vec!["localhost".into()]).during(|| "name the server".into())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + lasts;
        let key = KeyPair::generate().during(|| "make a key".into())?;
        let certificate = params.signed_by(&key, &issuer).during(|| "sign the server".into())?;
        write(&self.key, &key.serialize_pem(), 0o600)?;
        write(&self.certificate, &certificate.pem(), 0o644)
    }

    /// Makes an authority and a server certificate in a folder of the current run.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new() -> Result<Self> {
        let run = Run::current()?;
        let folder = run.folder("certs")?;
        // Clients of any account read the CA.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))
            .during(|| "open the certificates' folder".into())?;
        let files = Self::in_folder(&folder)?;
        for path in [&files.ca, &files.certificate, &files.key] {
            run.give(path)?;
        }
        Ok(files)
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let params = authority();
        let ca_key = KeyPair::generate().during(|| "make a key".into())?;
        let ca = params.self_signed(&ca_key).during(|| "sign the authority".into())?;
        let ca_secret = ca_key.serialize_pem();
        let issuer = Issuer::new(params, ca_key);

        let names = vec!["localhost".into(), "127.0.0.1".into()];
        let mut server = CertificateParams::new(names).during(|| "name the server".into())?;
        server.distinguished_name.push(DnType::CommonName, "localhost");
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().during(|| "make a key".into())?;
        let certificate = server.signed_by(&key, &issuer).during(|| "sign the server".into())?;

        let files = Self {
            ca: folder.join("ca.crt"),
            ca_key: folder.join("ca.key"),
            certificate: folder.join("server.crt"),
            key: folder.join("server.key"),
        };
        write(&files.ca_key, &ca_secret, 0o600)?;
        write(&files.ca, &ca.pem(), 0o644)?;
        write(&files.certificate, &certificate.pem(), 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }
}

/// The authority, without its key.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "pgweir test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    fs::write(path, text).during(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).during(|| format!("protect {}", path.display()))
}
