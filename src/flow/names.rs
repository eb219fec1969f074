//! Whether what statement names mean is settled, or hangs on replies still owed.
//! Must never hold up a batch that names nothing, nor one behind a settled batch.

use super::expect::Ring;

/// Marks in the ring, each the number of the entry behind the newest one of its kind.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Changes what a name means, or what is prepared on the server.
    names_upto: u64,
    /// Ends a batch.
    batch_upto: u64,
    /// Prepares the unnamed statement.
    unnamed_upto: u64,
    /// That one was made void by an error, or one behind it was never entered.
    unnamed_void: bool,
    /// The batch that has not ended yet may have ended a transaction that failed before it.
    rescued: bool,
}

impl Names {
    /// The entry just pushed changes names.
    pub fn changed(&mut self, ring: &Ring) {
        self.names_upto = ring.next();
    }

    /// The entry just pushed prepares the unnamed statement.
    pub fn unnamed_changed(&mut self, ring: &Ring) {
        self.unnamed_upto = ring.next();
        self.unnamed_void = false;
    }

    /// An entry that prepares the unnamed statement was not entered, as an error makes the server skip it.
    pub fn unnamed_skipped(&mut self) {
        self.unnamed_void = true;
    }

    /// The entry just pushed ends a batch.
    pub fn batch_ends(&mut self, ring: &Ring) {
        self.batch_upto = ring.next();
        self.rescued = false;
    }

    /// What goes out next may end a failed transaction.
    pub fn rescues(&mut self) {
        self.rescued = true;
    }

    /// What ReadyForQuery said last is still so.
    pub fn status_holds(&self, ring: &Ring) -> bool {
        !self.rescued && !self.batch_owed(ring)
    }

    /// An error makes the oldest entry void, which is about to be taken out.
    pub fn voided(&mut self, ring: &Ring) {
        self.unnamed_void |= self.unnamed_upto == ring.first() + 1;
    }

    /// Whether an error made the newest entry void that prepares the unnamed statement.
    pub fn is_unnamed_void(&self) -> bool {
        self.unnamed_void
    }

    /// An entry that changes names is not answered yet.
    pub fn owed(&self, ring: &Ring) -> bool {
        self.names_upto > ring.first()
    }

    /// An entry that ends a batch is not answered yet.
    pub fn batch_owed(&self, ring: &Ring) -> bool {
        self.batch_upto > ring.first()
    }

    /// The same, and its batch has ended: an error in it would void the change, but not the
    /// batches behind it. Within one batch it does not matter, as an error voids what follows too.
    pub fn unsettled(&self, ring: &Ring) -> bool {
        self.owed(ring) && self.batch_upto >= self.names_upto
    }

    /// The same of the unnamed statement.
    pub fn unnamed_unsettled(&self, ring: &Ring) -> bool {
        self.unnamed_upto > ring.first() && self.batch_upto >= self.unnamed_upto
    }
}
