//! Metrics per statement shape as text (format 0.0.4), the workers' numbers of the same shape and pool added up.
//! Never shows a text longer than [`TEXT_CHARS_MAX`], whatever a client sent.
//!
//! These families are written here and not by the `prometheus` crate: with 2,000 shapes they are 72,000 lines, whose
//! labels the crate allocates once per series and escapes once per line; that took 77 ms at
//! best against a bound of 20 ms. Here the labels of a shape are escaped once. For the same reason the `query` label (the text) is on the six
//! series per shape of counters and quantiles and not on the thirty of the histogram, which joins on `shape`:
//! `... * on (database, user, shape) group_left (query) (pgweir_query_calls_total * 0 + 1)`.

use std::fmt::Write;
use std::sync::Arc;

use super::family::BOUNDS_US;
use crate::meter::{Histogram, HistogramSnapshot, Registry, ShapeStats, ShapeSum};

/// Longest `query` label in characters.
const TEXT_CHARS_MAX: usize = 200;
/// About what a line has besides its labels.
const LINE_BYTES: usize = 80;
/// Quantiles shown at the internal resolution.
const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];

/// One shape of one pool, all workers.
struct Row {
    /// `database`, `user` and `shape`, without braces.
    labels: String,
    /// The `query` label with its comma.
    query: String,
    calls: u64,
    errors: u64,
    rows: u64,
    quantiles_us: [u64; QUANTILES.len()],
    wait: Classic,
    server: Classic,
}

/// The numbers of a classic histogram.
struct Classic {
    buckets: [u64; BOUNDS_US.len()],
    count: u64,
    sum_us: u64,
}

impl Classic {
    fn new(sum: &HistogramSnapshot) -> Self {
        Self { buckets: sum.cumulative(&BOUNDS_US), count: sum.count, sum_us: sum.sum_us }
    }
}

impl Row {
    /// Adds up the entries of one shape; `sum` is scratch space.
    fn new(entries: &[Arc<ShapeStats>], sum: &mut HistogramSnapshot) -> Option<Self> {
        let first = entries.first()?;
        let add = |value: fn(&ShapeStats) -> u64| entries.iter().map(|stats| value(stats)).sum();
        let mut merged = |part: fn(&ShapeStats) -> &Histogram| {
            sum.clear();
            entries.iter().for_each(|stats| part(stats).add_to(sum));
            (Classic::new(sum), QUANTILES.map(|q| sum.quantile(q)))
        };
        Some(Self {
            labels: labels(first),
            query: query(first),
            calls: add(|stats| stats.calls.get()),
            errors: add(|stats| stats.errors.get()),
            rows: add(|stats| stats.rows.get()),
            quantiles_us: merged(|stats| &stats.total).1,
            wait: merged(|stats| &stats.wait).0,
            server: merged(|stats| &stats.server).0,
        })
    }
}

fn push_head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn push_all(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
}

fn counters(text: &mut String, name: &str, help: &str, rows: &[Row], value: fn(&Row) -> u64) {
    push_head(text, name, "counter", help);
    for row in rows {
        push_all(text, &[name, "{", &row.labels, &row.query, "} "]);
        push_number(text, value(row));
        text.push('\n');
    }
}

fn latencies(text: &mut String, rows: &[Row]) {
    const NAME: &str = "pgweir_query_latency_seconds";
    let help = "Quantiles since start, off by at most 6 %, of the time of statements by shape: wait plus server.";
    push_head(text, NAME, "gauge", help);
    let more = QUANTILES.map(|q| format!(",phase=\"total\",quantile=\"{q}\"}} "));
    for row in rows {
        for (more, us) in more.iter().zip(row.quantiles_us) {
            push_all(text, &[NAME, "{", &row.labels, &row.query, more]);
            push_seconds(text, us);
            text.push('\n');
        }
    }
}

