//! Spans of statements, as a collector gets them, and where metrics name them.
//! It must never wait for what does not come: that nothing came is seen when something sent later has.

use std::thread;

use integration::wire::Script;
use integration::{Certificates, Cluster, Link, Pgweir};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{Collector, Protocol, attribute, hex};
use crate::common::client::{outcome, tags};
use crate::common::{Client, Conf, crowd, eventually, know, metric};
use crate::{ask, client, cluster, conf};

/// The comment that makes a statement a child of span `number`.
fn child_of(number: u32, flags: &str) -> String {
    format!("/*traceparent='00-0af7651916cd43dd8448eb211c80319c-{number:016x}-{flags}',tracestate='a%3D1'*/")
}

/// The span of the statement that is a child of span `number`, and its parts.
fn family(spans: &[Span], number: u32) -> Option<(&Span, Vec<&Span>)> {
    let parent = u64::from(number).to_be_bytes();
    let root = spans.iter().find(|span| span.parent_span_id == parent)?;
    Some((root, parts(spans, root)))
}

fn parts<'a>(spans: &'a [Span], root: &Span) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.parent_span_id == root.span_id && span.trace_id == root.trace_id).collect()
}

/// Waits for the children of these spans; checks that their parts lie within.
#[track_caller]
fn families(collector: &Collector, numbers: &[u32]) -> Vec<Span> {
    let spans = collector.spans(|spans| numbers.iter().all(|number| family(spans, *number).is_some()));
    for number in numbers {
        let (root, parts) = family(&spans, *number).unwrap();
        assert_eq!(hex(&root.trace_id), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((root.kind(), root.trace_state.as_str()), (SpanKind::Server, "a=1"));
        for part in parts {
            assert!(part.start_time_unix_nano >= root.start_time_unix_nano, "{part:#?} {root:#?}");
            assert!(part.start_time_unix_nano <= part.end_time_unix_nano, "{part:#?}");
            assert!(part.end_time_unix_nano <= root.end_time_unix_nano, "{part:#?} {root:#?}");
        }
    }
    spans
}

#[track_caller]
fn assert_has(span: &Span, expected: &[(&str, &str)]) {
    for (key, text) in expected {
        assert_eq!(attribute(span, key).as_deref(), Some(*text), "{key} of {span:#?}");
    }
}

/// The part that a server has.
fn run<'a>(parts: &[&'a Span]) -> &'a Span {
    parts.iter().find(|part| part.kind() == SpanKind::Client).unwrap_or_else(|| panic!("nobody ran it: {parts:#?}"))
}

