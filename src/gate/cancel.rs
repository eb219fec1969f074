//! Cancel requests: to the worker whose client is meant, or to the instance that has it.
//! Must never pass a request on twice, nor let anybody try keys as fast as the network goes.

use tokio::sync::oneshot;

use super::Gate;
use super::peer::Peer;
use super::rate::{Rate, neighbourhood};
use crate::relay::Seat;
use crate::server::cancel::{self, NOBODY, PassedOn};
use crate::server::stream::Stream;
use crate::wire::pid::ClientPid;
use crate::worker::{Mail, WeakMailbox};

/// Keys that fit nobody, per address. A key has 32 random bits in protocol 3.0 and the process ids
/// can be guessed: at this rate, trying them all takes 13 years (`reference/defects.md` entry 21).
const WRONG: Rate = Rate { per_second: 10, burst: 50 };
/// The same for an instance that passes on what its clients send: it bounds each of them itself.
const WRONG_OF_PEER: Rate = Rate { per_second: 100, burst: 500 };
/// Requests under way to other instances; more are dropped. A peer that does not answer must not
/// cost all descriptors.
const PASSING_ON: u32 = 256;

/// Acts on a cancel request and returns when the matter is over: the connection that brought it is
/// closed then, which libpq waits for.
pub(super) async fn cancel(gate: &Gate, peer: &Peer, stream: &mut Stream, pid: u32, key: Vec<u8>) {
    let whom = ClientPid::decode(pid);
    // Only an instance among others is sent any, and answers as only they understand.
    let passed_on = whom.is_some_and(|whom| whom.passed_on) && !gate.config().peers.is_empty();
    let rate = if passed_on { WRONG_OF_PEER } else { WRONG };
    let bucket = peer.address().map(|address| (neighbourhood(address), passed_on));
    if bucket.is_some_and(|bucket| !gate.wrong_keys.has(bucket, rate)) {
        tracing::debug!(%peer, "cancel request dropped: too many wrong keys from there");
        return;
    }
    let found = match whom {
        None => false,
        Some(whom) if whom.instance == gate.instance => find_here(gate, whom, key).await,
        Some(whom) if whom.passed_on => false,
        Some(whom) => pass_on(gate, whom, &key).await,
    };
    if !found {
        if let Some(bucket) = bucket {
            gate.wrong_keys.take(bucket, rate);
        }
        if passed_on {
            let _ = stream.send(&[NOBODY]).await;
        }
    }
}

/// Whether the key was somebody's here. Returns when the server has done what it asks for.
async fn find_here(gate: &Gate, whom: ClientPid, key: Vec<u8>) -> bool {
    let worker = gate.workers.get(usize::from(whom.worker)).and_then(WeakMailbox::upgrade);
    let Some(worker) = worker else { return false };
    let (done, wait) = oneshot::channel();
    // Told something: nobody's. Dropped: done.
    worker.send(Mail::Cancel { slot: whom.slot, key, done }).is_ok() && wait.await.is_err()
}

/// Asks the one instance that is named. Whether the key was somebody's there, or might have been.
async fn pass_on(gate: &Gate, whom: ClientPid, key: &[u8]) -> bool {
    let config = gate.config();
    let Some(peer) = config.peers.get(&whom.instance) else {
        tracing::debug!("a cancel request is for instance {}, which is not in [peers]", whom.instance);
        return false;
    };
    let Some(_seat) = Seat::take(&gate.passing_on, PASSING_ON) else {
        tracing::warn!("a cancel request was dropped: {PASSING_ON} are under way to other instances");
        return true;
    };
    let pid = ClientPid { passed_on: true, ..whom }.encode();
    let asked = cancel::pass_on(peer, &config.listen.tcp, pid, key);
    match tokio::time::timeout(config.pool.server_connect_timeout, asked).await {
        Ok(Ok(outcome)) => {
            tracing::debug!(%peer, "cancel request passed on to instance {}: {outcome:?}", whom.instance);
            outcome == PassedOn::Taken
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, "could not pass a cancel request on to instance {}: {error}", whom.instance);
            true
        }
        Err(_) => {
            tracing::warn!(%peer, "passing a cancel request on to instance {} took too long", whom.instance);
            true
        }
    }
}
