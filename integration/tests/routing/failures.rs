//! Replicas that stop, all of them, and come back.
//! It must never cost a client an error for a statement sent after the replica was gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::checker::Closing;
use crate::common::client::outcome;
use crate::common::{Client, Conf, crowd, eventually, metric};
use crate::sight::pause;
use crate::{Went, mark, runs, start_cluster, start_with, went};
use integration::cluster::config_lines;
use integration::wire::Script;
use integration::{Cluster, DATABASE, Link, Postgres, Stop, USER};

/// A server that has been silent for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How much later that may be noticed: servers are asked once a second, and this machine may be loaded.
const NOTICED: Duration = Duration::from_secs(2);

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

/// A replica dies in the middle of a read: another server answers it, and all others go on.
#[test]
fn a_replica_that_dies_in_a_read() {
    for stop in [Stop::Fast, Stop::Immediate] {
        dies_in_a_read(stop);
    }
}

fn dies_in_a_read(stop: Stop) {
    let cluster = start_cluster();
    let (pgweir, mut victim) = start_with(&cluster, &conf(&cluster));
    let sleeping = mark("sleeping");
    victim.send(&Script::new().query(&format!("{sleeping} SELECT 7 FROM pg_sleep(2)")));
    let at = || runs(&cluster, &sleeping).iter().position(|count| *count > 0);
    eventually("it runs", || at().is_some());
    let number = at().filter(|number| *number > 0).expect("it runs on a replica");
    cluster.replicas()[number - 1].stop(stop).unwrap();
    assert_eq!(outcome(&victim.ready(1)).unwrap(), [["7"]]);
    // Elsewhere: on the primary, or, once it is known to do nothing but read, on any.
    let all = runs(&cluster, &sleeping);
    assert_eq!((all[number], all.iter().sum::<usize>()), (1, 2), "{all:?}");
    reads(&mut Client::connect(pgweir.port()), &mark("others"), 20);
}

/// Many clients while replicas come and go one after the other: nobody notices.
#[test]
fn replicas_come_and_go_under_load() {
    let cluster = start_cluster();
    let (pgweir, _) = start_with(&cluster, &conf(&cluster));
    let port = pgweir.port();
    let load = thread::spawn(move || {
        let until = Instant::now() + Duration::from_secs(8);
        crowd(10, move |_| {
            let (mut client, mut served) = (Client::connect(port), 0);
            while Instant::now() < until {
                assert_eq!(client.query("SELECT count(*) FROM fish").unwrap(), [["100"]]);
                served += 1;
            }
            served
        })
    });
    for round in 0..4 {
        let replica = &cluster.replicas()[round % 2];
        replica.stop(Stop::Fast).unwrap();
        replica.start().unwrap();
    }
    let served: usize = load.join().unwrap().iter().sum();
    assert!(served > 500, "{served}");
}

/// Clients that read one after the other until told to stop; how many reads each did, and how long the longest took.
fn readers<T>(port: u16, meanwhile: impl FnOnce() -> T) -> (T, usize, Duration) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            let (mut client, mut count, mut longest) = (Client::connect(port), 0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                reads(&mut client, "", 1);
                longest = longest.max(asked.elapsed());
                count += 1;
            }
            (count, longest)
        };
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
        let closing = Closing(&over);
        let done = meanwhile();
        drop(closing);
        let all = threads.into_iter().map(|thread| thread.join().unwrap());
        let (count, longest) = all.fold((0, Duration::ZERO), |all, one| (all.0 + one.0, all.1.max(one.1)));
        (done, count, longest)
    })
}

/// A replica falls silent under load. Reads that wait for it are answered by another server once it is known to be lost, and reads that
/// begin after that never wait for it.
fn a_replica_falls_silent(silence: impl Fn(&Postgres, &Link), mend: impl Fn(&Postgres, &Link)) {
    let cluster = start_cluster();
    let links = cluster.links().unwrap();
    let lines = config_lines(&links.iter().map(Link::address).collect::<Vec<_>>());
    let conf = Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "").size(10);
    let (pgweir, mut client) = start_with(&cluster, &conf);
    let port = pgweir.port();
    let (replica, link) = (&cluster.replicas()[0], &links[1]);
    let newcomers = mark("newcomers");
    let (late, count, longest) = readers(port, || {
        let fallen = Instant::now();
        silence(replica, link);
        // Not a wait for anything that could be seen from here.
        thread::sleep((LOST_AFTER + NOTICED).saturating_sub(fallen.elapsed()));
        // More at once than wait for the replica that is lost, so that it is not for being busy that they are sent elsewhere.
        let text = newcomers.clone();
        let late = crowd(30, move |_| {
            let asked = Instant::now();
            reads(&mut Client::connect(port), &text, 1);
            asked.elapsed()
        });
        mend(replica, link);
        late
    });
    let late = late.into_iter().max().unwrap();
    println!("{count} reads, the longest {longest:?}; newcomers {late:?} at most");
    assert_eq!(runs(&cluster, &newcomers)[1], 0);
    assert!(late < Duration::from_secs(2), "a newcomer's read took {late:?}");
    assert!(longest < LOST_AFTER + NOTICED, "a read took {longest:?}");
    let again = mark("again");
    eventually("it is used again", || {
        reads(&mut client, &again, 4);
        runs(&cluster, &again)[1] > 0
    });
}

