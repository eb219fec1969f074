//! SIGHUP: a good configuration takes effect as a whole, a bad one not at all.
//! It must never cost a client a transaction.

use crate::common::client::said;
use crate::common::{Client, Conf, crowd, eventually, metric};
use crate::{cluster, conf};
use integration::wire::Script;
use integration::{Cluster, DATABASE, Pgweir};

/// Reloads and waits until pgweir has said what it thinks of it.
fn reload(pgweir: &Pgweir, text: &str) -> bool {
    let counts = || {
        let taken = metric(pgweir, "pgweir_config_reloads_total", &[("outcome", "ok")]);
        (taken, metric(pgweir, "pgweir_config_reloads_total", &[]))
    };
    let before = counts();
    pgweir.reload(text).unwrap();
    eventually("the configuration was read again", || counts().1 > before.1);
    counts().0 > before.0
}

/// How many transactions can be open at a time: the next one finds no server within the short limit.
fn open_at_once(pgweir: &Pgweir, most: usize) -> usize {
    let mut held = Vec::new();
    for _ in 0..most {
        let mut client = Client::connect(pgweir.port());
        if client.query("BEGIN").is_err() {
            break;
        }
        held.push(client);
    }
    for client in &mut held {
        client.query("COMMIT").unwrap();
    }
    held.len()
}

#[test]
fn pool_sizes_change() {
    let conf = conf().pool("query_wait_timeout = \"300ms\"");
    let pgweir = conf.clone().size(1).start();
    assert_eq!(open_at_once(&pgweir, 3), 1);
    assert!(reload(&pgweir, &conf.clone().size(4).text()));
    eventually("four at once", || open_at_once(&pgweir, 6) == 4);
    assert!(reload(&pgweir, &conf.clone().size(2).text()));
    eventually("two at once", || open_at_once(&pgweir, 6) == 2);
    // The database's own size and the user's go before it.
    assert!(reload(&pgweir, &conf.clone().size(2).database("pool_size = 3").text()));
    eventually("three at once", || open_at_once(&pgweir, 6) == 3);
    assert!(reload(&pgweir, &conf.clone().size(2).database("pool_size = 3").user("app", "pool_size = 1").text()));
    eventually("one at once", || open_at_once(&pgweir, 6) == 1);
}

/// Those who wait for a server get one as soon as more are allowed.
#[test]
fn a_larger_pool_serves_those_who_wait() {
    let conf = conf();
    let pgweir = conf.clone().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let mut waiter = Client::connect(pgweir.port());
    waiter.send(&Script::new().query("SELECT 'served'"));
    eventually("it waits", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0);
    assert!(reload(&pgweir, &conf.size(2).text()));
    assert_eq!(crate::common::client::outcome(&waiter.ready(1)), Ok(vec![vec!["served".to_string()]]));
    holder.query("COMMIT").unwrap();
}

fn login(pgweir: &Pgweir, user: &str, database: &str) -> Result<Client, String> {
    let mut client = Client::tcp(pgweir.port());
    client.startup(0, &[("user", user), ("database", database)]);
    match client.welcome() {
        Ok(_) => Ok(client),
        Err(error) => Err(said(&error)),
    }
}

#[test]
fn users_and_databases_come_and_go() {
    let conf = conf().database("user = \"app\"");
    let pgweir = conf.start();
    assert!(login(&pgweir, "late", DATABASE).is_err());
    assert!(login(&pgweir, "app", "other").is_err());
    let more = conf.clone().user("late", "").rest(&format!(
        "[databases.other]\nprimary = \"{}\"\ndbname = \"app\"\nuser = \"app\"\n",
        cluster().primary().address()
    ));
    assert!(reload(&pgweir, &more.text()));
    let mut late = None;
    eventually("they are there", || {
        late = login(&pgweir, "late", "other").ok();
        late.is_some()
    });
    let mut late = late.unwrap();
    assert_eq!(late.value("SELECT current_database()"), "app");
    assert!(reload(&pgweir, &conf.text()));
    eventually("the user is gone", || login(&pgweir, "late", DATABASE).is_err());
    eventually("the database is gone", || login(&pgweir, "app", "other").is_err());
    // Who was in a database that is gone is told so at the next transaction.
    let error = late.query("SELECT 1").unwrap_err();
    assert!(error.starts_with("3D000"), "{error}");
}

