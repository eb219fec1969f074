//! What a server's bytes mean, piece by piece: the words of [`super::replies`].
//! Must never hold bytes: a step tells how many, the caller has them.

use super::expect::{Expect, Kind};
use crate::wire::error::ServerError;

/// What the front of the server's bytes is.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed; none was consumed.
    More,
    /// `n` bytes for the owner, nothing to know about them.
    Forward(usize),
    /// `n` bytes for nobody.
    Drop(usize),
    /// An answer that the server was never asked for because its effect was there already.
    Fake(Kind),
    /// `n` bytes that mean something, for the owner unless `swallow`.
    Event {
        /// Bytes consumed now.
        n: usize,
        /// The bytes must not leave.
        swallow: bool,
        /// What they mean.
        event: Event,
    },
    /// The stream makes no sense: both connections must close.
    Fault(&'static str),
}

/// What a server message changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A statement ended.
    Completed(Expect, Outcome),
    /// A statement failed. Entries up to the next Sync were dropped: see [`super::replies::Replies::dropped`].
    Failed(Option<Expect>, ServerError),
    /// ReadyForQuery with its status; the entry it answered.
    Ready(Expect, u8),
    /// A row of what pgweir itself asked; the bytes hold it, or the beginning of one of more than 32 KiB.
    Row,
    /// ParameterStatus; the bytes hold name and value.
    Parameter,
    /// NotificationResponse, whole: for whoever listens, never a part of a reply.
    Notification,
    /// The server waits for COPY data.
    CopyIn,
}

/// How a statement ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows its tag counts.
    pub rows: u64,
    /// It was `DISCARD ALL`.
    pub discarded_all: bool,
    /// It was `DEALLOCATE ALL` (or `DISCARD ALL`, which includes it).
    pub deallocated_all: bool,
    /// It was SQL's `PREPARE`: one more name.
    pub prepared: bool,
    /// It was `DEALLOCATE` of one name, which there was.
    pub deallocated: bool,
}
