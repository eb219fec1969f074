//! The shape of a statement: one hash for all texts that differ only in literals, comments, white space and case of keywords.
//! Must never allocate in [`scan`], and must never merge two texts that could deserve different verdicts.
//!
//! The shape is XXH3-64 over the canonical tokens: comments dropped, unquoted words in lower case, quoted identifiers exact, every literal and
//! parameter one placeholder (with its sign where that is unary), a list of placeholders cut to one, a list of rows `(?), (?)` to one, empty statements
//! and the final `;` dropped. [`normalized`] prints the same tokens, so equal shapes print equally and different ones differently.
//! All that the classifier may use is therefore in the canonical tokens or in [`Flags`] derived from them, with the exception of comments.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::sql::canon::{Canon, Item, Sink};
use crate::sql::lex::{Token, eq_word};
pub use crate::sql::normal::normalized;

/// What [`scan`] found in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// XXH3-64 of the canonical tokens.
    pub shape: u64,
    /// First keyword, opening parentheses skipped.
    pub first: First,
    /// How many statements, cut at `;` outside parentheses. The body of `CREATE FUNCTION .. BEGIN ATOMIC .. END` counts as `Many`.
    pub statements: Statements,
    /// What else was seen.
    pub flags: Flags,
}

/// Number of non-empty statements in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statements {
    /// Nothing but white space, comments and semicolons.
    Zero,
    /// Exactly one.
    One,
    /// More than one.
    Many,
}

/// Things seen in a text, as a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// `FOR` followed by `UPDATE`, `SHARE`, `NO` or `KEY`: a locking clause, or rarely something harmless.
    pub const FOR_LOCK: Self = Self(1);
    /// The reserved word `INTO`.
    pub const INTO: Self = Self(1 << 1);
    /// Any comment.
    pub const COMMENT: Self = Self(1 << 2);
    /// A comment that contains `pgweir:`.
    pub const COMMENT_HINT: Self = Self(1 << 3);
    /// A parameter `$n`.
    pub const PARAM: Self = Self(1 << 4);
    /// A literal: with none of these and no parameter the text says all.
    pub const LITERAL: Self = Self(1 << 5);
    /// An identifier `U&"..."`, whose name is not known here.
    pub const UNICODE_WORD: Self = Self(1 << 6);
    /// The word `set_config`, quoted or not.
    pub const SET_CONFIG: Self = Self(1 << 7);
    /// A byte that no token can start with.
    pub const UNKNOWN: Self = Self(1 << 8);
    /// Scanned with `standard_conforming_strings` off.
    pub const BACKSLASH_ESCAPES: Self = Self(1 << 9);
    /// An escape string that is not UTF-8: where it ends depends on the client's encoding.
    pub const ENCODING: Self = Self(1 << 10);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

macro_rules! first_keywords {
    ($($variant:ident $text:literal),* $(,)?) => {
        /// The first keyword of a text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum First {
            /// There is no token.
            Empty,
            /// Some other token.
            Other,
            $(#[doc = concat!("`", $text, "`")] $variant,)*
        }

        impl First {
            /// The keyword that `word` is, in any case of letters.
            #[must_use]
            pub fn of(word: &[u8]) -> Self {
                $(if eq_word(word, $text.as_bytes()) {
                    return Self::$variant;
                })*
                Self::Other
            }
        }
    };
}

first_keywords! {
    Select "select", Insert "insert", Update "update", Delete "delete", Merge "merge", Values "values", Table "table", With "with",
    Begin "begin", Start "start", Commit "commit", End "end", Rollback "rollback", Abort "abort", Savepoint "savepoint", Release "release",
    Set "set", Reset "reset", Show "show", Discard "discard", Prepare "prepare", Execute "execute", Deallocate "deallocate",
    Declare "declare", Fetch "fetch", Move "move", Close "close", Listen "listen", Unlisten "unlisten", Notify "notify",
    Explain "explain", Copy "copy", Call "call", Do "do", Load "load", Lock "lock", Create "create", Alter "alter", Drop "drop",
    Truncate "truncate", Comment "comment", Grant "grant", Revoke "revoke", Security "security", Reassign "reassign", Import "import",
    Vacuum "vacuum", Analyze "analyze", Analyse "analyse", Cluster "cluster", Reindex "reindex", Refresh "refresh", Checkpoint "checkpoint",
}

