//! What statements under way say beside their shape: comments, and their values where those are asked for.
//! Must never keep more than its bound, nor cost a statement without comments more than a look.
//!
//! A statement is counted when its answer has come, and by then its text is long gone. What is to be known of it besides is noted
//! when it is forwarded, under a number that its entry in the ring carries; a Sync carries the last number of its batch, with whose
//! end all up to it are forgotten. In the extended protocol what Execute runs is what was bound to its portal: noted at the Bind.

use std::collections::VecDeque;
use std::rc::Rc;

use super::audit::Audited;
use super::lane::Rider;
use super::message::Message;
use super::renames::Named;
use super::shapes::{LONG, Look};
use super::statements::Statement;
use super::{ClientId, Relay, ServerId};
use crate::flow::expect::{Expect, Kind, Origin};
use crate::flow::values::{beginning, formats_and_values, values};
use crate::server::explain::Explain;
use crate::sql::lex::{Kind as Token, Lexer};
use crate::trace::Parent;
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag::client as tag;

/// Most bytes of a text that are copied; of a longer one its comments are, as far as they fit.
const TEXT_BYTES: usize = 4096;
/// Most bytes of values that are kept to ask for a plan with.
const VALUES_BYTES: usize = 4096;
/// Most portals of a server of which something is known.
const MOST_PORTALS: usize = 1_000;
/// Bytes noted on a server beyond which statements go without.
const MOST_BYTES: usize = 64 * 1024;
/// Buffers kept for the next texts.
const SPARES: usize = 4;

/// Where the words of a statement are.
#[derive(Clone, Debug)]
pub(super) enum Words {
    /// Nobody wants them.
    Unwanted,
    /// Here.
    Copied(Vec<u8>),
    /// In what was prepared.
    Of(Rc<Statement>),
}

/// What a statement was given, where its plan may be asked for.
#[derive(Clone, Debug)]
enum Given {
    /// Nobody wants it, or it is too long.
    Unkept,
    /// Nothing: its text is all there is, and is whole.
    Nothing,
    /// Formats and values as its Bind had them.
    Values(Rc<[u8]>),
}

/// What was noted of a statement.
#[derive(Clone, Debug)]
pub(super) struct Note {
    number: u64,
    /// Its text, or the comments in that.
    words: Words,
    /// `standard_conforming_strings`, which says how to read them.
    conforming: bool,
    /// Its values, for people.
    pub values: Option<Rc<str>>,
    /// The same for a server.
    given: Given,
    /// What the audit log is to say of it.
    pub audit: Option<Box<Audited>>,
    /// The span that it is a part of.
    pub parent: Option<Parent>,
}

impl Note {
    fn new(words: Words, conforming: bool, values: Option<Rc<str>>) -> Self {
        Self { number: 0, words, conforming, values, given: Given::Unkept, audit: None, parent: None }
    }

    /// Of a text alone, with so many bytes of it for people.
    pub(super) fn of_text(sql: &[u8], conforming: bool, limit: usize) -> Self {
        let values = (limit > 0).then(|| beginning(sql, limit).into());
        Self { given: Given::Nothing, ..Self::new(Words::Copied(sql.to_vec()), conforming, values) }
    }

    fn bytes(&self) -> usize {
        let words = if let Words::Copied(text) = &self.words { text.len() } else { 0 };
        let audited = self.audit.as_ref().and_then(|audit| audit.values.as_ref());
        let words = words + if let Given::Values(values) = &self.given { values.len() } else { 0 };
        words + [self.values.as_ref(), audited].into_iter().flatten().map(|values| values.len()).sum::<usize>()
    }

    /// Without what takes room; nothing is left of one that is not audited and has no parent.
    fn slim(mut self) -> Option<Self> {
        (self.words, self.values, self.given) = (Words::Unwanted, None, Given::Unkept);
        self.audit.iter_mut().for_each(|audit| audit.values = None);
        (self.audit.is_some() || self.parent.is_some()).then_some(self)
    }

    /// What asks for its plan, in a session with these settings.
    pub fn explain(&self, settings: String) -> Option<Explain> {
        let (statement, values) = match (&self.words, &self.given) {
            (Words::Copied(text), Given::Nothing) => ([text, &b"\0\0\0"[..]].concat(), vec![0; 4]),
            (Words::Of(statement), Given::Values(values)) => (statement.tail.to_vec(), values.to_vec()),
            _ => return None,
        };
        Some(Explain { settings, statement, values, statistics: false })
    }

