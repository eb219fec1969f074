//! The same read asked by many at once runs once, and what becomes of it otherwise is only its own client's affair.
//! It must never count on two clients being fast: reads wait for a lock until all have asked.

use integration::wire::Script;
use integration::{Cluster, DATABASE};

use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::{builder, bypasses, conf, count, hits, reason, start};

/// Nobody reads this table until the lock is given up.
pub fn guard(cluster: &Cluster, table: &str) -> Client {
    let mut holder = Client::connect(cluster.primary().port());
    holder.query(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).unwrap();
    holder
}

pub fn waiting_for(cluster: &Cluster, table: &str) -> usize {
    let sql = format!("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass");
    cluster.primary().value_in(DATABASE, &sql).unwrap().parse().unwrap()
}

#[test]
fn a_read_that_many_ask_at_once_runs_once() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(20));
    let mut clients: Vec<_> = (0..16).map(|_| Client::connect(pgweir.port())).collect();
    let script = Script::new().query("SELECT v FROM guarded WHERE id = 7 /* once */");
    let mut holder = guard(&cluster, "guarded");
    let (before, fills) = (reason(&pgweir, "misses", "absent"), count(&pgweir, "fills"));
    clients.iter_mut().for_each(|client| client.send(&script));
    eventually("all have asked", || reason(&pgweir, "misses", "absent") == before + 16.0);
    eventually("one of them waits", || waiting_for(&cluster, "guarded") == 1);
    holder.query("COMMIT").unwrap();
    let answers: Vec<_> = clients.iter_mut().map(|client| client.ready(1)).collect();
    assert_eq!(outcome(&answers[0]).unwrap(), [["guarded 7"]]);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(cluster.primary().log().matches("/* once */").count(), 1);
    assert_eq!((count(&pgweir, "followed"), count(&pgweir, "fills")), (15.0, fills + 1.0));
}

/// Once per process: also by clients of different workers.
#[test]
fn workers_wait_for_each_other() {
    let cluster = builder().start().unwrap();
    let pgweir = conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(20).top("workers = 4").start();
    let mut clients: Vec<_> = (0..24).map(|_| Client::connect(pgweir.port())).collect();
    eventually("each worker knows what its database's code does", || {
        let before = hits(&pgweir);
        clients.iter_mut().for_each(|client| drop(client.query("SELECT v FROM guarded_too WHERE id = 1").unwrap()));
        hits(&pgweir) == before + 24.0
    });
    let followed = count(&pgweir, "followed");
    for round in 0..3 {
        let script = Script::new().query(&format!("SELECT v FROM guarded WHERE id = {} /* of all */", 20 + round));
        let mut holder = guard(&cluster, "guarded");
        let before = reason(&pgweir, "misses", "absent");
        clients.iter_mut().for_each(|client| client.send(&script));
        eventually("all have asked", || reason(&pgweir, "misses", "absent") == before + 24.0);
        eventually("one of them waits", || waiting_for(&cluster, "guarded") == 1);
        if round == 2 {
            // It fails, and each worker asks by itself.
            let end =
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'guarded'::regclass";
            cluster.primary().query_in(DATABASE, end).unwrap();
            eventually("the others ask", || waiting_for(&cluster, "guarded") > 1);
        }
        holder.query("COMMIT").unwrap();
        let answers: Vec<_> = clients.iter_mut().map(|client| outcome(&client.ready(1))).collect();
        let row = vec![vec![format!("guarded {}", 20 + round)]];
        let right = answers.iter().filter(|answer| answer.as_ref().is_ok_and(|rows| *rows == row)).count();
        assert_eq!(right, if round == 2 { 23 } else { 24 }, "{answers:?}");
        if round < 2 {
            let ran = cluster.primary().log().matches("/* of all */").count();
            assert_eq!(ran, round + 1);
        }
    }
    assert_eq!(count(&pgweir, "followed"), followed + 46.0);
}

/// Who has other settings, or asks something else, does not wait for it.
#[test]
fn others_do_not_wait() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(20));
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
    clients[1].query("SET statement_timeout = '400ms'").unwrap();
    let script = Script::new().query("SELECT v FROM guarded WHERE id = 8");
    let mut holder = guard(&cluster, "guarded");
    clients[0].send(&script);
    eventually("the first waits", || waiting_for(&cluster, "guarded") == 1);
    let error = outcome(&clients[1].run(&script)).unwrap_err();
    assert!(error.starts_with("57014"), "{error}");
    assert_eq!(clients[2].value("SELECT v FROM guarded_too WHERE id = 8"), "guarded 8");
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&clients[0].ready(1)).unwrap(), [["guarded 8"]]);
}

