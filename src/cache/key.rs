//! What an answer hangs on, as bytes: two requests with the same bytes have the same answer.
//! Must never let one field run into the next, nor leave anything out because it is long.
//!
//! Whole keys are kept and compared, not hashes of them: there is nothing to collide. The hash of one is made once ([`Hashed`]): on its way
//! from a miss to what is kept a key is looked for half a dozen times.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;

use crate::sql::lex::{Kind, Lexer};

/// Makes other hashes in every process, so that nobody can prepare keys whose hashes are the same.
pub static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A key in the making.
#[derive(Debug)]
pub struct Key<'a>(&'a mut Vec<u8>);

impl<'a> Key<'a> {
    /// An empty one in this buffer.
    pub fn new(buffer: &'a mut Vec<u8>) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// A field of any length.
    pub fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A number.
    pub fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// A statement, without its comments if it has any: what applications note there differs from call to call.
    pub fn text(&mut self, sql: &[u8], commented: bool, standard_conforming_strings: bool) {
        if !commented {
            return self.field(sql);
        }
        let begins = self.0.len();
        self.number(0);
        let mut from = 0;
        for token in Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment) {
            self.0.extend_from_slice(sql.get(from..token.start).unwrap_or_default());
            // Behind a line end a string constant goes on, behind a blank it does not (src/backend/parser/scan.l).
            self.0.push(if token.bytes(sql).starts_with(b"--") { b'\n' } else { b' ' });
            from = token.end;
        }
        self.0.extend_from_slice(sql.get(from..).unwrap_or_default());
        // Comments in front and behind leave nothing.
        let text = begins + size_of::<u64>();
        let blank = self.0.iter().skip(text).take_while(|byte| byte.is_ascii_whitespace()).count();
        self.0.drain(text..text + blank);
        while self.0.len() > text && self.0.last().is_some_and(u8::is_ascii_whitespace) {
            self.0.pop();
        }
        let length = (self.0.len() - text) as u64;
        if let Some(place) = self.0.get_mut(begins..text) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }
}

/// A whole key with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed<'a> {
    hash: u64,
    bytes: &'a [u8],
}

impl<'a> Hashed<'a> {
    /// This one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { hash: HASHES.hash_one(bytes), bytes }
    }

    /// Its bytes, to be kept.
    #[must_use]
    pub fn to_owned(self) -> Owned {
        Owned { hash: self.hash, bytes: self.bytes.into() }
    }

    /// Its hash.
    #[must_use]
    pub fn hash(self) -> u64 {
        self.hash
    }
}

impl Deref for Hashed<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The same with bytes that it shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    hash: u64,
    bytes: Arc<[u8]>,
}

impl Owned {
    /// The same, to look for.
    #[must_use]
    pub fn as_ref(&self) -> Hashed<'_> {
        Hashed { hash: self.hash, bytes: &self.bytes }
    }
}

impl Deref for Owned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Hash for Owned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl quick_cache::Equivalent<Owned> for Hashed<'_> {
    fn equivalent(&self, key: &Owned) -> bool {
        *self == key.as_ref()
    }
}

/// What a key is made of, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of this key.
    #[must_use]
    pub fn of(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// The next, if it is a number.
    pub fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    /// The next, if it is of any length.
    pub fn field(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }

    /// There are no more.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: &str) -> Vec<u8> {
        let mut buffer = Vec::new();
        let commented = sql.contains("--") || sql.contains("/*");
        Key::new(&mut buffer).text(sql.as_bytes(), commented, true);
        buffer
    }

    #[test]
    fn comments_are_no_part_of_a_text() {
        for same in ["/* trace='1' */ SELECT 1", "SELECT 1 -- b\n", "SELECT 1 /* a /* b */ */", "--x\nSELECT 1"] {
            assert_eq!(text(same), text("SELECT 1"), "{same}");
        }
        for other in ["SELECT 1;", "SELECT '/* trace */'", "select 1", "SELECT 11", "SELECT  1"] {
            assert_ne!(text(other), text("SELECT 1"), "{other}");
        }
        // The first is one constant, the second no statement at all.
        assert_ne!(text("SELECT 'a' --\n'b'"), text("SELECT 'a' /**/'b'"));
        assert_ne!(text("SELECT 1--2\n"), text("SELECT 1 2"));
    }

    #[test]
    fn what_is_put_in_comes_out() {
        let mut buffer = Vec::new();
        let mut key = Key::new(&mut buffer);
        key.number(7);
        key.text(b"SELECT 1 -- why", true, true);
        key.field(b"");
        let mut fields = Fields::of(&buffer);
        assert_eq!((fields.number(), fields.field(), fields.is_at_end()), (Some(7), Some(&b"SELECT 1"[..]), false));
        assert_eq!((fields.field(), fields.is_at_end(), fields.field()), (Some(&b""[..]), true, None));
        assert_eq!(Fields::of(&buffer[..12]).field(), None);
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let key = |fields: &[&[u8]]| {
            let mut buffer = Vec::new();
            let mut key = Key::new(&mut buffer);
            fields.iter().for_each(|field| key.field(field));
            buffer
        };
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_ne!(key(&[b"", b"a"]), key(&[b"a", b""]));
        assert_ne!(key(&[b"a"]), key(&[b"a", b""]));
    }
}
