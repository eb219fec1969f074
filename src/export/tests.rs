//! Tests of the text that Prometheus gets, read back by a strict parser of the text format 0.0.4.
//! Never checks for substrings where a parsed value can be checked.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prometheus::core::Collector;

use super::{Exporter, Format};
use crate::meter::{ErrorClass, Place, PoolCounters, PoolTarget, Registry, Role, Sample, ShapeTable};
use crate::wire::error::SqlState;

type Labels = BTreeMap<String, String>;

/// Samples by name, and the type of each family.
#[derive(Default)]
struct Scrape {
    samples: HashMap<String, Vec<(Labels, f64)>>,
    types: HashMap<String, String>,
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// Labels from behind `{`, and what follows `}`.
fn parse_labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (name, tail) = rest.split_once("=\"").unwrap();
        assert!(is_name(name) && !name.contains(':'), "label name {name}");
        let mut value = String::new();
        let mut chars = tail.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('"' | '\\') => c,
                    c => panic!("bad escape {c}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        rest = &tail[end + 1..];
        match rest.as_bytes()[0] {
            b',' => rest = &rest[1..],
            b'}' => return (labels, &rest[1..]),
            c => panic!("unexpected {}", c as char),
        }
    }
}

/// Parses and checks: line syntax, HELP and TYPE once and before the samples, families not interleaved, no series
/// twice, counters and buckets named as the conventions want, quantiles in summaries only, histograms cumulative and consistent.
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'));
    let mut scrape = Scrape::default();
    let mut current = String::new();
    let mut series = HashSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').unwrap();
            let (name, rest) = rest.split_once(' ').unwrap();
            match word {
                "HELP" => current = name.to_owned(),
                "TYPE" => {
                    assert_eq!(name, current, "TYPE without HELP");
                    assert!(["counter", "gauge", "histogram", "summary"].contains(&rest));
                    assert_eq!(rest == "counter", name.ends_with("_total"), "{name} {rest}");
                    assert!(scrape.types.insert(name.into(), rest.into()).is_none(), "{name} twice");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        let (name, rest) = line.split_at(end);
        assert!(is_name(name));
        let suffix = name.strip_prefix(current.as_str()).unwrap();
        match scrape.types[&current].as_str() {
            "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
            "summary" => assert!(["", "_sum", "_count"].contains(&suffix), "{line}"),
            _ => assert_eq!(suffix, "", "{line}"),
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest),
            None => (Labels::new(), rest),
        };
        let is_quantile = scrape.types[&current] == "summary" && suffix.is_empty();
        assert_eq!(labels.contains_key("quantile"), is_quantile, "{line}");
        let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(series.insert(line[..line.len() - rest.len()].to_owned()), "twice: {line}");
        scrape.samples.entry(name.to_owned()).or_default().push((labels, value));
    }
    scrape.check_histograms();
    scrape
}

impl Scrape {
    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
            for (labels, count) in &self.samples[&format!("{name}_bucket")] {
                let mut labels = labels.clone();
                let bound: f64 = labels.remove("le").unwrap().parse().unwrap();
                buckets.entry(labels).or_default().push((bound, *count));
            }
            let counts = &self.samples[&format!("{name}_count")];
            assert_eq!(counts.len(), buckets.len());
            assert_eq!(self.samples[&format!("{name}_sum")].len(), buckets.len());
            for (labels, count) in counts {
                let buckets = &buckets[labels];
                assert!((12..=17).contains(&buckets.len()));
                assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
                assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, *count));
            }
        }
    }

    /// The only sample of that name with (at least) these labels.
    fn get(&self, name: &str, want: &[(&str, &str)]) -> f64 {
        let none = Vec::new();
        let all = self.samples.get(name).unwrap_or(&none);
        let has = |labels: &Labels| want.iter().all(|(k, v)| labels.get(*k).is_some_and(|x| x == v));
        let found: Vec<f64> = all.iter().filter(|(l, _)| has(l)).map(|(_, v)| *v).collect();
        assert_eq!(found.len(), 1, "{name} {want:?}");
        found[0]
    }
}

fn text(exporter: &Exporter, format: Format) -> String {
    String::from_utf8(exporter.encode(format).unwrap()).unwrap()
}

fn scrape(exporter: &Exporter) -> Scrape {
    parse(&text(exporter, Format::Text))
}

fn label(database: &str) -> Place {
    Place::test(database, "app")
}