/// The leader's error is its own: the others ask for themselves. So it is when it goes away, or is cancelled.
#[test]
fn who_follows_one_that_fails_asks_itself() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(20));
    for (number, how) in ["ends", "is cancelled", "goes"].into_iter().enumerate() {
        let mut clients: Vec<_> = (0..5).map(|_| Client::connect(pgweir.port())).collect();
        let sql = format!("SELECT v FROM guarded WHERE id = {}", number + 10);
        let script = Script::new().query(&sql);
        let mut holder = guard(&cluster, "guarded");
        let mut leader = clients.remove(0);
        leader.send(&script);
        eventually("the leader waits", || waiting_for(&cluster, "guarded") == 1);
        let before = reason(&pgweir, "misses", "absent");
        clients.iter_mut().for_each(|client| client.send(&script));
        eventually("all have asked", || reason(&pgweir, "misses", "absent") == before + 4.0);
        assert_eq!(waiting_for(&cluster, "guarded"), 1, "{how}");
        match how {
            "ends" => {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'guarded'::regclass";
                cluster.primary().query_in(DATABASE, end).unwrap();
            }
            "is cancelled" => {
                Client::tcp(pgweir.port()).write(&leader.cancel_request());
                assert!(outcome(&leader.ready(1)).unwrap_err().starts_with("57014"));
            }
            _ => leader.end(),
        }
        eventually("the others ask themselves", || waiting_for(&cluster, "guarded") >= 4);
        holder.query("COMMIT").unwrap();
        for client in &mut clients {
            assert_eq!(outcome(&client.ready(1)).unwrap(), [[format!("guarded {}", number + 10)]], "{how}");
        }
    }
}

/// One that waits for another's answer can be cancelled, and goes on.
#[test]
fn who_follows_can_be_cancelled() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(20));
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(pgweir.port())).collect();
    let script = Script::new().query("SELECT v FROM guarded WHERE id = 20");
    let mut holder = guard(&cluster, "guarded");
    let before = reason(&pgweir, "misses", "absent");
    clients.iter_mut().for_each(|client| client.send(&script));
    eventually("all have asked", || reason(&pgweir, "misses", "absent") == before + 3.0);
    eventually("one waits", || waiting_for(&cluster, "guarded") == 1);
    // Whichever leads, one of the others hears at once; and so does it if it leads.
    Client::tcp(pgweir.port()).write(&clients[1].cancel_request());
    assert!(outcome(&clients[1].ready(1)).unwrap_err().starts_with("57014"));
    assert_eq!(clients[1].value("SELECT v FROM item WHERE id = 1"), "item 1");
    holder.query("COMMIT").unwrap();
    for number in [0, 2] {
        assert_eq!(outcome(&clients[number].ready(1)).unwrap(), [["guarded 20"]]);
    }
    assert_eq!(clients[1].value("SELECT v FROM guarded WHERE id = 20"), "guarded 20");
    assert!(hits(&pgweir) >= 1.0, "{:?}", bypasses(&pgweir));
}

/// The leader gives up while it waits for a server and asks something else at once: each answer is kept as what it is.
#[test]
fn an_answer_is_kept_under_its_own_key() {
    let cluster = builder().start().unwrap();
    let pgweir = start(&conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(1));
    let [mut holder, mut leader, mut follower, mut third] = [(); 4].map(|()| Client::connect(pgweir.port()));
    let read = |id: usize| format!("SELECT v FROM item WHERE id = {id}");
    for id in (100..200).step_by(2) {
        let before = reason(&pgweir, "misses", "absent");
        holder.query("BEGIN").unwrap();
        leader.send(&Script::new().query(&read(id)));
        follower.send(&Script::new().query(&read(id)));
        eventually("both wait", || reason(&pgweir, "misses", "absent") == before + 2.0);
        Client::tcp(pgweir.port()).write(&leader.cancel_request());
        // Whichever of them leads: the other goes on.
        assert!(outcome(&leader.ready(1)).unwrap_err().starts_with("57014"));
        leader.send(&Script::new().query(&read(id + 1)));
        eventually("the leader asks anew", || reason(&pgweir, "misses", "absent") >= before + 3.0);
        holder.query("COMMIT").unwrap();
        assert_eq!(outcome(&follower.ready(1)).unwrap(), [[format!("item {id}")]]);
        assert_eq!(outcome(&leader.ready(1)).unwrap(), [[format!("item {}", id + 1)]]);
        for id in [id, id + 1] {
            assert_eq!(third.value(&read(id)), format!("item {id}"));
        }
        // Nobody waits for the answer to another question.
        assert_eq!(count(&pgweir, "followed"), 0.0);
    }
}

/// Those whose own writes the answer does not show ask on, and others behind them: nobody is forgotten.
#[test]
fn who_has_written_meanwhile_is_not_forgotten() {
    let cluster = builder().start().unwrap();
    let lines = format!("[[databases.{DATABASE}.rules]]\nname = \"slow\"\ntable = \"mine\"\nrate = 200\n");
    let conf = conf(&cluster, "mode = \"on\"\nttl = \"1h\"").size(4);
    let pgweir = start(&conf.database(&lines));
    let port = pgweir.port();
    crate::common::crowd(12, move |number| {
        let mut client = Client::connect(port);
        for turn in 0..20 {
            client.query(&format!("UPDATE item SET v = '{number}-{turn}' WHERE id = {}", number + 800)).unwrap();
            for id in [1, 2] {
                assert_eq!(client.value(&format!("SELECT v FROM mine WHERE id = {id}")), "0");
            }
        }
    });
    assert!(count(&pgweir, "followed") > 0.0, "{:?}", bypasses(&pgweir));
}
