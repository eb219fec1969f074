//! Which of the replicas that may serve a read does.
//! Must never choose one that may not: who may is decided before, and is not looked at here.
//!
//! By default the better of two, chosen at random where there are more (M. Mitzenmacher, *The Power of Two Choices in
//! Randomized Load Balancing*, 2001): the one with fewer requests under way, each of which counts for as much as the host
//! takes longer than the other. How long a host takes is a moving average as Finagle's peak EWMA is (`PeakEwma.scala`,
//! github.com/twitter/finagle): it follows a rise soon and a fall slowly. Three things differ, as statements of a database
//! differ from each other more than calls of a service do:
//! - What is averaged is the time of a statement over the mean of its shape on this worker, so that a host which happens
//!   to run reports is not taken for a slow one.
//! - It is averaged by its logarithm, and a rise takes [`RISE_US`], not one statement. Peaks taken at once let the
//!   longest of thousands of statements decide for seconds: simulated with 16 clients of 1,000 reads/s, one read in a
//!   thousand taking 100 times as long as the others, one of two equal hosts had 44 to 97 % of what the other had in eight
//!   runs of 20 s. A host that hangs is left at once nevertheless, for what is under way there.
//! - One that takes up to twice as long as the other counts as equal: that is noise. So is a quarter more of requests under
//!   way, where one cannot be better by less: of hosts that share a machine with others one always happens to be slower, and
//!   who follows every difference gives it less although it could do as much. And where a server is at rest, so is one request:
//!   with a read or two under way in all, whichever host happens to take half as long again would be asked a quarter less
//!   (seen: 16,953 and 13,027 reads of 1,000/s in 30 s), and nobody would be served the sooner for it.

use std::cell::Cell;

use crate::config::{Balance, Database, MAX_HOSTS, NoReplica, Reads};
use crate::pool::cluster::{Cluster, Member, Standing};

/// Time in which half of a rise is believed, microseconds.
const RISE_US: f32 = 1e6;
/// Time in which half of a fall is believed, and after which half of a difference is forgotten, microseconds.
const FALL_US: f32 = 10e6;
/// No single statement counts for more, as a power of two, nor for more time than this, microseconds.
const MOST: f32 = 6.0;
const MOST_US: f32 = 50e3;
/// A host counts as slower only beyond this, as a power of two.
const NOISE: f32 = 1.0;
/// A host with so much of the other's requests under way counts as having as many.
const AS_MANY: f32 = 0.75;

/// A set of hosts of a group by their numbers, one bit each.
pub(super) type Hosts = u64;

/// How long a host takes, as one worker sees it.
#[derive(Debug, Default)]
pub struct Pace {
    /// Longer than it takes on average, as a power of two.
    slowness: Cell<f32>,
    /// As it is, microseconds.
    mean_us: Cell<f32>,
    /// Of the last statement, microseconds.
    at_us: Cell<u64>,
}

impl Pace {
    /// A statement took so long at this host; such take `usual_us` on average.
    pub(super) fn took(&self, us: u64, usual_us: u64, now_us: u64) {
        let before_us = self.at_us.replace(now_us);
        if before_us == 0 {
            return self.mean_us.set(us as f32);
        }
        let ratio = (us as f32 + 1.0) / (usual_us as f32 + 1.0);
        let (now, was) = (ratio.log2().clamp(-MOST, MOST), self.slowness.get());
        let since_us = now_us.saturating_sub(before_us) as f32;
        let within_us = if now > was { RISE_US } else { FALL_US };
        let weight_us = since_us.min(MOST_US);
        self.slowness.set(was + (now - was) * weight_us / (weight_us + within_us));
        let mean_us = self.mean_us.get();
        self.mean_us.set(mean_us + (us as f32 - mean_us) * since_us / (since_us + FALL_US));
    }

