//! Reads a server's byte stream against the ring of owed replies.
//! Must never let a reply to an injected message out, and must call a fault what it cannot match.
//!
//! ReadyForQuery is the only place where a server can change hands, and the ring tells whether a
//! ReadyForQuery is the last one owed. What makes that subtle, and is modelled here:
//! - Errors in the extended protocol: the server discards messages up to the next Sync, so their
//!   entries go, and messages forwarded later are not entered until a Sync is.
//! - COPY FROM STDIN: the server reads over Flush and Sync until CopyDone or CopyFail
//!   (`CopyGetData` in src/backend/commands/copyfromparse.c), so Syncs sent between the statement
//!   and the end of its data owe nothing. Whether an error came before they were read over cannot
//!   always be told; then the connection is marked `unsure` and must not be used by anyone else.

use super::copy::CopyIn;
use super::expect::{Expect, Kind, Origin, Ring};
use super::names::Names;
pub use super::step::{Event, Outcome, Step};
pub use super::veils::Hidden;
use super::veils::Veils;
use crate::wire::error::ServerError;
use crate::wire::frame::{HEADER, Header, cstr, rows_of_tag};
use crate::wire::tag::server as tag;

/// Bytes of an ErrorResponse that are looked at: severity, SQLSTATE and the start of the message
/// come first.
const ERROR_HEAD: usize = 512;
/// Longest message that must be whole before it is understood (CommandComplete, ParameterStatus).
const MAX_CONTROL: usize = 32 * 1024;

/// Reply side of one server connection.
#[derive(Debug)]
pub struct Replies {
    ring: Ring,
    /// Rest of a message whose beginning was handled.
    rest: usize,
    rest_swallow: bool,
    status: u8,
    /// An error made the server discard messages until a Sync that has not been sent yet.
    skipping: bool,
    copy: CopyIn,
    /// Nobody can tell how many ReadyForQuery are still to come.
    unsure: bool,
    /// The client was told a FATAL error.
    farewell: bool,
    dropped: Vec<Expect>,
    names: Names,
    veils: Veils,
}

impl Default for Replies {
    fn default() -> Self {
        Self {
            ring: Ring::default(),
            rest: 0,
            rest_swallow: false,
            status: b'I',
            skipping: false,
            copy: CopyIn::default(),
            unsure: false,
            farewell: false,
            dropped: Vec::new(),
            names: Names::default(),
            veils: Veils::default(),
        }
    }
}

impl Replies {
    /// Enters the reply owed for a message that is being put on the wire.
    pub fn expect(&mut self, entry: Expect) {
        if entry.kind == Kind::Sync {
            if self.copy.reads_over_sync() {
                return;
            }
            self.skipping = false;
        } else if self.skipping {
            self.dropped.push(entry);
            return;
        }
        self.ring.push(entry);
        if entry.kind.ends_in_ready() {
            self.names.batch_ends(&self.ring);
        }
    }

    /// Where in the client's text the position is that an error of the oldest entry names, if elsewhere.
    pub fn position(&self, position: u32) -> Option<u32> {
        self.veils.position(position, &self.ring)
    }

    /// Of the Query just entered these statements, counted from 0 in order, are pgweir's own: of their answers
    /// only errors and reported parameters are the client's.
    pub fn veil(&mut self, statements: Vec<Hidden>) {
        if !self.skipping {
            self.veils.put(statements, &self.ring);
        }
    }

    /// The message just entered changes what a name means, or what is prepared here.
    pub fn changes_names(&mut self) {
        self.names.changed(&self.ring);
    }

    /// The message just entered prepares the unnamed statement, or takes it away.
    pub fn changes_unnamed(&mut self) {
        if self.skipping {
            self.names.unnamed_skipped();
            return;
        }
        self.names.unnamed_changed(&self.ring);
    }

    /// A message that changes names is still to be answered.
    pub fn names_owed(&self) -> bool {
        self.names.owed(&self.ring)
    }

