//! Which replica serves a read, and what reads do without one.
//! Must never accept a host that the database does not have: whoever wrote it believes that it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::consistency::{Consistency, TableName};
use super::endpoint::Endpoint;
use super::leaf::{Number, Text};
use super::model::Pool;
use super::reader::{Field, Leaf, Reader, Span, join};
use super::schema::{RawConfig, RawDatabase};
use super::words::words;

/// Most hosts of a database: each is a bit of a number when a read is to go to one of them.
pub const MAX_HOSTS: usize = 64;

words! {
    /// Whether reads go to replicas.
    pub enum Routing {
        /// Reads to replicas, all else to the primary.
        On = "on",
        /// Everything to the primary.
        Off = "off",
    }
    refused {}
}

words! {
    /// Which of the replicas that may serve a read does.
    pub enum Balance {
        /// Of two, the one with less to do, as it takes for it.
        LeastOutstanding = "least_outstanding",
        /// One after the other.
        RoundRobin = "round_robin",
        /// Any.
        Random = "random",
        /// Any, each as often as its weight says.
        Weights = "weights",
    }
    refused {}
}

words! {
    /// What reads do when no replica may serve any.
    pub enum NoReplica {
        /// They go to the primary.
        Primary = "primary",
        /// They fail.
        Fail = "fail",
    }
    refused {}
}

words! {
    /// Where reads inside of explicit transactions go that are not READ ONLY.
    pub enum InTransactions {
        /// To the primary.
        Primary = "primary",
        /// Under READ COMMITTED to replicas, until the transaction does anything but read.
        ReplicaUntilWrite = "replica_until_write",
    }
    refused {}
}

/// How reads of a database are spread over its replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct Reads {
    /// Default [`Balance::LeastOutstanding`].
    pub balance: Balance,
    /// Weights of hosts, 1 to 1000, if that goes by weights; 1 for those that are not there.
    pub weights: BTreeMap<Endpoint, u32>,
    /// Zones of hosts.
    pub zones: BTreeMap<Endpoint, String>,
    /// A replica that is further behind takes no reads. Default: no limit.
    pub max_replica_lag: Option<Duration>,
    /// The same in bytes of the write-ahead log.
    pub max_replica_lag_bytes: Option<u32>,
    /// Hosts that take no reads, unless they are the primary: as was found out, never as configured.
    pub spared: BTreeSet<Endpoint>,
    /// Default [`NoReplica::Primary`].
    pub no_replica: NoReplica,
    /// Default [`InTransactions::Primary`].
    pub in_transactions: InTransactions,
    /// Default [`Consistency::Session`].
    pub consistency: Consistency,
    /// Reads of these show whatever anybody had written before they came.
    pub global_tables: Vec<TableName>,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            balance: Balance::LeastOutstanding,
            weights: BTreeMap::new(),
            zones: BTreeMap::new(),
            max_replica_lag: None,
            max_replica_lag_bytes: None,
            spared: BTreeSet::new(),
            no_replica: NoReplica::Primary,
            in_transactions: InTransactions::Primary,
            consistency: Consistency::Session,
            global_tables: Vec::new(),
        }
    }
}

/// Something for each of several hosts.
#[derive(Debug)]
pub(super) struct PerHost<T>(Vec<(Endpoint, Span, T)>);

impl<T: Leaf> Leaf for PerHost<T> {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let mut read = Vec::new();
        for (key, value) in reader.table(path, value)? {
            let value = T::read(reader, &join(path, "HOST"), value);
            match Endpoint::from_str(key.get_ref()) {
                Ok(endpoint) => read.push(value.map(|value| (endpoint, key.span(), value))),
                Err(error) => {
                    reader.wrong_value(path, key.span(), &error.to_string(), None);
                    read.push(None);
                }
            }
        }
        read.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }
}

/// Weight of a host.
pub(super) type Weight = Number<1, 1000>;

