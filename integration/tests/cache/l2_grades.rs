//! Answers that are good until something of them changes are shared by way of Redis as well, and count in no process once that has changed.
//! It must never take for an answer of Redis what a server said: a test that says so has seen the count of its hits move.

use std::time::Instant;

use integration::wire::Script;
use integration::{Cluster, Link, Pgweir, Redis, Signal};

use crate::common::client::outcome;
use crate::common::{Client, Conf, PATIENCE, eventually};
use crate::fenced::{self, fenced_within};
use crate::flight::{guard, waiting_for};
use crate::l2::{found, missed, sharing, up, wrote};
use crate::logical::{self, logical_conf};
use crate::{ask_sql, bypasses, direct, reason};

#[derive(Clone, Copy, PartialEq)]
enum Grade {
    Logical,
    Fenced,
}

/// Two processes on one Redis, and a client of each.
struct Scene {
    grade: Grade,
    conf: Conf,
    one: Pgweir,
    two: Pgweir,
    here: Client,
    there: Client,
    redis: Redis,
    cluster: Cluster,
}

fn conf_of(grade: Grade, cluster: &Cluster, redis: &Redis) -> Conf {
    if grade == Grade::Fenced {
        return fenced_within(cluster, redis, "", "2s").size(20);
    }
    let (at, secret) = (redis.address(), fenced::SECRET);
    let lines = format!("[cache.redis]\nhosts = [\"{at}\"]\nsecret = \"{secret}\"\ntimeout = \"2s\"");
    logical_conf(cluster, &lines).size(20)
}

fn scene(grade: Grade) -> Scene {
    let cluster = if grade == Grade::Logical { logical::cluster() } else { fenced::cluster() };
    let redis = Redis::start().unwrap();
    let conf = conf_of(grade, &cluster, &redis);
    let [one, two] = [(); 2].map(|()| begun(&conf));
    let (mut here, mut there) = (Client::connect(one.port()), Client::connect(two.port()));
    let mut id = 100;
    eventually("the one's answers are as new as what the other knows", || {
        id += 1;
        let sql = format!("SELECT v AS shared FROM item WHERE id = {id}");
        let before = found(&two);
        keeps(&one, &mut here, &sql);
        ask_sql(&two, &mut there, &sql);
        found(&two) > before
    });
    Scene { grade, conf, one, two, here, there, redis, cluster }
}

/// One that keeps answers, and shares them.
fn begun(conf: &Conf) -> Pgweir {
    let pgweir = up(conf);
    let (mut client, mut id) = (Client::connect(pgweir.port()), usize::from(pgweir.port()) << 10);
    eventually("answers are shared", || {
        id += 1;
        // Another shape than what is asked later.
        client.query(&format!("SELECT v AS begun FROM item WHERE id = {id}")).unwrap();
        wrote(&pgweir, "kept") > 0.0
    });
    pgweir
}

/// Reads until an answer is kept there and in Redis.
fn keeps(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let before = wrote(pgweir, "kept");
    let rows = logical::kept(pgweir, client, sql);
    eventually("Redis has it", || wrote(pgweir, "kept") > before);
    rows
}

/// Reads what its own process has not kept, until that finds it in Redis: as long as it does not know enough it asks a server, and keeps nothing.
fn finds(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let (before, deadline) = (found(pgweir), Instant::now() + PATIENCE);
    loop {
        let (rows, hit) = ask_sql(pgweir, client, sql);
        if found(pgweir) > before {
            assert!(hit, "{sql}: what was found was not used");
            return rows;
        }
        let reasons = ["down", "busy", "timeout", "error", "absent", "schema", "void", "waited", "expired"];
        let missed = reasons.map(|reason| (reason, missed(pgweir, reason)));
        assert!(!hit && Instant::now() < deadline, "{sql}: hit {hit}, else {:?} {missed:?}", bypasses(pgweir));
    }
}

impl Scene {
    /// Changes a row, past pgweir where that is seen.
    fn sets(&mut self, id: usize, to: &str) {
        let sql = format!("UPDATE item SET v = '{to}' WHERE id = {id}");
        match self.grade {
            Grade::Logical => direct(&self.cluster, &sql),
            // Who has written finds nothing there for a moment.
            Grade::Fenced => drop(Client::connect(self.one.port()).query(&sql).unwrap()),
        }
    }

