//! What became of a read that was asked only so that its answer is kept.
//! Must never make a worker wait for whoever wants to know.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::meter::{Bypass, Unkept};

/// What became of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its answer is in the cache.
    Kept,
    /// The cache was not asked, for this reason.
    Bypassed(Bypass),
    /// The cache was not asked, as it is not known yet what the code of the database does.
    Unknown,
    /// Its answer was not kept, for this reason.
    Unkept(Unkept),
}

impl Outcome {
    /// It may be another in a moment.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::Bypassed(Bypass::Stalled | Bypass::Untraced)
                | Self::Unkept(Unkept::Untraced | Unkept::Behind)
        )
    }
}

/// What becomes of the reads of one session, one after the other.
#[derive(Debug, Default)]
pub struct Warming {
    newest: Mutex<Option<Outcome>>,
    told: Notify,
}

impl Warming {
    /// That was the outcome of the newest.
    pub fn tell(&self, outcome: Outcome) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.told.notify_one();
    }

    /// The outcome of the newest, once; `None`: nobody has said.
    pub fn take(&self) -> Option<Outcome> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The same, when somebody says: an answer is kept only after its client has it.
    pub async fn outcome(&self) -> Outcome {
        loop {
            if let Some(outcome) = self.take() {
                return outcome;
            }
            self.told.notified().await;
        }
    }
}
