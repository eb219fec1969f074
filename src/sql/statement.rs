//! Reads one statement's words: its kind, and what it does to the session and the transaction.
//! Must never be trusted with text that the grammar has not accepted, and when in doubt reports an effect rather than none.

use crate::sql::lex::Kind;
use crate::sql::shape::First;
use crate::sql::verdict::{Effects, Reason, Route, StatementKind as S};
use crate::sql::words::Words;

/// What the words of a statement say. `read` is set where route and reason hang on its being a plain read, which the grammar decides.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub kind: S,
    pub route: Route,
    pub reason: Reason,
    pub effects: Effects,
    pub read: bool,
}

/// What a session's temporary schema is called in a search_path.
const PG_TEMP: &[u8] = b"pg_temp";

impl Words<'_> {
    /// What the statement is and does, functions aside.
    pub(crate) fn read(self) -> Reading {
        let mut reading = self.read_kind();
        for at in 0..self.len() {
            let bytes = self.bytes(at);
            // A rule of that view turns UPDATE into set_config.
            if self.name(at).is_some_and(|name| *name == *b"pg_settings") && self.has("update") {
                reading.effects |= Effects::OPAQUE;
                reading.read = false;
                reading.route = Route::Primary;
            }
            // A search_path that makes temporary what does not say so.
            if self.kind(at) != Some(Kind::Dot)
                && bytes.len() >= PG_TEMP.len()
                && bytes.windows(PG_TEMP.len()).any(|part| part.eq_ignore_ascii_case(PG_TEMP))
                && (self.is(0, "set") || self.has("set_config"))
            {
                reading.effects |= Effects::TEMP;
            }
        }
        reading
    }

    fn read_kind(self) -> Reading {
        let first = if self.kind(0) == Some(Kind::Open) { First::Select } else { First::of(self.bytes(0)) };
        match first {
            First::Select | First::Values | First::Table => self.select(),
            First::With => self.with(),
            First::Insert => write(S::Insert),
            First::Update => write(S::Update),
            First::Delete => write(S::Delete),
            First::Merge => write(S::Merge),
            First::Explain => self.explain(),
            First::Copy => Reading { read: self.copies_out(), ..primary(S::Copy, Reason::Copy, Effects::COPY) },
            First::Call => primary(S::Call, Reason::Opaque, Effects::OPAQUE),
            First::Do => primary(S::Do, Reason::Opaque, Effects::OPAQUE),
            First::Lock => primary(S::Lock, Reason::Locking, Effects::NONE),
            First::Create => self.create(),
            First::Drop => primary(S::Ddl, Reason::Ddl, Effects::DDL | Effects::DROP),
            // What is there stays what it is: rows go, as with DELETE, and no event trigger hears of it.
            First::Truncate => primary(S::Ddl, Reason::Ddl, Effects::NONE),
            First::Alter
            | First::Comment
            | First::Grant
            | First::Revoke
            | First::Security
            | First::Reassign
            | First::Import => primary(S::Ddl, Reason::Ddl, Effects::DDL),
            First::Vacuum
            | First::Analyze
            | First::Analyse
            | First::Cluster
            | First::Reindex
            // They compute expressions of indexes and views.
            | First::Refresh => primary(S::Maintenance, Reason::Maintenance, Effects::UNKNOWN_FUNCTION),
            First::Checkpoint => primary(S::Maintenance, Reason::Maintenance, Effects::NONE),
            First::Empty | First::Other => primary(S::Unknown, Reason::Unparsable, Effects::NONE),
            _ => self.transaction(first).unwrap_or_else(|| self.session(first)),
        }
    }

    fn transaction(self, first: First) -> Option<Reading> {
        Some(match first {
            First::Begin | First::Start => self.begin(),
            First::Commit | First::End if self.is(1, "prepared") => {
                primary(S::TwoPhase, Reason::TwoPhase, Effects::TWO_PHASE)
            }
            First::Commit | First::End => follow(S::Commit, Effects::COMMIT | self.chain()),
            First::Rollback | First::Abort if self.is(1, "prepared") => {
                primary(S::TwoPhase, Reason::TwoPhase, Effects::TWO_PHASE)
            }
            First::Rollback if self.has("to") => follow(S::RollbackTo, Effects::ROLLBACK_TO),
            First::Rollback | First::Abort => follow(S::Rollback, Effects::ROLLBACK | self.chain()),
            First::Savepoint => follow(S::Savepoint, Effects::SAVEPOINT),
            First::Release => follow(S::Release, Effects::RELEASE),
            First::Prepare if self.is(1, "transaction") && self.kind(2) == Some(Kind::Text) => {
                primary(S::TwoPhase, Reason::TwoPhase, Effects::TWO_PHASE)
            }
            First::Fetch | First::Move => follow(S::Fetch, Effects::NONE),
            First::Close => follow(S::Close, Effects::CLOSE_CURSOR),
            _ => return None,
        })
    }

    fn session(self, first: First) -> Reading {
        let (kind, reason, effects) = match first {
            First::Set => return self.set(),
            First::Reset => (S::Reset, Reason::Session, Effects::RESET),
            First::Show => (S::Show, Reason::Session, Effects::NONE),
            First::Discard if self.is(1, "all") => (S::Discard, Reason::Session, Effects::DISCARD_ALL),
            First::Discard => (S::Discard, Reason::Session, Effects::DISCARD),
            First::Prepare => (S::Prepare, Reason::SessionObject, Effects::PREPARE),
            First::Execute => (S::Execute, Reason::SessionObject, Effects::EXECUTE),
            First::Deallocate => (S::Deallocate, Reason::SessionObject, Effects::DEALLOCATE),
            First::Declare => (S::Declare, Reason::SessionObject, self.hold()),
            First::Listen => (S::Listen, Reason::SessionObject, Effects::LISTEN),
            First::Unlisten => (S::Unlisten, Reason::SessionObject, Effects::UNLISTEN),
            First::Notify => (S::Notify, Reason::SessionObject, Effects::NOTIFY),
            First::Load => (S::Load, Reason::Session, Effects::LOAD),
            _ => (S::Unknown, Reason::Unparsable, Effects::OPAQUE),
        };
        primary(kind, reason, effects)
    }

    fn select(self) -> Reading {
        let mut effects = Effects::NONE;
        for at in (0..self.len())
            .filter(|&at| self.is(at, "into") && (at == 0 || !self.is_one_of(at - 1, &["insert", "merge"])))
        {
            effects |= Effects::DDL;
            let at = if self.is_one_of(at + 1, &["local", "global"]) { at + 2 } else { at + 1 };
            if self.is_one_of(at, &["temp", "temporary"]) || self.is_temporary_schema(at) {
                effects |= Effects::TEMP;
            }
        }
        let (route, reason) = (Route::Primary, Reason::Into);
        Reading { kind: S::Select, route, reason, effects, read: effects.is_empty() }
    }

    /// COPY of a relation or a query to the client: neither from it, nor to a file or program of the server's.
    fn copies_out(self) -> bool {
        let mut depth = 0i64;
        for at in 1..self.len() {
            match self.kind(at) {
                Some(Kind::Open) => depth += 1,
                Some(Kind::Close) => depth -= 1,
                _ if depth == 0 && self.is(at, "from") => return false,
                _ if depth == 0 && self.is(at, "to") => return self.is(at + 1, "stdout"),
                _ => {}
            }
        }
        false
    }

    /// WITH: the first statement keyword outside parentheses that is not the name of a CTE.
    fn with(self) -> Reading {
        let mut depth = 0i64;
        for at in 1..self.len() {
            match self.kind(at) {
                Some(Kind::Open) if depth == 0 && self.kind(at - 1) == Some(Kind::Close) => {
                    return self.select();
                }
                Some(Kind::Open) => depth += 1,
                Some(Kind::Close) => depth -= 1,
                _ => {}
            }
            if depth != 0 || self.kind(at) != Some(Kind::Word) || self.is(at + 1, "as") {
                continue;
            }
            match First::of(self.bytes(at)) {
                First::Select | First::Values | First::Table => return self.select(),
                First::Insert => return write(S::Insert),
                First::Update => return write(S::Update),
                First::Delete => return write(S::Delete),
                First::Merge => return write(S::Merge),
                _ => {}
            }
        }
        self.select()
    }

    /// Where the statement under EXPLAIN begins, and whether it runs.
    fn explained(self) -> (usize, bool) {
        let (mut at, mut executes) = (1, false);
        if self.kind(1) == Some(Kind::Open) {
            while at < self.len() && self.kind(at) != Some(Kind::Close) {
                // A number or string after ANALYZE is not in the shape; it counts as true.
                executes |= self.is_one_of(at, &["analyze", "analyse"]) && !self.is_one_of(at + 1, &["false", "off"]);
                at += 1;
            }
            at += 1;
        }
        while self.is_one_of(at, &["analyze", "analyse", "verbose"]) {
            executes |= !self.is(at, "verbose");
            at += 1;
        }
        (at, executes)
    }

    fn explain(self) -> Reading {
        let (at, executes) = self.explained();
        // The grammar knows no EXPLAIN of EXPLAIN; without this a text could recurse at will.
        let inner = match First::of(self.bytes(at)) {
            First::Explain => primary(S::Unknown, Reason::Unparsable, Effects::NONE),
            _ => self.from(at).read(),
        };
        // What is planned must be there.
        let effects = if executes { inner.effects } else { inner.effects.intersection(Effects::EXECUTE) };
        let reason = if inner.read { inner.reason } else { Reason::ExplainOfWrite };
        Reading { kind: S::Explain, route: Route::Primary, reason, effects, read: inner.read }
    }

    /// Whether functions in the text run when the statement runs, rather than when what it defines is used. Those of PREPARE count too:
    /// nobody sees what is in an EXECUTE.
    pub(crate) fn runs_its_functions(self) -> bool {
        match First::of(self.bytes(0)) {
            First::Explain => self.explained().1,
            First::Create => {
                ["as", "materialized", "index", "execute"].iter().any(|word| self.has(word))
                    && !self.is_one_of(self.create_object(), DEFINITIONS)
            }
            _ => true,
        }
    }

    /// Where the object word of CREATE stands, after OR REPLACE and the persistence words.
    fn create_object(self) -> usize {
        let mut at = 1;
        while self.is_one_of(at, &["or", "replace", "global", "local", "temp", "temporary", "unlogged", "recursive"]) {
            at += 1;
        }
        at
    }

    fn create(self) -> Reading {
        let mut effects = Effects::DDL;
        let object = self.create_object();
        let temporary = (1..object).any(|at| self.is_one_of(at, &["temp", "temporary"]));
        if temporary || (object..self.len()).any(|at| self.is_temporary_schema(at)) {
            effects |= Effects::TEMP;
            if self.has_pair("commit", "drop") {
                effects |= Effects::TEMP_ON_COMMIT_DROP;
            }
        }
        if self.has_pair("as", "execute") {
            effects |= Effects::EXECUTE;
        }
        primary(S::Ddl, Reason::Ddl, effects)
    }

    fn is_temporary_schema(self, at: usize) -> bool {
        self.kind(at + 1) == Some(Kind::Dot) && self.name(at).is_some_and(|n| n.starts_with(b"pg_temp"))
    }

    fn begin(self) -> Reading {
        let (route, reason) = if self.has("serializable") {
            (Route::Primary, Reason::BeginSerializable)
        } else if self.has_pair("read", "only") && !self.has("write") {
            match self.has("repeatable") {
                true => (Route::Primary, Reason::BeginRepeatableRead),
                false => (Route::BeginReadOnly, Reason::BeginReadOnly),
            }
        } else {
            (Route::Primary, Reason::BeginReadWrite)
        };
        Reading { kind: S::Begin, route, reason, effects: Effects::BEGIN, read: false }
    }

    fn chain(self) -> Effects {
        if self.has_pair("and", "chain") { Effects::CHAIN } else { Effects::NONE }
    }

    fn hold(self) -> Effects {
        let cursor = (2..self.len())
            .take_while(|&at| !self.is(at, "for"))
            .any(|at| self.is(at, "with") && self.is(at + 1, "hold"));
        if cursor { Effects::HOLD_CURSOR } else { Effects::NONE }
    }

    fn set(self) -> Reading {
        // LOCAL and SESSION may also be the name of the setting.
        let named = self.is(2, "to") || self.bytes(2) == b"=";
        let local = !named && self.is_one_of(1, &["local", "constraints", "transaction"]);
        let effects = if local { Effects::SET_LOCAL } else { Effects::SET_SESSION };
        let at = if !named && self.is_one_of(1, &["local", "session"]) { 2 } else { 1 };
        let transaction = self.is(1, "transaction") && !named;
        let kind = if transaction { S::SetTransaction } else { S::Set };
        let asks = transaction && (self.has("write") || self.has("serializable") || self.has("snapshot"));
        let setting =
            self.name(at).is_some_and(|n| matches!(n.as_ref(), b"transaction_read_only" | b"transaction_isolation"));
        if asks || setting {
            return primary(kind, Reason::ReadWriteRequested, effects);
        }
        if local { follow(kind, effects) } else { primary(kind, Reason::Session, effects) }
    }
}

fn primary(kind: S, reason: Reason, effects: Effects) -> Reading {
    Reading { kind, route: Route::Primary, reason, effects, read: false }
}

fn write(kind: S) -> Reading {
    primary(kind, Reason::Write, Effects::NONE)
}

fn follow(kind: S, effects: Effects) -> Reading {
    Reading { kind, route: Route::FollowTransaction, reason: Reason::InTransaction, effects, read: false }
}

/// Objects whose definition is stored, not run.
const DEFINITIONS: &[&str] =
    &["view", "function", "procedure", "rule", "trigger", "policy", "domain", "type", "operator", "cast", "aggregate"];