    /// What names mean, or the unnamed statement if `unnamed`, hangs on a batch that is not
    /// answered yet: see `Names::unsettled`.
    pub fn names_unsettled(&self, unnamed: bool) -> bool {
        self.names.unsettled(&self.ring) || (unnamed && self.names.unnamed_unsettled(&self.ring))
    }

    /// An error made void the newest message that prepares the unnamed statement.
    pub fn is_unnamed_void(&self) -> bool {
        self.names.is_unnamed_void()
    }

    /// The client sent CopyData (`end` false), CopyDone or CopyFail (`end` true).
    pub fn copy_sent(&mut self, end: bool) {
        self.copy.sent(end, &self.ring);
    }

    /// A batch that has ended is not answered yet: what [`Replies::status`] says may be outdated.
    pub fn batch_owed(&self) -> bool {
        self.names.batch_owed(&self.ring)
    }

    /// A statement is about to be sent that may end a failed transaction.
    pub fn rescues(&mut self) {
        self.names.rescues();
    }

    /// The server is in a failed transaction, and nothing that might end it has been sent: whatever comes it refuses.
    pub fn refuses_all(&self) -> bool {
        self.status == b'E' && self.names.status_holds(&self.ring)
    }

    /// Transaction status of the last ReadyForQuery: `I`, `T` or `E`.
    pub fn status(&self) -> u8 {
        self.status
    }

    /// Replies are owed.
    pub fn busy(&self) -> bool {
        !self.ring.is_empty() || self.rest > 0 || self.copy.is_active()
    }

    /// Something has failed, and the server reads over everything up to a Sync that was not sent yet.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// The client is sending COPY data, or was, as far as is known.
    pub fn is_copying(&self) -> bool {
        self.copy.is_active()
    }

    /// The connection may serve another client: nothing owed, nothing half read, no COPY, no
    /// transaction, no doubt (`reference/defects.md` entry 12).
    pub fn is_clean(&self) -> bool {
        !self.busy() && self.status == b'I' && !self.unsure && !self.skipping
    }

    /// Nothing may be said to the client any more: it has been told that its session ends, or is
    /// in the middle of a message.
    pub fn must_end_silently(&self) -> bool {
        self.farewell || (self.rest > 0 && !self.rest_swallow)
    }

    /// The client was not told of the server's end after all.
    pub fn was_not_told(&mut self) {
        self.farewell = false;
    }

    /// [`Replies::dropped`] would tell of some.
    pub fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Entries that an error made void since the last call: what they prepared was not prepared.
    pub fn dropped(&mut self) -> Vec<Expect> {
        std::mem::take(&mut self.dropped)
    }

    /// The oldest owed reply.
    pub fn head(&self) -> Option<&Expect> {
        self.ring.head()
    }

    /// Gives back memory that a long pipeline took.
    pub fn trim(&mut self) {
        self.ring.trim();
    }

    /// How many of the replies owed are to client messages about this statement.
    pub fn owed_of(&self, statement: u32) -> usize {
        let about = |entry: &&Expect| {
            entry.statement == statement && entry.origin == Origin::Client && entry.kind != Kind::Sync
        };
        self.ring.iter().filter(about).count()
    }

    /// Nothing of the client's is owed behind the oldest reply.
    pub fn is_last(&self) -> bool {
        self.ring.len() <= 1
    }

