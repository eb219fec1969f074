//! pgweir logs in to servers: every method, TLS in every mode, with right and wrong secrets and certificates.
//! It must never tell a client the password it tried, nor go on without the encryption that was demanded.

use crate::common::client::said;
use crate::common::{Client, Conf};
use crate::{SECRET, assert_discreet, trusting};
use integration::{Certificates, Cluster, Hba, PASSWORD, USER};

/// Trusts clients; logs in to servers with `password`.
fn towards(cluster: &Cluster, password: &str) -> Conf {
    let conf = Conf::trust(cluster).user(USER, &format!("password = \"{password}\""));
    conf.rest("[log]\nlevel = \"trace\"")
}

/// The error a client gets, and that it comes soon.
fn refused(conf: &Conf) -> String {
    let pgweir = conf.start();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    let error = client.welcome().expect_err("it got in");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    let all = String::from_utf8_lossy(&error.body).into_owned();
    assert!(!all.contains(SECRET) && !all.contains(PASSWORD), "{all}");
    assert!(client.read().is_none());
    assert_discreet(&pgweir.log());
    said(&error)
}

/// Whether the session of a client is encrypted towards the server.
fn encrypted(conf: &Conf) -> String {
    let pgweir = conf.start();
    let mut client = Client::connect(pgweir.port());
    let found = client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_discreet(&pgweir.log());
    found
}

fn method(hba: Hba) {
    let cluster = Cluster::builder().auth(hba).start().unwrap();
    assert_eq!(encrypted(&towards(&cluster, PASSWORD)), "f");
    let error = refused(&towards(&cluster, "wrong-password"));
    assert_eq!(error, format!("28P01 password authentication failed for user \"{USER}\""));
    // Without a password at all.
    let error = refused(&Conf::trust(&cluster).rest("[log]\nlevel = \"trace\""));
    assert!(error.starts_with("28") || error.starts_with("08006"), "{error}");
}

#[test]
fn cleartext() {
    method(Hba::Password);
}

#[test]
fn md5() {
    method(Hba::Md5);
}

#[test]
fn scram() {
    method(Hba::Scram);
}

/// An MD5 hash is as good as the password towards a server that asks for MD5.
#[test]
fn an_md5_hash_serves_for_md5() {
    let cluster = Cluster::builder().auth(Hba::Md5).start().unwrap();
    let hash =
        cluster.primary().value_in("postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'").unwrap();
    assert!(hash.starts_with("md5"));
    assert_eq!(encrypted(&towards(&cluster, &hash)), "f");
    // But not for SCRAM, which is said in words.
    let cluster = Cluster::builder().auth(Hba::Scram).start().unwrap();
    let error = refused(&towards(&cluster, &hash));
    assert!(error.starts_with("08006") || error.starts_with("28"), "{error}");
}

/// A role of the database's own is used for all clients.
#[test]
fn a_database_may_have_its_own_role() {
    let cluster = Cluster::builder().auth(Hba::Scram).start().unwrap();
    let conf = Conf::database_only(&format!("{}user = \"{USER}\"\npassword = \"{PASSWORD}\"", cluster.config_lines()));
    let pgweir = conf.listen("auth_type = \"trust\"").user("somebody", "").start();
    let mut client = Client::connect_with(pgweir.port(), &[("user", "somebody")]);
    assert_eq!(client.value("SELECT current_user"), USER);
}

#[test]
fn a_role_or_database_that_the_server_does_not_know() {
    let error = refused(&Conf::trust(trusting()).database("dbname = \"missing\""));
    assert_eq!(error, "3D000 database \"missing\" does not exist");
    let error = refused(&Conf::trust(trusting()).database("user = \"nobody_there\""));
    assert!(error.starts_with("28000"), "{error}");
}

#[test]
fn unix_sockets() {
    let primary = trusting().primary();
    let lines = format!("primary = \"{}:{}\"", primary.socket_folder().display(), primary.port());
    let pgweir = Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "").start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT coalesce(host(inet_server_addr()), 'unix')"), "unix");
}

