//! What operators and applications say does not count any more, and the one place where that is said for all workers at once.
//! Must never let an answer live that began before what was said of something that it hangs on.
//!
//! Every answer that is kept hangs on slots of [`super::marks`]: of its database, its shape, the tables that its statement reads, views and
//! functions and parents of partitions included, by name as the catalog had it, and the tags that stand in a comment of the statement
//! (`/* pgweir: tag=menu */`). A signal writes the time into the slots of what it names, and is done: nothing is looked for, and nothing
//! taken out of a store. One by pattern, which no slots are of, is remembered with its time ([`super::pattern`]). Who is about to give an answer compares that time with when the answer's execution began. So what was under way
//! when the signal came, and is kept afterwards, does not count either, from whichever worker, or other process, it comes.
//!
//! An answer of which is not known what it reads goes with every signal of a table of its database. What it reads is known as of when the catalog
//! was read last: who changes a view past pgweir, and gives a signal for what it reads since, is not understood before `catalog_refresh`.
//!
//! *Other processes* hear of what operators say by way of Redis, where that is used ([`super::remote`]): it keeps for each slot the moment since
//! when answers count, and each process looks there once a second. Notifications of the database all of them hear themselves.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::Notify;

use super::entry::Entry;
use super::marks::{Dependency, Marks};
use super::pattern::{MOST, Pattern, Patterns, Said};
use crate::base::clock;

/// What does not count any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// In which database; `None`: in all.
    pub database: Option<Box<str>>,
    /// What.
    pub what: What,
}

/// Answers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Those that read the table of this name, in this schema or in any. Where none is given, one may stand in front of a dot in the name.
    Table(Option<Box<str>>, Box<str>),
    /// Those to statements with this tag.
    Tag(Box<str>),
    /// Those to statements of this shape.
    Shape(u64),
    /// Those that this is for ([`super::pattern`]).
    Pattern(Pattern),
    /// All of them.
    All,
}

/// What other processes are told of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// A slot of [`super::marks`].
    Slot(u32),
    /// A pattern, in this database or in all.
    Pattern(Option<Box<str>>, Pattern),
}

impl Word {
    /// What takes back all that this does, and needs nothing to be remembered.
    #[must_use]
    pub fn instead(&self) -> Self {
        match self {
            Self::Slot(slot) => Self::Slot(*slot),
            Self::Pattern(database, _) => Self::Slot(whole(database.as_deref())),
        }
    }
}

/// Why a JSON text is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// It is no JSON.
    #[error("this is no JSON: {0}")]
    Syntax(String),
    /// It does not say what is to go.
    #[error("{0}")]
    Meaning(&'static str),
    /// Its pattern is none.
    #[error("\"pattern\" is none: {0}")]
    Pattern(&'static str),
}

/// What is expected of JSON.
const EXPECTED: &str = "exactly one of \"table\", \"tag\", \"shape\", \"pattern\" and \"all\": true is expected, with a \"database\" or without";

/// The number of a shape, as the console and the metrics have it.
#[must_use]
pub fn shape(text: &str) -> Option<u64> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl Signal {
    /// Everything of a database, or of all.
    #[must_use]
    pub fn all(database: Option<&str>) -> Self {
        Self { database: database.map(Box::from), what: What::All }
    }

    /// What a JSON object says: `{"database":"shop","table":"public.menu"}`, `{"tag":"menu"}`, `{"shape":"0123456789abcdef"}`,
    /// `{"pattern":"* FROM menu WHERE tenant = $1 (7)"}`, `{"all":true}`.
    /// Other fields may stand beside these, but for a `"schema"` of the table they mean nothing.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn of_json(text: &[u8]) -> Result<Self, Unclear> {
        let value: Value = serde_json::from_slice(text).map_err(|error| Unclear::Syntax(error.to_string()))?;
        let object = value.as_object().ok_or(Unclear::Meaning("a JSON object is expected"))?;
        let text = |name: &str, wrong: &'static str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(Box::from(text.as_str()))),
            Some(_) => Err(Unclear::Meaning(wrong)),
        };
        let database = text("database", "\"database\" must be the name of one")?;
        let schema = text("schema", "\"schema\" must be a name")?;
        let table = text("table", "\"table\" must be a name")?.map(|name| What::Table(schema, name));
        let tag = text("tag", "\"tag\" must be a word")?.map(What::Tag);
        const SHAPE: &str = "\"shape\" must be a text of up to 16 hexadecimal digits, as SHOW QUERIES has it";
        let named = text("shape", SHAPE)?;
        let of_shape = named.map(|it| shape(&it).map(What::Shape).ok_or(Unclear::Meaning(SHAPE))).transpose()?;
        let said = text("pattern", "\"pattern\" must be a text")?;
        let pattern = said.map(|it| Pattern::new(&it).map(What::Pattern).map_err(Unclear::Pattern)).transpose()?;
        let all = match object.get("all") {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(Value::Bool(true)) => Some(What::All),
            Some(_) => return Err(Unclear::Meaning("\"all\" must be true")),
        };
        let mut said = [table, tag, of_shape, pattern, all].into_iter().flatten();
        match (said.next(), said.next()) {
            (Some(what), None) => Ok(Self { database, what }),
            _ => Err(Unclear::Meaning(EXPECTED)),
        }
    }

    /// The slots of what it names; `databases`: all that there are.
    fn slots<'a>(&self, databases: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        if let (None, What::All) = (&self.database, &self.what) {
            return vec![Dependency::Everything.slot("", 0)];
        }
        let is_meant = |name: &&str| self.database.as_ref().is_none_or(|database| **database == **name);
        let all: Vec<Dependency<'_>> = match &self.what {
            What::Table(Some(schema), name) => {
                vec![Dependency::Tables, Dependency::Table(Some(schema.as_bytes()), name.as_bytes())]
            }
            What::Table(None, name) => {
                let parted = name.split_once('.').into_iter();
                let parted = parted.map(|(schema, name)| Dependency::Table(Some(schema.as_bytes()), name.as_bytes()));
                [Dependency::Tables, Dependency::Table(None, name.as_bytes())].into_iter().chain(parted).collect()
            }
            What::Tag(word) => vec![Dependency::Tag(word.as_bytes())],
            What::Shape(shape) => vec![Dependency::Shape(*shape)],
            // It has none.
            What::Pattern(_) => Vec::new(),
            What::All => vec![Dependency::Database],
        };
        let databases = databases.into_iter().filter(is_meant);
        databases.flat_map(|database| all.iter().map(|it| it.slot(database, 0)).collect::<Vec<_>>()).collect()
    }
}

