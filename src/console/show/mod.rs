//! The rows of each `SHOW`.
//! Must never invent a number: what is not known is NULL, what there is none of is 0.

mod alerts;
mod cache;
mod config;
mod lists;
mod pools;
mod queries;
mod replicas;
mod sockets;
mod stats;

use super::Console;
use super::select::Parameters;
use super::session::Seen;
use super::table::{Table, Value, row};
use super::view::View;
use crate::relay::census::Side;
use crate::wire::error::PgError;

/// What `SHOW` gives.
pub(super) type Rows = Vec<Vec<Value>>;

impl Console {
    /// A view as it is now, all of it.
    pub(super) async fn show(&self, view: &View, parameters: &Parameters, seen: &Seen) -> Result<Table, PgError> {
        let rows = match view {
            View::Advice => self.advice().await?,
            View::Alerts => self.alerts(),
            View::Blocked => self.blocked().await?,
            View::ActiveSockets => self.sockets(true, seen).await?,
            View::Sockets => self.sockets(false, seen).await?,
            View::Cache => self.cache(),
            View::Clients => self.connections(Side::Clients, seen).await?,
            View::Servers => self.connections(Side::Servers, seen).await?,
            View::Config => self.settings(),
            View::Databases => self.databases().await?,
            // Names are looked up by the system, which tells nobody what it remembers.
            View::DnsHosts | View::DnsZones => Vec::new(),
            View::Health => self.health(),
            View::Lanes => self.lanes(),
            View::Lists => self.lists().await?,
            View::Mem => self.memory().await?,
            View::PeerPools => self.peer_pools(),
            View::Peers => self.peers(),
            View::Pinned => self.pinned(),
            View::Plans => self.plans().await?,
            View::Pools => self.pools().await?,
            View::Queries(by) => self.queries(*by),
            View::Replicas => self.hosts(),
            View::Routing => self.routing().await?,
            View::Shape(shape) => self.shape(shape.text(parameters)?).await?,
            View::Slow => self.slow().await?,
            View::State => self.state(),
            View::Stats => self.stats(),
            View::StatsAverages => self.stats_averages(),
            View::StatsTotals => self.stats_totals(),
            View::Totals => self.total(),
            View::Users => self.users().await?,
            // The shape that tools look for, and who it is behind it.
            View::Version => vec![row![format!("PgBouncer 1.25.2 (pgweir {})", env!("CARGO_PKG_VERSION"))]],
        };
        let columns = view.columns();
        debug_assert!(rows.iter().all(|row| row.len() == columns.len()), "{view:?}");
        Ok(Table { columns, rows })
    }
}
