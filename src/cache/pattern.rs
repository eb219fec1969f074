//! Patterns by which answers are taken back: of what their statements say and were given, and of their tags.
//! Must never let an answer pass that a pattern is for because of how its values were sent, nor remember more of them than it may.
//!
//! A pattern is for the whole of one of these: the statement without its comments, in the extended protocol with its values behind a blank, as
//! `SELECT v FROM item WHERE tenant = $1 (7, NULL)`; or a tag. `*` stands for any number of characters, everything else for itself, behind `\` a `*` and a `\`, too.
//! Letters of ASCII in either case are the same, and so is any blank space, of which none counts at either end. A value in binary is taken for a text, and as its length allows
//! for an integer, a boolean or a UUID: what it is only the server knows. One of another type is found by `*` alone.
//!
//! Keys are what answers are kept under, and are looked for by whole: nobody goes through them. So a pattern is remembered with the moment at which it was said,
//! and whoever is about to give an answer that began before looks whether one of those is for it, once per answer and pattern. When there are more than [`MOST`], the oldest
//! becomes what takes back everything of its database that began before it: by then little of that is left.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// Longest pattern, bytes.
pub const LONGEST: usize = 1024;
/// Most `*` in one: so many places of a pattern are followed at once.
pub const STARS: usize = 16;
/// Most patterns that are remembered.
pub const MOST: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Any number of characters.
    Any,
    /// This one; a blank for blank space.
    One(u8),
}

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    text: Box<str>,
    steps: Box<[Step]>,
}

/// What an answer is held by against patterns.
#[derive(Clone, Debug, Default)]
pub struct Said<'a> {
    /// The statement without its comments.
    pub text: &'a [u8],
    /// What it was given, behind the names of its Bind; `None` in the simple protocol.
    pub bind: Option<&'a [u8]>,
    /// Its tags.
    pub tags: Vec<&'a [u8]>,
}

impl Pattern {
    /// What this text says.
    ///
    /// # Errors
    /// It is no pattern; why.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("a pattern has 1024 bytes at most");
        }
        let (mut steps, mut bytes) = (Vec::new(), text.trim().bytes());
        while let Some(byte) = bytes.next() {
            let step = match byte {
                b'*' => Step::Any,
                b'\\' => match bytes.next() {
                    Some(byte @ (b'*' | b'\\')) => Step::One(byte),
                    _ => return Err("behind a \\ in a pattern a * or another \\ is expected"),
                },
                byte => Step::One(folded(byte)),
            };
            let again = matches!(step, Step::Any | Step::One(b' ')) && steps.last() == Some(&step);
            if !again {
                steps.push(step);
            }
        }
        if steps.is_empty() {
            return Err("a pattern is empty");
        }
        if steps.iter().filter(|step| **step == Step::Any).count() > STARS {
            return Err("a pattern has 16 * at most");
        }
        Ok(Self { text: text.into(), steps: steps.into() })
    }

    /// As it was said.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is for one of these.
    #[must_use]
    pub fn is_for(&self, said: &Said<'_>) -> bool {
        let mut walk = Walk::new(self);
        walk.feed(said.text);
        if let Some(bind) = said.bind
            && walk.values(bind).is_none()
        {
            // What cannot be read may be anything.
            return true;
        }
        let is_tag = |tag: &&[u8]| {
            let mut walk = Walk::new(self);
            walk.feed(tag);
            walk.is_at_end()
        };
        walk.is_at_end() || said.tags.iter().any(is_tag)
    }
}

fn folded(byte: u8) -> u8 {
    if byte.is_ascii_whitespace() { b' ' } else { byte.to_ascii_lowercase() }
}

/// Where in a pattern whoever follows a text may be.
#[derive(Clone)]
struct Walk<'a> {
    steps: &'a [Step],
    /// In ascending order.
    at: Vec<u16>,
    /// Blank space was met behind something else.
    blank: bool,
    begun: bool,
}

impl<'a> Walk<'a> {
    fn new(pattern: &'a Pattern) -> Self {
        let mut this = Self { steps: &pattern.steps, at: Vec::new(), blank: false, begun: false };
        this.enter(0);
        this
    }

    fn step(&self, at: u16) -> Option<Step> {
        self.steps.get(usize::from(at)).copied()
    }

    fn enter(&mut self, at: u16) {
        if !self.at.contains(&at) {
            self.at.push(at);
        }
        // It may stand for nothing.
        if self.step(at) == Some(Step::Any) && !self.at.contains(&(at + 1)) {
            self.at.push(at + 1);
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match folded(*byte) {
                b' ' => self.blank = self.begun,
                byte => {
                    if std::mem::take(&mut self.blank) {
                        self.take(b' ');
                    }
                    self.begun = true;
                    self.take(byte);
                }
            }
            if self.at.is_empty() {
                return;
            }
        }
    }

    fn take(&mut self, byte: u8) {
        for at in std::mem::take(&mut self.at) {
            match self.step(at) {
                Some(Step::Any) => self.enter(at),
                Some(Step::One(one)) if one == byte => self.enter(at + 1),
                _ => {}
            }
        }
    }

