//! How `discover` is written, and with what it does not go together.
//! Must never need the network.

#![allow(clippy::unwrap_used)]

use crate::config::{Config, Database, Discover, Endpoint, Found, Routing};

fn parsed(lines: &str) -> Result<Database, String> {
    let text = format!("[databases.a]\n{lines}\n[users.u]\npassword = \"x\"");
    let config = Config::parse(&text, "f.toml").map_err(|problems| problems.to_string());
    config.map(|mut config| config.databases.remove("a").unwrap())
}

fn end(text: &str) -> Endpoint {
    text.parse().unwrap()
}

#[test]
fn forms() {
    let names = parsed("discover = [\"dns://pg.example.org:6000\", \"dns://[::1]\"]").unwrap();
    assert_eq!(names.discover, Some(Discover::Dns(vec![end("pg.example.org:6000"), end("[::1]:5432")])));
    assert_eq!((names.primary.clone(), names.found()), (Endpoint::UNKNOWN, None));
    assert_eq!((names.routing, names.landmark()), (Routing::On, &end("pg.example.org:6000")));
    let patroni = parsed("discover = [\"http://10.0.0.1:8008\", \"https://p:8009/\", \"http://q:1/cluster\"]").unwrap();
    let Some(Discover::Patroni { apis, ca_file: None }) = patroni.discover else { panic!("{patroni:?}") };
    let shown: Vec<String> = apis.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["http://10.0.0.1:8008", "https://p:8009", "http://q:1"]);
}

#[test]
fn what_cannot_work_is_told() {
    let dns = "discover = [\"dns://h\"]";
    for (lines, part) in [
        ("discover = []", "1 to 16 URLs"),
        ("discover = \"dns://h\"", "a list of 1 to 16 URLs"),
        ("discover = [5]", "a URL"),
        ("discover = [\"h:5432\"]", "\"dns://NAME:PORT\", or Patroni's address"),
        ("discover = [\"etcd://h:2379\"]", "\"dns://NAME:PORT\", or Patroni's address"),
        ("discover = [\"dns:///run/pg\"]", "\"dns://NAME:PORT\", or Patroni's address"),
        ("discover = [\"dns://h:0\"]", "a port from 1 to 65535"),
        ("discover = [\"http://h\"]", "the port of Patroni's REST API"),
        ("discover = [\"http://[::1]\"]", "the port of Patroni's REST API"),
        ("discover = [\"http://user:secret@h:1\"]", "\"dns://NAME:PORT\", or Patroni's address"),
        ("discover = [\"http://h:1/primary\"]", "behind http://"),
        ("discover = [\"dns://h\", \"http://h:1\"]", "http://h:1 does not go with what is before it"),
        ("discover = [\"dns://h\", \"dns://h:5432\"]", "dns://h:5432 is there twice"),
        (&format!("{dns}\nhosts = [\"h\"]"), "has `discover` beside `primary`, `replicas` or `hosts`"),
        (&format!("{dns}\nprimary = \"h\""), "has `discover` beside"),
        (&format!("{dns}\nroles = \"declared\""), "nothing declares which one is the primary"),
        (&format!("{dns}\ndiscover_ca_file = \"x.pem\""), "`discover_ca_file` is never used"),
        ("primary = \"h\"\ndiscover_ca_file = \"x.pem\"", "`discover_ca_file` is never used"),
        (&format!("{dns}\n[pool]\ndiscover_interval = \"50ms\""), "at least \"100ms\""),
    ] {
        let problems = parsed(lines).unwrap_err();
        assert!(problems.contains(part), "{lines}: {problems}");
    }
}

/// Servers are not known when a configuration is checked: what is said about them is taken.
#[test]
fn servers_may_be_named_by_address() {
    let lines = "discover = [\"dns://h\"]\nzones = { \"10.0.0.1\" = \"a\" }\nrouting = \"on\"\n\
        [databases.a.groups]\none = [\"10.0.0.1\"]\n[[databases.a.rules]]\nuser = \"x\"\ngroup = \"one\"";
    assert_eq!(parsed(lines).unwrap().reads.zones.len(), 1);
}

#[test]
fn what_was_found_can_be_taken_over() {
    let mut database = parsed("discover = [\"dns://h\"]").unwrap();
    let found = Found {
        servers: ["10.0.0.2", "10.0.0.1"].map(end).into(),
        tls_names: [(end("10.0.0.1"), "h".to_owned())].into(),
        spared: [end("10.0.0.2")].into(),
    };
    database.set_found(&found);
    assert_eq!(database.hosts().cloned().collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"].map(end));
    assert_eq!(database.found(), Some(found));
}
