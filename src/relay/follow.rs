//! Hidden statements right behind a client's own, in the same transaction.
//! Must never let an answer to one out, nor run one whose statement did not.
//!
//! RESET takes a setting back to what it was when the session began. A pooled server's session began
//! without its client's start values, so that a statement which sets those again has to follow, and to
//! live and die with the RESET: in the same transaction and savepoint, skipped if the RESET fails. In a
//! Query it is put into the text, behind the statement that it follows; in the extended protocol its own
//! Parse, Bind and Execute come behind the client's Execute.

use super::attach::NO_STATEMENT;
use super::forward::{Message, Outgoing, Taken};
use super::settle;
use super::statements::Statement;
use super::{Client, ClientId, Relay, ServerId};
use crate::config::SessionState;
use crate::flow::expect::{Kind, Origin};
use crate::flow::params::{IDENTITY, assignments};
use crate::flow::replies::Hidden;
use crate::sql::settings::Named;
use crate::sql::verdict::Effects;
use crate::sql::words::{Words, tokens};
use crate::wire::build;
use crate::wire::tag::client as tag;

/// Effects of statements that another may have to follow.
pub(super) const FOLLOWED: Effects = Effects::RESET
    .union(Effects::DISCARD_ALL)
    .union(Effects::SET_SESSION)
    .union(Effects::SET_LOCAL)
    .union(Effects::SET_CONFIG);

/// Name of hidden statements and portals; closed at once.
const NAME: &[u8] = b"__pgweir_hidden";

/// What must follow one statement, if anything.
fn follower(client: &Client, superuser: bool, statement: Words<'_>) -> Option<String> {
    let mut named = Named::default();
    named.read_one(statement, client.conforming);
    let back = |name: &[u8]| named.back.iter().find(|back| *back.name == *name);
    // RESET ALL leaves the identity alone, and may be said by who may not set what the session began with.
    let back_with_all = |name: &[u8]| match IDENTITY.contains(&name) {
        true => named.identity_back,
        false => superuser || settle::is_anyones(name),
    };
    let start = client.start.settings.iter();
    let again = start.filter_map(|(name, value)| match back(name) {
        Some(back) => Some((&name[..], &value[..], back.local)),
        None if named.all_back && back_with_all(name) => Some((&name[..], &value[..], false)),
        None => None,
    });
    assignments(again)
}

/// How many characters of UTF-8 there are: what positions in errors count.
fn characters(text: &[u8]) -> u32 {
    text.iter().filter(|byte| (**byte as i8) >= -64).count() as u32
}

impl Relay {
    /// Whether something may have to follow a statement with these effects.
    fn may_be_followed(&self, id: ClientId, effects: Effects) -> bool {
        if !effects.any(FOLLOWED) {
            return false;
        }
        let Some(client) = self.clients.get(id) else { return false };
        let looks_away = self.groups[client.group].terms.session_state == SessionState::PgBouncer;
        !client.start.settings.is_empty() && !client.own && !looks_away
    }