/// The sessions of a user that is taken away end between transactions, and those of others go on.
#[test]
fn a_user_taken_away_ends_its_sessions() {
    cluster().primary().query("CREATE ROLE leaving LOGIN").unwrap();
    let conf = conf().size(1);
    let with_user = conf.clone().user("leaving", "");
    let pgweir = with_user.start();
    let mut inside = login(&pgweir, "leaving", DATABASE).unwrap();
    inside.query("BEGIN").unwrap();
    let mut waiting = login(&pgweir, "leaving", DATABASE).unwrap();
    waiting.send(&Script::new().query("SELECT 1"));
    eventually("it waits", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0);
    let mut resting = login(&pgweir, "leaving", DATABASE).unwrap();
    let mut other = Client::connect(pgweir.port());
    assert!(reload(&pgweir, &conf.text()));
    let ended = "57P01 terminating connection due to administrator command";
    for client in [&mut resting, &mut waiting] {
        let frames = client.frames_to_end();
        assert_eq!(frames.iter().map(said).collect::<Vec<_>>(), [ended]);
        assert_eq!(frames[0].field(b'S').as_deref(), Some("FATAL"));
    }
    assert_eq!(inside.value("SELECT 'still inside'"), "still inside");
    inside.query("COMMIT").unwrap();
    assert_eq!(inside.frames_to_end().iter().map(said).collect::<Vec<_>>(), [ended]);
    assert_eq!(other.value("SELECT 1"), "1");
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'leaving'";
    eventually("nobody is left there", || cluster().primary().value_in("postgres", left).unwrap() == "0");
    assert!(login(&pgweir, "leaving", DATABASE).is_err());
}

/// A password that the configuration has taken away opens no server any more, though its user is still there.
#[test]
fn a_password_taken_away_opens_nothing() {
    let cluster = Cluster::builder().auth(integration::Hba::Scram).start().unwrap();
    let conf = Conf::database_only(&cluster.config_lines()).listen("auth_type = \"trust\"");
    let pgweir = conf.clone().user("app", &format!("password = \"{}\"", integration::PASSWORD)).start();
    let mut client = Client::connect(pgweir.port());
    assert_eq!(client.value("SELECT 1"), "1");
    assert!(reload(&pgweir, &conf.user("app", "").text()));
    let mut refused = String::new();
    eventually("it has reached the worker", || {
        let outcome = client.query("SELECT 1");
        refused = outcome.clone().err().unwrap_or_default();
        outcome.is_err()
    });
    assert!(refused.starts_with("08006") || refused.starts_with("28"), "{refused}");
    // One that is being asked for the database's code goes when it has answered.
    eventually("no server is left", || cluster.primary().counters(DATABASE).unwrap().backends == 0);
}

#[test]
fn a_bad_configuration_changes_nothing() {
    let conf = conf().pool("query_wait_timeout = \"300ms\"");
    let pgweir = conf.clone().size(2).start();
    let mut client = Client::connect(pgweir.port());
    let good = conf.clone().size(1).text();
    for bad in [
        good.replace("[pool]", "[pool]\nmagic = 1"),
        good.replace("[pool]", "[pool"),
        String::new(),
        good.replace("[pool]", "client_tls_sslmode = \"require\"\nclient_tls_cert_file = \"/none\"\nclient_tls_key_file = \"/none\"\n[pool]"),
    ] {
        assert!(!reload(&pgweir, &bad), "taken:\n{bad}");
        assert_eq!(client.value("SELECT 1"), "1");
    }
    assert_eq!(open_at_once(&pgweir, 4), 2);
    assert!(pgweir.log().contains("refused"));
    assert!(reload(&pgweir, &good));
    eventually("one at once", || open_at_once(&pgweir, 4) == 1);
}

