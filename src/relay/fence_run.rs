//! What waits for Redis on behalf of a fence: questions for counts, writes that begin, writes that have ended.
//! Must never say that a write is announced before Redis has said so, or nobody is left who could not know.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::ServerId;
use super::fence::{Asking, Deed};
use super::task::{Shared, guarded, run_todo};
use crate::cache::Fence;
use crate::cache::fence::{Count, PATIENCE};
use crate::cache::remote::fence as redis;

/// How long the announcement of a write is waited for at least: to give up costs more.
pub(super) const WRITE: Duration = Duration::from_millis(100);

/// Does it.
pub(super) async fn run(relay: Shared, deed: Deed) {
    match deed {
        Deed::Keep(group) => super::fence_keep::start(&relay, group),
        Deed::Ask => ask(&relay).await,
        Deed::Raise { server, fence, number, tables } => raise(&relay, server, fence, number, &tables).await,
        Deed::Lower(fence, numbers) => {
            if let Some(session) = fence.session()
                && let Some(mut link) = session.link.clone()
            {
                // Whoever keeps the fence makes up for what fails.
                let _ = timeout(WRITE, redis::lower(&mut link, &session, session.process, &numbers)).await;
            }
        }
    }
}

/// Asks for counts as long as somebody wants them, one question after the other.
async fn ask(relay: &Shared) {
    loop {
        let all = relay.borrow_mut().fences.take();
        if all.is_empty() {
            return;
        }
        for (database, (fence, Asking { checks, tables })) in all {
            let told = counts(&fence, tables.into_iter().collect::<Vec<_>>().as_slice()).await;
            guarded(relay, |relay| relay.fence_told(&database, &fence, checks, told));
            run_todo(relay, None);
        }
    }
}

/// Whoever is told these was told them after now.
async fn counts(fence: &Fence, tables: &[u32]) -> Option<(u64, BTreeMap<u32, Count>)> {
    let session = fence.serves()?;
    let mut link = session.link.clone()?;
    let asked = redis::counts(&mut link, &session, fence.beats(), tables.iter().copied());
    match timeout(session.limit, asked).await {
        Ok(Ok(Some(counts))) => Some((session.number, counts)),
        // The keeper finds out what that is.
        Ok(Ok(None) | Err(_)) => {
            fence.fails(session.number);
            None
        }
        Err(_) => None,
    }
}

async fn raise(relay: &Shared, server: ServerId, fence: Arc<Fence>, number: u64, tables: &str) {
    let began = Instant::now();
    let outcome = loop {
        match fence.session() {
            Some(session) => {
                let Some(mut link) = session.link.clone() else { break Err(()) };
                let raised = redis::raise(&mut link, &session, number, tables);
                if let Ok(Ok(Some(count))) = timeout(WRITE.max(session.limit), raised).await {
                    fence.raised.fetch_add(1, Relaxed);
                    break Ok(Some(count));
                }
                fence.fails(session.number);
            }
            None if fence.is_open() => {
                fence.unfenced.fetch_add(1, Relaxed);
                break Ok(None);
            }
            None => {}
        }
        if began.elapsed() > PATIENCE {
            fence.refused.fetch_add(1, Relaxed);
            break Err(());
        }
        fence.changes().await;
    };
    let relay = Rc::clone(relay);
    guarded(&relay, |relay| relay.raised(server, &fence, number, outcome));
    run_todo(&relay, None);
}