    /// How long statements take there on average, microseconds, if any was seen within the last ones.
    pub(super) fn mean_us(&self, now_us: u64, within_us: u64) -> Option<u64> {
        let is_new = now_us.saturating_sub(self.at_us.get()) <= within_us;
        (is_new && self.at_us.get() > 0).then(|| self.mean_us.get() as u64)
    }
}

/// What is compared.
#[derive(Clone, Copy)]
pub(super) struct Load<'a> {
    /// Clients served and waiting.
    pub(super) clients: usize,
    /// Whether another would be served at once, by a server at rest.
    pub(super) rests: bool,
    /// How long each takes.
    pub(super) pace: &'a Pace,
}

impl Load<'_> {
    /// Whether a request is clearly better sent here than there.
    fn is_less(&self, other: &Self, now_us: u64) -> bool {
        let slower = self.pace.slowness.get() - other.pace.slowness.get();
        let (mine, others) = (self.clients as f32 + 1.0, other.clients as f32 + 1.0);
        // Most are alike, and need no power.
        if slower.abs() <= NOISE {
            let clearly = !other.rests || self.clients + 1 < other.clients;
            return clearly && mine < others * AS_MANY;
        }
        // A host that is shunned is not heard of any more: what was known of it counts less and less.
        let age_us = now_us.saturating_sub(self.pace.at_us.get().min(other.pace.at_us.get())) as f32;
        let slower = slower * FALL_US / (FALL_US + age_us);
        mine * (slower.abs() - NOISE).max(0.0).copysign(slower).exp2() < others * AS_MANY
    }
}

/// Chooses for a group.
pub(super) struct Balancer {
    balance: Balance,
    /// Weights of the hosts.
    weights: Box<[u32]>,
    /// Those of the own zone.
    near: Hosts,
    max_lag_us: u64,
    max_lag_bytes: u64,
    fails: bool,
    /// Those that are to take no reads.
    spared: Hosts,
    /// Those that are left out for being behind.
    behind: Hosts,
    turn: usize,
    random: u64,
}

impl Balancer {
    /// For the hosts of this database, seen from `zone`; `seed` is another for each.
    pub(super) fn new(database: &Database, zone: Option<&str>, seed: u64) -> Self {
        let Reads { balance, weights, zones, max_replica_lag, max_replica_lag_bytes, no_replica, spared, .. } =
            &database.reads;
        let weights = database.hosts().map(|host| weights.get(host).copied().unwrap_or(1)).collect();
        let near = |host| zone.is_some() && zones.get(host).map(String::as_str) == zone;
        Self {
            balance: *balance,
            weights,
            near: database.hosts().enumerate().filter(|(_, host)| near(*host)).fold(0, |set, (n, _)| set | bit(n)),
            max_lag_us: max_replica_lag.map_or(u64::MAX, |lag| lag.as_micros() as u64),
            max_lag_bytes: max_replica_lag_bytes.map_or(u64::MAX, u64::from),
            fails: *no_replica == NoReplica::Fail,
            spared: set(database.hosts().enumerate().filter(|(_, host)| spared.contains(host)).map(|(n, _)| n)),
            behind: 0,
            turn: 0,
            random: (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }

    /// Of `hosts`, those that follow the primary closely enough to serve anybody at all.
    pub(super) fn able(&mut self, hosts: Hosts, cluster: &Cluster, now_us: u64) -> Hosts {
        let (mut able, limited) = (0, self.max_lag_us != u64::MAX || self.max_lag_bytes != u64::MAX);
        for number in numbers(hosts & !self.spared) {
            let Some(member) = cluster.members.get(number).filter(|it| it.standing() == Standing::Standby) else {
                continue;
            };
            if limited && self.is_behind(number, member, cluster, now_us) {
                self.behind |= bit(number);
            } else {
                self.behind &= !bit(number);
                able |= bit(number);
            }
        }
        able
    }

    /// One that was left out must come closer than one that was not, or it would come and go.
    fn is_behind(&self, number: usize, member: &Member, cluster: &Cluster, now_us: u64) -> bool {
        let limit = |most: u64| if self.behind & bit(number) == 0 { most } else { most / 5 * 4 };
        member.lag_us(now_us) > limit(self.max_lag_us) || cluster.lag_bytes(number) > limit(self.max_lag_bytes)
    }

    /// Whether reads fail while none is able to serve them.
    pub(super) fn fails_without(&self, cluster: &Cluster) -> bool {
        self.fails && cluster.is_known()
    }

    /// One of those that may serve a read.
    pub(super) fn choose<'a>(
        &mut self,
        fit: Hosts,
        cluster: &Cluster,
        now_us: u64,
        slow_start_us: u64,
        load: impl Fn(usize) -> Load<'a>,
    ) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        if fit.count_ones() <= 1 {
            return numbers(fit).next();
        }
        let breaker = |number: usize| cluster.members.get(number).map(|member| &member.breaker);
        let is_broken = |n: &usize| breaker(*n).is_some_and(|it| it.state() != crate::pool::breaker::State::Closed);
        let broken = set(numbers(fit).filter(is_broken));
        if broken != 0
            && let Some(probe) = numbers(broken).find(|n| breaker(*n).is_some_and(|it| it.probe(now_us)))
        {
            return Some(probe);
        }
        // Where nothing would be left there is no choice.
        let mut fit = within(fit, !broken);
        fit = within(fit, self.near);
        let mut thin = 0;
        for number in numbers(fit) {
            let share = cluster.members.get(number).map_or(1000, |member| member.share(now_us, slow_start_us));
            if share < 1000 && self.below(1000) >= u64::from(share) {
                thin |= bit(number);
            }
        }
        self.pick(within(fit, !thin), now_us, load)
    }

