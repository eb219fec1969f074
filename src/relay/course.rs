//! The rule that a batch is under, and what becomes of it but for where it goes.
//! Must never change the rule of a lease: it is that of the batch with which the lease began.

use std::rc::Rc;
use std::time::Duration;

use super::client::{SentBack, State};
use super::rules::{Course, Kept, Way};
use super::{Client, ClientId, GroupId, PoolId, Relay, Server, ServerId};
use crate::config::{Fallback, WaitAction};
use crate::flow::requests::{Batch, End};
use crate::meter::Role;
use crate::pool::cluster::{Member, Standing};
use crate::wire::error::{PgError, SqlState};

impl Relay {
    /// The rule for the batch at the front of `data`; `end` is `None` if it is too long to be looked at.
    fn course(&mut self, id: ClientId, data: &[u8], end: Option<End>) -> Course {
        let Some(client) = self.clients.get(id) else { return Course::NONE };
        let Some(rules) = self.groups[client.group].rules.clone() else { return Course::NONE };
        let (fitting, conforming) = (client.params.fitting, client.conforming);
        let mut fits = 0;
        if let Some(end) = end
            && fitting.hangs_on_statements()
        {
            self.each_statement(id, data, end, |look, sql| fits |= rules.fit(&fitting, look.shape, sql, conforming));
        }
        rules.first(&fitting, fits)
    }

    /// Puts the batch at the front of `data` under its rule. `Some`: it does not run now; what [`Relay::pump`] is told.
    pub(super) fn steer(&mut self, id: ClientId, data: &[u8], end: Option<End>) -> Option<Option<usize>> {
        let group = self.clients.get(id)?.group;
        let rules = Rc::clone(self.groups[group].rules.as_ref()?);
        let course = self.course(id, data, end);
        self.clients.get_mut(id)?.course = course;
        let kept = rules.of(course)?;
        if kept.rule.refuse.is_some() {
            let error = self.refused_by(group, kept)?;
            return Some(self.fail_batch(id, data, &error));
        }
        let bucket = kept.bucket.as_ref()?;
        let client = self.clients.get_mut(id)?;
        // It has been counted already.
        if client.sent_back == SentBack::Refused || client.paid {
            return None;
        }
        if kept.queue.borrow().is_empty() && bucket.take(self.now_us) {
            client.paid = true;
            return None;
        }
        let most = self.config.pool.max_waiting_clients as usize;
        if client.late || (most > 0 && kept.queue.borrow().len() >= most) {
            let error = self.too_fast(group, kept);
            return Some(self.fail_batch(id, data, &error));
        }
        client.state = State::Waiting { pool: self.groups[group].primary, since_us: self.now_us, notified: false };
        kept.queue.borrow_mut().push_back((id, self.now_us));
        Some(None)
    }

    /// Why a session may not come in that will have one server as long as it lives: a rule refuses whatever it says.
    pub(super) fn refused_session(&mut self, id: ClientId) -> Option<PgError> {
        let group = self.clients.get(id)?.group;
        let rules = Rc::clone(self.groups[group].rules.as_ref()?);
        let course = self.course(id, &[], None);
        self.clients.get_mut(id)?.course = course;
        if self.is_direct(group) { self.refused_by(group, rules.of(course)?) } else { None }
    }

