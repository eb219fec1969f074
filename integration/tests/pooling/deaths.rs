//! Servers that die at rest or at work, clients that die in the middle of anything.
//! It must never show one client what happened to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, know};
use crate::{cluster, conf};
use integration::wire::Script;
use integration::{Cluster, DATABASE};

/// A number of a test's own connections, found by the application_name that pgweir's clients have there.
fn count(cluster: &Cluster, condition: &str) -> String {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND {condition}");
    cluster.primary().value_in("postgres", &sql).unwrap()
}

/// Between two requests of a client all resting servers are killed, over and over: it never notices.
#[test]
fn a_server_killed_at_rest_is_never_handed_out() {
    let cluster = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&cluster).size(5).start();
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(pgweir.port())).collect();
    // Until then a server is asked what its client has left there, and is not at rest.
    know(&pgweir);
    let mut admin = cluster.primary().admin("postgres").unwrap();
    let kill = format!(
        "SELECT count(*) FROM (SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{DATABASE}') AS killed"
    );
    for round in 0..60 {
        // Opens several connections, so that several rest.
        for client in &mut clients {
            client.send(&Script::new().query("SELECT pg_sleep(0.005)"));
        }
        for client in &mut clients {
            outcome(&client.ready(1)).unwrap();
        }
        // The call returns once they are gone.
        assert_ne!(admin.query(&kill).unwrap()[0][0], "0", "round {round}");
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.query(&format!("SELECT {number}")), Ok(vec![vec![number.to_string()]]), "round {round}");
        }
    }
}

/// Servers are killed at random moments while a thousand queries run. Only a client whose request had gone to the killed server may see an
/// error, and then it is the server's own; as each kill ends one connection, there are at most as many errors as kills.
#[test]
fn servers_killed_at_random_cost_at_most_what_they_were_doing() {
    let cluster = Arc::new(Cluster::builder().start().unwrap());
    let pgweir = Conf::trust(&cluster).size(4).start();
    let port = pgweir.port();
    let (done, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let killer = {
        let (cluster, done, kills) = (Arc::clone(&cluster), Arc::clone(&done), Arc::clone(&kills));
        thread::spawn(move || {
            let mut admin = cluster.primary().admin("postgres").unwrap();
            // One that rests, as far as the server knows; a request may be on its way to it.
            let sql = format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND state = 'idle' ORDER BY random() LIMIT 1"
            );
            while !done.load(Ordering::Relaxed) {
                kills.fetch_add(admin.query(&sql).unwrap().len(), Ordering::Relaxed);
            }
        })
    };
    let errors: usize = crate::common::crowd(10, move |number| {
        let (mut client, mut errors) = (Client::connect(port), 0);
        for round in 0..100 {
            match client.query(&format!("SELECT {number} * 1000 + {round}")) {
                Ok(rows) => assert_eq!(rows, [[(number * 1000 + round).to_string()]]),
                Err(error) => {
                    assert!(error.starts_with("57P01") || error.starts_with("08006"), "{error}");
                    errors += 1;
                    client = Client::connect(port);
                }
            }
        }
        errors
    })
    .into_iter()
    .sum();
    done.store(true, Ordering::Relaxed);
    killer.join().unwrap();
    let kills = kills.load(Ordering::Relaxed);
    assert!(kills > 0 && errors <= kills, "{errors} errors, {kills} kills");
}

#[test]
fn a_server_killed_at_work_is_its_clients_matter() {
    let pgweir = conf().size(2).start();
    let mut client = Client::connect(pgweir.port());
    let mut bystander = Client::connect(pgweir.port());
    client.query("BEGIN").unwrap();
    let pid = client.value("SELECT 0 + pg_backend_pid()");
    client.send(&Script::new().query("SELECT pg_sleep(50)"));
    eventually("it runs", || {
        count(cluster(), &format!("pid = {pid} AND query LIKE '%sleep(50)%' AND state = 'active'")) == "1"
    });
    cluster().primary().query(&format!("SELECT pg_terminate_backend({pid}, 5000)")).unwrap();
    let frames = client.frames_to_end();
    let errors: Vec<_> = frames.iter().filter(|frame| frame.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "told twice or not at all: {frames:?}");
    // The server's own words.
    assert!(said(errors[0]).starts_with("57P01"), "{}", said(errors[0]));
    assert_eq!(errors[0].field(b'S').as_deref(), Some("FATAL"));
    assert_eq!(bystander.value("SELECT 1"), "1");
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 2"), "2");
}

/// Between two statements of a transaction: what is left of it cannot go on elsewhere.
#[test]
fn a_server_killed_in_a_transaction_ends_the_session() {
    let pgweir = conf().size(2).start();
    let mut client = Client::connect(pgweir.port());
    client.query("BEGIN").unwrap();
    let pid = client.value("SELECT 0 + pg_backend_pid()");
    cluster().primary().query(&format!("SELECT pg_terminate_backend({pid}, 5000)")).unwrap();
    let error = client.query("SELECT 'elsewhere'").unwrap_err();
    assert!(error.starts_with("57P01") || error.starts_with("08006"), "{error}");
    assert!(client.read().is_none());
}

