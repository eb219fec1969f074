//! Shapes whose statements an operator has blocked on the console.
//! Must never cost a statement more than a look whether there are any, nor keep anybody from ending a transaction.
//!
//! A batch with which a lease would begin is refused before it waits for a server, as by a rule (`super::course`). In the middle of
//! a lease, and behind others in a pipeline, a statement that fails is sent in its place, as where one may not keep its server
//! (`super::pins`): then the server's transaction fails with it. As long as a shape is blocked its statements go to the primary and
//! to no lane, and are not looked up in the cache.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::shapes::Look;
use super::{ClientId, GroupId, Relay};
use crate::flow::requests::End;
use crate::meter::SharedCounter;
use crate::sql::verdict::StatementKind;
use crate::wire::error::{PgError, SqlState};

/// One shape that is blocked.
#[derive(Debug)]
pub struct Block {
    /// The shape.
    pub shape: u64,
    /// The database in which it is; `None`: in all.
    pub database: Option<String>,
    /// Since when, µs of [`crate::base::clock`].
    pub since_us: u64,
    /// Who has blocked it.
    pub by: String,
    /// Statements refused so far, by all workers.
    pub refused: SharedCounter,
}

/// All that are blocked.
#[derive(Debug, Default)]
pub struct Blocks(HashMap<u64, Vec<Arc<Block>>, foldhash::fast::RandomState>);

impl Blocks {
    /// These.
    pub fn new(all: impl Iterator<Item = Arc<Block>>) -> Self {
        let mut blocks = Self::default();
        all.for_each(|block| blocks.0.entry(block.shape).or_default().push(block));
        blocks
    }

    /// What blocks a shape in a database.
    pub fn find(&self, shape: u64, database: &str) -> Option<&Arc<Block>> {
        let fits = |block: &&Arc<Block>| block.database.as_deref().is_none_or(|name| name == database);
        self.0.get(&shape)?.iter().find(fits)
    }
}

/// Whether statements of this kind are refused: not those that end a transaction, or a part of one.
#[must_use]
pub fn can_be_blocked(kind: StatementKind) -> bool {
    use StatementKind::{Begin, Commit, Empty, Release, Rollback, RollbackTo, Savepoint};
    !matches!(kind, Begin | Commit | Empty | Release | Rollback | RollbackTo | Savepoint)
}

impl Relay {
    /// From now on these are refused, and no others.
    pub fn block_shapes(&mut self, blocks: &Arc<Blocks>) {
        self.blocks = (!blocks.0.is_empty()).then(|| Arc::clone(blocks));
    }

    /// The text of a shape and what it is, if one was seen.
    pub fn known_shape(&self, shape: u64) -> Option<(Arc<str>, StatementKind)> {
        self.shapes.known(shape)
    }

    /// Whether statements of this shape are blocked in the group's database.
    pub(super) fn is_blocked(&self, group: GroupId, shape: u64) -> bool {
        let blocks = self.blocks.as_ref();
        blocks.is_some_and(|blocks| blocks.find(shape, &self.groups[group].database).is_some())
    }

    /// What blocks a statement that is about to run; it counts as refused then.
    pub(super) fn blocked(&self, group: GroupId, shape: u64, kind: StatementKind) -> Option<Arc<Block>> {
        let group = &self.groups[group];
        let block = self.blocks.as_ref()?.find(shape, &group.database).filter(|_| can_be_blocked(kind))?;
        block.refused.add(1);
        self.pools[group.primary].counters.total_blocked.add(1);
        Some(Arc::clone(block))
    }

    /// Refuses the batch at the front of `data` if a statement in it is blocked. `Some`: what [`Relay::pump`] is told.
    pub(super) fn refuse_blocked(&mut self, id: ClientId, data: &[u8], end: Option<End>) -> Option<Option<usize>> {
        let blocks = Arc::clone(self.blocks.as_ref()?);
        let mut found: SmallVec<[(u64, StatementKind); 4]> = SmallVec::new();
        self.each_statement(id, data, end?, |look: &Look, _| {
            if blocks.0.contains_key(&look.shape) {
                found.push((look.shape, look.kind));
            }
        });
        let group = self.clients.get(id)?.group;
        let block = found.into_iter().find_map(|(shape, kind)| self.blocked(group, shape, kind))?;
        Some(self.fail_batch(id, data, &is_blocked(block.shape)))
    }
}

/// What a client is told whose statement is blocked.
pub(super) fn is_blocked(shape: u64) -> PgError {
    PgError::error(SqlState::INSUFFICIENT_PRIVILEGE, "pgweir: statements of this shape are blocked")
        .detail(format!("An operator has blocked the shape {shape:016x} on the console of pgweir."))
        .hint(format!("SHOW BLOCKED there says since when and by whom; ALLOW SHAPE {shape:016x} lets it in again."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_of_one_database_or_of_all() {
        let block = |shape, database: Option<&str>| {
            let (since_us, by, refused) = Default::default();
            Arc::new(Block { shape, database: database.map(str::to_owned), since_us, by, refused })
        };
        let blocks = Blocks::new([block(1, Some("a")), block(1, Some("b")), block(2, None)].into_iter());
        let found = |shape, database| blocks.find(shape, database).map(|block| block.database.as_deref());
        assert_eq!((found(1, "a"), found(1, "b"), found(1, "c")), (Some(Some("a")), Some(Some("b")), None));
        assert_eq!((found(2, "c"), found(3, "a")), (Some(None), None));
    }
}
