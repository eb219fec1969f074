//! Where reads go under a simulated load: clients that read on and on, hosts that take as long as told.
//! Must never look at a clock: time is what the simulation says.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::config::{Endpoint, Roles};
use crate::pool::breaker::{Limits, State};
use crate::pool::cluster::Says;

const S: u64 = 1_000_000;

/// A primary and `replicas` that follow it; the replicas are 1, 2, ….
fn cluster(replicas: usize) -> Cluster {
    let endpoint = |n: usize| format!("h{n}").parse::<Endpoint>().unwrap();
    let cluster = Cluster::new((0..=replicas).map(endpoint), Roles::Found);
    (0..=replicas).for_each(|n| cluster.heard(n, 1, says(n > 0, 1000)));
    cluster
}

fn says(standby: bool, lsn: u64) -> Says {
    Says { standby, lsn, shown: lsn, timeline: 1 }
}

fn balancer(replicas: usize, zone: Option<&str>, change: impl Fn(&mut Reads)) -> Balancer {
    let mut database = Database::new("d", "h0".parse().unwrap());
    database.replicas = (1..=replicas).map(|n| format!("h{n}").parse().unwrap()).collect();
    change(&mut database.reads);
    Balancer::new(&database, zone, 7)
}

fn replicas(count: usize) -> Hosts {
    set(1..=count)
}

/// A run of `clients` for `seconds`.
struct Run {
    clients: usize,
    seconds: u64,
    /// Of a client between two reads, microseconds.
    think_us: u64,
    /// A client is bound to the host that it has read from until that has said how far it is, as it does every so many
    /// microseconds, each host so long after the one before. `(0, 0)`: it is not.
    says_us: (u64, u64),
}

impl Run {
    fn new(clients: usize, seconds: u64, think_us: u64) -> Self {
        Self { clients, seconds, think_us, says_us: (0, 0) }
    }

    /// How often the host has said how far it is.
    fn said(&self, host: usize, now_us: u64) -> u64 {
        let (every_us, after_us) = self.says_us;
        now_us.saturating_sub(host as u64 * after_us).checked_div(every_us).unwrap_or(0)
    }
}

impl Run {
    /// How many reads each replica had in each second. `takes` says how long the host takes for one, given a number that
    /// is another each time, the time and how many are under way there.
    fn shares(
        &self,
        balancer: &mut Balancer,
        cluster: &Cluster,
        fit: Hosts,
        mut takes: impl FnMut(usize, u64, u64, usize) -> u64,
    ) -> Vec<Vec<u64>> {
        let hosts = cluster.members.len();
        let (paces, mut busy): (Vec<Pace>, _) = ((0..hosts).map(|_| Pace::default()).collect(), vec![0; hosts]);
        let mut counts = vec![vec![0; hosts]; self.seconds as usize];
        // When, whose, and what ends then: a read on a host that began, or a pause.
        let mut events: BinaryHeap<Reverse<(u64, usize, usize, u64)>> = BinaryHeap::new();
        (0..self.clients).for_each(|n| events.push(Reverse((S + n as u64, n, hosts, 0))));
        // Where each has read last, and when it could not go elsewhere yet.
        let mut bound = vec![None; self.clients];
        let mut reads = vec![0; self.clients];
        let (mut random, mut sum_us, mut ended) = (88172645463325252_u64, 0, 0);
        while let Some(Reverse((now_us, client, host, began_us))) = events.pop() {
            if now_us >= (self.seconds + 1) * S {
                break;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if host < hosts {
                busy[host] -= 1;
                (sum_us, ended) = (sum_us + now_us - began_us, ended + 1);
                paces[host].took(now_us - began_us, sum_us / ended, now_us);
                let pause_us = if self.think_us == 0 { 0 } else { random % (2 * self.think_us) };
                events.push(Reverse((now_us + pause_us, client, hosts, 0)));
            } else {
                let load = |n: usize| Load { clients: busy[n], rests: busy[n] < 20, pace: &paces[n] };
                let is_bound = |&(last, said): &(usize, u64)| self.says_us.0 > 0 && said == self.said(last, now_us);
                let reader = Reader { last: bound[client].map(|(last, _)| last), reads: reads[client] };
                let held = bound[client].filter(is_bound).map(|(last, _)| bit(last));
                let chosen = balancer.choose(held.unwrap_or(fit), reader, cluster, now_us, 0, load).unwrap();
                reads[client] = if held.is_some() { reads[client] + 1 } else { 1 };
                bound[client] = Some((chosen, self.said(chosen, now_us)));
                busy[chosen] += 1;
                counts[(now_us / S - 1) as usize][chosen] += 1;
                events.push(Reverse((
                    now_us + takes(chosen, random >> 16, now_us, busy[chosen]).max(1),
                    client,
                    chosen,
                    now_us,
                )));
            }
        }
        counts
    }
}

/// About a millisecond, and one in a thousand a hundred times that.
fn uneven(random: u64) -> u64 {
    let base_us = 500 + random % 1000;
    if (random / 1000).is_multiple_of(1000) { base_us * 100 } else { base_us }
}

fn sums(counts: &[Vec<u64>]) -> Vec<u64> {
    (0..counts[0].len()).map(|host| counts.iter().map(|second| second[host]).sum()).collect()
}

fn assert_even(shares: &[u64]) {
    let (less, more) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(less * 10 >= more * 9, "{shares:?}");
}

#[test]
fn equal_hosts_have_equal_shares_though_some_reads_take_long() {
    let cluster = cluster(2);
    for (clients, think_us) in [(16, 0), (16, 15_000), (1, 0)] {
        let run = Run::new(clients, 20, think_us);
        let counts =
            run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), |_, random, _, _| uneven(random));
        assert_even(&sums(&counts)[1..]);
    }
}

