//! Answers that are good until something of them is written to through any pgweir: never stale, whoever fails.
//! It must never take for fresh what was only not asked for: a test that says so has seen a hit before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration::{Cluster, DATABASE, Link, Pgweir, Redis, Signal};

use crate::common::{Client, Conf, PATIENCE, crowd, eventually, metric, within};
use crate::{ask_sql, builder, bypasses, conf, direct, hits, reason, start};

const MORE: &str = "CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
    CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200); INSERT INTO part VALUES (1, 'low'), (101, 'high');
    CREATE TABLE base (id int PRIMARY KEY, v text); INSERT INTO base VALUES (1, 'base');
    CREATE TABLE child (PRIMARY KEY (id)) INHERITS (base); INSERT INTO child VALUES (2, 'child');
    CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT generate_series(1, 9);
    CREATE TABLE line (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE); INSERT INTO line SELECT n, n FROM generate_series(1, 9) n;
    CREATE TABLE source (id serial PRIMARY KEY, n int); CREATE TABLE total (id int PRIMARY KEY, n int); INSERT INTO total VALUES (1, 0);
    CREATE FUNCTION add_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE total SET n = n + 1; RETURN NULL; END';
    CREATE TRIGGER add_up AFTER INSERT ON source FOR EACH ROW EXECUTE FUNCTION add_up();
    CREATE TABLE dark (id int); CREATE FUNCTION hide() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN EXECUTE ''UPDATE '' || TG_ARGV[0] || '' SET n = n + 100''; RETURN NULL; END';
    CREATE TRIGGER hide AFTER INSERT ON dark FOR EACH ROW EXECUTE FUNCTION hide('total');
    CREATE VIEW deep AS SELECT b.v AS v, t.n FROM base b, total t; CREATE VIEW deeper AS SELECT max(n) AS n FROM deep;
    CREATE VIEW through AS SELECT id, v FROM base;
    CREATE FUNCTION bump() RETURNS int LANGUAGE sql VOLATILE AS 'UPDATE total SET n = n + 1 RETURNING n';
    CREATE PROCEDURE raise_it() LANGUAGE plpgsql AS 'BEGIN UPDATE total SET n = n + 1; END';
    CREATE TABLE tally (id int PRIMARY KEY, n bigint) PARTITION BY HASH (id);
    CREATE TABLE tally_0 PARTITION OF tally FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE tally_1 PARTITION OF tally FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO tally SELECT n, 0 FROM generate_series(1, 8) n;
    CREATE TABLE mirror (id int PRIMARY KEY, n bigint); INSERT INTO mirror SELECT n, 0 FROM generate_series(1, 8) n;
    CREATE FUNCTION reflect() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE mirror SET n = NEW.n WHERE id = NEW.id; RETURN NULL; END';
    CREATE TRIGGER reflect AFTER UPDATE ON tally FOR EACH ROW EXECUTE FUNCTION reflect();
    CREATE TABLE head (id int PRIMARY KEY); INSERT INTO head SELECT generate_series(1, 100000);
    CREATE TABLE tail (id int PRIMARY KEY REFERENCES head ON DELETE CASCADE); INSERT INTO tail SELECT generate_series(1, 100000);
    GRANT ALL ON ALL TABLES IN SCHEMA public TO app; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
    ALTER TABLE item OWNER TO app; ALTER TABLE base OWNER TO app; ALTER TABLE child OWNER TO app";

pub fn cluster() -> Cluster {
    builder().sql(MORE).start().unwrap()
}

pub const SECRET: &str = "what only these processes share: 42";

fn fenced_conf(cluster: &Cluster, redis: &Redis, lines: &str) -> Conf {
    fenced_within(cluster, redis, lines, "200ms")
}

/// The same, which waits so long for Redis.
pub fn fenced_within(cluster: &Cluster, redis: &Redis, lines: &str, timeout: &str) -> Conf {
    let at = redis.address();
    conf(
        cluster,
        &format!(
            "mode = \"on\"\ninvalidation = \"fenced\"\n{lines}\n[cache.redis]\nhosts = [\"{at}\"]\nsecret = \"{SECRET}\"\ntimeout = \"{timeout}\""
        ),
    )
}

