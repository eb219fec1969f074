//! The three tables of `pgweir top`: their columns, and rows from what the API says.
//! Must never pass a control character on to a terminal: names and statements are other people's.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value;

use super::ask::Answers;

/// How a value is written, and ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Count,
    /// Per second.
    Rate,
    Seconds,
    /// Of 1.
    Share,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    /// Where the value is: a JSON pointer (RFC 6901) into an item.
    at: &'static str,
    pub(super) kind: Kind,
    pub(super) width: u16,
    /// On a narrow terminal those of the highest rank go first; 0 stays.
    rank: u8,
}

const fn column(title: &'static str, at: &'static str, kind: Kind, width: u16, rank: u8) -> Column {
    Column { title, at, kind, width, rank }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Pools,
    Queries,
    Replicas,
}

pub(super) const VIEWS: [View; 3] = [View::Pools, View::Queries, View::Replicas];

const POOLS: &[Column] = &[
    column("DATABASE", "/database", Kind::Text, 14, 0),
    column("USER", "/user", Kind::Text, 12, 1),
    column("HOST", "/host", Kind::Text, 20, 3),
    column("POOL", "/pool", Kind::Text, 9, 8),
    column("ROLE", "/role", Kind::Text, 8, 4),
    column("ACTIVE", "/servers/active", Kind::Count, 7, 1),
    column("IDLE", "/servers/idle", Kind::Count, 6, 5),
    column("SIZE", "/size", Kind::Count, 6, 5),
    column("USE", "/use_share", Kind::Share, 6, 3),
    column("CLIENTS", "/clients/active", Kind::Count, 8, 4),
    column("WAITING", "/clients/waiting", Kind::Count, 8, 1),
    column("OLDEST", "/oldest_wait_seconds", Kind::Seconds, 8, 2),
    column("QUERIES/S", "/rate", Kind::Rate, 10, 2),
    column("QUERIES", "/queries_total", Kind::Count, 12, 6),
    column("ERRORS", "/errors_total", Kind::Count, 8, 7),
];

const QUERIES: &[Column] = &[
    column("CALLS/S", "/rate", Kind::Rate, 9, 3),
    column("CALLS", "/calls_total", Kind::Count, 10, 1),
    column("ERRORS", "/errors_total", Kind::Count, 7, 4),
    column("ROWS", "/rows_total", Kind::Count, 10, 8),
    column("TOTAL", "/time/sum_seconds", Kind::Seconds, 8, 2),
    column("P50", "/time/p50_seconds", Kind::Seconds, 8, 5),
    column("P95", "/time/p95_seconds", Kind::Seconds, 8, 6),
    column("P99", "/time/p99_seconds", Kind::Seconds, 8, 1),
    column("MAX", "/time/max_seconds", Kind::Seconds, 8, 7),
    column("WAIT", "/wait/sum_seconds", Kind::Seconds, 8, 6),
    column("DATABASE", "/database", Kind::Text, 12, 5),
    column("USER", "/user", Kind::Text, 10, 7),
    column("QUERY", "/query", Kind::Text, 20, 0),
];

const REPLICAS: &[Column] = &[
    column("DATABASE", "/database", Kind::Text, 14, 1),
    column("HOST", "/host", Kind::Text, 24, 0),
    column("ROLE", "/role", Kind::Text, 9, 0),
    column("LAG", "/lag_seconds", Kind::Seconds, 9, 0),
    column("LAG BYTES", "/lag_bytes", Kind::Count, 12, 3),
    column("LATENCY", "/latency_seconds", Kind::Seconds, 9, 2),
    column("BREAKER", "/breaker", Kind::Text, 10, 3),
    column("TIMELINE", "/timeline", Kind::Count, 8, 4),
];

impl View {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Pools => "pools",
            Self::Queries => "queries",
            Self::Replicas => "replicas",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Pools => POOLS,
            Self::Queries => QUERIES,
            Self::Replicas => REPLICAS,
        }
    }

    /// The column it is sorted by at first, and whether the most come last.
    pub(super) fn order(self) -> Order {
        let (title, ascending) = match self {
            Self::Pools => ("QUERIES/S", false),
            Self::Queries => ("TOTAL", false),
            Self::Replicas => ("HOST", true),
        };
        Order { column: self.columns().iter().position(|it| it.title == title).unwrap_or(0), ascending }
    }
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) column: usize,
    pub(super) ascending: bool,
}

/// What statements are asked for by: of the most, only some hundreds are told.
pub(super) fn by(order: Order) -> &'static str {
    match QUERIES.get(order.column).map(|column| column.title) {
        Some("CALLS" | "CALLS/S") => "calls",
        Some("ERRORS") => "errors",
        Some("P50" | "P95" | "P99" | "MAX") => "p99",
        _ => "total",
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Text(String),
    /// `None` is what is not known.
    Number(Option<f64>),
}

impl Cell {
    fn of(item: &Value, column: &Column) -> Self {
        let value = item.pointer(column.at);
        if column.kind != Kind::Text {
            return Self::Number(value.and_then(Value::as_f64));
        }
        let text = value.and_then(Value::as_str).unwrap_or("–");
        Self::Text(clean(text))
    }

