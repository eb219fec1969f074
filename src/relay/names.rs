//! What the names of a client's prepared statements mean, and which names its server holds for it.
//! Must never forget to count a name: its bytes are limited per client and in all.

use std::collections::HashMap;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64;

use super::statements::{Statement, Tally};
use crate::sql::verdict::Effects;

/// What a name costs beside itself, bytes: its place in the map, and two allocations.
const NAME_BYTES: usize = 64;

/// A name, and what it meant before it was changed.
pub type Rename = (Box<[u8]>, Option<Rc<Statement>>);

/// Named statements of one client.
#[derive(Debug)]
pub struct Names {
    by_name: HashMap<Box<[u8]>, Rc<Statement>, foldhash::fast::RandomState>,
    bytes: usize,
    tally: Rc<Tally>,
    /// Names that its server holds for it under these very names, made by SQL or for it: as long
    /// as there are any the client keeps that server.
    pub own: u32,
    /// Nobody can tell how many those are.
    pub unsure: bool,
    /// What those of them that SQL made may do to settings when they are executed.
    pub executes: Effects,
    /// What the names changed by the messages under way meant before, oldest first.
    pub renames: Vec<Rename>,
    /// Portal that was last bound to what takes all names away.
    pub clearing: Option<Box<[u8]>>,
    /// Portals bound to statements that one of pgweir's own must follow, and its text.
    pub followed: Vec<(Box<[u8]>, String)>,
}

/// What is noted of a name where it is too long itself; never 0.
pub fn hashed(name: &[u8]) -> u32 {
    xxh3_64(name) as u32 | 1
}

impl Names {
    /// None yet.
    pub fn new(tally: &Rc<Tally>) -> Self {
        Self {
            by_name: HashMap::default(),
            bytes: 0,
            tally: Rc::clone(tally),
            own: 0,
            unsure: false,
            executes: Effects::NONE,
            renames: Vec::new(),
            clearing: None,
            followed: Vec::new(),
        }
    }

    /// What `name` means.
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.by_name.get(name)
    }

    /// From now on `name` means this, or nothing; returns what it meant.
    pub fn set(&mut self, name: &[u8], statement: Option<Rc<Statement>>) -> Option<Rc<Statement>> {
        let before = match statement {
            Some(statement) => {
                self.bytes += Self::cost(name, &statement.tail);
                match self.by_name.get_mut(name) {
                    Some(known) => Some(std::mem::replace(known, statement)),
                    None => {
                        self.tally.add(name.len() + NAME_BYTES);
                        self.by_name.insert(name.into(), statement)
                    }
                }
            }
            None => {
                let before = self.by_name.remove(name);
                if before.is_some() {
                    self.tally.sub(name.len() + NAME_BYTES);
                }
                before
            }
        };
        if let Some(before) = &before {
            self.bytes -= Self::cost(name, &before.tail);
        }
        before
    }

    /// Every name of statement `old` means `new`, which has the same text.
    pub fn replace(&mut self, old: u32, new: &Rc<Statement>) {
        for statement in self.by_name.values_mut().filter(|statement| statement.id == old) {
            *statement = Rc::clone(new);
        }
    }

    /// The statement `number`.
    pub fn of_number(&self, number: u32) -> Option<&Rc<Statement>> {
        self.by_name.values().find(|statement| statement.id == number)
    }

    /// The name with this hash, of statement `number` if there are several.
    pub fn with_hash(&self, hash: u32, number: u32) -> Option<&[u8]> {
        let alike = || self.by_name.iter().filter(|(name, _)| hashed(name) == hash);
        let mut among = alike().filter(|(_, statement)| statement.id == number);
        let (name, _) = among.next().or_else(|| alike().next())?;
        Some(name)
    }

    /// Takes all names away; each and what it meant.
    pub fn take_all(&mut self) -> Vec<(Box<[u8]>, Rc<Statement>)> {
        let all: Vec<_> = self.by_name.drain().collect();
        self.tally.sub(all.iter().map(|(name, _)| name.len() + NAME_BYTES).sum());
        self.bytes = 0;
        all
    }

    /// Whether the Execute of some portal is more than itself.
    pub fn watches_portals(&self) -> bool {
        self.clearing.is_some() || !self.followed.is_empty()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Bytes of names and texts, the latter also where they are shared.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What [`Names::bytes`] grows by.
    pub fn cost(name: &[u8], tail: &[u8]) -> usize {
        name.len() + tail.len() + NAME_BYTES
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.tally.sub(self.by_name.keys().map(|name| name.len() + NAME_BYTES).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::shapes::Look;
    use crate::relay::statements::{Statements, Under};
    use crate::sql::verdict::Effects;

    #[test]
    fn counts_what_it_keeps() {
        let mut all = Statements::default();
        let mut text = |text: &[u8]| {
            all.alone(text, Under { conforming: true, settings: Rc::default() }, Look::long(Effects::NONE))
        };
        let (short, long) = (text(b"select 1"), text(&[b'x'; 1000]));
        let mut names = Names::new(all.tally());
        names.set(b"a", Some(Rc::clone(&short)));
        names.set(b"bb", Some(Rc::clone(&short)));
        assert_eq!(names.bytes(), 2 * (8 + NAME_BYTES) + 3);
        assert_eq!(names.with_hash(hashed(b"bb"), short.id), Some(&b"bb"[..]));
        assert_eq!(names.with_hash(hashed(b"a"), 99), Some(&b"a"[..]));
        assert_eq!(names.with_hash(hashed(b"c"), short.id), None);
        assert_eq!(names.set(b"a", Some(Rc::clone(&long))).map(|s| s.id), Some(short.id));
        assert!(names.of_number(short.id).is_some() && names.of_number(99).is_none());
        assert_eq!(names.bytes(), 1008 + 2 * NAME_BYTES + 3);
        assert!(names.set(b"c", None).is_none());
        names.set(b"a", None);
        assert_eq!((names.len(), names.bytes()), (1, 8 + NAME_BYTES + 2));
        let tally = all.tally().bytes();
        assert_eq!(names.take_all().len(), 1);
        assert_eq!((names.len(), names.bytes(), tally - all.tally().bytes()), (0, 0, 2 + NAME_BYTES));
    }
}