fn is_up(pgweir: &Pgweir) -> bool {
    metric(pgweir, "pgweir_cache_fence_up", &[]) == 1.0
}

pub fn writes(pgweir: &Pgweir, outcome: &str) -> f64 {
    metric(pgweir, "pgweir_cache_fenced_writes_total", &[("outcome", outcome)])
}

/// A pgweir whose fence stands.
pub fn fenced(cluster: &Cluster, redis: &Redis) -> Pgweir {
    let pgweir = start(&fenced_conf(cluster, redis, ""));
    stands(&pgweir);
    pgweir
}

pub fn stands(pgweir: &Pgweir) {
    let mut client = Client::connect(pgweir.port());
    within(Duration::from_secs(30), "the fence stands", || {
        client.value("SELECT count(*) FROM kinds");
        is_up(pgweir)
    });
}

/// A pgweir that reaches Redis by a link.
pub fn behind(link: &Link, conf: &Conf, redis: &Redis) -> Pgweir {
    let text = conf.clone().top("workers = 1").text();
    Pgweir::start(&text.replace(&redis.address(), &link.address())).unwrap()
}

/// Waits until an answer is kept, and gives it.
pub fn kept(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask_sql(pgweir, client, sql) {
            (rows, true) => return rows,
            _ => assert!(Instant::now() < deadline, "never kept: {sql}: {:?}\n{}", bypasses(pgweir), pgweir.log()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An answer that was kept still counts. One that Redis was too late to tell of is asked for again.
pub fn stays(pgweir: &Pgweir, client: &mut Client, sql: &str, why: &str) {
    let changed = |pgweir| reason(pgweir, "misses", "changed");
    let before = changed(pgweir);
    kept(pgweir, client, sql);
    assert_eq!(changed(pgweir), before, "{why}");
}

/// What the reference says that a user of Redis needs is all that he needs.
#[test]
fn a_user_of_few_rights_will_do() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let reference = include_str!("../../../config/reference.toml");
    let (_, needs) = reference.split_once("# its user needs ").unwrap();
    let (needs, _) = needs.split_once(", and it no more").unwrap();
    let commands: Vec<String> =
        needs.replace(" and ", ", ").split(", ").map(|one| format!("+{}", one.to_lowercase())).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let mut user = vec!["ACL", "SETUSER", "weir", "on", ">letmein", "~weir:*"];
    user.extend(commands.iter().map(String::as_str));
    redis.ask(&user).unwrap();
    // What all grades need.
    let all = ["+get", "+set", "+psetex", "+zadd", "+zrem", "+zincrby", "+zmscore", "+zrange", "+time"];
    redis.ask(&[&["ACL", "SETUSER", "weir"][..], &all[..]].concat()).unwrap();
    let conf = fenced_conf(&cluster, &redis, "");
    let conf = conf.rest("user = \"weir\"\npassword = \"letmein\"\nprefix = \"weir:\"\n");
    let (one, two) = (start(&conf), start(&conf));
    [&one, &two].into_iter().for_each(stands);
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    assert_eq!(kept(&one, &mut here, read), kept(&two, &mut there, read));
    here.query("UPDATE item SET v = 'few' WHERE id = 1").unwrap();
    assert_eq!(ask_sql(&two, &mut there, read), (vec![vec!["few".to_owned()]], false));
    assert!(!one.log().to_lowercase().contains("no permissions") && !one.log().contains("NOPERM"), "{}", one.log());
}

/// Whatever a write brings about is seen at once, through the pgweir that it goes through and through another.
#[test]
fn whatever_a_write_changes_is_seen_at_once() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    for (read, write) in [
        ("SELECT v FROM item WHERE id = 1", "UPDATE item SET v = 'other' WHERE id = 1"),
        ("SELECT count(*) FROM item", "INSERT INTO item VALUES (0, 'new')"),
        ("SELECT count(*) FROM item", "DELETE FROM item WHERE id = 0"),
        (
            "SELECT v FROM item WHERE id = 2",
            "BEGIN; SAVEPOINT a; UPDATE item SET v = 'sub' WHERE id = 2; RELEASE a; COMMIT",
        ),
        (
            "SELECT v FROM item WHERE id = 3",
            "PREPARE p AS UPDATE item SET v = 'sql' WHERE id = 3; EXECUTE p; DEALLOCATE p",
        ),
        ("SELECT v FROM part ORDER BY id", "UPDATE part_high SET v = 'higher'"),
        ("SELECT v FROM part_low", "UPDATE part SET v = 'lower' WHERE id = 1"),
        ("SELECT count(*) FROM part_high", "TRUNCATE part"),
        ("SELECT v FROM base ORDER BY id", "UPDATE child SET v = 'grown'"),
        ("SELECT v FROM child", "UPDATE base SET v = 'all'"),
        ("SELECT v FROM base ORDER BY id", "UPDATE through SET v = 'view'"),
        ("SELECT count(*) FROM line", "DELETE FROM parent WHERE id = 5"),
        ("SELECT count(*) FROM line l JOIN parent p ON p.id = l.parent", "TRUNCATE parent CASCADE"),
        ("SELECT n FROM total", "INSERT INTO source (n) VALUES (1)"),
        ("SELECT n FROM deeper", "INSERT INTO source (n) VALUES (2)"),
        ("SELECT n FROM total", "INSERT INTO dark VALUES (1)"),
        ("SELECT n FROM total", "SELECT bump()"),
        ("SELECT n FROM total", "CALL raise_it()"),
        ("SELECT n FROM total", "DO 'BEGIN UPDATE total SET n = n + 7;END'"),
        ("SELECT n FROM total", "WITH w AS (UPDATE total SET n = n + 1 RETURNING n) SELECT * FROM w"),
        ("SELECT n FROM total", "EXPLAIN ANALYZE UPDATE total SET n = n + 1"),
        (
            "SELECT n FROM total",
            "MERGE INTO total t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = 5",
        ),
        ("SELECT * FROM base WHERE id = 1", "ALTER TABLE base ADD COLUMN w int DEFAULT 3"),
    ] {
        let before = kept(&one, &mut here, read);
        assert_eq!(kept(&two, &mut there, read), before);
        // What nobody can see into keeps its client's server.
        let mut writer = Client::connect(one.port());
        for sql in write.split("; ") {
            writer.query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let right = cluster.primary().query_in(DATABASE, read).unwrap();
        assert_ne!(right, before, "{write}");
        assert_eq!(there.query(read).unwrap(), right, "{write}");
        assert_eq!(here.query(read).unwrap(), right, "{write}");
    }
    assert_eq!((writes(&one, "unfenced"), writes(&two, "unfenced")), (0.0, 0.0));
}

/// What has nothing to do with an answer leaves it as it is; what is in doubt is not given, and good again when that is over.
#[test]
fn what_is_in_doubt_is_not_given() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    // What a write may change is not known before the code has been read again, as it is when a fence begins to stand.
    kept(&one, &mut here, read);
    kept(&two, &mut there, read);
    here.query("UPDATE total SET n = 9").unwrap();
    here.query("SELECT count(*) FROM item, total").unwrap();
    stays(&two, &mut there, read, "no write has to do with it");
    here.query("BEGIN").unwrap();
    here.query("SELECT n FROM total").unwrap();
    stays(&two, &mut there, read, "it has not written");
    here.query("UPDATE item SET v = 'new' WHERE id = 1").unwrap();
    for _ in 0..5 {
        assert_eq!(ask_sql(&two, &mut there, read), (vec![vec!["item 1".into()]], false));
    }
    here.query("ROLLBACK").unwrap();
    assert_eq!(kept(&two, &mut there, read), [["item 1"]]);
    // Pipelined behind each other, and in the extended protocol.
    let frames = here.run(&crate::unnamed("UPDATE item SET v = $1 WHERE id = 1", &[Some("bound")]));
    assert!(crate::outcome(&frames).is_ok());
    assert_eq!(there.value(read), "bound");
    assert_eq!(kept(&two, &mut there, read), [["bound"]]);
}

/// The server of a write dies under it: it stays in doubt until whatever ran then is over, and no longer.
#[test]
fn a_server_that_is_lost_leaves_no_doubt_for_ever() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let pgweir = fenced(&cluster, &redis);
    let mut client = Client::connect(pgweir.port());
    let read = "SELECT v FROM item WHERE id = 1";
    kept(&pgweir, &mut client, read);
    let mut writer = Client::connect(pgweir.port());
    writer.query("BEGIN").unwrap();
    writer.query("UPDATE item SET v = 'lost' WHERE id = 1").unwrap();
    assert!(!ask_sql(&pgweir, &mut client, read).1);
    direct(
        &cluster,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE item%' AND state = 'idle in transaction'",
    );
    assert_eq!(kept(&pgweir, &mut client, read), [["item 1"]]);
}

