//! Which of the replicas that may serve a read does.
//! Must never choose one that may not: who may is decided before, and is not looked at here.
//!
//! By default the better of two, chosen at random where there are more (M. Mitzenmacher, *The Power of Two Choices in
//! Randomized Load Balancing*, 2001): the one with fewer requests under way, each of which counts for as much as the host
//! takes longer than the other. How long a host takes is a moving average as Finagle's peak EWMA is (`PeakEwma.scala`,
//! github.com/twitter/finagle): it follows a rise sooner than a fall. Three things differ, as statements of a database
//! differ from each other more than calls of a service do:
//! - What is averaged is the time of a statement over the mean of its shape on this worker, so that a host which happens
//!   to run reports is not taken for a slow one.
//! - It is averaged by its logarithm, a rise takes [`RISE_US`], and no statement counts for more than [`FAR`] from the average,
//!   nor for more time than [`MOST_US`]: what a pause of the machine made long must not decide for seconds (simulated with a
//!   pause of 5 to 100 ms every 0.5 s on each of two equal hosts, one had 78 % of the other's reads without the last two).
//!   A host that hangs is left at once nevertheless, for what is under way there.
//! - One that takes up to twice as long as the other counts as equal: that is noise. So is a quarter more of requests under
//!   way, where one cannot be better by less: of hosts that share a machine with others one always happens to be slower, and
//!   who follows every difference gives it less although it could do as much. And where a server can be had, so is half: nobody
//!   would be served the sooner for it.
//!
//! Most reads cannot choose. Who has read from a host may read from another only when the first has said how far it is
//! ([`crate::pool::cluster::Cluster::serves`]), which it is asked every `check_interval`: the clients of a host come free
//! together, and are counted on by what they choose then. If each chose by chance, half of them would go; where the hosts are
//! asked shortly one after the other, those of the first go to the second, half of which then come back with half of its own:
//! it keeps a third, for ever (seen: 240,793 and 166,352 reads in 30 s). So who comes free stays where it is, unless the other
//! host is clearly better, or its own has answered more reads of late, by so many that both have as many when it goes.

use std::cell::Cell;

use crate::config::{Balance, Database, MAX_HOSTS, NoReplica, Reads};
use crate::pool::cluster::{Cluster, Member, Standing};

/// Time in which half of a rise is believed, microseconds.
const RISE_US: f32 = 1e6;
/// Time in which half of a fall is believed, microseconds.
const FALL_US: f32 = 3e6;
/// No single statement counts for more than so far from the average, as a power of two, nor for more time than this, microseconds.
const FAR: f32 = 2.0;
const MOST_US: f32 = 20e3;
/// Time over which the mean is taken, and after which half of a difference is forgotten, microseconds.
const LATELY_US: f32 = 10e6;
/// Time within which reads are counted to find who has more, microseconds: as long as clients are bound.
const COUNT_US: f32 = 1e6;
/// Of reads that cannot choose so many ask for another host if theirs is overloaded: it would be wasted on each.
const EACH: usize = 16;
/// A host counts as slower only beyond this, as a power of two.
const NOISE: f32 = 1.0;
/// A host with so much of the other's requests under way counts as having as many.
const AS_MANY: f32 = 0.75;
/// The same where the other need not keep anybody waiting: hosts that answer as many have twice as many under way where a read takes
/// twice as long, which is noise.
const AS_MANY_AT_REST: f32 = 0.5;

/// A set of hosts of a group by their numbers, one bit each.
pub(super) type Hosts = u64;

/// How long a host takes, as one worker sees it.
#[derive(Debug, Default)]
pub struct Pace {
    /// Longer than it takes on average, as a power of two.
    slowness: Cell<f32>,
    /// As it is, microseconds.
    mean_us: Cell<f32>,
    /// How many statements it has answered of late, or is about to, older ones counting for less; and as of when, microseconds.
    count: Cell<f32>,
    counted_us: Cell<u64>,
    /// Of the last statement, microseconds.
    at_us: Cell<u64>,
}

