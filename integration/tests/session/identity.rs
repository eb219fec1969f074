//! Who a client is to the server: what it hears when its server is ended from outside, and how values are reported to it.
//! It must never be enough that a session ends: its last words are those of a direct connection, byte for byte.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use integration::wire::{Frame, Script};
use integration::{Cluster, DATABASE, USER};

use crate::common::client::tags;
use crate::common::{Client, Conf, eventually, metric};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster())
}

fn direct() -> Client {
    Client::connect(cluster().primary().port())
}

fn end(pid: &str) {
    let ended = cluster().primary().query(&format!("SELECT pg_terminate_backend({pid}, 10000)")).unwrap();
    assert_eq!(ended, [["t"]]);
}

/// What a client hears whose server is ended after `before`, while it runs `during` or nothing.
fn last_words(client: &mut Client, before: &str, during: Option<&Script>) -> Vec<Frame> {
    client.query(before).unwrap();
    let pid = client.value("SELECT 0 + pg_backend_pid()");
    if let Some(during) = during {
        client.send(during);
        let busy = format!("SELECT state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
        cluster().primary().wait_true(&busy).unwrap();
    }
    end(&pid);
    client.frames_to_end()
}

#[test]
fn who_holds_the_server_hears_the_servers_own_words() {
    let sleep = Script::new().query("SELECT pg_sleep(50)");
    let batch = Script::new().parse("", "SELECT pg_sleep(50)").bind("", "", &[]).execute("", 0).sync();
    for (mode, before, during) in [
        ("transaction", "BEGIN", None),
        ("transaction", "BEGIN", Some(&sleep)),
        ("transaction", "BEGIN", Some(&batch)),
        ("transaction", "SELECT 1", Some(&sleep)),
        ("transaction", "SELECT 1", Some(&batch)),
        // Kept at rest.
        ("transaction", "CREATE TEMP TABLE kept (n int)", None),
        ("transaction", "SELECT pg_advisory_lock(3)", None),
        ("session", "SELECT 1", None),
        ("session", "SELECT 1", Some(&sleep)),
    ] {
        let pgweir = conf().size(2).pool(&format!("pool_mode = \"{mode}\"")).start();
        let mut bystander = Client::connect(pgweir.port());
        let told = last_words(&mut Client::connect(pgweir.port()), before, during);
        assert_eq!(told, last_words(&mut direct(), before, during), "{mode}, {before}, {}", during.is_some());
        assert!(["E", "TE", "12E"].contains(&&tags(&told)[..]), "{told:?}");
        assert_eq!(told[told.len() - 1].field(b'C').as_deref(), Some("57P01"));
        assert_eq!(bystander.value("SELECT 2"), "2");
    }
}

#[test]
fn who_holds_none_notices_nothing() {
    let pgweir = conf().size(1).start();
    crate::common::know(&pgweir);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(pgweir.port())).collect();
    // At rest.
    let pid = clients[0].value("SELECT 0 + pg_backend_pid()");
    end(&pid);
    assert_ne!(clients[0].value("SELECT 0 + pg_backend_pid()"), pid);
    // The one server is ended under its holder while the others wait for it.
    clients[0].query("BEGIN").unwrap();
    let pid = clients[0].value("SELECT 0 + pg_backend_pid()");
    clients[1..].iter_mut().for_each(|client| client.send(&Script::new().query("SELECT 3")));
    eventually("they wait", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 4.0);
    end(&pid);
    assert_eq!(tags(&clients[0].frames_to_end()), "E");
    for client in &mut clients[1..] {
        assert_eq!(tags(&client.ready(1)), "TDCZ");
        assert_eq!(client.value("SELECT 4"), "4");
    }
}

#[test]
fn reported_values_are_spelled_as_the_server_spells_them() {
    let pgweir = conf().size(2).start();
    let asked = [
        ("client_encoding", "latin1"),
        ("DateStyle", "german"),
        ("TimeZone", "utc"),
        ("options", "-c intervalstyle=ISO_8601 -c standard_conforming_strings=0"),
        ("application_name", "spelled"),
    ];
    let mut clients =
        [Client::connect_with(pgweir.port(), &asked), { Client::connect_with(cluster().primary().port(), &asked) }];
    for sql in ["", "SET client_encoding TO utf8", "SET datestyle = sql, mdy; SET timezone TO '-3'", "RESET ALL"] {
        let [ours, theirs] = clients.each_mut().map(|client| {
            client.query(if sql.is_empty() { "SELECT 1" } else { sql }).unwrap();
            let mut told = client.parameters.clone();
            // Whether it is a superuser's, and the like, is the same for both.
            told.retain(|_, value| !value.is_empty());
            told
        });
        assert_eq!(ours, theirs, "{sql}");
    }
}

/// A server at rest still acts as the role that had this name when it was set there.
#[test]
fn a_role_is_the_one_that_has_its_name_now() {
    let primary = cluster().primary();
    let make = format!("CREATE ROLE actor; GRANT actor TO {USER}; ");
    primary.query(&make).unwrap();
    let pgweir = conf().size(3).pool("server_order = \"rotate\"").start();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
    clients.iter_mut().for_each(|client| drop(client.query("BEGIN").unwrap()));
    clients.iter_mut().for_each(|client| drop(client.query("COMMIT").unwrap()));
    let client = &mut clients[0];
    client.query("SET ROLE actor").unwrap();
    let mut acts = BTreeSet::new();
    eventually("all servers act as the role", || {
        acts.insert(client.query("SELECT current_user, pg_backend_pid()").unwrap().remove(0));
        acts.len() == 3
    });
    assert!(acts.iter().all(|row| row[0] == "actor"), "{acts:?}");
    client.query("RESET ROLE").unwrap();
    let again = "CREATE TABLE played (n int); ALTER TABLE played OWNER TO actor; REVOKE ALL ON played FROM PUBLIC";
    primary.query_in(DATABASE, &format!("DROP ROLE actor; {make} {again}")).unwrap();
    client.query("SET ROLE actor").unwrap();
    for n in 0..6 {
        assert_eq!(client.query(&format!("INSERT INTO played VALUES ({n})")), Ok(vec![]), "statement {n}");
    }
}
