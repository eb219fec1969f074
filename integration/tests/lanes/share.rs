//! Many clients at once: each gets exactly its own answers, and servers are shared.
//! It must never compare an answer with anything but what this very request asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use integration::wire::Script;

use crate::common::client::{outcome, tags};
use crate::common::{Client, crowd, eventually, metric};
use crate::{Asker, Rides, WAYS, Way, cluster, conf, rides, start, warm_askers, warm_sql};

#[test]
fn forty_clients_get_their_own_answers_from_few_servers() {
    let pgweir = start(&conf(cluster()).size(4));
    warm_askers(&pgweir);
    let (port, before) = (pgweir.port(), Rides::of(&pgweir));
    crowd(40, move |number| {
        let mut asker = Asker::new(port, number);
        (0..100).for_each(|turn| asker.ask(WAYS[(number + turn) % 3]));
    });
    let went = Rides::of(&pgweir).since(before);
    assert!(went.rides > 2000.0 && went.rides <= 4000.0, "{went:?} {:?}", crate::unfit(&pgweir));
    assert!(went.writes < went.rides, "{went:?}");
    assert_eq!(went.repeats, 0.0);
}

/// Every worker learns for itself; their clients are as many clients as any.
#[test]
fn several_workers_share_each_its_own() {
    let pgweir =
        start(&crate::Conf::trust(cluster()).top("workers = 2").pool("lanes = true\nlane_fast = \"20ms\"").size(4));
    let port = pgweir.port();
    eventually("reads ride", || {
        crowd(12, move |number| {
            let mut asker = Asker::new(port, number);
            (0..120).for_each(|turn| asker.ask(WAYS[turn % 3]));
        });
        rides(&pgweir) > 1000.0
    });
}

/// A batch in front of whose answer the client asks on: all answers in order, and none of them from a lane.
#[test]
fn pipelines_are_answered_in_order_by_one_server() {
    let pgweir = start(&conf(cluster()).size(4));
    warm_askers(&pgweir);
    let before = rides(&pgweir);
    for number in 0..10 {
        let mut asker = Asker::new(pgweir.port(), number);
        for round in 0..10 {
            let (mut script, mut right) = (Script::new(), Vec::new());
            for turn in 0..7 {
                let (question, answer) = asker.question(WAYS[(round + turn) % 3]);
                script = script.append(&question);
                right.push((answer, WAYS[(round + turn) % 3]));
            }
            asker.client.send(&script);
            for (answer, way) in right {
                let frames = asker.client.ready(1);
                asker.check(&frames, &answer, way).unwrap();
            }
        }
    }
    assert_eq!(rides(&pgweir), before);
}

/// The same among others who ride, and with what comes behind while the first rides.
#[test]
fn pipelines_among_riders() {
    let pgweir = start(&conf(cluster()).size(4));
    warm_askers(&pgweir);
    let port = pgweir.port();
    crowd(12, move |number| {
        let mut asker = Asker::new(port, number);
        for round in 0..60 {
            let questions: Vec<_> =
                (0..1 + (number + round) % 4).map(|at| (asker.question(WAYS[at % 3]), WAYS[at % 3])).collect();
            // One write, or one write each.
            if number % 2 == 0 {
                let all = questions.iter().fold(Script::new(), |all, ((script, _), _)| all.append(script));
                asker.client.send(&all);
            } else {
                questions.iter().for_each(|((script, _), _)| asker.client.send(script));
            }
            for ((_, answer), way) in &questions {
                let frames = asker.client.ready(1);
                asker.check(&frames, answer, *way).unwrap();
            }
        }
    });
    assert_eq!(metric(&pgweir, "pgweir_panics_total", &[]), 0.0);
}

