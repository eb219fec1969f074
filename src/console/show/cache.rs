//! `SHOW CACHE`: what the cache promises, what it holds, and what it was good for.
//! Must never call a bound what nobody has set.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::super::Console;
use super::super::table::{Value, row};
use super::Rows;
use crate::base::clock;
use crate::cache::Account;
use crate::config::{Cache, CacheMode, Config, Stale, format_duration};
use crate::meter::{CacheCounters, Miss};

/// What was counted, of one database or of all.
#[derive(Clone, Copy, Default)]
struct Numbers {
    hits: u64,
    misses: [u64; 5],
    bypasses: u64,
    fills: u64,
    refused: u64,
    verified: u64,
    mismatches: u64,
    disabled: u64,
    early: u64,
    stale: u64,
    warmed: u64,
    warm_failed: u64,
}

impl Numbers {
    fn add(&mut self, counters: &CacheCounters) {
        self.hits += counters.hits.get();
        self.misses.iter_mut().zip(Miss::ALL).for_each(|(sum, why)| *sum += counters.miss(why).get());
        self.bypasses += counters.bypassed();
        self.fills += counters.fills.get();
        let wrong = counters.mismatches.get();
        self.verified += counters.verified_same.get() + counters.verified_changed.get() + wrong;
        self.mismatches += wrong;
        self.refused += counters.refused();
        self.early += counters.early.get();
        self.stale += counters.stale_updating.get() + counters.stale_error.get();
    }

    fn and(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses.iter_mut().zip(other.misses).for_each(|(sum, more)| *sum += more);
        self.bypasses += other.bypasses;
        self.fills += other.fills;
        self.refused += other.refused;
        self.verified += other.verified;
        self.mismatches += other.mismatches;
        self.disabled += other.disabled;
        self.early += other.early;
        self.stale += other.stale;
        self.warmed += other.warmed;
        self.warm_failed += other.warm_failed;
    }
}

/// How old an answer may be, in words; `None` where nothing is kept.
fn bound(config: &Config, database: &str) -> Option<String> {
    if config.cache.mode == CacheMode::Off {
        return None;
    }
    if config.fenced(database) {
        let ttl = config
            .longest_cached(database)
            .map_or_else(|| "nothing".to_owned(), |ttl| format!("{} (ttl)", format_duration(ttl)));
        return Some(format!("shows every write through any pgweir, or steps aside; of others it is bounded by {ttl}"));
    }
    if let Some(logical) = config.logical(database) {
        let staleness = format_duration(logical.max_staleness);
        return Some(format!(
            "shows what was committed {staleness} ago, or steps aside; without a followed table its ttl"
        ));
    }
    Some(match config.longest_cached(database) {
        Some(ttl) if ttl.is_zero() => "nothing is kept: ttl = 0".to_owned(),
        Some(ttl) => format!(
            "{} old at most (ttl), less where a user, rule or comment says so{}",
            format_duration(ttl),
            longer(config.stale(database))
        ),
        None => format!(
            "as old as a user, rule or comment says; without one nothing is kept{}",
            longer(config.stale(database))
        ),
    })
}

/// How much older it may be when its time is over, in words.
fn longer(stale: Stale) -> String {
    let one = |time: Duration, when: &str| match time.is_zero() {
        true => String::new(),
        false => format!("; {} more {when}", format_duration(time)),
    };
    one(stale.while_revalidate, "while it is renewed") + &one(stale.if_error, "while no server answers")
}

/// Share of hits of all that could have been one.
fn ratio(numbers: &Numbers) -> Option<String> {
    let all = numbers.hits + numbers.misses.iter().sum::<u64>();
    (all > 0).then(|| format!("{:.4}", numbers.hits as f64 / all as f64))
}

