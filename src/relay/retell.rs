//! Errors that name a statement as its client named it.
//! Must never be on the way of anything but an error.

use super::names::hashed;
use super::statements::{PREFIX, number_of};
use super::{ClientId, Relay};
use crate::flow::expect::{Kind, Origin};
use crate::flow::replies::Event;
use crate::wire::error::SqlState;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::{build, tag};

/// What stands in front of a name that would be one of pgweir's on servers, so that it is none.
pub(super) const NOT_OURS: u8 = b'?';

impl Relay {
    /// The error to send at the place of this one, if it must be another.
    pub(super) fn retold(&self, owner: Option<ClientId>, event: &Event, bytes: &[u8]) -> Option<Vec<u8>> {
        let Event::Failed(Some(entry), error) = event else { return None };
        let header = Header::peek(bytes, usize::MAX).ok()??;
        // One that is longer than what is looked at does not talk of names.
        if header.total != bytes.len() {
            return None;
        }
        if entry.origin == Origin::Refused {
            return (error.code == SqlState::UNDEFINED_STATEMENT).then(|| self.refusal(entry));
        }
        if !matches!(entry.kind, Kind::Parse | Kind::Bind | Kind::Describe) {
            return None;
        }
        self.renamed_error(owner?, entry.name, bytes.get(HEADER..)?)
    }

    /// The error with a body whose message names a statement of pgweir's own making.
    fn renamed_error(&self, id: ClientId, called: u32, body: &[u8]) -> Option<Vec<u8>> {
        let at = memchr::memmem::find(body, PREFIX)?;
        let rest = body.get(at..)?;
        let client = self.clients.get(id)?;
        let names = client.prepared.as_ref();
        // A batch behind may have closed it already.
        let gone = || client.renames.iter().map(|(name, _)| &**name).find(|name| hashed(name) == called);
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