impl Pace {
    /// A statement took so long at this host; such take `usual_us` on average.
    pub(super) fn took(&self, us: u64, usual_us: u64, now_us: u64) {
        self.counts(1.0, now_us);
        let before_us = self.at_us.replace(now_us);
        if before_us == 0 {
            return self.mean_us.set(us as f32);
        }
        let since_us = now_us.saturating_sub(before_us) as f32;
        let ratio = (us as f32 + 1.0) / (usual_us as f32 + 1.0);
        let weight_us = since_us.min(MOST_US);
        let was = self.slowness.get();
        let step = (ratio.log2() - was).clamp(-FAR, FAR);
        let within_us = if step > 0.0 { RISE_US } else { FALL_US };
        self.slowness.set(was + step * weight_us / (weight_us + within_us));
        let mean_us = self.mean_us.get();
        self.mean_us.set(mean_us + (us as f32 - mean_us) * weight_us / (weight_us + LATELY_US));
    }

    /// How many statements it has answered of late.
    fn count(&self, now_us: u64) -> f32 {
        let age_us = now_us.saturating_sub(self.counted_us.get()) as f32;
        self.count.get() * (-age_us / COUNT_US).exp()
    }

    fn counts(&self, more: f32, now_us: u64) {
        self.count.set((self.count(now_us) + more).max(0.0));
        self.counted_us.set(now_us);
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
    /// Whether another would have a server, at rest or to be opened.
    pub(super) rests: bool,
    /// How long each takes.
    pub(super) pace: &'a Pace,
}

impl Load<'_> {
    /// Whether a request is clearly better sent here than there.
    fn is_less(&self, other: &Self, now_us: u64) -> bool {
        let slower = self.pace.slowness.get() - other.pace.slowness.get();
        let (mine, others) = (self.clients as f32 + 1.0, other.clients as f32 + 1.0);
        let others = others * if other.rests { AS_MANY_AT_REST } else { AS_MANY };
        // Most are alike, and need no power.
        if slower.abs() <= NOISE {
            return mine < others;
        }
        // A host that is shunned is not heard of any more: what was known of it counts less and less.
        let age_us = now_us.saturating_sub(self.pace.at_us.get().min(other.pace.at_us.get())) as f32;
        let slower = slower * LATELY_US / (LATELY_US + age_us);
        mine * (slower.abs() - NOISE).max(0.0).copysign(slower).exp2() < others
    }

    /// Who reads so much lately goes from here to there, or stays, so that both answer as many. Beyond half of its reads the
    /// probability rises from none to all, so that also of an odd number of clients each host has half in the mean.
    fn evens_out(&self, other: &Self, reads: u16, now_us: u64, chance: f32) -> bool {
        let (mine, others, reads) = (self.pace.count(now_us), other.pace.count(now_us), f32::from(reads));
        let goes = mine - others > reads * (0.5 + chance);
        if goes {
            // The next to come free must not go for the same reason.
            self.pace.counts(-reads, now_us);
            other.pace.counts(reads, now_us);
        }
        goes
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reader {
    /// The host that it read from last, if what that answers is counted.
    pub(super) last: Option<usize>,
    /// How often it has read since it could choose.
    pub(super) reads: u16,
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

    /// Whether who is bound to the host that it read from last had better not be: of those that are `able` another could
    /// clearly serve it sooner.
    pub(super) fn would_switch<'a>(
        &self,
        last: usize,
        able: Hosts,
        now_us: u64,
        load: impl Fn(usize) -> Load<'a>,
    ) -> bool {
        let others = able & !bit(last);
        self.balance == Balance::LeastOutstanding
            && others != 0
            && others != able
            && self.turn.is_multiple_of(EACH)
            && numbers(others).any(|other| load(other).is_less(&load(last), now_us))
    }

    /// One of those that may serve a read of this one.
    pub(super) fn choose<'a>(
        &mut self,
        fit: Hosts,
        reader: Reader,
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
        self.pick(within(fit, !thin), reader, now_us, load)
    }

    fn pick<'a>(&mut self, fit: Hosts, reader: Reader, now_us: u64, load: impl Fn(usize) -> Load<'a>) -> Option<usize> {
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
                let last = reader.last.filter(|&last| fit & bit(last) != 0);
                // By chance also of two: turns fall into step with what a client repeats.
                let first = last.or_else(|| nth(self.below(count as u64) as usize))?;
                let second = numbers(fit & !bit(first)).nth(self.below(count as u64 - 1) as usize)?;
                let (one, other) = (load(first), load(second));
                let chance = self.below(1000) as f32 / 1000.0;
                let goes = other.is_less(&one, now_us)
                    || (last.is_some()
                        && !one.is_less(&other, now_us)
                        && one.evens_out(&other, reader.reads, now_us, chance));
                Some(if goes { second } else { first })
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
