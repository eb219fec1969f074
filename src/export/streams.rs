//! Metrics of the streams of changes that answers in the cache hang on, per database.
//! Never shows a database whose answers hang on none.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::base::clock;
use crate::meter::Registry;

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 4] = [
    ("pgweir_cache_stream_up", "1 while the changes of the database are followed."),
    (
        "pgweir_cache_staleness_seconds",
        "How old the newest change of the database may be that pgweir does not know of; beyond max_staleness the cache steps aside. It grows while nobody asks.",
    ),
    (
        "pgweir_cache_marks_total",
        "Changes that the stream has told of, by kind; of the schema also those that were found by looking.",
    ),
    ("pgweir_cache_stream_begins_total", "Times a stream began, and all answers that hang on changes became void."),
];

/// All families of streams; empty ones if there is none.
pub(super) fn collect(registry: &Registry) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let now_us = clock::now_us();
    let mut metrics: [Vec<Metric>; FAMILIES.len()] = Default::default();
    let [up, staleness, marks, begins] = &mut metrics;
    for health in registry.databases().iter().filter(|health| health.stream.wanted.load(Relaxed)) {
        let stream = &health.stream;
        let with = |more: Option<LabelPair>| -> Vec<LabelPair> {
            [label("database", &health.database)].into_iter().chain(more).collect()
        };
        up.push(number(GAUGE, with(None), f64::from(u8::from(stream.flows.load(Relaxed)))));
        staleness.extend(stream.age_us(now_us).map(|age_us| number(GAUGE, with(None), age_us as f64 / 1e6)));
        for (kind, count) in [("row", &stream.rows), ("truncate", &stream.truncates), ("schema", &stream.schema)] {
            marks.push(number(COUNTER, with(Some(label("kind", kind))), count.get() as f64));
        }
        begins.push(number(COUNTER, with(None), stream.begins.get() as f64));
    }
    let kinds = FAMILIES.map(|(name, _)| if name.ends_with("_total") { COUNTER } else { GAUGE });
    let families = FAMILIES.iter().zip(kinds).zip(metrics);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}
