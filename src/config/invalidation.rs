//! When an answer is not good any more: when its time is over, or when the database says that something of it has changed.
//! Must never leave a database without what the stream of its changes needs to be found.

use std::time::Duration;

use super::cache::{CacheMode, Stale};
use super::check::Check;
use super::endpoint::Endpoint;
use super::leaf::{RawSecret, Text, Timeout, Wait, Word};
use super::model::{Config, Database};
use super::password::Password;
use super::reader::Field;
use super::redis::RedisMode;
use super::schema::{RawCache, RawConfig, RawDatabase};
use super::words::words;

/// Shortest [`Cache::max_staleness`](super::Cache::max_staleness): heartbeats come eight times as often, but at most forty times a second.
const STALENESS_MIN: Duration = Duration::from_millis(100);
/// The longest: a stream that stands still is noticed after that.
const STALENESS_MAX: Duration = Duration::from_secs(600);

words! {
    /// What ends an answer's life.
    pub enum Invalidation {
        /// Its time.
        Ttl = "ttl",
        /// A change of what it hangs on, as a stream of changes tells of it, and its time, if it has any.
        Logical = "logical",
        /// A write to what it hangs on that passes through any pgweir, and its time, if it has any.
        Fenced = "fenced",
    }
    refused {}
}

/// What a database says of that for itself; `None`: what `[cache]` says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnInvalidation {
    /// What ends an answer's life.
    pub grade: Option<Invalidation>,
    /// How old the newest change may be that an answer does not show.
    pub max_staleness: Option<Duration>,
    /// Name of the publication.
    pub publication: Option<String>,
    /// Role that follows the stream. Default: the one that servers are opened as.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Password>,
    /// How much longer answers do while one client asks a server anew.
    pub stale_while_revalidate: Option<Duration>,
    /// How much longer they do while no server answers.
    pub stale_if_error: Option<Duration>,
}

/// How the changes of a database are followed.
#[derive(Clone, Debug, PartialEq)]
pub struct Logical {
    /// How old the newest change may be that an answer does not show.
    pub max_staleness: Duration,
    /// Name of the publication.
    pub publication: String,
    /// Role that follows the stream, and its password.
    pub login: Option<(String, Option<Password>)>,
}

impl Logical {
    /// How often a heartbeat goes through the stream.
    #[must_use]
    pub fn interval(&self) -> Duration {
        (self.max_staleness / 8).clamp(Duration::from_millis(25), Duration::from_millis(250))
    }
}

impl Config {
    /// Whether answers of each database end with the same as under this other configuration.
    #[must_use]
    pub fn invalidates_as(&self, other: &Self) -> bool {
        let grade = |config: &Self, name: &str| {
            let own = config.databases.get(name).and_then(|entry| entry.invalidation.grade);
            own.unwrap_or(config.cache.invalidation)
        };
        self.databases.keys().chain(other.databases.keys()).all(|name| grade(self, name) == grade(other, name))
    }

    /// How the changes of this database are followed, if answers hang on them.
    #[must_use]
    pub fn logical(&self, database: &str) -> Option<Logical> {
        let own = &self.databases.get(database)?.invalidation;
        let cache = &self.cache;
        (own.grade.unwrap_or(cache.invalidation) == Invalidation::Logical).then(|| Logical {
            max_staleness: own.max_staleness.unwrap_or(cache.max_staleness),
            publication: own.publication.clone().unwrap_or_else(|| cache.publication.clone()),
            login: own.user.clone().map(|user| (user, own.password.clone())),
        })
    }
}

impl Database {
    /// Whether this is the same database under another name, as far as can be told without asking: one of its servers is this one's.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let servers = |it: &Self| [&it.primary].into_iter().chain(&it.replicas).cloned().collect::<Vec<_>>();
        let theirs = servers(other);
        self.dbname == other.dbname && servers(self).iter().any(|one| *one != Endpoint::UNKNOWN && theirs.contains(one))
    }
}

impl Config {
    /// Whether writes to this database are fenced: its answers hang on those that pass through any pgweir. So they do where one of the
    /// other names that clients have for it says so.
    #[must_use]
    pub fn fenced(&self, database: &str) -> bool {
        let of = |grade: Option<Invalidation>| grade.unwrap_or(self.cache.invalidation) == Invalidation::Fenced;
        let own = self.databases.get(database);
        let others = || self.databases.values().filter(|other| own.is_some_and(|own| own.is_same(other)));
        self.cache.mode != CacheMode::Off
            && (of(own.and_then(|own| own.invalidation.grade)) || others().any(|other| of(other.invalidation.grade)))
    }

    /// What the servers of this database call it.
    #[must_use]
    pub fn dbname_of<'a>(&'a self, database: &'a str) -> &'a str {
        self.databases.get(database).map_or(database, |entry| &entry.dbname)
    }

