//! `SHOW CLIENTS`, `SHOW SERVERS`, `SHOW SOCKETS`, `SHOW ACTIVE_SOCKETS`.
//! Must never show an address that is not the client's own where a proxy says which that is.

use std::net::SocketAddr;

use super::super::Console;
use super::super::session::Seen;
use super::super::table::{Value, row};
use super::super::time::moment;
use super::Rows;
use crate::relay::census::{Row, Side};
use crate::wire::error::PgError;

impl Console {
    /// The sessions of the console are clients, too.
    async fn listed(&self, side: Side, seen: &Seen) -> Result<Vec<Row>, PgError> {
        let mut rows = self.rows(side).await?;
        if side == Side::Clients {
            rows.extend(self.sessions.borrow().values().map(|session| {
                let own = session.row.id == seen.row.id;
                let state = if own { "active" } else { "idle" };
                Row { state, request_us: session.request_us.get(), ..session.row.clone() }
            }));
        }
        Ok(rows)
    }

    pub(super) async fn connections(&self, side: Side, seen: &Seen) -> Result<Rows, PgError> {
        let port = self.config().listen.port;
        Ok(self.listed(side, seen).await?.into_iter().map(|row| socket(side, row, port)).collect())
    }

    /// With what is under way in their buffers; only those that do something, or all.
    pub(super) async fn sockets(&self, only_active: bool, seen: &Seen) -> Result<Rows, PgError> {
        let port = self.config().listen.port;
        let mut rows = Vec::new();
        for side in [Side::Clients, Side::Servers] {
            for row in self.listed(side, seen).await? {
                if only_active && row.state == "idle" {
                    continue;
                }
                let (received, unsent) = (row.received, row.unsent);
                let mut values = socket(side, row, port);
                // Positions inside a buffer that is passed on as it comes are always its beginning.
                values.extend(row![0u32, 0u32, 0u32, 0u32, unsent, received, unsent]);
                rows.push(values);
            }
        }
        Ok(rows)
    }
}

fn socket(side: Side, row: Row, listen_port: u16) -> Vec<Value> {
    let Row { user, database, replication, state, is_unix, key, link, tls, application_name, .. } = row;
    let end = |address: Option<SocketAddr>| match address {
        Some(address) => (address.ip().to_canonical().to_string(), address.port()),
        None if is_unix => ("unix".to_owned(), listen_port),
        None => (String::new(), 0),
    };
    let ((addr, port), (local_addr, local_port)) = (end(row.peer), end(row.local));
    row![
        if side == Side::Clients { "C" } else { "S" },
        user,
        database,
        replication,
        state,
        addr,
        port,
        local_addr,
        local_port,
        moment(row.since_us),
        moment(row.request_us),
        row.wait_us / 1_000_000,
        row.wait_us % 1_000_000,
        row.close_needed,
        key,
        link,
        row.pid,
        tls,
        application_name,
        row.prepared,
        row.id,
    ]
}
