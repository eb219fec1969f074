//! What is said of configurations that can work and were hardly meant, and of TLS files that do not fit.
//! Must never depend on this machine: files are made.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};

use super::*;

const USER: &str = "[users.u]\npassword = \"x\"\n";
const REST: &str = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"x\"\n";

/// A certificate and its key, in PEM.
pub(super) fn identity() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (cert.pem(), key.serialize_pem())
}

/// What is warned of: key and first line of each.
fn warned(text: &str) -> Vec<String> {
    let config = Config::parse(text, "f.toml").unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    config.warnings.iter().map(|warning| warning.to_string().lines().next().unwrap().to_owned()).collect()
}

fn warns(text: &str, what: &str) {
    let found = warned(text);
    assert!(found.len() == 1 && found[0].starts_with("warning: ") && found[0].contains(what), "{text}\n{found:?}");
}

#[test]
fn nothing_is_said_of_what_is_meant() {
    for text in [
        "[listen]\nunix_socket_dir = \"src\"\n[pool]\nmin_pool_size = 20\n".to_owned() + REST,
        "[pool]\nquery_wait_notify = 0\nquery_wait_timeout = \"1s\"\n".to_owned() + REST,
        // The default of the one is longer than the other: nobody has written that.
        "[pool]\nquery_wait_timeout = \"1s\"\n".to_owned() + REST,
        "[pool]\nmin_pool_size = 5\nmax_db_connections = 5\nmax_user_connections = 0\n".to_owned() + REST,
        format!(
            "[databases.d]\nprimary = \"h\"\nreplicas = [\"a\", \"b\"]\npool_size = 50\n{USER}min_pool_size = 50\n"
        ),
        format!("{REST}valid_until = 2999-01-01T00:00:00Z\n"),
    ] {
        assert_eq!(warned(&text), [""; 0], "{text}");
    }
}

#[test]
fn what_was_hardly_meant() {
    warns(&format!("[listen]\nunix_socket_dir = \"/no/where\"\n{REST}"), "there is no directory /no/where");
    warns(&format!("[listen]\nauth_type = \"password\"\n{REST}"), "nobody can log in over TCP");
    let rule =
        "[listen]\nauth_type = \"hba\"\n[auth]\nhba = [\"local all all password\", \"host all all all password\"]";
    warns(&format!("{rule}\n{REST}"), "rule 2 lets nobody in");
    for (notify, limit) in [("5s", "5s"), ("3m", "120s")] {
        let pool = format!("[pool]\nquery_wait_notify = \"{notify}\"\nquery_wait_timeout = \"{limit}\"\n");
        warns(&(pool + REST), "`query_wait_notify` is never used");
    }
    warns(&format!("[pool]\nquery_wait_notify = \"3m\"\n{REST}"), "`query_wait_notify` is never used");
    warns(&format!("{REST}valid_until = 2020-01-01T00:00:00Z\n"), "user `u` cannot log in: `valid_until`");
}

#[test]
fn more_servers_kept_than_there_may_be() {
    let database = "[databases.d]\nprimary = \"h\"\n";
    for (text, limit) in [
        (format!("[pool]\nmin_pool_size = 21\n{REST}"), "is 21, but `default_pool_size` allows 20"),
        (
            format!("[pool]\nmin_pool_size = 3\nmax_db_connections = 2\n{REST}"),
            "is 3, but `max_db_connections` allows 2",
        ),
        (format!("[pool]\nmin_pool_size = 3\nmax_user_connections = 2\n{REST}"), "`max_user_connections` allows 2"),
        (format!("{database}min_pool_size = 9\npool_size = 8\n{USER}"), "is 9, but `pool_size` allows 8"),
        (format!("[pool]\nmin_pool_size = 3\n{database}pool_size = 2\n{USER}"), "is 3, but `pool_size` allows 2"),
        (
            format!("[pool]\nmin_pool_size = 3\n{database}max_db_connections = 2\n{USER}"),
            "`max_db_connections` allows 2",
        ),
        (format!("{REST}min_pool_size = 21\n"), "is 21, but `pool_size` allows 20"),
        (format!("{REST}min_pool_size = 3\nmax_user_connections = 1\n"), "`max_user_connections` allows 1"),
    ] {
        warns(&text, limit);
    }
}