/// The slots that an answer to a statement of this shape hangs on: `tables`, by schema and name, are what it reads; `None`: that is not known.
#[must_use]
pub fn deps<'a>(database: &str, shape: u64, tables: Option<impl Iterator<Item = (&'a [u8], &'a [u8])>>) -> Arc<[u32]> {
    let mut slots: Vec<u32> =
        [Dependency::Everything, Dependency::Database, Dependency::Shape(shape)].map(|it| it.slot(database, 0)).into();
    match tables {
        None => slots.push(Dependency::Tables.slot(database, 0)),
        Some(tables) => {
            for (schema, name) in tables {
                let both = [Dependency::Table(None, name), Dependency::Table(Some(schema), name)];
                slots.extend(both.map(|it| it.slot(database, 0)));
            }
        }
    }
    slots.into()
}

/// The slot of a tag.
#[must_use]
pub fn tag(database: &str, word: &[u8]) -> u32 {
    Dependency::Tag(word).slot(database, 0)
}

/// Who takes signals for a whole process.
#[derive(Debug, Default)]
pub struct Signals {
    marks: Arc<Marks>,
    /// Somebody can tell other processes.
    shares: AtomicBool,
    patterns: Patterns,
    /// What other processes are to be told, and when that was said, microseconds of the process's clock. No more than there are slots, and patterns remembered.
    untold: Mutex<BTreeMap<Word, u64>>,
    /// What they were told, and the moments of Redis' clock.
    told: Mutex<BTreeMap<Word, u64>>,
    /// Rung when there is something to tell.
    pub bell: Notify,
}

