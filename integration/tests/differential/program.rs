//! Random programs: what a session sends, piece by piece.
//! It must never contain what two sessions are answered differently by right: process ids, times, sizes of the machine.

use std::fmt;

use integration::wire::Script;

use crate::dice::Dice;
use crate::extended;

/// How pgweir pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A server for each transaction.
    Transaction,
    /// A server for each session.
    Session,
    /// A server for each statement: no transactions.
    Statement,
}

/// When a step has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// So many ReadyForQuery.
    Ready(usize),
    /// So many messages that end something, or one error.
    Replies(usize),
}

/// One or more messages of a step, how many ReadyForQuery they lead to, and what they say.
#[derive(Clone)]
pub struct Part {
    pub script: Script,
    pub ready: usize,
    pub about: String,
}

/// What is written at once, and how much of an answer it has.
#[derive(Clone)]
pub struct Step {
    parts: Vec<Part>,
    /// Without a ReadyForQuery: so many messages that end something.
    replies: usize,
    /// Where the write is torn apart; 0: nowhere.
    tear: usize,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| write!(f, "{} ", part.about))
    }
}

impl Step {
    /// A step that leads to so many ReadyForQuery.
    pub fn new(about: impl Into<String>, script: Script, ready: usize) -> Self {
        Self::of(vec![Part { script, ready, about: about.into() }])
    }

    /// A step of several parts, each of which can be left out.
    pub fn of(parts: Vec<Part>) -> Self {
        Self { parts, replies: 0, tear: 0 }
    }

    /// A step that leads to so many messages that end something, and to no ReadyForQuery.
    pub fn flush(about: impl Into<String>, script: Script, replies: usize) -> Self {
        Self { replies, ..Self::new(about, script, 0) }
    }

    /// A simple query.
    pub fn query(sql: &str) -> Self {
        Self::new(sql, Script::new().query(sql), 1)
    }

    /// When it has been answered.
    pub fn until(&self) -> Until {
        if self.replies > 0 {
            return Until::Replies(self.replies);
        }
        Until::Ready(self.parts.iter().map(|part| part.ready).sum())
    }

    /// The writes.
    pub fn pieces(&self) -> Vec<Vec<u8>> {
        let bytes: Vec<u8> = self.parts.iter().flat_map(|part| part.script.bytes()).copied().collect();
        let (front, back) = bytes.split_at(self.tear.min(bytes.len()));
        [front, back].into_iter().filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec).collect()
    }

    /// How many parts can be left out.
    pub fn count(&self) -> usize {
        if self.replies > 0 { 0 } else { self.parts.len() }
    }

    /// Whether part `at` is a Sync.
    pub fn is_sync(&self, at: usize) -> bool {
        self.parts[at].about == "S"
    }

    /// The same without part `at`.
    pub fn without(&self, at: usize) -> Self {
        let mut step = self.clone();
        step.parts.remove(at);
        step.tear = 0;
        step
    }
}

/// Rows come in an order that is asked for: where they lie depends on what others do at the time.
const READS: &[&str] = &[
    "SELECT 1",
    "SELECT 'a', NULL, ''",
    "SELECT i, repeat('x', i) FROM generate_series(1, 20) i",
    "SELECT * FROM $t ORDER BY id",
    "SELECT count(*) FROM $t",
    "SELECT repeat('y', 40000)",
    "SELECT repeat('z', 3000) FROM generate_series(1, 60)",
    "VALUES (1, 2), (3, 4)",
    "SHOW search_path",
    "SELECT current_setting('work_mem')",
    "SELECT nextval('$s') > 0",
    "SELECT FROM $t WHERE false",
    "TABLE $t ORDER BY id",
    "SELECT 'caf\u{e9}', U&'\\0041'",
    "EXPLAIN (COSTS OFF) SELECT * FROM $t WHERE id = 1",
];

const WRITES: &[&str] = &[
    "INSERT INTO $t VALUES (1, 'one')",
    "INSERT INTO $t VALUES (2, 'two') ON CONFLICT DO NOTHING",
    "INSERT INTO $t SELECT i, 'many' FROM generate_series(100, 110) i ON CONFLICT DO NOTHING RETURNING id",
    "UPDATE $t SET s = s || '.'",
    "DELETE FROM $t WHERE id > 100",
    "TRUNCATE $t",
    "DO $$ BEGIN RAISE NOTICE 'noticed'; RAISE WARNING 'warned'; END $$",
    "DROP TABLE IF EXISTS nosuch",
    "CREATE TABLE IF NOT EXISTS $t (id int)",
];

const ERRORS: &[&str] = &[
    "SELECT 1/0",
    "SELECT nosuch",
    "SELECT * FROM nosuch",
    "SELEC 1",
    "INSERT INTO $t VALUES (5, 'a'), (5, 'b')",
    "SELECT 1; SELECT 1/0; SELECT 2",
    "SELECT i / (i - 3) FROM generate_series(1, 5) i",
    "DO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = 'P1234', HINT = 'hint', DETAIL = 'detail'; END $$",
    "COPY nosuch FROM STDIN",
    "FETCH 1 FROM nosuch",
    "SET nosuch = 1",
    "SET work_mem = 'much'",
];

