//! All clusters of the process: one for all databases on the same hosts.
//! Must never forget what was seen of a database's hosts because others were added or taken away.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::cluster::Cluster;
use crate::base::clock;
use crate::config::{Database, Discover, Endpoint, Roles};

/// All clusters of the process, by their hosts.
#[derive(Debug, Default)]
pub struct Clusters(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By their hosts, how their roles are known, and whether they were found out.
    by_hosts: HashMap<(Vec<Endpoint>, Roles, bool), Weak<Cluster>>,
    /// By the name of a database that each holds.
    by_name: BTreeMap<String, Kin>,
}

/// The cluster that holds a database, and what is to be known of it when another takes its place.
#[derive(Debug)]
struct Kin {
    discover: Option<Discover>,
    hosts: Vec<Endpoint>,
    cluster: Weak<Cluster>,
    newest: Arc<AtomicU32>,
}

impl Kin {
    /// Whether those hosts are the same cluster, with more or fewer members: then timelines can be compared.
    fn is_of(&self, database: &Database, hosts: &[Endpoint]) -> bool {
        let shared = |host: &&Endpoint| **host != Endpoint::UNKNOWN && hosts.contains(host);
        let same = self.discover.is_some() && self.discover == database.discover;
        same || self.hosts.iter().any(|host| shared(&host))
    }
}

impl Clusters {
    /// The cluster that holds this database.
    pub fn of(&self, database: &Database) -> Arc<Cluster> {
        let hosts: Vec<Endpoint> = database.hosts().cloned().collect();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_hosts.retain(|_, cluster| cluster.strong_count() > 0);
        let kin = known.by_name.get(&database.name).filter(|kin| kin.is_of(database, &hosts));
        let newest = kin.map(|kin| Arc::clone(&kin.newest));
        let before = kin.and_then(|kin| kin.cluster.upgrade());
        let key = (hosts, database.roles, database.discover.is_some());
        let cluster = known.by_hosts.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let mut cluster = match &database.discover {
                Some(_) => Cluster::found(&key.0),
                None => Cluster::new(key.0.iter().cloned(), database.roles),
            };
            if let Some(newest) = &newest {
                cluster.newest = Arc::clone(newest);
            }
            if let Some(before) = before.filter(|before| before.is_watched() && cluster.is_watched()) {
                cluster.succeed(&before, clock::now_us());
            }
            let cluster = Arc::new(cluster);
            known.by_hosts.insert(key.clone(), Arc::downgrade(&cluster));
            cluster
        });
        if let Some(newest) = newest {
            cluster.newest.fetch_max(newest.load(SeqCst), SeqCst);
        }
        let kin = Kin {
            discover: database.discover.clone(),
            hosts: key.0,
            cluster: Arc::downgrade(&cluster),
            newest: Arc::clone(&cluster.newest),
        };
        known.by_name.insert(database.name.clone(), kin);
        cluster
    }

    /// Those of databases with several hosts that are in use, by the name of the database.
    #[must_use]
    pub fn shown(&self) -> Vec<(String, Arc<Cluster>)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = known.by_name.iter().filter_map(|(name, kin)| Some((name.clone(), kin.cluster.upgrade()?)));
        shown.filter(|(_, cluster)| cluster.is_watched()).collect()
    }

    /// Whether somebody uses the database, and none of its hosts takes writes.
    #[must_use]
    pub fn lacks_primary(&self, database: &str) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = known.by_name.get(database).and_then(|kin| kin.cluster.upgrade());
        cluster.is_some_and(|cluster| cluster.primary().is_none())
    }
}

#[cfg(test)]
#[path = "clusters_tests.rs"]
mod tests;
