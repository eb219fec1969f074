//! Heartbeats through a stream of changes, and what is asked beside it: the publication, and what nobody tells of.
//! Must never count a heartbeat before which a change of the schema was made that is not visible yet.
//!
//! Such a change is known from the stream, or was made before that began: then the transaction that made it has a number below the gate's.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stream::{BEAT, Course, Known};
use crate::base::clock;
use crate::cache::Feed;
use crate::cache::feed::{Table, Tables};
use crate::cache::marks::Dependency;
use crate::cache::row::Identity;
use crate::cache::unseen::Snapshot;
use crate::server::open::{Dial, OpenError};
use crate::server::talk::Talk;
use crate::sql::code_graph::rows;
use crate::wire::lsn::parse_lsn;

const TABLES: &str = include_str!("stream_tables.sql");
const RIGHTS: &str = include_str!("stream_rights.sql");

/// Settings of the connection: names are PostgreSQL's own, each statement has its own snapshot, and no commit waits for a standby.
pub(super) const STARTUP: [(&str, &str); 9] = [
    ("search_path", "pg_catalog"),
    ("client_encoding", "UTF8"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("synchronous_commit", "local"),
    ("statement_timeout", "10s"),
    ("idle_session_timeout", "0"),
    ("application_name", "pgweir cache"),
];

/// While nobody has asked for so long, only each so many-th heartbeat is sent: whoever asks next asks a server.
const REST: Duration = Duration::from_secs(10);
/// See there.
const IDLE: u32 = 10;
/// Commits on record at which one is sent all the same.
const MANY: usize = 4096;

/// The first server whose `pgoutput` passes messages on.
const MAJOR_MIN: u32 = 14;

/// Who sends heartbeats.
pub(super) struct Beats {
    talk: Talk,
    feed: Arc<Feed>,
    nonce: u64,
    /// As a literal.
    publication: String,
    interval: Duration,
    refresh: Duration,
    number: u64,
    due: Instant,
    /// When somebody had asked last, and heartbeats that were due since.
    used: Instant,
    idle: u32,
    /// A transaction of when the slot had been made: until all before it have ended nothing counts.
    gate: u64,
    /// None has counted.
    is_first: bool,
    /// Of the publication, as it was read last.
    print: Vec<u8>,
    rights: Vec<u8>,
    looked: Instant,
}

/// What the server says at a heartbeat.
struct Beat {
    written: u64,
    snapshot: Snapshot,
    print: Vec<u8>,
}

fn senseless() -> OpenError {
    OpenError::Login("the server answers questions about its transactions as no PostgreSQL does".into())
}

impl Beats {
    /// Connects and reads the publication, before a slot is made.
    pub async fn begin(dial: &Dial, course: &Course, feed: &Arc<Feed>, nonce: u64) -> Result<Self, OpenError> {
        let talk = Talk::connect(dial, course.limit).await?;
        if talk.major() < MAJOR_MIN {
            let version = &talk.version;
            return Err(OpenError::Login(format!("invalidation = \"logical\" needs PostgreSQL 14, this is {version}")));
        }
        let publication = format!("'{}'", course.settings.publication.replace('\'', "''"));
        let now = Instant::now();
        let mut this = Self {
            talk,
            feed: Arc::clone(feed),
            nonce,
            publication,
            interval: course.settings.interval(),
            refresh: course.refresh,
            number: 0,
            due: now,
            used: now,
            idle: 0,
            gate: u64::MAX,
            is_first: true,
            print: Vec::new(),
            rights: Vec::new(),
            looked: now,
        };
        let print = format!("SELECT {}", this.print_sql());
        let row = this.talk.rows(&print).await?;
        this.print = rows(&row).next().map(|[print, ..]| print.to_vec()).unwrap_or_default();
        this.rights = this.talk.rows(RIGHTS).await?;
        let tables = this.tables().await?;
        feed.set_tables(tables);
        Ok(this)
    }

    /// The slot is made: whoever has committed by now and is not visible yet began before this.
    pub async fn close_gate(&mut self) -> Result<(), OpenError> {
        let row = self.talk.rows("SELECT pg_current_xact_id()").await?;
        let xid = rows(&row).next().and_then(|[xid, ..]| std::str::from_utf8(xid).ok()?.parse().ok());
        self.gate = xid.ok_or_else(senseless)?;
        Ok(())
    }

    /// Something that is another when the publication is: NULL if there is none.
    fn print_sql(&self) -> String {
        let of_schemas = if self.talk.major() > 14 {
            ", (SELECT sum(hashtext(concat(s.xmin, ':', s.oid))) FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)"
        } else {
            ""
        };
        format!(
            "(SELECT concat_ws(':', p.xmin, p.oid, (SELECT sum(hashtext(concat(r.xmin, ':', r.oid))) FROM pg_publication_rel r \
             WHERE r.prpubid = p.oid){of_schemas}) FROM pg_publication p WHERE p.pubname = {})",
            self.publication
        )
    }

    async fn tables(&mut self) -> Result<Tables, OpenError> {
        let answer = self.talk.rows(&TABLES.replace("/*PUBLICATION*/", &self.publication)).await?;
        let table = |[oid, name, lack, rows, identity]: [&[u8]; 5]| {
            let oid = std::str::from_utf8(oid).ok()?.parse::<u32>().ok()?;
            let (name, lack) = (String::from_utf8_lossy(name), String::from_utf8_lossy(lack));
            let table = Table::new(&name, Some(&*lack).filter(|lack| !lack.is_empty()), rows == b"t");
            Some((oid, table.told_by(Identity::of_json(identity))))
        };
        Ok(rows(&answer).filter_map(table).collect())
    }

    /// Sends heartbeats until something goes wrong.
    pub async fn go_on(&mut self, known: &RefCell<Known>, came: &Notify) -> Result<Infallible, OpenError> {
        loop {
            self.once(known, came).await?;
        }
    }

    /// Waits until the next is due, sends it, and takes note of it when it has come back.
    async fn once(&mut self, known: &RefCell<Known>, came: &Notify) -> Result<(), OpenError> {
        sleep_until(self.due).await;
        self.due = Instant::now() + self.interval;
        let is_wanted = {
            let known = known.borrow();
            if self.feed.take_used() {
                (self.used, self.idle) = (self.due, 0);
            }
            self.due - self.used < REST || known.unseen.len() > MANY || !known.schema.is_empty()
        };
        self.idle += 1;
        if !is_wanted && self.number > 0 && !self.idle.is_multiple_of(IDLE) {
            return Ok(());
        }
        self.number += 1;
        let sent_us = clock::now_us();
        let beat = self.send().await?;
        while known.borrow().back.0 < self.number {
            came.notified().await;
        }
        if beat.snapshot.xmin <= self.gate {
            return Ok(());
        }
        let mut schema = {
            let mut known = known.borrow_mut();
            let (_, end) = known.back;
            let mut before = known.schema.iter().filter(|(_, changed)| *changed < end);
            if before.any(|(xid, _)| !beat.snapshot.shows(*xid)) {
                return Ok(());
            }
            let all = known.schema.len();
            known.schema.retain(|(_, changed)| *changed >= end);
            known.schema.len() < all
        };
        known.borrow().health.iter().for_each(|health| health.stream.schema.add(u64::from(schema)));
        // Nobody has told of what the schema was before.
        schema |= std::mem::take(&mut self.is_first);
        self.look(known, &beat, schema).await?;
        let mut known = known.borrow_mut();
        let safe = known.unseen.safe(&beat.snapshot, beat.written);
        self.feed.beats(sent_us, safe);
        known.health.iter().for_each(|health| health.stream.fresh_us.store(sent_us, Relaxed));
        Ok(())
    }

    async fn send(&mut self) -> Result<Beat, OpenError> {
        let Self { nonce, number, .. } = self;
        let message = format!("{nonce:x} {number}");
        // Three statements: the last one's transaction must have no number yet when the snapshot is taken.
        let question = format!(
            "SELECT pg_current_wal_insert_lsn(); SELECT pg_current_snapshot(), {}; \
             SELECT pg_logical_emit_message(true, '{BEAT}', '{message}')",
            self.print_sql()
        );
        let answer = self.talk.rows(&question).await?;
        let mut rows = rows(&answer);
        let (first, second) = rows.next().zip(rows.next()).ok_or_else(senseless)?;
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let [written, ..] = first;
        let [snapshot, print, ..] = second;
        let written = text(written).and_then(parse_lsn).ok_or_else(senseless)?;
        let snapshot = text(snapshot).and_then(Snapshot::parse).ok_or_else(senseless)?;
        Ok(Beat { written, snapshot, print: print.to_vec() })
    }

    /// Looks at what is not in the stream, if it may be another by now; what began under the old is void.
    async fn look(&mut self, known: &RefCell<Known>, beat: &Beat, schema: bool) -> Result<(), OpenError> {
        if self.print != beat.print {
            // What was changed while a table was out of it has not come, and may not be visible yet: as at the beginning.
            return Err(OpenError::Login("the publication was changed".into()));
        }
        let is_due = self.looked.elapsed() > self.refresh;
        if !schema && !is_due {
            return Ok(());
        }
        let mut is_void = schema;
        if is_due {
            self.looked = Instant::now();
            let rights = self.talk.rows(RIGHTS).await?;
            if rights != self.rights {
                known.borrow().health.iter().for_each(|health| health.stream.schema.add(1));
                is_void = true;
            }
            self.rights = rights;
        }
        let tables = self.tables().await?;
        let before = self.feed.tables().map(|(tables, _)| tables).unwrap_or_default();
        if *before != tables {
            let come =
                |tables: &Tables, oid: &u32| tables.get(oid).is_some_and(|it: &Table| it.has_rows && it.lack.is_none());
            if tables.keys().any(|oid| come(&tables, oid) && !come(&before, oid)) {
                return Err(OpenError::Login("there are more tables in the publication".into()));
            }
            is_void = true;
            self.feed.set_tables(tables);
        }
        if is_void {
            let known = known.borrow();
            if let Some(health) = &known.health {
                health.change_schema();
            }
            // Also what a replica says from now on that is not there yet.
            self.feed.changed(Dependency::Schema, beat.written);
            self.feed.void(clock::now_us());
        }
        Ok(())
    }
}
