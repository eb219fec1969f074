//! What a finished statement comes to in the statistics.
//! Must never read the clock: what came with one read is over at one moment.

use super::alight::Landed;
use super::lane::Fate;
use super::learned::{LARGE_BYTES, Run};
use super::slow::Circumstances;
use super::spans::Ran;
use super::{ClientId, Relay, ServerId};
use crate::cache::Entry;
use crate::flow::expect::{Expect, Origin};
use crate::meter::{ErrorClass, Sample};
use crate::trace::Parent;
use crate::wire::error::SqlState;

impl Relay {
    /// One statement more in the statistics: its wait for a server if it was the first of a
    /// lease, and the time from its sending, or from the end of the one before it, to now.
    pub(super) fn count(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        entry: &Expect,
        rows: u64,
        code: Option<SqlState>,
    ) {
        let error = code.map(ErrorClass::of);
        let Some(this) = self.servers.get_mut(server) else { return };
        let began_us = entry.sent_us.max(this.done_us);
        let over_us = if this.abreast.is_some() { self.over_us(server, entry, began_us) } else { self.now_us };
        let Some(this) = self.servers.get_mut(server) else { return };
        this.done_us = over_us;
        this.ran = entry.cookie;
        // Of another that came with the same read nobody has seen an earlier byte; what came before it was sent was no answer.
        let first_us =
            Some(std::mem::take(&mut this.first_us)).filter(|it| *it > began_us).unwrap_or(over_us).min(over_us);
        let bytes = this.through - std::mem::replace(&mut this.counted, this.through);
        let pool = &self.pools[this.pool];
        let wait_us =
            owner.and_then(|id| self.clients.get_mut(id)).map_or(0, |client| std::mem::take(&mut client.waited_us));
        let server_us = over_us.saturating_sub(began_us);
        pool.counters.total_query_count.add(1);
        pool.counters.total_query_time_us.add(server_us);
        pool.counters.total_errors.add(u64::from(error.is_some()));
        let number = pool.group;
        let group = &self.groups[number];
        let (stats, measured, lanes, catalog) =
            (pool.stats(group), group.terms.measured, group.terms.lanes, group.catalog);
        let slow_us = group.terms.slow_query_us;
        let pool = this.pool;
        let first_us = first_us.saturating_sub(began_us);
        let sample = Sample { wait_us, first_us, server_us, rows, bytes, error };
        let (mut usual_us, mut slot) = (server_us, None);
        if measured {
            usual_us = self.shapes.record(stats, entry.cookie, &sample);
            slot = self.shapes.last_counted();
        }
        if self.tracer.is_some() && entry.origin == Origin::Client {
            let (from_us, shape) = (began_us.saturating_sub(wait_us), entry.cookie);
            let ran = Ran { pool, shape, sample, code, from_us, began_us, abreast: 0, slot };
            self.trace_counted(server, owner, entry, ran);
        }
        if measured {
            if wait_us + server_us >= slow_us && entry.origin == Origin::Client {
                let note = self.noted_as(server, entry.note);
                self.is_slow(pool, owner, entry.cookie, sample, Circumstances { rode: false, code, note });
            }
            if let Some(id) = owner {
                self.mind_repeats(id, number, entry.cookie, &sample);
                if self.plans.is_on() && entry.origin == Origin::Client {
                    self.mind_plan((id, pool), entry.cookie, &sample, |this| this.noted_as(server, entry.note));
                }
            }
        }
        if lanes {
            let slice = &self.pools[pool].slice;
            let busy = slice.open() - slice.idle().len();
            let large = bytes > LARGE_BYTES as u64;
            let run = Run { took_us: server_us, busy, large, rode: false, done_us: self.now_us };
            let fast_us = self.lane_fast_us();
            self.shapes.learns(entry.cookie, catalog).into_iter().for_each(|learned| learned.ran(run, fast_us));
        }
        if error.is_none() {
            self.host_works(pool, began_us, server_us, usual_us);
        }
    }

