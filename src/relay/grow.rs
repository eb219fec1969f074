//! When servers are opened and when they are given up, between all who share a limit.
//! Must never open one without having taken it from every limit that it counts under.

use super::{PoolId, Relay, Todo};
use crate::config::Password;
use crate::pool::budget::Stake;
use crate::pool::slice::Want;

/// A slice that has servers says that it wants more once its oldest waiter has waited this long,
/// microseconds, or somebody has waited all the time since the last sweep: connections are not moved about
/// for a moment's imbalance.
const PATIENCE_US: u64 = 50_000;

impl Relay {
    /// Opens servers for those who wait and those to be kept warm, as far as the pool may.
    pub(super) fn grow(&mut self, pool: PoolId) {
        let now_us = self.now_us;
        if self.reads_for_a_moment(pool) {
            return;
        }
        let this = &mut self.pools[pool];
        while this.slice.wants() != Want::Nothing && !this.pauses(now_us) {
            let warm = this.slice.wants() == Want::Warm;
            if !take(this.stakes.iter(), warm, this.slice.is_pressed()) {
                if this.slice.open() + this.slice.opening() == 0 {
                    this.stakes.iter().for_each(|stake| stake.want(this.slice.waiting() as u32));
                }
                return;
            }
            this.slice.opens();
            self.todo.push(Todo::Open(pool));
        }
    }

    /// Something shared with others has changed: gives up what they need more, takes what is free.
    pub fn share(&mut self) {
        self.now_us = crate::base::clock::now_us();
        self.follow_clusters();
        for index in 0..self.pools.slots() {
            let Some(pool) = self.pools.id_at(index) else { continue };
            self.spare(pool);
            self.grow(pool);
        }
    }

    /// Closes servers at rest that others want.
    pub(super) fn spare(&mut self, pool: PoolId) {
        loop {
            let this = &mut self.pools[pool];
            if this.slice.idle().len() == 0 || !this.stakes.iter().any(Stake::must_spare) {
                return;
            }
            if let Some(server) = this.slice.pop_idle() {
                self.drop_server(server);
            }
        }
    }

    /// Says how many clients of a pool wait in vain, to those who share its limits.
    pub(super) fn tell_wants(&mut self, pool: PoolId) {
        let waited_us = self.waited_us(pool);
        let this = &mut self.pools[pool];
        let none = this.slice.open() + this.slice.opening() == 0;
        let lull = this.slice.take_lull();
        let patient = !none && waited_us < PATIENCE_US && lull;
        let wants = if patient { 0 } else { this.slice.waiting().saturating_sub(this.slice.opening()) };
        this.stakes.iter().for_each(|stake| stake.want(wants as u32));
    }

    /// Opens what is to be kept warm before the first client, where the login is known.
    pub fn warm(&mut self) {
        let config = std::sync::Arc::clone(&self.config);
        for (database, entry) in &config.databases {
            for (user, known) in &config.users {
                let terms = config.terms(database, user);
                let here = self.place.is_home(database, user, terms.pool_size);
                // A verifier opens nothing before a client's own login has brought the key.
                let secret = entry.server_login(known).1;
                let usable = secret.is_some_and(|secret| !matches!(secret, Password::Scram(_)));
                let login = usable || entry.user.is_some();
                if terms.min_pool_size > 0
                    && here
                    && login
                    && let Ok(group) = self.group_for(database, user, None)
                {
                    self.pools_of(group).into_iter().for_each(|pool| self.grow(pool));
                }
            }
        }
    }
}

/// One connection from every budget, or from none.
pub(super) fn take<'a>(stakes: impl Iterator<Item = &'a Stake> + Clone, warm: bool, pressed: bool) -> bool {
    for (taken, stake) in stakes.clone().enumerate() {
        if !stake.take(warm, pressed) {
            stakes.take(taken).for_each(Stake::give);
            return false;
        }
    }
    true
}
