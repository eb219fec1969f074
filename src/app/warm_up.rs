//! Reads that are asked before anybody needs their answers: at the start, on a schedule, and when somebody says so.
//! Must never ask more at once than was said, nor otherwise than a client would.
//!
//! Each runs as a client of its user's and database's own, over a pair of sockets inside the process: so it waits for a server in the same pools, under the same
//! limits, and its answer is kept under the key that a client with the same settings asks for. What is in the cache already is asked anew only when more
//! than half of its time is over: who repeats it as often as answers live so never lets one end. Whether an answer was kept the relay says
//! ([`Warming`]); that nothing is known of a database yet passes, and is waited for.

use std::io;
use std::os::unix::net::UnixStream as Pair;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::boot::Running;
use crate::auth::ServerSecret;
use crate::cache::{Outcome, Warming};
use crate::config::{CacheMode, Config, Protocol, WarmUp};
use crate::meter::DatabaseHealth;
use crate::net::plain::Plain;
use crate::net::socket::Socket;
use crate::pool::place::homes;
use crate::relay::Arrival;
use crate::wire::build;
use crate::wire::error::ServerError;
use crate::wire::frame::{HEADER, Header};
use crate::wire::tag;
use crate::worker::{Mail, Mailbox, WeakMailbox};

/// What passes by itself is waited for so long, and looked at again as often as that.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// How much later than an answer it may be known what became of it.
const DELAY: Duration = Duration::from_secs(1);
/// When nobody could log in at the start it is tried again after that, then after twice that, up to so long.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What came of asking everything once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    kept: usize,
    failed: usize,
}

/// Who wants to know what came of it.
type Order = oneshot::Sender<Tally>;

/// What is asked ahead, as the configuration has it.
#[derive(Default)]
pub(super) struct WarmUps {
    jobs: Vec<(String, mpsc::UnboundedSender<Order>, JoinHandle<()>)>,
    /// The cache is not on.
    off: bool,
}

impl WarmUps {
    /// Begins with all that the configuration in force has, instead of whatever was begun before.
    pub fn begin(&mut self, running: &Running) {
        self.end();
        let config = &running.config;
        self.off = config.cache.mode != CacheMode::On;
        if self.off {
            return;
        }
        for it in &config.cache.warm_up {
            let Some(job) = Job::of(it, config, running) else { continue };
            let (orders, ordered) = mpsc::unbounded_channel();
            self.jobs.push((it.database.clone(), orders, tokio::spawn(job.run(ordered))));
        }
    }

    /// Nothing is asked any more.
    pub fn end(&mut self) {
        self.jobs.drain(..).for_each(|(.., task)| task.abort());
    }

    /// Asks everything now, or all of one database; what came of it is told when it has.
    pub fn ask(&self, database: Option<&str>, answer: oneshot::Sender<Result<(), String>>) {
        let meant = self.jobs.iter().filter(|(of, ..)| database.is_none_or(|database| of == database));
        let waits: Vec<_> = meant
            .filter_map(|(_, orders, _)| {
                let (order, wait) = oneshot::channel();
                orders.send(order).ok().map(|()| wait)
            })
            .collect();
        if waits.is_empty() {
            let why = if self.off { "the cache is not on" } else { "nothing of that is in [[cache.warm_up]]" };
            let _ = answer.send(Err(why.to_owned()));
            return;
        }
        tokio::spawn(async move {
            let mut all = Tally::default();
            for wait in waits {
                // Whoever has been told to stop says nothing.
                let one = wait.await.unwrap_or(Tally { kept: 0, failed: 1 });
                all = Tally { kept: all.kept + one.kept, failed: all.failed + one.failed };
            }
            let Tally { kept, failed } = all;
            let _ = answer.send(match failed {
                0 => Ok(()),
                _ => Err(format!("{kept} answers are in the cache, {failed} are not: the log has why")),
            });
        });
    }
}

/// One of the lists.
struct Job {
    it: WarmUp,
    worker: WeakMailbox,
    secret: ServerSecret,
    health: Arc<DatabaseHealth>,
}

