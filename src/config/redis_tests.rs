//! Tests of `[cache.redis]`.
//! Must never depend on the network.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;

const SECRET: &str = "secret = \"0123456789abcdef0123456789abcdef\"";

fn parsed(lines: &str) -> Result<Config, String> {
    let text = format!("[cache.redis]\n{lines}\n[databases.a]\nprimary = \"h1\"\n[users.u]\npassword = \"x\"");
    Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
}

#[test]
fn there_is_none_unless_it_is_asked_for() {
    let text = "[databases.a]\nprimary = \"h1\"\n[users.u]\npassword = \"x\"";
    assert_eq!(Config::parse(text, "f.toml").map_err(|it| it.to_string()).unwrap().cache.redis, None);
}

#[test]
fn ports_are_those_of_who_is_asked() {
    let hosts = |lines: &str| {
        let redis = parsed(&format!("{SECRET}\n{lines}")).unwrap().cache.redis.unwrap();
        redis.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hosts("hosts = [\"r\"]"), "r:6379");
    assert_eq!(hosts("hosts = [\"r:7000\"]"), "r:7000");
    assert_eq!(hosts("mode = \"cluster\"\nhosts = [\"r\", \"[::1]\", \"[::1]:7001\"]"), "r:6379 [::1]:6379 [::1]:7001");
    assert_eq!(hosts("mode = \"sentinel\"\nmaster_name = \"m\"\nhosts = [\"r\", \"s:7\"]"), "r:26379 s:7");
}

#[test]
fn all_of_it_is_taken_over() {
    let lines = "hosts = [\"r:1\"]\nuser = \"u\"\npassword = \"p\"\ndatabase = 3\nprefix = \"x:\"\ntimeout = \"7ms\"\n\
        max_ttl = \"10m\"\ncompress_above = \"4KiB\"\nmax_lookups = 7\nmax_writes = 8\none_flight = false\ntls = true";
    let redis = parsed(&format!("{SECRET}\n{lines}")).unwrap().cache.redis.unwrap();
    let expected = Redis {
        user: Some("u".into()),
        password: Some(Secret::new("p".into())),
        database: 3,
        prefix: "x:".into(),
        timeout: Duration::from_millis(7),
        max_ttl: Duration::from_secs(600),
        compress_above: 4096,
        max_lookups: 7,
        max_writes: 8,
        one_flight: false,
        tls: true,
        ..Redis::new(vec!["r:1".parse().unwrap()], Secret::new("0123456789abcdef0123456789abcdef".into()))
    };
    assert_eq!(redis, expected);
}

#[test]
fn what_cannot_be_is_told() {
    for (lines, said) in [
        ("hosts = [\"r\"]", "has no `secret`"),
        ("hosts = [\"r\"]\nsecret = \"short\"", "could be guessed"),
        (SECRET, "does not say where Redis is"),
        (&format!("{SECRET}\nhosts = []"), "1 to 32 servers"),
        (&format!("{SECRET}\nhosts = [\"a\", \"b\"]"), "one host, or mode"),
        (&format!("{SECRET}\nhosts = [\"/run/redis.sock\"]"), "a server such as"),
        (&format!("{SECRET}\nhosts = [\"a\"]\nmode = \"sentinel\""), "master_name = \"NAME\""),
        (&format!("{SECRET}\nhosts = [\"a\"]\nmaster_name = \"m\""), "never used without sentinels"),
        (&format!("{SECRET}\nhosts = [\"a\"]\nmode = \"cluster\"\ndatabase = 1"), "no database but 0"),
        (&format!("{SECRET}\nhosts = [\"a\"]\nuser = \"u\""), "`user` has no password"),
        (&format!("{SECRET}\nhosts = [\"a\"]\ntimeout = 0"), "cannot be turned off"),
        (&format!("{SECRET}\nhosts = [\"a\"]\ntls_ca_file = \"/nowhere\""), "never used without TLS"),
        (&format!("{SECRET}\nhosts = [\"a\"]\ntls = true\ntls_cert_file = \"/nowhere\""), "needs `tls_key_file`"),
    ] {
        let problem = parsed(lines).unwrap_err();
        assert!(problem.contains(said), "{lines}: {problem}");
    }
    // Not even a password at the wrong place is shown.
    let problem = parsed(&format!("{SECRET}\nhosts = [\"redis://u:hunter2@r\"]")).unwrap_err();
    assert!(problem.contains("keys of their own") && !problem.contains("hunter2"), "{problem}");
    assert!(!parsed("hosts = [\"r\"]\nsecret = \"hunter2\"").unwrap_err().contains("hunter2"));
}
