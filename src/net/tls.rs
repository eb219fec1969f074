//! TLS settings through rustls: one configuration for listeners, one per way of checking a server.
//! Must never skip the handshake signature, nor read a file after start or reload.
//!
//! TLS 1.2 and 1.3 only, cryptography by aws-lc-rs. Both sides name ALPN `postgresql`, which direct TLS requires.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use crate::auth::certificate;

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;

/// Protocol name in ALPN (IANA registry; PostgreSQL `PG_ALPN_PROTOCOL`).
pub const ALPN: &[u8] = b"postgresql";

/// What both sides speak; PostgreSQL's default minimum is TLS 1.2 as well.
const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// How much of a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyMode {
    /// Nothing: encrypted, but whoever answers is believed (libpq `prefer`, `require`).
    None,
    /// A chain up to the CA file, for any host name (libpq `verify-ca`).
    Ca,
    /// The chain and the host name (libpq `verify-full`).
    Full,
}

/// A TLS setting that cannot work. Names the file and the reason, never the content.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read or is not PEM.
    #[error("{what} {}: {reason}", path.display())]
    File {
        /// `certificate file`, `key file` or `CA file`.
        what: &'static str,
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key are readable and rustls refuses them, for example because they do not belong together.
    #[error("certificate file {} with key file {}: {reason}", cert.display(), key.display())]
    Pair {
        /// The certificate file as configured.
        cert: PathBuf,
        /// The key file as configured.
        key: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// [`VerifyMode::Ca`] without a CA file: any certificate of any public CA would pass (libpq refuses it too).
    #[error("verify-ca needs a CA file: without one, any certificate of a public CA would be accepted")]
    NoCaFile,
    /// No CA file is configured and the system has no usable certificates.
    #[error("no CA file is configured and the system's CA certificates cannot be used: {0}")]
    SystemRoots(String),
    /// The cryptography library refuses the settings; a defect of this build.
    #[error("TLS library: {0}")]
    Library(#[from] Error),
}

/// TLS as one listener offers it.
pub struct Listener {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// What SCRAM with channel binding is bound to: the hash of the certificate. `None` if none is defined for it.
    pub binding: Option<Arc<[u8]>>,
}

/// The configuration of a listener: certificate chain and key from PEM files, ALPN `postgresql` for clients that
/// offer ALPN at all, session tickets on. With `client_ca_file` clients are asked for a certificate, and one that
/// none of its authorities has signed ends the handshake; that one has none is for the login to judge, in words.
///
/// # Errors
/// [`TlsError::File`], [`TlsError::Pair`], [`TlsError::Library`].
pub fn listener(cert_file: &Path, key_file: &Path, client_ca_file: Option<&Path>) -> Result<Arc<Listener>, TlsError> {
    let (certs, key) = (read_certs("certificate file", cert_file)?, read_key(key_file)?);
    let binding = certs.first().and_then(|cert| certificate::end_point_hash(cert)).map(Arc::from);
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS)?;
    let builder = match client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|reason| pair_error(cert_file, key_file, reason))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    // Tickets carry the session, so nothing is kept here for clients that never come back.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // One per handshake is enough: a client that resumes with it gets the next.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(Listener { config: Arc::new(config), binding }))
}