    /// Reads the row by a statement of its own until both processes have heard of the change, and keep what is read now.
    fn hears(&mut self, id: usize, of: &str) {
        let sql = format!("SELECT v AS heard FROM item WHERE id = {id}");
        for (pgweir, client) in [(&self.one, &mut self.here), (&self.two, &mut self.there)] {
            eventually("it is told", || client.query(&sql).unwrap() == [[of]]);
            logical::kept(pgweir, client, &sql);
        }
    }
}

fn what_changes_counts_nowhere(grade: Grade) {
    let mut scene = scene(grade);
    let sql = "SELECT v, id FROM item WHERE id IN (7, 8) ORDER BY id";
    let right = keeps(&scene.one, &mut scene.here, sql);
    assert_eq!(finds(&scene.two, &mut scene.there, sql), right);
    for new in ["first", "second"] {
        scene.sets(7, new);
        scene.hears(7, new);
        // What is there does not count, and is kept anew by the one; the other finds that.
        let before = wrote(&scene.one, "kept");
        let rows = logical::kept(&scene.one, &mut scene.here, sql);
        assert!(rows[0][0] == new && rows[1] == right[1], "{rows:?}");
        eventually("Redis has it", || wrote(&scene.one, "kept") > before);
        assert_eq!(finds(&scene.two, &mut scene.there, sql), rows);
    }
}

#[test]
fn what_changes_by_a_stream_counts_nowhere() {
    what_changes_counts_nowhere(Grade::Logical);
}

#[test]
fn what_changes_behind_a_fence_counts_nowhere() {
    what_changes_counts_nowhere(Grade::Fenced);
}

/// What was kept by one that is gone, and changed since, is given by nobody who comes later.
fn what_nobody_looked_after_does_not_count(grade: Grade) {
    let mut scene = scene(grade);
    let sql = "SELECT v FROM item WHERE id = 9";
    assert_eq!(keeps(&scene.two, &mut scene.there, sql), [["item 9"]]);
    if grade == Grade::Logical {
        scene.one.signal(Signal::KILL);
    }
    scene.two.signal(Signal::KILL);
    scene.sets(9, "later");
    let three = begun(&scene.conf);
    let (mut client, before) = (Client::connect(three.port()), found(&three));
    eventually("it is kept there", || {
        let (rows, hit) = ask_sql(&three, &mut client, sql);
        assert_eq!(rows, [["later"]]);
        hit
    });
    if grade == Grade::Logical {
        // It was there, and seen not to count.
        assert!(found(&three) == before && missed(&three, "void") >= 1.0, "{}", three.log());
    }
}

#[test]
fn a_stream_that_began_later_knows_nothing_of_before() {
    what_nobody_looked_after_does_not_count(Grade::Logical);
}

#[test]
fn who_comes_behind_a_fence_later_counts_with_all() {
    what_nobody_looked_after_does_not_count(Grade::Fenced);
}

/// Nobody who comes later finds what lacks a write that nobody could count: its writer did not reach Redis.
#[test]
fn what_was_kept_before_writes_without_a_fence_counts_no_more() {
    let mut scene = scene(Grade::Fenced);
    let link = Link::to(scene.redis.port()).unwrap();
    let writer = fenced::behind(&link, &scene.conf, &scene.redis);
    let mut writes = Client::connect(writer.port());
    for turn in 0..2 {
        let sql = format!("SELECT v, {turn} AS turn FROM item WHERE id = 40");
        fenced::stands(&writer);
        let before = keeps(&scene.one, &mut scene.here, &sql);
        let unfenced = fenced::writes(&writer, "unfenced");
        link.drop_all();
        // What is held back on its way counts in the end.
        writes.query("UPDATE mine SET v = v + 1 WHERE id = 1").unwrap();
        let now = format!("nobody has counted {turn}");
        writes.query(&format!("UPDATE item SET v = '{now}' WHERE id = 40")).unwrap();
        assert!(fenced::writes(&writer, "unfenced") >= unfenced + 2.0 && before[0][0] != now);
        if turn == 1 {
            // Not even who writes is there any more.
            writer.signal(Signal::KILL);
        }
        link.mend();
        for pgweir in [&scene.one, &scene.two] {
            fenced::stands(pgweir);
        }
        let three = begun(&scene.conf);
        fenced::stands(&three);
        let mut client = Client::connect(three.port());
        for (pgweir, client) in [(&scene.two, &mut scene.there), (&three, &mut client)] {
            assert_eq!(said_and_kept(pgweir, client, &sql)[0][0], now);
        }
    }
}

