//! Tests of what statements come to as spans.
//! Must never hang on the time of day.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::trace::context::Parent;
use crate::trace::request::{Lookup, Session, Statement};
use crate::wire::error::SqlState;

fn request() -> Request {
    let context = |span| Context { trace: [7; 16], span: [span; 8], sampled: true };
    Request {
        context: context(1),
        parent: Some(Parent { context: context(2), state: "a=1".into() }),
        times: (100, 900),
        statement: Statement { shape: 5, known: Some(("select a from t where b = ?".into(), StatementKind::Select)) },
        session: Session {
            database: "shop".into(),
            user: "app".into(),
            application_name: "web".into(),
            client: Some("[::ffff:10.0.0.9]:4000".parse().unwrap()),
            peer: Some("10.0.0.1:5000".parse().unwrap()),
            local: Some("[::1]:6432".parse().unwrap()),
        },
        target: Some("primary".into()),
        rows: 3,
        bytes: 90,
        error: None,
        cache: Some("miss:absent".into()),
        lookup: Some(Lookup { times: (100, 110), hit: false }),
        wait: Some((110, 300)),
        run: Some(Run { host: "db.example:5433".into(), times: (300, 900), first_us: 700, abreast: 0 }),
    }
}

fn spans(request: Request) -> Vec<Span> {
    let message = Maker::default().message(&[Box::new(request)], Resource::default());
    let [resource] = <[_; 1]>::try_from(message.resource_spans).unwrap();
    let [scope] = <[_; 1]>::try_from(resource.scope_spans).unwrap();
    scope.spans
}

fn value(span: &Span, key: &str) -> Option<String> {
    let all: Vec<_> = span.attributes.iter().filter(|pair| pair.key == key).collect();
    assert!(all.len() <= 1, "{key} is there twice");
    match all.first()?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_has(span: &Span, expected: &[(&str, &str)]) {
    for (key, text) in expected {
        assert_eq!(value(span, key).as_deref(), Some(*text), "{key} of {}", span.name);
    }
}

#[test]
fn a_statement_and_its_parts() {
    let all = spans(request());
    let names: Vec<_> = all.iter().map(|span| (span.name.as_str(), span.kind())).collect();
    let expected = [
        ("SELECT t", SpanKind::Server),
        ("cache lookup", SpanKind::Internal),
        ("pool wait", SpanKind::Internal),
        ("SELECT t", SpanKind::Client),
    ];
    assert_eq!(names, expected);
    let (root, parts) = all.split_first().unwrap();
    assert_eq!((root.parent_span_id.as_slice(), root.trace_state.as_str()), (&[2; 8][..], "a=1"));
    assert_eq!((root.flags, root.end_time_unix_nano - root.start_time_unix_nano), (0x301, 800_000));
    let mut ids: Vec<_> = all.iter().map(|span| span.span_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    for part in parts {
        assert_eq!((&part.trace_id, &part.parent_span_id, part.flags), (&root.trace_id, &root.span_id, 0x101));
        assert!(part.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(part.end_time_unix_nano <= root.end_time_unix_nano);
    }
    assert_eq!(parts[2].events[0].time_unix_nano - root.start_time_unix_nano, 600_000);
    assert_eq!(request().spans(), 4);
}

#[test]
fn attributes_are_those_of_the_conventions() {
    let all = spans(request());
    for span in [&all[0], &all[3]] {
        assert_has(
            span,
            &[
                ("db.system.name", "postgresql"),
                ("db.namespace", "shop"),
                ("db.query.text", "select a from t where b = ?"),
                ("db.query.summary", "SELECT t"),
                ("db.operation.name", "SELECT"),
                ("db.response.returned_rows", "3"),
                ("pgweir.shape", "0000000000000005"),
            ],
        );
        assert!(span.status.is_none() && value(span, "error.type").is_none());
    }
    assert_has(
        &all[0],
        &[
            ("server.address", "::1"),
            ("server.port", "6432"),
            ("client.address", "10.0.0.9"),
            ("client.port", "4000"),
            ("network.peer.address", "10.0.0.1"),
            ("pgweir.user", "app"),
            ("pgweir.application_name", "web"),
            ("pgweir.target", "primary"),
            ("pgweir.cache", "miss:absent"),
            ("pgweir.lane", "false"),
        ],
    );
    assert_has(&all[1], &[("pgweir.cache", "miss:absent"), ("pgweir.cache.hit", "false")]);
    assert_has(&all[3], &[("server.address", "db.example"), ("server.port", "5433")]);
}

#[test]
fn what_failed_says_so() {
    let all = spans(Request { error: Some(SqlState(*b"23505")), ..request() });
    for span in [&all[0], &all[3]] {
        assert_has(span, &[("db.response.status_code", "23505"), ("error.type", "23505")]);
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "SQLSTATE 23505"));
        assert_eq!(value(span, "db.response.returned_rows"), None);
    }
    assert!(all[1].status.is_none() && all[2].status.is_none());
}

#[test]
fn what_is_not_known_is_not_said() {
    let bare = Request {
        parent: None,
        statement: Statement { shape: 1, known: None },
        lookup: None,
        wait: Some((100, 200)),
        run: Some(Run { host: "/run/postgresql:5432".into(), times: (200, 900), first_us: 900, abreast: 3 }),
        ..request()
    };
    let all = spans(bare);
    assert_eq!(
        all.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(),
        ["postgresql", "lane wait", "postgresql"]
    );
    assert_eq!((all[0].parent_span_id.len(), all[0].flags), (0, 0x101));
    assert_eq!(value(&all[0], "db.query.text"), None);
    assert_has(&all[0], &[("pgweir.lane", "true")]);
    assert_has(
        &all[2],
        &[("server.address", "/run/postgresql"), ("server.port", "5432"), ("pgweir.lane.abreast", "3")],
    );
}

#[test]
fn servers_are_taken_apart() {
    for (name, expected) in [
        ("db", ("db", 5432)),
        ("db:5433", ("db", 5433)),
        ("[::1]:5433", ("::1", 5433)),
        ("/tmp", ("/tmp", 5432)),
        ("/tmp:1", ("/tmp", 1)),
    ] {
        assert_eq!(server(name), expected, "{name}");
    }
}
