//! Runs a program twice, through pgweir and on direct connections, and compares what came after every step.
//! It must never let two statements run at once, nor allow a difference that is not written down here.
//!
//! Two differences are allowed. `currval` and `lastval` may say that the session has drawn nothing (55000, PostgreSQL's words, and
//! a hint of pgweir's) where it drew on another server: then the session is given up. And: a session acts as a role (SET ROLE) that
//! a superuser has since dropped, or taken from its user. PostgreSQL lets it go on; pgweir cannot give it the role again on another
//! server. When a batch of such a session begins outside of a transaction, pgweir may end the connection with FATAL and PostgreSQL's
//! own words about that role.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use integration::wire::Script;
use integration::{Cluster, Pgweir};

use crate::answers::{PATIENCE, difference, error_text, exchange, exchange_all, hear, script};
use crate::common::{Client, eventually};
use crate::program::{Act, Batch, SESSIONS, Step, USERS, start};
use crate::words::SHOW;

/// Servers for all sessions of a program.
pub const SERVERS: usize = 3;
/// Who drew from a sequence keeps a server for as long at most while others wait.
const DRAWN: Duration = Duration::from_millis(1_500);

/// Where programs run.
pub struct Stage {
    /// Without it both run directly.
    pub pgweir: Option<Pgweir>,
    pub pooled: Arc<Cluster>,
    pub direct: Arc<Cluster>,
    /// Superusers, one in each cluster.
    admins: [RefCell<Client>; 2],
}

/// The first difference of a program.
#[derive(Debug)]
pub struct Failure {
    /// The step; the number of steps when it came behind the last.
    pub at: usize,
    pub what: String,
}

impl Failure {
    /// Whether this is another failure of the same kind, more likely than not.
    pub fn is_like(&self, other: &Self) -> bool {
        let kind =
            |of: &Self| of.what.lines().skip(1).take(1).flat_map(|line| line.chars().take(30)).collect::<String>();
        kind(self) == kind(other)
    }
}

/// What was done, for a summary.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds: each is a program for each of twenty clients.
    pub rounds: usize,
    pub steps: usize,
    pub left_out: usize,
    pub refused: usize,
    pub lost_values: usize,
    /// Times that a session gave its server up because another waited.
    pub made_way: usize,
    pub notifications: usize,
}

/// One session, twice.
struct Twins {
    pooled: Client,
    direct: Client,
    /// A transaction is open.
    block: bool,
    /// When it began to keep a server for more than a transaction, perhaps.
    holds: Option<usize>,
    seeded: bool,
    /// Roles that were taken away since it connected.
    stale: Vec<&'static str>,
    /// Notifications, through pgweir and directly.
    heard: [Vec<String>; 2],
}

impl Drop for Twins {
    fn drop(&mut self) {
        // Without a word, unless one was said before.
        self.pooled.end();
        self.direct.end();
    }
}

/// All sessions of a program by number; who is about to do something has been taken out.
type Sessions = Vec<Option<Twins>>;

/// Connects; the error as text.
pub fn connect(port: u16, number: usize) -> Result<Client, String> {
    let (user, parameters) = start(number);
    connect_as(port, user, parameters)
}

/// [`connect`] as any user.
pub fn connect_as(port: u16, user: &str, parameters: &[(&str, &str)]) -> Result<Client, String> {
    let mut client = Client::tcp(port);
    client.patience(PATIENCE);
    client.startup(0, &[&[("user", user)], parameters].concat());
    loop {
        match client.read_in_time() {
            Ok(Some(frame)) if frame.tag == b'E' => return Err(error_text(&frame)),
            Ok(Some(frame)) if frame.tag == b'Z' => return Ok(client),
            Ok(Some(_)) => {}
            Ok(None) => return Err("the end".into()),
            Err(_) => return Err("silence".into()),
        }
    }
}

impl Stage {
    pub fn new(pgweir: Option<Pgweir>, pooled: Arc<Cluster>, direct: Arc<Cluster>) -> Self {
        let admin = |of: &Cluster| RefCell::new(Client::connect_with(of.primary().port(), &[("user", "boss")]));
        Self { pgweir, admins: [admin(&pooled), admin(&direct)], pooled, direct }
    }

    /// Where the pooled sessions connect to.
    pub fn port(&self) -> u16 {
        self.pgweir.as_ref().map_or_else(|| self.pooled.primary().port(), Pgweir::port)
    }

