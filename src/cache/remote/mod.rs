//! The cache that processes share, behind each one's own: Redis or Valkey, as `[cache.redis]` says.
//! Must never be trusted, nor waited for longer than its timeout: whatever is wrong with it is a miss.
//!
//! Every worker has a [`Remote`] with one connection, on which all its requests are under way at once ([`link`]). There are
//! no queues in front of it and no thread beside: who looks something up is a task that waits for its own answer, and how many may
//! is bounded by a count. A thread of its own would have cost four switches of threads per lookup, of 2 to 5 µs each here, which is
//! as much as all the rest.
//!
//! *Whether it may be asked.* Failures in a row open a circuit breaker; while it is open nobody waits at all, and once a second one task
//! tries to connect and to have its clock told within the timeout. That is the only probe: no client's request is one.
//!
//! *Trust.* Names are keyed hashes of keys, values are sealed over their key ([`seal`]): who can write to Redis can make misses, and
//! have others wait by putting old leases back, no longer than one may wait for an answer; nothing else. That includes time: what an answer's age is does not follow from the TTL that Redis has for it, which whoever can write
//! may renew, nor does it follow from when a SET was executed, which a server that was stopped does at any later time. It is inside of the seal, as a
//! moment of Redis' own clock ([`time`]), the only one that all processes can read.
//!
//! *Good until something changes.* An answer that is so has with it up to where it shows everything ([`hold`]); who finds it holds that against what it knows itself. Nothing is ever taken out
//! of Redis because of a write.
//!
//! *One flight.* Who finds nothing says with the same request that he asks a server for it ([`seal::Lease`]), if that takes longer than a request: who asks for the same meanwhile, in
//! whichever process, waits for the answer (`lookup`).
//!
//! *Which schema.* The key here has no number of a process's own: what its place takes is what the catalog says of everything that the
//! meaning of a text hangs on, and which cluster that is of (`relay/schema.sql`).

mod board;
pub mod fence;
pub mod hold;
pub mod link;
mod lookup;
pub mod seal;
pub mod time;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

pub use self::lookup::FAST_US;

use self::board::Board;
use self::hold::Hold;
use self::link::{Link, Plan};
use self::seal::{Keys, Sealed};
use self::time::Skew;
use super::Source;
use super::signal::Signals;
use crate::base::clock::now_us;
use crate::config::Redis;
use crate::meter::{RemoteCounters, RemoteMiss, RemoteWrite};

/// Between two looks at Redis' clock, and two attempts to reach it.
const PERIOD: Duration = Duration::from_secs(1);
/// Connecting, with TLS and logging in.
const CONNECT: Duration = Duration::from_secs(5);
/// How long ago it may be that others' signals were looked for, microseconds: two looks may fail.
const STALE_US: u64 = 3_500_000;
/// What a failure adds to the score of the breaker, and what opens it. An answer takes one away: it opens after five failures in a row, and when
/// more than a fifth fail, as where one of several nodes is silent.
const FAILURE: u32 = 4;
const OPENS: u32 = 20;
/// Answers of this length and more are sealed and opened on another thread: below, that takes a worker less than 20 µs.
const ASIDE_BYTES: usize = 32 << 10;
/// Between two lines in the log about the same, microseconds.
const QUIET_US: u64 = 60_000_000;

/// An answer found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// As in [`super::Entry::answer`].
    pub answer: Bytes,
    /// When it had not begun yet, microseconds of this process's clock.
    pub began_us: u64,
    /// For how long it is good from then on, microseconds.
    pub ttl_us: u64,
    /// Where it ran.
    pub source: Source,
    /// What makes it good beside its time.
    pub hold: Hold,
}

/// An answer to be kept.
#[derive(Debug)]
pub struct Keep {
    /// What its key is in all processes.
    pub key: Box<[u8]>,
    /// As in [`super::Entry`].
    pub answer: Bytes,
    /// See [`super::Stamp`].
    pub began_us: u64,
    /// See there.
    pub source: Source,
    /// Its time, microseconds.
    pub ttl_us: u64,
    /// What makes it good beside that.
    pub hold: Hold,
}

/// The connection in use, and Redis' clock by it.
struct Up {
    link: Link,
    skew: Skew,
    /// When it was asked last what others have said of answers, microseconds.
    heard_us: u64,
}

/// One worker's way to Redis.
pub struct Remote {
    config: Redis,
    keys: Arc<Keys>,
    up: RefCell<Option<Up>>,
    board: Board,
    /// Of the breaker.
    score: Cell<u32>,
    fallen: Notify,
    ended: Notify,
    lookups: Cell<u32>,
    writes: Cell<u32>,
    counters: Arc<RemoteCounters>,
    told_us: Cell<u64>,
    told_up_us: Cell<u64>,
    /// What its own leases are known by.
    whose: u64,
    /// Redis understands what is asked with a lease.
    leases: Cell<bool>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.config.prefix)
    }
}

