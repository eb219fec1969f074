//! Tests of the TLS settings: real handshakes in memory, bytes carried by hand.
//! Must never open a socket.
#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use tempfile::TempDir;

use super::*;

type Ca = Issuer<'static, KeyPair>;

fn write(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn ca(dir: &TempDir, file: &str) -> (Ca, PathBuf) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, file);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let path = write(dir, file, &params.self_signed(&key).unwrap().pem());
    (Issuer::new(params, key), path)
}

fn params(host: &str, year_until: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year_until, 1, 1);
    params
}

/// Certificate and key files for `host`, valid until the year given.
fn leaf(dir: &TempDir, ca: &Ca, host: &str, year_until: i32) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let cert = params(host, year_until).signed_by(&key, ca).unwrap();
    let name = format!("{host}-{year_until}");
    (write(dir, &format!("{name}.crt"), &cert.pem()), write(dir, &format!("{name}.key"), &key.serialize_pem()))
}

/// A self-signed certificate as `openssl req -x509` makes it: a CA's.
fn self_signed(dir: &TempDir, host: &str, year_until: i32) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = params(host, year_until);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = format!("self-{host}-{year_until}");
    let cert = params.self_signed(&key).unwrap();
    (write(dir, &format!("{name}.crt"), &cert.pem()), write(dir, &format!("{name}.key"), &key.serialize_pem()))
}

/// Carries bytes both ways until both sides are done, or one gives its error.
fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking(), "stalled without an error");
    Ok(())
}

/// A handshake with the server's files, towards `host`.
fn connect(server: &(PathBuf, PathBuf), client: Arc<ClientConfig>, host: &str) -> Result<(), Error> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, host).unwrap();
    let mut server = ServerConnection::new(Arc::clone(&listener(&server.0, &server.1, None).unwrap().config)).unwrap();
    shake(&mut client, &mut server)?;
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(server.alpn_protocol(), Some(ALPN));
    Ok(())
}