    /// The time that no answer of this database is kept for longer than, if there is one for all of them.
    #[must_use]
    pub fn longest_cached(&self, database: &str) -> Option<Duration> {
        let own = self.databases.get(database).and_then(|entry| entry.terms.cache_ttl.as_ref());
        [self.cache.ttl.as_ref(), own].into_iter().flatten().map(|ttl| self.cache.time(ttl)).min()
    }

    /// How much longer answers of this database do whose time is over.
    #[must_use]
    pub fn stale(&self, database: &str) -> Stale {
        let (all, own) = (self.cache.stale, self.databases.get(database).map(|entry| &entry.invalidation));
        Stale {
            while_revalidate: own.and_then(|own| own.stale_while_revalidate).unwrap_or(all.while_revalidate),
            if_error: own.and_then(|own| own.stale_if_error).unwrap_or(all.if_error),
        }
    }

    /// How old the answers of this database may be, if that is limited; where they are fenced, as far as writes go through any pgweir.
    #[must_use]
    pub fn cache_bound(&self, database: &str) -> Option<Duration> {
        if self.fenced(database) {
            return Some(Duration::ZERO);
        }
        let staleness = self.logical(database).map(|logical| logical.max_staleness);
        let stale = self.stale(database);
        let longer = |ttl: Duration| match ttl.is_zero() {
            true => ttl,
            false => ttl.saturating_add(stale.while_revalidate.max(stale.if_error)),
        };
        let timed = || self.longest_cached(database).map(longer);
        staleness.or_else(timed).filter(|_| self.cache.mode != CacheMode::Off)
    }
}