/// What clients choose that all come free at once decides about all their reads until they come free again.
#[test]
fn clients_that_come_free_together_do_not_all_choose_the_same() {
    let cluster = cluster(2);
    for (clients, think_us, after_us) in [
        (16, 15_000, 1_000),
        (16, 15_000, 500_000),
        (16, 0, 1_000),
        (16, 0, 800_000),
        (500, 100_000, 1_000),
        (6, 5_000, 1_000),
    ] {
        let run = Run { says_us: (S, after_us), ..Run::new(clients, 30, think_us) };
        let takes = |_, random, _, _| uneven(random);
        let counts = run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes);
        assert_even(&sums(&counts)[1..]);
    }
}

/// What was about to be read where nothing was answered is soon forgotten.
#[test]
fn who_was_chosen_in_vain_has_its_share_again() {
    let (one, other) = (Pace::default(), Pace::default());
    let load = |pace| Load { clients: 0, rests: true, pace };
    for n in 0..4_000 {
        one.took(300, 300, S + n * 250);
    }
    // It hangs, is down, and comes back.
    assert!(load(&one).evens_out(&load(&other), 2_000, 2 * S, 0.0));
    (0..100).for_each(|n| one.took(300, 300, 12 * S + n * 10_000));
    assert!(load(&one).evens_out(&load(&other), 30, 13 * S, 0.9));
}

/// Whose backends lose the processor now and then is not slow.
#[test]
fn pauses_do_not_make_a_host_slow() {
    let cluster = cluster(2);
    let run = Run::new(16, 30, 15_000);
    // Each host stands still for 5 to 100 ms of every 500, never at the same time.
    let takes = |host: usize, random, now_us: u64, _| {
        let at_us = (now_us + host as u64 * S / 4) % (S / 2);
        let pause_us = [5_000, 20_000, 50_000, 100_000][(now_us / (S / 2) * 7 + host as u64) as usize % 4];
        uneven(random) / 4 + pause_us.max(at_us) - at_us
    };
    assert_even(&sums(&run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes))[1..]);
}

/// Of hosts that have next to nothing to do one may well take somewhat longer: it has its share nevertheless.
#[test]
fn who_has_time_is_asked_as_much_as_who_has_more() {
    let cluster = cluster(2);
    let run = Run::new(16, 20, 15_000);
    let takes = |host, random, _, _| if host == 1 { uneven(random) * 3 / 2 } else { uneven(random) };
    assert_even(&sums(&run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes))[1..]);
}

/// Where none is at rest a difference of one is one that waits.
#[test]
fn who_has_no_server_at_rest_is_asked_less() {
    let pace = Pace::default();
    let load = |clients, rests| Load { clients, rests, pace: &pace };
    assert!(load(0, true).is_less(&load(1, false), S) && !load(0, true).is_less(&load(1, true), S));
    assert!(load(0, true).is_less(&load(2, true), S));
}

/// Who cannot choose says so, now and then, if another could serve it sooner.
#[test]
fn who_is_bound_to_an_overloaded_host_would_switch() {
    let pace = Pace::default();
    let mut balancer = balancer(2, None, |_| ());
    let cluster = cluster(2);
    let mut says = |clients: [usize; 3]| {
        let load = |n: usize| Load { clients: clients[n], rests: true, pace: &pace };
        let mut is = || {
            balancer.choose(bit(1), Reader { last: Some(1), reads: 9 }, &cluster, S, 0, load);
            balancer.would_switch(1, replicas(2), S, load)
        };
        (0..EACH).filter(|_| is()).count()
    };
    assert_eq!((says([0, 8, 2]), says([0, 2, 8]), says([0, 3, 2])), (1, 0, 0));
}

