//! The queue for a server: everybody is served, in order, or told that it took too long.
//! It must never depend on how fast the machine is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::common::client::{outcome, said, tags};
use crate::common::{Client, crowd, eventually, metric};
use crate::{cluster, conf};
use integration::Pgweir;
use integration::wire::Script;

fn waiting(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_pool_clients", &[("state", "waiting")])
}

#[test]
fn two_hundred_clients_on_five_servers() {
    cluster()
        .primary()
        .query_in("app", "CREATE TABLE crowd (client int, round int); GRANT ALL ON crowd TO app")
        .unwrap();
    let pgweir = conf().size(5).start();
    let port = pgweir.port();
    crowd(200, move |number| {
        let mut client = Client::connect(port);
        for round in 0..10 {
            client.query("BEGIN").unwrap();
            client.query(&format!("INSERT INTO crowd VALUES ({number}, {round})")).unwrap();
            client.query("COMMIT").unwrap();
            let own = format!("SELECT count(*) FROM crowd WHERE client = {number}");
            assert_eq!(client.value(&own), (round + 1).to_string());
        }
    });
    assert_eq!(cluster().primary().value_in("app", "SELECT count(*) FROM crowd").unwrap(), "2000");
    assert!(metric(&pgweir, "pgweir_pool_server_opens_total", &[]) <= 5.0);
}