    /// As people read it.
    pub(super) fn shown(&self, kind: Kind) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(None) => "–".to_owned(),
            Self::Number(Some(value)) => match kind {
                Kind::Text | Kind::Count => format!("{value:.0}"),
                Kind::Rate => format!("{value:.1}"),
                Kind::Share => format!("{:.0} %", value * 100.0),
                Kind::Seconds => seconds(*value),
            },
        }
    }

    fn order(&self, other: &Self, ascending: bool) -> Ordering {
        let turned = |order: Ordering| if ascending { order } else { order.reverse() };
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => turned(one.cmp(two)),
            (Self::Number(Some(one)), Self::Number(Some(two))) => turned(one.total_cmp(two)),
            // What is not known is last in any case.
            (Self::Number(one), Self::Number(two)) => two.is_some().cmp(&one.is_some()),
            _ => Ordering::Equal,
        }
    }

    /// Whether somebody should look at it.
    pub(super) fn is_alarming(&self, column: &Column) -> bool {
        match (self, column.title) {
            (Self::Number(Some(value)), "WAITING" | "ERRORS") => *value > 0.0,
            (Self::Number(Some(value)), "USE") => *value > 0.8,
            (Self::Text(role), "ROLE") => matches!(role.as_str(), "down" | "stale" | "astray" | "unlike"),
            _ => false,
        }
    }
}

/// Without what a terminal would obey, and on one line.
pub(super) fn clean(text: &str) -> String {
    let printable = |it: char| if it.is_control() { ' ' } else { it };
    let text: String = text.chars().map(printable).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A time in a unit that suits it.
pub(super) fn seconds(value: f64) -> String {
    let digits = |scaled: f64| if scaled >= 99.5 { format!("{scaled:.0}") } else { format!("{scaled:.1}") };
    match value {
        0.0 => "0".to_owned(),
        value if value < 1e-3 => format!("{} µs", digits(value * 1e6)),
        value if value < 1.0 => format!("{} ms", digits(value * 1e3)),
        value => format!("{} s", digits(value)),
    }
}

/// The columns that fit into a width, each followed by a space.
pub(super) fn fitting(columns: &[Column], width: u16) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let of = |at: usize| columns.get(at).map_or((0, 0), |it| (it.width + 1, it.rank));
    while kept.iter().map(|at| of(*at).0).sum::<u16>() > width + 1 {
        let Some(worst) = kept.iter().copied().filter(|at| of(*at).1 > 0).max_by_key(|at| of(*at).1) else { break };
        kept.retain(|at| *at != worst);
    }
    kept
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Items with `/rate`, how much of `total` there was per second since `before`.
fn rated(now: &[Value], before: &[Value], names: &[&str], total: &str, elapsed_s: f64) -> Vec<Value> {
    let key = |item: &Value| -> Vec<String> {
        names.iter().map(|name| item.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()).collect()
    };
    let count = |item: &Value| item.get(total).and_then(Value::as_f64);
    let known: HashMap<_, _> = before.iter().map(|item| (key(item), count(item))).collect();
    let rate = |item: &Value| {
        let grown = count(item)? - (*known.get(&key(item))?)?;
        // Less than before: another process counts there now.
        (elapsed_s > 0.0 && grown >= 0.0).then(|| grown / elapsed_s)
    };
    let one = |item: &Value| {
        let mut item = item.clone();
        let rate = rate(&item);
        if let Some(fields) = item.as_object_mut() {
            fields.insert("rate".to_owned(), rate.into());
        }
        item
    };
    now.iter().map(one).collect()
}

/// Hosts of all databases; of one that is not watched, what is known of its primary.
fn hosts(status: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for database in list(status, "databases") {
        let name = database.get("database").cloned().unwrap_or_default();
        let mut hosts = list(database, "hosts").to_vec();
        if hosts.is_empty() {
            let reachable = database.get("primary_reachable").and_then(Value::as_bool).unwrap_or_default();
            let role = if reachable { "primary" } else { "down" };
            hosts.push(serde_json::json!({ "host": database.get("primary"), "role": role }));
        }
        for host in &mut hosts {
            if let Some(fields) = host.as_object_mut() {
                fields.insert("database".to_owned(), name.clone());
            }
        }
        all.append(&mut hosts);
    }
    all
}

/// Transactions per second of all databases since `before`.
pub(super) fn tps(now: &Answers, before: Option<&Answers>) -> Option<f64> {
    let before = before?;
    let sum = |it: &Answers| -> f64 {
        let all = list(&it.databases, "databases").iter();
        all.filter_map(|it| it.get("transactions_total").and_then(Value::as_f64)).sum()
    };
    let (grown, elapsed_s) = (sum(now) - sum(before), (now.at - before.at).as_secs_f64());
    (grown >= 0.0 && elapsed_s > 0.0).then(|| grown / elapsed_s)
}

/// The rows of a table that have `filter` somewhere, in this order.
pub(super) fn rows(view: View, now: &Answers, before: Option<&Answers>, order: Order, filter: &str) -> Vec<Vec<Cell>> {
    let elapsed_s = before.map_or(0.0, |before| (now.at - before.at).as_secs_f64());
    let (pools, queries) =
        before.map_or((&[][..], &[][..]), |it| (list(&it.pools, "pools"), list(&it.queries, "queries")));
    let items = match view {
        View::Pools => {
            let names = ["database", "user", "host", "pool", "role"];
            rated(list(&now.pools, "pools"), pools, &names, "queries_total", elapsed_s)
        }
        View::Queries => {
            let names = ["shape", "database", "user"];
            rated(list(&now.queries, "queries"), queries, &names, "calls_total", elapsed_s)
        }
        View::Replicas => hosts(&now.status),
    };
    let columns = view.columns();
    let wanted = filter.to_lowercase();
    let fits = |row: &Vec<Cell>| {
        row.iter().any(|cell| matches!(cell, Cell::Text(text) if text.to_lowercase().contains(&wanted)))
    };
    let row = |item: &Value| columns.iter().map(|column| Cell::of(item, column)).collect::<Vec<_>>();
    let mut rows: Vec<_> = items.iter().map(row).filter(fits).collect();
    rows.sort_by(|one, two| match (one.get(order.column), two.get(order.column)) {
        (Some(one), Some(two)) => one.order(two, order.ascending),
        _ => Ordering::Equal,
    });
    rows
}