    /// The replies owed, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Expect> {
        self.ring.iter()
    }

    /// How many replies are owed.
    pub fn owed(&self) -> usize {
        self.ring.len()
    }

    /// Says what the front of `bytes` is and moves on over it. Call until [`Step::More`].
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if self.rest > 0 {
            let n = self.rest.min(bytes.len());
            self.rest -= n;
            return match n {
                0 => Step::More,
                n if self.rest_swallow => Step::Drop(n),
                n => Step::Forward(n),
            };
        }
        if let Some(head) = self.ring.head()
            && head.origin == Origin::Faked
        {
            let kind = head.kind;
            self.ring.pop();
            return Step::Fake(kind);
        }
        match Header::peek(bytes, usize::MAX) {
            Err(_) => Step::Fault("message length out of bounds"),
            Ok(None) => Step::More,
            Ok(Some(header)) => self.message(header, bytes),
        }
    }

    fn message(&mut self, header: Header, bytes: &[u8]) -> Step {
        if self.ring.is_empty() && !may_come_unasked(header.tag) {
            return Step::Fault("reply that nobody asked for");
        }
        if must_be_whole(header.tag) {
            if header.total > MAX_CONTROL {
                return Step::Fault("control message of more than 32 KiB");
            }
            if bytes.len() < header.total {
                return Step::More;
            }
        }
        let origin = self.ring.head().map(|head| head.origin);
        let asked = origin == Some(Origin::Asked);
        let put_in = asked || origin == Some(Origin::Injected);
        let hidden = put_in || self.veils.hide(&self.ring);
        match header.tag {
            tag::DATA_ROW if asked => self.answer(header, bytes),
            tag::DATA_ROW | tag::COPY_DATA if !hidden => self.rows(bytes),
            tag::PARAMETER_DESCRIPTION if self.ring.head().is_some_and(|head| head.origin == Origin::Refused) => {
                Step::Fault("an answer to what must fail")
            }
            tag::DATA_ROW
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_OUT
            | tag::COPY_BOTH
            | tag::PARAMETER_DESCRIPTION
            | tag::FUNCTION_RESULT
            | tag::NOTICE => self.pass(header, bytes, hidden),
            tag::NOTIFICATION => Step::Event { n: header.total, swallow: false, event: Event::Notification },
            tag::ROW_DESCRIPTION | tag::NO_DATA => {
                if self.head_is(Kind::Describe) {
                    self.ring.pop();
                }
                self.pass(header, bytes, hidden)
            }
            tag::PARSE_COMPLETE => self.bodiless(header, Kind::Parse, hidden),
            tag::BIND_COMPLETE => self.bodiless(header, Kind::Bind, hidden),
            tag::CLOSE_COMPLETE => self.bodiless(header, Kind::Close, hidden),
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY | tag::PORTAL_SUSPENDED => self.completed(header, bytes, hidden),
            tag::ERROR => self.error(header, bytes, put_in),
            tag::READY => self.ready(header, bytes, put_in),
            tag::PARAMETER_STATUS => Step::Event { n: header.total, swallow: put_in, event: Event::Parameter },
            tag::COPY_IN => {
                self.copy.begins(&mut self.ring);
                Step::Event { n: header.total, swallow: hidden, event: Event::CopyIn }
            }
            _ => Step::Fault("message type that a server does not send here"),
        }
    }

    /// A row of an answer to pgweir: it is needed whole, unless it is too long to be of use.
    fn answer(&mut self, header: Header, bytes: &[u8]) -> Step {
        let n = header.total.min(bytes.len());
        if n < header.total && header.total <= MAX_CONTROL {
            return Step::More;
        }
        self.rest = header.total - n;
        self.rest_swallow = true;
        Step::Event { n, swallow: true, event: Event::Row }
    }

    /// As many whole rows as are here, in one step.
    fn rows(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && let Ok(Some(header)) = Header::peek(rest, usize::MAX)
            && matches!(header.tag, tag::DATA_ROW | tag::COPY_DATA)
        {
            if header.total > rest.len() {
                self.rest = header.total - rest.len();
                self.rest_swallow = false;
                return Step::Forward(bytes.len());
            }
            at += header.total;
        }
        Step::Forward(at)
    }

    /// A message of any size whose content does not matter.
    fn pass(&mut self, header: Header, bytes: &[u8], swallow: bool) -> Step {
        let n = header.total.min(bytes.len());
        self.rest = header.total - n;
        self.rest_swallow = swallow;
        if swallow { Step::Drop(n) } else { Step::Forward(n) }
    }

    fn head_is(&self, kind: Kind) -> bool {
        self.ring.head().is_some_and(|head| head.kind == kind)
    }

    fn bodiless(&mut self, header: Header, kind: Kind, hidden: bool) -> Step {
        if header.total != HEADER || !self.head_is(kind) {
            return Step::Fault("completion message out of turn");
        }
        self.ring.pop();
        if hidden { Step::Drop(HEADER) } else { Step::Forward(HEADER) }
    }

    fn completed(&mut self, header: Header, bytes: &[u8], swallow: bool) -> Step {
        let Some(&head) = self.ring.head() else {
            return Step::Fault("CommandComplete that nobody asked for");
        };
        match head.kind {
            Kind::Execute => {
                self.ring.pop();
            }
            Kind::Query => self.veils.completed(&self.ring),
            _ => return Step::Fault("CommandComplete out of turn"),
        }
        self.copy.over();
        let text = bytes.get(HEADER..header.total).and_then(cstr).map_or(&[][..], |(text, _)| text);
        let mut outcome = Outcome::default();
        if header.tag == tag::COMMAND_COMPLETE {
            outcome.rows = rows_of_tag(text);
            outcome.discarded_all = text == b"DISCARD ALL";
            outcome.deallocated_all = outcome.discarded_all || text == b"DEALLOCATE ALL";
            outcome.prepared = text == b"PREPARE";
            outcome.deallocated = text == b"DEALLOCATE";
        }
        Step::Event { n: header.total, swallow, event: Event::Completed(head, outcome) }
    }

    fn error(&mut self, header: Header, bytes: &[u8], hidden: bool) -> Step {
        let wanted = header.total.min(ERROR_HEAD);
        if bytes.len() < wanted {
            return Step::More;
        }
        let error = ServerError::parse(&bytes[HEADER..wanted]);
        let head = self.ring.head().copied();
        match head.map(|head| head.kind) {
            Some(Kind::Query | Kind::Call) => {
                self.unsure |= self.copy.over() > 0;
            }
            Some(_) => self.skip_to_sync(&error),
            // Nothing owed: the server's farewell, 57P01 and the like.
            None => {}
        }
        // A statement that cannot be prepared again is the client's affair: it takes the place of
        // the answer to its Bind. Only settings that fail to be carried over stay inside. The end of the server while
        // it is asked what a client has left there is that client's affair, too.
        let ends = |head: Expect| error.fatal && head.origin == Origin::Asked;
        let swallow = hidden && head.is_some_and(|head| head.kind == Kind::Query && !ends(head));
        self.farewell |= error.fatal && !swallow;
        self.rest = header.total - wanted;
        self.rest_swallow = swallow;
        Step::Event { n: wanted, swallow, event: Event::Failed(head, error) }
    }

    fn skip_to_sync(&mut self, error: &ServerError) {
        self.unsure |= self.copy.fails(error, &mut self.ring);
        while self.ring.head().is_some_and(|head| head.kind != Kind::Sync) {
            self.names.voided(&self.ring);
            self.dropped.extend(self.ring.pop());
        }
        self.skipping = self.ring.is_empty();
    }

    fn ready(&mut self, header: Header, bytes: &[u8], swallow: bool) -> Step {
        let &[_, _, _, _, 5, status @ (b'I' | b'T' | b'E'), ..] = bytes else {
            return Step::Fault("bad ReadyForQuery");
        };
        match self.ring.pop() {
            Some(entry) if entry.kind.ends_in_ready() => {
                self.status = status;
                self.copy.over();
                self.veils.end(&self.ring);
                Step::Event { n: header.total, swallow, event: Event::Ready(entry, status) }
            }
            _ => Step::Fault("ReadyForQuery that nobody asked for"),
        }
    }
}

/// Messages that are understood only as a whole; all are short.
fn must_be_whole(tag: u8) -> bool {
    matches!(
        tag,
        tag::COMMAND_COMPLETE
            | tag::EMPTY_QUERY
            | tag::PORTAL_SUSPENDED
            | tag::PARAMETER_STATUS
            | tag::NOTIFICATION
            | tag::COPY_IN
            | tag::READY
    )
}

/// Messages that a server may send at any time.
fn may_come_unasked(tag: u8) -> bool {
    matches!(tag, tag::NOTICE | tag::NOTIFICATION | tag::PARAMETER_STATUS | tag::ERROR)
}

#[cfg(test)]
#[path = "replies_tests.rs"]
mod tests;
