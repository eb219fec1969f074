//! `[alerts]`: what is worth waking somebody for, and from where to where it must go.
//! Must never let an alert clear above the mark at which it fires: it would come and go.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::check::Check;
use super::email::Email;
use super::leaf::{Number, Timeout, Wait};
use super::model::Database;
use super::notify::AlertNotify;
use super::reader::{Field, Span};
use super::schema::{RawAlerts, RawEvent, RawExpiry, RawFailover, RawLag, RawShare};
use super::webhook::Webhook;

/// A mark above which an alert fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// It fires above this: a share of 1, or seconds.
    pub above: f64,
    /// It is over at or below this, which is no more than `above`.
    pub clear: f64,
    /// It fires only after having been above for this long.
    pub after: Duration,
}

impl Threshold {
    const fn new(above: f64, clear: f64, after_s: u64) -> Option<Self> {
        Some(Self { above, clear, after: Duration::from_secs(after_s) })
    }
}

/// `[alerts]`. An alert that is `None` is off.
#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    /// How often is looked. Shares are of what happened in the last 12 of these times. Default 5 s, at least 100 ms.
    pub interval: Duration,
    /// A statement that takes as long counts as slow, the wait for a server included. Default 100 ms; never 0.
    pub slow_query: Duration,
    /// Servers of a pool that clients have, of its size. Default above 80 %, clear at 70 %, after 1 min.
    pub pool_use: Option<Threshold>,
    /// How far a replica is behind. Default above 1 s, clear at 500 ms, after 30 s.
    pub replication_lag: Option<Threshold>,
    /// Slow statements of all, by database. Default above 10 %, clear at 5 %, after 2 min.
    pub slow_queries: Option<Threshold>,
    /// Batches that the cache was asked for in vain, by database. Default above 20 %, clear at 15 %, after 5 min.
    pub cache_misses: Option<Threshold>,
    /// For how long something wrong must have been found in the cache. Default 0: at once.
    pub cache_mismatch: Option<Duration>,
    /// Statements that failed, by database. Default above 5 %, clear at 2 %, after 1 min.
    pub errors: Option<Threshold>,
    /// Servers that clients keep to themselves, of the pool's size. Default above 50 %, clear at 40 %, after 5 min.
    pub pinned_servers: Option<Threshold>,
    /// For how long a host, or the primary of a database, must not have answered. Default 10 s.
    pub host_down: Option<Duration>,
    /// For how long is told that another host has become the primary. Default 15 min; never 0.
    pub failover: Option<Duration>,
    /// How long before its end a certificate is told of. Default 14 d; never 0.
    pub certificate_expiry: Option<Duration>,
    /// Who is told over HTTP, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// Who is told by e-mail, by name.
    pub emails: BTreeMap<String, Email>,
    /// The database in which whoever listens is told. Default: none.
    pub notify: Option<AlertNotify>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            slow_query: Duration::from_millis(100),
            pool_use: Threshold::new(0.8, 0.7, 60),
            replication_lag: Threshold::new(1.0, 0.5, 30),
            slow_queries: Threshold::new(0.1, 0.05, 120),
            cache_misses: Threshold::new(0.2, 0.15, 300),
            cache_mismatch: Some(Duration::ZERO),
            errors: Threshold::new(0.05, 0.02, 60),
            pinned_servers: Threshold::new(0.5, 0.4, 300),
            host_down: Some(Duration::from_secs(10)),
            failover: Some(Duration::from_secs(900)),
            certificate_expiry: Some(Duration::from_secs(14 * 86_400)),
            webhooks: BTreeMap::new(),
            emails: BTreeMap::new(),
            notify: None,
        }
    }
}

/// What [`Alerts::interval`] may be: what is drawn of an hour has a point every ten seconds.
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);

