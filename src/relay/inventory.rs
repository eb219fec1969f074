//! What a client's statements have left in its server's session: asked of the server before the two part.
//! Must never guess from texts what holds: those only say when to ask, and for which names.
//!
//! A SET may be rolled back, a function may set anything, a temporary table may be gone with its
//! transaction: PostgreSQL alone knows. So when a lease ends in which something of the kind may have
//! happened, pgweir puts one question behind the last ReadyForQuery. The client has its answer by then
//! and waits for this one only if it asks on at once. Settings become the client's own and follow it to
//! any server ([`super::settle`] says which can); what lives in the server keeps the two together.

use std::rc::Rc;

use super::attach::NO_STATEMENT;
use super::client::Unnamed;
use super::group::ParamSet;
use super::question::question;
use super::run::LASTING;
use super::settle::{self, Session, Told};
use super::{Client, ClientId, Relay, Server, ServerId};
use crate::config::{PoolMode, SessionState};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::params::IDENTITY;
use crate::sql::settings::{Named, is_made_up};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::frame::{HEADER, cstr};

/// Effects on settings.
pub(super) const SETTING: Effects = Effects::SET_SESSION.union(Effects::RESET).union(Effects::SET_CONFIG);
/// Code that nobody can see into.
pub(super) const HIDDEN: Effects = Effects::OPAQUE.union(Effects::UNKNOWN_FUNCTION);
/// What may leave something in the server that the server can be asked about.
pub(super) const ADDING: Effects =
    Effects::TEMP.union(Effects::HOLD_CURSOR).union(Effects::ADVISORY_LOCK).union(Effects::LISTEN);
/// What a server is asked about.
pub(super) const ASKING: Effects = SETTING.union(HIDDEN).union(ADDING);
/// What may take such a thing away.
const REMOVING: Effects = Effects::DROP
    .union(Effects::CLOSE_CURSOR)
    .union(Effects::ADVISORY_UNLOCK)
    .union(Effects::UNLISTEN)
    .union(Effects::DEALLOCATE)
    .union(Effects::DISCARD)
    .union(Effects::DISCARD_ALL);
/// What keeps a client with its server and may run code that no catalog read on another has.
const CARRYING: Effects = Effects::TEMP.union(Effects::PREPARE).union(Effects::OPAQUE);
/// What undoes statements before it.
const UNDOING: Effects = Effects::ROLLBACK.union(Effects::ROLLBACK_TO);

/// Most names that are asked for one by one.
const NAMES: usize = 32;

/// What a client's statements may have left since its server was last asked.
#[derive(Debug, Default)]
pub struct Touched {
    pub(super) effects: Effects,
    pub(super) named: Named,
    /// Something failed or was rolled back: not all that was touched has changed.
    pub(super) doubt: bool,
    /// DISCARD ALL has run, and what followed it in its batch was undone: the values of the start are still to come back.
    pub(super) bare: bool,
}

/// A question under way.
#[derive(Debug)]
pub struct Asking {
    /// Names of settings whose values the one row of the answer has; `None`: each setting has a row.
    short: Option<Vec<Box<[u8]>>>,
    rows: Vec<Told>,
    failed: bool,
}

impl Asking {
    fn channels(&self) -> Vec<super::listen::Channel> {
        self.rows.iter().filter(|told| told.kind == b'l').map(|told| told.name.as_slice().into()).collect()
    }
}

impl Asking {
    /// How many of the statements that clients share it has, if that was asked.
    fn shared(&self) -> Option<usize> {
        let told = self.rows.iter().find(|told| told.kind == b'c')?;
        std::str::from_utf8(&told.name).ok()?.parse().ok()
    }
}

impl Server {
    /// It says that it has so many statements of those that clients share. Fewer than it was given: code has said
    /// DEALLOCATE.
    fn count_shared(&mut self, there: usize, client: &mut Client) {
        let given = self.prepared.len() + self.outdated.len();
        if there == given {
            return;
        }
        if there > 0 {
            self.retire = true;
            return;
        }
        // All of them, also those of the client that are on other servers.
        self.forget_prepared();
        if let Some(names) = &mut client.prepared {
            names.take_all();
            names.renames = Vec::new();
        }
    }
}

impl Touched {
    /// Whether a few values are all there is to ask about settings, by names that PostgreSQL has for everybody to
    /// set, or that applications have made up.
    pub(super) fn is_plain(&self, client: &Client) -> bool {
        let acts = |name: &[u8]| IDENTITY.contains(&name);
        !self.doubt
            && !self.named.others
            && self.named.parameters.is_empty()
            && self.named.names.len() <= NAMES
            && self.named.names.iter().all(|name| settle::is_anyones(name))
            // One may have another name as well.
            && self.named.back.iter().all(|back| IDENTITY.contains(&&*back.name) || settle::is_anyones(&back.name))
            && !client.params.settings.iter().any(|(name, _)| acts(name))
            // What cannot follow is to be looked at again.
            && !client.pinned.any(Effects::SET_SESSION)
    }
}

