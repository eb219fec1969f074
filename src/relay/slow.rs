//! The statements that took longest lately, one by one: for `SHOW SLOW`, and a line each in the log.
//! Must never show a value of a statement's unless that is asked for, nor cost more than a comparison where a statement is not slow.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::client::Client;
use super::notes::Note;
use super::{ClientId, PoolId, Relay};
use crate::meter::{Bypass, Miss, Role, Sample};
use crate::sql::tags::tags;
use crate::sql::wish;
use crate::wire::error::SqlState;

/// So many are kept, the newest.
const KEPT: usize = 100;
/// So many in a second are kept and written to the log, the rest is counted: where a server stands still every statement is slow.
const A_SECOND: u32 = 20;

/// Most tags of a statement that are kept, and most bytes of what each says.
const TAGS: usize = 32;
const TAG_BYTES: usize = 256;

/// Why a statement was not answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyRun {
    /// There is none for its database and user.
    Off,
    /// It was not looked up: its client had a server already, or its batch is too long to be looked at.
    Unasked,
    /// It is not one to be looked up, for this reason.
    Bypassed(Bypass),
    /// There was no answer, for this reason.
    Missed(Miss),
    /// There was one, which is compared with what comes.
    Compared,
    /// There was one, which is asked for anew before its end, or behind it.
    Renewed,
}

impl WhyRun {
    /// Its name: `off`, `unasked`, `compared`, `renewed`, or `bypass` or `miss`, a colon and the reason, as the metrics call that.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Unasked => "unasked".into(),
            Self::Bypassed(why) => format!("bypass:{}", why.name()),
            Self::Missed(why) => format!("miss:{}", why.name()),
            Self::Compared => "compared".into(),
            Self::Renewed => "renewed".into(),
        }
    }
}

/// A statement that was slow.
#[derive(Clone, Debug)]
pub struct SlowQuery {
    /// When it was over, µs of [`crate::base::clock`].
    pub done_us: u64,
    /// Its shape.
    pub shape: u64,
    /// Its text without values.
    pub text: Arc<str>,
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// The server that ran it.
    pub host: Arc<str>,
    /// What that was for the client.
    pub role: Role,
    /// How far it was behind, µs.
    pub lag_us: u64,
    /// It shared the server with others' reads.
    pub rode: bool,
    /// What it took.
    pub sample: Sample,
    /// It has failed so.
    pub code: Option<SqlState>,
    /// Where its client comes from; `None` for a unix socket, and for one that is gone.
    pub client: Option<SocketAddr>,
    /// What the client calls itself.
    pub application_name: Box<str>,
    /// Why the cache did not answer it.
    pub why: WhyRun,
    /// What its comments say: tags as sqlcommenter defines them, and as `pgweir` what is asked of this program.
    pub tags: Vec<(String, String)>,
    /// If that is asked for the values it was bound with, or of a simple Query its text as it was sent.
    pub parameters: Option<Arc<str>>,
}

