//! Who is let in at the stats port.
//! It must never believe a status alone: what a refusal says is checked, too.

use std::net::TcpStream;
use std::sync::Arc;

use integration::Certificates;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::{Conf, eventually};
use crate::{ask, conf, exchange};

const TOKENS: &str = "[stats.tokens.look]\nsecret = \"look-look-look-look\"\n\
                      [stats.tokens.make]\nrole = \"write\"\nsecret = \"make-make-make-make\"\n";
const LOOK: &str = "Authorization: Bearer look-look-look-look";
const MAKE: &str = "Authorization: Bearer make-make-make-make";

#[test]
fn without_tokens_only_loopback_names_are_served() {
    let pgweir = conf().start();
    for host in ["Host: localhost", "Host: 127.0.0.1:1", "Host: [::1]"] {
        assert_eq!(ask(&pgweir, "GET /metrics", &[host]).status, 200, "{host}");
    }
    for path in ["/metrics", "/pins", "/api/queries", "/api/openapi.json", "/nothing"] {
        let refused = ask(&pgweir, &format!("GET {path}"), &["Host: rebound.example"]);
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.body.starts_with("{\"error\":\"without tokens only hosts such as"), "{}", refused.body);
    }
    for path in ["/healthz", "/readyz"] {
        assert_ne!(ask(&pgweir, &format!("GET {path}"), &["Host: rebound.example"]).status, 403, "{path}");
    }
    // What a page in a browser can send to a foreign host without being allowed to.
    let post = |lines: &[&str]| ask(&pgweir, "POST /metrics", lines).status;
    assert_eq!(post(&["Host: localhost", "Content-Type: text/plain"]), 415);
    assert_eq!(post(&["Host: localhost", "Content-Type: application/json"]), 405);
}

#[test]
fn tokens_open_what_their_role_allows_and_a_reload_changes_them() {
    let pgweir = conf().rest(TOKENS).start();
    let get = |lines: &[&str]| ask(&pgweir, "GET /api/queries", lines);
    let refused = get(&["Host: localhost"]);
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("\r\nwww-authenticate: bearer realm=\"pgweir\"\r\n"), "{}", refused.head);
    assert!(refused.head.contains("content-type: application/json") && refused.body.contains("a token is needed"));
    let wrong = get(&["Authorization: Bearer look-look-look-lool"]);
    assert!(wrong.status == 401 && wrong.head.contains("error=\"invalid_token\""), "{}", wrong.head);
    // With a token any name will do.
    assert_eq!((get(&[LOOK, "Host: metrics.example"]).status, get(&[MAKE]).status), (200, 200));
    let refused = ask(&pgweir, "POST /metrics", &[LOOK]);
    assert!(refused.status == 403 && refused.head.contains("error=\"insufficient_scope\""), "{}", refused.head);
    for asked in ["POST /metrics", "POST /api/queries", "PUT /api/queries/0", "DELETE /", "GET /api/queries/%FF"] {
        let refused = ask(&pgweir, asked, &[MAKE]);
        assert_eq!(refused.status, if asked.starts_with("GET") { 400 } else { 405 }, "{asked}");
        assert!(
            refused.head.contains("content-type: application/json") && refused.body.contains("\"error\":"),
            "{asked}"
        );
    }
    assert_eq!((ask(&pgweir, "GET /healthz", &[]).status, ask(&pgweir, "GET /", &[]).status), (200, 200));
    pgweir.reload(&conf().rest(&TOKENS.replace("look-look-look-look", "another-another-one")).text()).unwrap();
    eventually("the old token is none any more", || get(&[LOOK]).status == 401);
    assert_eq!(get(&["Authorization: Bearer another-another-one"]).status, 200);
    assert!(!pgweir.log().contains("look-look"), "a token is in the log");
}

#[test]
fn tokens_are_not_tried_one_after_the_other() {
    let pgweir = conf().rest(TOKENS).start();
    crate::ready(&pgweir);
    let get = |token: &str| ask(&pgweir, "GET /api/queries", &[&format!("Authorization: Bearer {token}")]);
    assert_eq!(get("look-look-look-look").status, 200);
    let answers: Vec<_> = (0..11).map(|n| get(&format!("guess-guess-guess-{n}"))).collect();
    assert!(answers[..10].iter().all(|it| it.status == 401));
    let late = &answers[10];
    let after = late.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!(late.status == 429 && (1..=7).contains(&after.parse::<u32>().unwrap()), "{}", late.head);
    assert!(late.body.starts_with("{\"error\":\"too many wrong tokens"), "{}", late.body);
    // A right one is not told from a wrong one, but for what was right before; and nobody else suffers.
    assert_eq!((get("make-make-make-make").status, get("look-look-look-look").status), (429, 200));
    assert_eq!(ask(&pgweir, "GET /readyz", &[]).status, 200);
}

/// A request over TLS to `localhost`, trusting these authorities.
fn over_tls(port: u16, ca: &std::path::Path, lines: &[&str]) -> Result<u16, String> {
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_file_iter(ca).unwrap().for_each(|cert| roots.add(cert.unwrap()).unwrap());
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
    Ok(exchange(StreamOwned::new(connection, socket), "GET /api/queries", lines, "").status)
}

fn with_tls(files: &Certificates) -> Conf {
    let (cert, key) = (files.certificate.display(), files.key.display());
    conf().stats(&format!("tls_cert_file = \"{cert}\"\ntls_key_file = \"{key}\"")).rest(TOKENS)
}

#[test]
fn with_a_certificate_the_port_speaks_tls_and_a_reload_shows_the_new_one() {
    let [old, new] = [(); 2].map(|()| Certificates::new().unwrap());
    let pgweir = with_tls(&old).start();
    // Somebody who never speaks keeps nobody waiting.
    let silent = TcpStream::connect(("127.0.0.1", pgweir.stats_port())).unwrap();
    assert_eq!(over_tls(pgweir.stats_port(), &old.ca, &[LOOK]), Ok(200));
    assert_eq!(over_tls(pgweir.stats_port(), &old.ca, &[]), Ok(401));
    assert!(over_tls(pgweir.stats_port(), &new.ca, &[LOOK]).is_err());
    pgweir.reload(&with_tls(&new).text()).unwrap();
    eventually("the new certificate is shown", || over_tls(pgweir.stats_port(), &new.ca, &[LOOK]) == Ok(200));
    drop(silent);
    assert!(pgweir.log().contains("metrics on https://127.0.0.1:"), "{}", pgweir.log());
}
