//! Clients that keep a server to themselves: metrics per database and user, and the list at `/pins`.
//! Never shows a value of a statement's, only its normalised text.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use serde::Serialize;
use utoipa::ToSchema;

use super::family::{family, label, number};
use crate::meter::{Construct, Counter, Gauge, PinCounters, Pinned, Registry};

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 5] = [
    ("pgweir_pinned_clients", "Clients that keep a server connection to themselves, by what keeps them."),
    ("pgweir_oldest_pin_seconds", "For how long the longest of them has kept its connection."),
    ("pgweir_pins_total", "Times a client began to keep a server connection, by what keeps it."),
    ("pgweir_pin_refusals_total", "Statements refused because they would have kept a server connection, by limit."),
    ("pgweir_pin_idle_timeouts_total", "Clients disconnected by pin_idle_timeout."),
];

/// The numbers of one database and user, all workers.
#[derive(Default)]
struct Sum {
    oldest_us: u64,
    refused: [u64; 2],
    idle_timeouts: u64,
    clients: BTreeMap<Construct, u64>,
    begun: BTreeMap<Construct, u64>,
}

impl Sum {
    fn add(&mut self, pins: &PinCounters) {
        self.oldest_us = self.oldest_us.max(pins.oldest_us.get());
        self.idle_timeouts += pins.idle_timeouts.get();
        for (sum, counter) in self.refused.iter_mut().zip([&pins.refused_strict, &pins.refused_limit]) {
            *sum += counter.get();
        }
        for &why in Construct::ALL {
            *self.clients.entry(why).or_default() += pins.clients(why).map_or(0, Gauge::get);
            *self.begun.entry(why).or_default() += pins.begun(why).map_or(0, Counter::get);
        }
    }
}

/// All families of pinned clients. A reason that never kept anybody is left out.
pub(super) fn collect(registry: &Registry) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let all = registry.pins();
    let mut sums: BTreeMap<(&str, &str), Sum> = BTreeMap::new();
    for pins in all.iter() {
        sums.entry((&pins.label.database, &pins.label.user)).or_default().add(pins);
    }
    let mut metrics: [Vec<Metric>; FAMILIES.len()] = Default::default();
    let [clients, oldest, begun, refused, ended] = &mut metrics;
    for (&(database, user), sum) in &sums {
        let with = |more: Option<LabelPair>| -> Vec<LabelPair> {
            [label("database", database), label("user", user)].into_iter().chain(more).collect()
        };
        for (why, &times) in sum.begun.iter().filter(|(_, times)| **times > 0) {
            let reason = || with(Some(label("reason", why.name())));
            begun.push(number(COUNTER, reason(), times as f64));
            let now = sum.clients.get(why).copied().unwrap_or(0);
            clients.push(number(GAUGE, reason(), now as f64));
        }
        oldest.push(number(GAUGE, with(None), sum.oldest_us as f64 / 1e6));
        for (limit, times) in ["session_state", "max_pinned_servers"].iter().zip(sum.refused) {
            refused.push(number(COUNTER, with(Some(label("limit", limit))), times as f64));
        }
        ended.push(number(COUNTER, with(None), sum.idle_timeouts as f64));
    }
    let kinds = [GAUGE, GAUGE, COUNTER, COUNTER, COUNTER];
    let families = FAMILIES.iter().zip(kinds).zip(metrics);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}

/// A client that keeps a server to itself.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin<'a> {
    /// The process id that the client was told, SHOW CLIENTS' `id`.
    pid: u32,
    database: &'a str,
    user: &'a str,
    /// Null if it says none.
    application_name: Option<&'a str>,
    /// What keeps the server, as metrics call it.
    reason: &'static str,
    age_seconds: f64,
    /// The statement that began it, without values.
    statement: &'a str,
}

impl<'a> Pin<'a> {
    fn of(row: &'a Pinned, now_us: u64) -> Self {
        Self {
            pid: row.pid,
            database: &row.label.database,
            user: &row.label.user,
            application_name: row.application_name.as_deref(),
            reason: row.why.name(),
            age_seconds: now_us.saturating_sub(row.since_us) as f64 / 1e6,
            statement: &row.statement,
        }
    }
}

/// The clients that keep servers to themselves, the oldest first.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pins<'a> {
    pins: Vec<Pin<'a>>,
}

/// The pinned clients as JSON, the oldest pin first.
pub(super) fn list(registry: &Registry, now_us: u64) -> Response {
    let boards: Vec<_> = registry.pin_boards().iter().map(|board| board.rows()).collect();
    let mut rows: Vec<_> = boards.iter().flat_map(|rows| rows.iter()).collect();
    rows.sort_by_key(|row| row.since_us);
    Json(Pins { pins: rows.into_iter().map(|row| Pin::of(row, now_us)).collect() }).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::PoolLabel;

    #[test]
    fn workers_are_added_up() {
        let registry = Registry::new();
        let label = PoolLabel { database: "d".into(), user: "u".into() };
        for seconds in [1, 3] {
            let pins = registry.add_pins(label.clone());
            pins.begun(Construct::Listen).unwrap().add(seconds);
            pins.clients(Construct::Listen).unwrap().set(1);
            pins.oldest_us.set(seconds * 1_000_000);
            pins.held.set(2);
        }
        assert_eq!(registry.held_by(&label), 4);
        let families = collect(&registry);
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            metric.get_gauge().get_value() + metric.get_counter().get_value()
        };
        assert_eq!(families.iter().find(|f| f.name() == "pgweir_pinned_clients").unwrap().get_metric().len(), 1);
        assert_eq!((value("pgweir_pinned_clients"), value("pgweir_pins_total")), (2.0, 4.0));
        assert_eq!(value("pgweir_oldest_pin_seconds"), 3.0);
    }
}
