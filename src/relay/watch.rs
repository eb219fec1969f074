//! The tasks that ask a group's servers how far they have come.
//! Must never ask more often than somebody needs to know.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::floor::{IDLE_PAUSE, Lsn, PRIMARY_PAUSE, REPLICA_PAUSE};
use super::task::Shared;
use super::{GroupId, PoolId};
use crate::server::open::{Dial, OpenError};
use crate::server::position::{Asker, REPLAYED, WRITTEN};

/// Starts a task per server of the group; they end when the group is retired.
pub(super) fn start(relay: &Shared, group: GroupId) {
    let (primary, replicas) = relay.borrow().watched(group);
    tokio::task::spawn_local(primary_task(Rc::clone(relay), group, primary));
    for (number, pool) in replicas.into_iter().enumerate() {
        tokio::task::spawn_local(replica_task(Rc::clone(relay), group, number, pool));
    }
}

async fn primary_task(relay: Shared, group: GroupId, pool: PoolId) {
    let wanted = Rc::clone(&relay.borrow_mut().positions(group).wanted);
    while !relay.borrow().is_retired(group) {
        let dial = relay.borrow().dial(pool);
        let mut asker = match Asker::connect(&dial).await {
            Ok(asker) => asker,
            Err(error) => {
                tracing::debug!(server = %dial.endpoint, "cannot ask for the position of the primary: {error}");
                tokio::time::sleep(IDLE_PAUSE).await;
                continue;
            }
        };
        while !relay.borrow().is_retired(group) {
            // The pause in between looks whether the group still exists.
            if timeout(IDLE_PAUSE, wanted.notified()).await.is_err() {
                continue;
            }
            if std::mem::take(&mut relay.borrow_mut().positions(group).in_the_way) {
                // Who waits for an answer waits for the next.
                wanted.notify_one();
                break;
            }
            let number = relay.borrow_mut().positions(group).ask();
            match asker.ask(WRITTEN).await {
                Ok(Some(lsn)) => relay.borrow_mut().positions(group).answer(number, lsn),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(server = %dial.endpoint, "the primary does not tell its position: {error}");
                    // Who waits for the answer waits for the next.
                    wanted.notify_one();
                    break;
                }
            }
            tokio::time::sleep(PRIMARY_PAUSE).await;
        }
    }
    relay.borrow_mut().unwatch(group);
}

async fn replica_task(relay: Shared, group: GroupId, number: usize, pool: PoolId) {
    while !relay.borrow().is_retired(group) {
        if let Err(error) = follow(&relay, group, number, pool).await {
            let was_up = relay.borrow_mut().positions(group).is_up(number);
            relay.borrow_mut().positions(group).replay(number, None);
            if was_up {
                let dial = relay.borrow().dial(pool);
                tracing::warn!(server = %dial.endpoint, "reads go elsewhere: {error}");
            }
            tokio::time::sleep(IDLE_PAUSE).await;
        }
    }
    relay.borrow_mut().unwatch(group);
}

/// Asks one replica again and again until it does not answer.
async fn follow(relay: &Shared, group: GroupId, number: usize, pool: PoolId) -> Result<(), OpenError> {
    let dial = relay.borrow().dial(pool);
    let mut asker = Asker::connect(&dial).await?;
    while !relay.borrow().is_retired(group) {
        let lsn: Option<Lsn> = asker.ask(REPLAYED).await?;
        let (pause, stirred) = heard(relay, group, number, lsn, &dial);
        let _ = timeout(pause, stirred.notified()).await;
        if pause == IDLE_PAUSE {
            // Woken early: still no more often than the shorter pause.
            tokio::time::sleep(REPLICA_PAUSE).await;
        }
    }
    Ok(())
}

/// Takes a replica's answer down; how long the next question may wait, and what may end the wait.
fn heard(relay: &Shared, group: GroupId, number: usize, lsn: Option<Lsn>, dial: &Dial) -> (Duration, Rc<Notify>) {
    let mut relay = relay.borrow_mut();
    let positions = relay.positions(group);
    if lsn.is_none() && positions.is_up(number) {
        tracing::warn!(server = %dial.endpoint, "reads go elsewhere: the server is no standby any more");
    } else if lsn.is_some() && !positions.is_up(number) {
        tracing::info!(server = %dial.endpoint, "the replica takes reads");
    }
    positions.replay(number, lsn);
    let pause = if std::mem::take(&mut positions.behind) { REPLICA_PAUSE } else { IDLE_PAUSE };
    (pause, Rc::clone(&positions.stirred))
}