/// Checks clients' certificates against the authorities of a file.
fn client_verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in read_certs("CA file", path)? {
        roots.add(cert).map_err(|error| file_error("CA file", path, error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    builder.allow_unauthenticated().build().map_err(|error| file_error("CA file", path, error.to_string()))
}

/// The configuration for connections to servers. `ca_file` may hold several certificates, also the self-signed
/// certificate of the server itself; without it [`VerifyMode::Full`] trusts the system's CAs. `identity` is the
/// certificate and key file to show to a server that asks.
///
/// # Errors
/// Any [`TlsError`].
pub fn client_config(
    mode: VerifyMode,
    ca_file: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier { check: check(mode, ca_file)?, algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = with_identity(builder, identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn with_identity(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    identity: Option<(&Path, &Path)>,
) -> Result<ClientConfig, TlsError> {
    let Some((cert_file, key_file)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (certs, key) = (read_certs("certificate file", cert_file)?, read_key(key_file)?);
    builder.with_client_auth_cert(certs, key).map_err(|reason| pair_error(cert_file, key_file, reason))
}

fn check(mode: VerifyMode, ca_file: Option<&Path>) -> Result<Check, TlsError> {
    let name = match mode {
        VerifyMode::None => return Ok(Check::Nothing),
        VerifyMode::Ca => Name::Any,
        VerifyMode::Full => Name::Checked,
    };
    match (ca_file, mode) {
        (Some(path), _) => {
            let pinned = read_certs("CA file", path)?;
            let mut roots = RootCertStore::empty();
            for cert in &pinned {
                roots.add(cert.clone()).map_err(|error| file_error("CA file", path, error.to_string()))?;
            }
            Ok(Check::Chain { roots, pinned, name })
        }
        (None, VerifyMode::Full) => Ok(Check::Chain { roots: system_roots()?, pinned: Vec::new(), name }),
        (None, VerifyMode::Ca | VerifyMode::None) => Err(TlsError::NoCaFile),
    }
}

/// The system's CA certificates; single ones that cannot be used are passed over.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _ignored) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        let reason = loaded.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
        return Err(TlsError::SystemRoots(reason));
    }
    Ok(roots)
}

fn read_certs(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certs = read().map_err(|error| file_error(what, path, pem_reason(&error, "certificate")))?;
    if certs.is_empty() {
        return Err(file_error(what, path, "holds no PEM certificate".to_owned()));
    }
    Ok(certs)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file_error("key file", path, pem_reason(&error, "private key")))
}

/// The reason in words of an operator; the PEM error's own texts could quote the file.
fn pem_reason(error: &pem::Error, item: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("holds no unencrypted PEM {item}"),
        _ => "is not valid PEM".to_owned(),
    }
}

/// What a TLS error says, and what to do where it does not say so: certificates of X.509 version 1, which
/// `openssl x509 -req` makes unless told otherwise, are not understood by rustls.
pub fn explained(error: &impl fmt::Display) -> String {
    let said = error.to_string();
    match said.contains("UnsupportedCertVersion") {
        true => format!(
            "{said} (the certificate is of X.509 version 1, and must be of version 3: \
             `openssl x509 -req` makes such with `-extfile`)"
        ),
        false => said,
    }
}

fn file_error(what: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::File { what, path: path.to_owned(), reason }
}

fn pair_error(cert: &Path, key: &Path, reason: Error) -> TlsError {
    TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), reason: explained(&reason) }
}

/// Checks servers' certificates as far as the mode demands, and handshake signatures always.
struct Verifier {
    check: Check,
    algorithms: WebPkiSupportedAlgorithms,
}

enum Check {
    Nothing,
    Chain { roots: RootCertStore, pinned: Vec<CertificateDer<'static>>, name: Name },
}

#[derive(Clone, Copy)]
enum Name {
    Any,
    Checked,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Check::Chain { roots, pinned, name } = &self.check else {
            return Ok(ServerCertVerified::assertion());
        };
        let cert = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, self.algorithms.all).or_else(
            |error| match is_ca_as_server(&error) && pinned.contains(end_entity) {
                true => Ok(()),
                false => Err(error),
            },
        )?;
        if let Name::Checked = name {
            verify_server_name(&cert, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a certificate was refused only because it is a CA's. `openssl req -x509`, the recipe of PostgreSQL's manual,
/// makes such certificates, and operators put them into the CA file as they are; OpenSSL accepts that and webpki does
/// not. webpki has checked the validity period by then (`check_issuer_independent_properties`; a test holds it to that),
/// and rustls gives its error only as text.
fn is_ca_as_server(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string().contains("CaUsedAsEndEntity"),
        _ => false,
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Listener").field("binds", &self.binding.is_some()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}
