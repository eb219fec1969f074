//! Runs a program twice, through pgweir and on direct connections, and compares what came after every step.
//! It must never let two statements run at once, nor allow a difference that is not written down here.
//!
//! Two differences are allowed. `currval` and `lastval` may say that the session has drawn nothing (55000, PostgreSQL's words, and
//! a hint of pgweir's) where it drew on another server: then the session is given up. And: a session acts as a role (SET ROLE) that
//! a superuser has since dropped, or taken from its user. PostgreSQL lets it go on; pgweir cannot give it the role again on another
//! server. When a batch of such a session begins outside of a transaction, pgweir may end the connection with FATAL and PostgreSQL's
//! own words about that role.

use std::time::Duration;

use integration::wire::Script;
use integration::{Cluster, Pgweir};

use crate::answers::{difference, error_text, exchange, script};
use crate::common::Client;
use crate::program::{Act, Batch, SESSIONS, Step, start};
use crate::words::SHOW;

/// Servers of each user's pool.
pub const SERVERS: usize = 3;
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where programs run.
pub struct Stage {
    /// Without it both run directly.
    pub pgweir: Option<Pgweir>,
    pub pooled: std::sync::Arc<Cluster>,
    pub direct: std::sync::Arc<Cluster>,
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
    pub programs: usize,
    pub steps: usize,
    pub left_out: usize,
    pub refused: usize,
    pub lost_values: usize,
}