fn counters(host: &str, role: Role) -> PoolCounters {
    let counters = PoolCounters::new(PoolTarget {
        database: "shop".into(),
        user: "app".into(),
        host: host.into(),
        pool: "default".into(),
    });
    counters.set_role(role);
    counters
}

/// Checks what is OpenMetrics' own, and turns the rest into the other format.
fn closed(text: &str) -> String {
    let mut plain = String::new();
    let mut lines = text.strip_suffix("# EOF\n").expect("no end").lines().peekable();
    let mut families = HashSet::new();
    while let Some(line) = lines.next() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").map(|rest| rest.split_once(' ').unwrap()) else {
            assert!(!line.starts_with('#'), "{line}");
            plain += &format!("{line}\n");
            continue;
        };
        let (suffix, shown) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        // No sample of one family may look like one of another.
        for suffix in ["", "_total", "_info", "_bucket", "_sum", "_count", "_created"] {
            assert!(suffix.is_empty() || !name.ends_with(suffix), "{name}");
            assert!(suffix.is_empty() || !families.contains(&format!("{name}{suffix}")), "{name}");
        }
        assert!(families.insert(name.to_owned()), "{name} twice");
        if let Some(unit) = lines.next_if(|line| line.starts_with("# UNIT ")) {
            let unit = unit.strip_prefix(&format!("# UNIT {name} ")).unwrap();
            assert!(name.ends_with(&format!("_{unit}")), "{name} {unit}");
        } else {
            assert!(!name.ends_with("_seconds") && !name.ends_with("_bytes"), "{name}");
        }
        let help = lines.next().unwrap().strip_prefix(&format!("# HELP {name} ")).unwrap();
        let help = help.replace("\\\"", "'");
        assert!(!help.contains('"'), "{help}");
        plain += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {shown}\n");
    }
    plain
}

#[test]
fn both_formats_have_the_same_series() {
    let registry = Arc::new(Registry::new());
    let primary = registry.add_pool(counters("h:1", Role::Primary));
    primary.total_query_time_us.add(1_500_000);
    let mut table = ShapeTable::new(10);
    registry.add_shapes(table.view());
    let pool = table.add_place(label("sh\"op"));
    let id = table.slot(pool, 7, || "select \"a\\b\"\n where x = ?".to_owned());
    table.record(id, &Sample { server_us: 5000, rows: 1, ..Sample::default() });
    let exporter = Exporter::new(registry);
    let plain = scrape(&exporter);
    let open = parse(&closed(&text(&exporter, Format::OpenMetrics)));
    let series = |scrape: &Scrape| -> BTreeMap<String, Vec<Labels>> {
        let of = |all: &Vec<(Labels, f64)>| all.iter().map(|(labels, _)| labels.clone()).collect();
        scrape.samples.iter().map(|(name, all)| (name.clone(), of(all))).collect()
    };
    assert_eq!(series(&plain), series(&open));
    assert_eq!(plain.types, open.types);
    // The parts of a histogram or summary are one in the third.
    let mut named: Vec<(String, Labels)> = Vec::new();
    for (name, all) in series(&plain) {
        let parts = ["_bucket", "_count"].iter().any(|part| name.ends_with(part));
        let name = name.strip_suffix("_sum").unwrap_or(&name).to_owned();
        let whole = all.into_iter().filter(|labels| !parts && !labels.contains_key("quantile"));
        named.extend(whole.map(|labels| (name.clone(), labels)));
    }
    let mut messages = super::protobuf::series(&exporter.encode(Format::Protobuf).unwrap());
    let sorted = |all: &mut Vec<(String, Labels)>| all.sort_by_key(|it| format!("{it:?}"));
    sorted(&mut named);
    sorted(&mut messages);
    assert_eq!(named, messages);
    assert_eq!(open.get("pgweir_pool_query_seconds_total", &[]), 1.5);
    let bucket = [("le", "1.0"), ("phase", "server")];
    assert_eq!(open.get("pgweir_query_duration_seconds_bucket", &bucket), 1.0);
}

#[test]
fn an_empty_registry_gives_a_valid_text() {
    let scrape = scrape(&Exporter::new(Arc::new(Registry::new())));
    assert_eq!(scrape.get("pgweir_build_info", &[]), 1.0);
    assert!(scrape.get("process_resident_memory_bytes", &[]) > 0.0);
    assert!(!scrape.types.contains_key("pgweir_query_calls_total"));
}

