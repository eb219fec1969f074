//! What a statement does to what, in a few words: `SELECT orders customers`, as OpenTelemetry names spans of databases.
//! Must never have a value in it, nor more than a bounded number of characters.
//!
//! Follows "Generating a summary of the query" of OpenTelemetry's conventions for databases: operations and what each is about, in the order in
//! which they stand in the text. Text is what [`super::shape::normalized`] makes of it, so that all statements of a shape have the same
//! summary. It is read word by word and may be wrong about what looks odd; nothing hangs on it but a name.

use super::lex::{Kind, Lexer, Token};

/// Most characters of a summary, of whole words.
const MOST_CHARS: usize = 255;
/// Words that begin a statement, or one within another where they stand in front of something else than a parenthesis.
const WITHIN: [&[u8]; 5] = [b"select", b"insert", b"update", b"delete", b"merge"];
/// Behind them comes what kind of thing is meant, and then its name.
const OF_THINGS: [&[u8]; 4] = [b"create", b"alter", b"drop", b"comment"];
/// Words between these and the kind.
const PASSED_OVER: [&[u8]; 15] = [
    b"or",
    b"replace",
    b"temp",
    b"temporary",
    b"unlogged",
    b"unique",
    b"global",
    b"local",
    b"materialized",
    b"foreign",
    b"recursive",
    b"concurrently",
    b"if",
    b"not",
    b"exists",
];
/// They begin statements that are about tables.
const OF_TABLES: [&[u8]; 9] =
    [b"truncate", b"lock", b"copy", b"vacuum", b"analyze", b"cluster", b"table", b"refresh", b"reindex"];
/// Words in front of a table's name that are none.
const FILLERS: [&[u8]; 10] =
    [b"table", b"only", b"lateral", b"view", b"full", b"index", b"rows", b"stdin", b"program", b"verbose"];

/// What stands between two parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// A statement: in a call FROM means something else.
    is_statement: bool,
    /// A comma is followed by another table.
    lists: bool,
}

/// What the next name is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing that matters.
    Nothing,
    /// What an operation is about.
    Target,
    /// A kind of thing.
    Thing,
}

/// The summary of a text without values; empty if there is nothing in it.
#[must_use]
pub fn summary(text: &str) -> String {
    let sql = text.as_bytes();
    let tokens: Vec<Token> = Lexer::new(sql, true).filter(|token| token.kind != Kind::Comment).collect();
    let mut summary =
        Summary { sql, tokens: &tokens, text: String::new(), levels: vec![Level::default()], next: Next::Nothing };
    let mut at = 0;
    while at < tokens.len() {
        at = summary.take(at);
    }
    summary.text
}

struct Summary<'a> {
    sql: &'a [u8],
    tokens: &'a [Token],
    text: String,
    levels: Vec<Level>,
    next: Next,
}

