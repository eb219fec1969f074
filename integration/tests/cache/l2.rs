//! What one process has kept another finds in Redis, and nothing else than that: not another role's, not what somebody else put there.
//! It must never take for an answer of Redis what a server said: a test that says so has seen the count of its hits move.

use std::time::Duration;

use integration::{Cluster, DATABASE, Pgweir, Redis};

use crate::common::client::outcome;
use crate::common::{Client, Conf, eventually, metric};
use crate::{ask, ask_sql, builder, cluster, conf, direct, start, unnamed};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A cache of what tables say that is shared by way of Redis, of which nothing is missed because a machine is busy.
pub fn sharing(cluster: &Cluster, hosts: &[String], lines: &str) -> Conf {
    let timeout = if lines.contains("timeout") { "" } else { "timeout = \"2s\"\n" };
    let secret = if lines.contains("secret") { String::new() } else { format!("secret = \"{SECRET}\"\n") };
    let redis = format!("[cache.redis]\nhosts = {hosts:?}\n{secret}{timeout}{lines}");
    let rules = format!("[[databases.{DATABASE}.rules]]\ntable = \"*\"\ncache_ttl = \"1h\"\n");
    conf(cluster, &format!("mode = \"on\"\n{redis}")).rest(&rules)
}

/// The same with one server.
pub fn of(cluster: &Cluster, redis: &Redis) -> Conf {
    sharing(cluster, &[redis.address()], "")
}

/// pgweir on one worker, when it is connected.
pub fn up(conf: &Conf) -> Pgweir {
    let pgweir = start(conf);
    eventually("Redis is there", || is_up(&pgweir));
    pgweir
}

pub fn is_up(pgweir: &Pgweir) -> bool {
    metric(pgweir, "pgweir_cache_redis_up", &[]) == 1.0
}

pub fn found(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_cache_redis_hits_total", &[])
}

pub fn missed(pgweir: &Pgweir, reason: &str) -> f64 {
    metric(pgweir, "pgweir_cache_redis_misses_total", &[("reason", reason)])
}

pub fn wrote(pgweir: &Pgweir, outcome: &str) -> f64 {
    metric(pgweir, "pgweir_cache_redis_writes_total", &[("outcome", outcome)])
}

/// Reads, so that Redis has the answer.
pub fn fill(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let before = wrote(pgweir, "kept");
    let (rows, hit) = ask_sql(pgweir, client, sql);
    assert!(!hit, "{sql}");
    eventually("Redis has it", || wrote(pgweir, "kept") > before);
    rows
}

/// Reads, and says whether the answer came from Redis.
pub fn reads(pgweir: &Pgweir, client: &mut Client, sql: &str) -> (Vec<Vec<String>>, bool) {
    let before = found(pgweir);
    let (rows, hit) = ask_sql(pgweir, client, sql);
    let remote = found(pgweir) > before;
    assert!(hit || !remote, "{sql}: what was found was not used");
    (rows, remote)
}

#[test]
fn another_process_finds_what_one_has_kept() {
    let redis = Redis::start().unwrap();
    let [one, two] = [(); 2].map(|()| up(&of(cluster(), &redis)));
    let mut clients = [Client::connect(one.port()), Client::connect(two.port())];
    let simple = "SELECT v, id FROM item WHERE id IN (7, 8) /* shared */";
    let right = fill(&one, &mut clients[0], simple);
    assert_eq!(reads(&two, &mut clients[1], simple), (right.clone(), true));
    // From then on it is its own.
    assert_eq!(reads(&two, &mut clients[1], simple), (right, false));
    assert_eq!(cluster().primary().log().matches("/* shared */").count(), 1);
    // Byte for byte, also where it was compressed.
    let long = unnamed("SELECT * FROM long WHERE id < $1", &[Some("50")]);
    let before = wrote(&one, "kept");
    let (right, _) = ask(&one, &mut clients[0], &long);
    eventually("Redis has it", || wrote(&one, "kept") > before);
    let (frames, hit) = ask(&two, &mut clients[1], &long);
    assert!(hit && frames == right && found(&two) == 2.0);
    let bytes: Vec<i64> = redis.names().unwrap().iter().map(|name| bytes_of(&redis, name)).collect();
    assert!(bytes.len() == 2 && bytes.iter().all(|&bytes| bytes < 2000), "{bytes:?}");
    assert!(redis.names().unwrap().iter().all(|name| name.starts_with("pgweir:") && !name.contains("item")));
    // A process that begins later finds them as well.
    let three = up(&of(cluster(), &redis));
    assert!(reads(&three, &mut Client::connect(three.port()), simple).1);
}

