//! Reads what code databases have, in band.
//! Must never keep a client waiting for a server that could have served it, but for the moment of one question.
//!
//! A server that has just come back from its client is asked before it rests: first only for a fingerprint, then, if that
//! has changed, for everything (`catalog.sql`). What it says is understood aside ([`crate::sql::code`]) and then swapped in
//! as a whole. If it would not answer, what was known stays, and is asked for again later.

use std::sync::Arc;
use std::time::Duration;

use super::attach::NO_STATEMENT;
use super::catalog::Trust;
use super::grow::take;
use super::remote::Schema;
use super::server::{UnnamedOn, Use};
use super::{PoolId, Relay, ServerId, Todo};
use crate::config::TableName;
use crate::flow::expect::{Expect, Kind, Origin};
use crate::meter::Role;
use crate::sql::code::{Code, SOURCE_BYTES};
use crate::wire::build;
use crate::wire::frame::{HEADER, Header};

/// Ahead of each question: the session's own settings must not matter, and nobody's patience either. They end with the
/// question's implicit transaction. `pg_temp` is named so that it is not searched first.
const AHEAD: &str = "SET LOCAL statement_timeout = 8000; SET LOCAL search_path = pg_catalog, pg_temp; \
    SET LOCAL client_encoding = 'UTF8'; SET LOCAL jit = off; ";
const FINGERPRINT: &str = include_str!("fingerprint.sql");
const CATALOG: &str = include_str!("catalog.sql");
const SCHEMA: &str = include_str!("schema.sql");

/// How long a server may take to answer, microseconds: then it is closed.
const READING_US: u64 = 10_000_000;
/// Pause after a question that was not answered, microseconds.
const RETRY_US: u64 = 5_000_000;
/// How much longer a look may be put off while clients wait for the server.
const PATIENCE_US: u64 = 1_000_000;
/// How long a client waits for a server that is being asked before another is opened, microseconds.
const MOMENT_US: u64 = 100_000;
/// Most bytes of an answer: source and what surrounds it.
const ANSWER_BYTES: usize = 2 * SOURCE_BYTES;

/// What [`Code::new`] wants the answer to.
pub fn catalog_question() -> String {
    let sql = CATALOG.replace("/*FINGERPRINT*/", FINGERPRINT).replace("/*LIMIT*/", &SOURCE_BYTES.to_string());
    format!("{AHEAD}{sql}")
}

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Reading {
    catalog: usize,
    /// Changes known when it was asked.
    changes: u64,
    /// Changes of the schema known then.
    schema: u64,
    /// Everything was asked for, not only the fingerprint.
    full: bool,
    /// Its schema was asked for when the cache had this epoch.
    epoch: Option<u64>,
    /// DataRow bodies.
    rows: Vec<u8>,
    failed: bool,
}

/// Whose source something is, and of when.
#[derive(Debug)]
pub struct Looked {
    pub(super) catalog: usize,
    changes: u64,
    schema: u64,
    globals: Arc<[TableName]>,
}

/// What was read, to be understood.
#[derive(Debug)]
pub struct Source {
    catalog: usize,
    changes: u64,
    schema: u64,
    rows: Vec<u8>,
    globals: Arc<[TableName]>,
}

impl Source {
    /// Understands it; takes up to a second for the largest.
    pub fn read(&self) -> Code {
        Code::new(&self.rows, |schema, name| self.globals.iter().any(|table| table.is(schema, name)))
    }

    /// Whose it is, for [`Relay::understood`].
    pub fn looked(&self) -> Looked {
        Looked { catalog: self.catalog, changes: self.changes, schema: self.schema, globals: Arc::clone(&self.globals) }
    }
}

impl Relay {
    /// Asks a server that has just come back for the code of its database, if that is due. True if it is busy with it.
    pub(super) fn read_code(&mut self, server: ServerId) -> bool {
        if self.now_us < self.catalogs.due_us {
            return false;
        }
        self.read_code_due(server)
    }

    fn read_code_due(&mut self, server: ServerId) -> bool {
        let Some(this) = self.servers.get(server) else { return false };
        let pool = &self.pools[this.pool];
        let group = &self.groups[pool.group];
        let Some(catalog) = self.catalogs.all.get(group.catalog) else { return false };
        if pool.role != Role::Primary || this.own || this.retire || this.cancels > 0 || !this.is_clean() {
            return false;
        }
        let busy = catalog.since_us.is_some_and(|since_us| self.now_us < since_us + READING_US + RETRY_US);
        let crowded = pool.slice.waiting() > 0
            && catalog.trust != Trust::Stale
            && !catalog.code.fingerprint.is_empty()
            && self.now_us < catalog.due_us.saturating_add(PATIENCE_US);
        if busy
            || crowded
            || self.draining
            || self.now_us < catalog.due_us
            || self.config.pool.catalog_refresh.is_none()
        {
            return false;
        }
        let (number, full) = (group.catalog, catalog.code.fingerprint.is_empty());
        self.ask_code(server, number, full)
    }