#[test]
fn workers_are_added_up_per_shape_and_pool() {
    let registry = Arc::new(Registry::new());
    let text = "select \"a\\b\"\n/* é */ where x = ?";
    for worker in 0..2u64 {
        let mut table = ShapeTable::new(10);
        registry.add_shapes(table.view());
        let pool = table.add_place(label("shop"));
        for i in 1..=100u64 {
            let id = table.slot(pool, 0xABC, || text.to_owned());
            let sample = Sample {
                wait_us: 200 * worker,
                server_us: i * 1000,
                rows: 3,
                error: (i == 7).then(|| ErrorClass::of(SqlState(*b"23505"))),
                ..Sample::default()
            };
            table.record(id, &sample);
        }
    }
    let exporter = Exporter::new(registry);
    let scrape = scrape(&exporter);
    let shape = [("shape", "0000000000000abc"), ("database", "shop"), ("user", "app"), ("query", text)];
    assert_eq!(scrape.get("pgweir_query_calls_total", &shape), 200.0);
    assert_eq!(scrape.get("pgweir_query_errors_total", &shape), 2.0);
    assert_eq!(scrape.get("pgweir_query_rows_total", &shape), 600.0);
    let class = [("class", "23"), ("target", "primary")];
    assert_eq!(scrape.get("pgweir_query_errors_by_class_total", &class), 2.0);
    let of = |more: &[(&'static str, &'static str)]| [&shape[..1], more].concat();
    let server = of(&[("phase", "server")]);
    assert_eq!(scrape.get("pgweir_query_duration_seconds_count", &server), 200.0);
    assert!((scrape.get("pgweir_query_duration_seconds_sum", &server) - 10.1).abs() < 1e-9);
    let half = of(&[("phase", "server"), ("le", "0.03")]);
    assert!((scrape.get("pgweir_query_duration_seconds_bucket", &half) - 60.0).abs() <= 4.0);
    let waited = of(&[("phase", "wait"), ("le", "0.0001")]);
    assert_eq!(scrape.get("pgweir_query_duration_seconds_bucket", &waited), 100.0);
    for (quantile, exact) in [("0.5", 0.0502), ("0.95", 0.0952), ("0.99", 0.0992)] {
        let got = scrape.get("pgweir_query_latency_seconds", &of(&[("quantile", quantile), ("phase", "total")]));
        assert!((got / exact - 1.0).abs() <= 0.06, "{quantile}: {got}");
    }
    let total = of(&[("phase", "total")]);
    for part in ["_count", "_sum"] {
        let of = |family: &str| scrape.get(&format!("pgweir_query_{family}_seconds{part}"), &total);
        assert_eq!(of("latency"), of("duration"));
    }
    let described = exporter.desc().len();
    let names: HashSet<_> = exporter.desc().iter().map(|desc| desc.fq_name.clone()).collect();
    assert_eq!(described, names.len());
    let by_collector = |name: &&String| !name.starts_with("pgweir_query_");
    for name in scrape.types.keys().filter(by_collector) {
        assert!(names.contains(name), "{name} is not described");
    }
}

#[test]
fn pools_of_workers_are_added_up_and_long_texts_cut() {
    let registry = Arc::new(Registry::new());
    for worker in 1..=2 {
        let primary = registry.add_pool(counters("h:1", Role::Primary));
        registry.add_pool(counters("h:2", Role::Replica)).servers_idle.set(9);
        primary.servers_idle.set(worker);
        primary.clients_waiting.inc();
        primary.maxwait_us.set(worker * 1_000_000);
        primary.total_xact_count.add(10);
        primary.total_query_time_us.add(1_500_000);
    }
    registry.note_reload(true);
    registry.note_reload(false);
    let mut table = ShapeTable::new(1);
    registry.add_shapes(table.view());
    let pool = table.add_place(label("shop"));
    for shape in 1..=2 {
        let id = table.slot(pool, shape, || "é".repeat(400));
        table.record(id, &Sample::default());
    }
    let exporter = Exporter::new(registry);
    exporter.encode(Format::Text).unwrap();
    let scrape = scrape(&exporter);
    let primary = [("host", "h:1"), ("role", "primary")];
    let with = |state| [&primary[..], &[("state", state)]].concat();
    assert_eq!(scrape.get("pgweir_pool_servers", &with("idle")), 3.0);
    assert_eq!(scrape.get("pgweir_pool_server_connections", &primary), 3.0);
    assert_eq!(scrape.get("pgweir_pool_clients", &with("waiting")), 2.0);
    assert_eq!(scrape.get("pgweir_pool_oldest_wait_seconds", &primary), 2.0);
    assert_eq!(scrape.get("pgweir_pool_transactions_total", &primary), 20.0);
    assert_eq!(scrape.get("pgweir_pool_query_seconds_total", &primary), 3.0);
    assert_eq!(scrape.get("pgweir_pool_server_connections", &[("role", "replica")]), 18.0);
    assert_eq!(scrape.get("pgweir_config_reloads_total", &[("outcome", "ok")]), 1.0);
    assert_eq!(scrape.get("pgweir_config_reloads_total", &[("outcome", "error")]), 1.0);
    assert_eq!(scrape.get("pgweir_query_calls_total", &[("shape", "other"), ("query", "")]), 1.0);
    let cut = "é".repeat(200);
    assert_eq!(scrape.get("pgweir_query_calls_total", &[("query", cut.as_str())]), 1.0);
    assert_eq!(scrape.get("pgweir_last_scrape_query_shapes", &[]), 2.0);
}

