//! `[cache]`: whether answers are kept, how many bytes of them, and for how long.
//! Must never let a strategy be named that there is not: what names none would be kept for too long, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::invalidation::Invalidation;
use super::leaf::Text;
use super::problem::nearest;
use super::reader::{Field, Leaf, Named, Reader, Span, one_of};
use super::redis::Redis;
use super::schema::{RawCache, RawConfig};
use super::units::parse_duration;
use super::warm_up::WarmUp;
use super::words::words;

words! {
    /// What the cache does.
    pub enum CacheMode {
        /// Nothing.
        Off = "off",
        /// It keeps answers and compares them with the real ones, and serves none.
        Shadow = "shadow",
        /// It serves.
        On = "on",
    }
    refused {}
}

/// How long an answer is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// So long; zero: not at all.
    Time(Duration),
    /// As the strategy of this name says.
    Strategy(String),
}

/// How much longer answers do whose time is over; zero: no longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stale {
    /// While one client asks a server anew.
    pub while_revalidate: Duration,
    /// While no server answers.
    pub if_error: Duration,
}

/// Longest name of a channel, bytes: `NAMEDATALEN` without its end.
const CHANNEL_BYTES: usize = 63;

/// `[cache]`: answers of reads, kept in the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// What it does. Default [`CacheMode::Off`].
    pub mode: CacheMode,
    /// All answers together, with their keys, bytes. Default 64 MiB.
    pub max_bytes: u64,
    /// The longest answer that is kept, bytes. Default 128 KiB, at most `max_bytes`.
    pub max_entry_bytes: usize,
    /// How much of `max_bytes` one user of one database may have, per cent: 1 to 100. Default 100.
    pub max_tenant_percent: u32,
    /// How long answers are kept of which nobody says so. Default: they are not.
    pub ttl: Option<Ttl>,
    /// What ends an answer's life. Default [`Invalidation::Ttl`].
    pub invalidation: Invalidation,
    /// With [`Invalidation::Logical`]: how old the newest change may be that an answer does not show. Default 1 s.
    pub max_staleness: Duration,
    /// Name of the publication whose changes are followed. Default `pgweir`.
    pub publication: String,
    /// Channel on which applications notify of what does not count any more. Default: none is listened to.
    pub signals: Option<String>,
    /// With [`CacheMode::On`]: which part of all hits is compared with the real answer instead, 0 to 1. Default 0.001.
    pub verify: f64,
    /// How early answers are renewed that end by time, in times of what they took; 0: at their end. Default 1.
    pub early_refresh: f64,
    /// How much longer answers do whose time is over. Default: no longer.
    pub stale: Stale,
    /// `[cache.strategies]`: times with a name.
    pub strategies: BTreeMap<String, Duration>,
    /// `[[cache.warm_up]]`: reads whose answers are there before anybody asks.
    pub warm_up: Vec<WarmUp>,
    /// `[cache.redis]`: answers that processes share. Default: none.
    pub redis: Option<Redis>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: CacheMode::Off,
            max_bytes: 64 << 20,
            max_entry_bytes: 128 << 10,
            max_tenant_percent: 100,
            ttl: None,
            invalidation: Invalidation::Ttl,
            max_staleness: Duration::from_secs(1),
            publication: "pgweir".to_owned(),
            signals: None,
            verify: 0.001,
            early_refresh: 1.0,
            stale: Stale::default(),
            strategies: BTreeMap::new(),
            warm_up: Vec::new(),
            redis: None,
        }
    }
}

impl Cache {
    /// How long that is; zero for a strategy that there is not.
    #[must_use]
    pub fn time(&self, ttl: &Ttl) -> Duration {
        match ttl {
            Ttl::Time(time) => *time,
            Ttl::Strategy(name) => self.strategies.get(name).copied().unwrap_or_default(),
        }
    }

    /// Bytes that one tenant may have.
    #[must_use]
    pub fn max_tenant_bytes(&self) -> u64 {
        if self.max_tenant_percent == 100 {
            self.max_bytes
        } else {
            self.max_bytes / 100 * u64::from(self.max_tenant_percent)
        }
    }

    /// What a comment asks for: seconds, a time, or the name of a strategy. What nobody understands is kept for no time.
    #[must_use]
    pub fn time_in_comment(&self, word: &[u8]) -> Duration {
        let Ok(word) = std::str::from_utf8(word) else { return Duration::ZERO };
        let seconds = || word.parse().ok().map(|seconds: u32| Duration::from_secs(seconds.into()));
        let named = || self.strategies.get(word).copied();
        parse_duration(word).or_else(seconds).or_else(named).unwrap_or_default()
    }

