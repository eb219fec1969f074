//! What several processes ask at once is asked of a server once, and whatever becomes of who asks, the others wait no longer than they may.
//! It must never take two for following that did not ask at one time: a lock holds who asks until the others wait.

use std::time::{Duration, Instant};

use integration::wire::{Frame, Script};
use integration::{Cluster, Pgweir, Redis, Signal};

use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::flight::{guard, waiting_for};
use crate::l2::{found, missed, of, up, wrote};
use crate::{builder, reason};

/// How long reads of the guarded table usually take here: longer than anything may take on a busy machine.
const USUAL: Duration = Duration::from_secs(3);

fn sql(id: usize) -> String {
    format!("SELECT v FROM guarded WHERE id = {id} /* once {id} */")
}

fn runs(cluster: &Cluster, id: usize) -> usize {
    // Not where it stands beside an error.
    cluster.primary().log().matches(&format!("LOG:  statement: {}", sql(id))).count()
}

/// Two processes on one Redis, the first of which knows how long such reads take.
struct Scene {
    cluster: Cluster,
    redis: Redis,
    one: Pgweir,
    two: Pgweir,
}

fn scene() -> Scene {
    let (cluster, redis) = (builder().start().unwrap(), Redis::start().unwrap());
    let [one, two] = [(); 2].map(|()| up(&of(&cluster, &redis).size(20)));
    // Each knows the catalog well enough to share what it has.
    for (number, pgweir) in [&one, &two].into_iter().enumerate() {
        let (mut client, mut id) = (Client::connect(pgweir.port()), number * 400);
        eventually("answers are shared", || {
            id += 1;
            client.query(&format!("SELECT v FROM item WHERE id = {id}")).unwrap();
            wrote(pgweir, "kept") > 0.0
        });
    }
    let (mut client, mut holder) = (Client::connect(one.port()), guard(&cluster, "guarded"));
    client.send(&Script::new().query(&sql(1)));
    let began = Instant::now();
    eventually("it has taken its time", || began.elapsed() > USUAL);
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&client.ready(1)).unwrap(), [["guarded 1"]]);
    Scene { cluster, redis, one, two }
}

impl Scene {
    /// The first process asks a server, and three clients of the second wait for it: who asks, who waits, and who holds them up.
    fn asks(&self, id: usize) -> (Client, Vec<Client>, Client) {
        let script = Script::new().query(&sql(id));
        let holder = guard(&self.cluster, "guarded");
        let mut leader = Client::connect(self.one.port());
        let mut others: Vec<_> = (0..3).map(|_| Client::connect(self.two.port())).collect();
        leader.send(&script);
        eventually("the first asks", || waiting_for(&self.cluster, "guarded") == 1);
        let before = reason(&self.two, "misses", "absent");
        others.iter_mut().for_each(|client| client.send(&script));
        eventually("the others have asked", || reason(&self.two, "misses", "absent") == before + 3.0);
        (leader, others, holder)
    }

    fn answered(&self, others: &mut [Client], id: usize) -> Vec<Vec<Frame>> {
        let answers: Vec<_> = others.iter_mut().map(|client| client.ready(1)).collect();
        answers.iter().for_each(|answer| assert_eq!(outcome(answer).unwrap(), [[format!("guarded {id}")]]));
        answers
    }
}

#[test]
fn what_processes_ask_at_once_runs_once() {
    let scene = scene();
    let (mut leader, mut others, mut holder) = scene.asks(7);
    assert_eq!(waiting_for(&scene.cluster, "guarded"), 1);
    holder.query("COMMIT").unwrap();
    let right = leader.ready(1);
    assert!(scene.answered(&mut others, 7).iter().all(|answer| *answer == right));
    assert_eq!((runs(&scene.cluster, 7), found(&scene.two), missed(&scene.two, "waited")), (1, 1.0, 0.0));
}

/// Of an error the others hear at once, of a process that is gone they wait no longer than usual.
#[test]
fn who_follows_one_that_fails_asks_itself() {
    let scene = scene();
    let (mut leader, mut others, mut holder) = scene.asks(8);
    let ended = Instant::now();
    Client::tcp(scene.one.port()).write(&leader.cancel_request());
    assert!(outcome(&leader.ready(1)).unwrap_err().starts_with("57014"));
    eventually("one of the others asks", || runs(&scene.cluster, 8) == 2);
    assert!(ended.elapsed() < USUAL / 2, "after {:?}", ended.elapsed());
    holder.query("COMMIT").unwrap();
    scene.answered(&mut others, 8);
    assert_eq!(missed(&scene.two, "waited"), 0.0);
    let (leader, mut others, mut holder) = scene.asks(9);
    let asked = Instant::now();
    scene.one.signal(Signal::KILL);
    drop(leader);
    eventually("one of the others asks", || runs(&scene.cluster, 9) == 2);
    assert!(asked.elapsed() < USUAL * 2, "after {:?}", asked.elapsed());
    holder.query("COMMIT").unwrap();
    scene.answered(&mut others, 9);
    assert_eq!(missed(&scene.two, "waited"), 1.0);
}

/// Without Redis each process asks for itself, also who has waited for another.
#[test]
fn who_waits_when_redis_goes_asks_itself() {
    let scene = scene();
    let (mut leader, mut others, mut holder) = scene.asks(10);
    let gone = Instant::now();
    scene.redis.kill().unwrap();
    eventually("one of the others asks", || runs(&scene.cluster, 10) == 2);
    assert!(gone.elapsed() < USUAL, "after {:?}", gone.elapsed());
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&leader.ready(1)).unwrap(), [["guarded 10"]]);
    scene.answered(&mut others, 10);
}

/// A Redis that has no room, or may not be asked so, is no reason to fail.
#[test]
fn who_may_not_say_so_asks_as_ever() {
    let scene = scene();
    scene.redis.ask(&["ACL", "SETUSER", "default", "-set", "-eval"]).unwrap();
    let before = missed(&scene.two, "error");
    let (mut leader, mut others, mut holder) = scene.asks(11);
    eventually("both ask", || runs(&scene.cluster, 11) == 2);
    holder.query("COMMIT").unwrap();
    assert_eq!(outcome(&leader.ready(1)).unwrap(), [["guarded 11"]]);
    scene.answered(&mut others, 11);
    assert_eq!((missed(&scene.two, "error"), missed(&scene.two, "waited")), (before, 0.0));
}