    fn twins(&self, number: usize) -> Result<Twins, String> {
        let direct = connect(self.direct.primary().port(), number);
        let pooled = connect(self.port(), number);
        match (pooled, direct) {
            (Ok(pooled), Ok(direct)) => {
                let twins = Twins {
                    pooled,
                    direct,
                    block: false,
                    holds: None,
                    seeded: false,
                    stale: Vec::new(),
                    heard: [Vec::new(), Vec::new()],
                };
                twins.same_parameters().map(|()| twins)
            }
            (pooled, direct) => {
                let say = |end: Result<_, String>| end.map_or_else(|error| error, |_: Client| "welcome".into());
                Err(format!("login of session {number}\n  pooled: {}\n  direct: {}", say(pooled), say(direct)))
            }
        }
    }

    /// A superuser asks something in the pooled cluster (0) or the direct one (1).
    pub fn ask(&self, cluster: usize, sql: &str) -> Vec<Vec<String>> {
        self.admins[cluster].borrow_mut().query(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// A superuser does something in both clusters.
    pub fn admin(&self, sql: &str) {
        for cluster in [0, 1] {
            self.ask(cluster, sql);
        }
    }

    fn clear(&self) {
        for cluster in [0, 1] {
            for row in self.ask(cluster, "SELECT 'ROLLBACK PREPARED ' || quote_literal(gid) FROM pg_prepared_xacts") {
                self.ask(cluster, &row[0]);
            }
        }
        self.admin("DROP ROLE IF EXISTS doomed; CREATE ROLE doomed; GRANT one, two, doomed TO plain");
    }

    /// Runs a program.
    pub fn run(&self, steps: &[Step], tally: &mut Tally) -> Result<(), Failure> {
        self.clear();
        let mut sessions: Sessions = (0..SESSIONS * USERS).map(|_| None).collect();
        for (at, step) in steps.iter().enumerate() {
            self.step(&mut sessions, at, step, tally).map_err(|what| Failure { at, what })?;
        }
        let last = |what| Failure { at: steps.len(), what };
        for number in 0..sessions.len() {
            let Some(mut twins) = sessions[number].take() else { continue };
            let gone = self.end(&mut twins, number, &mut sessions, tally);
            if !gone.map_err(|what| last(format!("session {number}, in the end\n{what}")))? {
                sessions[number] = Some(twins);
            }
        }
        for (number, twins) in sessions.into_iter().enumerate() {
            if let Some(mut twins) = twins.filter(|_| number % 2 == 0) {
                twins.pooled.send(&Script::new().terminate());
            }
        }
        let user = steps.first().map_or("boss", |step| start(step.session).0);
        crate::leaks::check(self, user).map_err(last)
    }

    /// What a session shows at its end, and what it has heard. True when it has ended.
    fn end(
        &self,
        twins: &mut Twins,
        number: usize,
        sessions: &mut Sessions,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let texts: &[&str] = if twins.block { &["ROLLBACK", SHOW] } else { &[SHOW] };
        for text in texts {
            if self.say(twins, number, &Batch::query(*text), sessions, tally)? {
                return Ok(true);
            }
        }
        twins.same_notifications()?;
        tally.notifications += twins.heard[1].len();
        Ok(false)
    }

    fn step(&self, sessions: &mut Sessions, at: usize, step: &Step, tally: &mut Tally) -> Result<(), String> {
        let number = step.session;
        if let Act::Admin { sql, role } = &step.act {
            self.admin(sql);
            for twins in sessions.iter_mut().flatten() {
                if sql.starts_with("GRANT") {
                    twins.stale.retain(|stale| !sql.contains(*stale));
                } else {
                    twins.stale.push(role);
                }
            }
            return Ok(());
        }
        if let Act::Say(batch) | Act::Lose { batch, .. } = &step.act
            && !self.make_room(sessions, number, batch, tally)?
        {
            tally.left_out += 1;
            return Ok(());
        }
        tally.steps += 1;
        let mut twins = match sessions[number].take() {
            Some(twins) => twins,
            None => self.twins(number)?,
        };
        let gone = match &step.act {
            Act::Say(batch) => {
                if batch.holds && twins.holds.is_none() {
                    twins.holds = Some(at);
                }
                self.say(&mut twins, number, batch, sessions, tally)?
            }
            Act::Lose { batch, missing } => {
                let bytes = script(&batch.messages, number).concat();
                let bytes = &bytes[..bytes.len().saturating_sub(*missing)];
                for client in [&mut twins.pooled, &mut twins.direct] {
                    client.write(bytes);
                }
                true
            }
            Act::Leave => {
                for client in [&mut twins.pooled, &mut twins.direct] {
                    client.send(&Script::new().terminate());
                }
                true
            }
            Act::LetGo => self.let_go(&mut twins, number, sessions, tally)?,
            Act::Cancel { sql } => self.cancel(&mut twins, number, sql, sessions, tally)?,
            Act::Admin { .. } => false,
        };
        if !gone {
            sessions[number] = Some(twins);
        }
        Ok(())
    }

    /// A text that sleeps, and a cancel request as soon as it does on both sides.
    fn cancel(
        &self,
        twins: &mut Twins,
        number: usize,
        sql: &str,
        sessions: &mut Sessions,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let request = |client: &Client, port: u16| (client.cancel_request(), port);
        let requests = [request(&twins.pooled, self.port()), request(&twins.direct, self.direct.primary().port())];
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let admins = [self.pooled.primary().port(), self.direct.primary().port()];
            let done = &done;
            let cancels = move || {
                for (admin, (request, port)) in admins.into_iter().zip(requests) {
                    let mut admin = Client::connect_with(admin, &[("user", "boss")]);
                    // It may have failed before.
                    eventually("somebody sleeps", || done.load(Ordering::Relaxed) || admin.value(sleeps) != "0");
                    if !done.load(Ordering::Relaxed) {
                        let mut cancel = Client::tcp(port);
                        cancel.write(&request);
                        let _ = cancel.read_to_end();
                    }
                }
            };
            scope.spawn(cancels);
            let gone = self.say(twins, number, &Batch::query(sql), sessions, tally);
            done.store(true, Ordering::Relaxed);
            gone
        })
    }