/// A process that is killed in the middle of a write leaves it in doubt until that has ended.
#[test]
fn a_process_that_dies_leaves_what_it_wrote_in_doubt() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let mut there = Client::connect(two.port());
    let read = "SELECT v FROM item WHERE id = 1";
    kept(&two, &mut there, read);
    let mut writer = Client::connect(one.port());
    writer.send(
        &integration::wire::Script::new().query("UPDATE item SET v = 'late' WHERE id = 1 AND pg_sleep(6) IS NOT NULL"),
    );
    eventually("it runs", || {
        !cluster.primary().query("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(6)%' AND state = 'active' AND pid <> pg_backend_pid()").unwrap().is_empty()
    });
    one.signal(Signal::KILL);
    let began = Instant::now();
    let mut seen = "item 1".to_owned();
    while seen == "item 1" {
        let before = hits(&two);
        seen = there.value(read);
        assert!(seen != "item 1" || hits(&two) == before, "given while in doubt, after {:?}", began.elapsed());
        let real = cluster.primary().value_in(DATABASE, read).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{real}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(kept(&two, &mut there, read), [["late"]]);
}

/// Writers through two processes raise numbers that readers must never see fall behind: neither in the rows themselves, nor in what triggers and
/// cascades make of them. Says how many reads were stale, and how many were hits.
struct Checker {
    stop: AtomicBool,
    /// What was answered to the writer of each row.
    done: [AtomicI64; 9],
    deleted: AtomicI64,
    stale: AtomicU64,
    reads: AtomicU64,
    failed: AtomicU64,
}

