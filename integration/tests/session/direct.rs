//! Session mode: a server from login to goodbye, and its own process id.
//! It must never be told from a direct connection by what a login says, nor by what the server's views show.

use std::sync::OnceLock;

use integration::wire::Script;
use integration::{Cluster, DATABASE, USER};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, metric};

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::builder().start().unwrap())
}

fn conf() -> Conf {
    Conf::trust(cluster()).pool("pool_mode = \"session\"")
}

fn told(client: &Client) -> u32 {
    u32::from_be_bytes(client.key[..4].try_into().unwrap())
}

/// It waits to come in.
fn come(port: u16, parameters: &[(&str, &str)]) -> Client {
    let mut client = Client::tcp(port);
    client.startup(0, parameters);
    client
}

#[test]
fn a_session_is_told_the_process_of_its_server() {
    let pgweir = conf().size(8).top("workers = 2").start();
    for minor in [0, 2, 0, 2] {
        let mut client = Client::tcp(pgweir.port());
        client.startup(minor, &[("application_name", "told"), ("options", "-c work_mem=5MB")]);
        client.welcome().unwrap();
        let pid = told(&client);
        // Before its first statement.
        let seen = format!("SELECT application_name, state FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(cluster().primary().query(&seen).unwrap(), [["told", "idle"]]);
        assert_eq!(client.value("SHOW work_mem"), "5MB");
        assert_eq!(client.value("SELECT pg_backend_pid()"), pid.to_string());
        client.query("LISTEN self").unwrap();
        let frames = client.run(&Script::new().query("NOTIFY self"));
        let heard = frames.iter().find(|frame| frame.tag == b'A').unwrap();
        assert_eq!(heard.body[..4], pid.to_be_bytes());
        // By the server, by another session, and by a cancel request.
        for how in 0..3 {
            client.send(&Script::new().query(&format!("SELECT pg_sleep(50) /* told {how} */")));
            let busy = format!(
                "SELECT query LIKE '%told {how}%' AND state = 'active' FROM pg_stat_activity WHERE pid = {pid}"
            );
            cluster().primary().wait_true(&busy).unwrap();
            let cancel = format!("SELECT pg_cancel_backend({pid})");
            match how {
                0 => assert_eq!(cluster().primary().query(&cancel).unwrap(), [["t"]]),
                1 => assert_eq!(Client::connect(pgweir.port()).value(&cancel), "t"),
                _ => {
                    let mut carrier = Client::tcp(pgweir.port());
                    carrier.write(&client.cancel_request());
                    assert_eq!(carrier.read_to_end(), b"");
                }
            }
            assert_eq!(outcome(&client.ready(1)), Err("57014 canceling statement due to user request".into()));
        }
        // Nobody's secret, for a process that is somebody's.
        let mut wrong = client.cancel_request();
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        client.send(&Script::new().query("SELECT 'done' FROM pg_sleep(0.3) /* wrong */"));
        cluster()
            .primary()
            .wait_true(&format!("SELECT query LIKE '%wrong%' FROM pg_stat_activity WHERE pid = {pid}"))
            .unwrap();
        let mut carrier = Client::tcp(pgweir.port());
        carrier.write(&wrong);
        assert_eq!(carrier.read_to_end(), b"");
        assert_eq!(outcome(&client.ready(1)).unwrap(), [["done"]]);
    }
}

/// What a server says to a login that it does not want is what the client hears, and it hears it then.
#[test]
fn a_login_that_the_server_refuses_is_refused_in_its_words() {
    let primary = cluster().primary();
    primary.query("CREATE ROLE barred NOLOGIN").unwrap();
    let pgweir = conf().size(3).user("barred", "").start();
    for parameters in [
        &[("options", "-c work_mem=much")][..],
        &[("work_mem", "much")],
        &[("search_path", "ok"), ("datestyle", "nonsense")],
        &[("user", "barred")],
    ] {
        let told = |port: u16| {
            let refused = come(port, parameters).welcome().unwrap_err();
            [b'S', b'C', b'M'].map(|code| refused.field(code))
        };
        assert_eq!(told(pgweir.port()), told(primary.port()), "{parameters:?}");
    }
    // The server that was tried is as good as before.
    assert_eq!(Client::connect(pgweir.port()).value("SHOW work_mem"), "4MB");
}

/// Of the role; the same for that of the database and of the whole server.
#[test]
fn a_login_beyond_the_servers_limit_is_refused_at_once() {
    let primary = cluster().primary();
    primary.query("CREATE ROLE few LOGIN CONNECTION LIMIT 2").unwrap();
    let pgweir = conf().size(8).user("few", "").start();
    for port in [primary.port(), pgweir.port()] {
        let start: &[(&str, &str)] = &[("user", "few")];
        let (mut one, two) = (Client::connect_with(port, start), Client::connect_with(port, start));
        for _ in 0..3 {
            let refused = come(port, start).welcome().unwrap_err();
            assert_eq!(said(&refused), "53300 too many connections for role \"few\"");
        }
        // Nobody else is in a role that has too many.
        assert_eq!(Client::connect(port).value("SELECT 1"), "1");
        assert_eq!(one.value("SELECT current_user"), "few");
        two.end();
        eventually("one has gone", || {
            let mut three = come(port, start);
            three.welcome().is_ok() && three.value("SELECT current_user") == "few"
        });
        drop(one);
        let gone =
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'few' AND backend_type = 'client backend'";
        if port == primary.port() {
            primary.wait_true(gone).unwrap();
        }
    }
}

#[test]
fn who_waits_for_a_server_to_come_in_is_in_nobodys_way() {
    let pgweir = conf().size(1).pool("query_wait_timeout = \"2s\"").user("other", "").start();
    cluster().primary().query("CREATE ROLE other LOGIN").unwrap();
    let waiting = |count: f64| {
        eventually("so many wait", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == count);
    };
    let first = Client::connect(pgweir.port());
    let mut queue: Vec<_> = (0..30).map(|_| come(pgweir.port(), &[])).collect();
    waiting(30.0);
    // Another pool's clients come in meanwhile.
    assert_eq!(Client::connect_with(pgweir.port(), &[("user", "other")]).value("SELECT current_user"), "other");
    // Who leaves does not wait any more.
    queue.drain(1..).for_each(Client::vanish);
    waiting(1.0);
    first.vanish();
    let mut next = queue.remove(0);
    next.welcome().unwrap();
    assert_eq!(next.value("SELECT 1"), "1");
    // Who waits for too long hears so, as a login does.
    let mut late = come(pgweir.port(), &[]);
    let refused = late.welcome().unwrap_err();
    assert_eq!(said(&refused), "53300 pgweir: no server connection became free within 2 s");
    assert_eq!(refused.field(b'S').as_deref(), Some("FATAL"));
    // What came behind the login is answered once it is in.
    let mut eager = Client::tcp(pgweir.port());
    let start = crate::common::client::startup(0, &[]);
    eager.write(&[&start[..], Script::new().query("SELECT 5").bytes()].concat());
    waiting(1.0);
    next.send(&Script::new().terminate());
    eager.welcome().unwrap();
    assert_eq!(tags(&eager.ready(1)), "TDCZ");
}

#[test]
fn by_pgbouncers_rules_a_login_needs_no_server() {
    let pgweir = conf().size(1).pool("session_state = \"pgbouncer\"").start();
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
    assert_eq!(clients[2].value("SELECT 1"), "1");
    assert!(told(&clients[2]) > 1 << 22);
    assert_eq!(clients[2].value(&format!("SELECT current_database() || '{USER}'")), format!("{DATABASE}{USER}"));
}

/// A connection for replication has a server of its own, too.
#[test]
fn a_walsender_is_told_its_process() {
    cluster().primary().query("CREATE ROLE streams LOGIN REPLICATION").unwrap();
    let pgweir = Conf::trust(cluster()).size(1).user("streams", "").start();
    let mut client = Client::connect_with(pgweir.port(), &[("user", "streams"), ("replication", "database")]);
    let pid = told(&client);
    let seen = format!("SELECT backend_type FROM pg_stat_activity WHERE pid = {pid}");
    assert_eq!(cluster().primary().query(&seen).unwrap(), [["walsender"]]);
    assert_eq!(client.value("SELECT pg_backend_pid()"), pid.to_string());
}
