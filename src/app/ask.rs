//! What workers are asked for the HTTP API.
//! Must never wait long for one that does not answer, nor keep one running.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::export::Insights;
use crate::relay::insight::Insight;
use crate::worker::{Mail, WeakMailbox};

/// How long all of them may take. Their turns take milliseconds at most.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks all of them what they know of statements, and who holds servers.
pub(super) fn insight(workers: Vec<WeakMailbox>) -> Insights {
    Box::new(move || {
        let ask = |worker: WeakMailbox| {
            let (answer, wait) = oneshot::channel();
            let question = Mail::Do(Box::new(move |relay| drop(answer.send(relay.insight()))));
            worker.upgrade()?.send(question).ok().map(|()| wait)
        };
        let waits: Vec<_> = workers.iter().cloned().filter_map(ask).collect();
        Box::pin(async move {
            let until = Instant::now() + LIMIT;
            let mut all = Insight::default();
            for wait in waits {
                if let Ok(Ok(insight)) = timeout_at(until, wait).await {
                    all.extend(insight);
                }
            }
            all
        })
    })
}
