//! The page on a terminal in memory: what is shown of answers, and what keys do.
//! Must never need a server.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::ask::{Answers, Target};
use super::page;
use super::state::State;
use super::table::{Cell, View, clean, fitting, seconds};

fn pool(database: &str, queries: u64, waiting: u64) -> Value {
    json!({
        "database": database, "user": "app", "host": "db1:5432", "pool": "default", "role": "primary", "size": 20,
        "use_share": 0.5, "clients": { "active": 10, "waiting": waiting, "idle": 1 }, "queries_total": queries,
        "servers": { "active": 10, "idle": 2, "connecting": 0 }, "oldest_wait_seconds": 0.25, "errors_total": 0
    })
}

fn query(text: &str, calls: u64, sum: f64) -> Value {
    let time = json!({ "sum_seconds": sum, "p50_seconds": 0.001, "p95_seconds": 0.002, "p99_seconds": 0.003, "max_seconds": 1.5 });
    json!({ "shape": text, "database": "shop", "user": "app", "calls_total": calls, "errors_total": 0, "rows_total": 1, "time": time, "wait": time, "query": text })
}

fn answers(at: Instant, queries_total: u64) -> Answers {
    let hosts = json!([
        { "host": "db1:5432", "role": "primary", "lag_seconds": null, "lag_bytes": null, "latency_seconds": 0.001, "breaker": "closed", "timeline": 1 },
        { "host": "db2:5432", "role": "standby", "lag_seconds": 2.5, "lag_bytes": 4096, "latency_seconds": 0.001, "breaker": "closed", "timeline": 1 }
    ]);
    Answers {
        at,
        status: json!({
            "ready": true, "process": { "version": "1.2.3", "uptime_seconds": 3725.0 }, "health": { "score": 85 },
            "databases": [{ "database": "shop", "primary_reachable": true, "primary": "db1:5432", "hosts": hosts },
                          { "database": "wiki", "primary_reachable": false, "primary": "db9:5432", "hosts": [] }]
        }),
        databases: json!({ "databases": [{ "database": "shop", "transactions_total": queries_total,
            "clients": { "active": 10, "waiting": 3, "idle": 1 }, "servers": { "active": 10, "idle": 2, "connecting": 0 } }] }),
        alerts: json!({ "firing": 2, "alerts": [] }),
        pools: json!({ "pools": [pool("wiki", 5, 0), pool("shop", queries_total, 3)] }),
        queries: json!({ "queries": [query("SELECT\n 1", 10, 0.5), query("UPDATE \u{1b}[31mitems", 2, 9.0)] }),
    }
}

/// Two answers, ten seconds apart.
fn state() -> (State, Instant) {
    let mut state = State::new("http://there:9127".to_owned());
    let start = Instant::now();
    let now = start + Duration::from_secs(10);
    state.hear(Ok(answers(start, 1000)));
    state.hear(Ok(answers(now, 3000)));
    (state, now)
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            key => KeyCode::Char(key),
        };
        state.press(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

fn screen(state: &State, now: Instant, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| page::draw(frame, state, now, false)).unwrap();
    terminal.backend().to_string()
}

fn column(state: &State, view: View, title: &str) -> Vec<String> {
    let at = view.columns().iter().position(|it| it.title == title).unwrap();
    state.rows(view).iter().map(|row| row[at].shown(view.columns()[at].kind)).collect()
}

#[test]
fn the_head_says_how_it_goes_and_rates_are_since_the_values_before() {
    let (state, now) = state();
    let shown = screen(&state, now, (200, 20));
    for part in [
        "pgweir 1.2.3  http://there:9127  up 1 h 2 min  ready  health 85  alerts firing 2",
        "tps 200.0  clients 14 (10 active, 3 waiting)  servers 12 (10 active, 0 opening)",
        "[1 pools]",
        "QUERIES/Sv",
    ] {
        assert!(shown.contains(part), "no {part} in\n{shown}");
    }
    assert_eq!(column(&state, View::Pools, "QUERIES/S"), ["200.0", "0.0"]);
    assert_eq!(column(&state, View::Pools, "DATABASE"), ["shop", "wiki"]);
    // A process that counts from the start again has no rate yet.
    let mut state = state;
    state.hear(Ok(answers(now + Duration::from_secs(1), 7)));
    assert_eq!((column(&state, View::Pools, "QUERIES/S")[1].as_str(), state.tps()), ("–", None));
}