    /// The text, or as much of it as holds its comments; and how to read it.
    pub fn text(&self) -> (&[u8], bool) {
        let text = match &self.words {
            Words::Unwanted => &[][..],
            Words::Copied(text) => text,
            Words::Of(statement) => statement.sql(),
        };
        (text, self.conforming)
    }
}

/// What was noted of the statements of a server.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The number given last.
    last: u64,
    /// Of those under way, oldest first.
    under_way: VecDeque<Note>,
    /// Of the one that is entered next.
    next: Option<Note>,
    /// The parent of a Parse or Bind that is entered next, which may fail.
    aside: Option<Parent>,
    /// What failed in the batch at hand without having been noted.
    pub failed: Option<Box<Audited>>,
    /// By portal, the unnamed one among them.
    portals: Vec<(Box<[u8]>, Note)>,
    /// In all of `under_way`.
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl Notes {
    /// The number for an entry of this kind that is being entered.
    pub fn enter(&mut self, entry: &Expect) -> u64 {
        match (entry.kind, entry.origin) {
            (Kind::Sync, Origin::Client) => self.last,
            (Kind::Parse | Kind::Bind, Origin::Client) => {
                let Some(parent) = self.aside.take() else { return 0 };
                self.last += 1;
                let note = Note::new(Words::Unwanted, true, None);
                self.under_way.push_back(Note { number: self.last, parent: Some(parent), ..note });
                self.last
            }
            (Kind::Query | Kind::Execute | Kind::Call, Origin::Client) => {
                let Some(mut note) = self.next.take() else { return 0 };
                self.last += 1;
                note.number = self.last;
                self.bytes += note.bytes();
                self.under_way.push_back(note);
                self.last
            }
            _ => 0,
        }
    }

    /// What was noted under this number.
    pub fn get(&self, number: u64) -> Option<&Note> {
        // They have numbers without gaps.
        let at = number.checked_sub(self.under_way.front()?.number)?;
        self.under_way.get(at as usize)
    }

    /// The same, to add to it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Note> {
        let at = number.checked_sub(self.under_way.front()?.number)?;
        self.under_way.get_mut(at as usize)
    }

    /// All up to this one are over; those of them that are audited. `rests`: nothing is under way any more, no transaction either.
    pub fn over(&mut self, number: u64, rests: bool) -> Vec<Audited> {
        let mut audited = Vec::new();
        while let Some(note) = self.under_way.pop_front_if(|note| note.number <= number) {
            self.bytes -= note.bytes();
            audited.extend(note.audit.map(|audit| *audit));
            if let Words::Copied(mut text) = note.words
                && self.spare.len() < SPARES
            {
                text.clear();
                self.spare.push(text);
            }
        }
        if rests {
            self.next = None;
            self.portals.clear();
        }
        audited
    }

    /// What is under way is run again, and noted again then.
    pub fn clear(&mut self) {
        self.failed = None;
        self.over(u64::MAX, true);
    }

    fn copy(&mut self, sql: &[u8], conforming: bool) -> Words {
        let mut text = self.spare.pop().unwrap_or_default();
        if sql.len() <= TEXT_BYTES {
            text.extend_from_slice(sql);
            return Words::Copied(text);
        }
        for comment in Lexer::new(sql, conforming).filter(|token| token.kind == Token::Comment) {
            let comment = comment.bytes(sql);
            if text.len() + comment.len() < TEXT_BYTES {
                text.extend_from_slice(comment);
                // Which ends one of a line.
                text.push(b'\n');
            }
        }
        Words::Copied(text)
    }

    /// What is known of this portal from now on; nothing when it is closed.
    pub fn bind(&mut self, portal: &[u8], note: Option<Note>) {
        let at = self.portals.iter().position(|(name, _)| **name == *portal);
        at.map(|at| self.portals.swap_remove(at));
        if self.portals.len() < MOST_PORTALS {
            self.portals.extend(note.map(|note| (portal.into(), note)));
        }
    }
}

impl Relay {
    /// Whether something is noted of every statement, not only of those with comments.
    fn notes_every(&self) -> bool {
        self.audit.is_some() || self.plans.is_on() || self.config.pool.slow_query_parameter_bytes > 0
    }

    /// Most bytes of values that are noted of a statement on this server; `None`: nothing is to be noted of it.
    fn notes_of(&self, server: ServerId, look: &Look) -> Option<usize> {
        let terms = &self.groups[self.pool_of(server)?.group].terms;
        let bytes = self.config.pool.slow_query_parameter_bytes as usize;
        let is_slow_wanted = (look.commented || bytes > 0) && terms.measured && terms.slow_query_us < u64::MAX;
        (is_slow_wanted || self.plans.is_on()).then_some(bytes)
    }

