//! Who takes writes, and who may serve whom.
//! Must never need a server.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Host, Roles};

fn cluster(hosts: usize, roles: Roles) -> Cluster {
    let endpoint = |n| Endpoint { host: Host::Tcp(format!("h{n}")), port: 5432 };
    Cluster::new((0..hosts).map(endpoint), roles)
}

fn standby(timeline: u32, lsn: Lsn) -> Says {
    Says { standby: true, lsn, shown: lsn, timeline }
}

fn at(floor: Floor) -> Sight {
    Sight { floor, ..Sight::default() }
}

fn primary(timeline: u32) -> Says {
    Says { standby: false, lsn: 1, shown: 1, timeline }
}

#[test]
fn a_single_host_is_the_primary_unasked() {
    let one = cluster(1, Roles::Found);
    assert!(!one.is_watched());
    assert_eq!(one.primary(), Some(0));
}

#[test]
fn nobody_is_the_primary_before_all_were_heard() {
    let three = cluster(3, Roles::Found);
    assert_eq!(three.primary(), None);
    three.heard(1, 1, primary(1));
    three.heard(0, 1, standby(1, 5));
    assert_eq!(three.primary(), None);
    three.is_down(2);
    assert_eq!(three.primary(), Some(1));
}

#[test]
fn a_host_that_never_answers_is_waited_for_a_second_at_most() {
    let two = cluster(2, Roles::Found);
    two.heard(0, 1, primary(1));
    two.deciding.lock().unwrap().since = Instant::now().checked_sub(PATIENCE);
    two.heard(0, 1, primary(1));
    assert_eq!(two.primary(), Some(0));
}

#[test]
fn a_newer_timeline_wins_and_an_old_primary_is_not_believed() {
    let three = cluster(3, Roles::Found);
    three.heard(0, 1, primary(1));
    three.heard(1, 1, standby(1, 5));
    three.heard(2, 1, standby(1, 5));
    assert_eq!(three.primary(), Some(0));
    // The old one is still there.
    three.heard(1, 1, primary(2));
    assert_eq!(three.primary(), Some(1));
    three.is_down(1);
    three.heard(0, 1, primary(1));
    assert_eq!(three.primary(), None);
    // A standby that follows it tells of the timeline, too.
    three.heard(2, 1, standby(3, 5));
    three.heard(1, 1, primary(2));
    assert_eq!(three.primary(), None);
    three.heard(1, 1, primary(3));
    assert_eq!(three.primary(), Some(1));
}

#[test]
fn of_two_on_one_timeline_the_one_before_stays() {
    let two = cluster(2, Roles::Found);
    two.heard(0, 1, standby(1, 1));
    two.heard(1, 1, primary(1));
    two.heard(0, 1, primary(1));
    assert_eq!(two.primary(), Some(1));
    let other = cluster(2, Roles::Found);
    other.heard(0, 1, primary(1));
    other.heard(1, 1, primary(1));
    assert_eq!(other.primary(), None);
}

#[test]
fn a_declared_primary_stays() {
    let two = cluster(2, Roles::Declared);
    assert_eq!(two.primary(), Some(0));
    two.heard(1, 1, primary(7));
    two.is_down(0);
    assert_eq!(two.primary(), Some(0));
}

#[test]
fn a_writer_reads_from_the_primary_until_a_replica_has_its_commit() {
    let three = cluster(3, Roles::Found);
    three.heard(0, 1, primary(1));
    three.heard(1, 1, standby(1, 100));
    three.heard(2, 1, standby(1, 100));
    assert!(three.serves(1, &Sight::default()) && !three.serves(0, &Sight::default()));
    // A question already under way was sent before the write ended.
    let early = three.ask();
    let floor = three.wrote();
    three.answer(0, early, 90);
    assert_eq!(three.settle(floor), floor);
    assert!(!three.serves(1, &at(floor)));
    let late = three.ask();
    // Who is not the primary has no say.
    three.answer(1, late, 90);
    assert_eq!(three.settle(floor), floor);
    three.answer(0, late, 150);
    let floor = three.settle(floor);
    assert_eq!(floor, Floor::At(150));
    three.replay(2, 2, 151, 151);
    assert!(three.serves(2, &at(floor)) && !three.serves(1, &at(floor)));
    assert_eq!(three.settle(floor), Floor::At(150));
    three.replay(1, 2, 150, 150);
    assert_eq!(three.settle(floor), Floor::None);
}

#[test]
fn a_replica_that_does_not_answer_serves_nobody() {
    let two = cluster(2, Roles::Found);
    assert!(!two.serves(1, &Sight::default()));
    two.heard(1, 1, standby(1, 5));
    assert!(two.serves(1, &Sight::default()));
    two.is_down(1);
    assert!(!two.serves(1, &Sight::default()));
}

#[test]
fn a_reader_goes_only_where_there_is_what_it_saw() {
    let three = cluster(3, Roles::Found);
    three.heard(0, 1, primary(1));
    let question = three.members[1].ask();
    three.heard(1, question, standby(1, 100));
    three.heard(2, 1, standby(1, 100));
    let sight = Sight { last: three.read_from(1), ..Sight::default() };
    // It may have replayed anything by the end of the read.
    assert!(three.serves(1, &sight) && !three.serves(2, &sight));
    let question = three.members[1].ask();
    three.replay(1, question, 120, 120);
    assert!(!three.serves(2, &sight));
    three.replay(2, 2, 120, 120);
    assert!(three.serves(2, &sight));
    three.is_down(1);
    assert!(!three.serves(2, &sight) && !three.serves(1, &sight));
}

#[test]
fn who_may_have_left_the_newest_timeline_serves_nobody_until_it_is_seen_there() {
    let three = cluster(3, Roles::Found);
    three.heard(0, 1, primary(1));
    three.heard(1, 1, standby(1, 100));
    three.heard(2, 1, standby(1, 150));
    let serves = |number| three.serves(number, &Sight::default());
    assert!(serves(1) && serves(2));
    // Somewhere from 100 on another timeline begins.
    three.is_down(0);
    three.heard(1, 2, Says { standby: false, lsn: 200, shown: 200, timeline: 2 });
    assert_eq!(three.primary(), Some(1));
    assert!(!serves(2), "what it has replayed from there on may be what nobody else has");
    assert_eq!(three.settle(Floor::At(150)), Floor::At(150));
    three.heard(2, 2, standby(1, 100));
    assert!(serves(2), "that much all have");
    three.replay(2, 3, 180, 180);
    assert!(!serves(2));
    // It says so itself.
    three.heard(2, 4, standby(2, 180));
    assert!(serves(2));
    three.heard(2, 5, standby(1, 190));
    assert!(!serves(2));
    // Or it is where the primary is.
    three.replay(2, 6, 200, 200);
    assert!(serves(2));
    three.replay(2, 7, 300, 300);
    assert!(serves(2));
}