/// Whoever asked first is served first, exactly: one server, clients that queue up one after the other.
#[test]
fn first_come_first_served() {
    let pgweir = conf().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("CREATE TABLE served (place serial, client int)").unwrap();
    holder.query("BEGIN").unwrap();
    let mut queue = Vec::new();
    for number in 0..40 {
        let mut client = Client::connect(pgweir.port());
        client.send(&Script::new().query(&format!("INSERT INTO served (client) VALUES ({number})")));
        // Without this the order in which pgweir sees them would be the system's.
        eventually("it waits", || waiting(&pgweir) == (number + 1) as f64);
        queue.push(client);
    }
    holder.query("COMMIT").unwrap();
    for client in &mut queue {
        outcome(&client.ready(1)).unwrap();
    }
    let order = holder.query("SELECT client FROM served ORDER BY place").unwrap();
    let order: Vec<String> = order.into_iter().flatten().collect();
    assert_eq!(order, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// A client that asks again and again does not overtake those who wait: all get their turns at the same pace.
#[test]
fn nobody_is_served_twice_as_often() {
    let pgweir = conf().size(2).start();
    let port = pgweir.port();
    let until = Instant::now() + Duration::from_secs(3);
    let counts = crowd(20, move |_| {
        let mut client = Client::connect(port);
        let mut count = 0u32;
        while Instant::now() < until {
            client.query("SELECT pg_sleep(0.002)").unwrap();
            count += 1;
        }
        count
    });
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(*least > 5 && *most <= 2 * *least, "{counts:?}");
}

#[test]
fn who_waits_too_long_is_told() {
    let pgweir = conf().size(1).pool("query_wait_timeout = \"400ms\"").start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let started = Instant::now();
    let mut late = Client::connect(pgweir.port());
    let ten = (0..10).fold(Script::new(), |script, _| script.query("SELECT 1"));
    late.send(&ten);
    let frames = late.ready(10);
    assert_eq!(tags(&frames), "EZ".repeat(10), "{frames:?}");
    assert!(said(&frames[0]).starts_with("53300 pgweir: "), "{}", said(&frames[0]));
    assert_eq!(frames[0].field(b'S').as_deref(), Some("ERROR"));
    assert!(started.elapsed() >= Duration::from_millis(390), "told too early");
    assert!(started.elapsed() < Duration::from_millis(3900), "each of those that came together waits anew");
    assert_eq!(metric(&pgweir, "pgweir_pool_query_wait_timeouts_total", &[]), 10.0);
    // The holder's transaction is untouched, and who waited in vain is served now.
    holder.query("COMMIT").unwrap();
    assert_eq!(late.value("SELECT 3"), "3");
}

/// The error takes the place of the batch's answer as far as it has come; the rest is read over up to its Sync.
#[test]
fn who_waits_too_long_with_a_flush_lives_on() {
    let pgweir = conf().size(1).pool("query_wait_timeout = \"300ms\"").start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let mut late = Client::connect(pgweir.port());
    let batch = || Script::new().parse("", "SELECT 1").bind("", "", &[]).execute("", 0);
    late.send(&batch().flush());
    let error = late.read().unwrap();
    assert!(said(&error).starts_with("53300 pgweir: "), "{}", said(&error));
    late.send(&batch().flush().query("SELECT 2").sync());
    assert_eq!(tags(&late.ready(1)), "Z");
    holder.query("COMMIT").unwrap();
    assert_eq!(tags(&late.run(&batch().sync())), "12DCZ");
}

#[test]
fn who_waits_too_long_is_disconnected_where_that_is_wanted() {
    let conf = conf().size(1).pool("query_wait_timeout = \"200ms\"\nquery_wait_timeout_action = \"close\"");
    let pgweir = conf.start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let mut late = Client::connect(pgweir.port());
    late.send(&Script::new().query("SELECT 1"));
    let frames = late.frames_to_end();
    assert_eq!((frames.len(), frames[0].field(b'S').as_deref()), (1, Some("FATAL")), "{frames:?}");
}

/// One that gives up leaves the queue to the others.
#[test]
fn who_leaves_the_queue_takes_nothing_with_it() {
    let pgweir = conf().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let mut queue: Vec<Client> = (0..10).map(|_| Client::connect(pgweir.port())).collect();
    for (number, client) in queue.iter_mut().enumerate() {
        client.send(&Script::new().query(&format!("SELECT {number}")));
        eventually("it waits", || waiting(&pgweir) == (number + 1) as f64);
    }
    let staying: Vec<(usize, Client)> = queue
        .into_iter()
        .enumerate()
        .filter_map(|(number, client)| {
            if number % 2 == 0 {
                client.vanish();
                None
            } else {
                Some((number, client))
            }
        })
        .collect();
    eventually("five wait", || waiting(&pgweir) == 5.0);
    holder.query("COMMIT").unwrap();
    for (number, mut client) in staying {
        assert_eq!(outcome(&client.ready(1)), Ok(vec![vec![number.to_string()]]));
    }
    assert_eq!(holder.value("SELECT 1"), "1");
}

/// Every worker and every connection at once, from nothing: a cold pool is filled without anybody failing.
#[test]
fn a_burst_on_a_cold_pool() {
    static SLOWEST: Mutex<Duration> = Mutex::new(Duration::ZERO);
    let pgweir = conf().size(20).pool("query_wait_timeout = \"20s\"").start();
    let port = pgweir.port();
    crowd(100, move |_| {
        let started = Instant::now();
        assert_eq!(Client::connect(port).value("SELECT 7"), "7");
        let mut slowest = SLOWEST.lock().unwrap();
        *slowest = (*slowest).max(started.elapsed());
    });
    assert!(*SLOWEST.lock().unwrap() < Duration::from_secs(20));
    let opened = metric(&pgweir, "pgweir_pool_server_opens_total", &[]);
    assert!((1.0..=20.0).contains(&opened), "{opened}");
}

/// A batch begun while the client waits for a server, longer than pgweir holds back: the rest of it follows once there is one.
#[test]
fn a_long_request_that_had_to_wait() {
    let pgweir = conf().size(1).start();
    let mut holder = Client::connect(pgweir.port());
    holder.query("BEGIN").unwrap();
    let mut client = Client::connect(pgweir.port());
    let mut script = Script::new();
    for n in 0..2000 {
        script = script.query(&format!("SELECT {n}, '{}'", "x".repeat(1000)));
    }
    let mut writer = client.second();
    let writing = std::thread::spawn(move || writer.send(&script));
    eventually("it waits", || metric(&pgweir, "pgweir_pool_clients", &[("state", "waiting")]) == 1.0);
    holder.query("COMMIT").unwrap();
    for n in 0..2000 {
        assert_eq!(outcome(&client.ready(1)).unwrap()[0][0], n.to_string());
    }
    writing.join().unwrap();
}
