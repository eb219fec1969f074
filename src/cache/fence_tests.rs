//! What a fence says of answers and writes.
//! Must never wait: the clock is handed in.
#![allow(clippy::unwrap_used)]

use super::*;

fn session(number: u64) -> Session {
    Session { number, since_us: 0, hash: "h".into(), life: "l".into(), process: 7, link: None, limit: Duration::ZERO }
}

#[test]
fn what_others_have_kept_is_of_this_life_and_session() {
    let session = Session { since_us: 10, ..session(3) };
    assert!(session.counts("l", 11) && !session.counts("m", 11));
    assert!(!session.counts("l", 10), "somebody may have written without a fence after that");
}

#[test]
fn an_answer_is_good_until_a_write_begins() {
    let count = |begun| Count { begun, ended: begun };
    let fenced = Fenced { session: 3, begun: [(ALL, 0), (16384, 5)].into() };
    let told: BTreeMap<u32, Count> = [(ALL, count(0)), (16384, count(5)), (16385, count(9))].into();
    assert!(fenced.holds(3, &told) && !fenced.holds(4, &told));
    let with = |table, count| told.clone().into_iter().chain([(table, count)]).collect();
    assert!(!fenced.holds(3, &with(16384, Count { begun: 6, ended: 5 })));
    assert!(!fenced.holds(3, &with(16384, count(6))) && !fenced.holds(3, &with(ALL, count(1))));
    assert!(fenced.holds(3, &with(16385, count(10))));
    let mut less = told.clone();
    less.remove(&ALL);
    assert!(!fenced.holds(3, &less), "not told is not the same");
}

#[test]
fn answers_are_given_in_a_good_session_and_in_sight_only() {
    let clock = crate::base::clock::paused::Paused::new();
    let fence = Fence::default();
    assert!(fence.serves().is_none() && fence.session().is_none());
    fence.enters(session(1), 1);
    fence.clear(now_us());
    assert!(fence.serves().is_none(), "others may not have entered what they write");
    fence.is_good(1);
    assert!(fence.serves().is_some());
    clock.advance(SIGHT + Duration::from_millis(1));
    assert!(fence.serves().is_none());
    fence.clear(now_us());
    assert!(fence.serves().is_some());
    fence.clear(0);
    assert!(fence.serves().is_none() && fence.session().is_some());
    fence.clear(now_us());
    fence.fails(9);
    assert!(fence.serves().is_some(), "that was another");
    fence.fails(1);
    assert!(fence.session().is_none() && fence.take_wanted() && !fence.take_wanted());
    fence.enters(session(2), 1);
    assert!(fence.serves().is_none());
}

#[test]
fn nobody_writes_without_a_fence_before_all_have_stepped_aside() {
    let clock = crate::base::clock::paused::Paused::new();
    let fence = Fence::default();
    assert!(!fence.is_open() && !fence.opening());
    fence.opens(now_us() + STEP_ASIDE.as_micros() as u64);
    assert!(!fence.is_open() && fence.opening());
    clock.advance(STEP_ASIDE);
    assert!(fence.is_open());
    fence.opens(0);
    assert!(!fence.is_open());
    assert!(STEP_ASIDE > SIGHT);
}

#[test]
fn writes_are_under_way_until_they_end() {
    let fence = Fence::default();
    let (one, two) = (fence.begins(&[16384, 16385]), fence.begins(&[ALL, SCHEMA]));
    assert_eq!(fence.all(), (2, vec![(one, "16384,16385".into()), (two, "0,1".into())]));
    fence.ended(&[one]);
    assert_eq!((fence.all().0, fence.under_way()), (2, 1));
    fence.lost(&[two]);
    assert_eq!((fence.take_lost(), fence.take_lost()), (vec![two], vec![]));
    assert_eq!(fence.under_way(), 1, "it may still be");
}

#[test]
fn a_change_of_the_schema_is_seen_once() {
    let fence = Fence::default();
    let count = |begun, ended| Count { begun, ended };
    let seen = |count| {
        let mut changed = false;
        fence.sees_schema(count, || changed = true);
        changed
    };
    assert!(!seen(count(0, 0)) && fence.is_of_schema(count(0, 0)));
    assert!(seen(count(1, 0)) && !fence.is_of_schema(count(1, 0)));
    assert!(seen(count(1, 1)) && fence.is_of_schema(count(1, 1)) && !fence.is_of_schema(count(0, 0)));
    assert!(!seen(count(1, 1)) && fence.schema() == count(1, 1));
}
