//! Cancel requests: to the worker whose client is meant, or to the instance that has it.
//! Must never pass a request on twice, nor let anybody try keys as fast as the network goes.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::peer::Peer;
use super::rate::{Rate, neighbourhood};
use super::{Call, Gate};
use crate::config::{Config, Host};
use crate::relay::{Key, Seat, Whom};
use crate::server::cancel::{self, NOBODY, PassedOn};
use crate::server::stream::Stream;
use crate::wire::pid::{ClientPid, is_passed_on, is_process, not_passed_on, passed_on};
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
    let whom = Named::of(pid, &key);
    // Only an instance among others is sent any, and answers as only they understand.
    let passed_on = is_passed_on(pid) && !gate.config().peers.is_empty();
    let of_peer = passed_on && gate.instances.have(&gate.config(), peer).await;
    let rate = if of_peer { WRONG_OF_PEER } else { WRONG };
    let bucket = (sender(peer), of_peer);
    if !gate.wrong_keys.has(bucket, rate) {
        tracing::debug!(%peer, "cancel request dropped: too many wrong keys from there");
        return;
    }
    let found = match whom {
        Named::Nobody => false,
        Named::Client(whom) if whom.instance == gate.instance && gate.workers.len() <= whom.worker.into() => {
            find_on_console(gate, not_passed_on(pid), key).await
        }
        Named::Client(whom) if whom.instance == gate.instance => {
            find_on(gate, whom.worker.into(), Whom::Slot(whom.slot), &key).await
        }
        Named::Client(whom) if whom.passed_on => false,
        Named::Client(whom) => pass_on(gate, whom.instance, pid, &key).await,
        // Instances may be known since a reload: what keys of before say of them is chance.
        Named::Process(pid, _) if find_process(gate, pid, &key).await => true,
        Named::Process(_, instance) if passed_on || instance == gate.instance => false,
        Named::Process(..) if gate.config().peers.is_empty() => false,
        Named::Process(_, instance) => pass_on(gate, instance, pid, &key).await,
    };
    if !found {
        gate.wrong_keys.take(bucket, rate);
        if passed_on {
            let _ = stream.send(&[NOBODY]).await;
        }
    }
}

/// Whom a cancel request names.
enum Named {
    /// A client by its number with us.
    Client(ClientPid),
    /// A client by the process of its server, and the instance that its secret names if there are several.
    Process(u32, u8),
    /// No client was ever told this.
    Nobody,
}

impl Named {
    fn of(pid: u32, key: &[u8]) -> Self {
        let process = not_passed_on(pid);
        match (ClientPid::decode(pid), Key::instance(key)) {
            (Some(whom), _) => Self::Client(whom),
            (None, Some(instance)) if is_process(process) => Self::Process(process, instance),
            (None, _) => Self::Nobody,
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
                Host::Unix(_) | Host::Unknown => {}
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
async fn find_on(gate: &Gate, worker: usize, whom: Whom, key: &[u8]) -> bool {
    let worker = gate.workers.get(worker).and_then(WeakMailbox::upgrade);
    let Some(worker) = worker else { return false };
    let (done, wait) = oneshot::channel();
    // Told something: nobody's. Dropped: done.
    worker.send(Mail::Cancel { whom, key: key.to_vec(), done }).is_ok() && wait.await.is_err()
}

/// The same on the console, whose sessions have numbers of a worker that there is not.
async fn find_on_console(gate: &Gate, number: u32, key: Vec<u8>) -> bool {
    let (done, wait) = oneshot::channel();
    gate.console.send(Call::Cancel { number, key, done }).is_ok() && wait.await.is_err()
}

/// The same where only the key tells which worker has the client.
async fn find_process(gate: &Gate, pid: u32, key: &[u8]) -> bool {
    for worker in 0..gate.workers.len() {
        if find_on(gate, worker, Whom::Process(pid), key).await {
            return true;
        }
    }
    false
}

/// Asks the one instance that is named. Whether the key was somebody's there, or might have been.
async fn pass_on(gate: &Gate, instance: u8, pid: u32, key: &[u8]) -> bool {
    let config = gate.config();
    let Some(peer) = config.peers.get(&instance) else {
        tracing::debug!("a cancel request is for instance {instance}, which is not in [peers]");
        return false;
    };
    let Some(_seat) = Seat::take(&gate.passing_on, PASSING_ON) else {
        tracing::warn!("a cancel request was dropped: {PASSING_ON} are under way to other instances");
        return true;
    };
    let asked = cancel::pass_on(peer, &config.listen.tcp, passed_on(pid), key);
    match tokio::time::timeout(config.pool.server_connect_timeout, asked).await {
        Ok(Ok(outcome)) => {
            tracing::debug!(%peer, "cancel request passed on to instance {instance}: {outcome:?}");
            outcome == PassedOn::Taken
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, "could not pass a cancel request on to instance {instance}: {error}");
            true
        }
        Err(_) => {
            tracing::warn!(%peer, "passing a cancel request on to instance {instance} took too long");
            true
        }
    }
}
