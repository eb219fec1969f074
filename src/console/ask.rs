//! Asks the workers, whose relays only they may look into.
//! Must never wait for one that does not answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Console;
use crate::relay::Relay;
use crate::relay::census::{Census, Row, Side};
use crate::wire::error::{PgError, SqlState};
use crate::worker::{Mail, Mailbox};

/// How long a worker may take. Its turns take milliseconds at most.
const LIMIT: Duration = Duration::from_secs(2);

fn late() -> PgError {
    let message = format!("pgweir: a worker has not answered within {} s", LIMIT.as_secs());
    PgError::error(SqlState::CANNOT_CONNECT_NOW, message).hint("It is very busy, or hangs. Its log may say more.")
}

impl Console {
    /// What each worker says.
    ///
    /// # Errors
    /// One does not answer in time.
    pub(super) async fn each<T: Send + 'static>(
        &self,
        what: impl Fn(&mut Relay) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, PgError> {
        let until = Instant::now() + LIMIT;
        let asked: Vec<_> = self.workers().iter().map(|worker| ask(worker, what.clone())).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for wait in asked {
            answers.push(timeout_at(until, wait).await.ok().and_then(Result::ok).ok_or_else(late)?);
        }
        Ok(answers)
    }

    /// All workers at about this moment.
    pub(super) async fn census(&self) -> Result<Census, PgError> {
        let mut all = Census::default();
        for one in self.each(|relay| relay.census()).await? {
            all.pools.extend(one.pools);
            all.slots.extend(one.slots);
            all.leaving.extend(one.leaving);
        }
        Ok(all)
    }

    /// All connections of one side.
    pub(super) async fn rows(&self, side: Side) -> Result<Vec<Row>, PgError> {
        let mut all = Vec::new();
        for worker in self.workers() {
            let mut from = Some(0);
            while let Some(start) = from {
                let wait = ask(&worker, move |relay| relay.list(side, start));
                let page = tokio::time::timeout(LIMIT, wait).await.ok().and_then(Result::ok);
                let (rows, next) = page.ok_or_else(late)?;
                all.extend(rows);
                from = next;
            }
        }
        Ok(all)
    }
}

fn ask<T: Send + 'static>(
    worker: &Mailbox,
    what: impl FnOnce(&mut Relay) -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (answer, wait) = oneshot::channel();
    let _ = worker.send(Mail::Do(Box::new(move |relay| drop(answer.send(what(relay))))));
    wait
}