fn durations(text: &mut String, rows: &[Row]) {
    const NAME: &str = "pgweir_query_duration_seconds";
    let help = "Time of statements by shape, split into phases: wait for a server, server.";
    push_head(text, NAME, "histogram", help);
    let bounds = BOUNDS_US.map(|us| format!(",le=\"{}\"}} ", us as f64 / 1e6));
    for row in rows {
        for (phase, classic) in [("wait", &row.wait), ("server", &row.server)] {
            let labels = format!("{{{},phase=\"{phase}\"", row.labels);
            for (bound, count) in bounds.iter().zip(classic.buckets) {
                push_all(text, &[NAME, "_bucket", &labels, bound]);
                push_number(text, count);
                text.push('\n');
            }
            push_all(text, &[NAME, "_bucket", &labels, ",le=\"+Inf\"} "]);
            push_number(text, classic.count);
            push_all(text, &["\n", NAME, "_sum", &labels, "} "]);
            push_seconds(text, classic.sum_us);
            push_all(text, &["\n", NAME, "_count", &labels, "} "]);
            push_number(text, classic.count);
            text.push('\n');
        }
    }
}

/// `database`, `user` and `shape` as label text, without braces.
fn labels(stats: &ShapeStats) -> String {
    let mut labels = String::with_capacity(128);
    labels.push_str("database=\"");
    push_escaped(&mut labels, &stats.pool.database);
    labels.push_str("\",user=\"");
    push_escaped(&mut labels, &stats.pool.user);
    labels.push_str("\",shape=\"");
    match stats.shape {
        // Writing to a String cannot fail, here and below.
        Some(shape) => {
            let _ = write!(labels, "{shape:016x}");
        }
        None => labels.push_str("other"),
    }
    labels.push('"');
    labels
}

/// The `query` label as text, with the comma before it.
fn query(stats: &ShapeStats) -> String {
    let end = stats.text.char_indices().nth(TEXT_CHARS_MAX).map_or(stats.text.len(), |(at, _)| at);
    let mut query = String::with_capacity(end + 32);
    query.push_str(",query=\"");
    push_escaped(&mut query, stats.text.get(..end).unwrap_or_default());
    query.push('"');
    query
}

/// Escapes a label value: backslash, line feed and double quote, nothing else (text format 0.0.4).
fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

fn push_number(text: &mut String, value: u64) {
    if value < 10 {
        // Most buckets: a third of the time of a scrape went into formatting these.
        text.push(char::from(b'0' + value as u8));
    } else {
        let _ = write!(text, "{value}");
    }
}

/// µs as seconds, exactly.
fn push_seconds(text: &mut String, us: u64) {
    let _ = write!(text, "{}.{:06}", us / 1_000_000, us % 1_000_000);
}

/// Appends the families per shape, and returns the number of shapes in them. Entries without a call are left out.
pub(super) fn write(registry: &Registry, text: &mut String) -> usize {
    let shapes = ShapeSum::all(registry);
    let mut sum = HistogramSnapshot::default();
    let rows: Vec<Row> = shapes.iter().filter_map(|shape| Row::new(shape.entries(), &mut sum)).collect();
    if rows.is_empty() {
        return 0;
    }
    // One reservation: growing step by step would touch twice the pages.
    let labels: usize = rows.iter().map(|row| row.labels.len() * 36 + row.query.len() * 6).sum();
    text.reserve(labels + rows.len() * LINE_BYTES * 36 + 2048);
    let help = "Statements finished, also with an error, by shape.";
    counters(text, "pgweir_query_calls_total", help, &rows, |row| row.calls);
    let help = "Statements that ended in an error, by shape.";
    counters(text, "pgweir_query_errors_total", help, &rows, |row| row.errors);
    let help = "Rows returned or affected, by shape.";
    counters(text, "pgweir_query_rows_total", help, &rows, |row| row.rows);
    latencies(text, &rows);
    durations(text, &rows);
    rows.len()
}
