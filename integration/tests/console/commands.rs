//! What commands do to clients, servers and the program.
//! It must never take a pause for an end: whoever waits goes on afterwards.

use std::fs;
use std::time::Duration;

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, eventually};
use crate::{command, conf, console, console_as, show};
use integration::wire::Script;
use integration::{DATABASE, Pgweir};

/// Process ids of the servers that pgweir has open.
fn servers(client: &mut Client) -> Vec<String> {
    let shown = show(client, "SHOW SERVERS ORDER BY remote_pid");
    let at = shown.columns.iter().position(|(name, _)| name == "remote_pid").unwrap();
    shown.rows.into_iter().map(|row| row[at].clone()).collect()
}

fn waiting(client: &mut Client) -> String {
    show(client, "SHOW POOLS").value(("database", DATABASE), "cl_waiting")
}

#[test]
fn reload_takes_effect_or_says_why_not() {
    let conf = conf().size(3);
    let pgweir = conf.start();
    let mut admin = console(&pgweir);
    let write = |text: &str| {
        let old = fs::read_to_string(pgweir.config_file()).unwrap();
        fs::write(pgweir.config_file(), old.replace("default_pool_size = 3", text)).unwrap();
    };
    write("default_pool_size = 7");
    assert_eq!(command(&mut admin, "RELOAD").unwrap(), "RELOAD");
    assert_eq!(show(&mut admin, "SHOW CONFIG").value(("key", "default_pool_size"), "value"), "7");
    assert_eq!(show(&mut admin, "SHOW DATABASES").value(("name", DATABASE), "pool_size"), "7");
    let old = fs::read_to_string(pgweir.config_file()).unwrap();
    fs::write(pgweir.config_file(), format!("nonsense = 1\n{old}")).unwrap();
    let frames = admin.run(&Script::new().query("RELOAD"));
    assert!(said(&frames[0]).starts_with("F0000 pgweir: the configuration is refused"), "{}", said(&frames[0]));
    assert!(frames[0].field(b'D').unwrap().contains("unknown key `nonsense`"));
    assert_eq!(show(&mut admin, "SHOW CONFIG").value(("key", "default_pool_size"), "value"), "7");
}

/// Servers are closed as soon as they are free, and not before.
#[test]
fn reconnect_replaces_servers() {
    let pgweir = conf().size(2).start();
    let mut admin = console(&pgweir);
    let (mut busy, mut resting) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    busy.query("BEGIN").unwrap();
    resting.query("SELECT 1").unwrap();
    let before = servers(&mut admin);
    assert!(!before.is_empty());
    assert_eq!(command(&mut admin, "RECONNECT app").unwrap(), "RECONNECT");
    // One may still be asked for the code of its database.
    eventually("only the one is left that is in a transaction", || servers(&mut admin).len() == 1);
    assert_eq!(show(&mut admin, "SHOW SERVERS").value(("state", "active"), "close_needed"), "1");
    // Who waits for them hears of it when the transaction has ended.
    admin.send(&Script::new().query("WAIT_CLOSE app"));
    assert!(!admin.speaks_within(Duration::from_millis(200)), "it did not wait");
    busy.query("COMMIT").unwrap();
    admin.patience(Duration::from_secs(60));
    assert_eq!(tags(&admin.ready(1)), "CZ");
    busy.query("SELECT 1").unwrap();
    resting.query("SELECT 1").unwrap();
    assert!(servers(&mut admin).iter().all(|pid| !before.contains(pid)));
    let error = command(&mut admin, "RECONNECT nothing").unwrap_err();
    assert_eq!(error, "3D000 no such database: nothing");
}

#[test]
fn pause_waits_for_servers_and_resume_serves_who_waits() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let (mut inside, mut outside) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    outside.query("SELECT 1").unwrap();
    inside.query("BEGIN").unwrap();
    admin.send(&Script::new().query("PAUSE"));
    assert!(!admin.speaks_within(Duration::from_millis(200)), "a transaction is open");
    let mut other = console(&pgweir);
    assert_eq!(show(&mut other, "SHOW STATE").value(("key", "paused"), "value"), "yes");
    assert_eq!(show(&mut other, "SHOW DATABASES").value(("name", DATABASE), "paused"), "1");
    outside.send(&Script::new().query("SELECT 'served'"));
    eventually("it waits", || waiting(&mut other) == "1");
    // Who comes now waits too.
    let mut late = Client::tcp(pgweir.port());
    late.startup(0, &[]);
    late.welcome().unwrap();
    late.send(&Script::new().query("SELECT 'late'"));
    eventually("both wait", || waiting(&mut other) == "2");
    inside.query("SELECT 1").unwrap();
    inside.query("COMMIT").unwrap();
    admin.patience(Duration::from_secs(60));
    assert_eq!(tags(&admin.ready(1)), "CZ");
    assert_eq!(servers(&mut other).len(), 0);
    assert_eq!(command(&mut admin, "RESUME").unwrap(), "RESUME");
    assert_eq!(outcome(&outside.ready(1)), Ok(vec![vec!["served".to_string()]]));
    assert_eq!(outcome(&late.ready(1)), Ok(vec![vec!["late".to_string()]]));
    let error = command(&mut admin, "RESUME").unwrap_err();
    assert_eq!(error, "55000 nothing is paused");
}

