//! A statement that looks like a read and writes: it was done when its primary fell silent, and is not done again on the next one.
//! It must never be taken for a read on a primary because a standby would have refused it.

use std::time::Duration;

use crate::books::Books;
use crate::common::client::outcome;
use crate::common::{Client, eventually};
use crate::faults::{Fault, Stage};
use crate::{Front, start_cluster};
use integration::wire::Script;
use integration::{DATABASE, Way};

#[test]
fn what_a_view_does_is_not_done_twice() {
    let cluster = start_cluster();
    let sql = "CREATE FUNCTION hidden() RETURNS bigint LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO ledger VALUES ('T0', 0, 1, 0); RETURN 1; END $$;
        CREATE VIEW pond AS SELECT hidden() AS n; GRANT SELECT ON pond TO app";
    cluster.primary().query_in(DATABASE, sql).unwrap();
    cluster.wait_caught_up().unwrap();
    let links = cluster.links().unwrap();
    let front = Front::start(&links);
    let mut client = Client::connect(front.port());
    let done = "SELECT count(*) FROM ledger";
    // A session that has written reads from the primary as long as no replica has it.
    cluster.replicas().iter().for_each(|replica| replica.pause_replay().unwrap());
    client.query("UPDATE probe SET mark = 'seen' WHERE id = 1").unwrap();
    assert_eq!(client.value("SELECT mark FROM probe WHERE id = 1"), "seen");
    links[0].silence(Way::Back);
    client.send(&Script::new().query("SELECT n FROM pond"));
    eventually("it is done", || cluster.primary().value_in(DATABASE, done).unwrap() == "1");
    cluster.replicas().iter().for_each(|replica| replica.resume_replay().unwrap());
    let mut stage = Stage::new(&cluster, &links, &front);
    stage.strike(Fault::Mute, Duration::ZERO, &Books::default());
    println!("the client is told: {:?}", outcome(&client.ready(1)));
    if let Some(node) = stage.standing() {
        let done = node.value_in(DATABASE, done).unwrap();
        println!("on {}: done {done} times", node.name());
        assert_eq!(done, "1", "done {done} times");
    }
}