    pub(super) fn of(raw: RawCache, redis: Option<Redis>) -> Self {
        let default = Self::default();
        let max_bytes = raw.max_bytes.set().map_or(default.max_bytes, |size| size.0.into());
        let longest = raw.max_entry_bytes.set().map_or(default.max_entry_bytes, |size| size.0 as usize);
        let named = raw.strategies.set().unwrap_or_default().0.into_iter();
        Self {
            mode: raw.mode.set().map_or(default.mode, |word| word.0),
            max_bytes,
            max_entry_bytes: longest.min(usize::try_from(max_bytes).unwrap_or(usize::MAX)),
            max_tenant_percent: raw.max_tenant_percent.set().map_or(default.max_tenant_percent, |n| n.0),
            ttl: raw.ttl.set(),
            invalidation: raw.invalidation.set().map_or(default.invalidation, |word| word.0),
            max_staleness: raw.max_staleness.set().map_or(default.max_staleness, |time| time.0),
            publication: raw.publication.set().map_or(default.publication, |text| text.0),
            signals: raw.signals.set().map(|text| text.0),
            verify: raw.verify.set().map_or(default.verify, |share| share.0),
            early_refresh: raw.early_refresh.set().map_or(default.early_refresh, |factor| factor.0),
            stale: Stale {
                while_revalidate: raw.stale_while_revalidate.set().map_or(Duration::ZERO, |wait| wait.0),
                if_error: raw.stale_if_error.set().map_or(Duration::ZERO, |wait| wait.0),
            },
            strategies: named.filter_map(|(name, _, time)| Some((name, time?.0))).collect(),
            warm_up: default.warm_up,
            redis,
        }
    }
}

impl Leaf for Ttl {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        const EXPECTED: &str = r#"a duration such as "30s", 0, or the name of a strategy"#;
        match value.get_ref() {
            DeValue::Integer(number) if number.as_str() == "0" => Some(Self::Time(Duration::ZERO)),
            DeValue::Integer(number) => {
                reader.wrong_value(path, value.span(), EXPECTED, Some(format!("\"{}s\"", number.as_str())));
                None
            }
            DeValue::String(_) => {
                let text = Text::read(reader, path, value)?.0;
                let looks_like_time = text.starts_with(|c: char| c.is_ascii_digit());
                match parse_duration(&text) {
                    Some(time) => Some(Self::Time(time)),
                    None if looks_like_time => {
                        reader.wrong_value(path, value.span(), EXPECTED, None);
                        None
                    }
                    None => Some(Self::Strategy(text)),
                }
            }
            _ => {
                reader.wrong_type(path, value, EXPECTED);
                None
            }
        }
    }
}

