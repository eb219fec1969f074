//! What clients run, for the audit log: from where a statement is noted to the line that says what became of it.
//! Must never leave a statement out that may have run, nor show a value that nobody asked for.
//!
//! A statement is noted when it is forwarded ([`super::notes`]), with who runs it: by the time its answer comes its client may be gone.
//! What became of it is known at the end of its batch. What a batch did not come to, behind a statement that failed, is told of as
//! skipped, what is refused here before any server has it as refused, and what was under way on a connection that is lost as unknown.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::lane::Rider;
use super::shapes::LONG;
use super::{Client, ClientId, GroupId, PoolId, Relay, ServerId};
use crate::audit::stamp;
use crate::config;
use crate::flow::expect::{Expect, Origin};
use crate::flow::replies::Outcome;
use crate::flow::requests::End;
use crate::flow::values::beginning;
use crate::meter::ShapeSum;
use crate::sql::classify::classify;
use crate::sql::deeds::{Deeds, deeds};
use crate::sql::shape::{normalized, scan};
use crate::sql::verdict::Effects;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::{HEADER, Header, cstr};
use crate::wire::tag;

/// Most bytes of a text without values that are written.
const TEXT_BYTES: usize = 16 * 1024;
/// Most shapes of which is remembered what they do.
const MAX_SHAPES: usize = 20_000;
/// What stands for the text of a FunctionCall.
const FUNCTION_CALL: &str = "(function call)";
/// What stands for a text that is not kept.
const UNKEPT: &str = "(a statement too long to be kept, or prepared under a name that SQL made)";

/// Which statements are audited, and how.
#[derive(Debug)]
pub(super) struct Auditor {
    wanted: Deeds,
    /// So many bytes of values.
    values: usize,
    known: HashMap<u64, Deeds, foldhash::fast::RandomState>,
}

impl Auditor {
    /// As the configuration says, if it does.
    pub fn of(config: Option<&config::Audit>) -> Option<Box<Self>> {
        let deed = |what: &config::Audited| match what {
            config::Audited::Ddl => Deeds::DDL,
            config::Audited::Dml => Deeds::DML,
            config::Audited::Role => Deeds::ROLE,
            config::Audited::Call => Deeds::CALL,
        };
        let config = config?;
        // What nobody can tell may be any of them.
        let wanted = config.what.iter().map(deed).fold(Deeds::UNKNOWN, Deeds::union);
        Some(Box::new(Self { wanted, values: config.parameter_bytes as usize, known: HashMap::default() }))
    }
}

/// A statement that is audited.
#[derive(Clone, Debug)]
pub(super) struct Audited {
    deeds: Deeds,
    shape: u64,
    text: Arc<str>,
    /// What it was given, for people.
    pub values: Option<Rc<str>>,
    /// Of its client.
    pid: u32,
    from: Option<SocketAddr>,
    application_name: Box<str>,
    /// When it was forwarded, microseconds.
    pub sent_us: u64,
    /// When what is known of its end came; 0: nothing is.
    done_us: u64,
    rows: u64,
    /// What the server calls what it has done.
    commands: Vec<String>,
    /// It failed.
    code: Option<SqlState>,
    /// It was refused here.
    refused: bool,
    /// It is answered together with the end of its batch: a Query, or a FunctionCall.
    whole: bool,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    database: &'a str,
    user: &'a str,
    application_name: &'a str,
    client: Option<SocketAddr>,
    pid: u32,
    kinds: Vec<&'static str>,
    shape: String,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a str>,
    commands: &'a [String],
    rows: u64,
    outcome: &'static str,
    sqlstate: Option<&'a str>,
    server: Option<&'a str>,
    ms: f64,
}

impl Relay {
    /// What a statement does, if such are audited, and how many bytes of its values are wanted.
    fn audits(&mut self, shape: u64, sql: &[u8], conforming: bool) -> Option<(Deeds, usize)> {
        let auditor = self.audit.as_deref_mut()?;
        let all = match auditor.known.get(&shape) {
            Some(known) => *known,
            None if shape == LONG => Deeds::UNKNOWN,
            None => {
                let verdict = self.shapes.verdict(shape).unwrap_or_else(|| classify(sql, &scan(sql, conforming)));
                let all = deeds(sql, conforming, verdict);
                // What set_config sets is in a value.
                let varies = Effects::SET_CONFIG | Effects::SET_LOCAL;
                if verdict.follows_from_shape() && !verdict.effects.any(varies) {
                    if auditor.known.len() >= MAX_SHAPES {
                        auditor.known.clear();
                    }
                    auditor.known.insert(shape, all);
                }
                all
            }
        };
        all.any(auditor.wanted).then_some((all, auditor.values))
    }

