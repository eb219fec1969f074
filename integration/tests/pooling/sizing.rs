//! How many servers there are: kept warm, in reserve, capped over pools, and what takes too long on them.
//! It must never count in pgweir what it can count in PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use integration::wire::Script;
use integration::{Cluster, USER};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, Conf, eventually, metric};
use crate::conf;

/// Backends of clients on a server.
fn backends(cluster: &Cluster) -> u32 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = 'app'
               AND pid <> pg_backend_pid()";
    cluster.primary().value_in("postgres", sql).unwrap().parse().unwrap()
}

#[test]
fn a_minimum_is_warm_before_the_first_client_and_stays() {
    let own = Cluster::builder().start().unwrap();
    let lines = "min_pool_size = 3\nserver_idle_timeout = \"100ms\"";
    let conf = Conf::trust(&own).database(&format!("user = \"{USER}\"")).pool(lines);
    let pgweir = conf.start();
    eventually("three are warm", || backends(&own) == 3);
    // More for a moment, then three again.
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(pgweir.port())).collect();
    clients.iter_mut().for_each(|client| {
        client.query("BEGIN").unwrap();
    });
    assert_eq!(backends(&own), 6);
    clients.iter_mut().for_each(|client| {
        client.query("COMMIT").unwrap();
    });
    eventually("the others are closed", || backends(&own) == 3);
    // One that dies is replaced.
    own.primary()
        .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' LIMIT 1")
        .unwrap();
    eventually("three again", || backends(&own) == 3);
}

#[test]
fn the_reserve_helps_who_waits_long_and_goes_again() {
    let own = Cluster::builder().start().unwrap();
    let lines = "default_pool_size = 2\nreserve_pool_size = 1\nreserve_pool_timeout = \"300ms\"";
    let pgweir = Conf::trust(&own).pool(lines).start();
    let mut holders: Vec<Client> = (0..2).map(|_| Client::connect(pgweir.port())).collect();
    holders.iter_mut().for_each(|client| {
        client.query("BEGIN").unwrap();
    });
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 1"), "1", "nobody helped");
    eventually("the reserve is closed", || backends(&own) == 2);
}