fn bytes_of(redis: &Redis, name: &str) -> i64 {
    redis.ask(&["STRLEN", name]).unwrap().text().parse().unwrap()
}

/// Those who ask the same at once are one question to Redis, and one to the server if that has nothing.
#[test]
fn many_wait_for_one_lookup() {
    let redis = Redis::start().unwrap();
    let cluster = builder().start().unwrap();
    let [one, two] = [(); 2].map(|()| up(&of(&cluster, &redis).size(20)));
    let sql = |id: usize| format!("SELECT v FROM item WHERE id = {id} /* once */");
    let mut first = Client::connect(one.port());
    fill(&one, &mut first, &sql(1));
    for (id, from_redis) in [(1, true), (2, false)] {
        let mut clients: Vec<_> = (0..16).map(|_| Client::connect(two.port())).collect();
        let (before, absent) = (crate::reason(&two, "misses", "absent"), missed(&two, "absent"));
        redis.signal(integration::Signal::STOP);
        let script = integration::wire::Script::new().query(&sql(id));
        clients.iter_mut().for_each(|client| client.send(&script));
        eventually("all have asked", || crate::reason(&two, "misses", "absent") == before + 16.0);
        redis.signal(integration::Signal::CONT);
        for client in &mut clients {
            assert_eq!(outcome(&client.ready(1)).unwrap(), [[format!("item {id}")]]);
        }
        assert_eq!(missed(&two, "absent") - absent, if from_redis { 0.0 } else { 1.0 });
        assert_eq!(found(&two), 1.0);
    }
    assert_eq!(cluster.primary().log().matches("/* once */").count(), 2);
}

/// Each role finds its own answers only, whatever it is called and becomes.
#[test]
fn roles_do_not_meet_there() {
    let redis = Redis::start().unwrap();
    let [one, two] = [(); 2].map(|()| up(&of(cluster(), &redis)));
    let ways = |pgweir: &Pgweir| {
        let mut clients = ["app", "other", "app"].map(|user| Client::connect_with(pgweir.port(), &[("user", user)]));
        clients[2].query("SET ROLE reader").unwrap();
        clients
    };
    let (mut ours, mut theirs) = (ways(&one), ways(&two));
    for client in [0, 1] {
        fill(&one, &mut ours[client], "SELECT v FROM place");
    }
    for round in 0..2 {
        for (client, right) in [(0, Ok("of app")), (1, Ok("of other")), (2, Err("42P01"))] {
            for clients in [&mut ours, &mut theirs] {
                match (clients[client].query("SELECT v FROM place"), right) {
                    (Ok(rows), Ok(right)) => assert_eq!(rows, [[right]], "client {client}, round {round}"),
                    (Err(error), Err(code)) => assert!(error.starts_with(code), "{error}"),
                    (got, right) => panic!("client {client}, round {round}: {got:?}, not {right:?}"),
                }
            }
        }
    }
    assert_eq!(found(&two), 2.0);
    // Who asked in vain has said so.
    eventually("nothing else stays there", || redis.names().unwrap().len() == 2);
}

