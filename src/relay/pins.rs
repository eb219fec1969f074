//! Clients that keep a server to themselves: which may, since when, and why.
//! Must never refuse what has run already, nor name a value of a statement's.
//!
//! What keeps a client is `Client::pinned`; here is only what the operator may know and limit. A pin is *held* from the
//! statement that may begin it, so that a limit cannot be passed by several at once, and *settled* when it has outlived
//! a transaction: then it is counted, listed, and named in the log.

use std::sync::Arc;

use super::attach::{NO_STATEMENT, UNNAMED};
use super::blocked::is_blocked;
use super::client::{Rest, Unnamed};
use super::forward::{Message, Outgoing, Taken};
use super::inventory::{HIDDEN, SETTING};
use super::run::LASTING;
use super::server::UnnamedOn;
use super::shapes::Look;
use super::{Client, ClientId, GroupId, Relay, ServerId};
use crate::config::{PoolMode, SessionState};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::meter::{Construct, PinBoard, PinCounters, Pinned, PoolLabel};
use crate::sql::lasting::lasting;
use crate::sql::verdict::Effects;
use crate::wire::build;
use crate::wire::error::{PgError, SqlState};

/// Effects that bind a session to its server: what they leave lives there.
pub(crate) const PINNING: Effects = Effects::LISTEN
    .union(Effects::PREPARE)
    .union(Effects::TEMP)
    .union(Effects::HOLD_CURSOR)
    .union(Effects::ADVISORY_LOCK)
    .union(Effects::LOAD)
    .union(Effects::SETSEED);

/// What is refused where a client may not keep its server. One that listens gives it back as soon as its group's
/// listener has its channels (`super::listen`).
const BARRED: Effects = PINNING.without(Effects::LISTEN);

/// Names that no statement has on any server. Whoever reads the server's log finds in it why something failed.
const REFUSED: &str = "__pgweir_refused_to_keep_a_server";
const BLOCKED: &str = "__pgweir_refused_a_blocked_shape";

/// Why a client keeps, or may come to keep, its server.
#[derive(Debug)]
pub struct Pin {
    counters: Arc<PinCounters>,
    why: Construct,
    since_us: u64,
    shape: u64,
    statement: Arc<str>,
    settled: bool,
}

impl Pin {
    /// Since when, µs.
    pub(super) fn since_us(&self) -> u64 {
        self.since_us
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.counters.held.dec();
    }
}

/// What refuses a statement that would keep a server, or is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    /// `session_state = "strict"`.
    Strict = 0,
    /// `max_pinned_servers`.
    Limit = 1,
    /// `BLOCK SHAPE`.
    Shape = 2,
}

/// A statement that is not to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barred {
    bar: Bar,
    why: Construct,
    /// It is not the statement itself but code that it runs.
    in_code: bool,
    shape: u64,
}

impl Barred {
    /// As a number that an entry of the ring can carry; never 0.
    fn encode(self) -> u32 {
        1 + self.bar as u32 + 4 * u32::from(self.in_code) + 8 * self.why as u32
    }

    fn decode(number: u32) -> Option<(Bar, Construct, bool)> {
        let number = number.checked_sub(1)?;
        let bar = match number & 3 {
            0 => Bar::Strict,
            1 => Bar::Limit,
            2 => Bar::Shape,
            _ => return None,
        };
        Some((bar, *Construct::ALL.get(number as usize / 8)?, number & 4 != 0))
    }

    fn name(self) -> &'static str {
        if self.bar == Bar::Shape { BLOCKED } else { REFUSED }
    }
}

/// Of what code does this may outlast it: what it also takes away again does not count.
fn outlasts(effects: Effects) -> Effects {
    const TAKEN_AWAY: [(Effects, Effects); 4] = [
        (Effects::TEMP, Effects::TEMP_ON_COMMIT_DROP.union(Effects::DROP)),
        (Effects::ADVISORY_LOCK, Effects::ADVISORY_UNLOCK),
        (Effects::HOLD_CURSOR, Effects::CLOSE_CURSOR),
        (Effects::PREPARE, Effects::DEALLOCATE),
    ];
    let gone = TAKEN_AWAY.iter().filter(|(_, by)| effects.any(*by)).map(|(what, _)| *what);
    gone.fold(effects.intersection(BARRED), Effects::without)
}