#[test]
fn shapes_that_take_long_do_not_make_a_host_slow() {
    let (fast, slow) = (Pace::default(), Pace::default());
    for n in 1..1000 {
        fast.took(1_000, 1_000, n * 10_000);
        slow.took(5_000_000, 5_000_000, n * 10_000);
    }
    let load = |pace| Load { clients: 3, rests: true, pace };
    assert!(!load(&fast).is_less(&load(&slow), 10 * S) && !load(&slow).is_less(&load(&fast), 10 * S));
}

#[test]
fn a_host_that_becomes_slow_gets_less_within_a_second_and_its_share_back_later() {
    let cluster = cluster(2);
    let run = Run::new(8, 60, 10_000);
    let takes = |host, random, now_us: u64, _| {
        let is_slow = host == 1 && (10 * S..20 * S).contains(&now_us);
        uneven(random) * if is_slow { 20 } else { 1 }
    };
    let counts = run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes);
    assert_even(&sums(&counts[..9])[1..]);
    // From its second second on.
    let slow = sums(&counts[11..19]);
    assert!(slow[1] * 5 < slow[2] && slow[1] > 0, "{slow:?}");
    assert_even(&sums(&counts[50..])[1..]);
}

#[test]
fn a_host_that_hangs_is_left_at_once() {
    let cluster = cluster(2);
    let run = Run::new(16, 5, 1_000);
    let takes = |host, random, now_us, _| if host == 1 && now_us >= 3 * S { 100 * S } else { uneven(random) };
    let counts = run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes);
    // With a third of the clients elsewhere the rest is twice as many.
    assert!(counts[2..].iter().map(|second| second[1]).sum::<u64>() <= 11, "{counts:?}");
}

#[test]
fn a_host_of_less_power_gets_what_it_can_do() {
    let cluster = cluster(2);
    // Each takes the longer the more it has to do, one three times as long as the other.
    let run = Run::new(20, 10, 0);
    let takes = |host, random, _, busy: usize| uneven(random) * busy as u64 * if host == 1 { 3 } else { 1 };
    let counts = run.shares(&mut balancer(2, None, |_| ()), &cluster, replicas(2), takes);
    let shares = sums(&counts[3..]);
    assert!(shares[1] * 2 < shares[2] && shares[1] * 8 > shares[2], "{shares:?}");
}

#[test]
fn many_hosts_are_all_used_alike() {
    let cluster = cluster(8);
    let run = Run::new(64, 10, 2_000);
    let counts = run.shares(&mut balancer(8, None, |_| ()), &cluster, replicas(8), |_, random, _, _| uneven(random));
    assert_even(&sums(&counts)[1..]);
}

/// How often each of the hosts is chosen out of 30,000 times when nothing is known of any.
fn chosen(balancer: &mut Balancer, cluster: &Cluster, fit: Hosts, now_us: u64, slow_start_us: u64) -> Vec<u64> {
    let mut counts = vec![0; cluster.members.len()];
    let pace = Pace::default();
    for _ in 0..30_000 {
        counts[balancer
            .choose(fit, Reader::default(), cluster, now_us, slow_start_us, |_| Load {
                clients: 0,
                rests: true,
                pace: &pace,
            })
            .unwrap()] += 1;
    }
    counts
}

fn assert_about(counts: &[u64], expected: &[u64]) {
    assert!(counts.iter().zip(expected).all(|(is, should)| is.abs_diff(*should) <= 500), "{counts:?}");
}

#[test]
fn other_ways_to_choose() {
    let cluster = cluster(3);
    let all = |balance| balancer(3, None, |reads| reads.balance = balance);
    let of = |mut balancer: Balancer| chosen(&mut balancer, &cluster, replicas(3), S, 0);
    assert_eq!(of(all(Balance::RoundRobin)), [0, 10_000, 10_000, 10_000]);
    assert_about(&of(all(Balance::Random)), &[0, 10_000, 10_000, 10_000]);
    assert_about(&of(all(Balance::LeastOutstanding)), &[0, 10_000, 10_000, 10_000]);
    let weighted = balancer(3, None, |reads| {
        reads.balance = Balance::Weights;
        reads.weights = [("h1", 3), ("h3", 2)].map(|(host, n)| (host.parse().unwrap(), n)).into();
    });
    assert_about(&of(weighted), &[0, 15_000, 5_000, 10_000]);
}

