//! Metrics per host of a database with several: what it is, how far behind, how it does.
//! Never asks a host anything: what is shown is what was last heard.

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::family::{family, label, number};
use crate::base::clock;
use crate::pool::breaker::State;
use crate::pool::cluster::{Cluster, Clusters, Standing};

/// Name and help of the families made here.
pub(super) const FAMILIES: [(&str, &str); 8] = [
    ("pgweir_host_up", "1 if the host answered when it was asked last."),
    (
        "pgweir_host_role",
        "1 for what the host is. stale: it says that it takes writes and is not believed. Standbys that serve no reads: astray may follow another \
         timeline, unlike has other settings than the primary.",
    ),
    ("pgweir_host_timeline", "Timeline that the host said it is on."),
    (
        "pgweir_host_replay_lag_bytes",
        "Bytes of the write-ahead log that the primary has written and the host has not replayed.",
    ),
    ("pgweir_host_replay_lag_seconds", "Time since the primary was first seen where the host has not replayed to yet."),
    ("pgweir_host_latency_ewma_seconds", "Time of a statement on the host, a moving average over 10 s."),
    ("pgweir_host_breaker", "1 for the state of the host's circuit breaker."),
    ("pgweir_host_breaker_opens_total", "Times the host's circuit breaker opened."),
];

const ROLES: [&str; 7] = ["primary", "standby", "astray", "unlike", "stale", "down", "unknown"];

/// What a host is, as far as it is believed. Standbys that serve no reads have names of their own.
pub(crate) fn role(cluster: &Cluster, number: usize, standing: Standing) -> &'static str {
    match standing {
        Standing::Primary if cluster.primary() == Some(number) => "primary",
        Standing::Primary => "stale",
        Standing::Standby => match cluster.members.get(number) {
            Some(member) if member.strays() => "astray",
            Some(member) if member.is_unlike() => "unlike",
            _ => "standby",
        },
        Standing::Down => "down",
        Standing::Unknown => "unknown",
    }
}

/// All families of hosts; empty ones if there is no database with several.
pub(super) fn collect(clusters: &Clusters) -> Vec<MetricFamily> {
    use MetricType::{COUNTER, GAUGE};
    let now_us = clock::now_us();
    let mut metrics: [Vec<Metric>; FAMILIES.len()] = Default::default();
    let [up, roles, timeline, bytes, seconds, latency, breakers, opens] = &mut metrics;
    for (database, cluster) in clusters.shown() {
        for (at, member) in cluster.members.iter().enumerate() {
            let host = member.endpoint.to_string();
            let with = |more: Option<LabelPair>| -> Vec<LabelPair> {
                [label("database", &database), label("host", &host)].into_iter().chain(more).collect()
            };
            let flag = |is: bool| f64::from(u8::from(is));
            let standing = member.standing();
            let is = role(&cluster, at, standing);
            let answers = matches!(standing, Standing::Standby | Standing::Primary);
            up.push(number(GAUGE, with(None), flag(answers)));
            roles.extend(ROLES.map(|role| number(GAUGE, with(Some(label("role", role))), flag(role == is))));
            for state in [State::Closed, State::HalfOpen, State::Open] {
                let labels = with(Some(label("state", state.as_str())));
                breakers.push(number(GAUGE, labels, flag(member.breaker.state() == state)));
            }
            opens.push(number(COUNTER, with(None), member.breaker.opens() as f64));
            if answers && member.timeline() > 0 {
                timeline.push(number(GAUGE, with(None), f64::from(member.timeline())));
            }
            if standing == Standing::Standby {
                bytes.push(number(GAUGE, with(None), cluster.lag_bytes(at) as f64));
                seconds.push(number(GAUGE, with(None), member.lag_us(now_us) as f64 / 1e6));
            }
            if member.latency_us() > 0 {
                latency.push(number(GAUGE, with(None), member.latency_us() as f64 / 1e6));
            }
        }
    }
    let kinds = FAMILIES.map(|(name, _)| if name.ends_with("_total") { COUNTER } else { GAUGE });
    let families = FAMILIES.iter().zip(kinds).zip(metrics);
    families.map(|(((name, help), kind), metrics)| family(name, help, kind, metrics)).collect()
}