/// Shape, first keyword, number of statements and flags of a text, in one pass without allocation.
#[must_use]
pub fn scan(sql: &[u8], standard_conforming_strings: bool) -> Scanned {
    let mut sink = HashSink::new();
    let mut canon = Canon::new(&mut sink);
    canon.run(sql, standard_conforming_strings);
    let statements = match canon.statements {
        0 => Statements::Zero,
        1 => Statements::One,
        _ => Statements::Many,
    };
    let (first, flags) = (canon.first, canon.flags);
    Scanned { shape: sink.finish(), first, statements, flags }
}

/// Feeds the hash through a buffer on the stack; the streaming hasher is set up only for a text that does not fit.
struct HashSink {
    buffer: [u8; HASH_BUFFER_BYTES],
    used: usize,
    stream: Option<Xxh3>,
}

/// Fits the canonical form of most statements; longer ones stream.
const HASH_BUFFER_BYTES: usize = 256;

impl HashSink {
    fn new() -> Self {
        Self { buffer: [0; HASH_BUFFER_BYTES], used: 0, stream: None }
    }

    #[cold]
    fn flush(&mut self) {
        let filled = self.buffer.get(..self.used).unwrap_or_default();
        self.stream.get_or_insert_with(Xxh3::new).update(filled);
        self.used = 0;
    }

    /// A token and the byte 0 that ends it.
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        let Some((last, room)) = self.buffer.get_mut(self.used..=end).and_then(<[u8]>::split_last_mut) else {
            return self.put_long(bytes, false);
        };
        match (room, bytes) {
            ([to], [from]) => *to = *from,
            (room, bytes) => room.copy_from_slice(bytes),
        }
        *last = 0;
        self.used = end + 1;
    }

    /// A word in lower case, eight bytes at a time: what is read and written beyond its end is overwritten by the next token.
    #[inline]
    fn put_word(&mut self, sql: &[u8], token: Token) {
        let length = token.end - token.start;
        let padded = length.next_multiple_of(8);
        let (Some(from), Some(to)) =
            (sql.get(token.start..token.start + padded), self.buffer.get_mut(self.used..self.used + padded + 1))
        else {
            return self.put_long(token.bytes(sql), true);
        };
        for (from, to) in from.chunks_exact(8).zip(to.chunks_exact_mut(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(from);
            to.copy_from_slice(&lower_case(u64::from_le_bytes(eight)).to_le_bytes());
        }
        if let Some(end) = to.get_mut(length) {
            *end = 0;
        }
        self.used += length + 1;
    }

    /// A token byte by byte: near the end of the text or of the buffer. One longer than the buffer goes to the hash in pieces.
    #[inline(never)]
    fn put_long(&mut self, bytes: &[u8], fold: bool) {
        for &byte in bytes {
            self.put_byte(if fold { byte.to_ascii_lowercase() } else { byte });
        }
        self.put_byte(0);
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        if self.used >= HASH_BUFFER_BYTES {
            self.flush();
        }
        if let Some(to) = self.buffer.get_mut(self.used) {
            *to = byte;
            self.used += 1;
        }
    }

    fn finish(&mut self) -> u64 {
        if self.stream.is_some() {
            self.flush();
        }
        match &self.stream {
            Some(stream) => stream.digest(),
            None => xxh3_64(self.buffer.get(..self.used).unwrap_or_default()),
        }
    }
}

/// Eight ASCII letters to lower case at once; bytes >= 0x80 stay.
#[inline]
fn lower_case(eight: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low = eight & !HIGH;
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let above_z = low + (0x7f - b'Z' as u64) * ONES;
    let upper = (from_a ^ above_z) & !eight & HIGH;
    eight | (upper >> 2)
}

impl Sink for HashSink {
    #[inline]
    fn item(&mut self, item: Item, bytes: &[u8]) {
        // Nothing else is the single byte of a literal, in particular not the operator `?`.
        self.put(if item == Item::Literal { b"'" } else { bytes });
    }

    #[inline]
    fn word(&mut self, sql: &[u8], token: Token) {
        self.put_word(sql, token);
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