    /// A Query with this text is about to be entered.
    pub(super) fn note_query(
        &mut self,
        id: ClientId,
        server: ServerId,
        look: &Look,
        sql: &[u8],
        message: &Message<'_>,
    ) {
        if !look.commented && !self.notes_every() {
            return;
        }
        let slow = self.notes_of(server, look);
        let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
        let sql = if look.shape == LONG { message.body_here() } else { sql };
        let audit = self.audited(id, (look.shape, sql), true, |limit| beginning(sql, limit));
        let parent = self.parent_in(look.commented, sql, conforming);
        let is_planned = self.plans.is_on() && sql.len() <= TEXT_BYTES;
        let Some(this) = self.servers.get_mut(server) else { return };
        if slow.is_none() && audit.is_none() && parent.is_none() {
            return;
        }
        let notes = this.notes.get_or_insert_default();
        let has_room = notes.bytes < MOST_BYTES;
        let is_copied = (look.commented && slow.is_some() || is_planned) && has_room;
        let words = if is_copied { notes.copy(sql, conforming) } else { Words::Unwanted };
        let values = slow.filter(|limit| *limit > 0).map(|limit| beginning(sql, limit).into());
        let given = if is_planned { Given::Nothing } else { Given::Unkept };
        let note = Note { audit, given, parent, ..Note::new(words, conforming, values) };
        notes.next = if has_room { Some(note) } else { note.slim() };
    }

    /// A Parse with this text is about to be entered.
    pub(super) fn note_parse(&mut self, id: ClientId, server: ServerId, commented: bool, sql: &[u8]) {
        if self.tracer.is_none() {
            return;
        }
        let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
        let parent = self.parent_in(commented, sql, conforming);
        let Some(this) = self.servers.get_mut(server) else { return };
        if parent.is_some() || this.notes.is_some() {
            this.notes.get_or_insert_default().aside = parent;
        }
    }

    /// A Bind with this body, or as much of it as is here, is about to be entered.
    pub(super) fn note_bind(&mut self, id: ClientId, server: ServerId, body: &[u8], named: &Named) {
        let is_plain = matches!(named, Named::Known(statement) if !statement.look.commented) && !self.notes_every();
        if is_plain && self.servers.get(server).is_none_or(|this| this.notes.is_none()) {
            return;
        }
        let Some((portal, _)) = cstr(body) else { return };
        let note = match named {
            Named::Known(statement) => {
                let slow = self.notes_of(server, &statement.look);
                let one = (statement.look.shape, statement.sql());
                let audit = if self.audit.is_some() {
                    self.audited(id, one, false, |limit| values(sent(body), limit))
                } else {
                    None
                };
                let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
                let parent = self.parent_in(statement.look.commented, statement.sql(), conforming);
                let is_wanted = slow.is_some() || audit.is_some() || parent.is_some();
                let limit = slow.unwrap_or_default();
                is_wanted.then(|| Note { audit, parent, ..self.note_of(id, statement, body, limit) })
            }
            Named::Unknown if !self.has_own_names(id) => None,
            Named::Unkept | Named::Unknown => self.audited_unkept(id).map(|audit| {
                let audit = Some(audit);
                Note { audit, ..Note::new(Words::Unwanted, true, None) }
            }),
        };
        let Some(this) = self.servers.get_mut(server) else { return };
        if note.is_some() || this.notes.is_some() {
            let notes = this.notes.get_or_insert_default();
            notes.aside = note.as_ref().and_then(|note| note.parent.clone());
            notes.bind(portal, note);
        }
    }

    fn note_of(&self, id: ClientId, statement: &Rc<Statement>, bind: &[u8], limit: usize) -> Note {
        let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
        let values = (limit > 0).then(|| values(sent(bind), limit).into());
        let given = if self.plans.is_on() { formats_and_values(sent(bind)) } else { None };
        let given =
            given.filter(|given| given.len() <= VALUES_BYTES).map_or(Given::Unkept, |it| Given::Values(it.into()));
        Note { given, ..Note::new(Words::Of(Rc::clone(statement)), conforming, values) }
    }

    /// An Execute is about to be entered.
    pub(super) fn note_execute(&mut self, server: ServerId, message: &Message<'_>) {
        let now_us = self.now_us;
        let Some(notes) = self.servers.get_mut(server).and_then(|this| this.notes.as_deref_mut()) else { return };
        let portal = cstr(message.body_here()).map(|(portal, _)| portal);
        let bound = notes.portals.iter().find(|(name, _)| Some(&**name) == portal);
        let has_room = notes.bytes < MOST_BYTES;
        notes.next =
            bound.map(|(_, note)| note.clone()).and_then(|note| if has_room { Some(note) } else { note.slim() });
        if let Some(audit) = notes.next.as_mut().and_then(|note| note.audit.as_deref_mut()) {
            audit.sent_us = now_us;
        }
    }