/// A pause that is cancelled while it waits is none.
#[test]
fn a_pause_is_cancelled() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let (mut inside, mut outside) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    inside.query("BEGIN").unwrap();
    admin.send(&Script::new().query("PAUSE"));
    outside.send(&Script::new().query("SELECT 'served'"));
    let mut other = console(&pgweir);
    eventually("it waits", || waiting(&mut other) == "1");
    // Not by a key that is not its own.
    let mut wrong = admin.key.clone();
    wrong[7] ^= 1;
    Client::tcp(pgweir.port()).write(&crate::common::client::cancel_request(&wrong));
    assert!(!admin.speaks_within(Duration::from_millis(200)));
    Client::tcp(pgweir.port()).write(&admin.cancel_request());
    admin.patience(Duration::from_secs(60));
    let frames = admin.ready(1);
    assert_eq!(
        (tags(&frames), said(&frames[0])),
        ("EZ".into(), "57014 canceling statement due to user request".into())
    );
    assert_eq!(outcome(&outside.ready(1)), Ok(vec![vec!["served".to_string()]]));
    inside.query("COMMIT").unwrap();
}

/// Of two databases one is paused; whoever asked for it and leaves stops waiting, and it stays paused.
#[test]
fn one_database_is_paused() {
    let address = crate::cluster().primary().address();
    let pgweir = conf().rest(&format!("[databases.other]\nprimary = \"{address}\"\ndbname = \"{DATABASE}\"\n")).start();
    let mut admin = console(&pgweir);
    let mut inside = Client::connect(pgweir.port());
    inside.query("BEGIN").unwrap();
    admin.send(&Script::new().query(&format!("PAUSE {DATABASE}")));
    assert!(!admin.speaks_within(Duration::from_millis(100)));
    admin.vanish();
    let mut admin = console(&pgweir);
    eventually("the one who waited is gone", || {
        show(&mut admin, "SHOW CLIENTS WHERE database = 'pgweir'").rows.len() == 1
    });
    inside.query("COMMIT").unwrap();
    let mut other = Client::connect_with(pgweir.port(), &[("database", "other")]);
    assert_eq!(other.value("SELECT 'not paused'"), "not paused");
    inside.send(&Script::new().query("SELECT 1"));
    eventually("it waits", || waiting(&mut admin) == "1");
    assert_eq!(command(&mut admin, &format!("RESUME {DATABASE}")).unwrap(), "RESUME");
    assert_eq!(tags(&inside.ready(1)), "TDCZ");
}

#[test]
fn nobody_new_comes_into_a_disabled_database() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut there = Client::connect(pgweir.port());
    let attempt = || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.welcome().map(drop).map_err(|error| said(&error))
    };
    assert_eq!(command(&mut admin, "DISABLE app").unwrap(), "DISABLE");
    eventually("it is closed", || attempt().is_err());
    assert_eq!(attempt().unwrap_err(), "55000 database \"app\" is not currently accepting connections");
    assert_eq!(show(&mut admin, "SHOW DATABASES").value(("name", DATABASE), "disabled"), "1");
    assert_eq!(there.value("SELECT 'stays'"), "stays");
    assert_eq!(command(&mut admin, "ENABLE app").unwrap(), "ENABLE");
    eventually("it is open", || attempt().is_ok());
}

#[test]
fn one_client_is_killed_by_its_id() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut victim = Client::connect_with(pgweir.port(), &[("application_name", "victim")]);
    let mut other = Client::connect_with(pgweir.port(), &[("application_name", "other")]);
    victim.query("BEGIN").unwrap();
    let id = show(&mut admin, "SHOW CLIENTS").value(("application_name", "victim"), "id");
    let killing = Script::new().parse("", "KILL_CLIENT $1").bind("", "", &[Some(&id)]).execute("", 0).sync();
    assert_eq!(tags(&admin.run(&killing)), "12CZ");
    let frames = victim.frames_to_end();
    assert_eq!(
        frames.iter().map(said).collect::<Vec<_>>(),
        ["57P01 terminating connection due to administrator command"]
    );
    assert_eq!(other.value("SELECT 'lives'"), "lives");
    assert_eq!(command(&mut admin, &format!("KILL_CLIENT {id}")).unwrap_err(), format!("42704 client not found: {id}"));
    assert!(command(&mut admin, "KILL_CLIENT nobody").unwrap_err().starts_with("22P02"));
    // A session of the console is a client, too.
    let mut second = console_as(&pgweir, "watcher", "pgbouncer");
    let id = show(&mut admin, "SHOW CLIENTS").value(("user", "watcher"), "id");
    command(&mut admin, &format!("KILL_CLIENT {id}")).unwrap();
    assert_eq!(tags(&second.frames_to_end()), "E");
}

