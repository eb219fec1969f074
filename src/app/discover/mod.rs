//! Finds out who the servers of databases are whose configuration says only whom to ask (`discover`).
//! Must never be waited for by a worker, nor take a server away because nobody answered who they are.
//!
//! All of it is on the control thread. A change takes effect as a reload does that has changed the servers of one database:
//! its groups are replaced, and clients move to the new ones between transactions. What the servers are is none of this:
//! they are asked themselves.

mod dns;
mod patroni;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::dns::Names;
use self::patroni::Apis;
use crate::config::{Config, Database, Discover, Endpoint, Found, MAX_HOSTS};
use crate::pool::cluster::Clusters;

/// How long the start, and a reload with other places to ask, wait for a first answer.
const FIRST: Duration = Duration::from_secs(5);
/// Pause between two questions while no server is known, or none takes writes.
const HURRY: Duration = Duration::from_secs(1);

/// Who is asked.
enum Asker {
    Dns(Names),
    Patroni(Apis),
}

impl Asker {
    fn new(discover: &Discover, known: Option<&Found>) -> Self {
        match discover {
            Discover::Dns(names) => Self::Dns(Names::new(names, known)),
            Discover::Patroni { apis, ca_file } => Self::Patroni(Apis::new(apis, ca_file.as_deref(), known)),
        }
    }

    /// The servers as they are now, at least one.
    async fn ask(&mut self) -> Result<Found, String> {
        let mut found = match self {
            Self::Dns(names) => names.ask().await?,
            Self::Patroni(apis) => apis.ask().await?,
        };
        if found.servers.len() > MAX_HOSTS {
            tracing::error!("{} servers are too many, the first {MAX_HOSTS} are used", found.servers.len());
            found.servers = found.servers.into_iter().take(MAX_HOSTS).collect();
        }
        if found.servers.is_empty() { Err("the answer has no server".into()) } else { Ok(found) }
    }
}

/// The servers of a database were found to be others than before.
pub(super) struct News {
    database: String,
    /// By what was in force when it was asked.
    by: Discover,
    found: Found,
}

impl News {
    /// The configuration with these servers; `None` if they are there already, or are not asked for any more.
    pub(super) fn into_config(self, config: &Config) -> Option<Config> {
        let known = config.databases.get(&self.database)?;
        if known.discover.as_ref() != Some(&self.by) || known.found().as_ref() == Some(&self.found) {
            return None;
        }
        let mut config = config.clone();
        take(config.databases.get_mut(&self.database)?, &self.found);
        Some(config)
    }
}

fn take(database: &mut Database, found: &Found) {
    database.set_found(found);
    let list =
        |servers: &mut dyn Iterator<Item = &Endpoint>| servers.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (servers, spared) = (list(&mut found.servers.iter()), list(&mut found.spared.iter()));
    let name = &database.name;
    match spared.is_empty() {
        true => tracing::info!(database = name, "the servers are {servers}"),
        false => tracing::info!(database = name, "the servers are {servers}; no reads go to {spared}"),
    }
}

/// Fills in the servers of all databases that have to be found out: as they were `before`, else as whoever is asked says
/// within [`FIRST`]. Of a database whose servers nobody tells none is known.
pub(super) async fn fill(config: &mut Config, before: Option<&Config>) {
    let mut questions = JoinSet::new();
    for (name, database) in &mut config.databases {
        let Some(discover) = database.discover.clone() else { continue };
        let known = before.and_then(|before| before.databases.get(name));
        let known = known.filter(|it| it.discover.as_ref() == Some(&discover)).and_then(Database::found);
        if let Some(found) = known {
            database.set_found(&found);
            continue;
        }
        let name = name.clone();
        questions.spawn(async move {
            let mut asker = Asker::new(&discover, None);
            let late = Err(format!("no answer within {} s", FIRST.as_secs()));
            (name, timeout(FIRST, asker.ask()).await.unwrap_or(late))
        });
    }
    while let Some(answer) = questions.join_next().await {
        let Ok((name, answer)) = answer else { continue };
        match (config.databases.get_mut(&name), answer) {
            (Some(database), Ok(found)) => take(database, &found),
            (_, Err(error)) => {
                tracing::error!(database = name, "no server is known yet, clients have to wait: {error}");
            }
            (None, Ok(_)) => {}
        }
    }
}

