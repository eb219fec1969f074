//! The tasks that ask the hosts of a database what they are and how far they have come.
//! Must never ask more often than somebody needs to know.
//!
//! A host is down when a connection to it is lost and another one cannot be had. There is no number of retries to wait
//! for: whoever is silent has had all of `check_timeout`, and to be taken for down by mistake costs one
//! [`RETRY_PAUSE`], after which it is asked again. What a host does to clients while it answers here is for its circuit
//! breaker ([`crate::pool::breaker`]).
//!
//! Every group has a task per host, but of all tasks of a process only one has a connection to a host at a time: the
//! others wait for their turn, which comes when the group of the one is gone or its login is not good enough.
//! The only host of a database whose answers are kept is asked for its settings alone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::GroupId;
use super::task::{Shared, guarded};
use crate::base::clock;
use crate::pool::cluster::{Changed, Cluster, Member, Says, Standing};
use crate::server::open::OpenError;
use crate::server::position::{Asker, WRITTEN};

/// Pause between two questions to the primary while clients wait for an answer: at most 500 a second.
const PRIMARY_PAUSE: Duration = Duration::from_millis(2);
/// Pause between two questions to a replica while clients wait for it to catch up.
const REPLICA_PAUSE: Duration = Duration::from_millis(5);
/// Pause after a failure of what is only asked for its settings.
const ALONE_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Starts a task per host of the group; they end when the group is retired.
pub(super) fn start(relay: &Shared, group: GroupId) {
    let (cluster, ended) = {
        let relay = relay.borrow();
        (Arc::clone(&relay.groups[group].cluster), Rc::clone(&relay.groups[group].ended_bell))
    };
    for number in 0..cluster.members.len() {
        let (relay, cluster, ended) = (Rc::clone(relay), Arc::clone(&cluster), Rc::clone(&ended));
        tokio::task::spawn_local(async move {
            let asks = async {
                while let Some(member) = cluster.members.get(number) {
                    if cluster.is_watched() {
                        take_turn(&relay, group, &cluster, number, member).await;
                    } else {
                        take_turn_alone(&relay, group, &cluster, number, member).await;
                    }
                }
            };
            tokio::select! {
                () = ended.notified() => {}
                () = asks => {}
            }
            relay.borrow_mut().unwatch(group);
        });
    }
}

/// Asks the host until that fails.
async fn take_turn(relay: &Shared, group: GroupId, cluster: &Cluster, number: usize, member: &Member) {
    let turn = member.asking.lock().await;
    let mut heard = false;
    let outcome = follow(relay, group, cluster, number, member, &mut heard).await;
    cluster.is_lost(number);
    let Err(error) = outcome else { return };
    if member.standing() != Standing::Down {
        tracing::debug!(server = %member.endpoint, "the server does not say what it is: {error}");
    }
    // A connection that was lost says little until another one could not be had; one that is silent does.
    if !heard || matches!(error, OpenError::Timeout(_)) {
        if is_about_host(&error) {
            if member.standing() != Standing::Down {
                tracing::warn!(server = %member.endpoint, "the server is down: {error}");
            }
            cluster.is_down(number);
        } else {
            cluster.is_silent(number);
            let _ = guarded(relay, |relay| relay.nobody_tells(group, number, &error));
        }
        drop(turn);
        let _ = timeout(RETRY_PAUSE, member.wake.notified()).await;
        // Whoever wants to know must not make this a busy loop.
        tokio::time::sleep(PRIMARY_PAUSE).await;
    }
}

/// Asks the only host there is for its settings, on which what is kept of its answers hangs, until that fails.
async fn take_turn_alone(relay: &Shared, group: GroupId, cluster: &Cluster, number: usize, member: &Member) {
    let turn = member.asking.lock().await;
    if let Err(error) = follow_alone(relay, group, cluster, number).await {
        tracing::debug!(server = %member.endpoint, "the server does not say what its settings are: {error}");
    }
    drop(turn);
    tokio::time::sleep(ALONE_PAUSE).await;
}

