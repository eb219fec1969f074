//! The one store of a process, as its configuration wants it, and what takes back answers.
//! Must never be asked for the store on the data path: a worker keeps what it was given.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use super::aloft::Aloft;
use super::signal::Signals;
use super::store::Store;
use crate::config::{Cache, CacheMode};

/// The store, as one worker holds it: its copies leave alone the count of references that all workers share.
#[derive(Clone, Debug)]
pub struct StoreRef(Rc<OfAll>);

#[derive(Debug)]
struct OfAll(Arc<Store>);

impl Deref for StoreRef {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.0.0
    }
}

/// Gives all workers the same store.
#[derive(Debug, Default)]
pub struct Caches {
    store: Mutex<Option<Arc<Store>>>,
    signals: Arc<Signals>,
    aloft: Aloft,
}

impl Caches {
    /// The store under this configuration; `None` while there is none. It is empty when it was off in between.
    pub fn of(&self, config: &Cache) -> Option<StoreRef> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if config.mode == CacheMode::Off {
            *store = None;
            return None;
        }
        let store = store.get_or_insert_with(|| Arc::new(Store::new(config, Arc::clone(&self.signals))));
        store.resize(config);
        Some(StoreRef(Rc::new(OfAll(Arc::clone(store)))))
    }

    /// The store that there is.
    #[must_use]
    pub fn store(&self) -> Option<Arc<Store>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What workers are asking servers for.
    #[must_use]
    pub fn aloft(&self) -> &Aloft {
        &self.aloft
    }

    /// Where is said what does not count any more.
    #[must_use]
    pub fn signals(&self) -> &Arc<Signals> {
        &self.signals
    }
}