impl Check<'_> {
    pub(super) fn alerts(&mut self, raw: RawAlerts, databases: Option<&BTreeMap<String, Database>>) -> Alerts {
        let default = Alerts::default();
        if let Field::Set(interval, span) = &raw.interval
            && !INTERVALS.contains(&interval.0)
        {
            self.reader.wrong_value("alerts.interval", span.clone(), "a duration from \"100ms\" to \"10s\"", None);
        }
        let event = |raw: Field<RawEvent>, default: Option<Duration>| {
            let raw = raw.set().unwrap_or_default();
            is_on(&raw.enabled).then(|| raw.after.set().map(|wait| wait.0).or(default)).flatten()
        };
        let failover: RawFailover = raw.failover.set().unwrap_or_default();
        let expiry: RawExpiry = raw.certificate_expiry.set().unwrap_or_default();
        let long = |on: &Field<bool>, field: Field<Timeout>, default: Option<Duration>| {
            is_on(on).then(|| field.set().map(|timeout| timeout.0).or(default)).flatten()
        };
        Alerts {
            interval: raw.interval.set().map_or(default.interval, |timeout| timeout.0),
            slow_query: raw.slow_query.set().map_or(default.slow_query, |timeout| timeout.0),
            pool_use: self.share("pool_use", raw.pool_use, default.pool_use),
            replication_lag: self.lag("replication_lag", raw.replication_lag, default.replication_lag),
            slow_queries: self.share("slow_queries", raw.slow_queries, default.slow_queries),
            cache_misses: self.share("cache_misses", raw.cache_misses, default.cache_misses),
            cache_mismatch: event(raw.cache_mismatch, default.cache_mismatch),
            errors: self.share("errors", raw.errors, default.errors),
            pinned_servers: self.share("pinned_servers", raw.pinned_servers, default.pinned_servers),
            host_down: event(raw.host_down, default.host_down),
            failover: long(&failover.enabled, failover.keep, default.failover),
            certificate_expiry: long(&expiry.enabled, expiry.before, default.certificate_expiry),
            webhooks: self.webhooks(raw.webhooks),
            emails: self.emails(raw.emails),
            notify: self.alert_notify(raw.notify, databases),
        }
    }

    fn share(&mut self, name: &str, raw: Field<RawShare>, default: Option<Threshold>) -> Option<Threshold> {
        let Field::Set(raw, section) = raw else { return default };
        let percent = |field: &Field<Number<0, 100>>| field.number().map(|(n, _)| f64::from(n) / 100.0);
        let marks = (percent(&raw.above), percent(&raw.clear));
        let at = raw.clear.span().or(raw.above.span()).unwrap_or(section);
        self.threshold(name, is_on(&raw.enabled), marks, raw.after, (default, at))
    }

    fn lag(&mut self, name: &str, raw: Field<RawLag>, default: Option<Threshold>) -> Option<Threshold> {
        let Field::Set(raw, section) = raw else { return default };
        let at = raw.clear.span().or(raw.above.span()).unwrap_or(section);
        let marks = (
            raw.above.set().map(|timeout| timeout.0.as_secs_f64()),
            raw.clear.set().map(|timeout| timeout.0.as_secs_f64()),
        );
        self.threshold(name, is_on(&raw.enabled), marks, raw.after, (default, at))
    }

    fn threshold(
        &mut self,
        name: &str,
        on: bool,
        (above, clear): (Option<f64>, Option<f64>),
        after: Field<Wait>,
        (default, at): (Option<Threshold>, Span),
    ) -> Option<Threshold> {
        let default = default?;
        let above_or_default = above.unwrap_or(default.above);
        // Who lowers only the one mark means the other to be in proportion.
        let proportion = default.clear / default.above;
        let clear = clear.unwrap_or(above_or_default * proportion);
        if clear > above_or_default {
            let title = format!("alert `{name}` would be over at a higher mark than the one above which it fires");
            self.reader.note(at, title, |problem| problem.expected("`clear` no higher than `above`"));
        }
        let after = after.set().map_or(default.after, |wait| wait.0);
        on.then_some(Threshold { above: above_or_default, clear, after })
    }
}

fn is_on(field: &Field<bool>) -> bool {
    !matches!(field, Field::Set(false, _))
}