#[test]
fn statements_are_children_of_what_their_comments_name() {
    let files = Certificates::new().unwrap();
    for (protocol, tls) in
        [(Protocol::Http, false), (Protocol::Http, true), (Protocol::Grpc, false), (Protocol::Grpc, true)]
    {
        let collector = Collector::start(protocol, tls.then_some(&files));
        let ca = if tls { format!("ca_file = \"{}\"\n", files.ca.display()) } else { String::new() };
        let lines =
            collector.lines(&format!("{ca}ratio = 0\nheaders = {{ x-key = \"k 1\" }}\nservice_name = \"edge\""));
        let pgweir = conf().rest(&lines).start();
        let mut client = Client::connect_with(pgweir.port(), &[("application_name", "shop")]);
        client.query("SELECT 'secret' AS untraced").unwrap();
        client.query(&format!("SELECT 'secret' AS unsampled {}", child_of(1, "00"))).unwrap();
        let sql = format!("SELECT relname FROM pg_class WHERE relname <> 'secret' LIMIT 3 {}", child_of(2, "01"));
        assert_eq!(client.query(&sql).unwrap().len(), 3);
        client.query(&format!("SELECT 'secret'::int {}", child_of(3, "01"))).unwrap_err();
        // The comment is the one that was prepared, however often it runs.
        let text = format!("SELECT $1::int {}", child_of(4, "01"));
        assert_eq!(tags(&client.run(&Script::new().parse("s", &text).sync())), "1Z");
        let one = |value| Script::new().bind("", "s", &[Some(value)]).execute("", 0).sync();
        assert_eq!(tags(&client.run(&one("1"))), "2DCZ");
        assert!(outcome(&client.run(&one("secret"))).unwrap_err().starts_with("22P02"));
        let broken = format!("SELECT nothing FROM nowhere {}", child_of(5, "01"));
        assert!(outcome(&client.run(&Script::new().parse("", &broken).sync())).is_err());
        let first = collector.export();
        assert_eq!(first.headers.get("x-key").unwrap(), "k 1", "{protocol:?}");
        let resource = first.message.resource_spans[0].resource.clone().unwrap();
        let about = Span { attributes: resource.attributes, ..Span::default() };
        assert_has(&about, &[("service.name", "edge"), ("service.version", "0.1.0")]);
        let mut spans: Vec<Span> = first
            .message
            .resource_spans
            .into_iter()
            .flat_map(|all| all.scope_spans)
            .flat_map(|all| all.spans)
            .collect();
        if [2, 3, 4, 5].iter().any(|number| family(&spans, *number).is_none()) {
            let missing: Vec<u32> = [2, 3, 4, 5].into_iter().filter(|it| family(&spans, *it).is_none()).collect();
            spans.extend(families(&collector, &missing));
        }
        let (root, parts) = family(&spans, 2).unwrap();
        assert_eq!((root.name.as_str(), root.status.is_none()), ("SELECT pg_class", true));
        let called = [
            ("db.system.name", "postgresql"),
            ("db.namespace", "app"),
            ("db.query.text", "select relname from pg_class where relname <> ? limit ?"),
            ("db.query.summary", "SELECT pg_class"),
            ("db.operation.name", "SELECT"),
            ("db.response.returned_rows", "3"),
        ];
        assert_has(root, &called);
        assert_has(run(&parts), &called);
        let port = pgweir.port().to_string();
        assert_has(root, &[("server.address", "127.0.0.1"), ("server.port", &port), ("client.address", "127.0.0.1")]);
        assert_has(root, &[("pgweir.user", "app"), ("pgweir.application_name", "shop"), ("pgweir.target", "primary")]);
        let primary = cluster().primary();
        assert_has(
            run(&parts),
            &[("server.address", &primary.host().to_string()), ("server.port", &primary.port().to_string())],
        );
        let first_byte = run(&parts).events[0].time_unix_nano;
        assert!(first_byte >= run(&parts).start_time_unix_nano && first_byte <= run(&parts).end_time_unix_nano);
        for (number, code) in [(3, "22P02"), (5, "42P01")] {
            let (root, parts) = family(&spans, number).unwrap();
            for span in [root, run(&parts)] {
                assert_has(span, &[("db.response.status_code", code), ("error.type", code)]);
                assert_eq!(span.status.as_ref().unwrap().code, 2);
            }
        }
        let all = format!("{spans:?}");
        assert!(!all.contains("secret") && !all.contains("untraced"), "{all}");
        assert!(family(&spans, 1).is_none());
        assert!(pgweir.stop().unwrap().success());
        // What was prepared ran twice, and failed once.
        spans.extend(collector.so_far());
        let prepared = spans.iter().filter(|span| span.parent_span_id == 4_u64.to_be_bytes());
        assert_eq!(prepared.map(|span| span.status.is_some()).collect::<Vec<_>>(), [false, true], "{protocol:?}");
    }
}