const SEVERAL: &[&str] = &[
    "",
    ";",
    "-- nothing",
    "SELECT 1; SELECT 2",
    "INSERT INTO $t VALUES (7, 'seven') ON CONFLICT DO NOTHING; SELECT count(*) FROM $t",
    "SELECT 1;; ;SELECT 2;",
];

const BLOCKS: &[&str] = &[
    "BEGIN; SELECT 1; COMMIT",
    "BEGIN; INSERT INTO $t VALUES (8, 'eight') ON CONFLICT DO NOTHING; ROLLBACK; SELECT count(*) FROM $t",
    "BEGIN; SELECT 1/0; COMMIT; SELECT 2",
];

const SESSION: &[&str] = &[
    "SET work_mem = '5MB'",
    "SET application_name = 'other'",
    "SET DateStyle = 'German'",
    "SET TimeZone = 'Asia/Tokyo'",
    "RESET work_mem",
    "RESET DateStyle",
    "RESET ALL",
    "SELECT set_config('my.own', 'value', false)",
    // PostgreSQL itself forgets the value of such a setting but not that there was one.
    "SELECT NULLIF(current_setting('my.own', true), ''), current_setting('DateStyle'), current_setting('application_name')",
    "SET search_path = public, pg_catalog",
    "LISTEN $l",
    "UNLISTEN $l",
    "UNLISTEN *",
    "NOTIFY $l, 'payload'",
    "SELECT pg_notify('$l', 'called')",
    "PREPARE q AS SELECT 1 AS prepared",
    "PREPARE r (int) AS SELECT $1 + 1, s FROM $t WHERE id = $1",
    "EXECUTE q",
    "EXECUTE r (1)",
    "DEALLOCATE q",
    "DEALLOCATE r",
    "CREATE TEMP TABLE IF NOT EXISTS mine (a int, b text)",
    "INSERT INTO mine VALUES (1, 'kept')",
    "SELECT * FROM mine",
    "DROP TABLE IF EXISTS mine",
    "DECLARE held CURSOR WITH HOLD FOR SELECT generate_series(1, 10)",
    "FETCH 3 FROM held",
    "MOVE 2 FROM held",
    "CLOSE held",
    "CLOSE ALL",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "SET ROLE NONE",
    "SELECT pg_advisory_lock($n)",
    "SELECT pg_advisory_unlock($n)",
    "SET standard_conforming_strings = off",
    "SELECT 'a\\\\b', '\\''",
    "SET standard_conforming_strings = on",
    "SET client_encoding = 'LATIN1'",
    "SET client_encoding = 'UTF8'",
    "DISCARD TEMP",
    "DISCARD PLANS",
];

/// What lives in a session without any sign of it in the text: whose `lastval` it is, nobody can know in transaction mode.
const OWN: &[&str] = &["SELECT lastval() > 0", "SELECT currval('$s') > 0", "SELECT setval('$s', 7)"];

const INSIDE: &[&str] = &[
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "SET LOCAL work_mem = '6MB'",
    "SHOW work_mem",
    "SET LOCAL DateStyle = 'SQL'",
    "DECLARE c CURSOR FOR SELECT generate_series(1, 30)",
    "FETCH 4 FROM c",
    "FETCH ALL FROM c",
    "CLOSE c",
    "LOCK TABLE $t",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "SELECT pg_advisory_xact_lock($n)",
    "PREPARE TRANSACTION 'no'",
    "BEGIN",
];

const BEGINS: &[&str] = &["BEGIN", "START TRANSACTION", "BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ"];
const ENDS: &[&str] = &["COMMIT", "ROLLBACK", "END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"];

/// Fills in the names that belong to one session's tables.
pub fn fill(sql: &str, table: u64) -> String {
    sql.replace("$$", "\u{1}")
        .replace("$t", &format!("t{table}"))
        .replace("$s", &format!("s{table}"))
        .replace("$l", &format!("l{table}"))
        .replace("$n", &format!("{}", 1000 + table))
        .replace('\u{1}', "$$")
}

/// What a program has done so far, as far as the next step depends on it.
pub struct Author<'a> {
    pub dice: &'a mut Dice,
    pub mode: Mode,
    pub table: u64,
    /// A transaction may be open, and may have failed.
    pub open: bool,
    /// Whether settings and the like are used, which in transaction mode keeps the server.
    pub lasting: bool,
    pub steps: Vec<Step>,
}

/// Steps at the front that make the tables what they were.
pub const PRELUDE: usize = 2;

/// A program of this seed, on the tables of session `table`.
pub fn program(dice: &mut Dice, mode: Mode, table: u64) -> Vec<Step> {
    let lasting = mode != Mode::Statement && dice.once_in(3);
    let mut author = Author { dice, mode, table, open: false, lasting, steps: Vec::new() };
    author.add(Step::query(&fill("TRUNCATE $t", table)));
    author.add(Step::query(&fill("INSERT INTO $t SELECT i, 'row ' || i FROM generate_series(10, 15) i", table)));
    for _ in 0..10 + author.dice.roll(40) {
        author.next();
    }
    author.steps
}

