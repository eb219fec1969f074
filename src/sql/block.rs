//! The plainest beginnings and ends of transactions, read without the grammar.
//! Must never take a text for one that PostgreSQL would refuse, or that does anything beside.

/// Modes that a BEGIN names: only such as change nothing for who reads under READ COMMITTED.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// `ISOLATION LEVEL READ COMMITTED`.
    pub isolation: bool,
    /// `READ WRITE` or `READ ONLY`, if it says either.
    pub access: Option<Access>,
}

/// What the statements of a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `READ WRITE`.
    ReadWrite,
    /// `READ ONLY`.
    ReadOnly,
}

impl Modes {
    /// A statement that begins a transaction with them.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match (self.isolation, self.access) {
            (false, None) => "BEGIN",
            (false, Some(Access::ReadWrite)) => "BEGIN READ WRITE",
            (false, Some(Access::ReadOnly)) => "BEGIN READ ONLY",
            (true, None) => "BEGIN ISOLATION LEVEL READ COMMITTED",
            (true, Some(Access::ReadWrite)) => "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE",
            (true, Some(Access::ReadOnly)) => "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY",
        }
    }
}

/// A statement that begins or ends a transaction, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// `BEGIN` or `START TRANSACTION`.
    Begin(Modes),
    /// `COMMIT` or `END`, without a chain.
    Commit,
    /// `ROLLBACK` or `ABORT`, without a chain.
    Rollback,
}

/// What the text is, if it is one of these. One with a comment is not, nor one with any other mode.
#[must_use]
pub fn block(sql: &[u8]) -> Option<Block> {
    let mut rest = Rest(sql);
    let begins = rest.takes("begin");
    if begins || (rest.takes("start") && rest.is_at("transaction")) {
        rest.takes_noise();
        return rest.modes().map(Block::Begin);
    }
    let block = match () {
        () if rest.takes("commit") || rest.takes("end") => Block::Commit,
        () if rest.takes("rollback") || rest.takes("abort") => Block::Rollback,
        () => return None,
    };
    rest.takes_noise();
    if rest.takes("and") && !(rest.takes("no") && rest.takes("chain")) {
        return None;
    }
    rest.is_over().then_some(block)
}

/// What is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn is_at(&mut self, word: &str) -> bool {
        self.0 = self.0.trim_ascii_start();
        let (Some(here), after) = (self.0.get(..word.len()), self.0.get(word.len())) else { return false };
        let ends = after.is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b';'));
        ends && here.eq_ignore_ascii_case(word.as_bytes())
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_at = self.is_at(word);
        if is_at {
            self.0 = self.0.get(word.len()..).unwrap_or_default();
        }
        is_at
    }

    fn takes_noise(&mut self) {
        let _ = self.takes("work") || self.takes("transaction");
    }

    fn is_over(&self) -> bool {
        self.0.iter().all(|byte| byte.is_ascii_whitespace() || *byte == b';')
    }

    /// `transaction_mode_list_or_empty` in src/backend/parser/gram.y.
    fn modes(&mut self) -> Option<Modes> {
        let mut modes = Modes::default();
        let mut is_first = true;
        while !self.is_over() {
            self.0 = self.0.trim_ascii_start();
            if let (false, Some((b',', rest))) = (is_first, self.0.split_first()) {
                self.0 = rest;
            }
            is_first = false;
            if self.takes("isolation") && self.takes("level") && self.takes("read") && self.takes("committed") {
                modes.isolation = true;
            } else {
                let access = match self.takes("read") {
                    true if self.takes("write") => Access::ReadWrite,
                    true if self.takes("only") => Access::ReadOnly,
                    _ => return None,
                };
                // Of two that contradict each other the server knows which counts.
                if modes.access.replace(access).is_some_and(|before| before != access) {
                    return None;
                }
            }
        }
        Some(modes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Modes = Modes { isolation: false, access: None };
    const WRITES: Option<Access> = Some(Access::ReadWrite);
    const READS: Option<Access> = Some(Access::ReadOnly);

    #[test]
    fn knows_the_plain_ones() {
        let (isolation, writes) = (Modes { isolation: true, access: None }, Modes { isolation: false, access: WRITES });
        let both = Modes { isolation: true, access: WRITES };
        let (reads, both_read) = (Modes { access: READS, ..PLAIN }, Modes { isolation: true, access: READS });
        for (sql, expected) in [
            ("BEGIN", Block::Begin(PLAIN)),
            (" begin ;\n", Block::Begin(PLAIN)),
            ("Begin Work", Block::Begin(PLAIN)),
            ("BEGIN TRANSACTION;;", Block::Begin(PLAIN)),
            ("START TRANSACTION", Block::Begin(PLAIN)),
            ("start\ttransaction isolation level read committed", Block::Begin(isolation)),
            ("BEGIN READ WRITE", Block::Begin(writes)),
            ("BEGIN ISOLATION LEVEL READ COMMITTED,READ WRITE;", Block::Begin(both)),
            ("BEGIN READ WRITE ISOLATION LEVEL READ COMMITTED", Block::Begin(both)),
            ("begin read only", Block::Begin(reads)),
            ("BEGIN READ ONLY;", Block::Begin(reads)),
            ("START TRANSACTION READ ONLY, READ  ONLY", Block::Begin(reads)),
            ("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", Block::Begin(both_read)),
            ("COMMIT", Block::Commit),
            ("end transaction", Block::Commit),
            ("COMMIT WORK AND NO CHAIN", Block::Commit),
            ("ROLLBACK;", Block::Rollback),
            ("abort work", Block::Rollback),
        ] {
            assert_eq!(block(sql.as_bytes()), Some(expected), "{sql}");
        }
    }

    #[test]
    fn leaves_the_others_alone() {
        for sql in [
            "",
            ";",
            "BEGIN; SELECT 1",
            "BEGIN -- x",
            "/* x */ BEGIN",
            "BEGINNING",
            "BEGIN, READ WRITE",
            "BEGIN READ WRITE,",
            "BEGIN READ WRITE,,ISOLATION LEVEL READ COMMITTED",
            "BEGIN READ",
            "BEGIN READ ONLYWRITE",
            "BEGIN READ ONLY, READ WRITE",
            "BEGIN READ ONLY DEFERRABLE",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "BEGIN ISOLATION LEVEL READ UNCOMMITTED",
            "BEGIN DEFERRABLE",
            "BEGIN WORK TRANSACTION",
            "START",
            "START WORK",
            "COMMIT AND CHAIN",
            "COMMIT AND",
            "COMMIT PREPARED 'x'",
            "ROLLBACK TO x",
            "ROLLBACK TRANSACTION TO SAVEPOINT x",
            "END IF",
        ] {
            assert_eq!(block(sql.as_bytes()), None, "{sql}");
        }
    }

    #[test]
    fn a_beginning_reads_as_it_was_written() {
        for (isolation, access) in [false, true].iter().flat_map(|is| [None, WRITES, READS].map(|access| (*is, access)))
        {
            let modes = Modes { isolation, access };
            assert_eq!(block(modes.text().as_bytes()), Some(Block::Begin(modes)));
        }
    }
}
