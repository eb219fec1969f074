//! COPY FROM STDIN: which Syncs a server reads over, and whether that can be known.
//! Must never count on an answer to a Sync that may have been read over.

use super::expect::Ring;
use crate::wire::error::{ServerError, SqlState};

/// COPY FROM STDIN on one server connection.
#[derive(Debug, Default)]
pub(super) struct CopyIn {
    /// CopyInResponse was seen, and not yet the end.
    active: bool,
    /// The client has sent data, or the end of it.
    begun: bool,
    /// The client has sent CopyDone or CopyFail.
    ended: bool,
    /// Syncs sent during the COPY, which the server reads over unless an error comes first.
    syncs: usize,
    /// Copy data went out when the ring's next number was this, no COPY being known of.
    data_ahead: u64,
    /// The same for CopyDone and CopyFail, oldest first.
    ends_ahead: Vec<u64>,
}

impl CopyIn {
    /// The server copies, as far as is known.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// A Sync is being sent: whether the server, which copies, will read over it.
    pub fn reads_over_sync(&mut self) -> bool {
        let over = self.active && !self.ended;
        self.syncs += usize::from(over);
        over
    }

    /// The client sent CopyData (`end` false), CopyDone or CopyFail (`end` true).
    pub fn sent(&mut self, end: bool, ring: &Ring) {
        if self.active && !self.ended {
            self.begun = true;
            self.ended = end;
        } else if !ring.is_empty() {
            // The client does not wait for CopyInResponse; behind its end the data is another COPY's.
            self.data_ahead = ring.next();
            if end && self.ends_ahead.last() != Some(&self.data_ahead) {
                self.ends_ahead.push(self.data_ahead);
            }
        }
    }

    /// CopyInResponse: takes the Syncs out of the ring that were sent ahead of the data's end.
    pub fn begins(&mut self, ring: &mut Ring) {
        let head = ring.first();
        self.ends_ahead.retain(|&end| end > head);
        let end = if self.ends_ahead.is_empty() { None } else { Some(self.ends_ahead.remove(0)) };
        self.active = true;
        self.begun = self.data_ahead > head;
        self.ended = end.is_some();
        self.syncs += ring.take_syncs_behind_head(end.unwrap_or(u64::MAX));
    }

    /// The COPY, if there is one, has ended; returns how many Syncs were sent during it. If it
    /// ended well the server has read over all of them.
    pub fn over(&mut self) -> usize {
        self.active = false;
        std::mem::take(&mut self.syncs)
    }

    /// An error in the extended protocol. Returns true if it is not known how many of the Syncs
    /// sent during the COPY the server will answer.
    pub fn fails(&mut self, error: &ServerError, ring: &mut Ring) -> bool {
        let syncs = self.over();
        if syncs == 0 {
            return false;
        }
        // Cancelled while it waited for data, or data was not what came: it had read on. Any
        // other error without data came before (a trigger, a view): the Syncs are to be read.
        let read_on = self.begun || matches!(error.code, SqlState::QUERY_CANCELED | SqlState::PROTOCOL_VIOLATION);
        if !read_on {
            ring.put_syncs_behind_head(syncs);
        }
        read_on
    }
}