impl Author<'_> {
    /// Adds a step, now and then torn apart or in one write with the step before.
    pub fn add(&mut self, mut step: Step) {
        let joined = step.replies == 0 && self.steps.len() > PRELUDE && self.dice.once_in(6);
        if joined && let Some(last) = self.steps.pop_if(|last| last.replies == 0 && last.tear == 0) {
            let parts = [last.parts, step.parts].concat();
            step = Step::of(parts);
        }
        if self.dice.once_in(8) {
            step.tear = self.dice.roll(step.pieces().concat().len().max(1));
        }
        self.steps.push(step);
    }

    fn next(&mut self) {
        match self.dice.roll(20) {
            0..=2 => self.simple(READS),
            3 => self.simple(WRITES),
            4 => self.simple(ERRORS),
            5 => self.simple(SEVERAL),
            6 if self.mode != Mode::Statement => self.simple(BLOCKS),
            7 | 8 if self.mode != Mode::Statement => self.transaction_step(),
            9 if self.mode == Mode::Session && self.dice.once_in(5) => self.simple(OWN),
            9 if self.lasting => self.simple(SESSION),
            10 => self.copy(),
            // PostgreSQL 15 itself may crash on a call in a transaction that has failed.
            11 if !self.open => self.call(),
            _ => extended::unit(self),
        }
    }

    fn simple(&mut self, of: &[&str]) {
        let sql = fill(self.dice.pick(of), self.table);
        self.open |= sql.starts_with("BEGIN;");
        self.add(Step::query(&sql));
    }

    /// Begins, ends, or does what is done inside.
    fn transaction_step(&mut self) {
        let of = match (self.open, self.dice.roll(3)) {
            (false, 0 | 1) => BEGINS,
            (true, 0) => ENDS,
            _ => INSIDE,
        };
        let mut sql = fill(self.dice.pick(of), self.table);
        // A Parse that is answered without a server's doing takes no snapshot there (README, known differences).
        let begun = self.steps.last().and_then(|step| step.parts.last()).is_some_and(|it| BEGINS.contains(&&*it.about));
        if sql.starts_with("SET TRANSACTION") && !begun {
            sql.insert_str(0, "SELECT 1; ");
        }
        self.open = match of {
            of if of == BEGINS => true,
            of if of == ENDS => sql.ends_with("CHAIN"),
            _ => self.open || sql == "BEGIN",
        };
        self.add(Step::query(&sql));
    }

    /// COPY by a simple query: in, out, failing on either side.
    fn copy(&mut self) {
        let table = self.table;
        let rows = b"200\ta\n201\tb\n202\t\\N\n";
        let start = |sql: &str| Script::new().query(&fill(sql, table));
        let step = match self.dice.roll(8) {
            0 => Step::query(&fill("COPY (TABLE $t ORDER BY id) TO STDOUT", table)),
            1 => {
                Step::query(&fill("COPY (SELECT i, repeat('c', 500) FROM generate_series(1, 200) i) TO STDOUT", table))
            }
            2 => Step::query(&fill("COPY (TABLE $t ORDER BY id) TO STDOUT (FORMAT binary); SELECT 1", table)),
            3 => {
                let script = start("COPY $t FROM STDIN").copy_data(&rows[..8]).copy_data(&rows[8..]).copy_done();
                Step::new("copy in", script, 1)
            }
            4 => {
                let script = start("COPY $t FROM STDIN").copy_data(rows).copy_fail("changed my mind");
                Step::new("copy in and fail", script, 1)
            }
            5 => {
                let script = start("COPY $t FROM STDIN").copy_data(b"x\ty\tz\n").copy_data(rows).copy_done();
                Step::new("copy in of nonsense", script, 1)
            }
            6 => {
                let script = start("SELECT 1; COPY $t FROM STDIN; SELECT count(*) FROM $t");
                Step::new("copy in among others", script.copy_data(b"300\tq\n").flush().copy_done(), 1)
            }
            _ => {
                let many: String = (1000..4000).map(|id| format!("{id}\t{}\n", "w".repeat(40))).collect();
                let script = many.as_bytes().chunks(9_999).fold(start("COPY $t FROM STDIN"), Script::copy_data);
                Step::new("large copy in", script.copy_done(), 1)
            }
        };
        self.add(step);
    }

    /// FunctionCall (`src/backend/tcop/fastpath.c`): int4pl is 177, int4div 154.
    fn call(&mut self) {
        let (oid, arguments, format) =
            [(177u32, ["40", "2"], 0u16), (177, ["1", "2"], 1), (154, ["1", "0"], 0), (1, ["1", "1"], 0)]
                [self.dice.roll(4)];
        let mut body = oid.to_be_bytes().to_vec();
        body.extend_from_slice(&[0, 0, 0, 2]);
        for argument in arguments {
            body.extend_from_slice(&(argument.len() as u32).to_be_bytes());
            body.extend_from_slice(argument.as_bytes());
        }
        body.extend_from_slice(&format.to_be_bytes());
        self.add(Step::new(format!("call {oid}"), Script::new().raw(b'F', &body), 1));
    }
}
