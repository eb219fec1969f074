//! Numbers of the lanes of a pool: what shared a server, and why other reads did not.
//! Must never cost a client that shares nothing more than one addition.

use super::counters::{Counter, Gauge};

/// Why a batch did not share a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// It is not certain that it only reads, leaves nothing behind, and hangs on nothing of its session's.
    Verdict,
    /// A comment, a rule, or that it has been sent a second time: it is to have a server to itself.
    Alone,
    /// Its client asks on before it is answered.
    Pipeline,
    /// Its session has more than settings and prepared statements: channels, temporary tables, a transaction to be opened.
    Session,
    /// It is not one statement, bound and executed once and whole.
    Batch,
    /// Too few of its shape have been seen.
    Unknown,
    /// Its shape is slow, or its answers large.
    Slow,
    /// Its shape has stalled a lane lately.
    Stalled,
    /// No server was there for another lane, or none with its client's settings.
    NoServer,
}

impl Unfit {
    /// What it is called by `SHOW LANES` and in the label `reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Alone => "alone",
            Self::Pipeline => "pipeline",
            Self::Session => "session",
            Self::Batch => "batch",
            Self::Unknown => "unknown",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::NoServer => "no_server",
        }
    }
}

/// Numbers of the lanes of one pool on one worker.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// Servers that are lanes.
    pub open: Gauge,
    /// Requests in them.
    pub riders: Gauge,
    /// Requests answered in a lane.
    pub rides: Counter,
    /// Time in which they stood behind others there, µs.
    pub queued_us: Counter,
    /// Writes to servers, of one request or of several.
    pub writes: Counter,
    /// Requests run again on a server of their own because they failed, or their server was lost.
    pub repeats: Counter,
    /// Requests that kept those behind them waiting for too long.
    pub stalls: Counter,
    /// Requests sent to another server from behind such.
    pub resends: Counter,
    unfit: [Counter; Unfit::NoServer as usize + 1],
}

impl LaneCounters {
    /// Batches that did not ride for this reason.
    pub fn unfit(&self, why: Unfit) -> &Counter {
        &self.unfit[why as usize]
    }
}