impl Job {
    fn of(it: &WarmUp, config: &Config, running: &Running) -> Option<Arc<Self>> {
        let (database, user) = (config.databases.get(&it.database)?, config.users.get(&it.user)?);
        let size = config.terms(&it.database, &it.user).pool_size;
        let home = homes(&it.database, &it.user, size, running.workers.len() as u8).next()?;
        let worker = running.workers.get(usize::from(home)).map(Mailbox::downgrade)?;
        let secret = ServerSecret::of(database.server_login(user).1.cloned());
        let health = running.registry.database(&it.database)?;
        Some(Arc::new(Self { it: it.clone(), worker, secret, health }))
    }

    /// Asks now, then whenever it is time or somebody says so.
    async fn run(self: Arc<Self>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut retry = Some(RETRY);
        let mut who: Option<Order> = None;
        loop {
            let (tally, came_in) = Arc::clone(&self).ask_all().await;
            if let Some(who) = who.take() {
                let _ = who.send(tally);
            }
            retry = retry.filter(|_| !came_in);
            let pause = [retry, self.it.every].into_iter().flatten().min();
            retry = retry.map(|pause| (pause * 2).min(RETRY_MAX));
            let time = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {}
                order = orders.recv() => match order {
                    Some(order) => who = Some(order),
                    None => return,
                },
            }
        }
    }

    /// Asks everything once; and whether anybody could.
    async fn ask_all(self: Arc<Self>) -> (Tally, bool) {
        let next = Arc::new(AtomicUsize::new(0));
        let sessions = self.it.concurrency.min(self.it.queries.len());
        let mut tasks = JoinSet::new();
        for _ in 0..sessions {
            tasks.spawn(Arc::clone(&self).ask_some(Arc::clone(&next)));
        }
        let mut kept = 0;
        let mut came_in = false;
        while let Some(done) = tasks.join_next().await {
            if let Ok(Some(some)) = done {
                (kept, came_in) = (kept + some, true);
            }
        }
        let tally = Tally { kept, failed: self.it.queries.len() - kept };
        self.health.warm.runs.add(1);
        self.health.warm.kept.add(kept as u64);
        self.health.warm.failed.add(tally.failed as u64);
        let WarmUp { database, user, .. } = &self.it;
        tracing::info!(database, user, kept, failed = tally.failed, "warmed the cache up");
        (tally, came_in)
    }

    /// Asks what nobody else has begun to ask, one after the other; how many answers are in the cache, or `None` if it could not come in.
    async fn ask_some(self: Arc<Self>, next: Arc<AtomicUsize>) -> Option<usize> {
        let WarmUp { database, user, .. } = &self.it;
        let mut session = match self.log_in().await {
            Ok(session) => session,
            Err(why) => {
                tracing::warn!(database, user, "the cache is not warmed up: {why}");
                return None;
            }
        };
        // What is known of a database is found out when somebody comes, and nothing is kept until then.
        let _ = session.keeps("SELECT 1", self.it.protocol).await;
        let mut kept = 0;
        loop {
            let number = next.fetch_add(1, Relaxed);
            let Some(sql) = self.it.queries.get(number) else { return Some(kept) };
            match session.keeps(sql, self.it.protocol).await {
                Ok(()) => kept += 1,
                Err(why) => {
                    let number = number + 1;
                    tracing::warn!(database, user, query = number, "an answer is not in the cache: {why}");
                    if !session.is_open {
                        match self.log_in().await {
                            Ok(another) => session = another,
                            Err(_) => return Some(kept),
                        }
                    }
                }
            }
        }
    }

    async fn log_in(&self) -> Result<Session, String> {
        let lost = |error: io::Error| error.to_string();
        let (ours, theirs) = Pair::pair().map_err(lost)?;
        ours.set_nonblocking(true).map_err(lost)?;
        theirs.set_nonblocking(true).map_err(lost)?;
        let mut settings = vec![(b"application_name".to_vec(), b"pgweir warm-up".to_vec())];
        let own = self.it.settings.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()));
        settings.retain(|(name, _)| self.it.settings.iter().all(|(own, _)| own.as_bytes() != &name[..]));
        settings.extend(own);
        settings.sort();
        let mut prefix = Vec::new();
        build::authentication_ok(&mut prefix);
        let warms = Arc::new(Warming::default());
        let arrival = Arrival {
            socket: Socket::Plain(Plain::LooseUnix(theirs)),
            database: self.it.database.clone(),
            user: self.it.user.clone(),
            secret: self.secret.clone(),
            settings,
            minor: 0,
            prefix,
            leftover: Vec::new(),
            replication: None,
            from: None,
            seats: Default::default(),
            warms: Some(Arc::clone(&warms)),
        };
        let worker = self.worker.upgrade().ok_or("the program is ending")?;
        worker.send(Mail::Client(Box::new(arrival))).map_err(|_| "the program is ending")?;
        drop(worker);
        let stream = UnixStream::from_std(ours).map_err(lost)?;
        let mut session = Session { stream, warms, inbox: Vec::new(), is_open: true };
        session.answer().await?;
        Ok(session)
    }
}

