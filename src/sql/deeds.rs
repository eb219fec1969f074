//! What a statement does that an auditor asks for: changes of the schema, of rows, of roles, and calls of code that is not in the text.
//! Must never leave a deed out that the text shows; what it adds is said as being more than is certain.
//!
//! The classes are those of PostgreSQL's own `log_statement` (`GetCommandLogLevel` in src/backend/tcop/utility.c): what is `ddl` there is here,
//! but for what is about roles and rights, and what is `mod` there is `dml`.

use crate::sql::shape::First;
use crate::sql::verdict::{Effects, Reason, StatementKind as S, Verdict};
use crate::sql::words::{Words, tokens};

/// What statements do, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds(u8);

impl Deeds {
    /// None of what follows.
    pub const NONE: Self = Self(0);
    /// Changes the schema.
    pub const DDL: Self = Self(1);
    /// Changes rows, or might.
    pub const DML: Self = Self(1 << 1);
    /// Changes roles or rights, or who acts.
    pub const ROLE: Self = Self(1 << 2);
    /// Runs code that the text does not show.
    pub const CALL: Self = Self(1 << 3);
    /// Nobody can tell: too long, or not understood.
    pub const UNKNOWN: Self = Self(1 << 4);
    /// Each with its name.
    const NAMES: [(Self, &'static str); 5] = [
        (Self::DDL, "ddl"),
        (Self::DML, "dml"),
        (Self::ROLE, "role"),
        (Self::CALL, "call"),
        (Self::UNKNOWN, "unknown"),
    ];

    /// Both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of these is among them.
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(deed, _)| self.any(*deed)).map(|(_, name)| name)
    }
}

/// What the statements of a text do, of which the grammar says this. They follow from the shape but for [`Effects::SET_CONFIG`] and
/// where the verdict does not.
#[must_use]
pub fn deeds(sql: &[u8], standard_conforming_strings: bool, verdict: Verdict) -> Deeds {
    let tokens = tokens(sql, standard_conforming_strings);
    let mut all = Words::new(sql, &tokens).statements().map(of).fold(Deeds::NONE, Deeds::union);
    let is_unread = matches!(verdict.reason, Reason::Unparsable | Reason::TooLong | Reason::TooDeep | Reason::Encoding);
    if is_unread {
        all = all.union(Deeds::UNKNOWN);
    }
    if verdict.reason == Reason::DataModifyingCte {
        all = all.union(Deeds::DML);
    }
    // What definitions and maintenance compute is not run for its own sake.
    let runs = !matches!(verdict.kind, S::Ddl | S::Maintenance | S::Prepare | S::Begin | S::Commit | S::Rollback);
    if runs && (verdict.effects.any(Effects::UNKNOWN_FUNCTION | Effects::OPAQUE) || verdict.reason == Reason::Function)
    {
        all = all.union(Deeds::CALL);
    }
    if verdict.effects.any(Effects::SET_CONFIG | Effects::SET_LOCAL) && sets_role(sql) {
        all = all.union(Deeds::ROLE);
    }
    all
}

/// `set_config` of what says who acts, or of what stands in a parameter.
fn sets_role(sql: &[u8]) -> bool {
    let text = sql.to_ascii_lowercase();
    let has = |part: &str| memchr::memmem::find(&text, part.as_bytes()).is_some();
    has("set_config") && (has("'role'") || has("'session_authorization'") || has("set_config($"))
}

fn of(statement: Words<'_>) -> Deeds {
    let reading = statement.read();
    let first = First::of(statement.bytes(0));
    let is_about_roles = statement.is_one_of(1, &["role", "user", "group"]) && !statement.is(2, "mapping");
    let mut deeds = match (reading.kind, first) {
        (S::Insert | S::Update | S::Delete | S::Merge, _) | (_, First::Truncate) => Deeds::DML,
        // What was prepared by this name changes rows, or does not.
        (S::Execute, _) => Deeds::DML.union(Deeds::CALL),
        (S::Copy, _) if !reading.read => Deeds::DML,
        (S::Call | S::Do, _) => Deeds::CALL,
        (_, First::Grant | First::Revoke) => Deeds::ROLE,
        (_, First::Reassign) => Deeds::ROLE,
        (_, First::Alter) if statement.is(1, "default") => Deeds::ROLE,
        (_, First::Drop) if statement.is(1, "owned") => Deeds::ROLE,
        (_, First::Create | First::Alter | First::Drop) if is_about_roles => Deeds::ROLE,
        (S::Ddl, _) | (_, First::Refresh | First::Cluster) => Deeds::DDL,
        (S::Set | S::Reset, _) if names_actor(statement) => Deeds::ROLE,
        (S::Select | S::Declare | S::Copy, _) if reading.effects.any(Effects::DDL) => Deeds::DDL,
        _ => Deeds::NONE,
    };
    let is_written = |words: Words<'_>| (0..words.len()).any(|at| writes_at(words, at));
    let has_inner = matches!(reading.kind, S::Select | S::Prepare | S::Declare | S::Copy) || first == First::With;
    if has_inner && is_written(statement) {
        deeds = deeds.union(Deeds::DML);
    }
    if reading.kind == S::Explain && statement.runs_its_functions() && is_written(statement) {
        deeds = deeds.union(Deeds::DML);
    }
    deeds
}

