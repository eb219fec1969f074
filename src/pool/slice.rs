//! The servers of one pool on one worker and the clients waiting for them, as a pure structure.
//! Must never hold a server that is not clean, and never let one rest while a client waits.
//!
//! One counter tells how many servers exist (`open`), one how many are being opened (`opening`),
//! and one queue who waits: there is no second book-keeping that would have to agree. Limits that
//! several slices share are kept by [`super::budget`].

use std::collections::VecDeque;

/// So many servers at rest are looked through for the one that a client had last: what has rested longer has its caches
/// cold anyway, and a large pool must not cost more than a small one.
const NEAR: usize = 32;

/// What [`Slice::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken<S> {
    /// A server, at once.
    Server(S),
    /// The client waits in the queue. The caller now asks [`Slice::wants`].
    Waits,
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

/// Why a server should be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// It should not.
    Nothing,
    /// A client waits for it.
    Waiter,
    /// So that it is there when a client comes.
    Warm,
}

/// How many servers there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At most, in common times.
    pub limit: usize,
    /// At least, also without a client.
    pub min: usize,
    /// More than `limit` by so many while [`Slice::press`] says so.
    pub reserve: usize,
    /// Being opened at the same time.
    pub burst: usize,
}

impl Size {
    /// Just a limit.
    pub fn of(limit: usize) -> Self {
        Self { limit, min: 0, reserve: 0, burst: usize::MAX }
    }
}

/// Servers at rest, clients waiting, and how many servers there are.
#[derive(Debug)]
pub struct Slice<C, S> {
    /// Longest resting first.
    idle: VecDeque<S>,
    waiters: VecDeque<C>,
    open: usize,
    opening: usize,
    size: Size,
    /// Hand out the server that has rested longest.
    rotate: bool,
    /// The oldest waiter has waited so long that the reserve is used.
    pressed: bool,
    /// A server came to rest since [`Slice::take_lull`].
    lull: bool,
}

impl<C: PartialEq, S: PartialEq> Slice<C, S> {
    /// An empty slice. With `rotate` the server that has rested longest is handed out first, else
    /// the one that was put back last.
    pub fn new(size: Size, rotate: bool) -> Self {
        Self {
            idle: VecDeque::new(),
            waiters: VecDeque::new(),
            open: 0,
            opening: 0,
            size,
            rotate,
            pressed: false,
            lull: true,
        }
    }

    /// A server for `client`, or a place at the end of the queue. The one it had `last` is the first choice if it
    /// rests and is among the 32 servers that came to rest last; servers that are to take turns do so.
    pub fn take(&mut self, client: C, last: Option<S>) -> Taken<S> {
        // A resting server and a waiter never exist at the same time, so this passes nobody by.
        let server = match (self.idle.back(), last) {
            (None, _) => None,
            _ if self.rotate => self.idle.pop_front(),
            (Some(newest), Some(last)) if *newest != last => {
                let at = self.place_of(&last).unwrap_or(self.idle.len() - 1);
                self.idle.remove(at)
            }
            _ => self.idle.pop_back(),
        };
        match server {
            Some(server) => Taken::Server(server),
            None => {
                self.waiters.push_back(client);
                Taken::Waits
            }
        }
    }

    /// A server at rest that `fits`, taken as by [`Slice::take`]: of the 32 that came to rest last the newest, or the one that
    /// has rested longest if servers are to take turns.
    pub fn pull(&mut self, fits: impl Fn(&S) -> bool) -> Option<S> {
        let near = self.idle.len().saturating_sub(NEAR)..self.idle.len();
        let at = match self.rotate {
            true => (0..self.idle.len().min(NEAR)).find(|&at| self.idle.get(at).is_some_and(&fits)),
            false => near.rev().find(|&at| self.idle.get(at).is_some_and(&fits)),
        };
        self.idle.remove(at?)
    }

    /// A place at the end of the queue for `client`, whatever rests here.
    pub fn wait(&mut self, client: C) -> Taken<S> {
        self.waiters.push_back(client);
        Taken::Waits
    }