/// A client of the process's own.
struct Session {
    stream: UnixStream,
    warms: Arc<Warming>,
    inbox: Vec<u8>,
    is_open: bool,
}

impl Session {
    /// Asks this until its answer is in the cache, or cannot be.
    async fn keeps(&mut self, sql: &str, protocol: Protocol) -> Result<(), String> {
        let began = Instant::now();
        let request = request(sql, protocol);
        loop {
            self.warms.take();
            if let Err(error) = self.stream.write_all(&request).await {
                self.is_open = false;
                return Err(error.to_string());
            }
            let answer = self.answer().await;
            // Also of an error: or the next statement would hear it as its own.
            let outcome = match self.is_open {
                true => timeout(DELAY, self.warms.outcome()).await.ok(),
                false => None,
            };
            answer?;
            match outcome {
                Some(Outcome::Kept) => return Ok(()),
                Some(outcome) if outcome.may_pass() && began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                outcome => return Err(reason(outcome)),
            }
        }
    }

    /// Reads up to ReadyForQuery; rows are of no interest.
    async fn answer(&mut self) -> Result<(), String> {
        let mut error = None;
        loop {
            while let Ok(Some(header)) = Header::peek(&self.inbox, usize::MAX)
                && let Some(message) = self.inbox.get(..header.total)
            {
                match header.tag {
                    tag::server::ERROR => {
                        let told = ServerError::parse(message.get(HEADER..).unwrap_or_default());
                        error = Some(format!("{} {}", String::from_utf8_lossy(&told.code.0), told.message));
                    }
                    tag::server::READY => {
                        self.inbox.drain(..header.total);
                        return error.map_or(Ok(()), Err);
                    }
                    _ => {}
                }
                self.inbox.drain(..header.total);
            }
            match self.stream.read_buf(&mut self.inbox).await {
                Ok(1..) => {}
                end => {
                    self.is_open = false;
                    let why = end.map_or_else(|error| error.to_string(), |_| "the session has ended".to_owned());
                    return Err(error.unwrap_or(why));
                }
            }
        }
    }
}

/// The messages that ask it.
fn request(sql: &str, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    match protocol {
        Protocol::Simple => build::query(&mut out, sql.as_bytes()),
        Protocol::Extended => {
            let mut tail = Vec::new();
            build::cstr(&mut tail, sql.as_bytes());
            tail.extend_from_slice(&[0, 0]);
            build::parse(&mut out, b"", &tail);
            // Unnamed portal and statement, no parameters, all results as text.
            build::message(&mut out, tag::client::BIND, |out| out.extend_from_slice(&[0; 8]));
            build::message(&mut out, tag::client::DESCRIBE, |out| out.extend_from_slice(b"P\0"));
            build::message(&mut out, tag::client::EXECUTE, |out| out.extend_from_slice(&[0; 5]));
            build::sync(&mut out);
        }
    }
    out
}

/// Why it is not in the cache, in the words of the metrics.
fn reason(outcome: Option<Outcome>) -> String {
    match outcome {
        Some(Outcome::Bypassed(why)) => {
            format!("the cache is not asked for it ({})", format!("{why:?}").to_lowercase())
        }
        Some(Outcome::Unkept(why)) => format!("it is not kept ({})", format!("{why:?}").to_lowercase()),
        Some(Outcome::Unknown) => "what the code of the database does could not be read".to_owned(),
        Some(Outcome::Kept) | None => "nothing of this user is kept in this database".to_owned(),
    }
}
