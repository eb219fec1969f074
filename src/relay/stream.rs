//! The task that follows the changes of a database, for all workers and users: it sets marks as commits come.
//! Must never say that all is known up to a time before it has set the marks of all that came before.
//!
//! Each group that keeps answers has a task, but of all tasks of a process only one follows a database at a time ([`Feed::turn`]): the others
//! wait until its group is gone, or its login is not good enough. Two connections to the primary: the stream ([`Replication`]) and one that
//! beats ([`super::stream_beat`]). Whatever goes wrong with one ends both; then nothing is known until others are there.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::stream_beat::Beats;
use super::task::Shared;
use super::{GroupId, Relay};
use crate::auth::ServerSecret;
use crate::base::clock;
use crate::cache::Feed;
use crate::cache::marks::Dependency;
use crate::cache::row::Identity;
use crate::cache::unseen::Unseen;
use crate::config::Logical;
use crate::meter::DatabaseHealth;
use crate::server::open::{Dial, OpenError, Parameters};
use crate::server::replication::Replication;
use crate::wire::frame::be_u32;
use crate::wire::pgoutput::{Change, Frame, Told, identity, keys};

/// What event triggers call their messages (`config/cache.sql`).
const SCHEMA: &[u8] = b"pgweir_ddl";
/// What heartbeats do.
pub(super) const BEAT: &str = "pgweir";

/// The stream is told so often how far it was read.
const CONFIRM: Duration = Duration::from_secs(1);
/// A stream that is silent so long is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);
/// How often in a row, before it is lost.
const SILENCES: u32 = 5;
/// How long a slot may take: it waits for all transactions that have begun.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Pauses after a failure: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// It is looked so often whether the stream is still what is wanted.
const LOOK: Duration = Duration::from_millis(100);
/// Keys of one transaction that are told apart.
const MOST_KEYS: usize = 4096;
/// Messages after which others have their turn.
const MESSAGES_PER_TURN: u32 = 256;

/// What both sides of a stream know.
pub(super) struct Known {
    pub feed: Arc<Feed>,
    pub health: Option<Arc<DatabaseHealth>>,
    /// Commits that no snapshot was seen to show.
    pub unseen: Unseen,
    /// Of these, changes of the schema.
    pub schema: Vec<(u32, u64)>,
    /// The heartbeat that came back last, and where its commit ends.
    pub back: (u64, u64),
    /// How far the stream was read.
    read: u64,
    /// By what it tells the rows of relations.
    told: HashMap<u32, Rows>,
}

/// By what the stream tells the rows of a relation.
struct Rows {
    /// Columns with their types.
    columns: Vec<(Box<[u8]>, u32)>,
    /// Their places.
    at: Vec<u16>,
    /// The same in the catalog, if it is the same, by this version of what is known of that.
    known: (u64, Option<Identity>),
}

/// A transaction on its way.
#[derive(Default)]
struct Transaction {
    xid: u32,
    relations: BTreeSet<u32>,
    /// Rows by their keys, and relations of whose changed rows the keys are not known, or are too many.
    keys: BTreeSet<(u32, u64)>,
    unknown: BTreeSet<u32>,
    schema: bool,
    beat: Option<u64>,
}

/// Nothing is known any more when it is gone.
struct Flowing<'a>(&'a Feed, Option<&'a DatabaseHealth>);

impl Drop for Flowing<'_> {
    fn drop(&mut self) {
        self.0.ends();
        self.1.into_iter().for_each(|health| health.stream.flows.store(false, Relaxed));
    }
}

/// What a task needs to follow a database.
pub(super) struct Course {
    pub settings: Logical,
    /// The primary's number in its cluster.
    number: usize,
    stream: Dial,
    beats: Dial,
    /// For answers.
    pub limit: Duration,
    /// How often what triggers do not tell is looked at.
    pub refresh: Duration,
}

/// Starts the task of this group; it ends when the group is retired, or keeps no answers any more.
pub(super) fn start(relay: &Shared, group: GroupId) {
    let (feed, ended) = {
        let relay = relay.borrow();
        let group = &relay.groups[group];
        (group.feed.clone(), Rc::clone(&group.ended_bell))
    };
    let relay = Rc::clone(relay);
    tokio::task::spawn_local(async move {
        if let Some(feed) = feed {
            tokio::select! {
                () = ended.notified() => {}
                () = Box::pin(follow(&relay, group, &feed)) => {}
            }
        }
        relay.borrow_mut().unwatch(group);
    });
}

