//! A number of server connections that several slices share, in fair parts: the connections of a
//! database, of a user, or of one pool whose slices live on several workers.
//! Must never be locked on the data path: giving a server back costs a load of [`Stake::is_pressed`] and,
//! where it comes to rest, of [`Stake::is_wanted`].
//!
//! A slice that may not open a server says how many clients it keeps waiting ([`Stake::want`]). It
//! *starves* while it has less than its part, the limit divided by the slices that have or want
//! anything. While somebody starves, slices above their part close servers as these come back; while
//! somebody merely wants, only servers at rest go. Free connections go to those who starve, first
//! come, first served. (No pool starves another: `reference/defects.md` entry 33.)

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// What a budget is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All connections for a database.
    Database(String),
    /// All connections for a user.
    User(String),
    /// The connections of one pool: database, user, server.
    Pool(String, String, String),
    /// The connections of a workload pool, all users together: database, name, server.
    Workload(String, String, String),
}

/// All budgets of the process. A budget lives as long as somebody has a stake in it.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<HashMap<Scope, Weak<Budget>>>);

impl Budgets {
    /// A stake in the budget for `scope`, which from now on has `limit` connections, and `reserve`
    /// more for this slice when pressed. `bell` is rung when there is something to take or to give.
    pub fn stake(&self, scope: Scope, limit: u32, reserve: u32, bell: &Arc<Notify>) -> Stake {
        let spans_pools = !matches!(scope, Scope::Pool(..));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, budget| budget.strong_count() > 0);
        let known = all.get(&scope).and_then(Weak::upgrade);
        let budget = known.unwrap_or_else(|| {
            let budget = Arc::new(Budget::default());
            all.insert(scope, Arc::downgrade(&budget));
            budget
        });
        drop(all);
        let mut state = budget.state();
        state.limit = limit;
        let id = state.next;
        state.next += 1;
        state.members.push(Member { id, open: 0, wants: 0, turn: 0, bell: Arc::clone(bell) });
        budget.settle(&state);
        drop(state);
        Stake { budget, id, reserve, spans_pools }
    }
}

#[derive(Debug, Default)]
struct Budget {
    /// Somebody starves.
    pressed: AtomicBool,
    /// Somebody wants one.
    wanted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limit: u32,
    taken: u32,
    /// Servers about to be closed because somebody wants one.
    leaving: u32,
    members: Vec<Member>,
    next: u64,
    turn: u64,
}

#[derive(Debug)]
struct Member {
    id: u64,
    open: u32,
    wants: u32,
    /// When it began to want.
    turn: u64,
    bell: Arc<Notify>,
}

impl State {
    /// The part of each that has or wants anything; 0 if there are more of them than connections.
    fn part(&self) -> u32 {
        let claims = self.members.iter().filter(|member| member.open > 0 || member.wants > 0).count();
        self.limit / (claims as u32).max(1)
    }

    fn starves(&self, member: &Member) -> bool {
        member.wants > 0 && member.open < self.part().max(1)
    }

    fn free(&self) -> u32 {
        self.limit.saturating_sub(self.taken)
    }

    fn above(&self) -> u32 {
        self.taken.saturating_sub(self.limit)
    }

    fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn change(&mut self, id: u64, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            change(member);
        }
    }
}

impl Budget {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, state: &State) {
        let pressed = state.above() > 0 || state.members.iter().any(|member| state.starves(member));
        self.pressed.store(pressed, Relaxed);
        self.wanted.store(state.members.iter().any(|member| member.wants > 0), Relaxed);
    }
}

/// One slice's part in a budget.
#[derive(Debug)]
pub struct Stake {
    budget: Arc<Budget>,
    id: u64,
    reserve: u32,
    spans_pools: bool,
}