impl Summary<'_> {
    fn kind(&self, at: usize) -> Option<Kind> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn bytes(&self, at: usize) -> &[u8] {
        self.tokens.get(at).map_or(&[][..], |token| token.bytes(self.sql))
    }

    fn level(&mut self) -> Option<&mut Level> {
        self.levels.last_mut()
    }

    fn add(&mut self, word: &str) {
        let space = usize::from(!self.text.is_empty());
        if self.text.chars().count() + space + word.chars().count() > MOST_CHARS {
            return;
        }
        if space > 0 {
            self.text.push(' ');
        }
        self.text.push_str(word);
    }

    fn add_operation(&mut self, at: usize) {
        let word = String::from_utf8_lossy(self.bytes(at)).to_ascii_uppercase();
        self.add(&word);
    }

    /// Looks at the token at `at`; which one comes next.
    fn take(&mut self, at: usize) -> usize {
        match self.kind(at) {
            Some(Kind::Open) => {
                self.levels.push(Level::default());
                self.next = Next::Nothing;
            }
            Some(Kind::Close) => {
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
                self.next = Next::Nothing;
            }
            Some(Kind::Semicolon) => (self.levels, self.next) = (vec![Level::default()], Next::Nothing),
            Some(Kind::Comma) => {
                let lists = self.level().is_some_and(|level| level.lists);
                self.next = if lists { Next::Target } else { Next::Nothing };
            }
            Some(Kind::Word) if self.takes_keyword(at) => {}
            Some(Kind::Word | Kind::QuotedWord | Kind::UnicodeWord) => return self.take_name(at),
            _ => {}
        }
        at + 1
    }

    /// Whether a statement may begin at `at`.
    fn begins(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|at| self.kind(at));
        matches!(before, None | Some(Kind::Semicolon | Kind::Open | Kind::Close))
    }

    fn takes_keyword(&mut self, at: usize) -> bool {
        let word = self.bytes(at).to_ascii_lowercase();
        let first = matches!(at.checked_sub(1).map(|at| self.kind(at)), None | Some(Some(Kind::Semicolon)));
        let is_call = self.kind(at + 1) == Some(Kind::Open);
        let before = at.checked_sub(1).map(|at| self.bytes(at).to_ascii_lowercase()).unwrap_or_default();
        let within = WITHIN.contains(&&*word) && (word == b"select" || self.begins(at) && !is_call);
        if (first && word != b"with") || within {
            self.add_operation(at);
            let is_of_tables = OF_TABLES.contains(&&*word);
            if let Some(level) = self.level() {
                *level = Level { is_statement: true, lists: is_of_tables };
            }
            self.next = match &*word {
                b"update" => Next::Target,
                _ if is_of_tables => Next::Target,
                word if OF_THINGS.contains(&word) => Next::Thing,
                _ => Next::Nothing,
            };
            return true;
        }
        if self.next == Next::Thing {
            let is_kind = !PASSED_OVER.contains(&&*word) && word != b"on";
            if is_kind {
                self.add_operation(at);
                self.next = Next::Target;
            }
            return true;
        }
        let depth = self.levels.len();
        let Some(level) = self.level() else { return false };
        match &*word {
            b"from" if before != b"distinct" && (depth == 1 || level.is_statement) => {
                (level.lists, self.next) = (true, Next::Target);
            }
            b"join" | b"into" | b"using" => self.next = Next::Target,
            b"where" | b"group" | b"order" | b"having" | b"limit" | b"offset" | b"window" | b"union" | b"intersect"
            | b"except" | b"for" | b"set" | b"values" | b"returning" | b"fetch" => {
                (level.lists, self.next) = (false, Next::Nothing);
            }
            word if self.next == Next::Target && FILLERS.contains(&word) => {}
            word if self.next == Next::Target && PASSED_OVER.contains(&word) => {}
            _ => return false,
        }
        true
    }

    /// A name, with what stands in front of it and behind dots.
    fn take_name(&mut self, at: usize) -> usize {
        let mut end = at + 1;
        while self.kind(end) == Some(Kind::Dot)
            && matches!(self.kind(end + 1), Some(Kind::Word | Kind::QuotedWord | Kind::UnicodeWord))
        {
            end += 2;
        }
        // What is called is no table; but behind INTO its columns follow.
        let before = at.checked_sub(1).map(|at| self.bytes(at).to_ascii_lowercase()).unwrap_or_default();
        let is_called = self.kind(end) == Some(Kind::Open) && matches!(&*before, b"from" | b"join" | b"," | b"lateral");
        if self.next == Next::Target && !is_called {
            let name: Vec<u8> = (at..end).flat_map(|at| self.bytes(at).to_vec()).collect();
            self.add(&String::from_utf8_lossy(&name));
        }
        self.next = Next::Nothing;
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::shape::normalized;

    #[test]
    fn operations_and_what_they_are_about() {
        for (sql, expected) in [
            ("SELECT 1", "SELECT"),
            ("SELECT a, b FROM Users u WHERE id = 7", "SELECT users"),
            ("SELECT * FROM songs, artists a, \"Song List\" WHERE a IN (1, 2)", "SELECT songs artists \"Song List\""),
            ("SELECT * FROM s.a JOIN ONLY b USING (id) LEFT JOIN c ON b.x = f(c.y, 1), d", "SELECT s.a b c d"),
            ("SELECT o FROM (SELECT * FROM orders o JOIN customers c ON true) x", "SELECT SELECT orders customers"),
            ("INSERT INTO details (a, b) SELECT a, b FROM orders", "INSERT details SELECT orders"),
            ("INSERT INTO t VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET a = 1", "INSERT t"),
            ("UPDATE ONLY t SET a = 1 FROM u WHERE t.a = u.a", "UPDATE t u"),
            ("DELETE FROM t USING u WHERE a = 1 RETURNING a, b", "DELETE t u"),
            (
                "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN UPDATE SET a = 1 WHEN NOT MATCHED THEN DELETE",
                "MERGE t s",
            ),
            ("WITH gone AS (DELETE FROM t RETURNING a) SELECT count(*) FROM gone", "DELETE t SELECT gone"),
            ("SELECT extract(year FROM a), b IS DISTINCT FROM c FROM t FOR UPDATE", "SELECT t"),
            ("SELECT * FROM generate_series(1, 9) g, t", "SELECT t"),
            (
                "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u) UNION SELECT 2 FROM v ORDER BY a, b",
                "SELECT t SELECT u SELECT v",
            ),
            ("CREATE TABLE IF NOT EXISTS a (b int, c text)", "CREATE TABLE a"),
            ("CREATE UNIQUE INDEX i ON t (a)", "CREATE INDEX i"),
            ("DROP TABLE IF EXISTS a", "DROP TABLE a"),
            ("TRUNCATE TABLE a, b", "TRUNCATE a b"),
            ("COPY t FROM STDIN", "COPY t"),
            ("BEGIN", "BEGIN"),
            ("SET a = 'b'", "SET"),
            ("SELECT 1 FROM a; DELETE FROM b", "SELECT a DELETE b"),
            ("/* SELECT */ TABLE t", "TABLE t"),
            ("(", ""),
            ("", ""),
        ] {
            assert_eq!(summary(&normalized(sql.as_bytes(), true, 1000)), expected, "{sql}");
        }
    }

    #[test]
    fn words_stay_whole_where_there_are_too_many() {
        let tables: Vec<String> = (0..100).map(|n| format!("table_{n:02}")).collect();
        let found = summary(&format!("select * from {}", tables.join(", ")));
        assert!(found.chars().count() <= MOST_CHARS && found.len() > 240);
        assert!(found.starts_with("SELECT table_00 table_01") && found.rsplit(' ').next().unwrap().len() == 8);
    }
}
