//! A server's bytes on their way to its client.
//! Must never send a client a byte that answers somebody else's message.

use super::abreast::Abreast;
use super::again::is_last_warning;
use super::server::Use;
use super::{Client, ClientId, OWED, Relay, ServerId};
use crate::config::PoolMode;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::replies::{Event, Outcome, Step};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::error::{PgError, ServerError, SqlState};
use crate::wire::tag::server as tag;

/// What a read from a server led to, beyond bytes.
#[derive(Default)]
struct Outlook {
    /// The settings put in front came through.
    settled: bool,
    /// The settings put in front were refused.
    refused: Option<ServerError>,
    /// Bytes that make no sense.
    fault: Option<&'static str>,
    /// The server announced its end.
    farewell: bool,
    /// The server has said what its client left.
    answered: bool,
    /// The channels of its client have been given up.
    handed: bool,
    /// The batch failed for what was outdated on the server, and is to be run again.
    again: bool,
    /// A transaction is open where none may be.
    in_block: bool,
    /// It waits for what nobody will send.
    deserted: bool,
}

/// What of a read goes on to the client: as it came, but for what is cut out of it or put in.
struct Passed<'a> {
    data: &'a [u8],
    /// Start of the range that goes on as it came.
    from: usize,
    /// What goes ahead of it, if anything was cut out or put in.
    edited: Vec<u8>,
}

impl Passed<'_> {
    /// Up to `at` it goes on as it came; the `skip` bytes there do not, and what is put in their place is then appended to `edited`.
    fn cut(&mut self, at: usize, skip: usize) {
        self.edited.extend_from_slice(self.data.get(self.from..at).unwrap_or_default());
        self.from = at + skip;
    }

    /// Nothing before `at` goes on.
    fn forget(&mut self, at: usize) {
        self.edited.clear();
        self.from = at;
    }

    /// All that goes on of what is in front of `at`.
    fn bytes(&mut self, at: usize) -> &[u8] {
        if self.from == 0 && self.edited.is_empty() {
            return self.data.get(..at).unwrap_or_default();
        }
        self.cut(at, 0);
        &self.edited
    }
}

impl Relay {
    /// Handles bytes of a server; returns how many were taken. What is left is the beginning of a
    /// message.
    pub(super) fn deliver(&mut self, server: ServerId, data: &[u8]) -> usize {
        let Some(this) = self.servers.get_mut(server) else { return data.len() };
        let read = this.read;
        this.abreast = None;
        if this.first_us == 0 {
            this.first_us = self.now_us;
        }
        // What was counted elsewhere in between is no statement of this client's.
        self.shapes.counted();
        let owner = this.owner();
        let mut passed = Passed { data, from: 0, edited: Vec::new() };
        let mut at = 0;
        let mut outlook = Outlook::default();
        while let Some(this) = self.servers.get_mut(server) {
            let rest = data.get(at..).unwrap_or_default();
            let (keep, n) = match this.replies.step(rest) {
                Step::More => break,
                Step::Forward(n) if owner.is_some() && this.again.is_movable() && is_last_warning(rest) => {
                    // Who has the batch run elsewhere need not hear that this server crashes; and with its warning it sends
                    // what it had kept of the answer.
                    passed.forget(at + n);
                    (true, n)
                }
                // Behind the last reply it is no more its affair than an error there would be.
                Step::Forward(n) if !this.replies.busy() && is_last_warning(rest) => (self.hears_farewell(server), n),
                Step::Forward(n) => (owner.is_some(), n),
                Step::Drop(n) => (false, n),
                Step::Fake(kind) => {
                    passed.cut(at, 0);
                    fake(&mut passed.edited, kind);
                    (true, 0)
                }
                Step::Event { n, swallow, event } => {
                    let bytes = rest.get(..n).unwrap_or_default();
                    this.through = read + (at + n) as u64;
                    this.abreast = this.abreast.or_else(|| Abreast::of(&event, rest.get(n..).unwrap_or_default()));
                    // An end announced behind the last reply is not this client's affair.
                    if let Event::Failed(Some(entry), _) = &event {
                        // Names mean again what they meant to the message that failed.
                        self.undo_dropped(server, Some(entry));
                    }
                    let aside = matches!(event, Event::Failed(None, _)) && self.is_untold(server);
                    if self.repeats(server, owner, &event, bytes, &mut outlook) {
                        // Nothing of the batch's answer has left, and nothing of it may.
                        passed.forget(at + n);
                        (false, n)
                    } else if event == Event::Notification {
                        passed.cut(at, n);
                        passed.edited.extend_from_slice(&self.heard_on_lease(server, owner, bytes));
                        (true, n)
                    } else if let Some(told) = self.retold(server, owner, &event, bytes) {
                        passed.cut(at, n);
                        passed.edited.extend_from_slice(&told);
                        self.event(server, owner, event, swallow, bytes, &mut outlook);
                        at += n;
                        continue;
                    } else {
                        let ready = !swallow && matches!(event, Event::Ready(..));
                        self.event(server, owner, event, swallow, bytes, &mut outlook);
                        let mut keep = !swallow && !aside && owner.is_some();
                        if ready && let Some((first, waits)) = self.before_ready(server, owner) {
                            passed.cut(at, 0);
                            passed.edited.extend_from_slice(&first);
                            keep = !waits;
                        }
                        (keep, n)
                    }
                }
                Step::Fault(what) => {
                    outlook.fault = Some(what);
                    break;
                }
            };
            if outlook.refused.is_some() && self.servers.get(server).is_some_and(|this| this.settling) {
                // Whatever was sent behind these settings was refused with them.
                passed.cut(at, data.len() - at);
                at = data.len();
                break;
            }
            if !keep {
                passed.cut(at, n);
            }
            at += n;
        }
        if let Some(this) = self.servers.get_mut(server) {
            this.read = read + at as u64;
        }
        self.conclude(server, owner, passed.bytes(at), at == data.len(), outlook);
        at
    }