/// One session, twice.
struct Twins {
    pooled: Client,
    direct: Client,
    /// A transaction is open.
    block: bool,
    /// When it began to keep a server for more than a transaction, perhaps.
    holds: Option<usize>,
    /// It keeps that until it leaves, perhaps.
    sticks: bool,
    seeded: bool,
    /// Roles that were taken away since it connected.
    stale: Vec<&'static str>,
}

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
                    sticks: false,
                    seeded: false,
                    stale: Vec::new(),
                };
                twins.same_parameters().map(|()| twins)
            }
            (pooled, direct) => {
                let say = |end: Result<_, String>| end.map_or_else(|error| error, |_: Client| "welcome".into());
                Err(format!("login of session {number}\n  pooled: {}\n  direct: {}", say(pooled), say(direct)))
            }
        }
    }

    /// A superuser does something in both clusters.
    pub fn admin(&self, sql: &str) {
        for cluster in [&self.pooled, &self.direct] {
            cluster.primary().query_in(integration::DATABASE, sql).unwrap();
        }
    }

    fn clear(&self) {
        for cluster in [&self.pooled, &self.direct] {
            let admin = cluster.primary();
            let sql = "SELECT 'ROLLBACK PREPARED ' || quote_literal(gid) FROM pg_prepared_xacts";
            for row in admin.query_in(integration::DATABASE, sql).unwrap() {
                admin.query_in(integration::DATABASE, &row[0]).unwrap();
            }
        }
        self.admin("DROP ROLE IF EXISTS doomed; CREATE ROLE doomed; GRANT one, two, doomed TO plain");
    }

    /// Runs a program.
    pub fn run(&self, steps: &[Step], tally: &mut Tally) -> Result<(), Failure> {
        self.clear();
        let mut sessions: Vec<Option<Twins>> = (0..SESSIONS).map(|_| None).collect();
        for (at, step) in steps.iter().enumerate() {
            self.step(&mut sessions, at, step, tally).map_err(|what| Failure { at, what })?;
        }
        let last = |what| Failure { at: steps.len(), what };
        for (number, twins) in sessions.iter_mut().enumerate() {
            let Some(twins) = twins else { continue };
            let show = Batch::query(SHOW);
            if self
                .say(twins, number, &show, tally)
                .map_err(|what| last(format!("session {number}, in the end\n{what}")))?
            {
                *twins = self.twins(number).map_err(last)?;
            }
        }
        for (number, twins) in sessions.into_iter().enumerate() {
            let Some(mut twins) = twins else { continue };
            if number % 2 == 0 {
                twins.pooled.send(&Script::new().terminate());
            }
            twins.pooled.vanish();
            twins.direct.vanish();
        }
        crate::leaks::check(self).map_err(last)
    }

    fn step(&self, sessions: &mut [Option<Twins>], at: usize, step: &Step, tally: &mut Tally) -> Result<(), String> {
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
        if sessions[number].is_none() {
            sessions[number] = Some(self.twins(number)?);
        }
        let Some(twins) = sessions[number].as_mut() else { return Ok(()) };
        let gone = match &step.act {
            Act::Say(batch) => {
                if batch.holds && twins.holds.is_none() {
                    twins.holds = Some(at);
                }
                twins.sticks |= batch.sticks;
                self.say(twins, number, batch, tally)?
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
            Act::LetGo => self.let_go(twins, number, tally)?,
            Act::Admin { .. } => false,
        };
        if gone && let Some(twins) = sessions[number].take() {
            twins.pooled.vanish();
            twins.direct.vanish();
        }
        Ok(())
    }

    /// False when too many sessions of the same user keep a server already.
    fn make_room(
        &self,
        sessions: &mut [Option<Twins>],
        number: usize,
        batch: &Batch,
        tally: &mut Tally,
    ) -> Result<bool, String> {
        let twins = sessions[number].as_ref();
        if batch.seeded && !twins.is_some_and(|twins| twins.seeded) {
            return Ok(false);
        }
        if !batch.holds || twins.is_some_and(|twins| twins.holds.is_some()) {
            return Ok(true);
        }
        let user = start(number).0;
        let mut holding: Vec<(usize, usize)> = sessions
            .iter()
            .enumerate()
            .filter(|(other, _)| start(*other).0 == user)
            .filter_map(|(other, twins)| Some((twins.as_ref()?.holds?, other)))
            .collect();
        if holding.len() + 1 < SERVERS {
            return Ok(true);
        }
        holding.sort_unstable();
        let (Some((_, oldest)), true) = (holding.first(), batch.evicts) else { return Ok(false) };
        if let Some(twins) = sessions[*oldest].as_mut()
            && (twins.sticks || self.let_go(twins, *oldest, tally)?)
            && let Some(twins) = sessions[*oldest].take()
        {
            twins.pooled.vanish();
            twins.direct.vanish();
        }
        Ok(true)
    }

    /// Gives up everything that keeps a server. True when the connection has ended.
    fn let_go(&self, twins: &mut Twins, number: usize, tally: &mut Tally) -> Result<bool, String> {
        for sql in ["ROLLBACK", "DISCARD ALL"] {
            if self.say(twins, number, &Batch::query(sql), tally)? {
                return Ok(true);
            }
        }
        twins.holds = twins.holds.filter(|_| twins.sticks);
        twins.seeded = false;
        Ok(false)
    }

    /// Runs one batch on both and compares everything that came. True when both connections have ended.
    fn say(&self, twins: &mut Twins, number: usize, batch: &Batch, tally: &mut Tally) -> Result<bool, String> {
        let acts_as = if twins.block { None } else { twins.stale_role() };
        let direct = exchange(&mut twins.direct, batch, number);
        let pooled = exchange(&mut twins.pooled, batch, number);
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
        twins.same_parameters()?;
        let status = direct.last().map(String::as_str);
        twins.block = matches!(status, Some("Z T" | "Z E"));
        let sent = format!("{batch:?}");
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

    /// The role that the session acts as, if it was taken away meanwhile.
    fn stale_role(&mut self) -> Option<&'static str> {
        if self.stale.is_empty() {
            return None;
        }
        let role = exchange(&mut self.direct, &Batch::query("SELECT pg_catalog.current_setting('role')"), 0);
        self.stale.iter().copied().find(|stale| role.iter().any(|line| line.strip_prefix("D ") == Some(stale)))
    }
}