/// The worker's list for the stats port.
#[derive(Debug)]
pub(super) struct Shown {
    pub board: Arc<PinBoard>,
    /// There is something on it.
    pub any: bool,
}

/// What to call these effects.
fn construct(effects: Effects) -> Option<Construct> {
    const NAMES: [(Effects, Construct); 10] = [
        (Effects::TEMP, Construct::TempTable),
        (Effects::LISTEN, Construct::Listen),
        (Effects::ADVISORY_LOCK, Construct::AdvisoryLock),
        (Effects::HOLD_CURSOR, Construct::HeldCursor),
        (Effects::PREPARE, Construct::Prepare),
        (Effects::LOAD, Construct::Load),
        (Effects::SETSEED, Construct::Setseed),
        (Effects::SEQUENCE_STATE, Construct::Sequence),
        (HIDDEN, Construct::Hidden),
        (SETTING, Construct::Setting),
    ];
    NAMES.iter().find(|(effect, _)| effects.any(*effect)).map(|(_, why)| *why)
}

impl Relay {
    /// The numbers of pinned clients of a new group: those of the group it replaces as long as that exists.
    pub(super) fn pins_of(&self, label: PoolLabel) -> Arc<PinCounters> {
        let mut others = self.groups.values();
        match others.find(|group| group.pins.label == label) {
            Some(group) => Arc::clone(&group.pins),
            None => self.registry.add_pins(label),
        }
    }

    /// A group is gone, and with it the last that counted here.
    pub(super) fn forget_pins(&self, counters: &Arc<PinCounters>) {
        if !self.groups.values().any(|other| Arc::ptr_eq(&other.pins, counters)) {
            self.registry.remove_pins(counters);
        }
    }

    /// What becomes of the client's session state.
    pub(super) fn session_state(&self, client: &Client) -> SessionState {
        self.groups[client.group].terms.session_state
    }

