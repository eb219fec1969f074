//! Which replica takes a read: weights, zones, circuit breakers; and what is shown of each host.
//! It must never count reads of one client that goes on and on: that stays with its replica.

use std::thread;

use crate::common::{Client, Conf, eventually, metric};
use crate::{cluster, mark, runs, start_cluster, start_with};
use integration::cluster::config_lines;
use integration::{Cluster, Link, Pgweir, Stop, USER, Way};

/// Where reads of new clients run.
fn reads(cluster: &Cluster, pgweir: &Pgweir, name: &str, count: usize) -> Vec<usize> {
    let mark = mark(&format!("{name} {}", pgweir.port()));
    for _ in 0..count {
        Client::connect(pgweir.port()).query(&format!("SELECT 1 {mark}")).unwrap();
    }
    runs(cluster, &mark)
}

#[test]
fn weights_say_how_often_each_is_chosen() {
    let cluster = cluster();
    let lines = format!("balance = \"weights\"\nweights = {{ \"{}\" = 4 }}", cluster.replicas()[1].address());
    let (pgweir, _client) = start_with(cluster, &Conf::trust(cluster).size(3).database(&lines));
    let counts = reads(cluster, &pgweir, "weights", 300);
    // 60 and 240, and four standard deviations.
    assert!(counts[0] == 0 && counts[1].abs_diff(60) < 28, "{counts:?}");
}

#[test]
fn the_own_zone_comes_first_also_after_a_reload() {
    let cluster = start_cluster();
    let [one, two] = [0, 1].map(|n| cluster.replicas()[n].address());
    let zones = format!("zones = {{ \"{one}\" = \"a\", \"{two}\" = \"b\" }}");
    let conf = |zone: &str| Conf::trust(&cluster).size(3).database(&zones).pool(zone);
    let (pgweir, _client) = start_with(&cluster, &conf(""));
    pgweir.reload(&conf("zone = \"a\"").text()).unwrap();
    eventually("the zone is known", || {
        let name = format!("zone {:?}", std::time::Instant::now());
        reads(&cluster, &pgweir, &name, 20) == [0, 20, 0]
    });
    cluster.replicas()[0].stop(Stop::Fast).unwrap();
    assert_eq!(reads(&cluster, &pgweir, "elsewhere", 20)[1], 0);
}

fn state(pgweir: &Pgweir, host: &Link, state: &str) -> bool {
    metric(pgweir, "pgweir_host_breaker", &[("host", &host.address()), ("state", state)]) > 0.0
}

/// Statements that are under way on a replica are lost again and again, though it answers whoever asks what it is.
#[test]
fn a_replica_on_which_statements_are_lost_takes_no_reads_for_a_while() {
    let cluster = start_cluster();
    let links = cluster.links().unwrap();
    let lines = config_lines(&links.iter().map(Link::address).collect::<Vec<_>>());
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "").size(6);
    let conf = conf.database("balance = \"round_robin\"").pool("min_pool_size = 6\nslow_start = 0");
    let conf = conf.pool("breaker_failures = 3\nbreaker_pause = \"8s\"");
    let (pgweir, _client) = start_with(&cluster, &conf);
    let bad = &links[1];
    let of_bad = |state| metric(&pgweir, "pgweir_pool_servers", &[("host", &bad.address()), ("state", state)]);
    eventually("servers are open", || of_bad("idle") >= 6.0);
    assert!(state(&pgweir, bad, "closed"));
    bad.silence(Way::Back);
    let port = pgweir.port();
    let clients: Vec<_> = (0..20).map(|_| thread::spawn(move || Client::connect(port).value("SELECT 7"))).collect();
    // All: one or the other may be doing what pgweir itself wants to know, which does not count.
    eventually("all wait for it", || of_bad("active") >= 6.0);
    bad.reset();
    bad.mend();
    // Nobody noticed.
    clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), "7"));
    eventually("it is left out", || state(&pgweir, bad, "open"));
    let counts = reads(&cluster, &pgweir, "left out", 20);
    assert!(counts[1] == 0 && counts[2] > 0, "{counts:?}");
    eventually("it answers", || metric(&pgweir, "pgweir_host_up", &[("host", &bad.address())]) > 0.0);
    eventually("one read was tried", || {
        reads(&cluster, &pgweir, "tries", 2);
        state(&pgweir, bad, "closed")
    });
    assert_eq!(metric(&pgweir, "pgweir_host_breaker_opens_total", &[("host", &bad.address())]), 1.0);
    let counts = reads(&cluster, &pgweir, "back", 20);
    assert!(counts[1] > 0 && counts[2] > 0, "{counts:?}");
}

#[test]
fn metrics_tell_what_each_host_is() {
    let cluster = start_cluster();
    let (pgweir, _client) = start_with(&cluster, &Conf::trust(&cluster).size(3));
    reads(&cluster, &pgweir, "some", 40);
    let of = |number: usize, name: &str, more: &[(&str, &str)]| {
        let host = cluster.nodes().nth(number).unwrap().address();
        let labels = [&[("host", host.as_str()), ("database", "app")], more].concat();
        metric(&pgweir, &format!("pgweir_host_{name}"), &labels)
    };
    let role = |number, role| of(number, "role", &[("role", role)]);
    for number in 0..3 {
        assert_eq!((of(number, "up", &[]), of(number, "timeline", &[])), (1.0, 1.0), "{number}");
        assert_eq!(
            (role(number, "primary"), role(number, "standby")),
            if number == 0 { (1.0, 0.0) } else { (0.0, 1.0) }
        );
        assert_eq!(of(number, "breaker", &[("state", "closed")]), 1.0);
    }
    eventually("latencies are shown", || {
        reads(&cluster, &pgweir, "more", 4);
        of(1, "latency_ewma_seconds", &[]) > 0.0 && of(2, "latency_ewma_seconds", &[]) > 0.0
    });
    cluster.replicas()[1].stop(Stop::Fast).unwrap();
    eventually("it is down", || of(2, "up", &[]) == 0.0 && role(2, "down") == 1.0 && role(2, "standby") == 0.0);
}