/// Goes on asking.
pub(super) struct Discovery {
    /// One per database; they end with the value.
    tasks: JoinSet<()>,
    sender: mpsc::UnboundedSender<News>,
    inbox: mpsc::UnboundedReceiver<News>,
}

impl Discovery {
    /// Asks nobody until told whom.
    pub(super) fn new() -> Self {
        let (sender, inbox) = mpsc::unbounded_channel();
        Self { tasks: JoinSet::new(), sender, inbox }
    }

    /// From now on for the databases of this configuration.
    pub(super) fn watch(&mut self, config: &Config, clusters: &Arc<Clusters>) {
        self.tasks = JoinSet::new();
        for database in config.databases.values() {
            let Some(discover) = &database.discover else { continue };
            self.tasks.spawn(follow(
                database.name.clone(),
                discover.clone(),
                database.found(),
                config.pool.discover_interval,
                Arc::clone(clusters),
                self.sender.clone(),
            ));
        }
    }

    /// The next change. Cancel safe.
    pub(super) fn news(&mut self) -> impl Future<Output = Option<News>> {
        self.inbox.recv()
    }
}

async fn follow(
    database: String,
    by: Discover,
    mut known: Option<Found>,
    interval: Duration,
    clusters: Arc<Clusters>,
    sender: mpsc::UnboundedSender<News>,
) {
    let mut asker = Asker::new(&by, known.as_ref());
    let mut silent = false;
    loop {
        let asked = Instant::now();
        loop {
            tokio::time::sleep(interval.min(HURRY)).await;
            if asked.elapsed() >= interval || known.is_none() || clusters.lacks_primary(&database) {
                break;
            }
        }
        match asker.ask().await {
            Ok(found) => {
                if std::mem::take(&mut silent) {
                    tracing::info!(database, "it is known again who the servers are");
                }
                if known.as_ref() != Some(&found) {
                    known = Some(found.clone());
                    let news = News { database: database.clone(), by: by.clone(), found };
                    if sender.send(news).is_err() {
                        return;
                    }
                }
            }
            Err(error) if !std::mem::replace(&mut silent, true) => {
                tracing::warn!(database, "the servers stay who they were: {error}");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Database;

    fn news(by: &str, servers: &[&str]) -> (News, Config) {
        let text = format!("[databases.a]\ndiscover = [\"{by}\"]\n[users.u]\npassword = \"x\"");
        let config = Config::parse(&text, "f.toml").unwrap();
        let database: &Database = &config.databases["a"];
        let by = database.discover.clone().unwrap();
        let found = Found { servers: servers.iter().map(|it| it.parse().unwrap()).collect(), ..Found::default() };
        (News { database: "a".into(), by, found }, config)
    }

    #[test]
    fn what_is_no_change_changes_nothing() {
        let (first, config) = news("dns://h", &["10.0.0.1", "10.0.0.2"]);
        let config = first.into_config(&config).unwrap();
        let hosts: Vec<String> = config.databases["a"].hosts().map(ToString::to_string).collect();
        assert_eq!(hosts, ["10.0.0.1:5432", "10.0.0.2:5432"]);
        assert!(news("dns://h", &["10.0.0.2", "10.0.0.1"]).0.into_config(&config).is_none());
        // Of somebody who is not asked any more.
        assert!(news("dns://i", &["10.0.0.3"]).0.into_config(&config).is_none());
        assert!(news("dns://h", &["10.0.0.3"]).0.into_config(&config).is_some());
    }

    #[tokio::test]
    async fn servers_known_before_a_reload_are_known_behind_it() {
        let (first, config) = news("dns://nowhere.invalid", &["10.0.0.1"]);
        let before = first.into_config(&config).unwrap();
        let mut after = config;
        fill(&mut after, Some(&before)).await;
        assert_eq!(after, before);
        // Elsewhere they say nothing.
        let mut other = news("dns://127.0.0.1:1", &[]).1;
        fill(&mut other, Some(&before)).await;
        assert_eq!(other.databases["a"].primary.to_string(), "127.0.0.1:1");
    }
}