/// What a refusal should be about.
fn refusal(result: Result<(), Error>) -> String {
    match result {
        Ok(()) => "accepted".to_owned(),
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => "name".to_owned(),
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => "expired".to_owned(),
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => "issuer".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

#[test]
fn every_mode_refuses_what_it_should_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let (ours, ours_file) = ca(&dir, "ours.crt");
    let (_, theirs_file) = ca(&dir, "theirs.crt");
    let good = leaf(&dir, &ours, "db.example", 2200);
    let expired = leaf(&dir, &ours, "db.example", 2021);
    let address = leaf(&dir, &ours, "127.0.0.1", 2200);
    use VerifyMode::{Ca, Full, None as Unchecked};
    let cases = [
        (Unchecked, None, &good, "db.example", "accepted"),
        (Unchecked, None, &good, "other.example", "accepted"),
        (Unchecked, None, &expired, "db.example", "accepted"),
        (Ca, Some(&ours_file), &good, "db.example", "accepted"),
        (Ca, Some(&ours_file), &good, "other.example", "accepted"),
        (Ca, Some(&ours_file), &expired, "db.example", "expired"),
        (Ca, Some(&theirs_file), &good, "db.example", "issuer"),
        (Full, Some(&ours_file), &good, "db.example", "accepted"),
        (Full, Some(&ours_file), &good, "other.example", "name"),
        (Full, Some(&ours_file), &expired, "db.example", "expired"),
        (Full, Some(&theirs_file), &good, "db.example", "issuer"),
        (Full, Some(&ours_file), &address, "127.0.0.1", "accepted"),
        (Full, Some(&ours_file), &address, "127.0.0.2", "name"),
    ];
    for (mode, ca_file, server, host, expected) in cases {
        let config = client_config(mode, ca_file.map(PathBuf::as_path), None).unwrap();
        assert_eq!(refusal(connect(server, config, host)), expected, "{mode:?} {ca_file:?} {host}");
    }
}

#[test]
fn self_signed_server_is_trusted_only_by_its_own_file_and_while_valid() {
    let dir = TempDir::new().unwrap();
    let (_, other_ca) = ca(&dir, "other.crt");
    let good = self_signed(&dir, "db.example", 2200);
    let twin = self_signed(&dir, "db.example", 2201);
    let expired = self_signed(&dir, "db.example", 2021);
    let try_it = |mode, ca_file: &PathBuf, server, host| {
        refusal(connect(server, client_config(mode, Some(ca_file), None).unwrap(), host))
    };
    assert_eq!(try_it(VerifyMode::Ca, &good.0, &good, "other.example"), "accepted");
    assert_eq!(try_it(VerifyMode::Full, &good.0, &good, "db.example"), "accepted");
    assert_eq!(try_it(VerifyMode::Full, &good.0, &good, "other.example"), "name");
    assert_eq!(try_it(VerifyMode::Full, &expired.0, &expired, "db.example"), "expired");
    assert_ne!(try_it(VerifyMode::Ca, &good.0, &twin, "db.example"), "accepted", "same name, other key");
    assert_ne!(try_it(VerifyMode::Ca, &other_ca, &good, "db.example"), "accepted");
}

/// A server that shows a certificate whose key it does not have must fail even when nothing is verified.
#[test]
fn unverified_mode_still_checks_the_handshake_signature() {
    #[derive(Debug)]
    struct Thief(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Thief {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let dir = TempDir::new().unwrap();
    let (ours, _) = ca(&dir, "ours.crt");
    let victim = leaf(&dir, &ours, "db.example", 2200);
    let (_, own_key) = leaf(&dir, &ours, "thief.example", 2200);
    let key = aws_lc_rs::sign::any_supported_type(&read_key(&own_key).unwrap()).unwrap();
    let stolen = rustls::sign::CertifiedKey::new(read_certs("certificate file", &victim.0).unwrap(), key);
    for version in VERSIONS {
        let thief = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[*version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Thief(Arc::new(stolen.clone()))));
        let host = ServerName::try_from("db.example").unwrap();
        let mut client = ClientConnection::new(client_config(VerifyMode::None, None, None).unwrap(), host).unwrap();
        let mut server = ServerConnection::new(Arc::new(thief)).unwrap();
        let error = shake(&mut client, &mut server).unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature), "{version:?}");
    }
}

#[test]
fn listener_takes_both_versions_any_or_no_alpn_and_gives_tickets() {
    let dir = TempDir::new().unwrap();
    let (ours, ca_file) = ca(&dir, "ours.crt");
    let (cert, key) = leaf(&dir, &ours, "db.example", 2200);
    let listener = Arc::clone(&listener(&cert, &key, None).unwrap().config);
    let roots = client_config(VerifyMode::Full, Some(&ca_file), None).unwrap();
    let run = |config: ClientConfig| {
        let host = ServerName::try_from("db.example").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), host).unwrap();
        let mut server = ServerConnection::new(Arc::clone(&listener)).unwrap();
        let result = shake(&mut client, &mut server);
        (result, server.alpn_protocol().map(<[u8]>::to_vec), client.handshake_kind(), client.protocol_version())
    };
    let mut silent = (*roots).clone();
    silent.alpn_protocols.clear();
    let (result, alpn, ..) = run(silent);
    assert_eq!((result, alpn), (Ok(()), None), "libpq before 17 offers none");
    let mut web = (*roots).clone();
    web.alpn_protocols = vec![b"h2".to_vec()];
    let (result, ..) = run(web);
    assert_eq!(result, Err(Error::NoApplicationProtocol));

    for version in VERSIONS {
        let verifier = Verifier { check: Check::Nothing, algorithms: provider().signature_verification_algorithms };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[*version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let (result, _, kind, spoken) = run(config.clone());
        assert_eq!((result, spoken), (Ok(()), Some(version.version)));
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        assert_eq!(run(config).2, Some(rustls::HandshakeKind::Resumed), "{version:?} by ticket");
    }
}