#[test]
fn the_own_zone_comes_first_while_it_serves() {
    let cluster = cluster(3);
    let in_zones = |reads: &mut Reads| {
        reads.zones =
            [("h1", "a"), ("h2", "b"), ("h3", "b")].map(|(host, zone)| (host.parse().unwrap(), zone.to_owned())).into();
    };
    let mut here = balancer(3, Some("b"), in_zones);
    assert_about(&chosen(&mut here, &cluster, replicas(3), S, 0), &[0, 0, 15_000, 15_000]);
    assert_eq!(chosen(&mut here, &cluster, set([1, 3].into_iter()), S, 0)[3], 30_000);
    assert_eq!(chosen(&mut here, &cluster, bit(1), S, 0)[1], 30_000);
    assert_about(&chosen(&mut balancer(3, None, in_zones), &cluster, replicas(3), S, 0), &[0, 10_000, 10_000, 10_000]);
}

#[test]
fn a_host_that_came_back_gets_more_and_more() {
    let cluster = cluster(2);
    cluster.members[1].is_back(100 * S);
    for (at_s, share) in [(100, 300), (103, 1_500), (110, 5_000), (115, 7_500), (130, 15_000), (200, 15_000)] {
        let counts = chosen(&mut balancer(2, None, |_| ()), &cluster, replicas(2), at_s * S, 30 * S);
        assert_about(&counts, &[0, share, 30_000 - share]);
    }
    // Alone it serves all.
    assert_eq!(chosen(&mut balancer(2, None, |_| ()), &cluster, bit(1), 100 * S, 30 * S)[1], 30_000);
}

#[test]
fn a_host_whose_breaker_is_open_is_left_out_but_never_all() {
    let cluster = cluster(2);
    let limits = Limits { failures: 1, pause_us: S };
    let mut balancer = balancer(2, None, |_| ());
    assert!(cluster.members[1].breaker.fails(10 * S, limits));
    assert_eq!(chosen(&mut balancer, &cluster, replicas(2), 10 * S, 0), [0, 0, 30_000]);
    // One read after the pause.
    assert_eq!(chosen(&mut balancer, &cluster, replicas(2), 11 * S, 0), [0, 1, 29_999]);
    assert_eq!(cluster.members[1].breaker.state(), State::HalfOpen);
    assert!(cluster.members[2].breaker.fails(11 * S, limits));
    assert_about(&chosen(&mut balancer, &cluster, replicas(2), 11 * S, 0), &[0, 15_000, 15_000]);
}

#[test]
fn a_replica_that_is_behind_is_left_out_until_it_is_well_back() {
    let cluster = cluster(2);
    let mut balancer = balancer(2, None, |reads| reads.max_replica_lag_bytes = Some(1000));
    let mut is_able = |replayed: u64| {
        cluster.heard(1, 2, says(true, replayed));
        numbers(balancer.able(replicas(2), &cluster, S)).collect::<Vec<_>>()
    };
    cluster.heard(0, 2, says(false, 10_000));
    cluster.heard(2, 2, says(true, 10_000));
    assert_eq!(is_able(9_000), [1, 2]);
    assert_eq!(is_able(8_999), [2]);
    assert_eq!(is_able(9_100), [2]);
    assert_eq!(is_able(9_200), [1, 2]);
    assert_eq!(is_able(9_100), [1, 2]);
}

#[test]
fn lag_in_time_is_the_age_of_the_first_position_that_was_not_replayed() {
    let clock = crate::base::clock::paused::Paused::new();
    let now_us = crate::base::clock::now_us;
    let cluster = cluster(1);
    let mut balancer = balancer(1, None, |reads| reads.max_replica_lag = Some(std::time::Duration::from_secs(2)));
    let second = std::time::Duration::from_secs(1);
    // Nobody writes.
    for question in 2..100 {
        clock.advance(second);
        cluster.heard(0, question, says(false, 1000));
        assert_eq!(balancer.able(bit(1), &cluster, now_us()), bit(1));
    }
    cluster.heard(0, 100, says(false, 2000));
    cluster.heard(1, 100, says(true, 1999));
    let mut able = |seconds: u32| {
        clock.advance(second * seconds);
        (cluster.members[1].lag_us(now_us()) / S, balancer.able(bit(1), &cluster, now_us()) != 0)
    };
    assert_eq!(
        [able(0), able(1), able(1), able(1), able(5)],
        [(0, true), (1, true), (2, true), (3, false), (8, false)]
    );
    cluster.replay(1, 101, 2000, 2000);
    assert_eq!(able(0), (0, true));
}