    /// Asks a primary at rest, or one opened for that, where only replicas are used: nobody comes back from the primary of its own accord.
    pub(super) fn read_code_for_readers(&mut self) {
        if self.now_us < self.catalogs.due_us || self.draining || self.config.pool.catalog_refresh.is_none() {
            return;
        }
        for group in self.groups.ids().collect::<Vec<_>>() {
            let group = &self.groups[group];
            let due = self.catalogs.all.get(group.catalog).is_some_and(|it| it.due_us <= self.now_us);
            let (pool, reads) = (group.primary, group.splits && !group.retired);
            if !due || !reads || self.pools[pool].is_held() {
                continue;
            }
            let this = &mut self.pools[pool];
            if let Some(server) = this.slice.lend() {
                let usable = self.servers.get_mut(server).is_some_and(|it| it.conn.is_quiet() && !it.retire);
                if !usable {
                    self.pools[pool].slice.lost();
                    self.drop_server(server);
                } else if !self.read_code_due(server) {
                    self.put(pool, server);
                }
            } else if this.slice.open() + this.slice.opening() == 0
                && !this.pauses(self.now_us)
                && take(this.stakes.iter(), true, false)
            {
                this.slice.opens();
                self.todo.push(Todo::Open(pool));
            }
        }
    }

    /// The only one who waits will have the server that is being asked in a moment: none is opened for that. The sweep
    /// looks again.
    pub(super) fn reads_for_a_moment(&self, pool: PoolId) -> bool {
        let this = &self.pools[pool];
        let catalog = self.groups.get(this.group).and_then(|group| self.catalogs.all.get(group.catalog));
        this.slice.waiting() == 1
            && catalog.is_some_and(|it| it.at == Some(pool) && self.now_us < it.looked_us + MOMENT_US)
    }

    fn ask_code(&mut self, server: ServerId, number: usize, full: bool) -> bool {
        let now_us = self.now_us;
        let Some(catalog) = self.catalogs.all.get(number) else { return false };
        let changes = catalog.changes;
        let schema = catalog.health.as_ref().map_or(0, |health| health.schema_changes());
        let wants = self.remote.is_some() && !catalog.no_schema;
        let epoch = self.cache.as_ref().filter(|_| wants).map(|store| store.epoch());
        self.catalogs.change(number, |catalog| {
            catalog.no_schema = false;
            (catalog.since_us, catalog.looked_us) = (Some(now_us), now_us);
            // Whoever changes code from now on brings it forward again.
            catalog.due_us = u64::MAX;
        });
        let Some(this) = self.servers.get_mut(server) else { return false };
        let pool = this.pool;
        self.catalogs.change(number, |catalog| catalog.at = Some(pool));
        let mut sql = if full { catalog_question() } else { format!("{AHEAD}SELECT 'f', {FINGERPRINT}") };
        if epoch.is_some() {
            sql = format!("{sql}; {SCHEMA}");
        }
        let mut out = Vec::new();
        build::query(&mut out, sql.as_bytes());
        this.use_ = Use::Cleaning { until_us: now_us + READING_US };
        this.unnamed = UnnamedOn::Nobody;
        this.unnamed_before.clear();
        this.reading =
            Some(Box::new(Reading { catalog: number, changes, schema, full, epoch, rows: Vec::new(), failed: false }));
        this.replies.expect(Expect {
            kind: Kind::Query,
            origin: Origin::Asked,
            owner: u32::MAX,
            statement: NO_STATEMENT,
            cookie: 0,
            sent_us: now_us,
            name: 0,
            note: 0,
        });
        let sent = this.send(&out);
        self.pools[this.pool].counters.total_catalog_reads.add(1);
        if !sent {
            this.wake();
        }
        true
    }

    /// A row of an answer, if one of these is on its way.
    pub(super) fn code_row(&mut self, server: ServerId, bytes: &[u8]) -> bool {
        let Some(reading) = self.servers.get_mut(server).and_then(|this| this.reading.as_mut()) else { return false };
        let whole =
            Header::peek(bytes, usize::MAX).is_ok_and(|header| header.is_some_and(|it| it.total == bytes.len()));
        reading.failed |= !whole || reading.rows.len() + bytes.len() > ANSWER_BYTES;
        if !reading.failed {
            reading.rows.extend_from_slice(bytes.get(HEADER..).unwrap_or_default());
        }
        true
    }

    /// The server would not answer.
    pub(super) fn code_unanswered(&mut self, server: ServerId) {
        if let Some(reading) = self.servers.get_mut(server).and_then(|this| this.reading.as_mut()) {
            reading.failed = true;
        }
    }