    /// What there is to say of a statement of this client's before it runs, if such are audited. `values` is given how many bytes
    /// of them are wanted.
    pub(super) fn audited(
        &mut self,
        id: ClientId,
        (shape, sql): (u64, &[u8]),
        whole: bool,
        values: impl FnOnce(usize) -> String,
    ) -> Option<Box<Audited>> {
        let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
        let (deeds, limit) = self.audits(shape, sql, conforming)?;
        let text = match self.shapes.known(shape) {
            Some((text, _)) if !text.ends_with('…') => text,
            Some((text, _)) if sql.is_empty() => text,
            None if sql.is_empty() => UNKEPT.into(),
            _ => normalized(sql, conforming, TEXT_BYTES).into(),
        };
        let values = (limit > 0).then(|| values(limit).into());
        Some(self.audited_as(id, (deeds, shape, text), values, whole))
    }

    fn audited_as(
        &self,
        id: ClientId,
        (deeds, shape, text): (Deeds, u64, Arc<str>),
        values: Option<Rc<str>>,
        whole: bool,
    ) -> Box<Audited> {
        let client = self.clients.get(id);
        let name =
            client.and_then(|client| client.params.settings.iter().find(|(name, _)| name == b"application_name"));
        let from = |client: &Client| self.comes_from(client.number).or(client.conn.socket().ends().0);
        Box::new(Audited {
            deeds,
            shape,
            text,
            values,
            pid: self.told_pid(id),
            from: client.and_then(from),
            application_name: name.map_or_else(Box::default, |(_, value)| String::from_utf8_lossy(value).into()),
            sent_us: self.now_us,
            done_us: 0,
            rows: 0,
            commands: Vec::new(),
            code: None,
            refused: false,
            whole,
        })
    }

    /// The same of a FunctionCall.
    pub(super) fn audited_call(&self, id: ClientId) -> Option<Box<Audited>> {
        let wanted = self.audit.as_ref()?.wanted;
        let one = (Deeds::CALL, 0, FUNCTION_CALL.into());
        wanted.any(Deeds::CALL).then(|| self.audited_as(id, one, None, true))
    }

    /// The same of what is run that nobody here has the text of.
    pub(super) fn audited_unkept(&self, id: ClientId) -> Option<Box<Audited>> {
        self.audit.as_ref()?;
        Some(self.audited_as(id, (Deeds::UNKNOWN, LONG, UNKEPT.into()), None, false))
    }

    /// A statement is over, or one of several in a Query.
    pub(super) fn audit_completed(&mut self, server: ServerId, entry: &Expect, outcome: Outcome, bytes: &[u8]) {
        let now_us = self.now_us;
        let Some(it) = self.audited_under_way(server, entry.note) else { return };
        (it.done_us, it.rows) = (now_us, it.rows + outcome.rows);
        if let (Some(&tag::server::COMMAND_COMPLETE), Some((command, _))) =
            (bytes.first(), bytes.get(HEADER..).and_then(cstr))
        {
            it.commands.push(String::from_utf8_lossy(command).into_owned());
        }
    }

    fn audited_under_way(&mut self, server: ServerId, number: u64) -> Option<&mut Audited> {
        let notes = self.servers.get_mut(server)?.notes.as_deref_mut()?;
        notes.get_mut(number)?.audit.as_deref_mut()
    }

    /// A message of a client's has failed.
    pub(super) fn audit_failed(&mut self, server: ServerId, owner: Option<ClientId>, entry: &Expect, code: SqlState) {
        if self.audit.is_none() {
            return;
        }
        let now_us = self.now_us;
        let refusal = if entry.origin == Origin::Refused { self.bar_told(owner, entry) } else { None };
        let code = refusal.as_ref().map_or(code, |refusal| refusal.code);
        if let Some(it) = self.audited_under_way(server, entry.note) {
            (it.code, it.done_us) = (Some(code), now_us);
            return;
        }
        // Of what was to be prepared, bound or described, or was refused, the shape is known.
        let Some((text, _)) = self.shapes.known(entry.cookie) else { return };
        let id = owner.unwrap_or_default();
        let Some(mut it) = self.audited(id, (entry.cookie, text.as_bytes()), false, |_| String::new()) else { return };
        (it.code, it.refused, it.sent_us, it.done_us) = (Some(code), refusal.is_some(), entry.sent_us, now_us);
        it.values = None;
        if let Some(this) = self.servers.get_mut(server) {
            this.notes.get_or_insert_default().failed.get_or_insert(it);
        }
    }

    /// A batch is over, of which these were noted, and in which this has failed that was not.
    pub(super) fn audit_over(&mut self, pool: PoolId, ended: Vec<Audited>, failed: Option<Box<Audited>>) {
        let mut code = None;
        let mut untold = failed;
        for it in ended {
            let outcome = match (&it, &untold) {
                (Audited { code: Some(_), .. }, _) => {
                    code = it.code;
                    "failed"
                }
                _ if it.whole || it.done_us > 0 => "ok",
                (_, Some(failed)) if failed.shape == it.shape => {
                    code = failed.code;
                    let refused = failed.refused;
                    untold = None;
                    if refused { "refused" } else { "failed" }
                }
                (_, failed) => {
                    code = failed.as_ref().map_or(code, |failed| failed.code);
                    "skipped"
                }
            };
            let code = if outcome == "ok" { None } else { code };
            self.report(self.pools[pool].group, Some(pool), &it, (outcome, code));
        }
        if let Some(it) = untold {
            let outcome = if it.refused { "refused" } else { "failed" };
            self.report(self.pools[pool].group, Some(pool), &it, (outcome, it.code));
        }
    }

