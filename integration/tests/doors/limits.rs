//! How many clients of a database or user, how fast they may come, and how long a login may take.
//! It must never take a limit for reached before it is.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::{cancel_request, said};
use crate::common::{Client, Conf, eventually, metric};
use crate::{await_running, cluster, conf};
use integration::wire::{Frame, Script};
use integration::{Pgweir, USER};

fn login(pgweir: &Pgweir, parameters: &[(&str, &str)]) -> Result<Client, Frame> {
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, parameters);
    client.welcome().map(|_| client)
}

fn refused(pgweir: &Pgweir, parameters: &[(&str, &str)]) -> (String, String) {
    let error = login(pgweir, parameters).err().expect("it was let in");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    (said(&error), error.field(b'H').unwrap_or_default())
}

/// Two databases that are one on the server, three users that are one.
fn several() -> Conf {
    let address = cluster().primary().address();
    let lines = format!("primary = \"{address}\"\nuser = \"{USER}\"\n");
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "").user("b", "");
    conf.rest(&format!("[databases.other]\n{lines}dbname = \"app\""))
}

fn reload(pgweir: &Pgweir, conf: &Conf) {
    let count = || metric(pgweir, "pgweir_config_reloads_total", &[("outcome", "ok")]);
    let before = count();
    pgweir.reload(&conf.text()).unwrap();
    eventually("the configuration was read again", || count() > before);
}

#[test]
fn clients_of_a_database() {
    let conf = several().pool("max_db_client_connections = 2").database("max_client_connections = 1");
    let pgweir = conf.start();
    let first = login(&pgweir, &[]).unwrap();
    let (what, hint) = refused(&pgweir, &[("user", "b")]);
    assert_eq!(what, "53300 too many connections for database \"app\"");
    assert!(hint.contains("max_client_connections = 1"), "{hint}");
    // The other database has the general limit.
    let others = [login(&pgweir, &[("database", "other")]).unwrap(), login(&pgweir, &[("database", "other")]).unwrap()];
    let (what, hint) = refused(&pgweir, &[("database", "other")]);
    assert_eq!(what, "53300 too many connections for database \"other\"");
    assert!(hint.contains("max_db_client_connections = 2"), "{hint}");
    // A place that becomes free is taken again.
    drop(first);
    eventually("a place is free", || login(&pgweir, &[]).is_ok());
    drop(others);
}

#[test]
fn clients_of_a_user() {
    let pgweir = several().pool("max_user_client_connections = 2").user("b", "max_client_connections = 1").start();
    let mut held = vec![login(&pgweir, &[]).unwrap(), login(&pgweir, &[("database", "other")]).unwrap()];
    let (what, hint) = refused(&pgweir, &[]);
    assert_eq!(what, "53300 too many connections for role \"app\"");
    assert!(hint.contains("max_user_client_connections = 2"), "{hint}");
    held.push(login(&pgweir, &[("user", "b")]).unwrap());
    let (what, hint) = refused(&pgweir, &[("user", "b")]);
    assert_eq!(what, "53300 too many connections for role \"b\"");
    assert!(hint.contains("max_client_connections = 1"), "{hint}");
    // Whoever was refused by the user's limit holds no place of the database.
    assert_eq!(held[0].value("SELECT 1"), "1");
    held.pop().unwrap().vanish();
    eventually("a place is free", || login(&pgweir, &[("user", "b")]).is_ok());
}

/// Limits are taken from the newest configuration, and count those who came before it.
#[test]
fn caps_change_with_a_reload() {
    let pgweir = several().start();
    let _held: Vec<_> = (0..3).map(|_| login(&pgweir, &[]).unwrap()).collect();
    reload(&pgweir, &several().pool("max_user_client_connections = 3"));
    eventually("the limit is in force", || login(&pgweir, &[]).is_err());
    reload(&pgweir, &several().pool("max_user_client_connections = 3").user(USER, "max_client_connections = 0"));
    eventually("the limit is gone", || login(&pgweir, &[]).is_ok());
}

/// As many at once as come in a second, the rest closed without a word, and more as time goes on.
#[test]
fn connections_of_an_address() {
    const RATE: usize = 10;
    let pgweir = conf().listen(&format!("connection_rate_per_address = {RATE}")).start();
    // The harness itself has connected to see whether it listens.
    let started = Instant::now();
    let mut let_in = 0;
    for _ in 0..60 {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        match client.read() {
            Some(frame) => {
                assert_eq!(frame.tag, b'R');
                let_in += 1;
            }
            None => assert!(let_in > 0, "the first was refused"),
        }
    }
    let most = RATE + 1 + (started.elapsed().as_secs_f64() * RATE as f64) as usize;
    assert!((RATE - 2..=most).contains(&let_in), "{let_in} were let in, at most {most} should be");
    eventually("tokens come back", || {
        let mut client = Client::tcp(pgweir.port());
        client.startup(0, &[]);
        client.read().is_some_and(|frame| frame.tag == b'R')
    });
}

#[test]
fn sessions_of_a_user() {
    let pgweir = several().listen("connection_rate_per_user = 3").start();
    let started = Instant::now();
    let outcomes: Vec<_> = (0..30).map(|_| login(&pgweir, &[])).collect();
    let let_in = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let most = 4 + (started.elapsed().as_secs_f64() * 3.0) as usize;
    assert!((3..=most).contains(&let_in), "{let_in} of at most {most}");
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(said(error), "53300 pgweir: too many new connections for role \"app\"");
        assert!(error.field(b'H').unwrap().contains("connection_rate_per_user = 3"));
    }
    // Nobody else suffers, and it passes.
    login(&pgweir, &[("user", "b")]).unwrap();
    eventually("tokens come back", || login(&pgweir, &[]).is_ok());
}

/// Whoever tries keys is soon not listened to, even with the right one; a moment later it is.
#[test]
fn wrong_keys_of_an_address() {
    let pgweir = conf().rest("[log]\nlevel = \"debug\"").start();
    let mut client = Client::connect(pgweir.port());
    let right = client.cancel_request();
    client.send(&Script::new().query("SELECT pg_sleep(50) /* guessing */"));
    await_running("guessing");
    let mut wrong = client.key.clone();
    wrong[5] ^= 1;
    let ignored = || pgweir.log().contains("too many wrong keys");
    let try_key = |request: &[u8]| {
        let mut carrier = Client::tcp(pgweir.port());
        carrier.write(request);
        assert_eq!(carrier.read_to_end(), b"");
    };
    eventually("wrong keys are not looked at any more", || {
        for _ in 0..100 {
            try_key(&cancel_request(&wrong));
        }
        ignored()
    });
    let cancelled = thread::spawn(move || said(&client.ready(1)[1]));
    eventually("the right key works again", || {
        try_key(&right);
        cancelled.is_finished()
    });
    assert!(cancelled.join().unwrap().starts_with("57014"));
}

/// In PostgreSQL's words once a login has begun; without a word before.
#[test]
fn a_login_that_takes_too_long_is_told_so() {
    let conf = Conf::database_only(&cluster().config_lines()).user(USER, "password = \"x\"");
    let pgweir = conf.listen("client_login_timeout = \"500ms\"").start();
    let started = Instant::now();
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[]);
    assert_eq!(client.read().unwrap().tag, b'R');
    let error = client.read().expect("an error before the end");
    assert_eq!(said(&error), "57014 canceling authentication due to timeout");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert!(client.read().is_none());
    assert!(started.elapsed() >= Duration::from_millis(450));
    let mut silent = Client::tcp(pgweir.port());
    silent.write(&[0, 0, 0]);
    assert_eq!(silent.read_to_end(), b"");
}