impl Check<'_> {
    /// Notes what is said of the cache and cannot be so.
    pub(super) fn caching(&mut self, raw: &RawConfig) {
        let cache = match &raw.cache {
            Field::Set(cache, _) => Some(cache),
            Field::Absent => None,
            // Nothing certain can be said about names.
            Field::Bad => return,
        };
        if let Some(cache) = cache {
            self.kept_without_catalog(raw, cache);
            self.channel(&cache.signals);
        }
        let strategies = cache.map(|cache| &cache.strategies);
        if matches!(strategies, Some(Field::Bad)) {
            return;
        }
        let names = match strategies {
            Some(Field::Set(named, _)) => self.strategy_names(named),
            _ => Vec::new(),
        };
        let mut said: Vec<(String, Span)> = Vec::new();
        let mut note = |field: &Field<Ttl>| {
            if let Field::Set(Ttl::Strategy(name), span) = field {
                said.push((name.clone(), span.clone()));
            }
        };
        cache.into_iter().for_each(|cache| note(&cache.ttl));
        if let Field::Set(databases, _) = &raw.databases {
            for database in databases.0.iter().filter_map(|(_, _, database)| database.as_ref()) {
                note(&database.cache_ttl);
                let Field::Set(rules, _) = &database.rules else { continue };
                rules.0.iter().filter_map(|(_, rule)| rule.as_ref()).for_each(|rule| note(&rule.cache_ttl));
            }
        }
        if let Field::Set(users, _) = &raw.users {
            users.0.iter().filter_map(|(_, _, user)| user.as_ref()).for_each(|user| note(&user.cache_ttl));
        }
        for (name, span) in said.into_iter().filter(|(name, _)| !names.contains(name)) {
            let hint = nearest(&name, names.iter().map(String::as_str));
            let expected = match one_of(names.iter().map(|name| format!("{name:?}"))) {
                none if none.is_empty() => "a duration such as \"30s\", or a line in [cache.strategies]".to_owned(),
                known => format!("a duration such as \"30s\", {known}"),
            };
            let title = format!("there is no strategy `{name}`");
            self.reader.note(span, title, |problem| problem.expected(expected).did_you_mean(hint));
        }
    }

    /// PostgreSQL takes no other names (`Async_Notify` in src/backend/commands/async.c).
    fn channel(&mut self, field: &Field<Text>) {
        if let Field::Set(Text(name), span) = field
            && name.len() > CHANNEL_BYTES
        {
            let title = "`signals` cannot be the name of a channel";
            self.reader.note(span.clone(), title, |problem| {
                problem.expected("a name of 1 to 63 bytes, as in NOTIFY; without the key nothing is listened to")
            });
        }
    }

    fn strategy_names<T>(&mut self, named: &Named<T>) -> Vec<String> {
        for (name, span, _) in &named.0 {
            if name.starts_with(|c: char| c.is_ascii_digit()) || name.contains([' ', ',', '*', '/']) {
                let title = format!("`{name}` cannot be the name of a strategy");
                self.reader.note(span.clone(), title, |problem| {
                    problem.expected("a name that does not begin with a digit, without blanks, commas, `*` and `/`")
                });
            }
        }
        named.0.iter().map(|(name, ..)| name.clone()).collect()
    }

    /// Which answers may be kept is found in the catalog.
    fn kept_without_catalog(&mut self, raw: &RawConfig, cache: &RawCache) {
        let never = matches!(&raw.pool, Field::Set(pool, _)
            if matches!(&pool.catalog_refresh, Field::Set(refresh, _) if refresh.is_never()));
        if let Field::Set(mode, span) = &cache.mode
            && mode.0 != CacheMode::Off
            && never
        {
            let title = "the cache needs the catalog, which is never read with `catalog_refresh` = 0";
            self.reader.note(span.clone(), title, |problem| {
                problem.expected("another `catalog_refresh`: what may be kept is found there")
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::config::Config;

    fn parsed(lines: &str) -> Result<Config, String> {
        let text = format!("{lines}\n[databases.a]\nprimary = \"h1\"\n[users.u]\npassword = \"x\"");
        Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
    }

    #[test]
    fn the_shortest_time_wins_by_whatever_name() {
        let text = "[cache]\nmode = \"on\"\nttl = \"1m\"\n[cache.strategies]\nmenu = \"30m\"\norders = \"10s\"\n\
            [databases.a]\nprimary = \"h\"\ncache_ttl = \"menu\"\n[databases.b]\nprimary = \"h\"\ncache_ttl = \"orders\"\n\
            [users.u]\npassword = \"x\"\n[users.v]\npassword = \"x\"\ncache_ttl = 0";
        let config = Config::parse(text, "f.toml").map_err(|problems| problems.to_string()).unwrap();
        let ttl = |database, user| config.terms(database, user).cache_ttl.map(|ttl| ttl.as_secs());
        assert_eq!((ttl("a", "u"), ttl("b", "u"), ttl("b", "v")), (Some(60), Some(10), Some(0)));
        let in_comment = |word: &str| config.cache.time_in_comment(word.as_bytes()).as_secs();
        assert_eq!([in_comment("60"), in_comment("2m"), in_comment("menu"), in_comment("no")], [60, 120, 1800, 0]);
        assert_eq!(parsed("").unwrap().terms("a", "u").cache_ttl, None);
    }

    #[test]
    fn one_tenant_has_its_part() {
        let config =
            parsed("[cache]\nmax_bytes = \"1MB\"\nmax_tenant_percent = 25\nmax_entry_bytes = \"2MiB\"").unwrap();
        assert_eq!([config.cache.verify, parsed("[cache]\nverify = 1").unwrap().cache.verify], [0.001, 1.0]);
        assert_eq!((config.cache.max_tenant_bytes(), config.cache.max_entry_bytes), (250_000, 1_000_000));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (lines, said) in [
            ("[cache]\nmode = \"yes\"", "\"off\", \"shadow\" or \"on\""),
            ("[cache]\nttl = 30", "\"30s\""),
            ("[cache]\nttl = \"30 apples\"", "a duration such as"),
            ("[cache]\nttl = \"menue\"\n[cache.strategies]\nmenu = \"1m\"", "did you mean `menu`"),
            ("[cache]\nttl = \"menu\"", "there is no strategy `menu`"),
            ("[cache.strategies]\n30m = \"1m\"", "cannot be the name of a strategy"),
            (&format!("[cache]\nsignals = \"{}\"", "x".repeat(64)), "cannot be the name of a channel"),
            ("[cache]\nsignals = true", "a string"),
            ("[cache]\nverify = 1.5", "from 0 to 1"),
            ("[cache]\nverify = \"10%\"", "from 0 to 1"),
            ("[cache]\nverify = nan", "from 0 to 1"),
            ("[cache]\nearly_refresh = -1", "from 0 to 100"),
            ("[cache]\nearly_refresh = \"1s\"", "from 0 to 100"),
            ("[cache]\nstale_if_error = 60", "\"60s\""),
            ("[cache]\nmax_tenant_percent = 0", "from 1 to 100"),
            ("[cache]\nmode = \"on\"\n[pool]\ncatalog_refresh = 0", "`catalog_refresh`"),
        ] {
            let problem = parsed(lines).unwrap_err();
            assert!(problem.contains(said), "{lines}: {problem}");
        }
    }
}
