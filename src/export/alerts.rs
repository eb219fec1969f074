//! Metrics of alerts, the score, and what became of messages.
//! Never shows an alert as firing that does not fire.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::health::{AlertState, Watch};

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 4] = [
    ("pgweir_alert_firing", "1 while the alert fires; 0 while it is pending, or over since a short time."),
    ("pgweir_health_score", "How well it goes, 0 to 100: SHOW HEALTH says what is missing."),
    ("pgweir_alert_looks_total", "Times it was looked what is alarming."),
    ("pgweir_alert_notifications_total", "Messages with alerts by way, receiver and outcome; failed counts attempts."),
];

/// The families of [`FAMILIES`].
pub(super) fn collect(watch: &Watch) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let firing = |it: &crate::health::Alert| {
        let mut labels = vec![label("alert", it.kind.name()), label("severity", it.kind.severity().as_str())];
        labels.extend(it.labels.iter().map(|(name, value)| label(name, value)));
        number(GAUGE, labels, f64::from(u8::from(it.state == AlertState::Firing)))
    };
    let firing: Vec<Metric> = watch.alerts().iter().map(firing).collect();
    let score = vec![number(GAUGE, Vec::new(), f64::from(watch.health().score))];
    let mut sent = Vec::new();
    for ((kind, name), outcome) in watch.outcomes().iter() {
        for (word, count) in [("sent", &outcome.sent), ("failed", &outcome.failed), ("dropped", &outcome.dropped)] {
            let labels = vec![label("kind", kind), label("receiver", name), label("outcome", word)];
            sent.push(number(COUNTER, labels, count.get() as f64));
        }
    }
    let looks = vec![number(COUNTER, Vec::new(), watch.looks.get() as f64)];
    let kinds = [GAUGE, GAUGE, COUNTER, COUNTER];
    let families = FAMILIES.iter().zip(kinds).zip([firing, score, looks, sent]);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}