#[test]
fn keys_switch_sort_filter_and_select() {
    let (mut state, now) = state();
    press(&mut state, "\t");
    assert_eq!((state.view(), state.by()), (View::Queries, "total"));
    assert_eq!(column(&state, View::Queries, "TOTAL"), ["9.0 s", "500 ms"]);
    press(&mut state, "r");
    assert_eq!(column(&state, View::Queries, "TOTAL"), ["500 ms", "9.0 s"]);
    press(&mut state, "<<<");
    assert_eq!((column(&state, View::Queries, "CALLS"), state.by()), (vec!["10".into(), "2".into()], "calls"));
    press(&mut state, "jjj");
    assert_eq!(state.selected(), 1, "it ends at the last row");
    press(&mut state, "/q3UPDATE");
    assert!(state.rows(View::Queries).is_empty() && state.view() == View::Queries && !state.is_over);
    assert!(screen(&state, now, (100, 12)).contains("filter: q3UPDATE_"));
    press(&mut state, "\u{1b}/update\n");
    assert_eq!((column(&state, View::Queries, "CALLS"), state.selected()), (vec!["2".to_owned()], 0));
    press(&mut state, "\u{1b}3");
    assert_eq!(column(&state, View::Replicas, "LAG"), ["–", "2.5 s", "–"]);
    assert_eq!(column(&state, View::Replicas, "ROLE"), ["primary", "standby", "down"]);
    // What is not known is last, whichever way.
    press(&mut state, ">>");
    assert_eq!(column(&state, View::Replicas, "LAG"), ["2.5 s", "–", "–"]);
    press(&mut state, "r");
    assert_eq!(column(&state, View::Replicas, "LAG"), ["2.5 s", "–", "–"]);
    press(&mut state, "?");
    assert!(screen(&state, now, (100, 20)).contains("sort the other way round"));
    press(&mut state, "xq");
    assert!(!state.is_help && state.is_over);
    let (mut state, _) = self::state();
    state.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(state.is_over);
}

#[test]
fn errors_and_pauses_mark_what_is_old() {
    let (mut state, now) = state();
    let later = now + Duration::from_secs(42);
    state.hear(Err("cannot reach it".to_owned()));
    let shown = screen(&state, later, (120, 14));
    assert!(
        shown.contains("OLD, values are 42 s old: cannot reach it; trying again") && shown.contains("shop"),
        "{shown}"
    );
    state.hear(Ok(answers(later, 4000)));
    assert!(!screen(&state, later, (120, 14)).contains("OLD, "));
    press(&mut state, "p");
    assert!(screen(&state, later, (120, 14)).contains("PAUSED, values are 0 s old"));
    let mut fresh = State::new("x".to_owned());
    fresh.hear(Err("status 401".to_owned()));
    assert!(screen(&fresh, now, (60, 10)).contains("status 401; trying again"));
}

#[test]
fn narrow_terminals_drop_columns_and_tiny_ones_do_no_harm() {
    let (mut state, now) = state();
    let narrow = screen(&state, now, (60, 12));
    assert!(narrow.contains("DATABASE") && narrow.contains("WAITING") && !narrow.contains("HOST"), "{narrow}");
    for view in super::table::VIEWS {
        assert_eq!(fitting(view.columns(), 500).len(), view.columns().len());
        assert!(!fitting(view.columns(), 1).is_empty());
    }
    press(&mut state, "2");
    for size in [(1, 1), (3, 2), (20, 4), (300, 80)] {
        screen(&state, now, size);
    }
}

#[test]
fn nothing_that_a_terminal_obeys_is_shown() {
    let (state, _) = state();
    assert_eq!(clean("a\u{1b}[2J\n\tb\u{9b}"), "a [2J b");
    let text = page::plain(&state);
    assert!(!text.contains('\u{1b}') && text.contains("UPDATE [31mitems") && text.contains("\nreplicas\n"), "{text}");
    assert!(text.contains("SELECT 1"), "{text}");
}

#[test]
fn values_are_written_for_people() {
    let all = [0.0, 0.000_002, 0.012, 0.25, 3.0, 120.4].map(seconds);
    assert_eq!(all, ["0", "2.0 µs", "12.0 ms", "250 ms", "3.0 s", "120 s"]);
    assert_eq!(Cell::Number(Some(0.8)).shown(super::table::Kind::Share), "80 %");
}

#[test]
fn urls_that_cannot_be_a_stats_port_are_refused() {
    for url in ["there", "ftp://there", "http://", "http://a:b@there", "http://there/metrics"] {
        assert!(Target::new(url, None, None).is_err(), "{url}");
    }
    assert_eq!(Target::new("https://[::1]:9127/", None, None).map(|it| it.name()), Ok("https://[::1]:9127".to_owned()));
}
