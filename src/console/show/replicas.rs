//! `SHOW REPLICAS`, `SHOW LANES`, `SHOW PINNED`.
//! Must never ask a host anything: what is shown is what was last heard.

use std::collections::BTreeMap;

use super::super::Console;
use super::super::table::{Value, row};
use super::Rows;
use crate::base::clock;
use crate::export::hosts::role;
use crate::meter::{PoolCounters, Unfit};
use crate::pool::cluster::{Cluster, Standing};

/// In the order of the columns of `SHOW LANES`.
const UNFIT: [Unfit; 9] = [
    Unfit::Verdict,
    Unfit::Alone,
    Unfit::Pipeline,
    Unfit::Session,
    Unfit::Batch,
    Unfit::Unknown,
    Unfit::Slow,
    Unfit::Stalled,
    Unfit::NoServer,
];

/// How many numbers `SHOW LANES` has.
const NUMBERS: usize = 8 + UNFIT.len();

impl Console {
    /// Every host of every database. One alone, or that nobody has used yet, is asked nothing but whether it is there.
    pub(in super::super) fn hosts(&self) -> Rows {
        let config = self.config();
        let shown: BTreeMap<_, _> = self.about.clusters.shown().into_iter().collect();
        let mut rows = Vec::new();
        for entry in config.databases.values() {
            if let Some(cluster) = shown.get(&entry.name) {
                rows.extend((0..cluster.members.len()).filter_map(|at| host(&entry.name, cluster, at)));
                continue;
            }
            let health = self.about.registry.database(&entry.name);
            let up = health.is_some_and(|health| health.primary_reachable());
            for (at, endpoint) in entry.hosts().enumerate() {
                let alone = entry.replicas.is_empty() && entry.discover.is_none();
                let role = if alone && up { "primary" } else { "unknown" };
                let up = (at == 0).then_some(up);
                rows.push(row![
                    entry.name.as_str(),
                    endpoint.to_string(),
                    role,
                    up,
                    None::<u32>,
                    None::<&str>,
                    None::<u32>,
                    None::<u32>,
                    None::<u32>,
                    "closed",
                    0u32,
                ]);
            }
        }
        rows
    }

    pub(super) fn lanes(&self) -> Rows {
        let pools = self.about.registry.pools();
        let mut sums: BTreeMap<_, [u64; NUMBERS]> = BTreeMap::new();
        for pool in pools.iter() {
            let target = &pool.target;
            let key = (&target.database, &target.user, &target.host, pool.role());
            let sum = sums.entry(key).or_default();
            sum.iter_mut().zip(lane(pool)).for_each(|(sum, number)| *sum += number);
        }
        let row = |((database, user, host, role), numbers): ((&_, &_, &_, crate::meter::Role), [u64; NUMBERS])| {
            let names: [&std::sync::Arc<str>; 3] = [database, user, host];
            let names = names.map(|name| Value::from(&**name));
            names.into_iter().chain([Value::from(role.as_str())]).chain(numbers.map(Value::from)).collect()
        };
        sums.into_iter().map(row).collect()
    }

    pub(super) fn pinned(&self) -> Rows {
        let now_us = clock::now_us();
        let boards: Vec<_> = self.about.registry.pin_boards().iter().map(|board| board.rows()).collect();
        let mut pins: Vec<_> = boards.iter().flat_map(|rows| rows.iter()).collect();
        pins.sort_by_key(|pin| pin.since_us);
        let row = |pin: &crate::meter::Pinned| {
            row![
                pin.pid,
                &*pin.label.database,
                &*pin.label.user,
                pin.application_name.as_deref(),
                pin.why.name(),
                now_us.saturating_sub(pin.since_us),
                &*pin.statement,
            ]
        };
        pins.into_iter().map(row).collect()
    }
}

fn lane(pool: &PoolCounters) -> [u64; NUMBERS] {
    let lanes = &pool.lanes;
    let mut numbers = [0; NUMBERS];
    let counted = [
        lanes.open.get(),
        lanes.riders.get(),
        lanes.rides.get(),
        lanes.queued_us.get(),
        lanes.writes.get(),
        lanes.repeats.get(),
        lanes.stalls.get(),
        lanes.resends.get(),
    ];
    let unfit = UNFIT.map(|why| lanes.unfit(why).get());
    numbers.iter_mut().zip(counted.into_iter().chain(unfit)).for_each(|(number, counted)| *number = counted);
    numbers
}

fn host(database: &str, cluster: &Cluster, number: usize) -> Option<Vec<Value>> {
    let member = cluster.members.get(number)?;
    let standing = member.standing();
    let role = role(cluster, number, standing);
    let answers = matches!(standing, Standing::Standby | Standing::Primary);
    let is_standby = standing == Standing::Standby;
    let lsn = cluster.position(number).filter(|_| answers);
    Some(row![
        database,
        member.endpoint.to_string(),
        role,
        answers,
        Some(member.timeline()).filter(|timeline| answers && *timeline > 0),
        lsn.map(|lsn| format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff)),
        is_standby.then(|| cluster.lag_bytes(number)),
        is_standby.then(|| member.lag_us(clock::now_us())),
        Some(member.latency_us()).filter(|us| *us > 0),
        member.breaker.state().as_str(),
        member.breaker.opens(),
    ])
}