#[test]
fn a_part_of_all_statements_is_traced_and_metrics_name_their_traces() {
    let collector = Collector::start(Protocol::Http, None);
    let pgweir = conf().rest(&collector.lines("ratio = 1")).start();
    let mut client = client(&pgweir);
    client.query("SELECT count(*) AS exemplary FROM pg_class").unwrap();
    // Whoever is not traced by his parent is not traced here.
    client.query(&format!("SELECT 1 AS unsampled {}", child_of(1, "00"))).unwrap();
    client.query("SELECT 2 AS last").unwrap();
    let text = |span: &Span| attribute(span, "db.query.text").unwrap_or_default();
    let spans = collector.spans(|spans| spans.iter().any(|span| text(span).contains("last")));
    assert!(!spans.iter().any(|span| text(span).contains("unsampled")));
    let is_root = |span: &&Span| span.parent_span_id.is_empty() && text(span).contains("exemplary");
    let [root] = spans.iter().filter(is_root).collect::<Vec<_>>()[..] else { panic!("{spans:#?}") };
    let run = run(&parts(&spans, root));
    let shape = attribute(root, "pgweir.shape").unwrap();
    let lines = ["Host: localhost", "Accept: application/openmetrics-text;version=1.0.0"];
    let metrics = ask(&pgweir, "GET /metrics", &lines).body;
    let series = format!("shape=\"{shape}\",target=\"primary\",phase=\"server\",le=");
    let marked: Vec<&str> = metrics
        .lines()
        .filter(|line| line.contains(&series))
        .filter_map(|line| Some(line.split_once(" # ")?.1))
        .collect();
    let [marked] = marked[..] else { panic!("{metrics}") };
    let labels = format!("{{trace_id=\"{}\",span_id=\"{}\"}} ", hex(&root.trace_id), hex(&root.span_id));
    let (value, at) =
        marked.strip_prefix(labels.as_str()).unwrap_or_else(|| panic!("{marked}")).split_once(' ').unwrap();
    let took_us = (run.end_time_unix_nano - run.start_time_unix_nano) / 1000;
    assert_eq!(value, format!("{}.{:06}", took_us / 1_000_000, took_us % 1_000_000));
    let over = root.end_time_unix_nano as f64 / 1e9;
    assert!((at.parse::<f64>().unwrap() - over).abs() < 1.0, "{at} {over}");
    // Neither the other format nor a shape that was not traced has any.
    assert!(!ask(&pgweir, "GET /metrics", &["Host: localhost"]).body.contains("trace_id"));
    assert_eq!(metric(&pgweir, "pgweir_trace_spans_dropped_total", &[]), 0.0);
    assert!(metric(&pgweir, "pgweir_trace_spans_exported_total", &[]) >= 2.0);
}

/// How many clients wait for a server.
fn waiting(pgweir: &Pgweir) -> f64 {
    metric(pgweir, "pgweir_pool_clients", &[("state", "waiting")])
}

#[test]
fn who_waits_has_a_span_for_that() {
    let collector = Collector::start(Protocol::Grpc, None);
    let pgweir = conf().size(1).pool("query_wait_timeout = \"2s\"").rest(&collector.lines("ratio = 0")).start();
    let mut holder = client(&pgweir);
    let hold = |holder: &mut Client| holder.query("BEGIN; CREATE TABLE held (n int)").unwrap();
    hold(&mut holder);
    let mut waiter = client(&pgweir);
    let served = thread::spawn(move || {
        waiter.query(&format!("SELECT 1 {}", child_of(1, "01"))).unwrap();
        waiter
    });
    eventually("it waits", || waiting(&pgweir) == 1.0);
    holder.query("ROLLBACK").unwrap();
    let mut waiter = served.join().unwrap();
    hold(&mut holder);
    assert!(waiter.query(&format!("SELECT 2 {}", child_of(2, "01"))).unwrap_err().starts_with("53300"));
    let spans = families(&collector, &[1, 2]);
    let (_, parts) = family(&spans, 1).unwrap();
    let wait = parts.iter().find(|part| part.name == "pool wait").unwrap();
    assert_eq!(wait.kind(), SpanKind::Internal);
    assert!(wait.end_time_unix_nano > wait.start_time_unix_nano);
    assert!(wait.end_time_unix_nano <= run(&parts).start_time_unix_nano);
    let (root, parts) = family(&spans, 2).unwrap();
    assert_has(root, &[("db.response.status_code", "53300"), ("db.query.text", "select ?")]);
    assert_eq!(parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["pool wait"]);
    assert!(parts[0].end_time_unix_nano - parts[0].start_time_unix_nano >= 1_900_000_000);
}

