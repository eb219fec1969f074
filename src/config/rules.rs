//! What `[databases.NAME]` says of where statements go beyond primary and replicas: groups of servers, pools, rules.
//! Must never know a statement: what a rule's conditions are held against is found by whoever has one.

use std::time::Duration;

use super::cache::Ttl;
use super::endpoint::Endpoint;
use super::words::words;

/// Most rules of a database: which of them fit is kept in the bits of a `u128`.
pub const RULES_MAX: usize = 128;
/// What the pool is called that clients use for whom no rule names another.
pub const DEFAULT_POOL: &str = "default";
/// What the built-in groups are called.
pub(super) const BUILT_IN: [&str; 2] = ["primary", "replicas"];

/// `groups`, `pools` and `rules` of a database. Default: none of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steering {
    /// `[databases.NAME.pools.POOL]`, by name; at most 255.
    pub pools: Vec<Workload>,
    /// `[[databases.NAME.rules]]`, in order; at most [`RULES_MAX`].
    pub rules: Vec<RoutingRule>,
}

/// A workload pool: servers of its own, shared by all users whom a rule sends there.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name, never [`DEFAULT_POOL`].
    pub name: String,
    /// Connections to each server of the database, all users together.
    pub pool_size: u32,
    /// Overrides `query_wait_timeout`; zero: no limit.
    pub query_wait_timeout: Option<Duration>,
    /// Overrides `query_timeout`; zero: no limit.
    pub query_timeout: Option<Duration>,
}

/// One rule: what it is for, and what becomes of that.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoutingRule {
    /// What it is called in messages: its `name`, or its place, such as `#3`.
    pub name: String,
    /// What it is for.
    pub when: When,
    /// Where reads go: of the rule itself, else of its pool. `None`: as without rules.
    pub reads: Option<Destination>,
    /// Number in [`Steering::pools`].
    pub pool: Option<usize>,
    /// What is said to whoever is refused.
    pub refuse: Option<String>,
    /// Transactions a second, all users and workers together; at least 1.
    pub rate: Option<u32>,
    /// Overrides `query_timeout`, also of the pool; zero: no limit.
    pub timeout: Option<Duration>,
    /// Its reads may share servers with other clients'.
    pub lanes: bool,
    /// How long its answers are kept at most.
    pub cache_ttl: Option<Ttl>,
}

/// Conditions, all of which must hold; those that are empty do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// Name of the user.
    pub user: Globs,
    /// The session's `application_name`; empty if it has none.
    pub application_name: Globs,
    /// Name of one of the tables, as the server folds it, without a schema.
    pub table: Globs,
    /// Schema of one of the tables. If `table` says something too, of the same one.
    pub schema: Globs,
    /// Shape of the statement, one of these.
    pub shape: Vec<u64>,
    /// Tags of the statement's comments: each of these keys, with a value that fits.
    pub tag: Vec<(String, Globs)>,
}

impl When {
    /// Whether the statement decides, and not only who sends it.
    #[must_use]
    pub fn asks_of_statement(&self) -> bool {
        self.asks_of_tables() || !self.shape.is_empty() || !self.tag.is_empty()
    }

    /// Whether tables decide.
    #[must_use]
    pub fn asks_of_tables(&self) -> bool {
        !self.table.is_empty() || !self.schema.is_empty()
    }

    /// Whether whatever fits `other` certainly fits this: it has no condition that `other` has not as well.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let covers = |mine: &Globs, theirs: &Globs| mine.is_empty() || mine == theirs;
        covers(&self.user, &other.user)
            && covers(&self.application_name, &other.application_name)
            && covers(&self.table, &other.table)
            && covers(&self.schema, &other.schema)
            // Of one and the same table: with one condition less it may be another.
            && (!self.asks_of_tables() || (self.table == other.table && self.schema == other.schema))
            && (self.shape.is_empty() || self.shape == other.shape)
            && self.tag.iter().all(|tag| other.tag.contains(tag))
    }
}

/// Where reads go that may leave the primary.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// To one of these.
    pub group: HostGroup,
    /// Where else while none of them may serve the client.
    pub fallback: Fallback,
}

/// Some of a database's servers.
#[derive(Clone, Debug, PartialEq)]
pub enum HostGroup {
    /// `primary`: the one that takes writes.
    Primary,
    /// `replicas`: all others.
    Replicas,
    /// `[databases.NAME.groups]`: these.
    Named(String, Vec<Endpoint>),
}

words! {
    /// Where reads go while no server of their group may serve a client.
    pub enum Fallback {
        /// To any replica, else to the primary.
        Replicas = "replicas",
        /// To the primary.
        Primary = "primary",
        /// Nowhere: they fail.
        Fail = "fail",
    }
    refused {}
    renamed {
        "replica" => "replicas",
        "error" => "fail",
    }
}

/// Patterns of which one must fit; none at all is no condition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Globs(pub Vec<Glob>);

impl Globs {
    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one fits, or there is none.
    #[must_use]
    pub fn fit(&self, text: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|glob| glob.fits(text))
    }
}

/// A text in which `*` stands for anything, also for nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Glob(pub(super) String);

impl Glob {
    /// Whether it stands for `text`: the pieces between its stars follow each other there, each as early as may be.
    #[must_use]
    pub fn fits(&self, text: &[u8]) -> bool {
        let mut pieces = self.0.as_bytes().split(|&byte| byte == b'*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            let Some(at) = memchr::memmem::find(rest, piece) else { return false };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