    /// Whether the batch at the front of `data` may follow another in its lease: it is under the same rule.
    pub(super) fn keeps_course(&mut self, id: ClientId, server: ServerId, data: &[u8]) -> bool {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get(server)) else { return true };
        let Some(rules) = self.groups[client.group].rules.clone() else { return true };
        // Otherwise nothing would end the lease.
        let ends = this.replies.status() == b'I' && this.replies.busy();
        if !ends || !client.pinned.is_empty() || self.keeps(client) {
            return true;
        }
        let before = client.course;
        let course = match self.front(data) {
            Ok(Batch::Whole { end, .. }) => self.course(id, data, Some(end)),
            Ok(Batch::Oversize) => self.course(id, data, None),
            Ok(Batch::Incomplete) => return false,
            _ => return true,
        };
        course == before && rules.of(course).is_none_or(|kept| kept.bucket.is_none())
    }

    /// Where the client's batch may run.
    pub(super) fn way(&self, client: &Client) -> Way {
        let rules = self.groups[client.group].rules.as_ref();
        rules.and_then(|rules| rules.of(client.course)).map_or_else(Way::default, |kept| kept.way)
    }

    /// Whether the client's reads are meant to go to this pool, and not only in the meantime: then it is not worth waiting
    /// for another, nor where none of those that are meant is there.
    pub(super) fn is_where_it_should(&self, id: ClientId, pool: Option<PoolId>) -> bool {
        let Some(client) = self.clients.get(id) else { return true };
        let (group, way) = (&self.groups[client.group], self.way(client));
        let on_replica = pool.is_some_and(|pool| self.pools[pool].role == Role::Replica);
        if group.rules.is_none() {
            return on_replica;
        }
        let number = pool.and_then(|pool| group.numbered().find(|(_, known)| *known == pool)).map(|(number, _)| number);
        if number.is_some_and(|number| way.leads_to(number) && (on_replica || way.with_primary)) {
            return true;
        }
        let is_there = |(number, member): (usize, &Member)| {
            way.leads_to(number) && member.standing() == Standing::Standby && Some(number) != group.cluster.primary()
        };
        let one_is_there = group.cluster.members.iter().enumerate().any(is_there);
        !one_is_there && (on_replica || way.fallback != Fallback::Replicas)
    }

    /// How long what the client has running on this server may take.
    pub(super) fn query_timeout(&self, server: &Server, id: ClientId) -> Option<Duration> {
        self.query_limit(server, id).0
    }

    /// The same, and what sets it.
    pub(super) fn query_limit(&self, server: &Server, id: ClientId) -> (Option<Duration>, &'static str) {
        let pool = &self.pools[server.pool];
        let group = &self.groups[pool.group];
        let rule = group.rules.as_ref().zip(self.clients.get(id)).and_then(|(rules, client)| rules.of(client.course));
        let of_rule = rule.and_then(|kept| kept.rule.timeout);
        let of_workload = || pool.workload.as_ref().and_then(|workload| workload.query_timeout);
        let set = |limit: Duration| (!limit.is_zero()).then_some(limit);
        match (of_rule, of_workload()) {
            (Some(limit), _) => (set(limit), "the timeout of a rule in pgweir"),
            (None, Some(limit)) => (set(limit), "query_timeout of a pool in pgweir"),
            (None, None) => (group.terms.query_timeout, "pgweir's query_timeout"),
        }
    }

    /// Lets those go on whom the rates of their rules allow it, and sends those away who have waited too long.
    pub(super) fn sweep_rates(&mut self) {
        for index in 0..self.groups.slots() {
            let Some(group) = self.groups.id_at(index) else { continue };
            let Some(rules) = self.groups[group].rules.clone() else { continue };
            for kept in rules.limiting() {
                self.sweep_rate(group, kept);
            }
        }
    }

    fn sweep_rate(&mut self, group: GroupId, kept: &Kept) {
        let limit = self.groups[group].terms.query_wait_timeout;
        loop {
            let Some((id, since)) = kept.queue.borrow().front().copied() else { return };
            let waits =
                |client: &&mut Client| matches!(client.state, State::Waiting { since_us, .. } if since_us == since);
            let late = limit.is_some_and(|limit| self.now_us.saturating_sub(since) >= limit.as_micros() as u64);
            let retired = self.groups[group].retired;
            let client = self.clients.get_mut(id).filter(waits);
            let goes =
                retired || client.is_none() || late || kept.bucket.as_ref().is_none_or(|it| it.take(self.now_us));
            if !goes {
                return;
            }
            kept.queue.borrow_mut().pop_front();
            let Some(client) = client else { continue };
            if !late {
                // One that another configuration has overtaken is held against that.
                client.paid = !retired;
                client.state = State::Idle;
                self.choose_again(id, since);
                continue;
            }
            client.late = true;
            self.pools[self.groups[group].primary].counters.total_query_wait_timeouts.add(1);
            let error = self.too_fast(group, kept);
            match self.config.pool.query_wait_timeout_action {
                WaitAction::Error => self.give_up_waiting(id, error),
                WaitAction::Close => self.fatal(id, &error.fatally()),
            }
        }
    }

    fn refused_by(&self, group: GroupId, kept: &Kept) -> Option<PgError> {
        let text = kept.rule.refuse.as_ref()?;
        let error = PgError::error(SqlState::INSUFFICIENT_PRIVILEGE, format!("pgweir: {text}"));
        Some(error.detail(self.says_rule(group, kept, "refuses this")))
    }

    fn too_fast(&self, group: GroupId, kept: &Kept) -> PgError {
        let rate = kept.rule.rate.unwrap_or_default();
        let message = format!("pgweir: more than {rate} transactions a second");
        PgError::error(SqlState::CONFIGURATION_LIMIT, message)
            .detail(self.says_rule(group, kept, "limits their rate"))
            .hint("Those beyond it wait for as long as query_wait_timeout says.")
    }

    fn says_rule(&self, group: GroupId, kept: &Kept, what: &str) -> String {
        format!(
            "Rule \"{}\" of database \"{}\" in pgweir's configuration {what}.",
            kept.rule.name, self.groups[group].database
        )
    }

    /// Whether a rule says where the client's reads go.
    pub(super) fn is_ruled(&self, id: ClientId) -> bool {
        let client = self.clients.get(id);
        client.is_some_and(|client| self.way(client).fallback == Fallback::Fail)
    }

    /// What a client is told whose rule sends its reads to servers of which none may serve it, and nowhere else.
    pub(super) fn nobody_serves(&self, id: ClientId) -> PgError {
        let rule = self.clients.get(id).and_then(|client| {
            let kept = self.groups[client.group].rules.as_ref()?.of(client.course)?;
            Some(self.says_rule(client.group, kept, "sends reads to a group of servers, and nowhere else"))
        });
        let error = PgError::error(SqlState::CANNOT_CONNECT_NOW, "pgweir: no server may serve this read now");
        error.detail(rule.unwrap_or_default()).hint("With another fallback other servers serve it in the meantime.")
    }
}
