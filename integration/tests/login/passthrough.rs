//! A user of whom only a SCRAM verifier is known: the client's own proof opens the server.
//! It must never need the password anywhere but at the client.

use std::time::Duration;

use crate::clients::psql;
use crate::common::{Conf, eventually};
use crate::{SECRET, assert_discreet};
use integration::{Cluster, DATABASE, Hba, Postgres};

fn verifier(server: &Postgres, user: &str) -> String {
    server.value_in("postgres", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")).unwrap()
}

fn cluster() -> Cluster {
    let sql = format!("CREATE ROLE carol LOGIN PASSWORD '{SECRET}'");
    Cluster::builder().auth(Hba::Scram).sql(&sql).start().unwrap()
}

fn conf(cluster: &Cluster, stored: &str) -> Conf {
    let conf = Conf::database_only(&cluster.config_lines()).rest("[log]\nlevel = \"trace\"");
    conf.user("carol", &format!("password = \"{stored}\""))
}

#[test]
fn the_clients_proof_opens_the_server() {
    let cluster = cluster();
    let stored = verifier(cluster.primary(), "carol");
    assert!(stored.starts_with("SCRAM-SHA-256$"));
    let conf = conf(&cluster, &stored);
    let pgweir = conf.start();
    for _ in 0..3 {
        assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    }
    assert!(psql(&pgweir, "carol", Some("wrong-password")).is_err());
    // The key outlives the servers it opened, and a reload that leaves the user alone.
    let gone = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    cluster.primary().value_in("postgres", &gone).unwrap();
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    pgweir.reload(&conf.clone().database("pool_size = 3").text()).unwrap();
    eventually("the reload", || pgweir.log().contains("configuration reloaded"));
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    assert!(!pgweir.log().contains(&stored));
    assert_discreet(&pgweir.log());
}

/// Entry 9 of the list of defects: the key of a verifier that the server has no more is dropped, and said so.
#[test]
fn defect_09_a_changed_verifier_drops_the_key() {
    let cluster = cluster();
    let stored = verifier(cluster.primary(), "carol");
    let conf = conf(&cluster, &stored).pool("server_login_retry = \"100ms\"");
    let pgweir = conf.start();
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
    // The same password under a new salt: no key of the old one fits.
    cluster.primary().query(&format!("ALTER ROLE carol PASSWORD '{SECRET}'")).unwrap();
    let gone = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{DATABASE}'");
    cluster.primary().value_in("postgres", &gone).unwrap();
    let mut said = String::new();
    crate::common::within(Duration::from_secs(30), "an error", || {
        said = psql(&pgweir, "carol", Some(SECRET)).err().unwrap_or_default();
        !said.is_empty()
    });
    assert!(said.contains("another SCRAM verifier") && said.contains("pg_authid"), "{said}");
    // The right verifier heals it without a restart.
    let renewed = verifier(cluster.primary(), "carol");
    assert_ne!(renewed, stored);
    pgweir.reload(&conf.user("carol", &format!("password = \"{renewed}\"")).text()).unwrap();
    eventually("it works again", || psql(&pgweir, "carol", Some(SECRET)).as_deref() == Ok("in"));
    assert_discreet(&pgweir.log());
}

/// Without a client's proof there is nothing to open the server with, which is said in words.
#[test]
fn trust_brings_no_key() {
    let cluster = cluster();
    let stored = verifier(cluster.primary(), "carol");
    let pgweir = conf(&cluster, &stored).listen("auth_type = \"trust\"").start();
    let said = psql(&pgweir, "carol", None).unwrap_err();
    assert!(said.contains("a client must log in by SCRAM first"), "{said}");
}

/// A role of the database's own keeps its own password, whoever comes.
#[test]
fn a_forced_role_keeps_its_password() {
    let cluster = cluster();
    let stored = verifier(cluster.primary(), "carol");
    let forced = format!("user = \"app\"\npassword = \"{}\"", integration::PASSWORD);
    let pgweir = conf(&cluster, &stored).database(&forced).start();
    assert_eq!(psql(&pgweir, "carol", Some(SECRET)).as_deref(), Ok("in"));
}