    fn place_of(&self, server: &S) -> Option<usize> {
        let from_back = self.idle.iter().rev().take(NEAR).position(|idle| idle == server)?;
        Some(self.idle.len() - 1 - from_back)
    }

    /// Whether a server should be opened now: for waiters never more than wait, never more than
    /// the limit, never more at once than the burst. Whoever opens one says so by
    /// [`Slice::opens`].
    pub fn wants(&self) -> Want {
        let total = self.open + self.opening;
        if self.opening >= self.size.burst {
            Want::Nothing
        } else if self.opening < self.waiters.len() && total < self.most() {
            Want::Waiter
        } else if total < self.size.min.min(self.size.limit) {
            Want::Warm
        } else {
            Want::Nothing
        }
    }

    /// A server is being opened. The caller owes [`Slice::opened`] or [`Slice::open_failed`].
    pub fn opens(&mut self) {
        self.opening += 1;
    }

    fn most(&self) -> usize {
        self.size.limit + if self.pressed { self.size.reserve } else { 0 }
    }

    /// A clean server comes back.
    pub fn put(&mut self, server: S) -> Next<C, S> {
        if self.open > self.size.limit + self.size.reserve {
            self.open -= 1;
            return Next::Close(server);
        }
        match self.waiters.pop_front() {
            Some(client) => Next::Attach(client, server),
            // The reserve is for waiters.
            None if self.open > self.size.limit => {
                self.open -= 1;
                Next::Close(server)
            }
            None => {
                self.lull = true;
                self.idle.push_back(server);
                Next::Rests
            }
        }
    }

    /// Whether the queue was empty at some time since this was asked before.
    pub fn take_lull(&mut self) -> bool {
        std::mem::take(&mut self.lull) || self.waiters.is_empty()
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

    /// A server that was in use is gone. The caller then asks [`Slice::wants`].
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

    /// Takes the server that has rested longest out for good.
    pub fn pop_idle(&mut self) -> Option<S> {
        let server = self.idle.pop_front()?;
        self.open = self.open.saturating_sub(1);
        Some(server)
    }

    /// Takes the server that has rested longest for a moment; it comes back by [`Slice::put`].
    pub fn lend(&mut self) -> Option<S> {
        self.idle.pop_front()
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

    /// All waiters, oldest first.
    pub fn waiters(&self) -> impl Iterator<Item = &C> {
        self.waiters.iter()
    }

    /// Takes the oldest waiter out of the queue without a server.
    pub fn pop_waiter(&mut self) -> Option<C> {
        self.waiters.pop_front()
    }

    /// The servers at rest, longest resting first.
    pub fn idle(&self) -> impl ExactSizeIterator<Item = &S> {
        self.idle.iter()
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// How many servers may still come: being opened, or not asked for yet.
    pub fn room(&self) -> usize {
        self.most().saturating_sub(self.open)
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

    /// Says whether the oldest waiter has waited so long that the reserve may be used.
    pub fn press(&mut self, pressed: bool) {
        self.pressed = pressed;
    }

    /// See [`Slice::press`].
    pub fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// Changes how many servers there may be and the order in which they are handed out; those too
    /// many are closed as they come back or by [`Slice::excess`].
    pub fn resize(&mut self, size: Size, rotate: bool) {
        (self.size, self.rotate) = (size, rotate);
    }

    /// No server is kept warm any more.
    pub fn keep_none(&mut self) {
        self.size.min = 0;
    }

    /// A resting server beyond the limit, taken out for good.
    pub fn excess(&mut self) -> Option<S> {
        if self.open > self.size.limit { self.pop_idle() } else { None }
    }

    /// How many servers there are beyond those to be kept warm.
    pub fn above_min(&self) -> usize {
        self.open.saturating_sub(self.size.min.min(self.size.limit))
    }
}

#[cfg(test)]
#[path = "slice_tests.rs"]
mod tests;