/// One of so many that may be under way.
struct Place<'a>(&'a Cell<u32>);

impl<'a> Place<'a> {
    fn take(count: &'a Cell<u32>, most: u32) -> Option<Self> {
        (count.get() < most).then(|| {
            count.set(count.get() + 1);
            Self(count)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Whether something was not told for a while; it is now.
fn is_due(told_us: &Cell<u64>) -> bool {
    let (now_us, before_us) = (now_us(), told_us.get());
    let due = before_us == 0 || now_us.saturating_sub(before_us) >= QUIET_US;
    if due {
        told_us.set(now_us.max(1));
    }
    due
}

impl Remote {
    /// One that is not connected yet; [`Remote::run`] does that.
    #[must_use]
    pub fn new(config: Redis, counters: Arc<RemoteCounters>, signals: Arc<Signals>) -> Self {
        let keys = Arc::new(Keys::new(&config.secret));
        Self {
            board: Board::new(signals, Arc::clone(&keys), keys.name(&config.prefix, b"signals")),
            keys,
            config,
            up: RefCell::new(None),
            score: Cell::new(0),
            fallen: Notify::new(),
            ended: Notify::new(),
            lookups: Cell::new(0),
            writes: Cell::new(0),
            counters,
            told_us: Cell::new(0),
            told_up_us: Cell::new(0),
            whose: RandomState::new().build_hasher().finish(),
            leases: Cell::new(true),
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &Redis {
        &self.config
    }

    /// Whether asking it may be of use at all; counts when not.
    pub fn is_open(&self) -> bool {
        let why = match () {
            () if self.link().is_none() => RemoteMiss::Down,
            () if self.lookups.get() >= self.config.max_lookups => RemoteMiss::Busy,
            () => return true,
        };
        self.counters.miss(why).add(1);
        false
    }

    /// Whether an answer may be given to it; counts when not.
    pub fn takes(&self) -> bool {
        let why = match () {
            () if self.up.borrow().is_none() => RemoteWrite::Down,
            () if self.writes.get() >= self.config.max_writes => RemoteWrite::Full,
            () => return true,
        };
        self.counters.write(why).add(1);
        false
    }

    /// Keeps the connection up until [`Remote::end`].
    pub async fn run(self: Rc<Self>) {
        tokio::select! {
            () = self.ended.notified() => {}
            () = self.keep_up() => {}
        }
        self.fall();
    }

    /// It is not needed any more.
    pub fn end(&self) {
        self.ended.notify_one();
    }

    async fn keep_up(&self) {
        loop {
            // Files may say something else by now.
            let connects = async { Plan::new(&self.config)?.connect().await };
            match timeout(CONNECT, connects).await {
                Err(_) => self.tell(&format!("Redis does not let us in within {} s", CONNECT.as_secs())),
                Ok(Err(error)) => self.tell(&format!("Redis cannot be reached: {error}")),
                Ok(Ok(link)) => self.watch(link).await,
            }
            sleep(PERIOD).await;
        }
    }

    /// Holds a connection for as long as it is of use.
    async fn watch(&self, mut link: Link) {
        let mut was_up = false;
        loop {
            let heard_us = now_us();
            match self.look_around(&mut link).await {
                Ok(Ok(skew)) => {
                    if !std::mem::replace(&mut was_up, true) {
                        self.score.set(0);
                        // It may be another server.
                        self.leases.set(self.config.one_flight);
                        self.counters.up.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        self.tell_up();
                    }
                    *self.up.borrow_mut() = Some(Up { link: link.clone(), skew, heard_us });
                }
                Ok(Err(error)) if was_up => self.failed(&error.to_string()),
                Err(_) if was_up => self.failed("it does not answer in time"),
                Ok(Err(error)) => return self.tell(&format!("Redis does not say what it is asked first: {error}")),
                Err(_) => return self.tell("Redis does not answer in time"),
            }
            tokio::select! {
                () = sleep(PERIOD) => {}
                () = self.board.has_news() => {}
                () = self.fallen.notified() => {}
            }
            if self.up.borrow().is_none() {
                return;
            }
        }
    }

    /// Redis' clock, when all was told and heard that processes say of answers; each in its time.
    async fn look_around(&self, link: &mut Link) -> Result<redis::RedisResult<Skew>, Elapsed> {
        let skew = match timeout(self.config.timeout, link.skew()).await? {
            Ok(skew) => skew,
            Err(error) => return Ok(Err(error)),
        };
        let exchanged = timeout(self.config.timeout * 4, self.board.exchange(link, skew)).await?;
        Ok(exchanged.map(|()| skew))
    }

    /// Nobody asks it any more.
    fn fall(&self) {
        if self.up.borrow_mut().take().is_some() {
            self.counters.up.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            self.fallen.notify_one();
        }
    }

    fn failed(&self, why: &str) {
        self.score.set(self.score.get() + FAILURE);
        if self.score.get() >= OPENS && self.up.borrow().is_some() {
            self.tell(&format!("Redis is not asked for a while: {why}"));
            self.counters.opened.add(1);
            self.fall();
        }
    }

    fn worked(&self) {
        self.score.set(self.score.get().saturating_sub(1));
    }

    /// Once a minute at most.
    fn tell(&self, what: &str) {
        if is_due(&self.told_us) {
            tracing::warn!("{what}");
        } else {
            tracing::debug!("{what}");
        }
    }

    /// The same of good news: it may come and go.
    fn tell_up(&self) {
        if is_due(&self.told_up_us) {
            tracing::info!("Redis is there: answers are shared");
        }
    }

    /// The link, and Redis' clock, if it is there and has told lately what others say.
    fn link(&self) -> Option<(Link, Skew)> {
        let up = self.up.borrow();
        let up = up.as_ref().filter(|up| now_us().saturating_sub(up.heard_us) < STALE_US);
        up.map(|up| (up.link.clone(), up.skew))
    }

    /// Redis said no. What it says of one request says little about the next, but for the connection.
    fn refused(&self, link: &Link, error: &redis::RedisError) {
        self.failed(&error.to_string());
        if link.is_lost(error) {
            self.tell(&format!("Redis is gone: {error}"));
            self.fall();
        } else {
            self.tell(&format!("Redis refuses: {error}"));
        }
    }

    /// Puts an answer there, in its own time and if there is room: nobody waits for that.
    pub async fn keep(&self, keep: Keep) {
        let leased = self.config.one_flight.then(|| keep.key.clone());
        let outcome = match Place::take(&self.writes, self.config.max_writes) {
            Some(_place) => self.put(keep).await,
            None => RemoteWrite::Full,
        };
        self.counters.write(outcome).add(1);
        // Nobody is to wait for what does not come.
        if let Some(key) = leased.filter(|_| outcome != RemoteWrite::Kept) {
            self.give_up(&key).await;
        }
    }

    async fn put(&self, keep: Keep) -> RemoteWrite {
        let Some((mut link, skew)) = self.link() else { return RemoteWrite::Down };
        let ttl_us = keep.ttl_us.min(self.config.max_ttl.as_micros() as u64);
        let left_us = ttl_us.saturating_sub(now_us().saturating_sub(keep.began_us));
        let left_ms @ 1.. = left_us / 1000 else { return RemoteWrite::Late };
        let name = self.keys.name(&self.config.prefix, &keep.key);
        let began_us = skew.remote_us(keep.began_us);
        let (keys, compress_above) = (Arc::clone(&self.keys), self.config.compress_above);
        let (key, len) = (keep.key, keep.answer.len());
        let sealed = Sealed { answer: keep.answer, began_us, source: keep.source, ttl_us, hold: keep.hold };
        let seal = move || keys.seal(&key, &sealed, compress_above);
        let value = if len < ASIDE_BYTES {
            seal()
        } else {
            let Ok(value) = tokio::task::spawn_blocking(seal).await else { return RemoteWrite::Error };
            value
        };
        let outcome = timeout(self.config.timeout, link.set(&name, &value, left_ms)).await;
        self.wrote(&link, outcome)
    }

    /// What is there under this key is no longer what was answered last.
    pub async fn remove(&self, key: &[u8]) {
        let Some((mut link, _)) = self.link() else { return };
        let name = self.keys.name(&self.config.prefix, key);
        let outcome = timeout(self.config.timeout, link.remove(&name)).await;
        let outcome = self.wrote(&link, outcome);
        self.counters.write(if outcome == RemoteWrite::Kept { RemoteWrite::Removed } else { outcome }).add(1);
    }

    fn wrote(&self, link: &Link, outcome: Result<redis::RedisResult<()>, Elapsed>) -> RemoteWrite {
        match outcome {
            Ok(Ok(())) => {
                self.worked();
                RemoteWrite::Kept
            }
            Ok(Err(error)) if link::is_full(&error) => {
                // It answers, and what it has is as good as ever.
                self.worked();
                self.tell(&format!("Redis keeps nothing new: {error}"));
                RemoteWrite::Error
            }
            Ok(Err(error)) => {
                self.refused(link, &error);
                RemoteWrite::Error
            }
            Err(_) => {
                self.failed("it does not answer in time");
                RemoteWrite::Timeout
            }
        }
    }
}