async fn follow_alone(relay: &Shared, group: GroupId, cluster: &Cluster, number: usize) -> Result<(), OpenError> {
    let (dial, interval, limit) = {
        let relay = relay.borrow();
        let pool = &relay.config.pool;
        (relay.dial(relay.groups[group].members[number]), pool.check_interval, pool.check_timeout)
    };
    let mut asker = Asker::connect(&dial, limit).await?;
    let mut before = Changed::default();
    loop {
        before = ask_settings(relay, cluster, number, &mut asker, before).await?;
        tokio::time::sleep(interval).await;
    }
}

/// Asks a host for its settings; what was kept under others is void. `before`: what it has said the last time.
async fn ask_settings(
    relay: &Shared,
    cluster: &Cluster,
    number: usize,
    asker: &mut Asker,
    before: Changed,
) -> Result<Changed, OpenError> {
    let changed = cluster.has_settings(number, asker.settings().await?, clock::now_us());
    // Once more behind a change: other connections may have heard of it later than this one.
    if changed != Changed::default() || before != Changed::default() {
        let _ = guarded(relay, |relay| relay.answers_otherwise());
    }
    Ok(changed)
}

/// Whether nobody could use the host; otherwise it is this login that cannot.
fn is_about_host(error: &OpenError) -> bool {
    match error {
        OpenError::Io(_) | OpenError::Timeout(_) => true,
        // Starting up, shutting down.
        OpenError::Refused(error) => error.code.0.starts_with(b"57P") || error.code.0.starts_with(b"08"),
        OpenError::Tls(_) | OpenError::Login(_) => false,
    }
}

async fn follow(
    relay: &Shared,
    group: GroupId,
    cluster: &Cluster,
    number: usize,
    member: &Member,
    heard: &mut bool,
) -> Result<(), OpenError> {
    let (dial, interval, limit) = {
        let relay = relay.borrow();
        let pool = &relay.config.pool;
        (relay.dial(relay.groups[group].members[number]), pool.check_interval, pool.check_timeout)
    };
    let mut asker = Asker::connect(&dial, limit).await?;
    let mut before = Changed::default();
    loop {
        let defers = relay.borrow().defers_any(group);
        before = ask_settings(relay, cluster, number, &mut asker, before).await?;
        let question = member.ask();
        let place = asker.role().await?;
        *heard = true;
        let says = Says {
            standby: place.standby,
            lsn: place.lsn.unwrap_or(0),
            shown: place.shown.or(place.lsn).unwrap_or(0),
            timeline: place.timeline.unwrap_or(0),
        };
        cluster.heard(number, question, says);
        if place.standby && member.take_locks_wanted() {
            let asked_us = clock::now_us();
            member.holds_up(asker.waiting().await?, asked_us);
        }
        if !place.standby && defers {
            member.tell_read_committed(asker.is_read_committed().await?);
        }
        let next = Instant::now() + interval;
        while Instant::now() < next && !member.take_hurried() {
            if member.take_in_the_way() {
                return Ok(());
            }
            if !member.take_wanted() {
                // Its end is not to be found out with the next question: until then it might come back, further behind.
                tokio::select! {
                    _ = timeout_at(next, member.wake.notified()) => {}
                    () = asker.stirs() => break,
                }
            } else if place.standby {
                let question = member.ask();
                match asker.replayed().await? {
                    Some((lsn, shown)) => cluster.replay(number, question, lsn, shown),
                    None => break,
                }
                tokio::time::sleep(REPLICA_PAUSE).await;
            } else {
                let question = cluster.ask();
                if let Some(lsn) = asker.ask(WRITTEN).await? {
                    cluster.answer(number, question, lsn);
                }
                tokio::time::sleep(PRIMARY_PAUSE).await;
            }
        }
    }
}