impl Signals {
    /// Of what answers hang on.
    #[must_use]
    pub fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    /// What it names does not count any more, in this process at once; `databases`: all that there are. Others hear of it if they can.
    pub fn give<'a>(&self, signal: &Signal, databases: impl IntoIterator<Item = &'a str>) {
        let (slots, now_us) = (signal.slots(databases), clock::now_us());
        slots.iter().for_each(|slot| self.marks.void(*slot, now_us));
        let mut words: Vec<(Word, u64)> = slots.into_iter().map(|slot| (Word::Slot(slot), now_us)).collect();
        if let What::Pattern(pattern) = &signal.what {
            words.push((Word::Pattern(signal.database.clone(), pattern.clone()), now_us));
            words.extend(self.remember(signal.database.as_deref(), pattern, now_us));
        }
        if self.shares.load(Relaxed) {
            raise(&self.untold, words);
            bound(&self.untold);
            self.bell.notify_one();
        }
    }

    /// What this is for and began by then is void. What stands in for another one that is not remembered any more.
    fn remember(&self, database: Option<&str>, pattern: &Pattern, us: u64) -> Option<(Word, u64)> {
        let gone = self.patterns.add(database, pattern, us);
        let instead = gone.map(|(database, us)| (whole(database.as_deref()), us));
        instead.iter().for_each(|(slot, us)| self.marks.void(*slot, *us));
        // Whoever sees that something was said finds it.
        self.marks.reach(us);
        instead.map(|(slot, us)| (Word::Slot(slot), us))
    }

    /// Whether nobody has said that an answer does not count any more; `says`: what is held against patterns.
    pub fn stand<'a>(&self, database: &str, entry: &Entry, says: impl FnOnce() -> Option<Said<'a>>) -> bool {
        let began_us = entry.stamp.began_us;
        if self.marks.newest_us() < began_us {
            return true;
        }
        if !self.marks.stand(&entry.deps, began_us) {
            return false;
        }
        let (is_void, last) = self.patterns.void(database, began_us, entry.cleared.load(Relaxed), says);
        if !is_void {
            entry.cleared.fetch_max(last, Relaxed);
        }
        !is_void
    }

    /// The same, which others hear by themselves.
    pub fn heard(&self, signal: &Signal, database: &str) {
        let now_us = clock::now_us();
        let signal = Signal { database: Some(database.into()), what: signal.what.clone() };
        signal.slots([database]).into_iter().for_each(|slot| self.marks.void(slot, now_us));
        if let What::Pattern(pattern) = &signal.what {
            let _ = self.remember(Some(database), pattern, now_us);
        }
    }

    /// What is kept of this database is not known to be what it was taken for: the catalog says something else than before.
    pub fn forget(&self, database: &str) {
        self.marks.void(Dependency::Database.slot(database, 0), clock::now_us());
    }

    /// There is somebody who tells others.
    pub fn set_shares(&self) {
        self.shares.store(true, Relaxed);
    }

    /// What others are to be told, to be given back if that does not succeed.
    pub fn take_untold(&self) -> BTreeMap<Word, u64> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// This is still to be told to others, who could not be told.
    pub fn owe_again(&self, words: impl IntoIterator<Item = (Word, u64)>) {
        raise(&self.untold, words);
        bound(&self.untold);
    }

    /// Others were told this with these moments of Redis' clock: from there it means nothing new.
    pub fn is_told(&self, moments: impl IntoIterator<Item = (Word, u64)>) {
        raise(&self.told, moments);
        // What is taken for news again does no harm.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let of_patterns = told.iter().filter(|(word, _)| matches!(word, Word::Pattern(..)));
        let of_patterns = of_patterns.map(|(word, us)| (*us, word.clone())).collect();
        for (_, word) in beyond(of_patterns) {
            told.remove(&word);
        }
    }

    /// Others have told that what hangs on this counts from a moment of Redis' clock on, which is no later than `us` of ours.
    pub fn hears(&self, word: &Word, moment_us: u64, us: u64) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).get(word).copied();
        if told.is_some_and(|told| told >= moment_us) {
            return;
        }
        match word {
            // 0 is never; what began before our clock did began at 0.
            Word::Slot(slot) => self.marks.void(*slot, us.max(1)),
            Word::Pattern(database, pattern) => drop(self.remember(database.as_deref(), pattern, us)),
        }
    }
}

/// The slot of everything in a database, or in all.
#[must_use]
pub fn whole(database: Option<&str>) -> u32 {
    database.map_or(Dependency::Everything, |_| Dependency::Database).slot(database.unwrap_or_default(), 0)
}

fn raise(all: &Mutex<BTreeMap<Word, u64>>, more: impl IntoIterator<Item = (Word, u64)>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    for (word, us) in more {
        let known = all.entry(word).or_default();
        *known = us.max(*known);
    }
}

/// No more patterns than are remembered: in place of the oldest everything of its database.
fn bound(all: &Mutex<BTreeMap<Word, u64>>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    let patterns = |all: &BTreeMap<Word, u64>| -> Vec<(u64, Word)> {
        all.iter().filter(|(word, _)| matches!(word, Word::Pattern(..))).map(|(word, us)| (*us, word.clone())).collect()
    };
    for (us, word) in beyond(patterns(&all)) {
        all.remove(&word);
        let known = all.entry(word.instead()).or_default();
        *known = us.max(*known);
    }
}

/// The oldest of these patterns, that are more than are remembered.
pub fn beyond(mut patterns: Vec<(u64, Word)>) -> impl Iterator<Item = (u64, Word)> {
    patterns.sort_unstable();
    let more = patterns.len().saturating_sub(MOST);
    patterns.into_iter().take(more)
}

#[cfg(test)]
#[path = "signal_tests.rs"]
mod tests;
