//! What can be alarming: how it is called, how bad it is, and what to do about it.
//! Must never say what is wrong without what to do.

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Of 1.
    Share,
    /// Seconds.
    Seconds,
    /// 1: it is so.
    Flag,
}

impl Unit {
    /// Its word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Seconds => "seconds",
            Self::Flag => "flag",
        }
    }

    /// A value for people.
    #[must_use]
    pub fn shown(self, value: f64) -> String {
        match self {
            Self::Share => format!("{:.0} %", value * 100.0),
            Self::Seconds if value.abs() >= 2.0 * 86_400.0 => format!("{:.0} days", value / 86_400.0),
            Self::Seconds => format!("{value:.1} s"),
            Self::Flag => "yes".to_owned(),
        }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $severity:ident $unit:ident $points:literal $what:literal $action:literal,)+) => {
        /// Something alarming.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];

            /// Its name in metrics, messages and the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)+ }
            }

            /// What its values are.
            #[must_use]
            pub const fn unit(self) -> Unit {
                match self { $(Self::$kind => Unit::$unit,)+ }
            }

            /// What one of it takes from the score; several take twice as much at most.
            #[must_use]
            pub const fn points(self) -> u32 {
                match self { $(Self::$kind => $points,)+ }
            }

            /// What is the matter, in words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$kind => $what,)+ }
            }

            /// What to do about it.
            #[must_use]
            pub const fn action(self) -> &'static str {
                match self { $(Self::$kind => $action,)+ }
            }
        }
    };
}

kinds! {
    /// The primary of a database cannot be reached.
    PrimaryDown "primary_down" Critical Flag 40 "no primary can be reached"
        "Look at the server and the way to it; where a replica is to take over, see that it is promoted.",
    /// A host does not answer.
    HostDown "host_down" Critical Flag 15 "the host does not answer"
        "Look at the server and the way to it, or take it out of the configuration.",
    /// Another host has become the primary.
    Failover "failover" Warning Flag 5 "another host has become the primary"
        "Find out why, and see that the old primary follows the new one.",
    /// Clients have most servers of a pool.
    PoolUse "pool_use" Warning Share 10 "most servers of the pool are in use"
        "Shorten the transactions that hold servers (SHOW QUERIES, /pins), or raise pool_size if the server can take more.",
    /// A replica is behind.
    ReplicationLag "replication_lag" Warning Seconds 10 "the replica is behind the primary"
        "Look for long queries and heavy writes: reads that must be newer go to other hosts meanwhile.",
    /// Many statements are slow.
    SlowQueries "slow_queries" Warning Share 10 "many statements are slow"
        "See /api/database/slow-queries and /api/database/optimizations for which, and whether they wait or run.",
    /// The cache is asked in vain.
    CacheMisses "cache_misses" Warning Share 5 "the cache is often asked in vain"
        "See why in /api/cache/metrics: a longer cache_ttl, more max_bytes, or no cache for what changes all the time.",
    /// The cache had what no server would have said.
    CacheMismatch "cache_mismatch" Critical Flag 15 "the cache had what no server would have said"
        "Nothing of this shape is kept until a reload: find out what it hangs on that pgweir does not see (SHOW SHAPE has its text), and keep it out of the cache by a rule.",
    /// Many statements fail.
    Errors "errors" Critical Share 15 "many statements fail"
        "See which in SHOW QUERIES BY errors, and why in the servers' log.",
    /// Clients keep most servers of a pool to themselves.
    PinnedServers "pinned_servers" Warning Share 5 "clients keep many servers to themselves"
        "See who and why at /pins, and in SHOW ADVICE what applications can do. max_pinned_servers and pin_idle_timeout limit it.",
    /// A certificate ends.
    CertificateExpiry "certificate_expiry" Warning Seconds 10 "a certificate ends soon"
        "Renew it, then reload pgweir.",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_says_what_to_do_and_no_two_are_called_the_same() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.action().ends_with('.') && kind.points() > 0));
    }

    #[test]
    fn values_are_readable() {
        assert_eq!((Unit::Share.shown(0.834), Unit::Seconds.shown(1.25)), ("83 %".into(), "1.2 s".into()));
        assert_eq!(Unit::Seconds.shown(14.2 * 86_400.0), "14 days");
    }
}