fn check(pgweirs: &[&Pgweir], meanwhile: impl FnOnce()) -> (u64, u64) {
    let checker = Arc::new(Checker {
        stop: AtomicBool::new(false),
        done: Default::default(),
        deleted: AtomicI64::new(0),
        stale: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let ports: Vec<u16> = pgweirs.iter().map(|pgweir| pgweir.port()).collect();
    let (shared, all) = (Arc::clone(&checker), ports.clone());
    let running = std::thread::spawn(move || crowd(12, move |number| work(&shared, number, &all)));
    meanwhile();
    checker.stop.store(true, Ordering::SeqCst);
    running.join().unwrap();
    assert!(checker.failed.load(Ordering::SeqCst) < 40, "{} writes failed", checker.failed.load(Ordering::SeqCst));
    (checker.stale.load(Ordering::SeqCst), checker.reads.load(Ordering::SeqCst))
}

fn work(checker: &Checker, number: usize, ports: &[u16]) {
    let mut client = Client::connect(ports[number % ports.len()]);
    let mut turn = 0;
    while !checker.stop.load(Ordering::SeqCst) {
        turn += 1;
        let row = turn % 8 + 1;
        if number < 3 {
            // Each has rows of its own: none waits for another's lock.
            let row = (turn % 3) * 3 + number;
            write(checker, &mut client, row, turn);
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let least = checker.done[row].load(Ordering::SeqCst);
        let gone = checker.deleted.load(Ordering::SeqCst);
        let (sql, least) = match turn % 4 {
            0 => (format!("SELECT n FROM tally WHERE id = {row}"), least),
            1 => (format!("SELECT n FROM mirror WHERE id = {row}"), least),
            2 => (
                format!("SELECT t.n FROM tally_0 t WHERE id = {row} UNION ALL SELECT n FROM tally_1 WHERE id = {row}"),
                least,
            ),
            _ => ("SELECT 100000 - count(*) FROM tail".to_owned(), gone),
        };
        let Ok(rows) = client.query(&sql) else { continue };
        let seen: i64 = rows[0][0].parse().unwrap();
        checker.reads.fetch_add(1, Ordering::SeqCst);
        if seen < least {
            checker.stale.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn write(checker: &Checker, client: &mut Client, row: usize, turn: usize) {
    if row == 0 {
        let next = checker.deleted.load(Ordering::SeqCst) + 1;
        match client.query(&format!("DELETE FROM head WHERE id = {next}")) {
            Ok(_) => checker.deleted.store(next, Ordering::SeqCst),
            Err(_) => drop(checker.failed.fetch_add(1, Ordering::SeqCst)),
        }
        return;
    }
    let next = checker.done[row].load(Ordering::SeqCst) + 1;
    let update = format!("UPDATE tally SET n = {next} WHERE id = {row}");
    let outcome = if turn.is_multiple_of(5) {
        client.query("BEGIN").and_then(|_| client.query(&update)).and_then(|_| client.query("COMMIT"))
    } else {
        client.query(&update)
    };
    match outcome {
        Ok(_) => checker.done[row].store(next, Ordering::SeqCst),
        Err(_) => drop(checker.failed.fetch_add(1, Ordering::SeqCst)),
    }
}

/// A short consistency checker: zero stale under load, while Redis is killed, stopped and emptied.
#[test]
fn nothing_is_stale_whatever_becomes_of_redis() {
    let (cluster, mut redis) = (cluster(), Redis::start_with(&["--save", ""]).unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let served = |since: f64| hits(&one) + hits(&two) - since;
    let both_stand = || within(Duration::from_secs(30), "both stand again", || is_up(&one) && is_up(&two));
    let (stale, reads) = check(&[&one, &two], || {
        std::thread::sleep(Duration::from_secs(3));
        assert!(served(0.0) > 50.0, "{} hits", served(0.0));
        redis.ask(&["FLUSHALL"]).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        both_stand();
        redis.signal(Signal::STOP);
        std::thread::sleep(Duration::from_secs(3));
        assert!(!is_up(&one) && !is_up(&two));
        redis.signal(Signal::CONT);
        both_stand();
        redis.kill().unwrap();
        std::thread::sleep(Duration::from_secs(3));
        redis.start_again().unwrap();
        both_stand();
        let before = served(0.0);
        within(Duration::from_secs(20), "they serve again", || served(before) > 50.0);
    });
    assert!(writes(&one, "unfenced") > 0.0 && writes(&one, "refused") == 0.0, "{}", one.log());
    assert_eq!(stale, 0, "of {reads}");
    assert!(reads > 500, "{reads}");
}

/// The checker finds what it looks for: by a time alone, the same reads are stale.
#[test]
fn the_checker_finds_stale_reads_where_there_is_no_fence() {
    let cluster = cluster();
    let [one, two] = [(); 2].map(|()| start(&conf(&cluster, "mode = \"on\"\nttl = \"1s\"")));
    let (stale, reads) = check(&[&one, &two], || std::thread::sleep(Duration::from_secs(3)));
    assert!(stale > 0, "of {reads}");
}

/// The hash in Redis that has the counts, and what is in it.
fn counts(redis: &Redis) -> (String, Vec<String>) {
    counted(redis).unwrap()
}

/// The same, if there is one yet.
fn counted(redis: &Redis) -> Option<(String, Vec<String>)> {
    let is_it = |name: &String| redis.ask(&["HGET", name, "life"]).is_ok_and(|reply| reply.text().len() == 16);
    let name = redis.ask(&["KEYS", "*"]).unwrap().texts().into_iter().find(is_it)?;
    let all = redis.ask(&["HGETALL", &name]).unwrap().texts();
    Some((name, all))
}

/// A Redis that is set back to what it had before calls nothing good that was good then.
#[test]
fn a_redis_that_goes_back_in_time_counts_no_more() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    kept(&two, &mut there, read);
    let (name, before) = counts(&redis);
    here.query("UPDATE item SET v = 'new' WHERE id = 1").unwrap();
    eventually("all have said that they are there", || {
        let now = counts(&redis).1;
        let beats = before.chunks(2).filter(|pair| pair[0].starts_with('h'));
        beats.clone().count() == 2 && beats.clone().all(|pair| !now.chunks(2).any(|other| other == pair))
    });
    let back: Vec<&str> = ["HSET", name.as_str()].into_iter().chain(before.iter().map(String::as_str)).collect();
    redis.ask(&back).unwrap();
    assert_eq!(there.value(read), "new");
    stands(&two);
    assert_eq!(kept(&two, &mut there, read), [["new"]]);
    assert_ne!(counts(&redis).1[..2], before[..2], "the counts are others");
}

/// Who cannot reach Redis writes all the same, when the others have stepped aside; and is one of them again when he can.
#[test]
fn who_cannot_reach_redis_is_known_to_all() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let link = Link::to(redis.port()).unwrap();
    let one = behind(&link, &fenced_conf(&cluster, &redis, ""), &redis);
    let two = fenced(&cluster, &redis);
    stands(&one);
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    for turn in 1..=2 {
        kept(&two, &mut there, read);
        if turn == 1 {
            // What is held back is done when nobody expects it any more.
            link.drop_all();
        } else {
            link.refuse();
            link.reset();
        }
        for number in 1..=20 {
            let value = format!("{turn} {number}");
            here.query(&format!("UPDATE item SET v = '{value}' WHERE id = 1")).unwrap();
            assert_eq!(there.value(read), value);
        }
        assert!(writes(&one, "unfenced") > 0.0 && writes(&one, "refused") == 0.0 && !is_up(&two));
        link.mend();
        stands(&two);
        stands(&one);
        let before = writes(&one, "unfenced");
        assert_eq!(kept(&two, &mut there, read), [[format!("{turn} 20")]]);
        here.query("UPDATE item SET v = 'fenced again' WHERE id = 1").unwrap();
        assert_eq!(there.value(read), "fenced again");
        assert_eq!(writes(&one, "unfenced"), before);
    }
}

/// Where another Redis takes the place of one that some still reach, nobody gives what others' writes are counted elsewhere for.
#[test]
fn who_counts_elsewhere_is_known_to_all() {
    let (cluster, redis, other) = (cluster(), Redis::start().unwrap(), Redis::start().unwrap());
    let link = Link::to(redis.port()).unwrap();
    let one = behind(&link, &fenced_conf(&cluster, &redis, ""), &redis);
    let two = fenced(&cluster, &redis);
    stands(&one);
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    kept(&two, &mut there, read);
    link.lead_to(other.port());
    link.reset();
    for number in 1..=200 {
        let value = number.to_string();
        here.query(&format!("UPDATE item SET v = '{value}' WHERE id = 1")).unwrap();
        assert_eq!(there.value(read), value);
    }
    within(Duration::from_secs(10), "its writes are counted there", || {
        here.query("UPDATE item SET v = 'there' WHERE id = 1").unwrap();
        counted(&other).is_some_and(|(_, all)| all.iter().any(|field| field.starts_with('b')))
    });
    let before = hits(&two);
    assert_eq!((there.value(read), there.value(read), hits(&two)), ("there".to_owned(), "there".to_owned(), before));
    // Back again, all goes on.
    link.lead_to(redis.port());
    link.reset();
    stands(&one);
    assert_eq!(kept(&two, &mut there, read), [["there"]]);
}

/// A process that stands still misses nothing of what is written meanwhile.
#[test]
fn who_stands_still_gives_nothing_old_afterwards() {
    let (cluster, redis) = (cluster(), Redis::start().unwrap());
    let (one, two) = (fenced(&cluster, &redis), fenced(&cluster, &redis));
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let read = "SELECT v FROM item WHERE id = 1";
    for value in ["first", "second", "third"] {
        kept(&two, &mut there, read);
        two.signal(Signal::STOP);
        here.query(&format!("UPDATE item SET v = '{value}' WHERE id = 1")).unwrap();
        let script = integration::wire::Script::new().query(read);
        there.send(&script);
        two.signal(Signal::CONT);
        let rows = crate::outcome(&there.ready(1)).unwrap();
        assert_eq!(rows, [[value]]);
    }
}
