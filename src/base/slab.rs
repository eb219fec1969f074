//! A slab whose keys know which life of a slot they mean.
//! Must never hand out a value through the key of an earlier occupant.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Key of a value in a [`Slab`]. A key outlives its value harmlessly: it then finds nothing.
pub struct Id<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The slot number: unique among living values only.
    pub fn index(self) -> u32 {
        self.index
    }
}

impl<T> Default for Id<T> {
    /// A key that never finds anything, where an `Option` would cost its bytes.
    fn default() -> Self {
        Self { index: u32::MAX, generation: u32::MAX, of: PhantomData }
    }
}

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Id<T> {}
impl<T> Hash for Id<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values addressed by [`Id`]; insertion and removal in constant time, slots reused.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores `value`.
    pub fn insert(&mut self, value: T) -> Id<T> {
        let index = self.free.pop().unwrap_or(self.slots.len() as u32);
        if index as usize == self.slots.len() {
            self.slots.push(Slot { generation: 0, value: None });
        }
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        Id { index, generation: slot.generation, of: PhantomData }
    }

    /// Takes the value out; the slot's generation moves on.
    pub fn remove(&mut self, id: Id<T>) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(value)
    }

    /// The value, if this life of the slot still goes on.
    pub fn get(&self, id: Id<T>) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_ref() } else { None }
    }

    /// The value, if this life of the slot still goes on.
    pub fn get_mut(&mut self, id: Id<T>) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.value.as_mut() } else { None }
    }

    /// The key of whatever lives in slot `index` now.
    pub fn id_at(&self, index: u32) -> Option<Id<T>> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref()?;
        Some(Id { index, generation: slot.generation, of: PhantomData })
    }

    /// Keys of all living values.
    pub fn ids(&self) -> impl Iterator<Item = Id<T>> + '_ {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some()).map(|(index, slot)| Id {
            index: index as u32,
            generation: slot.generation,
            of: PhantomData,
        })
    }

    /// The key that the next value will have.
    pub fn next(&self) -> Id<T> {
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        Id { index, generation, of: PhantomData }
    }

    /// All living values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    /// Slots in use or free: the end of what [`Slab::id_at`] may find.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// How many values live.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Nothing lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// For values that live as long as anything that has their key; the key of another is a mistake as an index
/// out of bounds is.
impl<T> std::ops::Index<Id<T>> for Slab<T> {
    type Output = T;

    #[track_caller]
    fn index(&self, id: Id<T>) -> &T {
        let living = self.get(id).map_or(&[][..], std::slice::from_ref);
        &living[0]
    }
}

impl<T> std::ops::IndexMut<Id<T>> for Slab<T> {
    #[track_caller]
    fn index_mut(&mut self, id: Id<T>) -> &mut T {
        let living = self.get_mut(id).map_or(&mut [][..], std::slice::from_mut);
        &mut living[0]
    }
}

/// Whatever lives in a slot.
#[cfg(test)]
impl<T> std::ops::Index<usize> for Slab<T> {
    type Output = T;

    fn index(&self, index: usize) -> &T {
        self.slots[index].value.as_ref().unwrap_or_else(|| panic!("slot {index} is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let next = slab.next();
        let b = slab.insert("b");
        assert_eq!((b.index(), b), (a.index(), next));
        assert_eq!((slab[b], slab.values().count()), ("b", 1));
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(b), Some(&"b"));
        assert_eq!(slab.len(), 1);
    }
}
