//! Everything pgweir measures as Prometheus metrics, in one of Prometheus' formats or that of OpenMetrics.
//! Never touches a number but to read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use prometheus::TextEncoder;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::family::{family, keep, label, number};
use super::openmetrics::{self, Format};
use super::rows::Row;
use super::{alerts, cache, hosts, pins, pools, process, protobuf, queries, remote, streams};
use crate::cache::Caches;
use crate::health::Watch;
use crate::meter::{Registry, SharedCounter};
use crate::pool::cluster::Clusters;

/// Name and help of the families made in this file.
const FAMILIES: [(&str, &str); 23] = [
    ("pgweir_build_info", "Version of pgweir; always 1."),
    ("process_start_time_seconds", "Start of the process, in seconds since 1970."),
    ("pgweir_config_reloads_total", "Reloads of the configuration by outcome."),
    ("pgweir_config_loaded_timestamp_seconds", "When the configuration in force was loaded, in seconds since 1970."),
    ("pgweir_draining", "1 while shutting down."),
    ("pgweir_primary_reachable", "1 if the primary of the database was reached when last tried."),
    ("pgweir_accepted_connections_total", "Client connections accepted."),
    ("pgweir_refused_connections_total", "Client connections refused for a limit, before login."),
    ("pgweir_login_failures_total", "Failed logins, also of unknown users and databases."),
    ("pgweir_panics_total", "Panics, each of which ended one connection."),
    (
        "pgweir_plan_changes_total",
        "Changes of plans with which statements of a shape became clearly slower, or faster.",
    ),
    ("pgweir_audit_entries_total", "Lines written to the audit log."),
    ("pgweir_audit_lost_total", "Lines of the audit log that came too fast to be written, or could not be."),
    ("pgweir_trace_spans_exported_total", "Spans that the collector has taken."),
    (
        "pgweir_trace_spans_dropped_total",
        "Spans that came faster than they could be sent, could not be, or were refused.",
    ),
    ("pgweir_trace_export_failures_total", "Attempts to send spans that failed."),
    (
        "pgweir_prepared_bytes",
        "Bytes of prepared statements that the process keeps, as max_prepared_bytes counts them.",
    ),
    ("pgweir_cache_entries", "Answers in the cache."),
    ("pgweir_cache_bytes", "Bytes of the answers in the cache, with their keys."),
    ("pgweir_scrapes_total", "Times these metrics were collected, without this time."),
    ("pgweir_last_scrape_duration_seconds", "Time the previous collection took; 0 at the first."),
    (
        "pgweir_last_scrape_query_shapes",
        "Statement shapes in the previous collection, with one for the rest per database and user.",
    ),
    ("pgweir_series_left_out", "Series of shapes that are not here, as there are more than max_series."),
];

/// Reads a [`Registry`] for Prometheus.
#[derive(Debug)]
pub struct Exporter {
    registry: Arc<Registry>,
    clusters: Arc<Clusters>,
    caches: Arc<Caches>,
    watch: Option<Arc<Watch>>,
    descs: Vec<Desc>,
    scrapes: SharedCounter,
    last_us: AtomicU64,
    last_shapes: AtomicU64,
    max_series: usize,
    left_out: AtomicU64,
}