impl Relay {
    /// Notes what a statement that is about to run may leave.
    pub(super) fn touch(&mut self, id: ClientId, effects: Effects, sql: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        if effects.any(UNDOING)
            && let Some(touched) = &mut client.touched
        {
            touched.doubt = true;
        }
        let mut effects = effects;
        let mut hidden = false;
        if effects.any(Effects::EXECUTE) {
            // What was prepared under names of the protocol is not noted.
            let noted = client.prepared.as_ref().filter(|_| client.pinned.any(Effects::PREPARE));
            let executes = noted.map_or(HIDDEN, |names| names.executes);
            // Which settings those are was not noted either.
            hidden = executes.any(SETTING);
            effects |= if hidden { executes | HIDDEN } else { executes };
        }
        if effects.any(Effects::DDL) {
            // Whether what it makes is temporary hangs on the search_path as well.
            effects |= Effects::TEMP;
        }
        let removing = effects.any(REMOVING) && !client.pinned.is_empty();
        // Code of a temporary table, or behind a name, may have run at any time, and be gone by the end of the lease.
        if removing && client.pinned.any(CARRYING) {
            effects |= HIDDEN;
        }
        let asks = removing || effects.any(ASKING);
        if !asks && (!effects.any(Effects::SET_LOCAL) || client.start.settings.is_empty()) {
            return;
        }
        let terms = &self.groups[client.group].terms;
        let looks_away = terms.session_state == SessionState::PgBouncer;
        if terms.pool_mode == PoolMode::Session || looks_away || client.own {
            return;
        }
        let held = client.server().and_then(|server| self.servers.get(server));
        let touched = client.touched.get_or_insert_default();
        if !asks {
            // What code behind it in its transaction does is told from it.
            return touched.named.say_local(sql, client.conforming);
        }
        touched.effects |= effects;
        // It is read over: something before it in its batch has failed.
        touched.doubt |= held.is_some_and(|this| this.replies.is_skipping());
        // Also of the same text.
        touched.doubt |= effects.any(UNDOING);
        if effects.any(SETTING.union(HIDDEN).union(Effects::DISCARD_ALL)) {
            touched.named.read(sql, client.conforming);
        }
        touched.named.others |= effects.any(HIDDEN);
        touched.named.hidden |= hidden;
    }

    /// Something failed: what the lease has touched may not have changed. Behind DISCARD ALL in its batch if `bare`: that is
    /// not undone, but what followed it is.
    pub(super) fn doubt(&mut self, id: ClientId, bare: bool) {
        if let Some(touched) = self.clients.get_mut(id).and_then(|client| client.touched.as_mut()) {
            touched.doubt = true;
            touched.bare |= bare;
        }
    }