#[test]
fn answers_from_the_cache_say_so() {
    let table = "CREATE TABLE kept AS SELECT 1 AS id; GRANT SELECT ON kept TO app";
    let cluster = Cluster::builder().sql(table).start().unwrap();
    let collector = Collector::start(Protocol::Http, None);
    let cache = "[cache]\nmode = \"on\"\nttl = \"1h\"\nverify = 0\n";
    let conf = Conf::trust(&cluster).top("workers = 1").rest(cache).rest(&collector.lines("ratio = 0"));
    let pgweir = conf.start();
    know(&pgweir);
    let mut client = client(&pgweir);
    let sql = |number| format!("SELECT id FROM kept WHERE id = 1 {}", child_of(number, "01"));
    client.query(&sql(1)).unwrap();
    client.query(&sql(2)).unwrap();
    let named = Script::new().parse("", &sql(3)).bind("", "", &[]).execute("", 0).sync();
    (0..2).for_each(|_| assert_eq!(tags(&client.run(&named)), "12DCZ"));
    client.query(&format!("CREATE TEMPORARY TABLE t (a int) {}", child_of(4, "01"))).unwrap();
    let spans = families(&collector, &[1, 2, 3, 4]);
    let (root, parts) = family(&spans, 1).unwrap();
    assert_has(root, &[("pgweir.cache", "miss:absent"), ("pgweir.target", "primary")]);
    let lookup = |parts: &[&Span]| parts.iter().find(|part| part.name == "cache lookup").map(|part| (*part).clone());
    assert_has(&lookup(&parts).unwrap(), &[("pgweir.cache.hit", "false")]);
    assert_eq!(run(&parts).name, "SELECT kept");
    let (root, parts) = family(&spans, 2).unwrap();
    assert_has(root, &[("pgweir.cache", "hit"), ("pgweir.target", "l1"), ("db.response.returned_rows", "1")]);
    assert_has(&lookup(&parts).unwrap(), &[("pgweir.cache.hit", "true")]);
    assert_eq!(parts.len(), 1);
    // What is never looked up has no such span, but says why.
    let (root, parts) = family(&spans, 4).unwrap();
    assert!(attribute(root, "pgweir.cache").unwrap().starts_with("bypass:"), "{root:#?}");
    assert!(lookup(&parts).is_none());
}

#[test]
fn who_rides_in_a_lane_is_traced_as_anybody() {
    let table = "CREATE TABLE item AS SELECT n AS id FROM generate_series(1, 100) n; GRANT SELECT ON item TO app";
    let cluster = Cluster::builder().sql(table).start().unwrap();
    let collector = Collector::start(Protocol::Http, None);
    let lanes = "lanes = true\nlane_fast = \"20ms\"";
    let conf = Conf::trust(&cluster).top("workers = 1").pool(lanes).size(2).rest(&collector.lines("ratio = 0"));
    let pgweir = conf.start();
    know(&pgweir);
    let port = pgweir.port();
    eventually("reads ride", || {
        crowd(8, move |_| {
            let mut client = Client::connect(port);
            for id in 1..=100 {
                client.query(&format!("SELECT id FROM item WHERE id = {id} {}", child_of(id, "00"))).unwrap();
            }
        });
        metric(&pgweir, "pgweir_pool_lane_rides_total", &[]) > 100.0
    });
    crowd(8, move |number| {
        let mut client = Client::connect(port);
        let text = |turn: u32| child_of(1 + number as u32 * 100 + turn, "01");
        for turn in 0..50 {
            client.query(&format!("SELECT id FROM item WHERE id = 7 {}", text(turn))).unwrap();
        }
        for turn in 50..100 {
            let sql = format!("SELECT id FROM item WHERE id = $1 {}", text(turn));
            let script = Script::new().parse("", &sql).bind("", "", &[Some("7")]).execute("", 0).sync();
            assert_eq!(tags(&client.run(&script)), "12DCZ");
        }
    });
    let numbers: Vec<u32> = (1..=800).collect();
    let spans = families(&collector, &numbers);
    let mut rode = 0;
    for number in numbers {
        let (root, parts) = family(&spans, number).unwrap();
        assert_has(root, &[("db.query.text", "select id from item where id = ?"), ("db.response.returned_rows", "1")]);
        if attribute(root, "pgweir.lane").unwrap() == "true" {
            rode += 1;
            let abreast: u32 = attribute(run(&parts), "pgweir.lane.abreast").unwrap().parse().unwrap();
            assert!(abreast > 0);
        }
    }
    assert!(rode > 50, "only {rode} of 800 rode");
}