/// Whether a statement that changes rows begins there, within another.
fn writes_at(words: Words<'_>, at: usize) -> bool {
    let locks = at > 0 && words.is_one_of(at - 1, &["for", "key"]);
    words.is_one_of(at, &["insert", "update", "delete", "merge"]) && !locks
}

/// SET or RESET of the role or the session's user.
fn names_actor(statement: Words<'_>) -> bool {
    let at = if statement.is_one_of(1, &["local", "session"]) && !statement.is(2, "authorization") { 2 } else { 1 };
    statement.is(at, "role")
        || statement.is_one_of(at, &["session_authorization"])
        || (statement.is(at, "session") && statement.is(at + 1, "authorization"))
        || statement.name(at).is_some_and(|name| matches!(name.as_ref(), b"role" | b"session_authorization"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::classify::classify;
    use crate::sql::shape::scan;

    fn done(sql: &str) -> String {
        let verdict = classify(sql.as_bytes(), &scan(sql.as_bytes(), true));
        deeds(sql.as_bytes(), true, verdict).names().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn deeds_of_statements() {
        for (sql, expected) in [
            ("SELECT 1", ""),
            ("SELECT * FROM t FOR UPDATE", ""),
            ("SELECT * FROM t FOR NO KEY UPDATE", ""),
            ("INSERT INTO t VALUES (1)", "dml"),
            ("/* x */ update t SET a = 1", "dml"),
            ("WITH d AS (DELETE FROM t RETURNING a) SELECT * FROM d", "dml"),
            ("WITH d AS (SELECT 1) INSERT INTO t SELECT * FROM d", "dml"),
            ("MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE", "dml"),
            ("TRUNCATE t", "dml"),
            ("COPY t FROM STDIN", "dml"),
            ("COPY t TO STDOUT", ""),
            ("COPY (DELETE FROM t RETURNING a) TO STDOUT", "dml"),
            ("COPY t TO PROGRAM 'cat'", "dml"),
            ("PREPARE p AS INSERT INTO t VALUES ($1)", "dml"),
            ("PREPARE p AS SELECT 1", ""),
            ("EXECUTE p(1)", "dml call"),
            ("EXPLAIN DELETE FROM t", ""),
            ("EXPLAIN ANALYZE DELETE FROM t", "dml"),
            ("CREATE TABLE t (a int)", "ddl"),
            ("CREATE TABLE t AS SELECT 1", "ddl"),
            ("SELECT 1 AS a INTO t", "ddl"),
            ("ALTER TABLE t ADD b int", "ddl"),
            ("DROP TABLE t", "ddl"),
            ("COMMENT ON TABLE t IS 'x'", "ddl"),
            ("REFRESH MATERIALIZED VIEW v", "ddl"),
            ("VACUUM t", ""),
            ("CREATE ROLE r LOGIN PASSWORD 'x'", "role"),
            ("ALTER USER r SET work_mem = '1MB'", "role"),
            ("CREATE USER MAPPING FOR r SERVER s", "ddl"),
            ("DROP GROUP g", "role"),
            ("GRANT SELECT ON t TO r", "role"),
            ("REVOKE r FROM s", "role"),
            ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r", "role"),
            ("REASSIGN OWNED BY r TO s", "role"),
            ("SET ROLE r", "role"),
            ("SET LOCAL ROLE r", "role"),
            ("SET SESSION ROLE r", "role"),
            ("SET SESSION AUTHORIZATION r", "role"),
            ("SET SESSION SESSION AUTHORIZATION r", "role"),
            ("RESET ROLE", "role"),
            ("RESET SESSION AUTHORIZATION", "role"),
            ("SET role = r", "role"),
            ("SET work_mem = '1MB'", ""),
            ("SELECT set_config('role', 'r', true)", "role call"),
            ("SELECT set_config('work_mem', '1MB', true)", "call"),
            ("DO $$BEGIN DELETE FROM t; END$$", "call"),
            ("CALL p()", "call"),
            ("SELECT f(1)", "call"),
            ("SELECT lower('A')", ""),
            ("SELECT pg_terminate_backend(1)", "call"),
            ("BEGIN; DELETE FROM t; CREATE TABLE u (a int); COMMIT", "ddl dml"),
            ("BEGIN", ""),
            ("NONSENSE t", "unknown"),
            ("DELETE FROM", "dml unknown"),
        ] {
            assert_eq!(done(sql), expected, "{sql}");
        }
    }
}