    /// Nobody looks at what the client's statements do to its session: PgBouncer's way.
    pub(super) fn looks_away(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| self.session_state(client) == SessionState::PgBouncer)
    }

    /// Before a statement runs that may be blocked, or by which its client may come to keep the server: it may, or it is refused.
    pub(super) fn bar(&mut self, id: ClientId, server: ServerId, look: &Look, sql: &[u8]) -> Option<Barred> {
        let group = self.clients.get(id)?.group;
        if self.blocked(group, look.shape, look.kind).is_some() {
            return Some(Barred { bar: Bar::Shape, why: Construct::Hidden, in_code: false, shape: look.shape });
        }
        if !look.effects.any(BARRED.union(Effects::EXECUTE)) {
            return None;
        }
        let client = self.clients.get(id)?;
        let terms = &self.groups[client.group].terms;
        if client.own || terms.pool_mode == PoolMode::Session || terms.session_state == SessionState::PgBouncer {
            return None;
        }
        let mut effects = lasting(sql, client.conforming, look.effects).intersection(BARRED);
        if effects.is_empty() && look.effects.any(Effects::EXECUTE) && self.brings(id, sql) {
            effects = Effects::PREPARE;
        }
        self.bar_for(id, server, construct(effects)?, false, look.shape)
    }

    /// The same for what the code does that a statement with these effects of its own runs, as far as that is known.
    pub(super) fn bar_code(&mut self, id: ClientId, server: ServerId, own: Effects, look: &Look) -> Option<Barred> {
        let effects = outlasts(look.effects).without(own);
        let client = self.clients.get(id).filter(|_| !effects.is_empty())?;
        let terms = &self.groups[client.group].terms;
        if client.own || terms.pool_mode == PoolMode::Session || terms.session_state == SessionState::PgBouncer {
            return None;
        }
        self.bar_for(id, server, construct(effects)?, true, look.shape)
    }

    fn bar_for(&mut self, id: ClientId, server: ServerId, why: Construct, in_code: bool, shape: u64) -> Option<Barred> {
        let client = self.clients.get(id)?;
        let terms = &self.groups[client.group].terms;
        // In a failed transaction PostgreSQL refuses whatever it is.
        let failed = self.servers.get(server).is_some_and(|this| this.replies.refuses_all());
        let (strict, limit) = (terms.session_state == SessionState::Strict, u64::from(terms.max_pinned_servers));
        let counters = Arc::clone(&self.groups[client.group].pins);
        let barred = |bar| Some(Barred { bar, why, in_code, shape });
        if strict && !failed {
            counters.refused_strict.add(1);
            return barred(Bar::Strict);
        }
        if client.pin.is_some() || failed {
            return None;
        }
        if limit > 0 && self.registry.held_by(&counters.label) >= limit {
            counters.refused_limit.add(1);
            return barred(Bar::Limit);
        }
        self.hold(id, why, shape);
        None
    }

    /// Which of these effects may bind the client to its server. A failed transaction runs nothing, and what nothing
    /// takes away cannot be asked about afterwards.
    pub(super) fn pins(&self, id: ClientId, effects: Effects) -> Effects {
        let pins = effects.intersection(PINNING);
        if !pins.any(LASTING) {
            return pins;
        }
        let server = self.clients.get(id).and_then(Client::server).and_then(|server| self.servers.get(server));
        let failed = server.is_some_and(|this| this.replies.refuses_all());
        if failed { pins.without(LASTING) } else { pins }
    }

    pub(super) fn hold(&mut self, id: ClientId, why: Construct, shape: u64) {
        let statement = self.shapes.text(shape);
        let Some(client) = self.clients.get_mut(id) else { return };
        let counters = Arc::clone(&self.groups[client.group].pins);
        counters.held.inc();
        let since_us = self.now_us;
        client.pin = Some(Box::new(Pin { counters, why, since_us, shape, statement, settled: false }));
    }

    /// The client keeps its server behind the end of a transaction.
    pub(super) fn pin_stays(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        if client.own || self.groups[client.group].terms.pool_mode == PoolMode::Session {
            return;
        }
        let Some(why) = construct(client.pinned) else { return };
        if client.pin.is_none() {
            let shape = client.culprit;
            self.hold(id, why, shape);
        }
        let Some(pin) = self.clients.get_mut(id).and_then(|client| client.pin.as_deref_mut()) else { return };
        if pin.settled && pin.why == why {
            return;
        }
        pin.why = why;
        pin.settled = true;
        pin.counters.begun(why).inspect(|begun| begun.add(1));
        if self.registry.pin_log.may_tell(pin.shape, self.now_us) {
            let PoolLabel { database, user } = &pin.counters.label;
            tracing::info!(
                %database, %user, reason = why.name(),
                "a client keeps a server to itself behind this statement: {} ({})", pin.statement, why.remedy()
            );
        }
    }

    /// Answers a barred Query: one is sent at its place that fails, and its error is replaced.
    pub(super) fn refuse_query(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        barred: Barred,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        self.set_unnamed(id, server, Unnamed::Nothing, UnnamedOn::Nobody);
        out.edit(message.at, message.header.total);
        build::query(&mut out.tx, format!("DEALLOCATE \"{}\"", barred.name()).as_bytes());
        self.expect_refused(id, server, Kind::Query, UNNAMED, barred);
        self.changed_unnamed(server);
        self.batch_over(id, server);
        Taken::Bytes(message.header.total)
    }

    /// The same for a barred Bind: the server reads over the rest of the batch.
    pub(super) fn refuse_bind(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        barred: Barred,
        out: &mut Outgoing<'_>,
    ) -> Taken {
        let n = message.header.total.min(message.data.len());
        out.edit(message.at, n);
        out.kept_from = None;
        build::describe_statement(&mut out.tx, barred.name().as_bytes());
        self.expect_refused(id, server, Kind::Describe, NO_STATEMENT, barred);
        if let Some(client) = self.clients.get_mut(id) {
            client.rest = Rest::dropped(message.header.total - n);
        }
        Taken::Bytes(n)
    }

    fn expect_refused(&mut self, id: ClientId, server: ServerId, kind: Kind, statement: u32, barred: Barred) {
        let entry = Expect {
            kind,
            origin: Origin::Refused,
            owner: id.index(),
            statement,
            cookie: barred.shape,
            sent_us: self.now_us,
            name: barred.encode(),
            note: 0,
        };
        self.enter(id, server, entry);
    }

    /// The error for what was refused here, if it was.
    pub(super) fn bar_told(&self, owner: Option<ClientId>, entry: &Expect) -> Option<PgError> {
        let (bar, why, in_code) = Barred::decode(entry.name)?;
        let name = why.name();
        let what = if in_code { "a function, trigger or view of this statement's" } else { "this statement" };
        Some(match bar {
            Bar::Shape => is_blocked(entry.cookie),
            Bar::Strict => PgError::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("pgweir: {what} ({name}) would keep a server connection for this client alone"),
            )
            .detail("Such statements are refused here, whatever follows them: session_state is \"strict\".")
            .hint(format!("Do without {name}, or where session_state is \"transparent\", or pool_mode \"session\".")),
            Bar::Limit => {
                let group = owner.and_then(|id| self.clients.get(id)).map(|client| &self.groups[client.group]);
                let limit = group.map_or(0, |group| group.terms.max_pinned_servers);
                PgError::error(
                    SqlState::CONFIGURATION_LIMIT,
                    format!(
                        "pgweir: as many clients as may keep a server connection to themselves already do ({limit})"
                    ),
                )
                .detail(format!("By {what} ({name}) there would be one more. The limit is max_pinned_servers."))
                .hint(why.remedy())
            }
        })
    }

    /// Ends a client that has kept a server idle for too long.
    pub(super) fn end_idle_pin(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(id) else { return };
        let why = construct(client.pinned).unwrap_or(Construct::Hidden);
        self.groups[client.group].pins.idle_timeouts.add(1);
        let message = "terminating connection due to idle-session timeout";
        let detail =
            format!("pgweir: it kept a server connection to itself ({}) for longer than pin_idle_timeout", why.name());
        self.fatal(id, &PgError::fatal(SqlState::IDLE_SESSION_TIMEOUT, message).detail(detail).hint(why.remedy()));
    }

    /// How many clients of a group keep a server, as the last sweep found them.
    pub(super) fn pinned_in(&self, group: GroupId) -> u64 {
        self.groups[group].pins.held.get()
    }

    /// Shows who keeps a server.
    pub(super) fn show_pins(&mut self) {
        for group in self.groups.values() {
            group.pins.oldest_us.set(0);
            Construct::ALL.iter().filter_map(|why| group.pins.clients(*why)).for_each(|gauge| gauge.set(0));
        }
        let mut rows = Vec::new();
        for id in self.servers.values().filter_map(super::Server::owner) {
            let Some(client) = self.clients.get(id) else { continue };
            let Some(pin) = client.pin.as_deref().filter(|pin| pin.settled) else { continue };
            let counters = &pin.counters;
            counters.clients(pin.why).inspect(|gauge| gauge.inc());
            counters.oldest_us.set(counters.oldest_us.get().max(self.now_us.saturating_sub(pin.since_us)));
            let name = client.params.settings.iter().find(|(name, _)| name == b"application_name");
            rows.push(Pinned {
                pid: self.told_pid(id),
                label: counters.label.clone(),
                application_name: name.map(|(_, value)| String::from_utf8_lossy(value).into()),
                why: pin.why,
                since_us: pin.since_us,
                statement: Arc::clone(&pin.statement),
            });
        }
        let any = !rows.is_empty();
        if any || self.shown.any {
            self.shown.any = any;
            self.shown.board.show(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_barred_comes_back_from_the_ring() {
        for bar in [Bar::Strict, Bar::Limit, Bar::Shape] {
            for &why in Construct::ALL {
                let in_code = why != Construct::Load;
                let number = Barred { bar, why, in_code, shape: 0 }.encode();
                assert_eq!(Barred::decode(number), Some((bar, why, in_code)));
            }
        }
        assert!(Barred::decode(0).is_none() && Barred::decode(u32::MAX).is_none());
    }
}
