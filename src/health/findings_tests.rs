//! What is found of counters, traffic and certificates.
//! Must never wait: the moments are handed in.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Cache, CacheMode};
use crate::meter::{Histogram, PoolCounters, PoolTarget};

fn config(more: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::from_urls("postgres://u@h/d", &[]).unwrap();
    config.pool.default_pool_size = 4;
    more(&mut config);
    config
}

/// What is found of one kind: value, whether it fires, whether it is over.
fn found(
    config: &Config,
    registry: &Registry,
    traffic: &BTreeMap<Arc<str>, Traffic>,
    kind: Kind,
) -> Vec<(f64, bool, bool)> {
    let endings = [Ending { file: "c.pem".into(), at_unix_s: 1_000_000.0 }];
    let ground = Ground {
        registry,
        clusters: &Clusters::default(),
        caches: &Caches::default(),
        config,
        traffic,
        endings: &endings,
        now_us: 1,
        now_unix_s: 1_000_000.0 - 86_400.0 * 14.0,
    };
    let all = findings(&ground, &mut Primaries::default());
    all.into_iter().filter(|it| it.kind == kind).map(|it| (it.value, it.fires, it.clears)).collect()
}

#[test]
fn a_pools_workers_are_added_up() {
    let registry = Registry::new();
    let target =
        PoolTarget { database: "d".into(), user: "u".into(), host: "h:5432".into(), pool: DEFAULT_POOL.into() };
    for active in [1, 2] {
        registry.add_pool(PoolCounters::new(target.clone())).servers_active.set(active);
    }
    let nothing = BTreeMap::new();
    assert_eq!(found(&config(|_| ()), &registry, &nothing, Kind::PoolUse), [(0.75, false, false)]);
    let off = config(|config| config.alerts.pool_use = None);
    assert_eq!(found(&off, &registry, &nothing, Kind::PoolUse), []);
    let other = config(|config| {
        let database = config.databases.remove("d").unwrap();
        config.databases.insert("e".into(), database);
    });
    assert_eq!(found(&other, &registry, &nothing, Kind::PoolUse), [], "of a database that is gone nothing is said");
}

fn traffic(fast: u64, slow: u64, errors: u64, hits: u64, misses: u64) -> BTreeMap<Arc<str>, Traffic> {
    let time = Histogram::new();
    (0..fast).for_each(|_| time.record(100));
    (0..slow).for_each(|_| time.record(200_000));
    BTreeMap::from([("d".into(), Traffic { time: time.snapshot(), errors, hits, misses })])
}

#[test]
fn shares_of_too_few_are_none() {
    let registry = Registry::new();
    let (config, shadow) = (
        config(|config| config.cache = Cache { mode: CacheMode::On, ..Cache::default() }),
        config(|config| config.cache = Cache { mode: CacheMode::Shadow, ..Cache::default() }),
    );
    let many = traffic(15, 5, 4, 10, 30);
    assert_eq!(found(&config, &registry, &many, Kind::SlowQueries), [(0.25, true, false)]);
    assert_eq!(found(&config, &registry, &many, Kind::Errors), [(0.2, true, false)]);
    assert_eq!(found(&config, &registry, &many, Kind::CacheMisses), [(0.75, true, false)]);
    assert_eq!(found(&shadow, &registry, &many, Kind::CacheMisses), []);
    let few = traffic(0, 19, 19, 0, 19);
    for kind in [Kind::SlowQueries, Kind::Errors, Kind::CacheMisses] {
        assert_eq!(found(&config, &registry, &few, kind), [(0.0, false, true)]);
    }
}

#[test]
fn certificates_are_told_of_in_time() {
    let registry = Registry::new();
    let nothing = BTreeMap::new();
    let fourteen = config(|_| ());
    assert_eq!(found(&fourteen, &registry, &nothing, Kind::CertificateExpiry), [(1_209_600.0, false, true)]);
    let fifteen = config(|config| config.alerts.certificate_expiry = Some(Duration::from_secs(15 * 86_400)));
    assert_eq!(found(&fifteen, &registry, &nothing, Kind::CertificateExpiry), [(1_209_600.0, true, false)]);
}