#[test]
fn kill_ends_everybody_and_leaves_it_paused() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let (mut inside, mut idle) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    inside.query("BEGIN").unwrap();
    assert_eq!(command(&mut admin, "KILL app").unwrap(), "KILL");
    for client in [&mut inside, &mut idle] {
        assert_eq!(
            client.frames_to_end().iter().map(said).collect::<Vec<_>>(),
            ["57P01 terminating connection due to administrator command"]
        );
    }
    eventually("no server is left", || servers(&mut admin).is_empty());
    let mut next = Client::connect(pgweir.port());
    next.send(&Script::new().query("SELECT 1"));
    eventually("it waits", || waiting(&mut admin) == "1");
    assert_eq!(command(&mut admin, "RESUME app").unwrap(), "RESUME");
    assert_eq!(tags(&next.ready(1)), "TDCZ");
}

fn ends(pgweir: &Pgweir) {
    assert!(pgweir.wait(Duration::from_secs(30)).unwrap().success());
}

#[test]
fn shutdown_at_once() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    let mut inside = Client::connect(pgweir.port());
    inside.query("BEGIN").unwrap();
    assert_eq!(command(&mut admin, "SHUTDOWN").unwrap(), "SHUTDOWN");
    ends(&pgweir);
    assert_eq!(tags(&inside.frames_to_end()), "E");
    assert_eq!(tags(&admin.frames_to_end()), "E", "it is told, too");
}

/// Not bounded by shutdown_timeout.
#[test]
fn shutdown_when_transactions_are_over() {
    let pgweir = conf().top("shutdown_timeout = \"10ms\"").start();
    let mut admin = console(&pgweir);
    let (mut inside, mut idle) = (Client::connect(pgweir.port()), Client::connect(pgweir.port()));
    inside.query("BEGIN").unwrap();
    assert_eq!(command(&mut admin, "SHUTDOWN WAIT_FOR_SERVERS").unwrap(), "SHUTDOWN");
    assert_eq!(tags(&idle.frames_to_end()), "E", "who rests is sent away");
    assert!(!inside.speaks_within(Duration::from_millis(200)));
    inside.patience(Duration::from_secs(60));
    assert_eq!(inside.value("SELECT 'goes on'"), "goes on");
    // It can still be watched.
    assert_eq!(show(&mut admin, "SHOW STATE").rows.len(), 3);
    inside.query("COMMIT").unwrap();
    ends(&pgweir);
}

#[test]
fn shutdown_when_clients_have_left() {
    let pgweir = conf().top("shutdown_timeout = \"10ms\"").start();
    let mut admin = console(&pgweir);
    let mut idle = Client::connect(pgweir.port());
    assert_eq!(command(&mut admin, "SHUTDOWN WAIT_FOR_CLIENTS").unwrap(), "SHUTDOWN");
    eventually("nobody new comes in", || std::net::TcpStream::connect(("127.0.0.1", pgweir.port())).is_err());
    assert_eq!(idle.value("SELECT 'goes on'"), "goes on");
    idle.vanish();
    ends(&pgweir);
}

#[test]
fn what_is_not_there_says_so() {
    let pgweir = conf().start();
    let mut admin = console(&pgweir);
    for sql in ["SUSPEND", "SHOW FDS"] {
        let error = command(&mut admin, sql).unwrap_err();
        assert!(error.starts_with("0A000 pgweir: "), "{sql}: {error}");
    }
    let error = command(&mut admin, "SELECT 1").unwrap_err();
    assert_eq!(error, "42601 invalid command, use SHOW HELP");
    let mut watcher = console_as(&pgweir, "watcher", "pgweir");
    for sql in [
        "RELOAD",
        "PAUSE",
        "RESUME",
        "KILL",
        "KILL_CLIENT 1",
        "SHUTDOWN",
        "DISABLE app",
        "ENABLE app",
        "WAIT_CLOSE",
        "INVALIDATE ALL",
    ] {
        assert_eq!(command(&mut watcher, sql).unwrap_err(), "42501 admin access needed", "{sql}");
    }
}