#[test]
fn client_shows_its_certificate_when_asked() {
    let dir = TempDir::new().unwrap();
    let (ours, ca_file) = ca(&dir, "ours.crt");
    let (cert, key) = leaf(&dir, &ours, "db.example", 2200);
    let (own_cert, own_key) = leaf(&dir, &ours, "pooler", 2200);
    let mut roots = RootCertStore::empty();
    roots.add(read_certs("CA file", &ca_file).unwrap().remove(0)).unwrap();
    let asking =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let listener = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_client_cert_verifier(asking)
        .with_single_cert(read_certs("certificate file", &cert).unwrap(), read_key(&key).unwrap())
        .unwrap();
    let listener = Arc::new(listener);
    let run = |identity| {
        let config = client_config(VerifyMode::Full, Some(&ca_file), identity).unwrap();
        let mut client = ClientConnection::new(config, ServerName::try_from("db.example").unwrap()).unwrap();
        shake(&mut client, &mut ServerConnection::new(Arc::clone(&listener)).unwrap())
    };
    assert_eq!(run(Some((own_cert.as_path(), own_key.as_path()))), Ok(()));
    assert_eq!(run(None), Err(Error::NoCertificatesPresented));
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let dir = TempDir::new().unwrap();
    let (ours, ca_file) = ca(&dir, "ours.crt");
    let (cert, key) = leaf(&dir, &ours, "db.example", 2200);
    let (_, other_key) = leaf(&dir, &ours, "other.example", 2200);
    let absent = dir.path().join("absent.pem");
    let garbage = write(&dir, "garbage.pem", "-----BEGIN CERTIFICATE-----\nSECRET!\n-----END CERTIFICATE-----\n");
    let empty = write(&dir, "empty.pem", "");
    let said = |error: TlsError, parts: &[&str]| {
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("SECRET"), "{text}");
    };
    said(listener(&absent, &key, None).unwrap_err(), &["certificate file", "absent.pem", "No such file"]);
    said(listener(&cert, &absent, None).unwrap_err(), &["key file", "absent.pem", "No such file"]);
    said(listener(&garbage, &key, None).unwrap_err(), &["certificate file", "garbage.pem", "not valid PEM"]);
    said(listener(&empty, &key, None).unwrap_err(), &["empty.pem", "no PEM certificate"]);
    said(listener(&key, &key, None).unwrap_err(), &["no PEM certificate"]);
    said(listener(&cert, &cert, None).unwrap_err(), &["key file", "no unencrypted PEM private key"]);
    said(listener(&cert, &other_key, None).unwrap_err(), &["db.example", "other.example", "KeyMismatch"]);
    let full = |ca_file| client_config(VerifyMode::Full, Some(ca_file), None).unwrap_err();
    said(full(&absent), &["CA file", "absent.pem", "No such file"]);
    said(full(&empty), &["CA file", "empty.pem", "no PEM certificate"]);
    said(client_config(VerifyMode::Ca, None, None).unwrap_err(), &["verify-ca", "CA file"]);
    let pair = client_config(VerifyMode::Full, Some(&ca_file), Some((&cert, &other_key)));
    said(pair.unwrap_err(), &["other.example", "KeyMismatch"]);
}

/// What rustls says of a certificate without extensions is explained.
#[test]
fn x509_version_1_is_explained() {
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut der = cert.der().to_vec();
    let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
    der[version + 4] = 0;
    let der = CertificateDer::from(der);
    let error = ParsedCertificate::try_from(&der).map(|_| ()).unwrap_err();
    let said = explained(&error);
    assert!(said.contains("X.509 version 1") && said.contains("version 3"), "{said}");
    assert_eq!(explained(&"anything else"), "anything else");
}