    fn pick<'a>(&mut self, fit: Hosts, now_us: u64, load: impl Fn(usize) -> Load<'a>) -> Option<usize> {
        let count = fit.count_ones() as usize;
        let nth = |n: usize| numbers(fit).nth(n);
        match self.balance {
            _ if count <= 1 => nth(0),
            Balance::RoundRobin => nth(self.turn % count),
            Balance::Random => nth(self.below(count as u64) as usize),
            Balance::Weights => {
                let weight = |n: usize| self.weights.get(n).copied().map_or(1, u64::from);
                let all = numbers(fit).map(weight).sum();
                let at = self.below(all);
                let weight = |n: usize| self.weights.get(n).copied().map_or(1, u64::from);
                let mut passed = 0;
                numbers(fit).find(|n| {
                    passed += weight(*n);
                    passed > at
                })
            }
            Balance::LeastOutstanding => {
                // By chance also of two: turns fall into step with what a client repeats.
                let first = self.below(count as u64) as usize;
                let second = (first + 1 + self.below(count as u64 - 1) as usize) % count;
                let (first, second) = (nth(first)?, nth(second)?);
                Some(if load(second).is_less(&load(first), now_us) { second } else { first })
            }
        }
    }

    /// xorshift64 (G. Marsaglia, 2003), scaled to `0..bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(bound)) >> 64) as u64
    }
}

/// The set of one host; none for one beyond those that a set can have.
pub(super) fn bit(number: usize) -> Hosts {
    if number < MAX_HOSTS { 1 << number } else { 0 }
}

/// The set of these.
pub(super) fn set(numbers: impl Iterator<Item = usize>) -> Hosts {
    numbers.fold(0, |set, number| set | bit(number))
}

/// The numbers of those in a set.
pub(super) fn numbers(mut hosts: Hosts) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = hosts.trailing_zeros() as usize;
        hosts &= hosts.wrapping_sub(1);
        (number < MAX_HOSTS).then_some(number)
    })
}

/// Those of `hosts` that are also in `better`, or all of them if none is.
fn within(hosts: Hosts, better: Hosts) -> Hosts {
    if hosts & better == 0 { hosts } else { hosts & better }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
