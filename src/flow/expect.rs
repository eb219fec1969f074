//! The ring of replies that a server still owes, each entry with its owner.
//! Must never be guessed at: an entry is pushed exactly when its message is put on the wire.

use std::collections::VecDeque;

/// Which message of the client's a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Parse, answered by ParseComplete.
    Parse,
    /// Bind, answered by BindComplete.
    Bind,
    /// Describe, answered by RowDescription or NoData.
    Describe,
    /// Execute, answered by CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close, answered by CloseComplete.
    Close,
    /// Sync, answered by ReadyForQuery.
    Sync,
    /// Query, answered by anything and then ReadyForQuery.
    Query,
    /// FunctionCall, answered by FunctionCallResponse and then ReadyForQuery.
    Call,
}

impl Kind {
    /// The reply ends in a ReadyForQuery of its own.
    pub fn ends_in_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::Call)
    }
}

/// Who caused an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The client sent the message: the reply is the client's.
    Client,
    /// pgweir put the message in: the reply must never leave.
    Injected,
    /// pgweir put a question in: the reply must never leave, its rows are the answer.
    Asked,
    /// The message was not sent because its effect was there already: the reply is made up.
    Faked,
    /// The message was refused here, and one that must fail was sent at its place: its error is
    /// replaced.
    Refused,
}

/// One owed reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// What it answers.
    pub kind: Kind,
    /// Who caused it.
    pub origin: Origin,
    /// Slot of the client it belongs to. An exclusive lease is the case of one owner; shared
    /// lanes are the case of several.
    pub owner: u32,
    /// Parse: which statement, so that a failure can be undone. Opaque here.
    pub statement: u32,
    /// The shape's place in the statistics. Opaque here.
    pub cookie: u64,
    /// When the message was forwarded, microseconds of the worker's clock.
    pub sent_us: u64,
    /// What the client calls the statement, hashed, for errors that name it; 0: nothing. Opaque here.
    pub name: u32,
    /// Number of what was noted of the statement; of a Sync, of the last before it; 0: nothing. Opaque here.
    pub note: u64,
}

/// The replies owed by one server connection, oldest first.
#[derive(Debug, Default)]
pub struct Ring {
    entries: VecDeque<Expect>,
    /// How many were taken in all: the oldest has this number, the next pushed this plus the length.
    taken: u64,
}

impl Ring {
    /// Adds the newest.
    pub fn push(&mut self, entry: Expect) {
        self.entries.push_back(entry);
    }

    /// The oldest.
    pub fn head(&self) -> Option<&Expect> {
        self.entries.front()
    }

    /// All, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Expect> {
        self.entries.iter()
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Expect> {
        let entry = self.entries.pop_front()?;
        self.taken += 1;
        Some(entry)
    }

    /// Number of the oldest, if there is one.
    pub(super) fn first(&self) -> u64 {
        self.taken
    }

    /// Number that the next one pushed will have.
    pub(super) fn next(&self) -> u64 {
        self.taken + self.entries.len() as u64
    }

    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many replies are owed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Removes the Syncs directly behind the head whose number is below `before` and tells how
    /// many: a server in COPY mode reads over them (see [`super::replies`]).
    pub(super) fn take_syncs_behind_head(&mut self, before: u64) -> usize {
        let mut n = 0;
        while self.entries.get(1).is_some_and(|entry| entry.kind == Kind::Sync) && self.taken + 1 < before {
            self.entries.remove(1);
            // Those behind keep their numbers.
            self.taken += 1;
            n += 1;
        }
        n
    }

    /// Puts `n` Syncs back directly behind the head.
    pub(super) fn put_syncs_behind_head(&mut self, n: usize) {
        let Some(&head) = self.entries.front() else { return };
        for _ in 0..n {
            self.entries.insert(1, Expect { kind: Kind::Sync, origin: Origin::Client, ..head });
            self.taken = self.taken.saturating_sub(1);
        }
    }

    /// Gives back capacity beyond what a common batch needs.
    pub fn trim(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
    }
}