/// Follows as long as the group wants it.
async fn follow(relay: &Shared, group: GroupId, feed: &Arc<Feed>) {
    let (mut pause, mut told) = (RETRY.0, String::new());
    let health = {
        let relay = relay.borrow();
        relay.registry.database(&relay.groups[group].database)
    };
    while relay.borrow().follows_feed(group, feed) {
        let turn = feed.turn.lock().await;
        let course = relay.borrow().course_of_stream(group);
        let began = Instant::now();
        if let Some(course) = course {
            health.iter().for_each(|health| health.stream.wanted.store(true, Relaxed));
            let outcome = flow(relay, group, (feed, health.as_ref()), &course).await;
            let Err(error) = outcome;
            let database = &relay.borrow().groups[group].database;
            let error = error.to_string();
            if began.elapsed() > RETRY.1 {
                pause = RETRY.0;
                told.clear();
            }
            if error != told {
                tracing::warn!(database, server = %course.beats.endpoint, "the stream of changes is interrupted: {error}");
                told = error;
            }
        }
        if !relay.borrow().follows_feed(group, feed) {
            health.iter().for_each(|health| health.stream.wanted.store(false, Relaxed));
            return;
        }
        drop(turn);
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Follows until something goes wrong.
async fn flow(
    relay: &Shared,
    group: GroupId,
    (feed, health): (&Arc<Feed>, Option<&Arc<DatabaseHealth>>),
    course: &Course,
) -> Result<Infallible, OpenError> {
    let nonce = RandomState::new().build_hasher().finish();
    // Before the slot: what is in the publication now is in it for all that comes.
    let mut beats = Beats::begin(&course.beats, course, feed, nonce).await?;
    let slot = format!("pgweir_{}_{nonce:016x}", std::process::id());
    let publication = &course.settings.publication;
    let (mut stream, origin) = tokio::select! {
        started = Replication::start(&course.stream, &slot, publication, course.limit, PATIENCE) => started?,
        error = off_course(relay, group, feed, course) => return Err(error),
    };
    beats.close_gate().await?;
    let _flowing = Flowing(feed, health.map(|health| &**health));
    let history = origin.system ^ u64::from(origin.timeline).rotate_right(8);
    feed.begins(history.max(1), origin.timeline, origin.since, clock::now_us());
    if let Some(health) = health {
        health.stream.begins.add(1);
        health.stream.flows.store(true, Relaxed);
    }
    let known = Known {
        feed: Arc::clone(feed),
        health: health.cloned(),
        unseen: Unseen::default(),
        schema: Vec::new(),
        back: (0, 0),
        read: origin.since,
        told: HashMap::new(),
    };
    let (known, came) = (RefCell::new(known), Notify::new());
    tokio::select! {
        outcome = read(&known, &mut stream, nonce, &came) => outcome,
        outcome = beats.go_on(&known, &came) => outcome,
        error = off_course(relay, group, feed, course) => Err(error),
    }
}

/// Waits until the stream is to begin anew, or is not wanted any more.
async fn off_course(relay: &Shared, group: GroupId, feed: &Arc<Feed>, course: &Course) -> OpenError {
    while relay.borrow().stays_on_course(group, feed, course) {
        sleep(LOOK).await;
    }
    OpenError::Login("the configuration, or the primary, is another".into())
}

/// Reads the stream.
async fn read(
    known: &RefCell<Known>,
    stream: &mut Replication,
    nonce: u64,
    came: &Notify,
) -> Result<Infallible, OpenError> {
    let mut transaction = Transaction::default();
    let (mut silences, mut confirmed, mut messages) = (0, Instant::now(), 0u32);
    loop {
        let (asked, asks) = match timeout(SILENCE, stream.next()).await {
            Ok(frame) => {
                silences = 0;
                (known.borrow_mut().take(frame?, &mut transaction, nonce, came), false)
            }
            Err(_) if silences == SILENCES => return Err(OpenError::Timeout(SILENCE * SILENCES)),
            Err(_) => {
                silences += 1;
                (true, true)
            }
        };
        if asked || confirmed.elapsed() > CONFIRM {
            confirmed = Instant::now();
            let lsn = known.borrow().read;
            stream.confirm(lsn, asks).await?;
        }
        messages = messages.wrapping_add(1);
        if messages.is_multiple_of(MESSAGES_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

impl Known {
    /// What the stream says. True if it wants an answer.
    fn take(&mut self, frame: Frame<'_>, transaction: &mut Transaction, nonce: u64, came: &Notify) -> bool {
        match frame {
            Frame::Alive { sent, asks } => {
                self.read = self.read.max(sent);
                return asks;
            }
            Frame::Data(Change::Begin { xid }) => *transaction = Transaction { xid, ..Transaction::default() },
            Frame::Data(Change::Relation { oid, columns }) => self.is_like(oid, columns),
            Frame::Data(Change::Row { oid, values }) => {
                transaction.relations.insert(oid);
                if !self.keys(oid, values, transaction) {
                    transaction.unknown.insert(oid);
                }
                self.health.iter().for_each(|health| health.stream.rows.add(1));
            }
            Frame::Data(Change::Truncate(oids)) => {
                transaction.relations.extend(oids.chunks_exact(4).filter_map(be_u32));
                transaction.unknown.extend(oids.chunks_exact(4).filter_map(be_u32));
                self.health.iter().for_each(|health| health.stream.truncates.add(1));
            }
            Frame::Data(Change::Message { transactional: true, prefix: SCHEMA, .. }) => transaction.schema = true,
            Frame::Data(Change::Message { transactional: true, prefix, content }) if prefix == BEAT.as_bytes() => {
                transaction.beat = number_of_beat(content, nonce).or(transaction.beat);
            }
            Frame::Data(Change::Message { .. } | Change::Other) => {}
            Frame::Data(Change::Commit { end }) => self.commit(&std::mem::take(transaction), end, came),
        }
        false
    }

    /// The stream says by what it tells the rows of a relation.
    fn is_like(&mut self, oid: u32, columns: &[u8]) {
        let told = identity(columns).unwrap_or_default();
        let at = told.iter().map(|told| told.at).collect();
        let columns = told.iter().map(|told| (Box::from(told.name), told.kind)).collect();
        self.told.insert(oid, Rows { columns, at, known: (0, None) });
    }

    /// Notes the keys that a row had and has. False if they are not certain.
    fn keys(&mut self, oid: u32, values: &[u8], transaction: &mut Transaction) -> bool {
        let Some(rows) = self.told.get_mut(&oid) else { return false };
        // The number of none is 0.
        let version = self.feed.version();
        if rows.known.0 != version {
            let told = rows.columns.iter().zip(&rows.at);
            let told: Vec<Told<'_>> = told.map(|((name, kind), at)| Told { at: *at, name, kind: *kind }).collect();
            let tables = self.feed.tables().map(|(tables, _)| tables);
            let table = tables.as_ref().and_then(|tables| tables.get(&oid));
            let same = table.and_then(|table| table.identity.clone()).filter(|identity| identity.is_as(&told));
            rows.known = (version, same);
        }
        let (Some(identity), at) = (&rows.known.1, &rows.at) else { return false };
        let mut is_certain = transaction.keys.len() < MOST_KEYS;
        let all = keys(values, at, |values| match identity.key_told(&values).filter(|_| is_certain) {
            Some(key) => drop(transaction.keys.insert((oid, key))),
            None => is_certain = false,
        });
        all && is_certain
    }

    fn commit(&mut self, transaction: &Transaction, end: u64, came: &Notify) {
        for oid in &transaction.relations {
            self.feed.changed(Dependency::Relation(*oid), end);
        }
        transaction.unknown.iter().for_each(|oid| self.feed.changed(Dependency::Rows(*oid), end));
        transaction.keys.iter().for_each(|(oid, key)| self.feed.changed(Dependency::Row(*oid, *key), end));
        if transaction.schema {
            self.feed.changed(Dependency::Schema, end);
            self.schema.push((transaction.xid, end));
        }
        if transaction.schema || !transaction.relations.is_empty() {
            self.unseen.add(transaction.xid, end);
        }
        self.read = self.read.max(end);
        if let Some(beat) = transaction.beat {
            self.back = (beat, end);
            came.notify_one();
        }
    }
}

/// The number of a heartbeat of this stream's.
fn number_of_beat(content: &[u8], nonce: u64) -> Option<u64> {
    let (whose, number) = std::str::from_utf8(content).ok()?.split_once(' ')?;
    (u64::from_str_radix(whose, 16) == Ok(nonce)).then(|| number.parse().ok()).flatten()
}

impl Relay {
    /// The group still keeps answers that hang on this.
    fn follows_feed(&self, group: GroupId, feed: &Arc<Feed>) -> bool {
        let group = &self.groups[group];
        !group.retired && group.feed.as_ref().is_some_and(|known| Arc::ptr_eq(known, feed))
    }

    /// Everything is as it was when the stream began.
    fn stays_on_course(&self, group: GroupId, feed: &Arc<Feed>, course: &Course) -> bool {
        let this = &self.groups[group];
        self.follows_feed(group, feed)
            && this.cluster.primary() == Some(course.number)
            && self.config.logical(&this.database).as_ref() == Some(&course.settings)
    }

    /// How the changes of the group's database are followed, if there is a primary.
    fn course_of_stream(&self, group: GroupId) -> Option<Course> {
        let this = &self.groups[group];
        let settings = self.config.logical(&this.database)?;
        let number = this.cluster.primary()?;
        let dial = &self.pools[*this.members.get(number)?].dial;
        let entry = self.config.databases.get(&this.database)?;
        let made = |startup: &[(&str, &str)]| {
            let startup: Parameters =
                startup.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
            match &settings.login {
                Some((user, password)) => {
                    let (secret, tls) = (ServerSecret::of(password.clone()), dial.tls.borrow().clone());
                    Dial { startup, ..Dial::new(&self.config, entry, &dial.endpoint, user, secret, tls) }
                }
                None => dial.with_startup(startup),
            }
        };
        Some(Course {
            number,
            stream: made(&[("replication", "database"), ("application_name", "pgweir cache")]),
            beats: made(&super::stream_beat::STARTUP),
            limit: self.config.pool.check_timeout.max(Duration::from_secs(1)),
            refresh: self.config.pool.catalog_refresh.unwrap_or(Duration::MAX),
            settings,
        })
    }

    /// A new configuration: the group's answers may hang on nothing any more.
    pub(super) fn forget_feed(&mut self, group: GroupId) {
        let this = &self.groups[group];
        let known = self.cache.as_ref().map(|store| store.feed(&this.database));
        let is_known = this.feed.iter().all(|feed| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, feed)));
        if !is_known || self.config.logical(&this.database).is_none() {
            self.groups[group].feed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let feed = Arc::new(Feed::new("shop", Arc::default()));
        feed.begins(7, 1, 100, 1);
        let (unseen, schema) = Default::default();
        Known { feed, health: None, unseen, schema, back: (0, 0), read: 100, told: HashMap::new() }
    }

    #[test]
    fn marks_are_set_as_commits_come() {
        let (mut known, came, mut transaction) = (known(), Notify::new(), Transaction::default());
        let mut take = |known: &mut Known, change| known.take(Frame::Data(change), &mut transaction, 0xab, &came);
        let item = known.feed.trace(&[16384], Some(110));
        let other = known.feed.trace(&[16400], Some(110));
        let holds = |known: &Known, traced: &Option<_>| traced.as_ref().is_some_and(|it| known.feed.holds(it, 5));
        take(&mut known, Change::Begin { xid: 11 });
        take(&mut known, Change::Row { oid: 16384, values: b"" });
        assert!(holds(&known, &item), "it has not committed");
        take(&mut known, Change::Commit { end: 120 });
        assert!(!holds(&known, &item) && holds(&known, &other) && known.unseen.len() == 1);
        take(&mut known, Change::Begin { xid: 12 });
        take(&mut known, Change::Truncate(b"\0\0\x40\x10\0\0\x40\x11"));
        take(&mut known, Change::Commit { end: 130 });
        assert!(!holds(&known, &other));
        // Neither another's heartbeat, nor what others write.
        for content in [&b"ac 5"[..], b"ab x", b"ab", b""] {
            take(&mut known, Change::Begin { xid: 13 });
            take(&mut known, Change::Message { transactional: true, prefix: b"pgweir", content });
            take(&mut known, Change::Commit { end: 140 });
            assert_eq!((known.back.0, known.unseen.len()), (0, 2));
        }
        take(&mut known, Change::Begin { xid: 14 });
        take(&mut known, Change::Message { transactional: true, prefix: b"pgweir", content: b"ab 5" });
        take(&mut known, Change::Commit { end: 150 });
        assert_eq!((known.back, known.read), ((5, 150), 150));
        let untouched = known.feed.trace(&[], Some(160));
        take(&mut known, Change::Begin { xid: 15 });
        take(&mut known, Change::Message { transactional: true, prefix: b"pgweir_ddl", content: b"" });
        take(&mut known, Change::Commit { end: 170 });
        assert!(!holds(&known, &untouched) && known.schema == [(15, 170)]);
    }
}