fn up(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

impl Console {
    pub(super) fn cache(&self) -> Rows {
        let (config, registry) = (self.config(), &self.about.registry);
        let store = self.about.caches.store();
        let accounts = store.as_ref().map(|store| store.accounts()).unwrap_or_default();
        let mut counted: BTreeMap<&str, Numbers> = BTreeMap::new();
        let pools = registry.pools();
        pools.iter().for_each(|pool| counted.entry(&pool.target.database).or_default().add(&pool.cache));
        let (mut all, mut account) = (Numbers::default(), Account::default());
        let mut rows = Rows::new();
        let redis = config.cache.redis.as_ref().filter(|_| config.cache.mode == CacheMode::On);
        let redis = redis.map(|_| up(registry.remote.up.load(Relaxed) > 0));
        let hearings = store.as_ref().map(|store| store.hearings()).unwrap_or_default();
        let fences = store.as_ref().map(|store| store.fences()).unwrap_or_default();
        let disabled = store.as_ref().map(|store| store.disabled()).unwrap_or_default();
        for name in config.databases.keys() {
            let mut numbers = counted.get(name.as_str()).copied().unwrap_or_default();
            numbers.disabled = disabled.keys().filter(|(database, _)| **database == **name).count() as u64;
            let own = accounts.get(name.as_str()).copied().unwrap_or_default();
            if let Some(health) = registry.database(name) {
                (numbers.warmed, numbers.warm_failed) = (health.warm.kept.get(), health.warm.failed.get());
            }
            all.and(&numbers);
            account.entries += own.entries;
            account.bytes += own.bytes;
            account.evicted += own.evicted;
            let logical = config.logical(name);
            let health = registry.database(name).filter(|_| logical.is_some());
            let wanted = health.as_ref().filter(|health| health.stream.wanted.load(Relaxed));
            let hearing = hearings.get(name.as_str()).filter(|_| config.cache.signals.is_some());
            let fence =
                fences.get(name.as_str()).filter(|_| config.fenced(name)).map(|fence| up(fence.serves().is_some()));
            let grade = match &logical {
                Some(_) => "logical",
                None if config.fenced(name) => "fenced",
                None => "ttl",
            };
            let mut row = row![
                name.as_str(),
                config.cache.mode.as_str(),
                grade,
                bound(&config, name),
                wanted.map(|health| up(health.stream.flows.load(Relaxed))).or(fence),
                wanted.and_then(|health| health.stream.age_us(clock::now_us())),
                hearing.map(|hearing| up(hearing.since_us() > 0)),
            ];
            row.extend(held(&own, &config.cache));
            row.extend(known(&numbers, &own));
            // What changes ends says nothing in another process.
            row.extend(row![redis.filter(|_| logical.is_none()), None::<u64>, None::<u64>]);
            rows.push(row);
        }
        let mut row =
            row!["*", config.cache.mode.as_str(), None::<&str>, None::<&str>, None::<&str>, None::<u64>, None::<&str>];
        row.extend(held(&account, &config.cache));
        row.extend(known(&all, &account));
        let remote = &registry.remote;
        let counted = redis.map(|_| (remote.hits.get(), remote.missed()));
        row.extend(row![redis, counted.map(|(hits, _)| hits), counted.map(|(_, misses)| misses)]);
        rows.push(row);
        rows
    }
}

fn held(account: &Account, cache: &Cache) -> Vec<Value> {
    row![account.entries, account.bytes, cache.max_bytes]
}

fn known(numbers: &Numbers, account: &Account) -> Vec<Value> {
    let [absent, expired, older, changed, signalled] = numbers.misses;
    row![
        numbers.hits,
        numbers.misses.iter().sum::<u64>(),
        absent,
        expired,
        older,
        changed,
        signalled,
        numbers.bypasses,
        ratio(numbers),
        numbers.fills,
        account.evicted,
        numbers.refused,
        numbers.verified,
        numbers.mismatches,
        numbers.disabled,
        numbers.early,
        numbers.stale,
        numbers.warmed,
        numbers.warm_failed,
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(cache: &str, database: &str) -> Option<String> {
        let text =
            format!("[cache]\n{cache}\n[databases.a]\nprimary = \"h1\"\n{database}\n[users.u]\npassword = \"x\"");
        let config = Config::parse(&text, "f.toml").map_err(|problems| problems.to_string()).unwrap();
        bound(&config, "a")
    }

    #[test]
    fn the_bound_is_the_one_that_was_set() {
        assert_eq!(said("mode = \"off\"\nttl = \"1m\"", ""), None);
        let redis = "[cache.redis]\nhosts = [\"h\"]\nsecret = \"0123456789abcdef0123456789abcdef\"";
        let fenced = said(&format!("mode = \"on\"\nttl = \"1m\"\ninvalidation = \"fenced\"\n{redis}"), "").unwrap();
        assert!(fenced.contains("every write through any pgweir") && fenced.ends_with("1m (ttl)"), "{fenced}");
        let short = said("mode = \"on\"\nttl = \"1m\"", "cache_ttl = \"10s\"").unwrap();
        assert!(short.starts_with("10s old at most"), "{short}");
        assert!(said("mode = \"on\"", "").unwrap().starts_with("as old as a user"));
        let longer = said("mode = \"on\"\nttl = \"1m\"\nstale_if_error = \"1h\"", "").unwrap();
        assert!(longer.ends_with("; 1h more while no server answers"), "{longer}");
        assert!(said("mode = \"on\"", "cache_ttl = 0").unwrap().starts_with("nothing is kept"));
        let logical = said("mode = \"on\"\nmax_staleness = \"400ms\"", "cache_invalidation = \"logical\"").unwrap();
        assert!(logical.contains("400ms ago"), "{logical}");
    }
}