    /// False when too many sessions keep a server already, perhaps.
    fn make_room(
        &self,
        sessions: &mut Sessions,
        number: usize,
        batch: &Batch,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let twins = sessions[number].as_ref();
        if batch.seeded && !twins.is_some_and(|twins| twins.seeded) {
            return Ok(false);
        }
        if batch.lists && twins.is_some_and(|twins| twins.block) {
            return Ok(false);
        }
        if !batch.holds || twins.is_some_and(|twins| twins.holds.is_some()) {
            return Ok(true);
        }
        let holding = sessions.iter().enumerate();
        let mut holding: Vec<(usize, usize)> =
            holding.filter_map(|(other, twins)| Some((twins.as_ref()?.holds?, other))).collect();
        if holding.len() + 1 < SERVERS {
            return Ok(true);
        }
        holding.sort_unstable();
        let (Some((_, oldest)), true) = (holding.first(), batch.evicts) else { return Ok(false) };
        self.evict(sessions, *oldest, tally)?;
        Ok(true)
    }

    /// A session gives up what keeps a server.
    fn evict(&self, sessions: &mut Sessions, number: usize, tally: &mut Tally) -> Result<(), String> {
        let Some(mut twins) = sessions[number].take() else { return Ok(()) };
        if !self.let_go(&mut twins, number, sessions, tally)? {
            sessions[number] = Some(twins);
        }
        Ok(())
    }

    /// Gives up everything that keeps a server. True when the connection has ended.
    fn let_go(
        &self,
        twins: &mut Twins,
        number: usize,
        sessions: &mut Sessions,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        for sql in ["ROLLBACK", "DISCARD ALL"] {
            if self.say(twins, number, &Batch::query(sql), sessions, tally)? {
                return Ok(true);
            }
        }
        twins.holds = None;
        twins.seeded = false;
        Ok(false)
    }

    /// A client waits for a server: whoever is known to keep one gives it up, one after the other, until it is served. It
    /// is an error that nobody keeps one.
    fn make_way(&self, waiting: &Client, sessions: &mut Sessions, tally: &mut Tally) -> Result<(), String> {
        let mut reasons = Vec::new();
        for _ in 0..SESSIONS {
            if waiting.speaks_within(Duration::from_millis(50)) {
                return Ok(());
            }
            let pins = self.pgweir.as_ref().and_then(|pgweir| pgweir.get("/pins").ok()).unwrap_or_default().1;
            let keeps = |twins: &Twins| {
                let pid = twins.pooled.key.first_chunk().map_or(0, |pid| u32::from_be_bytes(*pid));
                twins.block || pins.contains(&format!("\"pid\":{pid},"))
            };
            let all = sessions.iter().enumerate().filter_map(|(at, twins)| Some((at, twins.as_ref()?)));
            let oldest = all.filter(|(_, twins)| keeps(twins)).min_by_key(|(_, twins)| twins.holds);
            let Some((oldest, _)) = oldest else {
                // In between two looks of the list, or what is let go of after a time.
                if waiting.speaks_within(DRAWN) {
                    return Ok(());
                }
                return Err(format!("waits for a server, and nobody keeps one\n  gave one up: {reasons:?}\n  {pins}"));
            };
            reasons.push(oldest);
            tally.made_way += 1;
            self.evict(sessions, oldest, tally)?;
        }
        Err(format!("waits for a server though many have given one up: {reasons:?}"))
    }

