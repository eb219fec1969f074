//! The task that hears what applications say of answers, by NOTIFY in their database, for all workers and users.
//! Must never let an answer count of which it may not have heard what was said.
//!
//! Each group that keeps answers has a task, but of all tasks of a process only one listens in a database at a time ([`Hearing::turn`]): the
//! others wait until its group is gone, or its login is not good enough. It listens on the primary, with a connection of its own, and while it
//! does not, nothing that is kept of the database counts; nor does, afterwards, what was kept before. A connection that is lost without a word is
//! noticed after [`SILENCE`], [`SILENCES`] times: so long, signals may stay unheard.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::listen::quoted;
use super::task::Shared;
use super::{GroupId, Relay};
use crate::base::clock;
use crate::cache::{Hearing, Signal};
use crate::server::open::{Dial, OpenError};
use crate::server::stream::Stream;
use crate::wire::error::ServerError;
use crate::wire::frame::cstr;
use crate::wire::{build, tag};

/// A connection that is silent so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(1);
/// How often in a row, before it is lost.
const SILENCES: u32 = 5;
/// Pauses after a failure: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// It is looked so often whether the connection is still what is wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Between two lines in the log about what nobody understands, microseconds.
const QUIET_US: u64 = 60_000_000;

/// Settings of the connection.
const STARTUP: [(&str, &str); 3] =
    [("idle_session_timeout", "0"), ("client_encoding", "UTF8"), ("application_name", "pgweir cache signals")];

/// Where is listened, and to what.
struct Course {
    /// The primary's number in its cluster.
    number: usize,
    dial: Dial,
    channel: String,
    /// For the login and the first answers.
    limit: Duration,
}

/// Nothing is heard any more when it is gone.
struct Open<'a>(&'a Hearing);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// Starts the task of this group; it ends when the group is retired, or keeps no answers any more.
pub(super) fn start(relay: &Shared, group: GroupId) {
    let (hearing, ended) = {
        let relay = relay.borrow();
        let group = &relay.groups[group];
        (group.hearing.clone(), Rc::clone(&group.ended_bell))
    };
    let relay = Rc::clone(relay);
    tokio::task::spawn_local(async move {
        if let Some(hearing) = hearing {
            tokio::select! {
                () = ended.notified() => {}
                () = Box::pin(follow(&relay, group, &hearing)) => {}
            }
        }
        relay.borrow_mut().unwatch(group);
    });
}