impl SlowQuery {
    /// The tags as sqlcommenter writes them, but that what they say is not encoded.
    #[must_use]
    pub fn tags_text(&self) -> String {
        let one = |(key, value): &(String, String)| format!("{key}='{}'", value.replace('\'', "\\'"));
        self.tags.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// What is known of a statement beside what it took.
pub(super) struct Circumstances {
    /// It rode in a lane.
    pub rode: bool,
    /// It has failed so.
    pub code: Option<SqlState>,
    /// What was noted of it.
    pub note: Option<Note>,
}

/// What the comments of a statement say.
fn said(note: &Note) -> Vec<(String, String)> {
    let (sql, conforming) = note.text();
    let mut all = tags(sql, conforming);
    let asked = wish::asked(sql, conforming);
    if !asked.is_empty() {
        all.insert(0, (b"pgweir".to_vec(), asked));
    }
    let text = |bytes: Vec<u8>| crate::flow::values::beginning(&bytes, TAG_BYTES);
    all.into_iter().take(TAGS).map(|(key, value)| (text(key), text(value))).collect()
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(super) struct Slow {
    last: VecDeque<SlowQuery>,
    /// The second that is counted in, and how many there were.
    second: u64,
    count: u32,
}

impl Slow {
    /// Whether another of this moment is kept.
    fn takes(&mut self, now_us: u64) -> bool {
        let second = now_us / 1_000_000;
        if self.second != second {
            (self.second, self.count) = (second, 0);
        }
        self.count += 1;
        self.count <= A_SECOND
    }

    pub(super) fn forget(&mut self) {
        self.last.clear();
    }

    fn keep(&mut self, query: SlowQuery) {
        self.last.truncate(KEPT - 1);
        self.last.push_front(query);
    }
}

impl Relay {
    /// A client's statement is over, in a pool whose group calls it slow.
    #[cold]
    pub(super) fn is_slow(
        &mut self,
        pool: PoolId,
        id: Option<ClientId>,
        shape: u64,
        sample: Sample,
        Circumstances { rode, code, note }: Circumstances,
    ) {
        let this = &self.pools[pool];
        this.counters.total_slow_queries.add(1);
        if !self.slow.takes(self.now_us) {
            return;
        }
        let group = &self.groups[this.group];
        let client = id.and_then(|id| self.clients.get(id));
        let name =
            client.and_then(|client| client.params.settings.iter().find(|(name, _)| name == b"application_name"));
        let member = group.cluster.members.get(this.number).filter(|_| this.role == Role::Replica);
        let query = SlowQuery {
            done_us: self.now_us,
            shape,
            text: self.shapes.text(shape),
            database: group.database.clone(),
            user: group.user.clone(),
            host: Arc::clone(&this.counters.target.host),
            role: this.role,
            lag_us: member.map_or(0, |member| member.lag_us(self.now_us)),
            rode,
            sample,
            code,
            client: client.and_then(|client| self.comes_from(client.number).or(client.conn.socket().ends().0)),
            application_name: name.map_or_else(Box::default, |(_, value)| String::from_utf8_lossy(value).into()),
            why: match client.and_then(Client::why_run) {
                Some(why) if group.terms.caches => why,
                None if group.terms.caches => WhyRun::Unasked,
                _ => WhyRun::Off,
            },
            tags: note.as_ref().map(said).unwrap_or_default(),
            parameters: note.and_then(|note| note.values).map(|values| Arc::from(&*values)),
        };
        log(&query);
        self.slow.keep(query);
    }

    /// The last that were slow, newest first; at most 100.
    pub fn slow_queries(&self) -> Vec<SlowQuery> {
        self.slow.last.iter().cloned().collect()
    }
}

/// A line in the log.
fn log(query: &SlowQuery) {
    let SlowQuery { shape, sample, .. } = *query;
    let milliseconds = |us: u64| us as f64 / 1e3;
    tracing::info!(
        target: "pgweir::slow",
        database = query.database,
        user = query.user,
        shape = format_args!("{shape:016x}"),
        total_ms = milliseconds(sample.wait_us + sample.server_us),
        wait_ms = milliseconds(sample.wait_us),
        first_byte_ms = milliseconds(sample.first_us),
        server_ms = milliseconds(sample.server_us),
        rows = sample.rows,
        sqlstate = query.code.map(|code| code.as_str().to_owned()),
        server = %query.host,
        role = query.role.as_str(),
        lag_ms = milliseconds(query.lag_us),
        lane = query.rode,
        client = query.client.map_or_else(|| "unix".to_owned(), |client| client.to_string()),
        // As text, which is quoted: what a client says must not begin a line of its own.
        application_name = &*query.application_name,
        cache = query.why.name(),
        tags = query.tags_text(),
        query = &*query.text,
        parameters = query.parameters.as_deref(),
        "a statement was slow"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_in_a_second_some_are_kept() {
        let mut slow = Slow::default();
        let takes = |slow: &mut Slow, at_us| (0..50).filter(|_| slow.takes(at_us)).count() as u32;
        assert_eq!((takes(&mut slow, 5_000_000), takes(&mut slow, 5_999_999)), (A_SECOND, 0));
        assert_eq!(takes(&mut slow, 6_000_000), A_SECOND);
    }
}
