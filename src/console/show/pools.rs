//! `SHOW POOLS`, `SHOW DATABASES`, `SHOW USERS`.
//! Must never leave out a database or user because nobody uses it.

use std::collections::BTreeMap;

use super::super::Console;
use super::super::table::{Value, row};
use super::Rows;
use crate::config::{Config, Database, Endpoint, Host, PoolMode};
use crate::relay::census::PoolRow;
use crate::wire::error::PgError;

/// How the console's own pool is called.
const OWN: &str = "pgbouncer";

/// The pools of a database and user, or of either, on all workers.
#[derive(Clone, Copy, Default)]
struct Sum {
    mode: Option<PoolMode>,
    active: u32,
    idle: u32,
    waiting: u32,
    servers: [u32; 5],
    cancels: u32,
    maxwait_us: u64,
}

impl Sum {
    fn add(&mut self, pool: &PoolRow) {
        self.mode = Some(pool.mode);
        self.active += pool.clients_active;
        self.idle += pool.clients_idle;
        self.waiting += pool.clients_waiting;
        let servers = [pool.active, pool.idle, pool.cleaning, pool.cooling, pool.opening];
        self.servers.iter_mut().zip(servers).for_each(|(sum, n)| *sum += n);
        self.cancels += pool.cancels;
        // A wait that was not seen to begin is none.
        let waited_us = if pool.maxwait_us == u64::MAX { 0 } else { pool.maxwait_us };
        self.maxwait_us = self.maxwait_us.max(waited_us);
    }

    fn clients(&self) -> u32 {
        self.active + self.idle + self.waiting
    }

    fn connections(&self) -> u32 {
        self.servers.iter().sum()
    }
}

fn sums<K: Ord>(pools: &[PoolRow], key: impl Fn(&PoolRow) -> K) -> BTreeMap<K, Sum> {
    let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
    pools.iter().for_each(|pool| sums.entry(key(pool)).or_default().add(pool));
    sums
}

impl Console {
    pub(super) async fn pools(&self) -> Result<Rows, PgError> {
        let census = self.census().await?;
        let all = sums(&census.pools, |pool| (pool.database.clone(), pool.user.clone()));
        let own =
            Sum { mode: Some(PoolMode::Statement), active: self.sessions.borrow().len() as u32, ..Sum::default() };
        let row = |((database, user), sum): ((String, String), Sum)| {
            let [active, idle, cleaning, cooling, opening] = sum.servers;
            // As PgBouncer counts, a client is active unless it waits.
            row![
                database,
                user,
                sum.active + sum.idle,
                sum.waiting,
                sum.cancels,
                0u32,
                active,
                sum.cancels,
                cooling,
                idle,
                0u32,
                cleaning,
                opening,
                sum.maxwait_us / 1_000_000,
                sum.maxwait_us % 1_000_000,
                sum.mode.map(PoolMode::as_str),
                Value::Null,
            ]
        };
        Ok(all.into_iter().chain([((OWN.to_owned(), OWN.to_owned()), own)]).map(row).collect())
    }

    pub(super) async fn databases(&self) -> Result<Rows, PgError> {
        let census = self.census().await?;
        let sums = sums(&census.pools, |pool| pool.database.clone());
        let config = self.config();
        let mut rows: Rows = config
            .databases
            .values()
            .map(|entry| self.database_row(&config, entry, sums.get(&entry.name).copied().unwrap_or_default()))
            .collect();
        let sessions = self.sessions.borrow().len();
        rows.push(row![
            OWN,
            None::<&str>,
            config.listen.port,
            OWN,
            OWN,
            2u32,
            0u32,
            0u32,
            0u32,
            "statement",
            None::<&str>,
            0u32,
            0u32,
            0u32,
            sessions,
            0u32,
            0u32,
        ]);
        Ok(rows)
    }

    fn database_row(&self, config: &Config, entry: &Database, sum: Sum) -> Vec<Value> {
        // Of several hosts the one that takes writes.
        let clusters = self.about.clusters.shown();
        let cluster = clusters.iter().find(|(name, _)| *name == entry.name).map(|(_, cluster)| cluster);
        let primary = cluster.and_then(|cluster| cluster.members.get(cluster.primary()?)).map(|it| &it.endpoint);
        let primary = primary.unwrap_or(&entry.primary);
        let pool = &config.pool;
        let lifetime = entry.terms.server_lifetime.or(pool.server_lifetime).unwrap_or_default();
        let paused = self.paused.borrow();
        row![
            entry.name.as_str(),
            host(primary),
            primary.port,
            entry.dbname.as_str(),
            entry.user.as_deref(),
            entry.terms.pool_size.unwrap_or(pool.default_pool_size),
            entry.terms.min_pool_size.unwrap_or(pool.min_pool_size),
            entry.terms.reserve_pool_size.unwrap_or(pool.reserve_pool_size),
            lifetime.as_secs(),
            entry.terms.pool_mode.map(PoolMode::as_str),
            Value::Null,
            config.max_db_connections(&entry.name),
            sum.connections(),
            config.database_client_limit(entry).map_or(0, |(limit, _)| limit),
            sum.clients(),
            paused.all || paused.databases.contains(&entry.name),
            self.disabled.borrow().contains(&entry.name),
        ]
    }

    pub(super) async fn users(&self) -> Result<Rows, PgError> {
        let census = self.census().await?;
        let sums = sums(&census.pools, |pool| pool.user.clone());
        let config = self.config();
        // Also whoever was looked up.
        let names: std::collections::BTreeSet<&String> = config.users.keys().chain(sums.keys()).collect();
        let row = |name: &String| {
            let user = config.users.get(name);
            let terms = user.map(|user| &user.terms);
            let sum = sums.get(name).copied().unwrap_or_default();
            // PgBouncer has these as text of this width.
            let padded = |size: Option<u32>| size.map(|size| format!("{size:>9}"));
            row![
                name.as_str(),
                padded(terms.and_then(|terms| terms.pool_size)),
                padded(terms.and_then(|terms| terms.reserve_pool_size)),
                terms.and_then(|terms| terms.pool_mode).map(PoolMode::as_str),
                config.max_user_connections(name),
                sum.connections(),
                user.and_then(|user| config.user_client_limit(user)).map_or(0, |(limit, _)| limit),
                sum.clients(),
            ]
        };
        Ok(names.into_iter().map(row).collect())
    }
}

/// What stands for a host where its port stands beside it.
pub(super) fn host(endpoint: &Endpoint) -> Option<String> {
    match &endpoint.host {
        Host::Tcp(name) => Some(name.clone()),
        Host::Unix(directory) => Some(directory.display().to_string()),
        Host::Unknown => None,
    }
}