    /// Hands the server on first and writes to its client then: the next request is at the server
    /// while this reply is still being copied.
    fn conclude(&mut self, server: ServerId, owner: Option<ClientId>, bytes: &[u8], all_taken: bool, outlook: Outlook) {
        let (counted, pool) = (self.shapes.counted(), self.servers.get(server).map(|this| this.pool));
        if outlook.fault.is_none() && outlook.refused.is_none() {
            self.undo_dropped(server, None);
        }
        if !bytes.is_empty()
            && let Some(this) = self.servers.get_mut(server)
        {
            // Before the server is handed on: the next client's batch may still be run again.
            this.again.forget();
        }
        if outlook.farewell
            && let Some(this) = self.servers.get_mut(server)
        {
            this.retire = true;
        }
        if all_taken && outlook.fault.is_none() && outlook.refused.is_none() && !outlook.again && !outlook.answered {
            self.finish(server);
        }
        if let Some(this) = self.servers.get_mut(server)
            && this.crowded
            && this.replies.owed() <= OWED / 2
        {
            this.crowded = false;
            if let Some(client) = owner.and_then(|id| self.clients.get(id)) {
                client.wake();
            }
        }
        if let Some(client) = owner.and_then(|id| self.clients.get_mut(id))
            && !bytes.is_empty()
        {
            client.send(bytes);
            pool.inspect(|pool| self.pools[*pool].counters.total_sent.add(bytes.len() as u64));
            owner.into_iter().for_each(|id| self.note_sent(id, counted));
        }
        if let Some(what) = outlook.fault {
            tracing::warn!(server = %self.name_of(server), "closing a connection whose server broke the protocol: {what}");
            self.lose(server, &format!("pgweir: the server broke the protocol: {what}"));
        } else if let Some(error) = outlook.refused {
            self.not_settled(server, &error);
        } else if outlook.deserted {
            self.discard(server);
        } else if outlook.settled {
            self.settled(server);
        } else if outlook.answered {
            self.answered(server);
            owner.into_iter().for_each(|id| self.hear(id));
        } else if outlook.handed {
            self.hand_on(server);
        } else if outlook.again {
            self.run_again(server);
        } else if outlook.in_block
            && let Some(id) = owner
        {
            let message = "pgweir: transactions of several statements are not possible in statement pooling mode";
            self.fatal(id, &PgError::fatal(SqlState::FEATURE_NOT_SUPPORTED, message).hint("See pool_mode."));
        }
        owner.into_iter().for_each(|id| self.fill_hears(id, bytes));
        self.cancel_behind(server);
    }