#[test]
fn a_client_that_dies_in_a_transaction_is_rolled_back() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    client.query("CREATE TABLE half_done (n int)").unwrap();
    for round in 0..10 {
        client.query("BEGIN").unwrap();
        let pid = client.value("SELECT 0 + pg_backend_pid()");
        client.query("INSERT INTO half_done VALUES (1)").unwrap();
        client.query("LOCK TABLE half_done IN ACCESS EXCLUSIVE MODE").unwrap();
        if round % 2 == 0 {
            client.query("SELECT 1/0").unwrap_err();
        }
        if round % 3 == 0 {
            client.send(&Script::new().terminate());
        }
        client.vanish();
        client = Client::connect(pgweir.port());
        assert_eq!(client.value("SELECT count(*) FROM half_done"), "0", "round {round}");
        // The connection itself was fine and is used again.
        assert_eq!(client.value("SELECT 0 + pg_backend_pid()"), pid, "round {round}");
    }
}

#[test]
fn a_client_that_dies_in_a_query_has_it_cancelled() {
    let pgweir = conf().size(1).start();
    for (number, script) in [
        Script::new().query("SELECT pg_sleep(50) /* orphan 0 */"),
        Script::new().parse("", "SELECT pg_sleep(50) /* orphan 1 */").bind("", "", &[]).execute("", 0).sync(),
        Script::new().parse("", "SELECT pg_sleep(50) /* orphan 2 */").bind("", "", &[]).execute("", 0).flush(),
    ]
    .iter()
    .enumerate()
    {
        let running = || count(cluster(), &format!("query LIKE '%/* orphan {number} */%' AND state = 'active'"));
        let mut client = Client::connect(pgweir.port());
        client.send(script);
        eventually("it runs", || running() == "1");
        client.vanish();
        eventually("it does not run any more", || running() == "0");
        assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1");
    }
}

/// In the middle of an answer of many megabytes, of a message, and of a batch without Sync.
#[test]
fn clients_that_die_in_the_middle_of_anything() {
    let pgweir = conf().size(1).start();
    let query = Script::new().query("SELECT repeat('x', 1000) FROM generate_series(1, 50000)");
    let long = Script::new().query(&format!("SELECT '{}'", "y".repeat(100_000)));
    let unsynced = Script::new().parse("", "CREATE TABLE never_made (n int)").bind("", "", &[]).execute("", 0);
    let prepared = Script::new().parse("s", "SELECT 1");
    let pieces: [&[u8]; 6] = [
        query.bytes(),
        &long.bytes()[..50_000],
        &long.bytes()[..3],
        unsynced.bytes(),
        prepared.bytes(),
        &prepared.bytes()[..7],
    ];
    for (number, bytes) in pieces.iter().enumerate() {
        for read in [false, true] {
            let mut client = Client::connect(pgweir.port());
            client.write(bytes);
            if read && number == 0 {
                assert_eq!(tags(&[client.read().unwrap(), client.read().unwrap()]), "TD");
            }
            client.vanish();
            let mut other = Client::connect(pgweir.port());
            assert_eq!(
                other.query("SELECT to_regclass('never_made') IS NULL"),
                Ok(vec![vec!["t".to_string()]]),
                "{number}"
            );
            let frames = other.run(&Script::new().parse("s", "SELECT 2").bind("", "s", &[]).execute("", 0).sync());
            assert_eq!(outcome(&frames), Ok(vec![vec!["2".to_string()]]), "{number}");
        }
    }
}

/// PostgreSQL restarts: clients between transactions wait until it is back, and see no error.
#[test]
fn a_restart_of_postgresql_is_not_seen_between_transactions() {
    let cluster =
        Cluster::builder().sql("CREATE TABLE kept AS SELECT 7 AS n; GRANT ALL ON kept TO app").start().unwrap();
    let pgweir = Conf::trust(&cluster).size(3).pool("server_login_retry = \"500ms\"").start();
    // Who may have left something on a server that dies, as long as nobody knows what code there is, hears of it.
    know(&pgweir);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(pgweir.port())).collect();
    for client in &mut clients {
        client.run(&Script::new().parse("s", "SELECT n FROM kept").sync());
        assert_eq!(client.value("SELECT n FROM kept"), "7");
    }
    for round in 0..2 {
        if round == 0 {
            cluster.primary().restart().unwrap();
        } else {
            // Some ask while it is down: they wait.
            cluster.primary().stop(integration::Stop::Fast).unwrap();
            for client in &mut clients {
                client.send(&Script::new().bind("", "s", &[]).execute("", 0).sync());
            }
            cluster.primary().start().unwrap();
            for client in &mut clients {
                assert_eq!(outcome(&client.ready(1)), Ok(vec![vec!["7".to_string()]]));
            }
        }
        for client in &mut clients {
            let frames = client.run(&Script::new().bind("", "s", &[]).execute("", 0).sync());
            assert_eq!(outcome(&frames), Ok(vec![vec!["7".to_string()]]));
            assert_eq!(client.value("SELECT n FROM kept"), "7");
        }
    }
}

/// A client that goes before the server has asked for its data: the server does not wait for what nobody will send.
#[test]
fn who_leaves_at_the_start_of_a_copy_holds_nothing() {
    let pgweir = conf().size(1).start();
    let mut other = Client::connect(pgweir.port());
    other.query("CREATE TABLE IF NOT EXISTS deserted (n int)").unwrap();
    let copy = Script::new().parse("", "COPY deserted FROM STDIN").bind("", "", &[]).execute("", 0).sync();
    for _ in 0..20 {
        let mut client = Client::connect(pgweir.port());
        client.send(&copy);
        client.vanish();
        let began = std::time::Instant::now();
        assert_eq!(other.value("SELECT 1"), "1");
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