/// Listens as long as the group wants it.
async fn follow(relay: &Shared, group: GroupId, hearing: &Arc<Hearing>) {
    let (mut pause, mut told) = (RETRY.0, String::new());
    while relay.borrow().wants_hearing(group, hearing) {
        let turn = hearing.turn.lock().await;
        let course = relay.borrow().course_of_hearing(group);
        if let Some(course) = course {
            let began = Instant::now();
            let Err(error) = tokio::select! {
                outcome = listen(relay, group, hearing, &course) => outcome,
                error = off_course(relay, group, hearing, &course) => Err(error),
            };
            if began.elapsed() > RETRY.1 {
                pause = RETRY.0;
                told.clear();
            }
            let (database, error) = (relay.borrow().groups[group].database.clone(), error.to_string());
            if error != told && relay.borrow().wants_hearing(group, hearing) {
                let server = &course.dial.endpoint;
                tracing::warn!(database, %server, "nothing kept counts: {} is not listened to: {error}", course.channel);
                told = error;
            }
        }
        drop(turn);
        if !relay.borrow().wants_hearing(group, hearing) {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Waits until it is to be listened elsewhere, or not at all.
async fn off_course(relay: &Shared, group: GroupId, hearing: &Arc<Hearing>, course: &Course) -> OpenError {
    while relay.borrow().keeps_hearing(group, hearing, course) {
        sleep(LOOK).await;
    }
    OpenError::Login("the configuration, or the primary, is another".into())
}

/// Listens until something goes wrong.
async fn listen(relay: &Shared, group: GroupId, hearing: &Hearing, course: &Course) -> Result<Infallible, OpenError> {
    let opened = timeout(course.limit, course.dial.open()).await;
    let mut stream = Stream::new(opened.unwrap_or(Err(OpenError::Timeout(course.limit)))?.socket);
    let mut query = Vec::new();
    build::query(&mut query, &[b"LISTEN ", &*quoted(course.channel.as_bytes())].concat());
    stream.send(&query).await?;
    query.clear();
    build::query(&mut query, b"");
    let (mut open, mut silences, mut told_us) = (None, 0, 0);
    loop {
        match timeout(SILENCE, stream.next()).await {
            Ok(message) => {
                let message = message?;
                silences = 0;
                match message.tag {
                    tag::server::NOTIFICATION => {
                        relay.borrow().is_told(group, &message.body, &course.channel, &mut told_us);
                    }
                    tag::server::ERROR => return Err(OpenError::Refused(ServerError::parse(&message.body))),
                    tag::server::READY if open.is_none() => {
                        hearing.begins(clock::now_us());
                        open = Some(Open(hearing));
                    }
                    _ => {}
                }
            }
            Err(_) if silences == SILENCES => return Err(OpenError::Timeout(SILENCE * SILENCES)),
            Err(_) => {
                silences += 1;
                if open.is_some() {
                    stream.send(&query).await?;
                }
            }
        }
    }
}

/// What a notification on this channel says; `None` if it is on another.
fn payload<'a>(body: &'a [u8], channel: &str) -> Option<&'a [u8]> {
    let (name, rest) = cstr(body.get(4..)?)?;
    let (payload, _) = cstr(rest)?;
    (name == channel.as_bytes()).then_some(payload)
}

impl Relay {
    /// The group still keeps answers that hang on this.
    fn wants_hearing(&self, group: GroupId, hearing: &Arc<Hearing>) -> bool {
        let group = &self.groups[group];
        !group.retired && group.hearing.as_ref().is_some_and(|known| Arc::ptr_eq(known, hearing))
    }

    /// Everything is as it was when the connection was opened.
    fn keeps_hearing(&self, group: GroupId, hearing: &Arc<Hearing>, course: &Course) -> bool {
        self.wants_hearing(group, hearing)
            && self.groups[group].cluster.primary() == Some(course.number)
            && self.config.cache.signals.as_ref() == Some(&course.channel)
    }

    /// Where to listen, if there is a primary.
    fn course_of_hearing(&self, group: GroupId) -> Option<Course> {
        let this = &self.groups[group];
        let (channel, number) = (self.config.cache.signals.clone()?, this.cluster.primary()?);
        let startup = STARTUP.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let dial = self.pools[*this.members.get(number)?].dial.with_startup(startup.into());
        let limit = self.config.pool.check_timeout.max(Duration::from_secs(1));
        Some(Course { number, dial, channel, limit })
    }

    /// A notification has come; `told_us`: when one was last complained of, microseconds.
    fn is_told(&self, group: GroupId, body: &[u8], channel: &str, told_us: &mut u64) {
        let (Some(payload), Some(store)) = (payload(body, channel), &self.cache) else { return };
        let (database, numbers) = (&self.groups[group].database, &self.registry.signals);
        numbers.notify.add(1);
        let signal = Signal::of_json(payload).unwrap_or_else(|unclear| {
            numbers.garbled.add(1);
            let now_us = clock::now_us();
            if *told_us == 0 || now_us.saturating_sub(*told_us) > QUIET_US {
                *told_us = now_us.max(1);
                tracing::warn!(
                    database,
                    channel,
                    "a signal is not understood, so nothing kept of the database counts: {unclear}"
                );
            }
            Signal::all(None)
        });
        store.signals().heard(&signal, database);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_channel_is_read() {
        let body = b"\0\0\0\x07cache\0{\"all\":true}\0";
        assert_eq!(payload(body, "cache"), Some(&b"{\"all\":true}"[..]));
        assert_eq!(payload(body, "cach"), None);
        for bad in [&b""[..], b"\0\0\0\x07", b"\0\0\0\x07cache", b"\0\0\0\x07cache\0{"] {
            assert_eq!(payload(bad, "cache"), None);
        }
    }
}
