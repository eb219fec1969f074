//! What the API reads from.
//! Must never keep running what it reads from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::health::Watch;
use crate::meter::Registry;
use crate::pool::cluster::Clusters;
use crate::relay::insight::Insight;

/// Asks the workers what they know of statements and who holds servers; without those that do not answer in time. Handed in, as
/// only who is above workers can ask them.
pub type Insights = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Insight> + Send>> + Send + Sync>;

/// Everything that there is to be known.
pub struct Site {
    pub(super) registry: Arc<Registry>,
    pub(super) clusters: Arc<Clusters>,
    pub(super) config: ArcSwap<Config>,
    pub(super) insight: Insights,
    pub(super) watch: Arc<Watch>,
    /// Where clients are listened for.
    pub(super) listeners: Vec<String>,
    /// Where this is served, with the scheme.
    pub(super) stats: String,
    /// Threads that relay.
    pub(super) workers: usize,
}

impl Site {
    /// Of these numbers and hosts, under this configuration.
    #[must_use]
    pub fn new(
        registry: Arc<Registry>,
        clusters: Arc<Clusters>,
        config: Arc<Config>,
        insight: Insights,
        watch: Arc<Watch>,
        (listeners, stats, workers): (Vec<String>, String, usize),
    ) -> Self {
        Self { registry, clusters, config: ArcSwap::new(config), insight, watch, listeners, stats, workers }
    }

    /// Shows this configuration from now on.
    pub fn reconfigure(&self, config: Arc<Config>) {
        self.config.store(config);
    }
}
