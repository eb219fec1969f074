//! What a client's statements have left in its server's session: asked of the server before the two part.
//! Must never guess from texts what holds: those only say when to ask, and for which names.
//!
//! A SET may be rolled back, a function may set anything, a temporary table may be gone with its
//! transaction: PostgreSQL alone knows. So when a lease ends in which something of the kind may have
//! happened, pgweir puts one question behind the last ReadyForQuery. The client has its answer by then
//! and waits for this one only if it asks on at once. Settings become the client's own and follow it to
//! any server; what lives in the server keeps the two together.

use std::fmt::Write;
use std::rc::Rc;

use super::attach::NO_STATEMENT;
use super::client::Unnamed;
use super::forward::Outgoing;
use super::{Client, ClientId, Relay, ServerId};
use crate::config::PoolMode;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::params::{IDENTITY, Settings, literal};
use crate::sql::settings::{Named, is_made_up};
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::frame::{HEADER, cstr};

/// Effects on settings.
pub(super) const SETTING: Effects = Effects::SET_SESSION.union(Effects::RESET).union(Effects::SET_CONFIG);
/// Code that nobody can see into.
pub(super) const HIDDEN: Effects = Effects::OPAQUE.union(Effects::UNKNOWN_FUNCTION);
/// What may leave something in the server that the server can be asked about.
const ADDING: Effects = Effects::TEMP.union(Effects::HOLD_CURSOR).union(Effects::ADVISORY_LOCK).union(Effects::LISTEN);
/// What a server is asked about.
const ASKING: Effects = SETTING.union(HIDDEN).union(ADDING);
/// What may take such a thing away.
const REMOVING: Effects = Effects::DROP
    .union(Effects::CLOSE_CURSOR)
    .union(Effects::ADVISORY_UNLOCK)
    .union(Effects::UNLISTEN)
    .union(Effects::DISCARD)
    .union(Effects::DISCARD_ALL);

/// What may take a setting back to its default.
const RESTORING: Effects =
    Effects::RESET.union(Effects::DISCARD_ALL).union(Effects::SET_SESSION).union(Effects::SET_LOCAL);

/// Longest list of settings that is carried from server to server, bytes; a session with more keeps its server.
const SETTINGS_BYTES: usize = 16 * 1024;

/// What a client's statements may have left since its server was last asked.
#[derive(Debug, Default)]
pub struct Touched {
    pub(super) effects: Effects,
    pub(super) named: Named,
}

/// A question under way.
#[derive(Debug)]
pub struct Asking {
    /// All settings are asked for, not only those named.
    all: bool,
    rows: Vec<(u8, Vec<u8>, Option<Vec<u8>>)>,
    failed: bool,
}

impl Relay {
    /// Notes what a statement that is about to run may leave.
    pub(super) fn touch(&mut self, id: ClientId, effects: Effects, sql: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut effects = effects;
        if effects.any(Effects::EXECUTE) {
            // What was prepared under names of the protocol is not noted.
            let noted = client.pinned.any(Effects::PREPARE);
            effects |= if noted { client.pinned.intersection(SETTING.union(HIDDEN)) } else { HIDDEN };
        }
        let removing = effects.any(REMOVING) && !client.pinned.is_empty();
        if !removing && !effects.any(ASKING) {
            return;
        }
        if self.groups[client.group].terms.pool_mode == PoolMode::Session || client.own {
            return;
        }
        let touched = client.touched.get_or_insert_default();
        touched.effects |= effects;
        if effects.any(SETTING.union(HIDDEN)) {
            touched.named.read(sql, client.conforming);
        }
        touched.named.others |= effects.any(HIDDEN);
    }