    /// The server has answered, or would not. True if it is asked more.
    pub(super) fn code_read(&mut self, server: ServerId) -> bool {
        let Some(reading) = self.servers.get_mut(server).and_then(|this| this.reading.take()) else { return false };
        let Reading { catalog: number, changes, schema, full, epoch, rows, failed } = *reading;
        let Some(catalog) = self.catalogs.all.get_mut(number) else { return false };
        catalog.at = None;
        if failed || rows.is_empty() {
            // Perhaps it was that: the next time it is not asked.
            catalog.no_schema = epoch.is_some();
            tracing::debug!(server = %self.name_of(server), "a server would not tell what code its database has");
            self.code_unknown(number);
            return false;
        }
        if let Some((epoch, text)) = epoch.zip(Code::schema_in(&rows)) {
            // What is kept here is void as well, then. Who has changed it meanwhile through this process has it asked again.
            let changed = catalog.shown.as_ref().is_some_and(|known| *known.text != *text);
            let renewed = self.cache.as_ref().filter(|_| changed).map(|store| store.renew());
            let epoch = renewed.filter(|&now| now == epoch + 1).unwrap_or(epoch);
            catalog.shown = Some(Schema { epoch, asked_us: catalog.looked_us, text: text.into() });
        }
        if full {
            let globals = Arc::clone(&catalog.globals);
            self.todo.push(Todo::Understand(Source { catalog: number, changes, schema, rows, globals }));
            return false;
        }
        if !catalog.code.is_as(&rows) {
            catalog.surprised |= catalog.trust == Trust::Full;
            return self.ask_code(server, number, true);
        }
        self.code_known(number, (changes, schema));
        false
    }

    /// Somebody has changed code without us: what ran since then may have left what nobody asked about.
    fn code_ran_unseen(&mut self, number: usize) {
        for server in self.servers.ids().collect::<Vec<_>>() {
            let Some(this) = self.servers.get_mut(server) else { continue };
            this.retire |= !this.own && self.groups[self.pools[this.pool].group].catalog == number;
        }
    }

    /// The server is gone with the answer.
    pub(super) fn code_lost(&mut self, reading: &Reading) {
        self.code_unknown(reading.catalog);
    }

    /// It could not be read: what was known stays, and is tried again later.
    pub fn code_unknown(&mut self, number: usize) {
        let now_us = self.now_us;
        self.catalogs.change(number, |catalog| {
            (catalog.since_us, catalog.at) = (None, None);
            catalog.due_us = now_us + RETRY_US;
            // Of what was never read nobody can say which statements run code.
            if catalog.trust == Trust::Stale && !catalog.code.fingerprint.is_empty() {
                catalog.trust = Trust::Doubt;
            }
        });
    }

    /// Takes over what a catalog's source says.
    pub fn understood(&mut self, looked: &Looked, code: Code) {
        let (number, known) = (looked.catalog, (looked.changes, looked.schema));
        if self.catalogs.all.get(number).is_some_and(|catalog| !Arc::ptr_eq(&catalog.globals, &looked.globals)) {
            // Other tables are asked after now.
            self.catalogs.change(number, |catalog| (catalog.since_us, catalog.due_us) = (None, 0));
            return;
        }
        if let Some(catalog) = self.catalogs.all.get(number)
            && code.is_too_large
            && !catalog.code.is_too_large
        {
            tracing::warn!(
                server = %catalog.endpoint,
                database = %catalog.dbname,
                "the database has more than {} MiB of code: pgweir does not look into its functions",
                SOURCE_BYTES >> 20
            );
        }
        let (mut unseen, mut renewed, mut surprise) = (false, false, false);
        self.catalogs.epoch = self.catalogs.epoch.checked_add(1).unwrap_or(1);
        // Of a database that is too large nothing is known: the grammar alone decides.
        let epoch = if code.is_too_large { 0 } else { self.catalogs.epoch };
        self.catalogs.change(number, |catalog| {
            (catalog.epoch, catalog.vain) = (epoch, 0);
            unseen = std::mem::take(&mut catalog.surprised) && !catalog.code.does_as(&code);
            // Nobody here has noted that it might be another.
            surprise = catalog.trust == Trust::Full && catalog.schema == looked.schema;
            catalog.stands.clear();
            catalog.sources.clear();
            catalog.written.clear();
            catalog.deps.clear();
            renewed = !std::mem::replace(&mut catalog.code, code).fingerprint.is_empty();
            catalog.shapes.clear();
        });
        if unseen {
            self.code_ran_unseen(number);
        }
        self.shapes.forget_refused();
        if renewed {
            self.sources_renewed(number, surprise);
        }
        self.code_known(number, known);
    }

    fn code_known(&mut self, number: usize, (changes, schema): (u64, u64)) {
        let (now_us, refresh) = (self.now_us, self.config.pool.catalog_refresh.unwrap_or(Duration::MAX));
        self.catalogs.change(number, |catalog| {
            (catalog.since_us, catalog.schema) = (None, schema);
            if catalog.changes == changes {
                catalog.trust = Trust::Full;
                catalog.fresh = Vec::new();
                let next_us = now_us.saturating_add(u64::try_from(refresh.as_micros()).unwrap_or(u64::MAX));
                catalog.due_us = next_us.min(catalog.due_us);
            } else {
                catalog.due_us = 0;
            }
        });
    }
}