    /// A FunctionCall is about to be entered.
    pub(super) fn note_call(&mut self, id: ClientId, server: ServerId) {
        if let Some(audit) = self.audited_call(id)
            && let Some(this) = self.servers.get_mut(server)
        {
            let note = Note { audit: Some(audit), ..Note::new(Words::Unwanted, true, None) };
            this.notes.get_or_insert_default().next = Some(note);
        }
    }

    /// A batch is over whose end has this number.
    pub(super) fn notes_over(&mut self, server: ServerId, number: u64) {
        if let Some(this) = self.servers.get_mut(server)
            && let Some(notes) = this.notes.as_deref_mut()
        {
            let (pool, failed) = (this.pool, notes.failed.take());
            // Portals live as long as their transaction.
            let rests = !this.replies.busy() && this.replies.status() == b'I';
            let ended = notes.over(number, rests);
            if !ended.is_empty() || failed.is_some() {
                self.audit_over(pool, ended, failed);
            }
        }
    }

    /// The connection is about to be closed.
    pub(super) fn notes_lost(&mut self, server: ServerId) {
        if let Some(this) = self.servers.get_mut(server)
            && let Some(notes) = this.notes.as_deref_mut()
        {
            let (pool, under_way) = (this.pool, notes.over(u64::MAX, true));
            self.audit_lost(pool, under_way);
        }
    }

    /// What was noted under this number.
    pub(super) fn noted_as(&self, server: ServerId, number: u64) -> Option<Note> {
        self.servers.get(server)?.notes.as_ref()?.get(number).cloned()
    }

    /// The same of a rider, whose request is still there.
    pub(super) fn noted_of_rider(&self, rider: &Rider, limit: usize) -> Option<Note> {
        let client = self.clients.get(rider.client)?;
        let mut rest = client.inbox.get(..rider.fare.bytes)?;
        let statement = rider.fare.statement.as_ref();
        while let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && let Some(body) = rest.get(HEADER..header.total)
        {
            match (header.tag, statement) {
                (tag::QUERY, _) => return Some(Note::of_text(cstr(body)?.0, client.conforming, limit)),
                (tag::BIND, Some(statement)) => return Some(self.note_of(rider.client, statement, body, limit)),
                _ => rest = rest.get(header.total..)?,
            }
        }
        None
    }
}

/// What stands behind the names of a Bind.
fn sent(bind: &[u8]) -> &[u8] {
    cstr(bind).and_then(|(_, rest)| cstr(rest)).map_or(&[][..], |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind) -> Expect {
        let origin = Origin::Client;
        Expect { kind, origin, owner: 0, statement: 0, cookie: 0, sent_us: 0, name: 0, note: 0 }
    }

    #[test]
    fn notes_go_with_the_end_of_their_batch() {
        let mut notes = Notes::default();
        let enter = |notes: &mut Notes, text: &[u8], kind| {
            notes.next = (!text.is_empty()).then(|| Note::new(Words::Copied(text.to_vec()), true, None));
            notes.enter(&entry(kind))
        };
        let first = enter(&mut notes, b"one", Kind::Execute);
        assert_eq!(enter(&mut notes, b"", Kind::Execute), 0);
        let second = enter(&mut notes, b"two", Kind::Execute);
        let end = enter(&mut notes, b"", Kind::Sync);
        let third = enter(&mut notes, b"three", Kind::Query);
        assert_eq!((first, second, end, third, notes.bytes), (1, 2, 2, 3, 11));
        assert_eq!(notes.get(second).map(|note| note.text().0), Some(&b"two"[..]));
        assert!(notes.get(0).is_none());
        notes.over(end, false);
        assert!(notes.get(second).is_none() && notes.get(third).is_some());
        notes.clear();
        assert_eq!((notes.bytes, notes.under_way.len(), notes.spare.len()), (0, 0, 3));
    }

    #[test]
    fn of_a_long_text_its_comments_are_kept() {
        let sql = format!("/*a='1'*/ SELECT '{}' -- b='2'", "x".repeat(TEXT_BYTES));
        let Words::Copied(text) = Notes::default().copy(sql.as_bytes(), true) else { panic!("not copied") };
        assert_eq!(text, b"/*a='1'*/\n-- b='2'\n");
    }
}