    /// What belongs to a batch that is run again is not for its client.
    fn repeats(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        event: &Event,
        bytes: &[u8],
        outlook: &mut Outlook,
    ) -> bool {
        match event {
            Event::Failed(..) => self.is_repeated(server, owner, event, bytes),
            Event::Ready(..) => {
                // Without a client there is nobody to run it for.
                let Some(this) = self.servers.get_mut(server) else { return false };
                outlook.again = this.again.is_due(owner.is_some());
                outlook.again
            }
            _ => false,
        }
    }

    fn event(
        &mut self,
        server: ServerId,
        owner: Option<ClientId>,
        event: Event,
        swallow: bool,
        bytes: &[u8],
        outlook: &mut Outlook,
    ) {
        match event {
            Event::Failed(entry, error) => {
                outlook.farewell |= error.fatal;
                if entry.is_some_and(|entry| entry.origin == Origin::Asked) {
                    self.unanswered(server);
                    self.hand_failed(server);
                } else if swallow {
                    outlook.refused = (!self.is_meant(server, owner, &error)).then_some(error);
                } else if let Some(entry) = entry {
                    if error.code == SqlState::DEADLOCK_DETECTED {
                        self.is_deadlocked(server, &entry, bytes);
                    }
                    self.audit_failed(server, owner, &entry, error.code);
                    self.failed(server, owner, &entry, error.code);
                }
            }
            // Of a statement of pgweir's own in a client's text.
            Event::Completed(entry, _) if swallow && entry.origin == Origin::Client => {}
            Event::Completed(entry, outcome) => {
                self.audit_completed(server, &entry, outcome, bytes);
                self.completed(server, owner, &entry, outcome);
            }
            Event::Row if self.code_row(server, bytes) => {}
            Event::Row => self.noted(server, bytes),
            Event::Parameter => self.parameter(server, owner, swallow, bytes),
            // It waits for data of a client that has gone.
            Event::CopyIn => outlook.deserted = owner.is_none(),
            Event::Notification => {}
            Event::Ready(entry, status) => self.ready(server, owner, &entry, status, outlook),
        }
    }

    fn completed(&mut self, server: ServerId, owner: Option<ClientId>, entry: &Expect, outcome: Outcome) {
        if entry.origin == Origin::Client {
            self.count(server, owner, entry, outcome.rows, None);
            // What pgweir has put in front does not count: nothing of the client's has run.
            self.servers.get_mut(server).into_iter().for_each(|this| this.again.forget());
        }
        if let Some(id) = owner {
            self.count_own_names(id, outcome);
        }
        if outcome.deallocated_all {
            self.names_cleared(server, owner, entry, outcome);
        }
    }

    /// A message of the client's, or one that follows a statement of its, has failed.
    fn failed(&mut self, server: ServerId, owner: Option<ClientId>, entry: &Expect, code: SqlState) {
        let mut bare = false;
        if let Some(this) = self.servers.get_mut(server).filter(|this| this.discarded) {
            // What had followed DISCARD ALL is undone.
            bare = true;
            this.params = std::rc::Rc::clone(&self.groups[self.pools[this.pool].group].no_params);
        }
        if entry.origin == Origin::Injected
            && entry.kind == Kind::Execute
            && let Some(this) = self.servers.get_mut(server)
        {
            // What was to be closed behind it is not.
            this.retire = true;
        }
        self.count(server, owner, entry, 0, Some(code));
        if let Some(id) = owner {
            self.clients.get_mut(id).into_iter().for_each(|client| client.unopened.fails());
            self.doubt(id, bare);
        }
    }