    /// Asks a server at rest in its client's hands what the client has left there. False if there is
    /// nothing to ask.
    pub(super) fn ask(&mut self, server: ServerId) -> bool {
        let Some(this) = self.servers.get_mut(server) else { return false };
        let Some(id) = this.owner() else { return false };
        let Some(client) = self.clients.get_mut(id) else { return false };
        let Some(touched) = client.touched.take() else { return false };
        if matches!(client.unnamed, Unnamed::There) {
            // The question would take away a statement that cannot be prepared again.
            client.pinned |= touched.effects.intersection(ASKING);
            client.touched = Some(touched);
            return false;
        }
        let sql = question(client, &touched);
        if sql.is_empty() {
            return false;
        }
        let mut out = Vec::new();
        build::query(&mut out, sql.as_bytes());
        this.unnamed = super::server::UnnamedOn::Nobody;
        this.asking = Some(Box::new(Asking { all: touched.named.others, rows: Vec::new(), failed: false }));
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::Asked,
            owner: id.index(),
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
        });
        client.touched = Some(touched);
        if !this.send(&out) {
            this.wake();
        }
        true
    }

    /// A row of the answer.
    pub(super) fn noted(&mut self, server: ServerId, bytes: &[u8]) {
        let Some(asking) = self.servers.get_mut(server).and_then(|this| this.asking.as_mut()) else { return };
        let Some(mut columns) = bytes.get(HEADER + 2..) else { return };
        match (column(&mut columns), column(&mut columns), column(&mut columns)) {
            (Some(Some([kind])), Some(Some(name)), Some(value)) => {
                asking.rows.push((*kind, name.to_vec(), value.map(<[u8]>::to_vec)));
            }
            // A value too long to be carried about.
            _ => asking.failed = true,
        }
    }

    /// The server would not answer.
    pub(super) fn unanswered(&mut self, server: ServerId) {
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
        let Some(touched) = client.touched.take() else { return };
        if asking.failed {
            // As long as nobody knows better the server stays with the client.
            client.pinned |= touched.effects.intersection(ASKING);
            tracing::debug!(server = %self.name_of(server), "a server would not say what its session holds");
            return self.pump_inbox(id);
        }
        let hidden = touched.effects.any(HIDDEN);
        let prepares = client.pinned.any(Effects::PREPARE);
        let over = if prepares { ADDING } else { ADDING.union(SETTING).union(HIDDEN) };
        client.pinned = client.pinned.without(over) | found(&asking);
        let group = &mut self.groups[client.group];
        let login = &self.pools[group.primary].dial.user;
        let settings = settled(&client.params.settings, &asking, login);
        let bytes: usize = settings.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes > SETTINGS_BYTES {
            client.pinned |= touched.effects.intersection(SETTING);
        } else if settings != client.params.settings {
            client.params = group.intern_known(settings);
        }
        client.changed = false;
        this.params = Rc::clone(&client.params);
        if hidden {
            this.smudged = Some(id);
        }
        if client.pinned.is_empty() {
            self.release(server);
        } else {
            self.pump_inbox(id);
        }
    }

    /// Notes which settings of its session's start a client is about to take back to their defaults: what is a
    /// server's default is not this session's.
    pub(super) fn note_reset(&mut self, id: ClientId, server: ServerId, effects: Effects, sql: &[u8]) {
        let (Some(client), Some(this)) = (self.clients.get(id), self.servers.get_mut(server)) else { return };
        if client.start.settings.is_empty() || client.own || !effects.any(RESTORING) {
            return;
        }
        let mut named = Named::default();
        named.read(sql, client.conforming);
        named.all_back |= effects.any(Effects::DISCARD_ALL);
        let back = |name: &[u8]| named.back.iter().find(|back| *back.name == *name);
        for (name, value) in &client.start.settings {
            let local = match back(name) {
                Some(back) => back.local,
                None if named.all_back => false,
                None => continue,
            };
            this.restoring.push_str(if this.restoring.is_empty() { "SELECT " } else { "," });
            let _ = write!(this.restoring, "pg_catalog.set_config({},{},{local})", literal(name), literal(value));
        }
    }

    /// Gives the client the values noted again, behind its batch that ends at `at` and in its transaction.
    pub(super) fn restore_start(&mut self, id: ClientId, server: ServerId, at: usize, out: &mut Outgoing<'_>) {
        let Some(this) = self.servers.get_mut(server) else { return };
        if this.restoring.is_empty() {
            return;
        }
        let sql = std::mem::take(&mut this.restoring);
        out.edit(at, 0);
        build::query(&mut out.tx, sql.as_bytes());
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::GoesOn,
            owner: id.index(),
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: self.now_us,
            name: 0,
        });
    }

    /// Notes what among the parameters of a Bind may be the name of a setting that an application has
    /// made up: those the server does not list.
    pub(super) fn touch_parameters(&mut self, id: ClientId, bind: &[u8]) {
        let Some(touched) = self.clients.get_mut(id).and_then(|client| client.touched.as_mut()) else { return };
        let Some((_, rest)) = cstr(bind) else { return };
        let Some((_, rest)) = cstr(rest) else { return };
        let Some((formats, rest)) = rest.split_first_chunk::<2>() else { return };
        let formats = usize::from(u16::from_be_bytes(*formats)) * 2;
        let Some(mut values) = rest.get(formats + 2..) else { return };
        while let Some(value) = column(&mut values) {
            if let Some(value) = value.filter(|value| is_made_up(value)) {
                touched.named.add(value);
            }
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

/// Everything is qualified: the session's search_path is its own affair.
fn question(client: &Client, touched: &Touched) -> String {
    let effects = touched.effects;
    let mut parts: Vec<String> = Vec::new();
    let mut names: Vec<&[u8]> = touched.named.names.iter().map(|name| &**name).collect();
    if touched.named.others {
        parts.push(
            "SELECT 's',pg_catalog.lower(name),pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
             WHERE source OPERATOR(pg_catalog.=) 'session'"
                .into(),
        );
        // PostgreSQL does not list these (GUC_NO_SHOW_ALL), nor those that applications make up.
        names.extend([&b"role"[..], b"session_authorization"]);
        names.extend(client.params.settings.iter().map(|(name, _)| &name[..]).filter(|name| name.contains(&b'.')));
        names.sort_unstable();
        names.dedup();
        names.retain(|name| name.contains(&b'.') || IDENTITY.contains(name));
    }
    if effects.any(SETTING.union(HIDDEN)) {
        for name in names {
            let name = literal(name);
            parts.push(format!("SELECT 's',{name},pg_catalog.current_setting({name},true)"));
        }
    }
    let asks = |what: Effects| effects.any(HIDDEN.union(what).union(Effects::DISCARD)) || client.pinned.any(what);
    if asks(Effects::TEMP) {
        parts.push(
            // Whatever is in a schema depends on it: 2615 is pg_namespace.
            "(SELECT 't','',NULL::text FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615 \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() LIMIT 1)"
                .into(),
        );
    }
    if asks(Effects::HOLD_CURSOR) {
        parts.push("SELECT 'h','',NULL::text FROM pg_catalog.pg_cursors WHERE is_holdable".into());
    }
    if asks(Effects::ADVISORY_LOCK) {
        parts.push(
            "(SELECT 'a','',NULL::text FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() LIMIT 1)"
                .into(),
        );
    }
    if asks(Effects::LISTEN) {
        parts.push("(SELECT 'l','',NULL::text FROM pg_catalog.pg_listening_channels() LIMIT 1)".into());
    }
    if parts.is_empty() {
        return String::new();
    }
    parts.join(" UNION ALL ")
}

/// What the server says there is.
fn found(asking: &Asking) -> Effects {
    asking.rows.iter().fold(Effects::NONE, |all, (kind, ..)| {
        all | match kind {
            b't' => Effects::TEMP,
            b'h' => Effects::HOLD_CURSOR,
            b'a' => Effects::ADVISORY_LOCK,
            b'l' => Effects::LISTEN,
            _ => Effects::NONE,
        }
    })
}

/// The client's settings, by those it had and the answer.
fn settled(before: &Settings, asking: &Asking, login: &str) -> Settings {
    let mut settings: Settings = if asking.all { Settings::new() } else { before.clone() };
    for (_, name, value) in asking.rows.iter().filter(|(kind, ..)| *kind == b's') {
        settings.retain(|(known, _)| known != name);
        let default: &[u8] = match &name[..] {
            b"role" => b"none",
            b"session_authorization" => login.as_bytes(),
            // They are set anew in each transaction.
            name if name.starts_with(b"transaction_") => continue,
            _ => b"",
        };
        let Some(value) = value else { continue };
        if default.is_empty() || value != default {
            settings.push((name.clone(), value.clone()));
        }
    }
    settings.sort_unstable();
    settings
}
