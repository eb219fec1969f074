//! Small constructors for the metric families of the `prometheus` crate.
//! Never decides what is exported.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Upper bounds of the classic histogram buckets in µs: 100 µs to 30 s, two a decade, as users of such proxies ask for.
/// Each costs a line per shape and phase.
pub(super) const BOUNDS_US: [u64; 12] =
    [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000];

/// A label.
pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// A family; one without metrics is left out by [`keep`], as the text encoder refuses it.
pub(super) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// A gauge or counter, by the kind of its family.
pub(super) fn number(kind: MetricType, labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut metric = Metric::from_label(labels);
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// A family with one metric.
pub(super) fn single(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    family(name, help, kind, vec![number(kind, Vec::new(), value)])
}

/// Drops families without metrics.
pub(super) fn keep(families: Vec<MetricFamily>) -> Vec<MetricFamily> {
    let mut families = families;
    families.retain(|family| !family.get_metric().is_empty());
    families
}