    fn ready(&mut self, server: ServerId, owner: Option<ClientId>, entry: &Expect, status: u8, outlook: &mut Outlook) {
        // What is void is taken back before the next batch's answers change anything.
        if outlook.refused.is_none() {
            self.undo_dropped(server, None);
        }
        let put_in = entry.origin == Origin::Injected && outlook.refused.is_none();
        let opened = put_in && self.came_through(server, owner, status, &mut outlook.fault);
        let Some(this) = self.servers.get_mut(server) else { return };
        this.discarding &= this.replies.busy();
        this.discarded = false;
        (this.counted, this.first_us) = (this.through, 0);
        if put_in && owner.is_some() {
            outlook.settled = this.prior.is_some() || opened;
            if let Some(client) = owner.and_then(|id| self.clients.get(id))
                && !client.inbox.is_empty()
            {
                client.wake();
            }
            return;
        }
        if entry.origin == Origin::Asked
            && let Some(client) = owner.and_then(|id| self.clients.get(id))
        {
            outlook.answered = this.asking.is_some();
            outlook.handed |= this.hand_answered();
            if !client.inbox.is_empty() {
                client.wake();
            }
            return;
        }
        this.overdue = false;
        if status == b'I' {
            if std::mem::take(&mut this.replaces) {
                self.place.wishes.schema_changes();
            }
            let began_us = std::mem::take(&mut this.began_us);
            if owner.is_some() {
                let counters = &self.pools[this.pool].counters;
                counters.total_xact_count.add(1);
                counters.total_xact_time_us.add(self.now_us.saturating_sub(began_us));
            }
        } else if owner.is_some() && !this.own {
            let group = self.pools[this.pool].group;
            outlook.in_block = self.groups[group].terms.pool_mode == PoolMode::Statement;
        }
        let idle = status == b'I' && !this.replies.busy();
        if idle && this.guard.is_some() {
            self.guard_ends(server);
        }
        self.notes_over(server, entry.note);
        let Some(id) = owner else { return };
        if let Some(client) = self.clients.get_mut(id) {
            client.cache.iter_mut().for_each(|cache| cache.why = None);
            client.active_us = self.now_us;
            if !client.inbox.is_empty() {
                client.wake();
            }
            if idle && client.pinned.any(Effects::PREPARE) {
                self.let_go_of_names(id);
            }
        }
    }

    /// Gives a lent server back if nothing is owed and nothing holds it.
    pub(super) fn finish(&mut self, server: ServerId) {
        let Some(this) = self.servers.get(server) else { return };
        let Use::Lent(id) = this.use_ else { return };
        if this.handing.is_some() || this.replies.busy() || self.is_unfinished(server) {
            return;
        }
        self.note_definitions(id);
        if self.ask(server) {
            return;
        }
        match self.clients.get(id) {
            Some(client) if !client.pinned.is_empty() || self.keeps(client) => self.pin_stays(id),
            _ => self.release(server),
        }
    }

    /// A transaction or an unfinished request holds the server.
    fn is_unfinished(&self, server: ServerId) -> bool {
        let Some(this) = self.servers.get(server) else { return false };
        let client = this.owner().and_then(|id| self.clients.get(id));
        // Behind an error, too: what a Query without its Sync is followed by is still read over.
        this.replies.status() != b'I'
            || this.replies.is_skipping()
            || client.is_some_and(|client| client.mid_batch || !client.rest.is_empty() || client.arriving.is_some())
    }

    /// A transaction, the session's state or an unfinished request holds the server.
    pub(super) fn stays(&self, server: ServerId) -> bool {
        let client = self.servers.get(server).and_then(|this| this.owner()).and_then(|id| self.clients.get(id));
        self.is_unfinished(server) || client.is_some_and(|client| !client.pinned.is_empty() || self.keeps(client))
    }

    /// The client keeps its server to its end whatever it does.
    pub(super) fn keeps(&self, client: &Client) -> bool {
        client.own || self.groups[client.group].terms.pool_mode == PoolMode::Session
    }

    /// How a server is named in logs.
    pub(super) fn name_of(&self, server: ServerId) -> String {
        self.pool_of(server).map_or_else(String::new, |pool| pool.dial.endpoint.to_string())
    }
}

/// The answer to a message that was not sent because its effect was there already.
fn fake(out: &mut Vec<u8>, kind: Kind) {
    let tag = match kind {
        Kind::Parse => tag::PARSE_COMPLETE,
        Kind::Close => tag::CLOSE_COMPLETE,
        Kind::Bind | Kind::Describe | Kind::Execute | Kind::Sync | Kind::Query | Kind::Call => return,
    };
    build::message(out, tag, |_| {});
}