impl Exporter {
    /// An exporter of all that is, and will be, in the registry.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            clusters: Arc::default(),
            caches: Arc::default(),
            watch: None,
            descs: descs(),
            scrapes: SharedCounter::default(),
            last_us: AtomicU64::new(0),
            last_shapes: AtomicU64::new(0),
            max_series: usize::MAX,
            left_out: AtomicU64::new(0),
        }
    }

    /// Shows these too.
    #[must_use]
    pub fn with_hosts(self, clusters: Arc<Clusters>) -> Self {
        Self { clusters, ..self }
    }

    /// Shows so many series of shapes at most.
    #[must_use]
    pub fn with_max_series(self, max_series: usize) -> Self {
        Self { max_series, ..self }
    }

    /// Shows this cache too, and takes signals for it.
    #[must_use]
    pub fn with_cache(self, caches: Arc<Caches>) -> Self {
        Self { caches, ..self }
    }

    /// The cache that is shown.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Shows alerts and the score too.
    #[must_use]
    pub fn with_alerts(self, watch: Arc<Watch>) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The registry that is read.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in this format.
    ///
    /// # Errors
    /// If the encoder refuses a family, which would be a defect of pgweir.
    pub fn encode(&self, format: Format) -> Result<Vec<u8>, prometheus::Error> {
        let start = Instant::now();
        let (rows, left_out) = Row::most(Row::all(&self.registry, format == Format::Protobuf), self.max_series);
        if left_out > 0 && self.left_out.swap(left_out as u64, Relaxed) == 0 {
            tracing::warn!(
                "/metrics leaves out {left_out} series of statements: there are more than max_series = {}",
                self.max_series
            );
        } else {
            self.left_out.store(left_out as u64, Relaxed);
        }
        let mut text = String::with_capacity(64 * 1024);
        let out = match format {
            Format::Text => {
                TextEncoder::new().encode_utf8(&self.collect(), &mut text)?;
                queries::write(&rows, format, &mut text);
                text.into_bytes()
            }
            Format::OpenMetrics => {
                openmetrics::write(&self.collect(), &mut text);
                queries::write(&rows, format, &mut text);
                text.push_str("# EOF\n");
                text.into_bytes()
            }
            Format::Protobuf => {
                let mut out = text.into_bytes();
                protobuf::write(&self.collect(), &mut out);
                protobuf::write_shapes(&rows, &mut out);
                out
            }
        };
        self.last_shapes.store(rows.len() as u64, Relaxed);
        self.scrapes.add(1);
        self.last_us.store(start.elapsed().as_micros() as u64, Relaxed);
        Ok(out)
    }

    /// The families of [`FAMILIES`].
    fn own(&self) -> Vec<MetricFamily> {
        use MetricType::{COUNTER, GAUGE};
        let registry = &self.registry;
        let version = label("version", env!("CARGO_PKG_VERSION"));
        let reloads = [("ok", &registry.reloads_ok), ("error", &registry.reloads_failed)];
        let reloads =
            reloads.map(|(outcome, count)| number(COUNTER, vec![label("outcome", outcome)], count.get() as f64));
        let databases = registry.databases();
        let reachable = databases.iter().map(|health| {
            let labels = vec![label("database", &health.database)];
            number(GAUGE, labels, f64::from(u8::from(health.primary_reachable())))
        });
        let one = |kind, value| (kind, vec![number(kind, Vec::new(), value)]);
        let contents = [
            (GAUGE, vec![number(GAUGE, vec![version], 1.0)]),
            one(GAUGE, registry.started_unix_s()),
            (COUNTER, reloads.into()),
            one(GAUGE, registry.config_loaded_unix_s()),
            one(GAUGE, f64::from(u8::from(registry.draining()))),
            (GAUGE, reachable.collect()),
            one(COUNTER, registry.accepts.get() as f64),
            one(COUNTER, registry.refused.get() as f64),
            one(COUNTER, registry.login_failures.get() as f64),
            one(COUNTER, registry.panics.get() as f64),
            one(COUNTER, registry.plan_changes.get() as f64),
            one(COUNTER, registry.audit.entries.get() as f64),
            one(COUNTER, registry.audit.lost.get() as f64),
            one(COUNTER, registry.traces.exported.get() as f64),
            one(COUNTER, registry.traces.dropped.get() as f64),
            one(COUNTER, registry.traces.failures.get() as f64),
            one(GAUGE, registry.prepared_bytes() as f64),
            one(GAUGE, registry.cache.entries.get() as f64),
            one(GAUGE, registry.cache.bytes.get() as f64),
            one(COUNTER, self.scrapes.get() as f64),
            one(GAUGE, self.last_us.load(Relaxed) as f64 / 1e6),
            one(GAUGE, self.last_shapes.load(Relaxed) as f64),
            one(GAUGE, self.left_out.load(Relaxed) as f64),
        ];
        let families = FAMILIES.iter().zip(contents);
        families.map(|((name, help), (kind, metrics))| family(name, help, kind, metrics)).collect()
    }
}

/// All but the families per shape, which would take too long this way (see `queries.rs`).
impl Collector for Exporter {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.own();
        families.extend(process::collect());
        families.extend(pools::collect(&self.registry));
        families.extend(pins::collect(&self.registry));
        families.extend(hosts::collect(&self.clusters));
        families.extend(streams::collect(&self.registry));
        families.extend(cache::collect(&self.registry, &self.caches));
        families.extend(remote::collect(&self.registry));
        families.extend(self.watch.iter().flat_map(|watch| alerts::collect(watch)));
        keep(families)
    }
}

/// One description per family; labels vary, so they are not part of it.
fn descs() -> Vec<Desc> {
    let mut names: Vec<(&str, &str)> = FAMILIES.to_vec();
    names.extend(process::FAMILIES);
    names.extend(pools::families());
    names.extend(pins::FAMILIES);
    names.extend(hosts::FAMILIES);
    names.extend(streams::FAMILIES);
    names.extend(cache::FAMILIES);
    names.extend(remote::FAMILIES);
    names.extend(alerts::FAMILIES);
    names.dedup_by_key(|(name, _)| *name);
    let desc =
        |(name, help): (&str, &str)| Desc::new(name.to_owned(), help.to_owned(), Vec::new(), Default::default()).ok();
    names.into_iter().filter_map(desc).collect()
}
