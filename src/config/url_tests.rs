//! What connection URLs become, and what is said of those that are wrong.
//! Must never show a password.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Host, Password, Routing, Stats};

fn accepted(primary: &str, replicas: &[&str]) -> Config {
    let replicas: Vec<String> = replicas.iter().map(|url| (*url).to_owned()).collect();
    Config::from_urls(primary, &replicas).unwrap_or_else(|problems| panic!("{problems}"))
}

fn said(primary: &str, replicas: &[&str]) -> String {
    let replicas: Vec<String> = replicas.iter().map(|url| (*url).to_owned()).collect();
    Config::from_urls(primary, &replicas).unwrap_err().to_string()
}

#[test]
fn with_a_password_clients_prove_it() {
    let config =
        accepted("postgres://app:p%40ss@db1:6000/shop", &["postgres://db2", "postgresql://app@[::1]:5433/shop"]);
    assert_eq!((config.listen.port, config.listen.auth_type), (6432, AuthType::ScramSha256));
    assert_eq!(config.listen.address, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(config.stats, Stats::default());
    assert_eq!((config.databases.len(), config.users.len()), (1, 1));
    let shop = &config.databases["shop"];
    assert_eq!(shop.primary.to_string(), "db1:6000");
    assert_eq!(shop.replicas.iter().map(ToString::to_string).collect::<Vec<_>>(), ["db2:5432", "[::1]:5433"]);
    assert_eq!((shop.routing, &shop.user), (Routing::On, &None));
    let Some(Password::Plain(secret)) = &config.users["app"].password else { panic!("no password") };
    assert_eq!(secret.expose(), "p@ss");
}

#[test]
fn without_a_password_clients_are_trusted() {
    let config = accepted("postgres://app@h", &[]);
    assert_eq!(config.listen.auth_type, AuthType::Trust);
    assert_eq!(config.users["app"].password, None);
    assert_eq!(config.databases["app"].dbname, "app");
    assert_eq!(config.databases["app"].routing, Routing::Off);
}

#[test]
fn unix_sockets_and_options() {
    for url in ["postgres:///shop?host=/run/pg&port=5433&user=app&password=x", "postgres://app:x@%2Frun%2Fpg:5433/shop"]
    {
        let config = accepted(url, &[]);
        let primary = &config.databases["shop"].primary;
        assert_eq!((&primary.host, primary.port), (&Host::Unix("/run/pg".into()), 5433), "{url}");
        assert_eq!(config.listen.auth_type, AuthType::ScramSha256);
    }
}

#[test]
fn tls_as_in_libpq() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), crate::config::warning_tests::identity().0).unwrap();
    let path = file.path().display().to_string();
    let mode = |query: &str| {
        let config = accepted(&format!("postgres://u@h/d?{}", query.replace("FILE", &path)), &[]);
        (config.databases["d"].server_tls_sslmode, config.databases["d"].server_tls_ca_file.is_some())
    };
    assert_eq!(mode(""), (SslMode::Prefer, false));
    assert_eq!(mode("sslmode=require"), (SslMode::Require, false));
    assert_eq!(mode("sslmode=require&sslrootcert=FILE"), (SslMode::VerifyCa, true));
    assert_eq!(mode("sslmode=verify-full&sslrootcert=FILE"), (SslMode::VerifyFull, true));
    assert_eq!(mode("sslrootcert=system"), (SslMode::VerifyFull, false));
    assert!(said("postgres://u@h/d?sslmode=verify-ca&sslrootcert=/nonexistent", &[]).contains("no such file"));
}

#[test]
fn wrong_urls_in_full() {
    let expected = r"error: unknown option in the URL
 --> URL:1:28
  |
1 | postgres://u:<redacted>@h/d?sslmod=x
  |                             ^^^^^^
  = expected `host`, `port`, `user`, `password`, `dbname`, `sslmode`, `sslrootcert`, `sslcert` or `sslkey`
  = did you mean `sslmode`?

error: `user` is not that of the primary's URL
 --> --replica 1:1:12
  |
1 | postgres://v@h2
  |            ^
  = expected the same, or nothing

error: this is no PostgreSQL URL
 --> --replica 2:1:1
  |
1 | mysql://h
  | ^^^^^^^^^
  = expected postgres://user[:password]@host[:port]/dbname
";
    assert_eq!(said("postgres://u:hunter2xx@h/d?sslmod=x", &["postgres://v@h2", "mysql://h"]), expected);
}

#[test]
fn wrong_urls_show_no_password() {
    for (url, title) in [
        ("postgres://h/d", "the URL names no user"),
        ("postgres://u:hunter2@/d", "the URL names no host"),
        ("postgres://u:hunter2@h:x/d", "the port in the URL is no port"),
        ("postgres://u:hunter2@h:0/d", "the port in the URL is no port"),
        ("postgres://u:hunter2@a,b/d", "the host in the URL is no host"),
        ("postgres://u:hunter2%4@h/d", "`password` in the URL is not properly percent-encoded"),
        ("postgres://u:hunter2%+4@h/d", "`password` in the URL is not properly percent-encoded"),
        ("postgres://u:hunter2%00@h/d", "`password` in the URL is not properly percent-encoded"),
        ("postgres://u:a@b/hunter2@h/d", "there is an `@` after the first `/` of the URL"),
        ("postgres://u:a/hunter2@h/d", "there is an `@` after the first `/` of the URL"),
        ("postgres://u:hunter2 x@h/d?sslmode=prefr", "`sslmode` has no valid value"),
        ("u:hunter2@h/d", "this is no PostgreSQL URL"),
    ] {
        let said = said(url, &[]);
        assert!(said.contains(&format!("error: {title}\n")), "{url}\n{said}");
        assert!(!said.contains("hunter2"), "{url}\n{said}");
    }
}
