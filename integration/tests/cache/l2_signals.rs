//! What one process was told does not count any more is not given by the others for longer than said, nor comes back from Redis.
//! It must never take a miss for a signal: what was gone had been found there before.

use std::time::Duration;

use integration::{Cluster, Pgweir, Redis, Signal};

use crate::common::{Client, Conf, eventually, within};
use crate::l2::{fill, found, is_up, missed, of, reads, up};
use crate::signals::{console, warm};
use crate::{ask_sql, builder, direct};

/// How long others may give what does not count any more.
const BOUND: Duration = Duration::from_secs(4);

fn conf(cluster: &Cluster, redis: &Redis) -> Conf {
    of(cluster, redis).user("root", "").rest("[console]\nadmin_users = [\"root\"]\n")
}

fn says(pgweir: &Pgweir, what: &str) {
    console(pgweir, "root").query(&format!("INVALIDATE {what}")).unwrap();
}

#[test]
fn others_hear_of_it_and_nothing_comes_back() {
    let (redis, cluster) = (Redis::start().unwrap(), builder().start().unwrap());
    let [one, two] = [(); 2].map(|()| up(&conf(&cluster, &redis)));
    let [mut first, mut second] = [&one, &two].map(|pgweir| Client::connect(pgweir.port()));
    let [of_item, of_mine, tagged] = [
        "SELECT v FROM item WHERE id = 1",
        "SELECT v FROM mine WHERE id = 1",
        "SELECT v FROM mine WHERE id = 2 /* pgweir: tag=menu */",
    ];
    for sql in [of_item, of_mine, tagged] {
        fill(&one, &mut first, sql);
        assert!(reads(&two, &mut second, sql).1, "{sql}");
    }
    direct(&cluster, "UPDATE item SET v = 'new'; UPDATE mine SET v = 7");
    says(&one, "TABLE item");
    // Here at once, and not from there either.
    assert_eq!(ask_sql(&one, &mut first, of_item), (vec![vec!["new".to_owned()]], false));
    within(BOUND, "the other hears of it", || ask_sql(&two, &mut second, of_item).0 == [["new"]]);
    // Who comes later does not get it at all, but what still counts.
    let three = up(&conf(&cluster, &redis));
    let mut third = Client::connect(three.port());
    assert_eq!(third.value(of_item), "new");
    assert_eq!(reads(&three, &mut third, of_mine), (vec![vec!["0".to_owned()]], true));
    says(&three, "TAG menu");
    within(BOUND, "all hear of it", || {
        [(&one, &mut first), (&two, &mut second)]
            .into_iter()
            .all(|(pgweir, client)| ask_sql(pgweir, client, tagged).0 == [["7"]])
    });
    assert_eq!(second.value(of_mine), "0");
    says(&two, "ALL");
    within(BOUND, "all hear of it", || {
        [&mut first, &mut second, &mut third].iter_mut().all(|it| it.value(of_mine) == "7")
    });
    // What is kept from now on is shared as before: once that is certain, as far as their clocks tell.
    let mut id = 50;
    within(BOUND, "it is used", || {
        id += 1;
        let sql = format!("SELECT v FROM item WHERE id = {id}");
        fill(&one, &mut first, &sql);
        let before = found(&three);
        let (_, hit) = ask_sql(&three, &mut third, &sql);
        assert!(!hit || found(&three) > before);
        hit
    });
}

/// Said while Redis is silent, it is told when that is there again.
#[test]
fn what_could_not_be_told_is_told_later() {
    let (redis, cluster) = (Redis::start().unwrap(), builder().start().unwrap());
    let conf = conf(&cluster, &redis);
    let one = up(&conf);
    let mut first = Client::connect(one.port());
    let sql = "SELECT v FROM item WHERE id = 2";
    fill(&one, &mut first, sql);
    redis.signal(Signal::STOP);
    direct(&cluster, "UPDATE item SET v = 'new'");
    says(&one, "TABLE item");
    assert_eq!(first.value(sql), "new");
    redis.signal(Signal::CONT);
    eventually("it was told", || {
        let two = up(&conf);
        Client::connect(two.port()).value(sql) == "new"
    });
    eventually("it is asked again", || is_up(&one));
    assert_eq!(warm(&one, &mut first, sql), [["new"]]);
}

