//! Cancel requests: to the worker whose client is meant, or to the instance that has it.
//! Must never pass a request on twice, nor let anybody try keys as fast as the network goes.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Gate;
use super::peer::Peer;
use super::rate::{Rate, neighbourhood};
use crate::config::{Config, Host};
use crate::relay::Seat;
use crate::server::cancel::{self, NOBODY, PassedOn};
use crate::server::stream::Stream;
use crate::wire::pid::ClientPid;
use crate::worker::{Mail, WeakMailbox};

/// Keys that fit nobody, per address. A key has 32 random bits in protocol 3.0 and the process ids
/// can be guessed: at this rate, trying them all takes 13 years (`reference/defects.md` entry 21).
const WRONG: Rate = Rate { per_second: 10, burst: 50 };
/// The same for an instance that passes on what its clients send: it bounds each of them itself. Only from where an
/// instance is known to be: that a request was passed on anybody can say.
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
    let of_peer = passed_on && gate.instances.have(&gate.config(), peer).await;
    let rate = if of_peer { WRONG_OF_PEER } else { WRONG };
    let bucket = (sender(peer), of_peer);
    if !gate.wrong_keys.has(bucket, rate) {
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
        gate.wrong_keys.take(bucket, rate);
        if passed_on {
            let _ = stream.send(&[NOBODY]).await;
        }
    }
}

/// Who shares a budget: a neighbourhood in the network, or an account of this machine.
fn sender(peer: &Peer) -> (bool, u64) {
    match peer.address() {
        Some(address) => (true, neighbourhood(address)),
        None => (false, peer.uid().map_or(u64::MAX, u64::from)),
    }
}

/// How long it is believed that the names of instances stand for the same addresses.
const RESOLVED_FOR: Duration = Duration::from_secs(60);
/// How long looking up a name may take.
const RESOLVING: Duration = Duration::from_secs(2);

/// Where the other instances are, as far as their names had to be looked up.
#[derive(Default)]
pub(super) struct Instances {
    addresses: RefCell<Vec<IpAddr>>,
    looked_up: Cell<Option<Instant>>,
}

impl Instances {
    /// Whether an instance of `[peers]` is where this comes from. On the unix socket, that is our own account; from the
    /// loopback interface, an instance that is on it, whichever of its addresses.
    async fn have(&self, config: &Config, peer: &Peer) -> bool {
        let Some(from) = peer.address() else {
            return peer.uid() == Some(nix::unistd::Uid::effective().as_raw());
        };
        let is = |ip: IpAddr| ip.to_canonical() == from || (ip.is_loopback() && from.is_loopback());
        let mut names = Vec::new();
        for endpoint in config.peers.values() {
            match &endpoint.host {
                Host::Tcp(host) => match host.parse::<IpAddr>() {
                    Ok(ip) if is(ip) => return true,
                    Ok(_) => {}
                    Err(_) => names.push((host.as_str(), endpoint.port)),
                },
                Host::Unix(_) => {}
            }
        }
        if !names.is_empty() && self.looked_up.get().is_none_or(|when| when.elapsed() >= RESOLVED_FOR) {
            self.looked_up.set(Some(Instant::now()));
            let mut addresses = Vec::new();
            for name in names {
                if let Ok(Ok(found)) = tokio::time::timeout(RESOLVING, tokio::net::lookup_host(name)).await {
                    addresses.extend(found.map(|address| address.ip()));
                }
            }
            *self.addresses.borrow_mut() = addresses;
        }
        self.addresses.borrow().iter().any(|ip| is(*ip))
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
