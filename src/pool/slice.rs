//! The servers of one pool on one worker and the clients waiting for them, as a pure structure.
//! Must never hold a server that is not clean, and never let one rest while a client waits.
//!
//! One counter tells how many servers exist (`open`), one how many are being opened (`opening`),
//! and one queue who waits: there is no second book-keeping that would have to agree.

use std::collections::VecDeque;

/// What [`Slice::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<S> {
    /// A server, at once.
    Server(S),
    /// The client waits in the queue; if `open`, the caller must now open a server and say how
    /// it went by [`Slice::opened`] or [`Slice::open_failed`].
    Waits {
        /// Open a server.
        open: bool,
    },
}

/// What becomes of a server that was put back.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<C, S> {
    /// The oldest waiter has it.
    Attach(C, S),
    /// It rests.
    Rests,
    /// There are more servers than the limit allows: the caller must close it, and has no more to
    /// tell the slice about it.
    Close(S),
}

/// Servers at rest, clients waiting, and how many servers there are.
#[derive(Debug)]
pub struct Slice<C, S> {
    idle: Vec<S>,
    waiters: VecDeque<C>,
    open: usize,
    opening: usize,
    limit: usize,
}

impl<C: PartialEq, S: PartialEq> Slice<C, S> {
    /// An empty slice that may hold `limit` servers.
    pub fn new(limit: usize) -> Self {
        Self { idle: Vec::new(), waiters: VecDeque::new(), open: 0, opening: 0, limit }
    }

    /// A server for `client`, the one put back last, or a place at the end of the queue.
    pub fn take(&mut self, client: C) -> Taken<S> {
        // A resting server and a waiter never exist at the same time, so this passes nobody by.
        if let Some(server) = self.idle.pop() {
            return Taken::Server(server);
        }
        self.waiters.push_back(client);
        Taken::Waits { open: self.wants_one_more() }
    }

    /// Counts a server to be opened if the waiters justify it: never more than wait, never more
    /// than the limit. After `true` the caller owes [`Slice::opened`] or [`Slice::open_failed`].
    pub fn wants_one_more(&mut self) -> bool {
        let more = self.open + self.opening < self.limit && self.opening < self.waiters.len();
        self.opening += usize::from(more);
        more
    }

    /// A clean server comes back.
    pub fn put(&mut self, server: S) -> Next<C, S> {
        if self.open > self.limit {
            self.open -= 1;
            return Next::Close(server);
        }
        match self.waiters.pop_front() {
            Some(client) => Next::Attach(client, server),
            None => {
                self.idle.push(server);
                Next::Rests
            }
        }
    }

    /// A server asked for is there; follow with [`Slice::put`].
    pub fn opened(&mut self) {
        self.opening = self.opening.saturating_sub(1);
        self.open += 1;
    }

    /// A server asked for could not be opened.
    pub fn open_failed(&mut self) {
        self.opening = self.opening.saturating_sub(1);
    }

    /// A server that was in use is gone. The caller then asks [`Slice::wants_one_more`].
    pub fn lost(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Takes a resting server out for good, if it is resting here.
    pub fn remove_idle(&mut self, server: &S) -> bool {
        let Some(at) = self.idle.iter().position(|idle| idle == server) else {
            return false;
        };
        self.idle.remove(at);
        self.open = self.open.saturating_sub(1);
        true
    }

    /// A client no longer waits.
    pub fn leave(&mut self, client: &C) -> bool {
        let Some(at) = self.waiters.iter().position(|waiter| waiter == client) else {
            return false;
        };
        self.waiters.remove(at);
        true
    }

    /// The oldest waiter.
    pub fn first_waiter(&self) -> Option<&C> {
        self.waiters.front()
    }

    /// Takes the oldest waiter out of the queue without a server.
    pub fn pop_waiter(&mut self) -> Option<C> {
        self.waiters.pop_front()
    }

    /// The servers at rest, longest resting first.
    pub fn idle(&self) -> &[S] {
        &self.idle
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// How many servers there are, at rest or in use.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many servers are being opened.
    pub fn opening(&self) -> usize {
        self.opening
    }

    /// Clients served and waiting: what balancing compares.
    pub fn load(&self) -> usize {
        self.open - self.idle.len() + self.waiters.len()
    }

    /// Changes how many servers there may be; those too many are closed as they come back or by
    /// [`Slice::excess`].
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// A resting server beyond the limit, taken out for good.
    pub fn excess(&mut self) -> Option<S> {
        if self.open <= self.limit || self.idle.is_empty() {
            return None;
        }
        self.open -= 1;
        Some(self.idle.remove(0))
    }
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