#[test]
fn a_warning_in_full_and_in_one_line() {
    let config = Config::parse(&format!("{REST}valid_until = 2020-01-01T00:00:00Z\n"), "f.toml").unwrap();
    let warning = config.warnings.iter().next().unwrap();
    assert_eq!(
        warning.to_string(),
        "warning: user `u` cannot log in: `valid_until` is in the past
 --> f.toml:5:15
  |
5 | valid_until = 2020-01-01T00:00:00Z
  |               ^^^^^^^^^^^^^^^^^^^^
  = expected a later time, or no such user
"
    );
    let line =
        "f.toml:5:15: user `u` cannot log in: `valid_until` is in the past; expected a later time, or no such user";
    assert_eq!(warning.in_one_line(), line);
}

/// Of a long list of rules only the neighbourhood of the wrong word is shown.
#[test]
fn a_wrong_rule_is_shown_by_its_word() {
    let rules = vec!["\"host all all 10.0.0.0/8 md5\""; 40].join(", ");
    let text =
        format!("[listen]\nauth_type = \"hba\"\n[auth]\nhba = [{rules}, \"host all all all magic\", {rules}]\n{REST}");
    let said = Config::parse(&text, "f.toml").unwrap_err().to_string();
    let carets = said.lines().find(|line| line.contains('^')).unwrap();
    assert_eq!(carets.matches('^').count(), "magic".len(), "{said}");
    assert!(said.lines().all(|line| line.chars().count() < 200), "{said}");
    assert!(said.contains("unknown authentication method"), "{said}");
}

/// The same certificate, but that it says to be of X.509 version 1, as `openssl x509 -req` makes them.
fn version_1(cert: &str) -> String {
    let lines: String = cert.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = STANDARD.decode(lines).unwrap();
    let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
    der[version + 4] = 0;
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(der))
}

fn refused(dir: &Path, text: &str, what: &str, expected: &str) {
    let name = dir.join("f.toml").display().to_string();
    let said = Config::parse(&format!("{text}\n{USER}"), &name).unwrap_err().to_string();
    assert!(said.contains(what) && said.contains(&format!("= expected {expected}")), "{text}\n{said}");
    assert!(!said.contains("PRIVATE") && said.contains("f.toml:"), "{said}");
}

#[test]
fn tls_files_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let (cert, key) = identity();
    write("cert", &cert);
    write("key", &key);
    write("both", &(cert.clone() + &key));
    write("other", &identity().1);
    write("locked", &key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    write("empty", "");
    write("v1", &version_1(&cert));
    for (side, section) in
        [("client", "[databases.d]\nprimary = \"h\"\n[listen]\n"), ("server", "[databases.d]\nprimary = \"h\"\n")]
    {
        let pair = |cert: &str, key: &str| {
            format!("{section}{side}_tls_cert_file = \"{cert}\"\n{side}_tls_key_file = \"{key}\"")
        };
        for (cert, key) in [("cert", "key"), ("both", "both")] {
            let name = dir.path().join("f.toml").display().to_string();
            let good = Config::parse(&format!("{}\n{USER}", pair(cert, key)), &name);
            assert!(good.is_ok_and(|config| config.warnings.is_empty()));
        }
        let cert_file = format!("`{side}_tls_cert_file`");
        let key_file = format!("`{side}_tls_key_file`");
        let swapped = format!("{cert_file} holds a private key, and {key_file} a certificate");
        refused(dir.path(), &pair("key", "cert"), &swapped, "them the other way round");
        let foreign = format!("{key_file} is not the key of the certificate in {cert_file}");
        refused(dir.path(), &pair("cert", "other"), &foreign, "the private key that the certificate was made for");
        refused(dir.path(), &pair("empty", "key"), "holds no certificate", "a file that holds a certificate");
        refused(dir.path(), &pair("cert", "cert"), "holds no private key", "a file that holds a private key");
        refused(dir.path(), &pair("cert", "locked"), "with a passphrase", "a file that holds a private key");
        refused(dir.path(), &pair("v1", "key"), &cert_file, "a certificate of X.509 version 3");
    }
    let listen = "[databases.d]\nprimary = \"h\"\n[listen]\nclient_tls_ca_file =";
    refused(dir.path(), &format!("{listen} \"cert\""), "`client_tls_ca_file` is never used", "`client_tls_cert_file`");
    let server = "[databases.d]\nprimary = \"h\"\nserver_tls_sslmode = \"verify-ca\"\nserver_tls_ca_file = \"key\"";
    refused(dir.path(), server, "holds no certificate", "certificates of authorities");
}