#[test]
fn scrapes_while_a_worker_writes_are_consistent() {
    let registry = Arc::new(Registry::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut table = ShapeTable::new(20);
            registry.add_shapes(table.view());
            let pool = table.add_place(label("shop"));
            let mut call = 0u64;
            while !done.load(Relaxed) {
                call = call.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let id = table.slot(pool, (call >> 33) % 30, String::new);
                let sample = Sample { server_us: call >> 44, ..Sample::default() };
                table.record(id, &sample);
            }
        });
        let exporter = Exporter::new(Arc::clone(&registry));
        for round in 0..30 {
            let scrape = scrape(&exporter);
            assert_eq!(scrape.get("pgweir_scrapes_total", &[]), f64::from(round));
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn what_takes_least_is_left_out_beyond_max_series() {
    let registry = Arc::new(Registry::new());
    let mut table = ShapeTable::new(10);
    registry.add_shapes(table.view());
    let pool = table.add_place(label("shop"));
    for shape in 1..=5u64 {
        let id = table.slot(pool, shape, || format!("select {shape}"));
        table.record(id, &Sample { server_us: 1_000 * shape, ..Sample::default() });
    }
    let shown = |scrape: &Scrape| {
        let named = |labels: &Labels, shape: u64| format!("{labels:?}").contains(&format!("{shape:016x}"));
        let all = &scrape.samples["pgweir_query_calls_total"];
        (1..=5).filter(|shape| all.iter().any(|(labels, _)| named(labels, *shape))).collect::<Vec<u64>>()
    };
    let all = scrape(&Exporter::new(Arc::clone(&registry)));
    assert_eq!((shown(&all), all.get("pgweir_series_left_out", &[])), (vec![1, 2, 3, 4, 5], 0.0));
    let of_shapes = all.samples.iter().filter(|(name, _)| name.starts_with("pgweir_query_"));
    let series = of_shapes.map(|(_, all)| all.len()).sum::<usize>() / 5;
    let some = scrape(&Exporter::new(registry).with_max_series(2 * series + 1));
    assert_eq!((shown(&some), some.get("pgweir_series_left_out", &[])), (vec![4, 5], 3.0 * series as f64));
}

/// Prints the cost of a scrape; the bound holds in release builds.
#[test]
fn a_scrape_of_two_thousand_shapes_is_fast() {
    let registry = Arc::new(Registry::new());
    for _ in 0..2 {
        let mut table = ShapeTable::new(2000);
        registry.add_shapes(table.view());
        let pool = table.add_place(label("shop"));
        for shape in 0..2000u64 {
            let text = || "select a.id, a.name from accounts a where a.id = ? and a.owner = ?".repeat(4);
            let id = table.slot(pool, shape.wrapping_mul(0x9E37_79B9_7F4A_7C15), text);
            for i in 0..50 {
                let sample =
                    Sample { wait_us: i * shape % 900, server_us: i * i * 37 + shape, rows: 1, ..Sample::default() };
                table.record(id, &sample);
            }
        }
    }
    let exporter = Exporter::new(registry);
    let start_us = cpu_us();
    let mut bytes = 0;
    for _ in 0..20 {
        let format = if bytes == 0 { Format::OpenMetrics } else { Format::Text };
        bytes = exporter.encode(format).unwrap().len();
    }
    let mean_us = (cpu_us() - start_us) / 20;
    println!("2,000 shapes of 2 workers: {bytes} bytes, {mean_us} us of CPU");
    #[cfg(not(debug_assertions))]
    assert!(mean_us < 20_000, "{mean_us}");
}

/// CPU time of this thread in µs, as other tests run on the same cores (proc(5), schedstat: ns on a CPU, by ticks of a few ms).
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1000
}
