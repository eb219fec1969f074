//! The task that keeps the fence around a database, for all workers and users: one connection to Redis, one to the primary.
//! Must never let anything be given of which it is not certain that nobody writes past it.
//!
//! Each group that is fenced has a task, but of all tasks of a process only one keeps a database's fence at a time ([`Fence::turn`]). Every [`BEAT`] it enters
//! in Redis what the process has under way, and then asks the primary for the locks of all processes; what follows from that is in [`crate::cache::fence`].

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::GroupId;
use super::fence_course::Course;
use super::fence_orphans::Orphans;
use super::fence_run::WRITE;
use super::task::Shared;
use crate::base::clock;
use crate::cache::Fence;
use crate::cache::fence::{STEP_ASIDE, Session};
use crate::cache::remote::fence as redis;
use crate::cache::remote::link::{Link, Plan};
use crate::server::open::OpenError;
use crate::server::talk::Talk;
use crate::sql::code_graph::rows;

/// Between two looks.
const BEAT: Duration = Duration::from_millis(150);
/// Pauses after a failure: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// It is looked so often whether the fence is still what is wanted.
const LOOK: Duration = Duration::from_millis(100);
/// How long Redis may not be reached before that is said; half as long if somebody waits for it.
const DOWN: Duration = Duration::from_millis(500);
/// Connecting to Redis, with TLS and logging in.
const CONNECT: Duration = Duration::from_secs(5);
/// First numbers of advisory locks: who is there, and who writes without a fence. The second number is the process.
const PRESENT: u32 = 0x7067_7765;
const OPEN: u32 = 0x7067_7766;
/// That of the locks that tell where somebody has counts: the second number is of the hash in Redis, and all share it who are there.
const COUNTS: u32 = 0x7067_7767;

/// Another one for each session of the process.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// Nothing is known any more when it is gone.
struct Kept<'a>(&'a Fence);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.clear(0);
        self.0.opens(0);
        self.0.ends();
    }
}

/// Starts the task of this group; it ends when the group is retired, or is fenced no more.
pub(super) fn start(relay: &Shared, group: GroupId) {
    let (fence, ended) = {
        let relay = relay.borrow();
        let group = &relay.groups[group];
        (group.fence.clone(), Rc::clone(&group.ended_bell))
    };
    let relay = Rc::clone(relay);
    tokio::task::spawn_local(async move {
        if let Some(fence) = fence {
            tokio::select! {
                () = ended.notified() => {}
                () = Box::pin(follow(&relay, group, &fence)) => {}
            }
        }
        relay.borrow_mut().unwatch(group);
    });
}