    /// Forwards a Query with what must follow its statements. `None` if nothing must.
    pub(super) fn forward_followed(
        &mut self,
        id: ClientId,
        server: ServerId,
        message: &Message<'_>,
        effects: Effects,
        sql: &[u8],
        out: &mut Outgoing<'_>,
    ) -> Option<Taken> {
        if !self.may_be_followed(id, effects) {
            return None;
        }
        let client = self.clients.get(id)?;
        let all = tokens(sql, client.conforming);
        // Outside a transaction SET LOCAL does nothing but warn, and nothing may follow it.
        let this = self.servers.get(server)?;
        let (replies, superuser) = (&this.replies, settle::acts_as_superuser(&this.status));
        let only = replies.entries().filter(|entry| entry.origin == Origin::Client).count() <= 1;
        let alone = Words::new(sql, &all).statements().count() == 1 && replies.status() == b'I' && only;
        let mut text = Vec::with_capacity(sql.len() + 128);
        let (mut from, mut nth, mut hidden) = (0, 0, Vec::new());
        for statement in Words::new(sql, &all).statements() {
            // DISCARD ALL stands alone: what follows it comes with the next request.
            let stays = statement.is(0, "discard") || (alone && statement.is(1, "local"));
            if let Some(follower) = follower(client, superuser, statement).filter(|_| !stays) {
                let end = statement.end();
                text.extend_from_slice(sql.get(from..end)?);
                let begin = characters(&text) + 1;
                text.push(b';');
                text.extend_from_slice(follower.as_bytes());
                from = end;
                nth += 1;
                hidden.push(Hidden { nth, from: begin, len: follower.len() as u32 + 1 });
            }
            nth += 1;
        }
        if hidden.is_empty() {
            return None;
        }
        text.extend_from_slice(sql.get(from..)?);
        self.servers.get_mut(server)?.replies.veil(hidden);
        out.edit(message.at, message.header.total);
        build::query(&mut out.tx, &text);
        Some(Taken::Bytes(message.header.total))
    }

    /// A portal is being bound to this statement, if that is known: notes what must follow its Execute.
    pub(super) fn note_followed(&mut self, id: ClientId, portal: &[u8], statement: Option<&Statement>) {
        if let Some(names) = self.clients.get_mut(id).and_then(|client| client.prepared.as_mut()) {
            names.followed.retain(|(known, _)| **known != *portal);
        }
        let Some(statement) = statement.filter(|it| self.may_be_followed(id, it.look.effects)) else { return };
        let Some(client) = self.clients.get(id) else { return };
        let server = client.server().and_then(|server| self.servers.get(server));
        let superuser = server.is_some_and(|this| settle::acts_as_superuser(&this.status));
        let all = tokens(statement.sql(), client.conforming);
        let follower = Words::new(statement.sql(), &all).statements().find_map(|it| follower(client, superuser, it));
        if let Some(follower) = follower
            && let Some(names) = self.names_of(id)
        {
            names.followed.push((portal.into(), follower));
        }
    }

    /// Puts what must follow the Execute of `portal`, which has just been forwarded, behind it.
    pub(super) fn follow_execute(
        &mut self,
        id: ClientId,
        server: ServerId,
        portal: &[u8],
        message: &Message<'_>,
        out: &mut Outgoing<'_>,
    ) {
        let names = self.clients.get(id).and_then(|client| client.prepared.as_ref());
        let followed = names.and_then(|names| names.followed.iter().find(|(known, _)| **known == *portal));
        let Some((_, sql)) = followed.cloned() else { return };
        out.edit(message.at + message.header.total, 0);
        self.run_hidden(id, server, &sql, out);
    }

    /// Puts a statement of pgweir's own among the client's messages, in the extended protocol and without a Sync:
    /// it belongs to their transaction, and is read over behind an error.
    pub(super) fn run_hidden(&mut self, id: ClientId, server: ServerId, sql: &str, out: &mut Outgoing<'_>) {
        let tx = &mut out.tx;
        let mut tail = Vec::with_capacity(sql.len() + 3);
        build::cstr(&mut tail, sql.as_bytes());
        tail.extend_from_slice(&[0, 0]);
        build::parse(tx, NAME, &tail);
        build::message(tx, tag::BIND, |tx| {
            build::cstr(tx, NAME);
            build::cstr(tx, NAME);
            tx.extend_from_slice(&[0; 6]);
        });
        build::message(tx, tag::EXECUTE, |tx| {
            build::cstr(tx, NAME);
            tx.extend_from_slice(&[0; 4]);
        });
        build::message(tx, tag::CLOSE, |tx| {
            tx.push(b'P');
            build::cstr(tx, NAME);
        });
        build::close_statement(tx, NAME);
        for kind in [Kind::Parse, Kind::Bind, Kind::Execute, Kind::Close, Kind::Close] {
            self.expect(id, server, kind, Origin::Injected, NO_STATEMENT, 0);
        }
    }
}