/// Two users under one cap: the one who came first may not keep all of it.
#[test]
fn no_user_starves_another_under_a_cap() {
    let own = Cluster::builder().sql("CREATE ROLE other LOGIN").start().unwrap();
    let conf = Conf::trust(&own).size(10).database("max_db_connections = 4").user("other", "");
    let pgweir = conf.start();
    let port = pgweir.port();
    let stop = Arc::new(AtomicBool::new(false));
    let counts: [Arc<AtomicU32>; 2] = Default::default();
    let start = |user: &'static str, count: &Arc<AtomicU32>| {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(count));
        thread::spawn(move || {
            let mut client = Client::connect_with(port, &[("user", user)]);
            while !stop.load(Ordering::Relaxed) {
                client.query("SELECT pg_sleep(0.002)").unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut threads: Vec<_> = (0..12).map(|_| start(USER, &counts[0])).collect();
    eventually("the first has everything", || backends(&own) == 4);
    threads.extend((0..12).map(|_| start("other", &counts[1])));
    let of = |user: &str| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND usename = '{user}'");
        own.primary().value_in("postgres", &sql).unwrap()
    };
    eventually("each has half", || {
        // Not what PostgreSQL counts: a backend that was told to go takes its time.
        let open = metric(&pgweir, "pgweir_pool_servers", &[]);
        assert!(open <= 4.0, "the cap does not hold: {open}");
        (of(USER), of("other")) == ("2".into(), "2".into())
    });
    let before = counts[1].load(Ordering::Relaxed);
    eventually("the second works", || counts[1].load(Ordering::Relaxed) > before + 50);
    stop.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_cap_per_user_spans_databases() {
    let own = Cluster::builder().sql("CREATE DATABASE second").start().unwrap();
    let second = format!("[databases.second]\n{}", own.config_lines());
    let conf = Conf::trust(&own).user(USER, "max_user_connections = 1").rest(&second);
    let pgweir = conf.pool("query_wait_timeout = \"500ms\"").start();
    let mut one = Client::connect(pgweir.port());
    one.query("BEGIN").unwrap();
    let mut two = Client::tcp(pgweir.port());
    two.startup(0, &[("database", "second")]);
    let told = two.welcome().expect_err("a second connection for the user");
    assert!(said(&told).starts_with("53300"), "{}", said(&told));
    one.query("COMMIT").unwrap();
    // At rest, the connection gives way to one for the other database.
    let mut two = Client::connect_with(pgweir.port(), &[("database", "second")]);
    assert_eq!(two.value("SELECT current_database()"), "second");
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_its_client_lives_on() {
    let pgweir = conf().size(1).user(USER, "query_timeout = \"300ms\"").start();
    let mut client = Client::connect(pgweir.port());
    let pid = client.value("SELECT 0 + pg_backend_pid()");
    let frames = client.run(&Script::new().query("SELECT pg_sleep(60)"));
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    let [code, message, hint] = [b'C', b'M', b'H'].map(|field| error.field(field).unwrap_or_default());
    assert_eq!((&*code, &*message), ("57014", "canceling statement due to statement timeout"));
    assert_eq!(hint, "The limit is pgweir's query_timeout, 300 ms.");
    assert_eq!(client.value("SELECT 0 + pg_backend_pid()"), pid);
    // Many short ones in one batch are not one long one.
    let many = (0..8).fold(Script::new(), |script, _| script.query("SELECT pg_sleep(0.1)"));
    client.send(&many);
    let frames = client.ready(8);
    assert_eq!(tags(&frames).matches('Z').count(), 8);
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    assert_eq!(metric(&pgweir, "pgweir_pool_query_timeouts_total", &[]), 1.0);
}

#[test]
fn a_transaction_that_takes_too_long_ends_with_its_client() {
    let pgweir = conf().size(1).pool("transaction_timeout = \"300ms\"").start();
    for last in ["SELECT 1", "SELECT pg_sleep(60)"] {
        let mut client = Client::connect(pgweir.port());
        client.query("BEGIN").unwrap();
        client.send(&Script::new().query(last));
        let frames = client.frames_to_end();
        let error = frames.iter().rfind(|frame| frame.tag == b'E').expect("it is told");
        assert!(said(error).starts_with("25P04"), "{}", said(error));
    }
    assert_eq!(Client::connect(pgweir.port()).value("SELECT 2"), "2");
}

/// The query of a client that is lost is cancelled, and its server serves the next.
#[test]
fn a_client_that_dies_in_a_query_costs_no_server() {
    let pgweir = conf().size(1).start();
    let mut client = Client::connect(pgweir.port());
    let pid = client.value("SELECT 0 + pg_backend_pid()");
    for begin in ["SELECT 1", "BEGIN"] {
        let mut client = Client::connect(pgweir.port());
        client.query(begin).unwrap();
        client.send(&Script::new().query("SELECT pg_sleep(600) /* abandoned */"));
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%abandoned%' AND state = 'active'
                        AND pid <> pg_backend_pid()";
        let sleeps = || crate::cluster().primary().value_in("postgres", sleeping).unwrap() == "1";
        eventually("it sleeps", sleeps);
        client.vanish();
        eventually("it is cancelled", || !sleeps());
    }
    assert_eq!(client.value("SELECT 0 + pg_backend_pid()"), pid);
    assert_eq!(metric(&pgweir, "pgweir_pool_server_opens_total", &[]), 1.0);
}

/// One refused user says nothing of the others on the same host.
#[test]
fn a_refused_user_does_not_hold_up_the_others() {
    let pgweir = conf().user("nobody_there", "").start();
    for _ in 0..3 {
        let mut refused = Client::tcp(pgweir.port());
        refused.startup(0, &[("user", "nobody_there")]);
        assert!(said(&refused.welcome().expect_err("no such role")).starts_with("28000"));
        let mut client = Client::connect(pgweir.port());
        outcome(&client.run(&Script::new().query("SELECT 1"))).unwrap();
    }
}

/// A pool cut into slices over several workers is still one pool: never larger, and no client waits on one worker while a
/// server rests on another.
#[test]
fn a_pool_cut_over_workers_is_one_pool() {
    let own = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&own).top("workers = 4").size(16).start();
    let begin = |client: &mut Client| client.query("BEGIN").map(|_| ());
    let mut holders: Vec<Client> = (0..16).map(|_| Client::connect(pgweir.port())).collect();
    holders.iter_mut().for_each(|client| begin(client).unwrap());
    assert_eq!(backends(&own), 16);
    // Each of these lands somewhere; the server that becomes free is on another worker more often than not.
    for holder in &mut holders {
        let mut late = Client::connect(pgweir.port());
        late.send(&Script::new().query("SELECT 1"));
        eventually("it waits", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0);
        holder.query("COMMIT").unwrap();
        assert_eq!(outcome(&late.ready(1)).unwrap(), [["1"]]);
        // Workers write their figures down one after the other.
        eventually("no more than 16", || metric(&pgweir, "pgweir_pool_servers", &[]) <= 16.0);
        eventually("the holder goes on", || begin(holder).is_ok());
    }
}

#[test]
fn many_clients_on_a_pool_cut_over_workers() {
    let own = Cluster::builder().start().unwrap();
    let pgweir = Conf::trust(&own).top("workers = 3").size(12).start();
    let port = pgweir.port();
    let sums = crate::common::crowd(100, move |number| {
        let mut client = Client::connect(port);
        (0..50).map(|n| client.value(&format!("SELECT {number} * 1000 + {n}")).parse::<usize>().unwrap()).sum::<usize>()
    });
    for (number, sum) in sums.into_iter().enumerate() {
        assert_eq!(sum, number * 50_000 + 49 * 25);
    }
    eventually("no more than 12", || metric(&pgweir, "pgweir_pool_servers", &[]) <= 12.0);
    eventually("all rest", || metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0);
}

#[test]
fn the_order_in_which_servers_are_used() {
    for (order, distinct) in [("lifo", 1), ("rotate", 3)] {
        // A server that is asked for the database's code is not there for a moment.
        let order_alone = format!("server_order = \"{order}\"\ncatalog_refresh = 0");
        let pgweir = conf().size(3).pool(&order_alone).start();
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
        for verb in ["BEGIN", "COMMIT"] {
            clients.iter_mut().for_each(|client| drop(client.query(verb).unwrap()));
        }
        let pids: std::collections::BTreeSet<String> =
            (0..6).map(|_| clients[0].value("SELECT 0 + pg_backend_pid()")).collect();
        assert_eq!(pids.len(), distinct, "{order}");
    }
}
