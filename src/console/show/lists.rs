//! `SHOW LISTS`, `SHOW STATE`, `SHOW MEM`, `SHOW PEERS`, `SHOW PEER_POOLS`.
//! Must never count what pgweir does not have as anything but 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

use super::super::Console;
use super::super::table::row;
use super::Rows;
use super::pools::host;
use crate::wire::error::PgError;

impl Console {
    pub(super) async fn lists(&self) -> Result<Rows, PgError> {
        let census = self.census().await?;
        let config = self.config();
        let pools: BTreeSet<_> = census.pools.iter().map(|pool| (&pool.database, &pool.user)).collect();
        let used = |name: &str| census.slots.iter().filter(|it| it.name == name).map(|it| it.used).sum::<usize>();
        let sessions = self.sessions.borrow().len();
        let (clients, servers) = (used("client"), used("server"));
        // Those that have a place and are no clients yet.
        let seats = self.about.registry.seats.load(Relaxed) as usize;
        Ok(vec![
            row!["databases", config.databases.len() + 1],
            row!["users", config.users.len()],
            row!["peers", config.peers.len()],
            row!["pools", pools.len() + 1],
            row!["peer_pools", config.peers.len()],
            row!["free_clients", 0u32],
            row!["used_clients", clients + sessions],
            row!["login_clients", seats.saturating_sub(clients)],
            row!["free_servers", 0u32],
            row!["used_servers", servers],
            row!["dns_names", 0u32],
            row!["dns_zones", 0u32],
            row!["dns_queries", 0u32],
            row!["dns_pending", 0u32],
        ])
    }

    pub(super) fn state(&self) -> Rows {
        let paused = self.paused.borrow().all;
        let yes = |is| if is { "yes" } else { "no" };
        vec![row!["active", yes(!paused)], row!["paused", yes(paused)], row!["suspended", yes(false)]]
    }

    /// The tables of the workers. What their entries point to is not in it.
    pub(super) async fn memory(&self) -> Result<Rows, PgError> {
        let mut all: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
        for slots in self.census().await?.slots {
            let (size, used, free) = all.entry(slots.name).or_default();
            (*size, *used, *free) = (slots.size, *used + slots.used, *free + slots.free);
        }
        Ok(all
            .into_iter()
            .map(|(name, (size, used, free))| row![name, size, used, free, size * (used + free)])
            .collect())
    }

    pub(super) fn peers(&self) -> Rows {
        let config = self.config();
        let row = |(id, endpoint): (&u8, &crate::config::Endpoint)| {
            row![u32::from(*id), host(endpoint), endpoint.port, None::<u32>]
        };
        config.peers.iter().map(row).collect()
    }

    /// Cancel requests to other instances have connections of their own, which nobody waits in a queue for.
    pub(super) fn peer_pools(&self) -> Rows {
        self.config().peers.keys().map(|id| row![u32::from(*id), 0u32, 0u32, 0u32, 0u32]).collect()
    }
}