#[test]
fn a_replica_that_hangs() {
    a_replica_falls_silent(|replica, _| replica.pause(), |replica, _| replica.resume());
}

#[test]
fn a_replica_behind_a_partition() {
    a_replica_falls_silent(|_, link| link.drop_all(), |_, link| link.mend());
}

/// Only its answers are lost: it gets every question.
#[test]
fn a_replica_whose_answers_are_lost() {
    a_replica_falls_silent(|_, link| link.silence(integration::Way::Back), |_, link| link.mend());
}

/// A replica that becomes a primary is no replica: what it has is not what the primary has.
/// Where the primary is declared, and would else be another from then on.
#[test]
fn a_promoted_replica_takes_no_more_reads() {
    let cluster = start_cluster();
    let (pgweir, mut client) = start_with(&cluster, &conf(&cluster).database("roles = \"declared\""));
    let promoted = &cluster.replicas()[0];
    let (_, count, _) = readers(pgweir.port(), || {
        promoted.promote().unwrap();
        // Seen from reads alone this proves nothing: a client may stay with the other replica by chance.
        let host = [("host", &*promoted.address()), ("role", "standby")];
        eventually("it is no standby", || metric(&pgweir, "pgweir_host_role", &host) == 0.0);
    });
    assert!(count > 100, "{count} reads are too few to prove anything");
    let later = mark("later");
    reads(&mut client, &later, 50);
    assert_eq!(runs(&cluster, &later)[1], 0);
}

/// A replica is added to the configuration, and taken away again, under load.
#[test]
fn an_added_replica_takes_reads() {
    let cluster = start_cluster();
    let with = |replicas: usize| {
        let lines = config_lines(&cluster.nodes().take(1 + replicas).map(Postgres::address).collect::<Vec<_>>());
        Conf::database_only(&lines).listen("auth_type = \"trust\"").user(USER, "").size(3)
    };
    let pgweir = with(1).start();
    reads(&mut Client::connect(pgweir.port()), "", 1);
    let (_, count, _) = readers(pgweir.port(), || {
        for (round, replicas) in [2, 1, 2].into_iter().enumerate() {
            pgweir.reload(&with(replicas).text()).unwrap();
            let mut turn = 0;
            eventually("as many take reads as there are", || {
                turn += 1;
                let mark = mark(&format!("added {round} {turn}"));
                // One that reads on and on stays with its replica.
                let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(pgweir.port())).collect();
                clients.iter_mut().for_each(|client| reads(client, &mark, 5));
                let runs = runs(&cluster, &mark);
                runs[1] > 0 && (runs[2] > 0) == (replicas == 2)
            });
        }
    });
    assert!(count > 100, "{count} reads are too few to prove anything");
}

/// What others have changed a moment ago replicas may not have yet: nobody hears of that, however long the statement is.
#[test]
fn what_replicas_do_not_have_yet() {
    let cluster = start_cluster();
    let sql = "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (mood mood); CREATE TABLE secret (id int)";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    cluster.primary().query_in(DATABASE, "GRANT ALL ON moods TO app").unwrap();
    cluster.wait_caught_up().unwrap();
    let (pgweir, mut client) = start_with(&cluster, &conf(&cluster));
    let long = "x".repeat(20_000);
    let cases = [
        ("GRANT ALL ON secret TO app", "SELECT count(*) FROM secret".into()),
        ("ALTER TYPE mood ADD VALUE 'glad'", "SELECT count(*) FROM moods WHERE mood = 'glad'".into()),
        ("ALTER TABLE moods ADD COLUMN id int", "SELECT count(id) FROM moods".into()),
        ("ALTER TABLE moods ADD COLUMN why text", format!("SELECT count(*) FROM moods WHERE why = '{long}'")),
    ];
    (0..2).for_each(|replica| pause(&cluster, replica, true));
    for (number, (change, read)) in cases.iter().enumerate() {
        cluster.primary().query_in(DATABASE, change).unwrap();
        let read = format!("{} {read}", mark(&format!("not there yet {number}.")));
        // One that has seen nothing is served by any replica.
        let mut client = Client::connect(pgweir.port());
        assert_eq!(client.query(&read), Ok(vec![vec!["0".to_string()]]), "{change}");
        assert_eq!(went(&cluster, &mark(&format!("not there yet {number}."))), Went::Both, "{change}");
    }
    (0..2).for_each(|replica| pause(&cluster, replica, false));
    reads(&mut client, "", 1);
}