/// What others put there does not count: changed, cut, another key's, another role's, another secret's, an older one with new time.
#[test]
fn what_was_tampered_with_is_never_served() {
    let redis = Redis::start().unwrap();
    let one = up(&of(cluster(), &redis));
    let mut client = Client::connect(one.port());
    let mut other = Client::connect_with(one.port(), &[("user", "other")]);
    let mut values: Vec<(String, String, Vec<u8>)> = Vec::new();
    let mut note = |pgweir: &Pgweir, client: &mut Client, sql: &str, right: &str| {
        assert_eq!(fill(pgweir, client, sql), [[right]]);
        let known: Vec<String> = values.iter().map(|(_, name, _)| name.clone()).collect();
        let name = redis.names().unwrap().into_iter().find(|name| !known.contains(name)).unwrap();
        let integration::redis::Reply::Bytes(value) = redis.ask(&["GET", &name]).unwrap() else { panic!("no value") };
        values.push((right.to_owned(), name, value));
    };
    note(&one, &mut client, "SELECT v FROM item WHERE id = 1", "item 1");
    note(&one, &mut client, "SELECT v FROM item WHERE id = 2", "item 2");
    note(&one, &mut client, "SELECT v FROM place", "of app");
    note(&one, &mut other, "SELECT v FROM place", "of other");
    let stranger = up(&sharing(cluster(), &[redis.address()], "secret = \"another secret of thirty-two characters\""));
    note(&stranger, &mut Client::connect(stranger.port()), "SELECT v FROM item WHERE id = 1", "item 1");
    let mut asked = 0.0;
    let mut check = |what: &str, at: usize, value: &[u8]| {
        let (right, name, _) = &values[at];
        redis.ask_bytes(&[b"SET", name.as_bytes(), value, b"PX", b"3600000"]).unwrap();
        // One that has nothing of its own.
        let two = up(&of(cluster(), &redis));
        let mut client = Client::connect(two.port());
        let sql =
            if at < 2 { format!("SELECT v FROM item WHERE id = {}", at + 1) } else { "SELECT v FROM place".to_owned() };
        let (rows, remote) = reads(&two, &mut client, &sql);
        assert_eq!(rows, [[right.clone()]], "{what}");
        assert!(!remote, "{what}");
        asked += missed(&two, "forged") + missed(&two, "malformed");
        // It was put right, by the way.
        eventually("Redis has it", || wrote(&two, "kept") == 1.0);
    };
    let swapped: Vec<Vec<u8>> = values.iter().map(|(_, _, value)| value.clone()).collect();
    check("another statement's", 0, &swapped[1]);
    check("another role's", 2, &swapped[3]);
    check("another secret's", 0, &swapped[4]);
    let mut changed = swapped[0].clone();
    let row = changed.windows(6).position(|bytes| bytes == b"item 1").unwrap();
    changed[row + 5] = b'7';
    check("a changed one", 0, &changed);
    check("a cut one", 0, &swapped[0][..swapped[0].len() - 1]);
    check("nothing", 0, b"");
    check(
        "what is none",
        0,
        b"any text of any length that is longer than a head and a seal together, which is 62 bytes",
    );
    assert_eq!(asked, 7.0);
    // What is there now is right, and found.
    let two = up(&of(cluster(), &redis));
    assert!(reads(&two, &mut Client::connect(two.port()), "SELECT v FROM item WHERE id = 1").1);
}

/// Neither does a value last longer because somebody gives it more time in Redis.
#[test]
fn an_answer_is_as_old_as_it_is() {
    let redis = Redis::start().unwrap();
    let one = up(&of(cluster(), &redis));
    let sql = "SELECT v FROM item WHERE id = 3";
    fill(&one, &mut Client::connect(one.port()), &format!("/* pgweir: ttl=2s */ {sql}"));
    let name = redis.names().unwrap().remove(0);
    let left: i64 = redis.ask(&["PTTL", &name]).unwrap().text().parse().unwrap();
    assert!((1..=2000).contains(&left), "{left}");
    redis.ask(&["PERSIST", &name]).unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let two = up(&of(cluster(), &redis));
    assert!(!reads(&two, &mut Client::connect(two.port()), sql).1);
    assert_eq!((missed(&two, "expired"), missed(&two, "absent"), missed(&two, "forged")), (1.0, 0.0, 0.0));
}