/// Keeps it as long as the group wants it.
async fn follow(relay: &Shared, group: GroupId, fence: &Arc<Fence>) {
    let (mut pause, mut told) = (RETRY.0, String::new());
    while relay.borrow().wants_fence(group, fence) {
        let turn = fence.turn.lock().await;
        let course = relay.borrow().course_of_fence(group);
        if let Some(course) = course {
            let began = Instant::now();
            let Err(error) = tokio::select! {
                outcome = keep(relay, group, fence, &course) => outcome,
                error = off_course(relay, group, fence, &course) => Err(error),
            };
            if began.elapsed() > RETRY.1 {
                pause = RETRY.0;
                told.clear();
            }
            let (database, error) = (relay.borrow().groups[group].database.clone(), error.to_string());
            if error != told && relay.borrow().wants_fence(group, fence) {
                let server = &course.dial.endpoint;
                tracing::warn!(database, %server, "nothing kept counts: writes cannot be fenced: {error}");
                told = error;
            }
        }
        drop(turn);
        if !relay.borrow().wants_fence(group, fence) {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Waits until it is to be kept elsewhere, or not at all.
async fn off_course(relay: &Shared, group: GroupId, fence: &Arc<Fence>, course: &Course) -> OpenError {
    while relay.borrow().keeps_fence(group, fence, course) {
        sleep(LOOK).await;
    }
    OpenError::Login("the configuration, or the primary, is another".into())
}

async fn keep(relay: &Shared, group: GroupId, fence: &Arc<Fence>, course: &Course) -> Result<Infallible, OpenError> {
    let mut talk = Talk::connect(&course.dial, course.limit).await?;
    let process = (RandomState::new().build_hasher().finish() >> 33) as u32;
    let who = talk
        .rows(&format!(
            "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), \
             pg_is_in_recovery(), pg_advisory_lock({PRESENT}, {process}) FROM pg_control_system()"
        ))
        .await?;
    let [cluster, database, standby, ..] = rows(&who).next().unwrap_or_default();
    if standby != b"f" || database.is_empty() {
        return Err(OpenError::Login("the server is not a primary, or does not say which".into()));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let _kept = Kept(fence);
    let now = Instant::now();
    let mut keeper = Keeper {
        fence,
        course,
        talk,
        process,
        place: (text(cluster), text(database)),
        link: None,
        connecting: None,
        beats: None,
        here: None,
        agreed: false,
        down: Some(now),
        opened: None,
        looked: now,
        present: None,
        open: BTreeSet::new(),
        // Of who had gone before we came nobody tells.
        unsettled: Some(Orphans::of(0, Vec::new())),
        orphans: Vec::new(),
        told: String::new(),
    };
    loop {
        let began = Instant::now();
        keeper.enter(|| relay.borrow().schema_is_another(group)).await?;
        keeper.look().await?;
        keeper.look_after_orphans().await?;
        let pause = if keeper.link.is_none() && keeper.down.is_some_and(|since| since.elapsed() < STEP_ASIDE) {
            LOOK / 10
        } else {
            BEAT.saturating_sub(began.elapsed())
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = fence.bell.notified() => sleep(LOOK / 5).await,
        }
    }
}

/// What the task knows.
pub(super) struct Keeper<'a> {
    pub fence: &'a Arc<Fence>,
    course: &'a Course,
    pub talk: Talk,
    pub process: u32,
    /// The cluster and the database.
    place: (String, String),
    /// To Redis, and the name of the hash there.
    link: Option<(Link, String)>,
    connecting: Option<JoinHandle<::redis::RedisResult<(Link, String)>>>,
    /// In which life Redis has counted how many of ours.
    beats: Option<(String, u64)>,
    /// The number of the hash that others are told of, and since when.
    here: Option<(u32, Instant)>,
    /// Since then the locks were asked for, and show nobody who counts elsewhere.
    agreed: bool,
    /// There is no session since.
    down: Option<Instant>,
    /// The lock of who writes without a fence is ours since.
    opened: Option<Instant>,
    /// When locks were asked for last.
    looked: Instant,
    /// In which session, and who was there then.
    pub present: Option<(u64, BTreeSet<u32>)>,
    /// Who was seen to write without a fence, or might have.
    open: BTreeSet<u32>,
    /// Somebody may have written so and then gone.
    unsettled: Option<Orphans>,
    pub orphans: Vec<Orphans>,
    told: String,
}

impl Keeper<'_> {
    /// Enters the process in Redis. `changed`: what is known of the schema may be old.
    async fn enter(&mut self, changed: impl Fn()) -> Result<(), OpenError> {
        self.connect().await;
        let Some((link, hash)) = self.link.clone() else { return Ok(()) };
        if self.may_count(&hash).await? {
            self.enter_there(link, hash, changed).await;
        }
        Ok(())
    }

    /// Tells all that this process has its counts in this hash. Whether they can know by now.
    async fn may_count(&mut self, hash: &str) -> Result<bool, OpenError> {
        let number = xxh3_64(hash.as_bytes()) as u32;
        let since = match self.here {
            Some((known, since)) if known == number => since,
            before => {
                // Nothing is counted where it was before.
                self.fence.ends();
                let gives_up =
                    before.map(|(known, _)| format!("pg_advisory_unlock_shared({COUNTS}, {}), ", known.cast_signed()));
                let takes = format!("pg_advisory_lock_shared({COUNTS}, {})", number.cast_signed());
                self.talk.rows(&format!("SELECT {}{takes}", gives_up.unwrap_or_default())).await?;
                let now = Instant::now();
                (self.here, self.agreed) = (Some((number, now)), false);
                now
            }
        };
        Ok(self.fence.session().is_some() || self.agreed || since.elapsed() > STEP_ASIDE)
    }

    async fn enter_there(&mut self, mut link: Link, hash: String, changed: impl Fn()) {
        let life = format!("{:016x}", RandomState::new().build_hasher().finish());
        let limit = WRITE.max(self.course.redis.timeout);
        let all = self.fence.all();
        let entered = match timeout(limit, redis::enter(&mut link, &hash, &life, self.process, &all)).await {
            Ok(Ok(entered)) => entered,
            Ok(Err(error)) => return self.falls(&format!("Redis refuses: {error}")),
            Err(_) => return self.falls("Redis does not answer in time"),
        };
        let same_life = self.beats.as_ref().filter(|(life, _)| *life == entered.life);
        if same_life.is_some_and(|(_, before)| entered.beats <= *before) {
            let _ = timeout(limit, redis::throw_away(&mut link, &hash)).await;
            return self.falls("Redis has gone back in time: counts are thrown away");
        }
        self.beats = Some((entered.life.clone(), entered.beats));
        let session = self.fence.session().filter(|session| session.hash == hash && session.life == entered.life);
        let Some(session) = session else {
            self.fence.ends();
            let number = SESSIONS.fetch_add(1, Ordering::Relaxed) + 1;
            let (life, limit) = (entered.life, self.course.redis.timeout);
            let (since_us, process, link) = (clock::now_us(), self.process, Some(link));
            let session = Session { number, since_us, hash, life, process, link, limit };
            // Nobody has told of what was changed before.
            changed();
            self.fence.sees_schema(entered.schema, changed);
            self.fence.enters(session, entered.beats);
            (self.down, self.present) = (None, None);
            return;
        };
        self.down = None;
        self.fence.beat(entered.beats);
        let members: BTreeSet<u32> = entered.all.iter().copied().collect();
        if let Some((number, present)) = &self.present
            && *number == session.number
        {
            if present.is_subset(&members) {
                self.fence.is_good(session.number);
            }
            let gone = members.iter().filter(|process| !present.contains(process) && **process != self.process);
            for process in gone {
                if !self.orphans.iter().any(|orphans| orphans.process == *process) {
                    self.orphans.push(Orphans::of(*process, Vec::new()));
                }
            }
        }
        self.fence.sees_schema(entered.schema, changed);
    }

    /// Connects to Redis beside the rest: that may take long.
    async fn connect(&mut self) {
        if self.link.is_some() {
            return;
        }
        if self.connecting.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(done) = self.connecting.take()
        {
            match done.await {
                Ok(Ok((link, run))) => {
                    let hash = redis::hash(&self.course.redis, &self.place.0, &self.place.1, &run);
                    self.link = Some((link, hash));
                }
                Ok(Err(error)) => self.falls(&format!("Redis cannot be reached: {error}")),
                Err(_) => {}
            }
        }
        if self.link.is_none() && self.connecting.is_none() {
            let config = self.course.redis.clone();
            self.connecting = Some(tokio::task::spawn_local(async move {
                let connects = async {
                    let mut link = Plan::new(&config)?.connect().await?;
                    let run = redis::run(&mut link).await?;
                    Ok((link, run))
                };
                let late = |_| Err((::redis::ErrorKind::Io, "no answer in time").into());
                timeout(CONNECT, connects).await.unwrap_or_else(late)
            }));
        }
    }

    fn falls(&mut self, why: &str) {
        self.link = None;
        self.fence.ends();
        self.down.get_or_insert_with(Instant::now);
        if why != self.told {
            tracing::warn!("writes are not fenced for a while, and nothing kept is given: {why}");
            self.told = why.to_owned();
        }
    }

    /// Asks the primary for the locks.
    async fn look(&mut self) -> Result<(), OpenError> {
        self.open_or_close().await?;
        // Who has taken a lock since the last look does not write without a fence before that time has passed.
        let is_late = self.looked.elapsed() > STEP_ASIDE;
        let (asked, asked_us) = (Instant::now(), clock::now_us());
        let session = self.fence.session().map(|session| session.number);
        let locks = self
            .talk
            .rows(&format!(
                "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND classid IN ({PRESENT}, {OPEN}, {COUNTS}) AND objsubid = 2 \
                 AND granted AND database = {}",
                self.place.1
            ))
            .await?;
        self.looked = asked;
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u32>().ok());
        let locks: Vec<(u32, u32)> =
            rows(&locks).filter_map(|[class, object, ..]| Some((number(class)?, number(object)?))).collect();
        let of = |kind: u32| locks.iter().filter(move |(class, _)| *class == kind).map(|(_, process)| *process);
        let present: BTreeSet<u32> = of(PRESENT).collect();
        if !present.contains(&self.process) {
            return Err(OpenError::Login("the connection has lost its lock".into()));
        }
        let open: BTreeSet<u32> = of(OPEN).collect();
        // Who lets go has entered what he has under way; who has gone has not.
        if is_late || !self.open.is_subset(&present) {
            self.unsettled = Some(Orphans::of(0, Vec::new()));
        }
        self.present = session.map(|session| (session, present));
        // Who counts elsewhere does not say there what we would have to know here.
        let elsewhere = of(COUNTS).any(|hash| self.here.is_none_or(|(here, _)| here != hash));
        self.agreed = !elsewhere;
        let was_open = !self.open.is_empty() || self.unsettled.is_some();
        self.open = open;
        if !self.open.is_empty() || elsewhere {
            self.fence.clear(0);
            return Ok(());
        }
        if was_open {
            self.fence.clear(0);
            if let Some(unsettled) = &mut self.unsettled
                && !unsettled.are_over(&mut self.talk).await?
            {
                return Ok(());
            }
            self.unsettled = None;
            // Nothing that was stamped before counts: another session begins.
            self.fence.ends();
            return Ok(());
        }
        self.fence.clear(asked_us);
        Ok(())
    }

    /// Lets writes go without a fence while Redis cannot be reached, and not any more.
    async fn open_or_close(&mut self) -> Result<(), OpenError> {
        let wanted = self.fence.take_wanted();
        match (self.opened, self.down) {
            (None, Some(since)) if since.elapsed() > DOWN || (wanted && since.elapsed() > DOWN / 2) => {
                self.talk.rows(&format!("SELECT pg_advisory_lock({OPEN}, {})", self.process)).await?;
                self.opened = Some(Instant::now());
                self.fence.clear(0);
                self.fence.opens(clock::now_us() + STEP_ASIDE.as_micros() as u64);
            }
            (Some(since), None) if since.elapsed() > 2 * STEP_ASIDE => {
                // What goes without by now is entered with the next beat; only then it is said.
                if self.fence.opening() {
                    self.fence.opens(0);
                } else {
                    self.talk.rows(&format!("SELECT pg_advisory_unlock({OPEN}, {})", self.process)).await?;
                    self.opened = None;
                    self.told.clear();
                    tracing::info!("writes are fenced again");
                }
            }
            (Some(_), Some(_)) if !self.fence.opening() => {
                self.fence.opens(clock::now_us() + STEP_ASIDE.as_micros() as u64);
            }
            _ => {}
        }
        Ok(())
    }
}