impl Stake {
    /// Takes a connection out of the budget; false if there is none for this slice now. One that is
    /// only to be kept `warm` is not taken while anybody wants one; the reserve is used when `pressed`.
    pub fn take(&self, warm: bool, pressed: bool) -> bool {
        let mut state = self.budget.state();
        let Some(me) = state.member(self.id) else { return false };
        let starving = state.starves(me);
        let others = state.members.iter().filter(|other| other.id != self.id);
        let before = others.clone().filter(|other| state.starves(other) && !(starving && other.turn > me.turn));
        let free = (state.limit + if pressed { self.reserve } else { 0 }).saturating_sub(state.taken);
        let refused = free as usize <= before.count() || (warm && others.into_iter().any(|o| o.wants > 0));
        if refused {
            return false;
        }
        state.taken += 1;
        state.turn += 1;
        let turn = state.turn;
        state.change(self.id, |me| {
            me.open += 1;
            me.wants = me.wants.saturating_sub(1);
            // Who has been served stands behind those who have not.
            me.turn = turn;
        });
        self.budget.settle(&state);
        true
    }

    /// Other pools count under it too, not only the slices of one.
    pub fn spans_pools(&self) -> bool {
        self.spans_pools
    }

    /// Counts `n` connections that exist already, whatever the limit.
    pub fn force(&self, n: u32) {
        let mut state = self.budget.state();
        state.taken += n;
        state.change(self.id, |me| me.open += n);
        self.budget.settle(&state);
    }

    /// Gives a connection back; who wants one is told.
    pub fn give(&self) {
        let mut state = self.budget.state();
        state.taken = state.taken.saturating_sub(1);
        state.leaving = state.leaving.saturating_sub(1);
        state.change(self.id, |me| me.open = me.open.saturating_sub(1));
        self.budget.settle(&state);
        state.members.iter().filter(|member| member.wants > 0).for_each(|member| member.bell.notify_one());
    }

    /// So many clients of this slice wait for want of a connection. Who has some is told when that
    /// begins.
    pub fn want(&self, wants: u32) {
        let mut state = self.budget.state();
        let Some(me) = state.member(self.id) else { return };
        if me.wants == wants {
            return;
        }
        let begins = me.wants == 0;
        if begins {
            state.turn += 1;
        }
        let turn = state.turn;
        state.change(self.id, |me| {
            me.wants = wants;
            me.turn = if begins { turn } else { me.turn };
        });
        self.budget.settle(&state);
        if begins {
            let others = state.members.iter().filter(|other| other.id != self.id && other.open > 0);
            others.for_each(|other| other.bell.notify_one());
        }
    }

    /// Somebody starves, or there are too many: ask [`Stake::must_give_up`] before a server is used again.
    pub fn is_pressed(&self) -> bool {
        self.budget.pressed.load(Relaxed)
    }

    /// Somebody wants one: ask [`Stake::must_spare`] before a server is left at rest.
    pub fn is_wanted(&self) -> bool {
        self.budget.wanted.load(Relaxed)
    }

    /// Whether a server that just came back is to be closed, because another slice starves and this
    /// one is above its part, or because there are more than the limit. After true the caller owes [`Stake::give`].
    pub fn must_give_up(&self) -> bool {
        let mut state = self.budget.state();
        let starving = state.members.iter().filter(|other| other.id != self.id && state.starves(other)).count() as u32;
        let above = state.member(self.id).is_some_and(|me| me.open > state.part());
        let give = (above && state.free() + state.leaving < starving) || state.leaving < state.above();
        state.leaving += u32::from(give);
        give
    }

    /// Whether a server at rest is to be closed, because another slice wants one or there are more
    /// than the limit. After true the
    /// caller owes [`Stake::give`].
    pub fn must_spare(&self) -> bool {
        let mut state = self.budget.state();
        let wanted: u32 = state.members.iter().filter(|other| other.id != self.id).map(|other| other.wants).sum();
        let spare = state.free() + state.leaving < wanted + state.above();
        state.leaving += u32::from(spare);
        spare
    }

    /// Changes the limit for all who share it.
    pub fn set_limit(&self, limit: u32) {
        let mut state = self.budget.state();
        state.limit = limit;
        self.budget.settle(&state);
        state.members.iter().for_each(|member| member.bell.notify_one());
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        let open = state.member(self.id).map_or(0, |me| me.open);
        state.taken = state.taken.saturating_sub(open);
        state.members.retain(|member| member.id != self.id);
        self.budget.settle(&state);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