    /// The connection is closed with these under way.
    pub(super) fn audit_lost(&mut self, pool: PoolId, under_way: Vec<Audited>) {
        for it in under_way {
            let outcome = match it.code {
                Some(_) => "failed",
                None if it.done_us > 0 && !it.whole => "ok",
                None => "unknown",
            };
            self.report(self.pools[pool].group, Some(pool), &it, (outcome, it.code));
        }
    }

    /// The batch at the front of a client's bytes is refused before a server has it.
    pub(super) fn audit_refused(&mut self, id: ClientId, data: &[u8], error: &PgError) {
        let Some(group) = self.clients.get(id).map(|client| client.group) else { return };
        let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
        let end = match data.first() {
            Some(&tag::client::QUERY) => End::Query,
            Some(&tag::client::FUNCTION_CALL) => End::Call,
            _ => End::Sync,
        };
        self.each_statement(id, data, end, |look, sql| {
            if found.iter().all(|(shape, _)| *shape != look.shape) {
                found.push((look.shape, sql.to_vec()));
            }
        });
        if end == End::Query
            && Header::peek(data, usize::MAX).is_ok_and(|header| header.is_some_and(|header| header.total > data.len()))
        {
            // Too long to be looked at, or not here yet.
            found = vec![(LONG, data.get(HEADER..).unwrap_or_default().to_vec())];
        }
        let call = if end == End::Call { self.audited_call(id) } else { None };
        for (shape, sql) in found {
            if let Some(it) = self.audited(id, (shape, &sql), true, |limit| beginning(&sql, limit)) {
                self.report(group, None, &it, ("refused", Some(error.code)));
            }
        }
        if let Some(it) = call {
            self.report(group, None, &it, ("refused", Some(error.code)));
        }
    }

    /// A request that shared a server is over.
    #[cold]
    pub(super) fn audit_rider(&mut self, pool: PoolId, rider: &Rider) {
        let (shape, group) = (rider.fare.shape, self.pools[pool].group);
        let Some(client) = self.clients.get(rider.client) else { return };
        let query = || {
            let batch = client.inbox.get(..rider.fare.bytes)?;
            let header = Header::peek(batch, usize::MAX).ok()??;
            let body = batch.get(HEADER..header.total).filter(|_| header.tag == tag::client::QUERY)?;
            Some(cstr(body)?.0.to_vec())
        };
        let sql = match &rider.fare.statement {
            Some(statement) => statement.sql().to_vec(),
            None => query().unwrap_or_default(),
        };
        let mut limit = 0;
        let wants = |wanted| {
            limit = wanted;
            String::new()
        };
        let Some(mut it) = self.audited(rider.client, (shape, &sql), true, wants) else { return };
        it.values = it.values.and_then(|_| self.noted_of_rider(rider, limit)?.values);
        (it.sent_us, it.done_us, it.rows) = (rider.came_us, self.now_us, rider.rows);
        match rider.failed {
            Some(code) => self.report(group, Some(pool), &it, ("failed", Some(code))),
            None => {
                // Nothing rides but reads, which say no more than that.
                it.commands.push(format!("SELECT {}", rider.rows));
                self.report(group, Some(pool), &it, ("ok", None));
            }
        }
    }

    fn report(
        &self,
        group: GroupId,
        pool: Option<PoolId>,
        it: &Audited,
        (outcome, code): (&'static str, Option<SqlState>),
    ) {
        let done_us = if it.done_us > 0 { it.done_us } else { self.now_us };
        let ago = Duration::from_micros(crate::base::clock::now_us().saturating_sub(done_us));
        let now = SystemTime::now();
        let group = &self.groups[group];
        let line = Line {
            time: stamp(now.checked_sub(ago).unwrap_or(now)),
            database: &group.database,
            user: &group.user,
            application_name: &it.application_name,
            client: it.from,
            pid: it.pid,
            kinds: it.deeds.names().collect(),
            shape: ShapeSum::name(Some(it.shape)),
            text: &it.text,
            parameters: it.values.as_deref(),
            commands: &it.commands,
            rows: it.rows,
            outcome,
            sqlstate: code.as_ref().map(SqlState::as_str),
            server: pool.map(|pool| &*self.pools[pool].counters.target.host),
            ms: done_us.saturating_sub(it.sent_us) as f64 / 1e3,
        };
        if let Ok(line) = serde_json::to_string(&line) {
            self.place.audit.tell(line);
        }
    }
}
