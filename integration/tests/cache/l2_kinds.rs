//! Redis by password and for a user of few rights, over TLS, named by sentinels, as a cluster.
//! It must never be content with being connected: an answer has to go there and come back.

use integration::{Certificates, Redis, RedisCluster, Sentinels, Signal};

use crate::cluster;
use crate::common::{Client, Conf, eventually};
use crate::l2::{fill, found, is_up, reads, sharing, up, wrote};
use crate::l2_gone::another;
use crate::start;

fn sql(id: usize) -> String {
    format!("SELECT v FROM item WHERE id = {id}")
}

/// What one process keeps there another finds.
fn is_shared(conf: &Conf, ids: std::ops::Range<usize>) {
    let [one, two] = [(); 2].map(|()| up(conf));
    let (mut first, mut second) = (Client::connect(one.port()), Client::connect(two.port()));
    for id in ids.clone() {
        fill(&one, &mut first, &sql(id));
    }
    for id in ids {
        assert_eq!(reads(&two, &mut second, &sql(id)), (vec![vec![format!("item {id}")]], true));
    }
}

#[test]
fn by_password_and_user() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]).unwrap();
    redis
        .ask(&["ACL", "SETUSER", "weir", "on", ">letmein", "~weir:*", "+get", "+set", "+psetex", "+del", "+time"])
        .unwrap();
    redis.ask(&["ACL", "SETUSER", "weir", "+eval", "+zadd", "+zrem", "+zincrby", "+zmscore", "+zrange"]).unwrap();
    let hosts = [redis.address()];
    is_shared(&sharing(cluster(), &hosts, "password = \"hunter2\""), 1..3);
    let named = "user = \"weir\"\npassword = \"letmein\"\nprefix = \"weir:\"";
    is_shared(&sharing(cluster(), &hosts, named), 3..6);
    assert_eq!(redis.names().unwrap().iter().filter(|name| name.starts_with("weir:")).count(), 3);
    // Where he may not go nothing fails but that.
    let one = start(&sharing(cluster(), &hosts, "user = \"weir\"\npassword = \"letmein\"\nprefix = \"other:\""));
    eventually("it has tried", || one.log().to_lowercase().contains("no permissions"));
    let mut client = Client::connect(one.port());
    for id in 10..40 {
        assert_eq!(client.value(&sql(id)), format!("item {id}"));
    }
    assert!(wrote(&one, "kept") == 0.0 && !is_up(&one), "{}", one.log());
    let wrong = start(&sharing(cluster(), &hosts, "password = \"wrong\""));
    eventually("it was refused", || wrong.log().contains("Redis cannot be reached"));
    assert!(!wrong.log().contains("hunter2") && !wrong.log().contains("\"wrong\""));
    assert_eq!(Client::connect(wrong.port()).value(&sql(1)), "item 1");
}

#[test]
fn over_tls() {
    let files = Certificates::new().unwrap();
    let redis = Redis::start_tls(&files).unwrap();
    let me = files.client("pgweir").unwrap();
    let port = redis.tls_port().unwrap();
    let lines = |ca: &Certificates| {
        let (ca, cert, key) = (ca.ca.display(), me.certificate.display(), me.key.display());
        format!("tls = true\ntls_ca_file = \"{ca}\"\ntls_cert_file = \"{cert}\"\ntls_key_file = \"{key}\"")
    };
    is_shared(&sharing(cluster(), &[format!("localhost:{port}")], &lines(&files)), 1..3);
    is_shared(&sharing(cluster(), &[format!("127.0.0.1:{port}")], &lines(&files)), 3..5);
    // Signed by somebody else.
    let strange = start(&sharing(cluster(), &[format!("localhost:{port}")], &lines(&Certificates::new().unwrap())));
    eventually("it was refused", || strange.log().contains("Redis cannot be reached"));
    assert_eq!(Client::connect(strange.port()).value(&sql(1)), "item 1");
}

/// The master dies, and whoever sentinels name in its place is used, with all that it has.
#[test]
fn named_by_sentinels() {
    let group = Sentinels::start().unwrap();
    eventually("they know each other", || group.are_ready());
    let hosts: Vec<_> = group.sentinels.iter().map(Redis::address).collect();
    let conf = sharing(cluster(), &hosts, &format!("mode = \"sentinel\"\nmaster_name = \"{}\"", Sentinels::NAME));
    let one = up(&conf);
    let mut client = Client::connect(one.port());
    fill(&one, &mut client, &sql(1));
    eventually("the replica has it", || group.servers[1].names().unwrap().len() == 1);
    // One of the sentinels is of no use either.
    group.sentinels[0].signal(Signal::STOP);
    group.servers[0].kill().unwrap();
    let mut number = 0;
    let mut all_is_answered = || {
        let (sql, right) = another(&mut number);
        assert_eq!(client.value(&sql), right);
    };
    eventually("the replica is the master, and used", || {
        all_is_answered();
        is_up(&one) && group.servers[1].names().is_ok_and(|names| names.len() > 1)
    });
    group.sentinels[0].signal(Signal::CONT);
    let two = up(&conf);
    assert!(reads(&two, &mut Client::connect(two.port()), &sql(1)).1);
}

/// Three masters share the names; one dies, its replica takes its place, and meanwhile nothing fails.
#[test]
fn as_a_cluster() {
    let group = RedisCluster::start().unwrap();
    eventually("they are a cluster", || group.is_ready());
    let hosts: Vec<_> = group.nodes[..2].iter().map(Redis::address).collect();
    let conf = sharing(cluster(), &hosts, "mode = \"cluster\"\ntimeout = \"500ms\"");
    is_shared(&conf, 1..40);
    assert!(group.nodes[..3].iter().all(|node| !node.names().unwrap().is_empty()));
    let one = up(&conf);
    let mut client = Client::connect(one.port());
    group.nodes[2].kill().unwrap();
    let mut number = 0;
    let mut all_is_answered = || {
        let (sql, right) = another(&mut number);
        assert_eq!(client.value(&sql), right);
    };
    eventually("its replica is in its place", || {
        all_is_answered();
        group.nodes[5].ask(&["ROLE"]).is_ok_and(|role| role.texts()[0] == "master")
    });
    eventually("it is used", || {
        all_is_answered();
        is_up(&one) && group.nodes[5].names().is_ok_and(|names| names.len() > 20)
    });
    let two = up(&conf);
    let mut second = Client::connect(two.port());
    let before = found(&two);
    for id in 1..40 {
        assert_eq!(second.value(&sql(id)), format!("item {id}"));
    }
    // All that the replica had of its master when that died.
    assert!(found(&two) >= before + 30.0, "{}", found(&two));
}