/// What is said at once, and still is when it comes from the cache.
fn said_and_kept(pgweir: &Pgweir, client: &mut Client, sql: &str) -> Vec<Vec<String>> {
    let rows = client.query(sql).unwrap();
    assert_eq!(logical::kept(pgweir, client, sql), rows);
    rows
}

/// Who has not heard of a write through another process finds nothing from before it.
#[test]
fn redis_has_the_last_word() {
    let mut scene = scene(Grade::Fenced);
    let (sql, other) = ("SELECT v, 'word' FROM item WHERE id = 41", "SELECT v, 'other' FROM item WHERE id = 41");
    keeps(&scene.one, &mut scene.here, sql);
    // It is told the counts, and then nothing.
    logical::kept(&scene.two, &mut scene.there, other);
    scene.sets(41, "the last");
    assert_eq!(ask_sql(&scene.two, &mut scene.there, sql).0, [["the last", "word"]]);
}

/// What is good for a time is nothing that counts behind a fence, nor the other way round.
#[test]
fn grades_do_not_meet() {
    let mut scene = scene(Grade::Fenced);
    let sql = "SELECT v FROM item WHERE id = 20";
    keeps(&scene.one, &mut scene.here, sql);
    let secret = format!("secret = \"{}\"\n", fenced::SECRET);
    let third = up(&sharing(&scene.cluster, &[scene.redis.address()], &secret));
    let mut client = Client::connect(third.port());
    assert_eq!((ask_sql(&third, &mut client, sql).1, found(&third)), (false, 0.0));
    let sql = "SELECT v FROM item WHERE id = 21";
    keeps(&third, &mut client, sql);
    let before = found(&scene.two);
    logical::kept(&scene.two, &mut scene.there, sql);
    assert_eq!(found(&scene.two), before);
}

/// What does not count any more is asked of a server by one process only, as what is not there is.
fn what_changed_is_asked_for_once(grade: Grade) {
    let mut scene = scene(grade);
    let sql = "SELECT v FROM item WHERE id = 30 /* once */";
    let script = Script::new().query(sql);
    let runs = |cluster: &Cluster| cluster.primary().log().matches(&format!("LOG:  statement: {sql}")).count();
    let mut holder = guard(&scene.cluster, "item");
    let before = wrote(&scene.one, "kept");
    scene.here.send(&script);
    // So long they usually take, as far as is known there: longer than anything may on a busy machine.
    let began = Instant::now();
    eventually("it has taken its time", || began.elapsed().as_secs() >= 3);
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&scene.here.ready(1)).unwrap(), [["item 30"]]);
    eventually("Redis has it", || wrote(&scene.one, "kept") > before);
    scene.sets(30, "new");
    scene.hears(30, "new");
    let (ran, absent) = (runs(&scene.cluster), reason(&scene.two, "misses", "absent"));
    let mut holder = guard(&scene.cluster, "item");
    scene.here.send(&script);
    eventually("the first asks", || waiting_for(&scene.cluster, "item") == 1);
    scene.there.send(&script);
    eventually("the other has asked", || reason(&scene.two, "misses", "absent") > absent);
    let before = found(&scene.two);
    holder.query("COMMIT").unwrap();
    for client in [&mut scene.here, &mut scene.there] {
        assert_eq!(outcome(&client.ready(1)).unwrap(), [["new"]]);
    }
    assert_eq!((runs(&scene.cluster) - ran, found(&scene.two) - before), (1, 1.0));
}

#[test]
fn what_changed_by_a_stream_is_asked_for_once() {
    what_changed_is_asked_for_once(Grade::Logical);
}

#[test]
fn what_changed_behind_a_fence_is_asked_for_once() {
    what_changed_is_asked_for_once(Grade::Fenced);
}
