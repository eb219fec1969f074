//! What a client has seen, and a replica must have to serve it: its own writes, and whatever it has read.
//! Must never let a client read from a replica that may lack what it wrote, or was shown.
//!
//! After a client has written, its *floor* is a position in the write-ahead log that its commit cannot lie behind:
//! `pg_current_wal_insert_lsn()` asked of the primary after the ReadyForQuery of the write. One connection per primary
//! asks for everybody ([`crate::pool::cluster`]): whoever finished before the question was sent is covered by the answer,
//! so the cost does not grow with the number of writes. Another connection per replica asks for
//! `pg_last_wal_replay_lsn()`; once that has reached a position, every snapshot taken on the replica afterwards sees the
//! commits before it. Until then the client reads from the primary. Old answers are only conservative: positions grow.
//!
//! A read on the primary raises the floor as a write does, for it may have shown what no replica has yet; or else a client
//! would travel back in time. One that reads on and on would then never leave the primary, as each read comes before the
//! answer to the question behind the one before: so such a read waits for a replica, `read_wait` at most.
//! A read of a table that is configured as global must show what anybody had committed before it came: its floor is raised
//! as if its client had written just now, which is the read index of Raft (Ongaro, "Consensus: Bridging Theory and
//! Practice", 6.4): the primary says how far it has written, and any server that has that may answer. Nobody has to know who
//! wrote what, and writers past pgweir count too.
//! From one replica a client goes to another only if that has replayed at least what the first one says when it is asked
//! after the read; until then it stays.

use super::client::Losses;
use super::lease::Target;
use super::patience::{MOMENTS, Mark};
use super::{ClientId, Group, GroupId, Relay, ServerId};
use crate::config::Consistency;
use crate::meter::Role;
use crate::pool::cluster::{Floor, Sight};

/// A client that waits for a replica.
pub(super) struct Held {
    client: ClientId,
    /// How long at most, microseconds.
    until_us: u64,
    /// Since when it is known what for, microseconds; 0 if it is not.
    known_us: u64,
}

/// How long one waits at least whose statement nothing but a replica may run, microseconds.
const ONLY_WAIT_US: u64 = 1_000_000;

/// Since when it is known how far a replica must be, if that is known now.
fn known_since(floor: Floor, now_us: u64) -> u64 {
    if matches!(floor, Floor::At(_)) { now_us } else { 0 }
}

impl Relay {
    /// Notes that the client's lease wrote, or may have.
    pub(super) fn note_write(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.wrote = true;
            if self.cache.is_some() {
                client.caching().writes = true;
            }
        }
    }

    /// A transaction of the client's has ended on this server: from now on it must see what it wrote and read there.
    pub(super) fn note_seen(&mut self, id: ClientId, server: ServerId) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get(server)) else { return };
        client.losses = Losses::default();
        let (wrote, saw) = (std::mem::take(&mut client.wrote), std::mem::take(&mut client.saw));
        let group = &self.groups[client.group];
        if let Some(cache) = &mut client.cache {
            cache.released(self.now_us, || group.floor_of_write());
        }
        if !group.splits || !(wrote || saw) {
            return;
        }
        if group.consistency == Consistency::Off {
            client.sight = Sight::default();
            return;
        }
        match self.pools[this.pool].role {
            Role::Primary => {
                client.sight.floor = group.cluster.wrote();
                client.sight.by_read = !wrote;
                client.sight.last = None;
            }
            Role::Replica => {
                let number = group.numbered().find(|&(_, pool)| pool == this.pool);
                client.sight.last = number.and_then(|(number, _)| group.cluster.read_from(number));
            }
        }
    }

    /// The client's read at hand must show what anybody has committed by now.
    pub(super) fn must_be_current(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(id)
            && !std::mem::replace(&mut client.current, true)
        {
            client.sight.floor = self.groups[client.group].cluster.wrote();
            client.sight.by_read = true;
        }
    }

    /// The client is told of something that somebody has committed: from now on it must see that.
    pub(super) fn note_told(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let group = &self.groups[client.group];
        if group.terms.caches {
            client.caching().has_written(self.now_us, group.floor_of_write());
        }
        if group.splits && group.consistency != Consistency::Off {
            client.sight.floor = group.cluster.wrote();
            client.sight.by_read = true;
        }
    }

    /// Whether a read that no replica may serve yet is to wait for one. It is looked at again when one has caught up.
    pub(super) fn waits_for_replica(&mut self, id: ClientId, target: Target) -> bool {
        let now_us = self.now_us;
        let only = target == Target::OnlyReplica;
        let wait_us = self.config.pool.read_wait.as_micros() as u64;
        let wait_us = if only { wait_us.max(ONLY_WAIT_US) } else { wait_us };
        let Some(client) = self.clients.get_mut(id) else { return false };
        if target == Target::Primary || std::mem::take(&mut client.impatient) || wait_us == 0 {
            return false;
        }
        let group = &mut self.groups[client.group];
        let sight = &client.sight;
        let longest_us = MOMENTS * self.config.pool.read_wait.as_micros() as u64;
        if !only && group.patience.is_lost(&group.cluster, now_us, longest_us) {
            return false;
        }
        let due = (sight.floor != Floor::None && (sight.by_read || only))
            || (sight.floor == Floor::None && sight.last.is_some());
        if !due || !group.cluster.has_standby() {
            return false;
        }
        if !group.held.iter().any(|held| held.client == id) {
            group.cluster.waits();
            group.held.push(Held {
                client: id,
                until_us: now_us + wait_us,
                known_us: known_since(sight.floor, now_us),
            });
        }
        group.cluster.would_switch(sight);
        true
    }

    /// A server has said how far it is: looks again at who waits for that.
    pub(super) fn look_at_held(&mut self, group: GroupId) {
        if self.groups.get(group).is_none_or(|group| group.held.is_empty()) {
            return;
        }
        let held = std::mem::take(&mut self.groups[group].held);
        let cluster = std::sync::Arc::clone(&self.groups[group].cluster);
        let longest_us = MOMENTS * self.config.pool.read_wait.as_micros() as u64;
        for Held { client: id, until_us, known_us } in held {
            cluster.waits_no_more();
            let Some(client) = self.clients.get_mut(id) else { continue };
            client.impatient = until_us <= self.now_us;
            if client.impatient
                && known_us > 0
                && let Floor::At(lsn) = client.sight.floor
            {
                self.groups[group].patience.wears(&cluster, Mark { lsn, since_us: known_us }, longest_us);
            }
            self.pump_inbox(id);
            // Who goes on waiting waits no longer for that.
            if let Some(place) = self.groups[group].held.iter_mut().find(|held| held.client == id) {
                place.until_us = until_us;
                place.known_us = if known_us > 0 { known_us } else { place.known_us };
            }
        }
    }
}

impl Group {
    /// What a replica must have to show what a client has just written.
    pub(super) fn floor_of_write(&self) -> Floor {
        if self.splits && self.consistency != Consistency::Off { self.cluster.wrote() } else { Floor::None }
    }
}