    /// Asks a server at rest in its client's hands what the client has left there. False if there is
    /// nothing to ask.
    pub(super) fn ask(&mut self, server: ServerId) -> bool {
        let Some(this) = self.servers.get_mut(server) else { return false };
        let Some(id) = this.owner() else { return false };
        let Some(client) = self.clients.get_mut(id) else { return false };
        let Some(mut touched) = client.touched.take() else { return false };
        if touched.effects.is_empty() {
            return false;
        }
        if matches!(client.unnamed, Unnamed::There { used: false }) {
            // The question would take away a statement that cannot be prepared again.
            client.pinned |= touched.effects.intersection(ASKING);
            client.touched = Some(touched);
            return false;
        }
        if !touched.named.parameters.is_empty() {
            // Of a statement that SQL's PREPARE made: its parameters are anybody's guess.
            (touched.named.others, touched.named.hidden) = (true, true);
        }
        if touched.named.names.iter().any(|name| !name.is_ascii()) {
            // In which encoding it is to be understood changes with the client's.
            touched.named.names.retain(|name| name.is_ascii());
            (touched.named.others, touched.named.hidden) = (true, true);
        }
        let (sql, short) = question(client, &touched);
        client.touched = Some(touched);
        this.asking = Some(Box::new(Asking { short, rows: Vec::new(), failed: false }));
        if sql.is_empty() {
            self.answered(server);
            return true;
        }
        let mut out = Vec::new();
        build::query(&mut out, sql.as_bytes());
        this.unnamed = super::server::UnnamedOn::Nobody;
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::Asked,
            owner: id.index(),
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
            note: 0,
        });
        self.pools[this.pool].counters.total_session_questions.add(1);
        if !this.send(&out) {
            this.wake();
        }
        true
    }

    /// A row of the answer.
    pub(super) fn noted(&mut self, server: ServerId, bytes: &[u8]) {
        let Some(asking) = self.servers.get_mut(server).and_then(|this| this.asking.as_mut()) else { return };
        let Some(mut rest) = bytes.get(HEADER + 2..) else { return };
        let mut columns = Vec::new();
        while let Some(column) = column(&mut rest) {
            columns.push(column.map(<[u8]>::to_vec));
        }
        let mut columns = columns.into_iter();
        match (columns.next().flatten().as_deref(), &asking.short) {
            (Some(b"n"), Some(names)) => {
                let each = names.iter().zip(columns);
                asking.rows.extend(each.map(|(name, value)| Told::short(name, value)));
            }
            (Some(&[kind]), _) if columns.len() == 3 => {
                let (name, value, context) = (columns.next(), columns.next(), columns.next());
                let name = name.flatten().unwrap_or_default();
                let anyone = context.flatten().is_none_or(|context| context == b"user");
                asking.rows.push(Told { kind, name, value: value.flatten(), anyone });
            }
            // A row too long to be carried about.
            _ => asking.failed = true,
        }
    }

    /// The server would not answer.
    pub(super) fn unanswered(&mut self, server: ServerId) {
        self.code_unanswered(server);
        if let Some(asking) = self.servers.get_mut(server).and_then(|this| this.asking.as_mut()) {
            asking.failed = true;
        }
    }

    /// The answer is complete: the client's settings are known, and what keeps it with the server.
    pub(super) fn answered(&mut self, server: ServerId) {
        let Some(this) = self.servers.get_mut(server) else { return };
        let Some(asking) = this.asking.take() else { return };
        let Some(id) = this.owner() else { return };
        let Some(client) = self.clients.get_mut(id) else { return };
        let Some(mut touched) = client.touched.take() else { return };
        if asking.failed {
            // As long as nobody knows better the server stays with the client. It is asked again when the next
            // transaction has ended.
            client.pinned |= touched.effects.intersection(ADDING).union(Effects::OPAQUE);
            (touched.doubt, touched.named.others) = (true, true);
            client.touched = Some(touched);
            tracing::debug!(server = %self.name_of(server), "a server would not say what its session holds");
            self.pin_stays(id);
            return self.pump_inbox(id);
        }
        let group = &mut self.groups[client.group];
        let none = Vec::new();
        let session = Session {
            login: &self.pools[group.primary].dial.user,
            base: group.base.as_ref().unwrap_or(&none),
            status: &this.status,
        };
        let settled = settle::settle(client, &touched, asking.short.is_some(), &asking.rows, &session);
        client.pinned = settled.pinned;
        this.retire |= settled.pinned.any(LASTING);
        if let Some((here, own)) = settled.settings {
            if here != this.params.settings {
                this.params = group.intern_known(here, &this.status);
            }
            if own != client.params.settings {
                client.params = group.intern_known(own, &this.status);
            }
        }
        let code = touched.effects.any(HIDDEN) || touched.named.others;
        if code && !client.start.settings.is_empty() {
            // What code has done to values of the session's start was guessed when it was reported.
            let mut told = Vec::new();
            let start = client.start.reported.borrow();
            for (name, value) in start.iter().flatten() {
                let has = |set: &Rc<ParamSet>| set.settings.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
                let now = this.status.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                match now {
                    Some(now) if has(&this.params) && now != value => build::parameter_status(&mut told, name, now),
                    _ if has(&client.params) && !has(&this.params) => build::parameter_status(&mut told, name, value),
                    _ => {}
                }
            }
            drop(start);
            client.send(&told);
        }
        client.changed = false;
        if let Some(shared) = asking.shared() {
            this.count_shared(shared, client);
        }
        if settled.smudged {
            this.smudged = Some(id);
        }
        if !self.hand_over(server, id, asking.channels()) {
            self.part_or_stay(server, id);
        }
    }

    /// What the client has left is known: if it is nothing, the server goes back.
    pub(super) fn part_or_stay(&mut self, server: ServerId, id: ClientId) {
        if self.clients.get(id).is_some_and(|client| client.pinned.is_empty()) {
            self.release(server);
        } else {
            self.pin_stays(id);
            self.pump_inbox(id);
        }
    }

    /// Notes what among the parameters of a Bind is, or may be, the name of a setting that an application has
    /// made up: those the server does not list.
    pub(super) fn touch_parameters(&mut self, id: ClientId, bind: &[u8]) {
        let Some(touched) = self.clients.get_mut(id).and_then(|client| client.touched.as_mut()) else { return };
        let named = std::mem::take(&mut touched.named.parameters);
        let Some((_, rest)) = cstr(bind) else { return };
        let Some((_, rest)) = cstr(rest) else { return };
        let Some((formats, rest)) = rest.split_first_chunk::<2>() else { return };
        let formats = usize::from(u16::from_be_bytes(*formats)) * 2;
        let Some(mut values) = rest.get(formats + 2..) else { return };
        let mut found = 0;
        for number in 0u16.. {
            let Some(value) = column(&mut values) else { break };
            let is_name = named.contains(&number);
            found += usize::from(is_name);
            if let Some(value) = value.filter(|value| is_name || is_made_up(value)) {
                touched.named.add(value);
            }
            if let Some(value) = value.filter(|_| is_name) {
                touched.named.say(value, false);
            }
        }
        // The rest of the message was not here.
        if found < named.len() {
            (touched.named.others, touched.named.hidden) = (true, true);
        }
    }
}

/// One column of a DataRow in text format: `None` at the end, `Some(None)` for NULL.
fn column<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = i32::from_be_bytes(*length);
    let Ok(length) = usize::try_from(length) else {
        *bytes = rest;
        return Some(None);
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(Some(value))
}