#[test]
fn without_a_collector_nothing_fails_and_nothing_is_sent_where_it_is_off() {
    let collector = Collector::start(Protocol::Http, None);
    let nobody = integration::port::Port::reserve().unwrap();
    let lines = collector.lines("ratio = 1");
    let away =
        format!("[traces]\nendpoint = \"http://127.0.0.1:{}\"\nratio = 1\ninterval = \"100ms\"\n", nobody.number());
    let pgweir = conf().rest(&away).start();
    let mut client = client(&pgweir);
    for n in 0..3000 {
        assert_eq!(client.value(&format!("SELECT {n}")), n.to_string());
    }
    eventually("attempts fail", || metric(&pgweir, "pgweir_trace_export_failures_total", &[]) > 0.0);
    eventually("some are dropped", || metric(&pgweir, "pgweir_trace_spans_dropped_total", &[]) > 0.0);
    let reload = |conf: &Conf| {
        pgweir.reload(&conf.text()).unwrap();
    };
    let reloads = || metric(&pgweir, "pgweir_config_reloads_total", &[("outcome", "ok")]);
    let before = reloads();
    reload(&conf());
    eventually("it is off", || reloads() > before);
    // Workers hear of it behind what they do: whoever connects now comes behind that.
    let mut later = Client::connect(pgweir.port());
    later.query("SELECT 1 AS settles").unwrap();
    later.query("SELECT 1 AS silent").unwrap();
    let before = reloads();
    reload(&conf().rest(&lines));
    eventually("it is on", || reloads() > before);
    let named = |spans: &[Span], name: &str| {
        spans.iter().any(|span| attribute(span, "db.query.text").unwrap_or_default().contains(name))
    };
    let mut client = Client::connect(pgweir.port());
    let mut spans = Vec::new();
    eventually("spans come again", || {
        client.query("SELECT 1 AS loud").unwrap();
        spans.extend(collector.so_far());
        named(&spans, "loud")
    });
    assert!(!named(&spans, "silent"), "{spans:#?}");
}

#[test]
fn who_loses_his_server_has_a_span_that_says_so() {
    let collector = Collector::start(Protocol::Http, None);
    let link = Link::to(cluster().primary().port()).unwrap();
    let database = Conf::database_only(&format!("primary = \"{}\"", link.address()));
    let conf = database.listen("auth_type = \"trust\"").user("app", "").rest(&collector.lines("ratio = 0"));
    let pgweir = conf.start();
    let mut client = client(&pgweir);
    let lost = thread::spawn(move || client.query(&format!("SELECT pg_sleep(77) {}", child_of(1, "01"))).unwrap_err());
    cluster()
        .primary()
        .wait_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(77)%'")
        .unwrap();
    link.reset();
    assert!(lost.join().unwrap().starts_with("08006"));
    let spans = families(&collector, &[1]);
    let (root, parts) = family(&spans, 1).unwrap();
    for span in [root, run(&parts)] {
        assert_has(span, &[("db.response.status_code", "08006"), ("db.query.text", "select pg_sleep(?)")]);
    }
}
