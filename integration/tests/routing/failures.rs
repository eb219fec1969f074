//! Replicas that stop, all of them, and come back.
//! It must never cost a client an error for a statement sent after the replica was gone.

use std::time::{Duration, Instant};

use crate::common::{Client, Conf, eventually};
use crate::{Went, mark, runs, start_cluster, start_with, went};
use integration::wire::Script;
use integration::{Cluster, Stop};

fn reads(client: &mut Client, mark: &str, count: usize) {
    for round in 0..count {
        let sql = format!("{mark} SELECT count(*) FROM fish");
        assert_eq!(client.query(&sql), Ok(vec![vec!["100".to_string()]]), "round {round}");
    }
}

fn conf(cluster: &Cluster) -> Conf {
    Conf::trust(cluster).size(3).pool("server_login_retry = \"1s\"")
}

#[test]
fn a_stopped_replica_is_left_out_and_used_again() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &conf(&cluster));
    cluster.replicas()[0].stop(Stop::Fast).unwrap();
    let meanwhile = mark("meanwhile");
    reads(&mut client, &meanwhile, 60);
    let counts = runs(&cluster, &meanwhile);
    assert_eq!(counts[1], 0, "{counts:?}");
    assert!(counts[2] >= 50, "{counts:?}");
    // A new client is as well off as an old one.
    reads(&mut Client::connect(pgweir.port()), &mark("newcomer"), 10);
    cluster.replicas()[0].start().unwrap();
    let again = mark("again");
    eventually("it is used again", || {
        reads(&mut client, &again, 4);
        runs(&cluster, &again)[1] > 0
    });
}

#[test]
fn without_any_replica_the_primary_reads() {
    let cluster = start_cluster();
    let (_pgweir, mut client) = start_with(&cluster, &conf(&cluster));
    for replica in cluster.replicas() {
        replica.stop(Stop::Immediate).unwrap();
    }
    let meanwhile = mark("meanwhile");
    reads(&mut client, &meanwhile, 30);
    assert_eq!(went(&cluster, &meanwhile), Went::Primary);
    cluster.replicas()[1].start().unwrap();
    let again = mark("again");
    eventually("the one is used again", || {
        reads(&mut client, &again, 4);
        runs(&cluster, &again)[2] > 0
    });
}

#[test]
fn replicas_that_never_were_there() {
    let cluster = Cluster::builder()
        .sql("CREATE TABLE fish AS SELECT * FROM generate_series(1, 100); GRANT ALL ON fish TO app")
        .start()
        .unwrap();
    let nobody = integration::port::Port::reserve().unwrap();
    let lines =
        format!("primary = \"{}\"\nreplicas = [\"127.0.0.1:{}\"]", cluster.primary().address(), nobody.number());
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").user("app", "");
    let pgweir = conf.start();
    let started = Instant::now();
    reads(&mut Client::connect(pgweir.port()), "", 50);
    // Nobody listens there, which is known at once: no time is spent on it.
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// A replica dies in the middle of a read: that client is told, all others go on.
#[test]
fn a_replica_that_dies_in_a_read() {
    let cluster = start_cluster();
    let (pgweir, mut victim) = start_with(&cluster, &conf(&cluster));
    let sleeping = mark("sleeping");
    victim.send(&Script::new().query(&format!("{sleeping} SELECT pg_sleep(50), 1")));
    let at = || runs(&cluster, &sleeping).iter().position(|count| *count > 0);
    eventually("it runs", || at().is_some());
    let Some(number @ 1..) = at() else {
        // pg_sleep is not a read to pgweir: then there is nothing to see here but that it went to the primary.
        return;
    };
    cluster.replicas()[number - 1].stop(Stop::Fast).unwrap();
    let error = victim.query("").unwrap_err();
    assert!(error.starts_with("57P01") || error.starts_with("08006"), "{error}");
    reads(&mut Client::connect(pgweir.port()), &mark("others"), 20);
}

/// Many clients while replicas come and go one after the other. A statement that was under way may fail with a connection error, which
/// ends that connection; no wrong answer, no hang, and whoever connects anew is served.
#[test]
fn replicas_come_and_go_under_load() {
    let cluster = start_cluster();
    let (pgweir, _) = start_with(&cluster, &conf(&cluster));
    let port = pgweir.port();
    let load = std::thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(8);
        crate::common::crowd(10, move |_| {
            let (mut client, mut served, mut lost) = (Client::connect(port), 0, 0);
            while Instant::now() < until {
                match client.query("SELECT count(*) FROM fish") {
                    Ok(rows) => {
                        assert_eq!(rows, [["100"]]);
                        served += 1;
                    }
                    Err(error) => {
                        assert!(error.starts_with("57P01") || error.starts_with("08006"), "{error}");
                        lost += 1;
                        client = Client::connect(port);
                    }
                }
            }
            (served, lost)
        })
    });
    for round in 0..4 {
        let replica = &cluster.replicas()[round % 2];
        replica.stop(Stop::Fast).unwrap();
        replica.start().unwrap();
    }
    let results = load.join().unwrap();
    let (served, lost): (usize, usize) = results.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(served > 500, "{served} served, {lost} lost");
    // At most everything that three connections to each stopped replica were busy with.
    assert!(lost <= 4 * 3, "{served} served, {lost} lost");
}