/// A database that moves to another server: who is in a transaction ends it where it began, and goes there then.
#[test]
fn clients_move_to_another_server_between_transactions() {
    let (old, new) = (Cluster::builder().start().unwrap(), Cluster::builder().start().unwrap());
    old.primary().query_in(DATABASE, "CREATE TABLE place AS SELECT 'old' AS name; GRANT ALL ON place TO app").unwrap();
    new.primary().query_in(DATABASE, "CREATE TABLE place AS SELECT 'new' AS name; GRANT ALL ON place TO app").unwrap();
    let pgweir = Conf::trust(&old).start();
    let mut inside = Client::connect(pgweir.port());
    let mut outside = Client::connect(pgweir.port());
    inside.run(&Script::new().parse("where", "SELECT name FROM place").sync());
    inside.query("BEGIN").unwrap();
    assert_eq!(inside.value("SELECT name FROM place"), "old");
    assert_eq!(outside.value("SELECT name FROM place"), "old");
    assert!(reload(&pgweir, &Conf::trust(&new).text()));
    eventually("the others are there", || outside.value("SELECT name FROM place") == "new");
    assert_eq!(inside.value("SELECT name FROM place"), "old");
    inside.query("INSERT INTO place VALUES ('late')").unwrap();
    inside.query("COMMIT").unwrap();
    assert_eq!(old.primary().value_in(DATABASE, "SELECT count(*) FROM place").unwrap(), "2");
    assert_eq!(inside.value("SELECT name FROM place"), "new");
    // What was prepared there works here.
    let frames = inside.run(&Script::new().bind("", "where", &[]).execute("", 0).sync());
    assert_eq!(crate::common::client::outcome(&frames), Ok(vec![vec!["new".to_string()]]));
    eventually("nobody is left there", || old.primary().counters(DATABASE).unwrap().backends == 0);
}

/// Under load, a reload every moment: nobody notices.
#[test]
fn reloads_under_load_cost_nothing() {
    let conf = conf();
    let pgweir = conf.clone().size(3).start();
    let port = pgweir.port();
    let load = std::thread::spawn(move || {
        crowd(20, move |number| {
            let mut client = Client::connect(port);
            client.run(&Script::new().parse("s", "SELECT $1::int").sync());
            for round in 0..100 {
                let value = (number * 1000 + round).to_string();
                let frames = client.run(&Script::new().bind("", "s", &[Some(&value)]).execute("", 0).sync());
                assert_eq!(crate::common::client::outcome(&frames), Ok(vec![vec![value]]));
                assert_eq!(client.query("BEGIN; SELECT 1; COMMIT").map(|rows| rows.len()), Ok(1));
            }
        });
    });
    let texts = [
        conf.clone().size(5),
        conf.clone().size(1),
        conf.clone().size(3),
        conf.clone().database("server_tls_sslmode = \"disable\""),
    ];
    for text in texts.iter().cycle().take(12) {
        assert!(reload(&pgweir, &text.text()));
    }
    load.join().unwrap();
}

/// Pools that a reload replaces are freed with their last transaction, and no series stays behind.
#[test]
fn reloads_that_replace_pools_leave_nothing() {
    let conf = conf();
    let pgweir = conf.clone().size(2).start();
    let mut idle = Client::connect(pgweir.port());
    let mut busy = Client::connect(pgweir.port());
    let series = || {
        let text = pgweir.metrics().unwrap();
        text.lines().filter(|line| line.starts_with("pgweir_pool_") || line.starts_with("pgweir_quer")).count()
    };
    let mut rounds = Vec::new();
    let mut queries = 0.0;
    for round in 0..20 {
        assert_eq!(idle.value("SELECT 1"), "1");
        busy.query("BEGIN").unwrap();
        let sslmode = ["disable", "prefer"][round % 2];
        assert!(reload(&pgweir, &conf.clone().size(2).database(&format!("server_tls_sslmode = \"{sslmode}\"")).text()));
        assert_eq!(idle.value("SELECT 1"), "1");
        busy.query("COMMIT").unwrap();
        assert_eq!(busy.value("SELECT 1"), "1");
        let now = metric(&pgweir, "pgweir_pool_queries_total", &[]);
        assert!(now >= queries + 5.0, "the sum went back from {queries} to {now}");
        queries = now;
        rounds.push(series());
    }
    assert!(rounds.iter().skip(2).all(|lines| *lines == rounds[2]), "{rounds:?}");
    let held = || metric(&pgweir, "pgweir_pool_server_connections", &[]);
    eventually("only the last pool's servers are left", || held() <= 2.0);
}
