//! Keeps alerts until they are sent, and tries again.
//! Must never keep more than a bounded queue of what could not be sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::board::Alert;
use super::way::{Home, Way};
use crate::meter::SharedCounter;

/// Messages that wait to be sent, at most: the oldest goes first.
pub(super) const QUEUE_MAX: usize = 64;
/// Before the second attempt, and at most between two.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// For how long a message is tried.
const TRIED_FOR: Duration = Duration::from_secs(600);

/// What became of messages to one receiver.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Accepted.
    pub sent: SharedCounter,
    /// Attempts that failed.
    pub failed: SharedCounter,
    /// Given up: refused, too old, or one too many.
    pub dropped: SharedCounter,
}

/// Why an attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It may go better next time.
    Later(String),
    /// It will not.
    Never(String),
}

/// What a receiver's task is sent.
pub(super) type Alarm = Arc<[Alert]>;

/// Sends what comes to the receiver called `name` until nobody can send any more.
pub(super) async fn run(name: String, way: Way, home: Home, outcome: Arc<Outcome>, mut alarms: mpsc::Receiver<Alarm>) {
    let kind = way.kind();
    let mut queue: VecDeque<(Instant, Alarm)> = VecDeque::new();
    let (mut pause, mut next) = (BACKOFF[0], Instant::now());
    // What was said of it last: the same is not said again.
    let mut told = String::new();
    loop {
        tokio::select! {
            alarm = alarms.recv() => {
                let Some(alarm) = alarm else { return };
                if queue.len() == QUEUE_MAX {
                    queue.pop_front();
                    outcome.dropped.add(1);
                }
                if queue.is_empty() {
                    next = next.max(Instant::now() + way.group_wait());
                }
                queue.push_back((Instant::now(), alarm));
            }
            () = sleep_until(next), if !queue.is_empty() => {
                // Who waits for more gets all of it at once.
                let count = if way.group_wait().is_zero() { 1 } else { queue.len() };
                let alerts: Vec<Alert> = queue.iter().take(count).flat_map(|(_, alarm)| alarm.iter().cloned()).collect();
                let attempt = timeout(way.timeout(), Box::pin(way.send(&alerts, &home))).await;
                let late = |_| Err(Failure::Later(format!("no answer within {} s", way.timeout().as_secs_f32())));
                let is_old = queue.front().is_some_and(|(came, _)| came.elapsed() > TRIED_FOR);
                match attempt.unwrap_or_else(late) {
                    Ok(()) => {
                        outcome.sent.add(1);
                        queue.drain(..count);
                        (pause, next) = (BACKOFF[0], Instant::now());
                        told.clear();
                    }
                    Err(Failure::Later(why)) if !is_old => {
                        outcome.failed.add(1);
                        if why != told {
                            tracing::warn!(kind, name, "alerts could not be sent, the next attempt is in {} s: {why}", pause.as_secs());
                            told = why;
                        }
                        next = Instant::now() + pause;
                        pause = (pause * 2).min(BACKOFF[1]);
                    }
                    Err(Failure::Later(why)) => {
                        outcome.failed.add(1);
                        let old = queue.iter().take_while(|(came, _)| came.elapsed() > TRIED_FOR).count();
                        give_up(&mut queue, old.min(count), &outcome);
                        tracing::error!(kind, name, "alerts were not sent: {why}");
                        next = Instant::now() + pause;
                    }
                    Err(Failure::Never(why)) => {
                        outcome.failed.add(1);
                        give_up(&mut queue, count, &outcome);
                        tracing::error!(kind, name, "alerts were not sent: {why}");
                    }
                }
            }
        }
    }
}

fn give_up(queue: &mut VecDeque<(Instant, Alarm)>, count: usize, outcome: &Outcome) {
    queue.drain(..count);
    outcome.dropped.add(count as u64);
}
