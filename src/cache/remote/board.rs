//! Where processes tell each other what does not count any more: a sorted set in Redis.
//! Must never lose what is to be told, nor take an answer for good of which it may have been told elsewhere.
//!
//! Its members are slots of [`crate::cache::marks`], and patterns ([`crate::cache::pattern`]), hidden from who has no secret ([`super::seal`]), their scores the moments of Redis' clock since when answers count that hang on them. A score only grows
//! (`ZADD GT`), so that it does not matter in which order, how late, or how often they are told. Two members are of another kind: `count` grows
//! behind whatever was told, so that nobody needs to look at the rest who knows it; and `life`, the moment at which the set was made. Where that is not there,
//! everything that was told is lost: it is made anew, and what began before is not taken from Redis any more.
//! Of patterns there are as many as processes remember; who finds more there puts everything of their databases in the place of the oldest.
//!
//! *Bounds.* In the process that is told first nothing counts from that moment on, from wherever it comes. It tells Redis at once, and again once a second until
//! that is done; each of the others looks once a second, and takes nothing from Redis when it could not look for [`super::STALE_US`]. So what does not
//! count is given by another process, from its own store or from Redis, for no more than that time after Redis was told; but where Redis cannot be reached, its own store knows nothing of it.
//! A Redis that comes back with older data has forgotten what was said since, as one has whose replica took its place too early: then whoever has heard of it already stays by it, and others
//! may be given what is in its time. Whoever can write to Redis can have that as well, by taking back what was said.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use redis::RedisResult;

use super::link::Link;
use super::seal::Keys;
use super::time::Skew;
use crate::base::clock::now_us;
use crate::cache::signal::{Signal, Signals, What, Word, beyond};

const LIFE: &str = "life";
const COUNT: &str = "count";
/// What members begin with that are patterns.
const PATTERN: &str = "p:";

/// One worker's sight of the set.
pub(super) struct Board {
    signals: Arc<Signals>,
    keys: Arc<Keys>,
    /// Of the set.
    name: String,
    /// What its two members said when the rest was looked at last.
    seen: Cell<(Option<f64>, Option<f64>)>,
    /// What began before this moment of Redis' clock is not taken from there, microseconds.
    floor_us: Cell<u64>,
}

/// What is being told: given back if that does not come to an end.
struct Telling<'a>(&'a Signals, BTreeMap<Word, u64>);

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.0.owe_again(std::mem::take(&mut self.1));
    }
}

impl Board {
    pub fn new(signals: Arc<Signals>, keys: Arc<Keys>, name: String) -> Self {
        signals.set_shares();
        Self { signals, keys, name, seen: Cell::default(), floor_us: Cell::new(u64::MAX) }
    }

    /// What began before this moment of Redis' clock is not taken from there.
    pub fn floor_us(&self) -> u64 {
        self.floor_us.get()
    }

    /// Returns when there is something to tell.
    pub async fn has_news(&self) {
        self.signals.bell.notified().await;
    }

    /// Tells what is to be told, and hears what others have told.
    ///
    /// # Errors
    /// Redis refuses, or is gone.
    pub async fn exchange(&self, link: &mut Link, skew: Skew) -> RedisResult<()> {
        let mut telling = Telling(&self.signals, self.signals.take_untold());
        if !telling.1.is_empty() {
            let moment = |(word, us): (&Word, &u64)| (word.clone(), skew.remote_most_us(*us));
            let moments: Vec<(Word, u64)> = telling.1.iter().map(moment).collect();
            let scores: Vec<(u64, String)> = moments.iter().map(|(word, us)| (*us, self.member(word))).collect();
            link.raise(&self.name, &scores, COUNT).await?;
            telling.1.clear();
            self.signals.is_told(moments);
        }
        drop(telling);
        let mut seen = self.ends(link).await?;
        if seen.0.is_none() {
            let life = (skew.remote_most_us(now_us()), LIFE.to_owned());
            link.raise(&self.name, &[life], COUNT).await?;
            seen = self.ends(link).await?;
        }
        if seen != self.seen.get() {
            let members = link.members(&self.name).await?;
            let said = members.iter().filter_map(|(member, score)| Some((*score as u64, self.word(member)?)));
            let (slots, patterns): (Vec<_>, Vec<_>) = said.partition(|(_, word)| matches!(word, Word::Slot(_)));
            for (moment_us, word) in slots.iter().chain(&patterns) {
                self.signals.hears(word, *moment_us, skew.local_most_us(*moment_us));
            }
            let more: Vec<(u64, Word)> = beyond(patterns).collect();
            if !more.is_empty() {
                let instead: Vec<(u64, String)> =
                    more.iter().map(|(us, it)| (*us, self.member(&it.instead()))).collect();
                link.raise(&self.name, &instead, COUNT).await?;
                let members: Vec<String> = more.iter().map(|(_, word)| self.member(word)).collect();
                link.dismiss(&self.name, &members).await?;
            }
            self.floor_us.set(seen.0.map_or(u64::MAX, |life| life as u64));
            self.seen.set(seen);
        }
        Ok(())
    }

    /// As what this is a member of the set.
    fn member(&self, word: &Word) -> String {
        match word {
            Word::Slot(slot) => slot.to_string(),
            Word::Pattern(database, pattern) => {
                let said = serde_json::json!({ "database": database, "pattern": pattern.text() }).to_string();
                format!("{PATTERN}{}", self.keys.hide(said.as_bytes()))
            }
        }
    }

    /// What a member of the set says; `None` if it is none of these, or was made with another secret.
    fn word(&self, member: &str) -> Option<Word> {
        let Some(hidden) = member.strip_prefix(PATTERN) else { return member.parse().ok().map(Word::Slot) };
        match Signal::of_json(&self.keys.reveal(hidden)?).ok()? {
            Signal { database, what: What::Pattern(pattern) } => Some(Word::Pattern(database, pattern)),
            _ => None,
        }
    }

    async fn ends(&self, link: &mut Link) -> RedisResult<(Option<f64>, Option<f64>)> {
        let scores = link.scores(&self.name, &[LIFE, COUNT]).await?;
        let score = |at: usize| scores.get(at).copied().flatten();
        Ok((score(0), score(1)))
    }
}