impl Check<'_> {
    /// What a database says of the invalidation of its answers.
    pub(super) fn invalidation(&mut self, name: &str, raw: &mut RawDatabase) -> OwnInvalidation {
        if let Field::Set(_, span) = &raw.cache_password
            && raw.cache_user.is_absent()
        {
            let title = format!("database `{name}` has a `cache_password` but no `cache_user` it belongs to");
            self.reader.note(span.clone(), title, |problem| problem.expected("both, or neither"));
        }
        self.staleness("cache_max_staleness", &raw.cache_max_staleness);
        let longer = |field: &mut Field<Wait>| std::mem::take(field).set().map(|wait| wait.0);
        let password: Field<RawSecret> = std::mem::take(&mut raw.cache_password);
        OwnInvalidation {
            grade: std::mem::take(&mut raw.cache_invalidation).set().map(|word: Word<Invalidation>| word.0),
            max_staleness: std::mem::take(&mut raw.cache_max_staleness).set().map(|time: Timeout| time.0),
            publication: std::mem::take(&mut raw.cache_publication).set().map(|text: Text| text.0),
            user: std::mem::take(&mut raw.cache_user).set().map(|text: Text| text.0),
            password: self.server_password(password),
            stale_while_revalidate: longer(&mut raw.cache_stale_while_revalidate),
            stale_if_error: longer(&mut raw.cache_stale_if_error),
        }
    }

    /// Notes bounds that nobody could keep.
    pub(super) fn invalidations(&mut self, raw: &RawConfig) {
        let cache = match &raw.cache {
            Field::Set(cache, _) => Some(cache),
            Field::Absent => None,
            Field::Bad => return,
        };
        if let Some(cache) = cache {
            self.staleness("max_staleness", &cache.max_staleness);
            self.fence(&cache.invalidation, cache);
        }
        let Field::Set(databases, _) = &raw.databases else { return };
        let none = RawCache::default();
        for database in databases.0.iter().filter_map(|(_, _, database)| database.as_ref()) {
            self.fence(&database.cache_invalidation, cache.unwrap_or(&none));
        }
    }

    /// Notes what the grade `fenced` lacks.
    fn fence(&mut self, grade: &Field<Word<Invalidation>>, cache: &RawCache) {
        let Field::Set(Word(Invalidation::Fenced), span) = grade else { return };
        let (title, expected) = match &cache.redis {
            Field::Absent => ("\"fenced\" needs a Redis in which writes are counted", "a section [cache.redis]"),
            Field::Set(redis, _)
                if redis.mode.word(RedisMode::Single).is_some_and(|mode| mode != RedisMode::Single) =>
            {
                (
                    "\"fenced\" needs one Redis server: where another takes its place counts may be lost",
                    r#"mode = "single" in [cache.redis]"#,
                )
            }
            Field::Set(..) | Field::Bad => return,
        };
        self.reader.note(span.clone(), title, |problem| problem.expected(expected));
    }

    fn staleness(&mut self, key: &str, field: &Field<Timeout>) {
        let Field::Set(time, span) = field else { return };
        if !(STALENESS_MIN..=STALENESS_MAX).contains(&time.0) {
            let title = format!("`{key}` is out of bounds");
            self.reader.note(span.clone(), title, |problem| problem.expected("a duration from \"100ms\" to \"10m\""));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use crate::config::{Config, Invalidation, Password};

    fn parsed(cache: &str, database: &str) -> Result<Config, String> {
        let text =
            format!("[cache]\n{cache}\n[databases.a]\nprimary = \"h1\"\n{database}\n[users.u]\npassword = \"x\"");
        Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
    }

    #[test]
    fn a_database_overrides_what_holds_for_all() {
        let config = parsed("mode = \"on\"", "").unwrap();
        assert_eq!((config.cache.invalidation, config.logical("a")), (Invalidation::Ttl, None));
        assert_eq!(config.terms("a", "u").cache_staleness, None);
        let logical = parsed("mode = \"on\"\ninvalidation = \"logical\"", "").unwrap().logical("a").unwrap();
        assert_eq!((logical.max_staleness, logical.publication.as_str()), (Duration::from_secs(1), "pgweir"));
        assert_eq!((logical.login.clone(), logical.interval()), (None, Duration::from_millis(125)));
        let own = "cache_invalidation = \"logical\"\ncache_max_staleness = \"100ms\"\ncache_publication = \"p\"\n\
            cache_user = \"follower\"\ncache_password = \"secret\"";
        let config = parsed("mode = \"on\"\nmax_staleness = \"5s\"", own).unwrap();
        let logical = config.logical("a").unwrap();
        assert_eq!((logical.max_staleness.as_millis(), logical.publication.as_str()), (100, "p"));
        let (user, password) = logical.login.clone().unwrap();
        assert!(user == "follower" && matches!(password, Some(Password::Plain(_))));
        assert_eq!(logical.interval(), Duration::from_millis(25));
        assert_eq!(config.terms("a", "u").cache_staleness, Some(Duration::from_millis(100)));
        let off = parsed("mode = \"on\"\ninvalidation = \"logical\"", "cache_invalidation = \"ttl\"").unwrap();
        assert_eq!(off.logical("a"), None);
        assert_eq!(config.logical("b"), None);
        assert_eq!(config.cache_bound("a"), Some(Duration::from_millis(100)));
        let bound = |cache: &str, own: &str| parsed(cache, own).unwrap().cache_bound("a").map(|bound| bound.as_secs());
        assert_eq!(bound("mode = \"on\"\nttl = \"1m\"", "cache_ttl = \"10s\""), Some(10));
        assert_eq!((bound("mode = \"on\"", ""), bound("ttl = \"1m\"", "")), (None, None));
        let longer = "mode = \"on\"\nttl = \"1m\"\nstale_while_revalidate = \"5s\"\nstale_if_error = \"1h\"";
        assert_eq!((bound(longer, ""), bound(longer, "cache_stale_if_error = 0")), (Some(3660), Some(65)));
        assert_eq!(bound(longer, "cache_ttl = 0"), Some(0), "nothing is kept");
        let stale = parsed(longer, "cache_stale_while_revalidate = \"1s\"").unwrap().terms("a", "u").stale;
        assert_eq!((stale.while_revalidate.as_secs(), stale.if_error.as_secs()), (1, 3600));
    }

    #[test]
    fn writes_are_fenced_where_that_is_said() {
        let redis = "[cache.redis]\nhosts = [\"h\"]\nsecret = \"0123456789abcdef0123456789abcdef\"";
        let config = parsed(&format!("mode = \"on\"\ninvalidation = \"fenced\"\n{redis}"), "").unwrap();
        assert!(config.fenced("a") && config.terms("a", "u").cache_fenced && config.logical("a").is_none());
        assert_eq!(config.cache_bound("a"), Some(Duration::ZERO));
        let own = parsed(&format!("mode = \"shadow\"\n{redis}"), "cache_invalidation = \"fenced\"").unwrap();
        assert!(own.fenced("a") && !own.fenced("b"));
        assert!(!parsed(&format!("invalidation = \"fenced\"\n{redis}"), "").unwrap().fenced("a"));
        // Whoever writes by another name of it.
        let more = |host| {
            let other = format!("[databases.b]\nprimary = \"{host}\"\ndbname = \"a\"\ncache_invalidation = \"ttl\"");
            parsed(&format!("mode = \"on\"\n{redis}"), &format!("cache_invalidation = \"fenced\"\n{other}")).unwrap()
        };
        assert!(more("h1").fenced("b") && !more("h2").fenced("b"));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (cache, database, said) in [
            ("invalidation = \"lsn\"", "", "\"ttl\", \"logical\" or \"fenced\""),
            ("invalidation = \"fenced\"", "", "needs a Redis in which writes are counted"),
            ("", "cache_invalidation = \"fenced\"", "a section [cache.redis]"),
            (
                "invalidation = \"fenced\"\n[cache.redis]\nmode = \"cluster\"\nhosts = [\"h\"]",
                "",
                "needs one Redis server",
            ),
            ("max_staleness = \"50ms\"", "", "from \"100ms\" to \"10m\""),
            ("max_staleness = 0", "", "cannot be turned off"),
            ("", "cache_max_staleness = \"1h\"", "`cache_max_staleness` is out of bounds"),
            ("", "cache_password = \"x\"", "no `cache_user` it belongs to"),
        ] {
            let problems = parsed(cache, database).unwrap_err();
            assert!(problems.contains(said), "{problems}\nlacks: {said}");
        }
    }
}