/// A server with TLS, also reachable under an address its certificate does not have.
fn with_tls(hba: &str) -> Cluster {
    let builder = Cluster::builder().auth(Hba::Scram).tls(true).setting("listen_addresses", "127.0.0.1,127.0.0.2");
    builder.hba(hba).start().unwrap()
}

fn mode(cluster: &Cluster, host: &str, mode: &str, ca: Option<&Certificates>) -> Conf {
    let port = cluster.primary().port();
    let mut lines = format!("primary = \"{host}:{port}\"\nserver_tls_sslmode = \"{mode}\"\n");
    if let Some(files) = ca {
        lines += &format!("server_tls_ca_file = \"{}\"\n", files.ca.display());
    }
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"");
    conf.user(USER, &format!("password = \"{PASSWORD}\"")).rest("[log]\nlevel = \"trace\"")
}

#[test]
fn tls_in_every_mode() {
    let cluster = with_tls("hostssl all all 127.0.0.0/8 scram-sha-256\nhost all all 127.0.0.0/8 scram-sha-256");
    let right = cluster.certificates().unwrap().clone();
    let wrong = Certificates::new().unwrap();
    for (name, expected) in [("disable", "f"), ("allow", "f"), ("prefer", "t"), ("require", "t")] {
        assert_eq!(encrypted(&mode(&cluster, "127.0.0.1", name, None)), expected, "{name}");
    }
    for name in ["verify-ca", "verify-full"] {
        for host in ["127.0.0.1", "localhost"] {
            assert_eq!(encrypted(&mode(&cluster, host, name, Some(&right))), "t", "{name} {host}");
        }
        let error = refused(&mode(&cluster, "127.0.0.1", name, Some(&wrong)));
        assert!(error.starts_with("08006") && error.contains("certificate"), "{name}: {error}");
    }
    // The name in the certificate counts for verify-full alone.
    assert_eq!(encrypted(&mode(&cluster, "127.0.0.2", "verify-ca", Some(&right))), "t");
    let error = refused(&mode(&cluster, "127.0.0.2", "verify-full", Some(&right)));
    assert!(error.starts_with("08006") && error.contains("certificate"), "{error}");
}

#[test]
fn tls_demanded_of_a_server_without_it() {
    let files = Certificates::new().unwrap();
    for (name, ca) in [("require", None), ("verify-ca", Some(&files)), ("verify-full", Some(&files))] {
        let conf = mode(trusting(), "127.0.0.1", name, ca);
        let error = refused(&conf);
        assert!(error.starts_with("08006") && error.contains("TLS"), "{name}: {error}");
    }
    assert_eq!(encrypted(&mode(trusting(), "127.0.0.1", "prefer", None)), "f");
}

/// `allow` tries without encryption first, `prefer` with it; each tries the other when the server's rules refuse.
#[test]
fn the_second_try_of_allow_and_prefer() {
    let only_tls = with_tls("hostssl all all 127.0.0.0/8 scram-sha-256\nhostnossl all all 127.0.0.0/8 reject");
    assert_eq!(encrypted(&mode(&only_tls, "127.0.0.1", "allow", None)), "t");
    let error = refused(&mode(&only_tls, "127.0.0.1", "disable", None));
    assert!(error.starts_with("28000"), "{error}");
    let only_plain = with_tls("hostssl all all 127.0.0.0/8 reject\nhostnossl all all 127.0.0.0/8 scram-sha-256");
    assert_eq!(encrypted(&mode(&only_plain, "127.0.0.1", "prefer", None)), "f");
    let error = refused(&mode(&only_plain, "127.0.0.1", "require", None));
    assert!(error.starts_with("28000"), "{error}");
}

/// The system's authorities do not know the test's, or there are none: either way the client hears of it.
#[test]
fn the_systems_authorities_are_not_the_tests() {
    let cluster = with_tls("hostssl all all 127.0.0.0/8 scram-sha-256");
    for name in ["verify-ca", "verify-full"] {
        let error = refused(&mode(&cluster, "127.0.0.1", name, None));
        assert!(error.starts_with("08006"), "{name}: {error}");
    }
}