    /// Those whose answers came with one read have needed equal parts of the time since the one before: when each of them was
    /// ready at the server nobody can tell.
    pub(super) fn count_landed(&mut self, server: ServerId, landed: &mut [Landed]) {
        let (Some(this), Some(first)) = (self.servers.get_mut(server), landed.first()) else { return };
        let began_us = this.done_us.max(first.rider.came_us);
        let each_us = self.now_us.saturating_sub(began_us) / landed.len() as u64;
        this.done_us = self.now_us;
        this.began_us = 0;
        let (number, fast_us) = (this.pool, self.lane_fast_us());
        let usual_us = landed.iter().map(|one| u64::from(one.rider.fare.usual_us)).sum();
        self.pools[number].lane_count.answered(usual_us);
        let pool = &self.pools[number];
        let busy = pool.slice.open() - pool.slice.idle().len();
        let counters = std::sync::Arc::clone(&pool.counters);
        let group_number = pool.group;
        let group = &self.groups[group_number];
        let (stats, catalog, slow_us) = (pool.stats(group), group.catalog, group.terms.slow_query_us);
        let (measured, abreast) = (group.terms.measured, landed.len() as u32);
        for one in landed {
            let rider = &one.rider;
            let bytes = rider.told + one.held.len() + one.rest.len();
            let large = bytes > LARGE_BYTES;
            let run = Run { took_us: each_us, busy, large, rode: true, done_us: self.now_us };
            let stalled_us = if rider.late { self.now_us.saturating_sub(began_us) } else { 0 };
            if let Some(learned) = self.shapes.learns(rider.fare.shape, catalog) {
                learned.stalled(stalled_us, fast_us, self.now_us);
                self.lanes.out_until_us = self.lanes.out_until_us.max(learned.out_until_us());
                learned.ran(run, fast_us);
            }
            if rider.fate == Fate::Fails {
                counters.lanes.repeats.add(1);
                continue;
            }
            if rider.client == ClientId::default() {
                // Counted where it was run for its client, if that still wanted it.
                continue;
            }
            let waited_us =
                self.clients.get_mut(rider.client).map_or(0, |client| std::mem::take(&mut client.waited_us));
            let queued_us = began_us.saturating_sub(rider.came_us);
            counters.total_query_count.add(1);
            counters.total_query_time_us.add(each_us);
            counters.total_xact_count.add(1);
            counters.total_xact_time_us.add(each_us);
            counters.total_wait_time_us.add(waited_us + queued_us);
            counters.total_server_assignment_count.add(1);
            counters.total_errors.add(u64::from(rider.failed.is_some()));
            counters.lanes.rides.add(1);
            counters.lanes.queued_us.add(queued_us);
            let (rows, error) = (rider.rows, rider.failed.map(ErrorClass::of));
            let (wait_us, bytes) = (waited_us + queued_us, bytes as u64);
            let sample = Sample { wait_us, first_us: each_us, server_us: each_us, rows, bytes, error };
            let mut usual_us = each_us;
            if measured {
                usual_us = self.shapes.record(stats, rider.fare.shape, &sample);
                one.slot = self.shapes.counted();
            }
            if error.is_none() {
                self.host_works(number, began_us, each_us, usual_us);
            }
            if self.audit.is_some() {
                self.audit_rider(number, rider);
            }
            if self.tracer.is_some() {
                let (pool, shape, code, slot) = (number, rider.fare.shape, rider.failed, one.slot);
                let (from_us, began_us) = (rider.came_us.saturating_sub(waited_us), began_us.max(rider.came_us));
                let ran = Ran { pool, shape, sample, code, from_us, began_us, abreast, slot };
                self.trace_rider(rider, ran);
            }
            if !measured {
                continue;
            }
            self.mind_repeats(rider.client, group_number, rider.fare.shape, &sample);
            let limit = self.config.pool.slow_query_parameter_bytes as usize;
            if self.plans.is_on() {
                let whose = (rider.client, number);
                self.mind_plan(whose, rider.fare.shape, &sample, |this| this.noted_of_rider(rider, limit));
            }
            if sample.wait_us + sample.server_us >= slow_us {
                let note = self.noted_of_rider(rider, limit);
                let how = Circumstances { rode: true, code: rider.failed, note };
                self.is_slow(number, Some(rider.client), rider.fare.shape, sample, how);
            }
        }
    }

    /// A client was given an answer that was kept, of so many bytes; `shared`: the cache that processes share had it. It may have waited for
    /// that, or for another who asked the same.
    pub(super) fn count_kept(
        &mut self,
        id: ClientId,
        (shape, parent): (u64, Option<Parent>),
        entry: &Entry,
        sent: usize,
        shared: bool,
    ) {
        let Some(client) = self.clients.get(id) else { return };
        let took_us = self.now_us.saturating_sub(client.active_us);
        let group = &self.groups[client.group];
        let ([own, from_shared], measured) = (group.stats_kept, group.terms.measured);
        let (first_us, server_us, rows, bytes) = (took_us, took_us, entry.rows, sent as u64);
        let sample = Sample { wait_us: 0, first_us, server_us, rows, bytes, error: None };
        if measured {
            self.shapes.record(if shared { from_shared } else { own }, shape, &sample);
        } else {
            self.shapes.counted();
        }
        if self.tracer.is_some() {
            self.trace_kept(id, parent, shape, &sample, shared);
        }
        let slot = self.shapes.counted();
        self.note_sent(id, slot);
    }
}
