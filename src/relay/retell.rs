//! Errors that name a statement as its client named it.
//! Must never be on the way of anything but an error.

use super::inventory::HIDDEN;
use super::names::hashed;
use super::statements::{PREFIX, number_of};
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Kind, Origin};
use crate::flow::replies::Event;
use crate::wire::error::SqlState;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::{build, tag};

/// What stands in front of a name that would be one of pgweir's on servers, so that it is none.
pub(super) const NOT_OURS: u8 = b'?';

impl Relay {
    /// What to send at the place of this message, if it must be another.
    pub(super) fn retold(
        &self,
        server: ServerId,
        owner: Option<ClientId>,
        event: &Event,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        match event {
            Event::Ready(entry, _) => {
                let id = owner?;
                return self.ready_unopened(id, entry).or_else(|| self.start_values(server, id, bytes));
            }
            Event::Parameter => return self.start_value(server, owner?, bytes),
            _ => {}
        }
        let Event::Failed(Some(entry), error) = event else { return None };
        let header = Header::peek(bytes, usize::MAX).ok()??;
        // One that is longer than what is looked at does not talk of names.
        if header.total != bytes.len() {
            return None;
        }
        if entry.origin == Origin::Refused {
            // A text that would have ended a failed transaction first is refused as a whole.
            let refused = [SqlState::UNDEFINED_STATEMENT, SqlState::IN_FAILED_TRANSACTION].contains(&error.code);
            return refused.then(|| self.refusal(owner, entry));
        }
        if error.code == SqlState::QUERY_CANCELED {
            return self.timed_out(server, owner?, bytes.get(HEADER..)?);
        }
        if error.code == SqlState::NOT_IN_PREREQUISITE_STATE {
            return self.hinted(owner, bytes.get(HEADER..)?);
        }
        if entry.kind == Kind::Query {
            return self.repositioned(server, bytes.get(HEADER..)?);
        }
        if !matches!(entry.kind, Kind::Parse | Kind::Bind | Kind::Describe) {
            return None;
        }
        self.renamed_error(owner?, entry.name, bytes.get(HEADER..)?)
    }

    /// The error of a statement that pgweir has cancelled since it took too long, in the words that PostgreSQL has for that (`ProcessInterrupts` in
    /// src/backend/tcop/postgres.c): nobody has asked for it.
    fn timed_out(&self, server: ServerId, id: ClientId, body: &[u8]) -> Option<Vec<u8>> {
        let this = self.servers.get(server).filter(|this| this.overdue)?;
        let (limit, what) = self.query_limit(this, id);
        let mut out = Vec::with_capacity(HEADER + body.len() + 100);
        build::message(&mut out, tag::server::ERROR, |out| {
            for field in body.split_inclusive(|byte| *byte == 0) {
                match field.first() {
                    Some(b'M') => out.extend_from_slice(b"Mcanceling statement due to statement timeout\0"),
                    Some(0) => {
                        let limit = limit.map_or_else(String::new, |limit| format!(", {} ms", limit.as_millis()));
                        out.extend_from_slice(format!("HThe limit is {what}{limit}.\0\0").as_bytes());
                    }
                    _ => out.extend_from_slice(field),
                }
            }
        });
        Some(out)
    }

    /// The error with a position in the text as the client sent it, if something had been put in before.
    fn repositioned(&self, server: ServerId, body: &[u8]) -> Option<Vec<u8>> {
        let at = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"P"))?;
        let position = self.servers.get(server)?.replies.position(std::str::from_utf8(at).ok()?.parse().ok()?)?;
        let mut out = Vec::with_capacity(HEADER + body.len());
        build::message(&mut out, tag::server::ERROR, |out| {
            for field in body.split_inclusive(|byte| *byte == 0) {
                match field.first() {
                    Some(b'P') => out.extend_from_slice(format!("P{position}\0").as_bytes()),
                    _ => out.extend_from_slice(field),
                }
            }
        });
        Some(out)
    }

    /// DISCARD ALL has taken settings back to the server's start: the client hears of its own.
    fn start_values(&self, server: ServerId, id: ClientId, bytes: &[u8]) -> Option<Vec<u8>> {
        let client = self.clients.get(id).filter(|_| self.servers.get(server).is_some_and(|this| this.discarded))?;
        let reported = client.start.reported.borrow();
        let reported = reported.as_ref().filter(|reported| !reported.is_empty())?;
        let mut out = Vec::new();
        for (name, value) in reported {
            build::parameter_status(&mut out, name, value);
        }
        out.extend_from_slice(bytes);
        Some(out)
    }

    /// Code has perhaps reset a value of the client's start: the client hears of its own.
    fn start_value(&self, server: ServerId, id: ClientId, bytes: &[u8]) -> Option<Vec<u8>> {
        let (this, client) = (self.servers.get(server)?, self.clients.get(id)?);
        let touched = client.touched.as_ref().filter(|_| !client.start.settings.is_empty())?;
        if !touched.effects.any(HIDDEN) && !touched.named.others {
            return None;
        }
        let (name, rest) = cstr(bytes.get(HEADER..)?)?;
        let (value, _) = cstr(rest)?;
        let set_by: &[u8] = if name == b"is_superuser" { b"role" } else { name };
        if touched.named.has_said(set_by, true) {
            return None;
        }
        let base = self.groups.get(client.group)?.base.as_ref()?;
        let is_base = base.iter().any(|(known, of_base)| known == name && of_base == value);
        if !is_base || this.replies.head().is_none_or(|head| head.origin != Origin::Client) {
            return None;
        }
        let reported = client.start.reported.borrow();
        let (name, value) = reported.as_ref()?.iter().find(|(known, _)| known == name)?;
        let mut out = Vec::new();
        build::parameter_status(&mut out, name, value);
        Some(out)
    }

    /// The error with a body whose message names a statement of pgweir's own making.
    fn renamed_error(&self, id: ClientId, called: u32, body: &[u8]) -> Option<Vec<u8>> {
        let at = memchr::memmem::find(body, PREFIX)?;
        let rest = body.get(at..)?;
        let client = self.clients.get(id)?;
        let names = client.prepared.as_ref();
        // A batch behind may have closed it already.
        let gone = || {
            let renames = names.iter().flat_map(|names| &names.renames);
            renames.map(|(name, _)| &**name).find(|name| hashed(name) == called)
        };
        let (before, name, after) = match body.get(..at)?.split_last() {
            Some((&NOT_OURS, before)) => (before, &b""[..], rest),
            _ => {
                let (number, after) = number_of(rest)?;
                (body.get(..at)?, names.and_then(|names| names.with_hash(called, number)).or_else(gone)?, after)
            }
        };
        // Only in the message itself, the field M.
        let mut fields = before.rsplit(|byte| *byte == 0);
        if fields.next()?.first() != Some(&b'M') {
            return None;
        }
        let mut out = Vec::with_capacity(HEADER + body.len() + name.len());
        build::message(&mut out, tag::server::ERROR, |out| {
            out.extend_from_slice(before);
            out.extend_from_slice(name);
            out.extend_from_slice(after);
        });
        Some(out)
    }
}

/// What a name of the client's becomes that looks like one of pgweir's.
pub(super) fn not_ours(name: &[u8]) -> Vec<u8> {
    let mut shown = vec![NOT_OURS];
    shown.extend_from_slice(name);
    shown
}

/// The first text of a Parse's tail, for what only needs the SQL.
pub(super) fn sql_of(tail: &[u8]) -> &[u8] {
    cstr(tail).map_or(tail, |(sql, _)| sql)
}
