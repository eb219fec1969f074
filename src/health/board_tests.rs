//! Alerts over time.
//! Must never wait: the moments are handed in.

use super::*;

const S: u64 = 1_000_000;

fn finding(value: f64) -> Finding {
    let (fires, clears) = (value > 0.8, value <= 0.7);
    let after = Duration::from_secs(60);
    Finding { kind: Kind::PoolUse, labels: vec![("database", "d".into())], value, threshold: 0.8, fires, clears, after }
}

fn states(board: &Board) -> Vec<AlertState> {
    board.all().iter().map(|alert| alert.state).collect()
}

#[test]
fn fires_after_its_time_and_is_over_below_its_other_mark() {
    use AlertState::{Firing, Pending, Resolved};
    let mut board = Board::default();
    let mut at = |second: u64, value: f64| {
        let changed = board.note(vec![finding(value)], second * S, second as f64);
        (changed.iter().map(|alert| alert.state).collect::<Vec<_>>(), states(&board))
    };
    assert_eq!(at(0, 0.5), (vec![], vec![]));
    assert_eq!(at(10, 0.9), (vec![], vec![Pending]));
    assert_eq!(at(20, 0.75), (vec![], vec![]), "not above any more");
    assert_eq!(at(30, 0.9), (vec![], vec![Pending]));
    assert_eq!(at(89, 0.9), (vec![], vec![Pending]));
    assert_eq!(at(90, 0.9), (vec![Firing], vec![Firing]));
    assert_eq!(at(100, 0.75), (vec![], vec![Firing]), "between the marks nothing changes");
    assert_eq!(at(110, 0.7), (vec![Resolved], vec![Resolved]));
    assert_eq!(at(120, 0.75), (vec![], vec![Resolved]));
    assert_eq!(at(130, 0.95), (vec![], vec![Pending]), "again");
    assert_eq!(at(190, 0.95), (vec![Firing], vec![Firing]));
    let alert = &board.all()[0];
    assert_eq!((alert.since_unix_s, alert.fired_unix_s, alert.value), (190.0, Some(190.0), 0.95));
    assert_eq!(alert.summary(), "most servers of the pool are in use (database d): 95 %, limit 80 %");
}

#[test]
fn what_is_not_found_any_more_is_over_and_forgotten_in_time() {
    let mut board = Board::default();
    let now = Finding { after: Duration::ZERO, ..finding(1.0) };
    assert_eq!(board.note(vec![now], S, 1.0).len(), 1, "without a time it fires at once");
    assert_eq!(board.note(Vec::new(), 2 * S, 2.0).len(), 1);
    assert_eq!(states(&board), [AlertState::Resolved]);
    board.note(Vec::new(), 2 * S + RESOLVED_FOR_US, 3.0);
    assert_eq!(states(&board), []);
}

#[test]
fn no_more_than_so_many_are_remembered() {
    let mut board = Board::default();
    let many = |n: usize| Finding { labels: vec![("database", n.to_string())], after: Duration::ZERO, ..finding(1.0) };
    board.note((0..RESOLVED_MAX + 50).map(many).collect(), S, 1.0);
    assert_eq!(states(&board).len(), RESOLVED_MAX + 50, "what fires is never forgotten");
    board.note(Vec::new(), 2 * S, 2.0);
    assert_eq!(states(&board).len(), RESOLVED_MAX);
}