/// Where nobody knows any more what was said, nothing from before counts.
#[test]
fn what_was_said_and_lost_is_taken_for_everything() {
    let (redis, cluster) = (Redis::start().unwrap(), builder().start().unwrap());
    let conf = conf(&cluster, &redis);
    let one = up(&conf);
    let mut first = Client::connect(one.port());
    let sql = "SELECT v FROM item WHERE id = 3";
    fill(&one, &mut first, sql);
    let boards: Vec<String> = redis.ask(&["KEYS", "*"]).unwrap().texts();
    let boards: Vec<&String> = boards.iter().filter(|name| !redis.names().unwrap().contains(name)).collect();
    assert_eq!(boards.len(), 1, "{boards:?}");
    redis.ask(&["DEL", boards[0]]).unwrap();
    let two = up(&conf);
    let mut second = Client::connect(two.port());
    assert!(!reads(&two, &mut second, sql).1);
    assert_eq!((missed(&two, "void"), found(&two)), (1.0, 0.0));
    // The first notices, too, and both share what is new.
    let other = "SELECT v FROM item WHERE id = 4";
    fill(&two, &mut second, other);
    assert!(reads(&one, &mut first, other).1);
}

/// A pattern has no name in Redis, and is not to be read there; yet nothing that it is for comes from there, in whichever process.
#[test]
fn a_pattern_goes_to_all() {
    let (redis, cluster) = (Redis::start().unwrap(), builder().start().unwrap());
    let conf = conf(&cluster, &redis);
    let [one, two] = [(); 2].map(|()| up(&conf));
    let [mut first, mut second] = [&one, &two].map(|pgweir| Client::connect(pgweir.port()));
    let [meant, other] = ["SELECT v FROM item WHERE id = 1", "SELECT v FROM item WHERE id = 2"];
    for sql in [meant, other] {
        fill(&one, &mut first, sql);
        assert!(reads(&two, &mut second, sql).1, "{sql}");
    }
    direct(&cluster, "UPDATE item SET v = 'new'");
    says(&one, "PATTERN '*FROM item WHERE id = 1' IN app");
    assert_eq!(ask_sql(&one, &mut first, meant), (vec![vec!["new".to_owned()]], false));
    within(BOUND, "the other hears of it", || ask_sql(&two, &mut second, meant).0 == [["new"]]);
    assert_eq!((first.value(other), second.value(other)), ("item 2".to_owned(), "item 2".to_owned()));
    // Who comes later finds nothing older there either, but what still counts.
    let three = up(&conf);
    let mut third = Client::connect(three.port());
    assert_eq!((third.value(meant), third.value(other)), ("new".to_owned(), "item 2".to_owned()));
    let names = redis.ask(&["KEYS", "*"]).unwrap().texts();
    let boards: Vec<&String> = names.iter().filter(|name| !redis.names().unwrap().contains(name)).collect();
    let members = redis.ask(&["ZRANGE", boards[0], "0", "-1"]).unwrap().texts();
    assert!(members.iter().any(|member| member.starts_with("p:")), "{members:?}");
    assert!(!members.iter().any(|member| member.to_lowercase().contains("item")), "{members:?}");
    // More than anybody remembers: the oldest are everything of the database.
    for number in 0..70 {
        says(&two, &format!("PATTERN 'nothing {number}'"));
    }
    within(BOUND, "all hear of it", || {
        [&mut first, &mut second, &mut third].iter_mut().all(|client| client.value(other) == "new")
    });
    within(BOUND, "Redis keeps no more of them", || {
        let members = redis.ask(&["ZRANGE", boards[0], "0", "-1"]).unwrap().texts();
        members.iter().filter(|member| member.starts_with("p:")).count() <= 64
    });
}