impl Check<'_> {
    /// How reads of this database are spread over `hosts`; `None` if these are to be found out.
    pub(super) fn reads(&mut self, raw: &mut RawDatabase, hosts: Option<&[Endpoint]>, routing: Routing) -> Reads {
        let default = Reads::default();
        let balance = raw.balance.word(default.balance);
        if let (Field::Set(_, span), Some(balance)) = (&raw.weights, balance)
            && balance != Balance::Weights
        {
            let title = format!("`weights` are never used when `balance` is {:?}", balance.as_str());
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"balance = "weights""#));
        }
        if let (Field::Set(_, span), Some(Balance::Weights), true) = (&raw.balance, balance, raw.weights.is_absent()) {
            let title = "`balance` is \"weights\" but there are no `weights`";
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"weights = { "host:5432" = 2 }"#));
        }
        if hosts.is_some_and(|hosts| hosts.len() > MAX_HOSTS)
            && let Some(span) = raw.hosts.span().or(raw.replicas.span())
        {
            let title = format!("a database has at most {MAX_HOSTS} servers");
            self.reader.note(span, title, |problem| problem);
        }
        Reads {
            balance: balance.unwrap_or(default.balance),
            weights: self.per_host(std::mem::take(&mut raw.weights), hosts, |weight: Weight| weight.0),
            zones: self.per_host(std::mem::take(&mut raw.zones), hosts, |zone: Text| zone.0),
            max_replica_lag: std::mem::take(&mut raw.max_replica_lag).set().map(|lag| lag.0),
            max_replica_lag_bytes: std::mem::take(&mut raw.max_replica_lag_bytes).set().map(|size| size.0),
            spared: BTreeSet::new(),
            no_replica: raw.no_replica.word(default.no_replica).unwrap_or(default.no_replica),
            in_transactions: self.in_transactions(raw, routing),
            consistency: raw.consistency.word(default.consistency).unwrap_or(default.consistency),
            global_tables: std::mem::take(&mut raw.global_tables).set().unwrap_or_default(),
        }
    }

    fn in_transactions(&mut self, raw: &RawDatabase, routing: Routing) -> InTransactions {
        let Field::Set(word, span) = &raw.reads_in_transactions else { return InTransactions::Primary };
        if word.0 == InTransactions::ReplicaUntilWrite && routing == Routing::Off {
            let title = "reads go nowhere but to the primary: `routing` is off, or there are no replicas";
            let expected = "no `reads_in_transactions`, or replicas and `routing`";
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        }
        word.0
    }

    fn per_host<T, V>(
        &mut self,
        field: Field<PerHost<T>>,
        hosts: Option<&[Endpoint]>,
        value: impl Fn(T) -> V,
    ) -> BTreeMap<Endpoint, V> {
        let mut map = BTreeMap::new();
        for (endpoint, span, raw) in field.set().map_or(Vec::new(), |list| list.0) {
            let expected = "one of the database's servers, written as there";
            if hosts.is_some_and(|hosts| !hosts.contains(&endpoint)) {
                self.reader.note(span, format!("{endpoint} is no server of this database"), |it| it.expected(expected));
            } else if map.insert(endpoint.clone(), value(raw)).is_some() {
                self.reader.note(span, format!("{endpoint} is there twice"), |problem| problem);
            }
        }
        map
    }

    /// Notes limits on how far replicas may be behind that are too short to be measured.
    pub(super) fn lags(&mut self, raw: &RawConfig) {
        let interval = match &raw.pool {
            Field::Set(pool, _) => match &pool.check_interval {
                Field::Set(interval, _) => interval.0,
                Field::Absent => Pool::default().check_interval,
                Field::Bad => return,
            },
            Field::Absent => Pool::default().check_interval,
            Field::Bad => return,
        };
        let Field::Set(databases, _) = &raw.databases else { return };
        for database in databases.0.iter().filter_map(|(_, _, database)| database.as_ref()) {
            if let Field::Set(lag, span) = &database.max_replica_lag
                && lag.0 < interval
            {
                let title = format!("`max_replica_lag` is shorter than `check_interval`, {} ms", interval.as_millis());
                self.reader.note(span.clone(), title, |problem| {
                    problem.expected("at least that: how far replicas are behind is known no more precisely")
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::Config;

    fn parsed(lines: &str) -> Result<Config, String> {
        let text = format!("[databases.a]\nhosts = [\"h1\", \"h2:6000\"]\n{lines}\n[users.u]\npassword = \"x\"");
        Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
    }

    #[test]
    fn hosts_have_weights_and_zones() {
        let lines = "balance = \"weights\"\nweights = { \"h2:6000\" = 3 }\nzones = { \"h1:5432\" = \"a\" }";
        let config = parsed(lines).unwrap();
        let reads = &config.databases["a"].reads;
        assert_eq!(reads.weights.iter().map(|(host, n)| (host.to_string(), *n)).next(), Some(("h2:6000".into(), 3)));
        assert_eq!(reads.zones.iter().map(|(host, zone)| format!("{host} {zone}")).next().unwrap(), "h1:5432 a");
    }

    #[test]
    fn what_cannot_work_is_told() {
        let cases = [
            ("balance = \"weights\"", "there are no `weights`"),
            ("weights = { h1 = 1 }", "never used when `balance` is \"least_outstanding\""),
            ("balance = \"weights\"\nweights = { h3 = 1 }", "h3:5432 is no server of this database"),
            ("balance = \"weights\"\nweights = { h1 = 0 }", "a whole number from 1 to 1000"),
            ("balance = \"weights\"\nweights = { h1 = 1, \"h1:5432\" = 1 }", "is there twice"),
            ("zones = { \"::1\" = \"a\" }", "an IPv6 address in brackets"),
            ("max_replica_lag = \"400ms\"", "shorter than `check_interval`, 500 ms"),
            ("max_replica_lag = 0", "cannot be turned off"),
            ("no_replica = \"wait\"", "\"primary\" or \"fail\""),
            (
                "routing = \"off\"\nreads_in_transactions = \"replica_until_write\"",
                "no `reads_in_transactions`, or replicas",
            ),
            ("reads_in_transactions = \"replica\"", "\"primary\" or \"replica_until_write\""),
            ("balance = \"best\"", "\"least_outstanding\", \"round_robin\", \"random\" or \"weights\""),
        ];
        for (lines, part) in cases {
            let problems = parsed(lines).unwrap_err();
            assert!(problems.contains(part), "{lines}: {problems}");
        }
    }
}