/// What several messages ask in one implicit transaction, or leave open, is a client's own.
#[test]
fn other_batches_do_not_ride() {
    let pgweir = start(&conf(cluster()).size(4));
    warm_askers(&pgweir);
    let mut client = Asker::new(pgweir.port(), 0).client;
    let find = "SELECT $1::text AS mark, v FROM item WHERE id = $2";
    let values = [Some("m"), Some("5")];
    let one = |script: Script| script.bind("", "find", &values).execute("", 0);
    let batches = [
        (one(one(Script::new())).sync(), "2DC2DCZ"),
        (Script::new().bind("", "find", &values).execute("", 1).sync(), "2DsZ"),
        (one(Script::new()).flush().sync(), "2DCZ"),
        (
            Script::new().parse("other", find).bind("", "other", &values).execute("", 0).close(b'S', "other").sync(),
            "12DC3Z",
        ),
        (Script::new().parse("", find).sync(), "1Z"),
        (Script::new().describe(b'S', "find").sync(), "tTZ"),
        (
            Script::new()
                .query("SELECT 'm' AS mark, v FROM item WHERE id = 5; SELECT 'm' AS mark, v FROM item WHERE id = 5"),
            "TDCTDCZ",
        ),
        (Script::new().query("COPY (SELECT v FROM item WHERE id = 5) TO STDOUT"), "HdcCZ"),
        (Script::new().sync(), "Z"),
        (Script::new().query(""), "IZ"),
    ];
    let before = rides(&pgweir);
    for (script, answer) in &batches {
        for _ in 0..130 {
            assert_eq!(tags(&client.run(script)), *answer);
        }
    }
    assert_eq!(rides(&pgweir), before, "{:?}", crate::unfit(&pgweir));
}

/// The unnamed statement is what it would be: it lives on between batches, and ends with a simple query.
#[test]
fn the_unnamed_statement_stays_with_its_client() {
    let pgweir = start(&conf(cluster()).size(2));
    warm_askers(&pgweir);
    let port = pgweir.port();
    let before = rides(&pgweir);
    crowd(8, move |number| {
        let mut asker = Asker::new(port, number);
        for turn in 0..60 {
            asker.ask(Way::Unnamed);
            let mark = format!("{number}-{turn}");
            let again = Script::new().bind("", "", &[Some(&mark), Some("7")]).execute("", 0).sync();
            assert_eq!(outcome(&asker.client.run(&again)).unwrap(), [[mark, "item 7".into()]]);
            if turn % 3 == 0 {
                asker.ask(Way::Simple);
                let gone = outcome(&asker.client.run(&again)).unwrap_err();
                assert_eq!(gone, "26000 unnamed prepared statement does not exist");
            }
        }
    });
    assert!(rides(&pgweir) > before + 100.0);
}

/// Who goes in the middle of it leaves the others' answers to them.
#[test]
fn clients_that_vanish_harm_nobody() {
    let pgweir = start(&conf(cluster()).size(3));
    warm_askers(&pgweir);
    let (port, stop, before) = (pgweir.port(), AtomicBool::new(false), rides(&pgweir));
    thread::scope(|scope| {
        for number in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut asker = Asker::new(port, 1000 + number);
                    for turn in 0..5 {
                        asker.ask(WAYS[turn % 3]);
                    }
                    let (script, _) = asker.question(WAYS[number % 3]);
                    // Half of a request, a whole one, a whole one and a goodbye.
                    match number {
                        0 => asker.client.write(&script.bytes()[..script.bytes().len() / 2]),
                        1 => asker.client.send(&script.terminate()),
                        _ => asker.client.send(&script),
                    }
                    asker.client.vanish();
                }
            });
        }
        let riders: Vec<_> = (0..12)
            .map(|number| {
                scope.spawn(move || {
                    let mut asker = Asker::new(port, number);
                    (0..120).for_each(|turn| asker.ask(WAYS[turn % 3]));
                })
            })
            .collect();
        let outcomes: Vec<_> = riders.into_iter().map(|rider| rider.join()).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    assert!(rides(&pgweir) > before + 500.0);
    eventually("all have gone", || {
        metric(&pgweir, "pgweir_pool_clients", &[]) == 0.0
            && metric(&pgweir, "pgweir_pool_servers", &[("state", "active")]) == 0.0
    });
}

/// A client alone rides as well, and waits for nobody.
#[test]
fn one_client_waits_for_no_company() {
    let pgweir = start(&conf(cluster()).size(2));
    warm_sql(&pgweir, &["SELECT v FROM item WHERE id = 3"]);
    let mut client = Client::connect(pgweir.port());
    let before = Rides::of(&pgweir);
    for _ in 0..200 {
        assert_eq!(client.value("SELECT v FROM item WHERE id = 3"), "item 3");
    }
    let went = Rides::of(&pgweir).since(before);
    assert!(went.rides > 100.0 && went.writes == went.rides, "{went:?}");
}