    /// Whatever one of these is.
    fn feed_one_of(&mut self, all: &[&[u8]]) {
        let before = self.clone();
        self.at.clear();
        for one in all {
            let mut walk = before.clone();
            walk.feed(one);
            let mut places = walk.at.clone();
            // A blank at its end counts only if something comes behind it: as in a text, where that is seen later.
            if walk.blank {
                walk.take(b' ');
                places.extend(walk.at);
            }
            for at in places {
                if !self.at.contains(&at) {
                    self.at.push(at);
                }
            }
        }
        (self.blank, self.begun) = (false, true);
    }

    fn is_at_end(&self) -> bool {
        self.at.iter().any(|at| usize::from(*at) == self.steps.len())
    }

    /// The values of a Bind; `None` if they cannot be read.
    fn values(&mut self, bind: &[u8]) -> Option<()> {
        let (formats, rest) = list(bind)?;
        let (formats, rest) = rest.split_at_checked(formats * 2)?;
        let (count, mut rest) = list(rest)?;
        for number in 0..count {
            self.feed(if number == 0 { b" (" } else { b", " });
            let (length, behind) = rest.split_first_chunk::<4>()?;
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                self.feed(b"NULL");
                rest = behind;
                continue;
            };
            let (value, behind) = behind.split_at_checked(length)?;
            let at = if formats.len() == 2 { 0 } else { number * 2 };
            if formats.get(at..at + 2).is_none_or(|format| format == [0, 0]) {
                self.feed(value);
            } else {
                self.feed_one_of(&[value, read_binary(value).as_bytes()]);
            }
            rest = behind;
        }
        if count > 0 {
            self.feed(b")");
        }
        Some(())
    }
}

fn list(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_be_bytes(*count)), rest))
}

/// What a value in binary is if it is a number, a boolean or a UUID, as its length says; empty if it is neither.
fn read_binary(value: &[u8]) -> String {
    match *value {
        [0] => "f".into(),
        [1] => "t".into(),
        [a, b] => i16::from_be_bytes([a, b]).to_string(),
        [a, b, c, d] => i32::from_be_bytes([a, b, c, d]).to_string(),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string(),
        ref bytes if bytes.len() == 16 => {
            let digits = |(at, byte): (usize, &u8)| {
                let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                format!("{dash}{byte:02x}")
            };
            bytes.iter().enumerate().map(digits).collect()
        }
        _ => String::new(),
    }
}

/// One that was said.
#[derive(Clone, Debug)]
struct Known {
    /// Those that came later have greater ones.
    number: u64,
    /// In which database; `None`: in all.
    database: Option<Box<str>>,
    pattern: Arc<Pattern>,
    /// What began by then is meant, microseconds of the process's clock.
    us: u64,
}

/// One that is not remembered any more: whose database it was in, and what began by when is meant, microseconds.
pub type Forgotten = (Option<Box<str>>, u64);

/// All that are remembered.
#[derive(Debug, Default)]
pub struct Patterns {
    known: ArcSwap<Vec<Known>>,
    /// The number given last; held by who adds one.
    last: Mutex<u64>,
}

impl Patterns {
    /// What this is for in this database, or in all, and began by then, is void. What is not remembered any more instead.
    #[must_use]
    pub fn add(&self, database: Option<&str>, pattern: &Pattern, us: u64) -> Option<Forgotten> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = Vec::clone(&self.known.load());
        let is_it = |it: &Known| it.database.as_deref() == database && *it.pattern == *pattern;
        let before = known.iter().find(|it| is_it(it)).map(|it| it.us);
        if before.is_some_and(|before| before >= us) {
            return None;
        }
        known.retain(|it| !is_it(it));
        *last += 1;
        known.push(Known { number: *last, database: database.map(Box::from), pattern: Arc::new(pattern.clone()), us });
        let oldest = (0..known.len()).min_by_key(|&at| known.get(at).map(|it| it.us));
        let gone = oldest.filter(|_| known.len() > MOST).map(|at| known.remove(at));
        self.known.store(Arc::new(known));
        gone.map(|gone| (gone.database, gone.us))
    }

    /// Whether one of those behind the number `from` is for what is said here, of this database and begun at this time. And the number of the last.
    #[must_use]
    pub fn void<'a>(
        &self,
        database: &str,
        began_us: u64,
        from: u64,
        says: impl FnOnce() -> Option<Said<'a>>,
    ) -> (bool, u64) {
        let known = self.known.load();
        let last = known.iter().map(|it| it.number).max().unwrap_or_default();
        let is_new = |it: &&Known| {
            it.number > from && it.us >= began_us && it.database.as_deref().is_none_or(|name| name == database)
        };
        let mut new = known.iter().filter(is_new).peekable();
        if new.peek().is_none() {
            return (false, last);
        }
        // Of what nobody can read any may be meant.
        let is_void = says().is_none_or(|said| new.any(|it| it.pattern.is_for(&said)));
        (is_void, last)
    }
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