/// A client finds nothing from before its own last write, however long that was ago; what others have kept since it does.
#[test]
fn own_writes_are_seen() {
    let redis = Redis::start().unwrap();
    let cluster = builder().start().unwrap();
    let [one, two] = [(); 2].map(|()| up(&of(&cluster, &redis)));
    let (mut first, mut second) = (Client::connect(one.port()), Client::connect(two.port()));
    for id in 1..20 {
        let sql = format!("SELECT v FROM mine WHERE id = {id}");
        assert_eq!(fill(&one, &mut first, &sql), [["0"]]);
        second.query(&format!("UPDATE mine SET v = {id} WHERE id = {id}")).unwrap();
        if id == 7 {
            // By now it would be looked up.
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(ask_sql(&two, &mut second, &sql), (vec![vec![id.to_string()]], false));
        // It has put the newer one there in its place, and keeps it itself.
        assert_eq!(ask_sql(&two, &mut second, &sql), (vec![vec![id.to_string()]], true));
    }
    // Where the machine is busy others were long ago, too.
    assert!(found(&two) >= 1.0);
    let mut id = 100;
    second.query("UPDATE mine SET v = 0 WHERE id = 30").unwrap();
    eventually("what was kept after the write is found", || {
        id += 1;
        let sql = format!("SELECT v FROM item WHERE id = {id}");
        fill(&one, &mut first, &sql);
        // Also found may be what began within the uncertainty of two processes' clocks after the write: that is not used.
        let before = found(&two);
        ask_sql(&two, &mut second, &sql).1 && found(&two) > before
    });
    assert!(id > 101, "it was found too early to be certain");
}

/// Who has changed the schema finds nothing from before that; another process as soon as it has looked.
#[test]
fn a_changed_schema_is_another_key() {
    let redis = Redis::start().unwrap();
    let cluster = builder().start().unwrap();
    let conf = of(&cluster, &redis).pool("catalog_refresh = \"1s\"");
    let [one, two] = [(); 2].map(|()| up(&conf));
    let (mut first, mut second) = (Client::connect(one.port()), Client::connect(two.port()));
    first.query("CREATE TABLE app.changing AS SELECT 1 AS a, 2 AS b").unwrap();
    let sql = "SELECT * FROM changing";
    for (change, right) in [
        ("SELECT 1", vec!["1", "2"]),
        ("ALTER TABLE app.changing ADD c int DEFAULT 3", vec!["1", "2", "3"]),
        ("ALTER TABLE app.changing DROP b", vec!["1", "3"]),
        ("ALTER TABLE app.changing ALTER a TYPE text USING a || 'x'", vec!["1x", "3"]),
    ] {
        first.query(change).unwrap();
        let mut clients = [(&one, &mut first), (&two, &mut second)];
        assert_eq!(clients[0].1.query(sql).unwrap(), std::slice::from_ref(&right), "{change}");
        eventually("the other has seen it", || {
            // Servers come back, and are asked.
            clients.iter_mut().for_each(|(_, client)| drop(client.query("SELECT random()").unwrap()));
            assert_eq!(clients[0].1.query(sql).unwrap(), std::slice::from_ref(&right), "{change}");
            clients[1].1.query(sql).unwrap() == std::slice::from_ref(&right)
        });
        let mut number = 0;
        eventually("they share again", || {
            number += 1;
            let (before, sql) = (found(&two), format!("{sql} WHERE {number} > 0"));
            clients.iter_mut().for_each(|(_, client)| drop(client.query("SELECT random()").unwrap()));
            // Who has changed it never sees what was before, the other until it has looked.
            assert_eq!(clients[0].1.query(&sql).unwrap(), std::slice::from_ref(&right), "{change}");
            clients[1].1.query(&sql).unwrap() == std::slice::from_ref(&right) && found(&two) > before
        });
    }
    // Past both.
    direct(&cluster, "REVOKE ALL ON app.changing FROM app");
    let three = up(&conf);
    let error = Client::connect(three.port()).query(sql).unwrap_err();
    assert!(error.starts_with("42501") && found(&three) == 0.0, "{error}");
    for client in [&mut first, &mut second] {
        eventually("all have seen it", || {
            client.query("SELECT random()").unwrap();
            client.query(sql).is_err_and(|error| error.starts_with("42501"))
        });
    }
}