    /// Runs one batch on both and compares everything that came. True when both connections have ended.
    fn say(
        &self,
        twins: &mut Twins,
        number: usize,
        batch: &Batch,
        sessions: &mut Sessions,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let sent = format!("{batch:?}");
        if sent.contains("DISCARD ALL") {
            // What others have told just before it may not have come through pgweir yet, and does not any more.
            twins.same_notifications()?;
        }
        let acts_as = if twins.block { None } else { twins.stale_role() };
        let both = [&mut twins.pooled, &mut twins.direct];
        let mut answers = exchange_all(both, batch, number, &mut |waiting| self.make_way(waiting, sessions, tally))?;
        for (lines, heard) in answers.iter_mut().zip(&mut twins.heard) {
            heard.extend(lines.extract_if(.., |line| line.starts_with("A ")));
        }
        let [pooled, direct] = answers;
        if let Some(role) = acts_as
            && pooled.len() == 2
            && [format!("permission denied to set role \"{role}\""), format!("role \"{role}\" does not exist")]
                .iter()
                .any(|words| pooled[0].starts_with("E FATAL") && pooled[0].ends_with(words))
        {
            tally.refused += 1;
            return Ok(true);
        }
        if pooled != direct && lost_value(&pooled, &direct, batch) {
            tally.lost_values += 1;
            return Ok(true);
        }
        if pooled != direct {
            return Err(difference(&pooled, &direct));
        }
        twins.same_parameters_soon()?;
        let status = direct.last().map(String::as_str);
        twins.block = matches!(status, Some("Z T" | "Z E"));
        twins.seeded = (twins.seeded && !sent.contains("DISCARD ALL"))
            || (sent.contains("setseed") && !direct.iter().any(|line| line.starts_with('E')));
        Ok(status == Some("the end"))
    }
}

/// Whether the first difference is that a value drawn on another server is not known here.
fn lost_value(pooled: &[String], direct: &[String], batch: &Batch) -> bool {
    let asks = format!("{batch:?}");
    let first = pooled.iter().zip(direct).find(|(one, other)| one != other);
    (asks.contains("currval") || asks.contains("lastval"))
        && first.is_some_and(|(one, other)| {
            let told = one.ends_with("currval of sequence \"numbers\" is not yet defined in this session")
                || one.ends_with("lastval is not yet defined in this session");
            told && one.starts_with("E ERROR 55000") && other.starts_with("D ")
        })
}

impl Twins {
    /// What code has reset is told behind the ReadyForQuery.
    fn same_parameters_soon(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(2);
        while self.same_parameters().is_err() && Instant::now() < until {
            hear(&mut self.pooled, &mut self.heard[0], Duration::from_millis(10), |_| false);
        }
        self.same_parameters()
    }

    fn same_parameters(&self) -> Result<(), String> {
        let (pooled, direct) = (&self.pooled.parameters, &self.direct.parameters);
        if pooled == direct {
            return Ok(());
        }
        let text = |of: &std::collections::BTreeMap<String, String>,
                    other: &std::collections::BTreeMap<String, String>| {
            let differs = of.iter().filter(|(name, value)| other.get(*name) != Some(value));
            differs.map(|(name, value)| format!("{name} = {value:?}")).collect::<Vec<_>>().join(", ")
        };
        Err(format!("ParameterStatus\n  pooled: {}\n  direct: {}", text(pooled, direct), text(direct, pooled)))
    }

    /// What others have told must be the same, but may be on its way.
    fn same_notifications(&mut self) -> Result<(), String> {
        let [pooled, direct] = &mut self.heard;
        hear(&mut self.direct, direct, Duration::from_millis(1), |_| false);
        let enough = direct.len();
        hear(&mut self.pooled, pooled, PATIENCE, |heard| heard.len() >= enough);
        if pooled == direct { Ok(()) } else { Err(format!("notifications\n{}", difference(pooled, direct))) }
    }

    /// The role that the session acts as, if it was taken away meanwhile.
    fn stale_role(&mut self) -> Option<&'static str> {
        if self.stale.is_empty() {
            return None;
        }
        let role = exchange(&mut self.direct, &Batch::query("SELECT pg_catalog.current_setting('role')"), 0);
        self.heard[1].extend(role.iter().filter(|line| line.starts_with("A ")).cloned());
        self.stale.iter().copied().find(|stale| role.iter().any(|line| line.strip_prefix("D ") == Some(stale)))
    }
}
