//! Which statements may bring code into a database, or make something else run it.
//! Must never say no of one that may, where what it says can be read.

use super::lex::Kind;
use super::words::Words;

/// Whether a statement may bring code into the database, or make something else run it.
pub(crate) fn defines(words: Words<'_>) -> bool {
    if words.is(0, "create") {
        let head = words.upto(6);
        if head.is_one_of(1, &["index", "unique"]) {
            // Expressions and predicates.
            let opens = (0..words.len()).filter(|&at| words.kind(at) == Some(Kind::Open)).count();
            return opens > 1 || words.has("where");
        }
        if CODELESS.iter().any(|word| head.is(1, word)) {
            return false;
        }
        return !head.is_one_of(1, &["table", "unlogged"]) || TABLE_CODE.iter().any(|word| words.has(word));
    }
    words.is(0, "import") || (words.is(0, "alter") && !CODELESS.iter().any(|word| words.is(1, word)))
}

/// Whether code given as text, as DO has it, may do the same.
#[must_use]
pub fn may_define(sql: &[u8]) -> bool {
    let lower = sql.to_ascii_lowercase();
    ["create", "alter", "execute", "import"].iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
}

/// Whether a definition is spelled somewhere in what a statement brings: in what it hands to code that runs texts, say. Looked for in the
/// first 64 KB.
#[must_use]
pub fn spells_definition(bytes: &[u8]) -> bool {
    let bytes = bytes.get(..64 * 1024).unwrap_or(bytes);
    let begins = |first: u8, word: &[u8]| {
        memchr::memchr2_iter(first, first.to_ascii_uppercase(), bytes)
            .filter(|at| bytes.get(*at..at + word.len()).is_some_and(|there| there.eq_ignore_ascii_case(word)))
            // Not `created_at`.
            .any(|at| bytes.get(at + word.len()).is_some_and(|next| matches!(next, b'\t'..=b'\r' | b' ' | b'/' | b'-')))
    };
    begins(b'c', b"create") || begins(b'a', b"alter")
}

/// Objects without code, and temporary ones, which keep their client with the server anyway.
const CODELESS: [&str; 14] = [
    "temp",
    "temporary",
    "local",
    "global",
    "index",
    "unique",
    "sequence",
    "database",
    "role",
    "user",
    "group",
    "tablespace",
    "system",
    "statistics",
];

/// Words of CREATE TABLE behind which code may be.
const TABLE_CODE: [&str; 13] = [
    "default",
    "serial",
    "bigserial",
    "smallserial",
    "serial4",
    "serial8",
    "serial2",
    "generated",
    "check",
    "like",
    "references",
    "partition",
    "inherits",
];
