//! Sends alerts by NOTIFY, over a connection of pgweir's own that is closed again: alerts are rare.
//! Must never wait for a standby: what it tells of may be that there is none.

use std::time::Duration;

use super::board::Alert;
use super::deliver::Failure;
use super::message::notice;
use super::way::Home;
use crate::auth::ServerSecret;
use crate::config::{AlertNotify, Database, Endpoint};
use crate::server::open::{Dial, OpenError, Parameters, tls_of};
use crate::server::talk::Talk;
use crate::wire::error::SqlState;

/// Settings of the connection. A notification is a commit: with a standby to be waited for, that may never end.
const STARTUP: [(&str, &str); 6] = [
    ("search_path", "pg_catalog"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("synchronous_commit", "off"),
    ("statement_timeout", "10s"),
    ("application_name", "pgweir alerts"),
];

/// Notifies whoever listens on the primary; each alert is a notification.
pub(super) async fn send(notify: &AlertNotify, alerts: &[Alert], home: &Home) -> Result<(), Failure> {
    let config = home.config.load_full();
    let Some(database) = config.databases.get(&notify.database) else {
        return Err(Failure::Never("there is no such database any more".to_owned()));
    };
    let tls = tls_of(database).map_err(|error| Failure::Later(error.to_string()))?;
    let hosts = hosts(database, home);
    let limit = notify.timeout / u32::try_from(hosts.len().max(1)).unwrap_or(u32::MAX);
    let sql = statements(&notify.channel, alerts, &home.instance);
    let mut failed = Failure::Later("no host takes writes".to_owned());
    for host in &hosts {
        let secret = ServerSecret::of(notify.password.clone());
        let dial = Dial::new(&config, database, host, &notify.user, secret, tls.clone());
        match once(&dial.with_startup(startup()), &sql, limit).await {
            Ok(()) => return Ok(()),
            // read_only_sql_transaction: a standby; another one may be the primary.
            Err(OpenError::Refused(error)) if error.code == SqlState(*b"25006") => {}
            Err(error) if error.is_permanent() => failed = Failure::Never(format!("{host}: {error}")),
            Err(error) => failed = Failure::Later(format!("{host}: {error}")),
        }
    }
    Err(failed)
}

/// The primary, where it is known who that is; else all that may be it.
fn hosts(database: &Database, home: &Home) -> Vec<Endpoint> {
    let watched = home.clusters.shown().into_iter().find(|(name, _)| *name == database.name);
    match watched {
        Some((_, cluster)) => {
            let primary = cluster.primary().and_then(|number| cluster.members.get(number));
            primary.map(|member| member.endpoint.clone()).into_iter().collect()
        }
        None => database.hosts().filter(|host| **host != Endpoint::UNKNOWN).cloned().collect(),
    }
}

fn startup() -> Parameters {
    STARTUP.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).to_vec()
}

async fn once(dial: &Dial, sql: &str, limit: Duration) -> Result<(), OpenError> {
    let mut talk = Talk::connect(dial, limit).await?;
    talk.rows(sql).await.map(drop)
}

/// One statement for each alert, all in one transaction.
fn statements(channel: &str, alerts: &[Alert], instance: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let one = |alert| format!("SELECT pg_notify({}, {})", quoted(channel), quoted(&notice(alert, instance)));
    alerts.iter().map(one).collect::<Vec<String>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::super::board::AlertState;
    use super::super::message::tests::alert;
    use super::*;

    #[test]
    fn a_quote_stays_in_its_text() {
        let sql = statements("it's", &[alert(AlertState::Firing), alert(AlertState::Resolved)], "a'b");
        let (first, second) = sql.split_once("; ").unwrap_or_default();
        assert!(first.starts_with("SELECT pg_notify('it''s', '{\"") && first.contains("a''b"), "{first}");
        assert!(second.starts_with("SELECT pg_notify(") && second.ends_with("')"), "{second}");
    }
}
