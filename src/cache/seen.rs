//! Which keys were asked for before, to keep out what is asked for once.
//! Must never keep anybody out while there is room.
//!
//! Where others have to go for what is kept, keeping an answer costs more than getting it: what goes is long out of the processor's caches.
//! And what is asked for once by a scan or a report is not worth it. So, once answers had to go, a new one is kept only if its key was seen
//! before, which is what the filter in front of TinyLFU does (Einziger, Friedman, Manes: TinyLFU: A Highly Efficient Cache Admission Policy,
//! ACM ToS 2017, section 3.4.2). Keys are noted by 16 bits of their hash, in a table of a place for every half KiB of room: a note lasts
//! until another key comes to its place, for about as many keys as there are places.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU16};

use arc_swap::ArcSwap;

/// Room for which there is one place, bytes.
const PLACE_BYTES: u64 = 512;

/// The notes.
#[derive(Debug)]
pub struct Seen {
    notes: ArcSwap<Box<[AtomicU16]>>,
    full: AtomicBool,
}

fn places(max_bytes: u64) -> usize {
    let places = usize::try_from(max_bytes / PLACE_BYTES).unwrap_or(usize::MAX).clamp(1 << 10, 1 << 24);
    places.next_power_of_two()
}

fn notes(max_bytes: u64) -> Box<[AtomicU16]> {
    (0..places(max_bytes)).map(|_| AtomicU16::new(0)).collect()
}

impl Seen {
    /// None yet, of keys of answers that take so many bytes at most.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self { notes: ArcSwap::from_pointee(notes(max_bytes)), full: AtomicBool::new(false) }
    }

    /// They may take so many from now on: if that is another number, all notes are made anew.
    pub fn resize(&self, max_bytes: u64) {
        if self.notes.load().len() != places(max_bytes) {
            self.notes.store(Arc::new(notes(max_bytes)));
        }
    }

    /// Notes a key of this hash; whether it was noted already.
    pub fn note(&self, hash: u64) -> bool {
        // Its lower bits; 0 is no note.
        let note = hash as u16 | 1;
        let notes = self.notes.load();
        let place = (hash >> 16) as usize & (notes.len() - 1);
        let Some(place) = notes.get(place) else { return true };
        let known = place.load(Relaxed) == note;
        if !known {
            place.store(note, Relaxed);
        }
        known
    }

    /// Answers had to go for others, or there is room again.
    pub fn set_full(&self, full: bool) {
        // A line that nobody writes to stays with all who read it.
        if self.is_full() != full {
            self.full.store(full, Relaxed);
        }
    }

    /// Whether answers had to go, and there was no room since.
    pub fn is_full(&self) -> bool {
        self.full.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::Hashed;

    #[test]
    fn keys_are_known_until_many_others_came() {
        let seen = Seen::new(1 << 20);
        let note = |n: u32| seen.note(Hashed::new(&n.to_be_bytes()).hash());
        let fresh = (0..1000).filter(|n| !note(*n)).count();
        let known = (0..1000).filter(|n| note(*n)).count();
        assert!(fresh > 990 && known > 500, "{fresh} {known}");
        assert!((1000..20_000).filter(|n| !note(*n)).count() > 18_000);
        let known = (0..1000).filter(|n| note(*n)).count();
        assert!(known < 50, "{known}");
        // With more room, more of them.
        seen.resize(64 << 20);
        assert!((0..20_000).filter(|n| !note(*n)).count() > 19_000);
        assert!((0..20_000).filter(|n| note(*n)).count() > 14_000);
    }
}
