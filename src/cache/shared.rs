//! The one store of a process, as its configuration wants it, and what takes back answers.
//! Must never be asked on the data path: a worker keeps what it was given.

use std::sync::{Arc, Mutex, PoisonError};

use super::signal::Signals;
use super::store::Store;
use crate::config::{Cache, CacheMode};

/// Gives all workers the same store.
#[derive(Debug, Default)]
pub struct Caches {
    store: Mutex<Option<Arc<Store>>>,
    signals: Arc<Signals>,
}

impl Caches {
    /// The store under this configuration; `None` while there is none. It is empty when it was off in between.
    pub fn of(&self, config: &Cache) -> Option<Arc<Store>> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if config.mode == CacheMode::Off {
            *store = None;
            return None;
        }
        let store = store.get_or_insert_with(|| Arc::new(Store::new(config, Arc::clone(&self.signals))));
        store.resize(config);
        Some(Arc::clone(store))
    }

    /// The store that there is.
    #[must_use]
    pub fn store(&self) -> Option<Arc<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where is said what does not count any more.
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }
}
