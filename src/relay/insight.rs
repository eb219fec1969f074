//! What a worker knows of statements and code, for the console.
//! Must never learn anything new because somebody asks.

pub use super::deadlocks::Deadlock;
pub use super::holders::{Holder, Holds};
pub use super::indexes::{DatabaseIndexes, IndexUse, LackedIndex};
pub use super::plans::{KnownPlan, PlanChange, ShapePlans, Spell};
pub use super::repeats::Repeated;
pub use super::slow::SlowQuery;

use super::Relay;
use super::shapes::ShapeVerdict;
use crate::sql::footing::Footing;

/// What the catalog of a database says of a text.
#[derive(Clone, Debug)]
pub struct Said {
    /// How far the text may leave the primary.
    pub footing: Footing,
    /// It may read tables whose reads must show everything.
    pub reads_globals: bool,
    /// The server whose catalog it is.
    pub host: String,
}

/// What a worker, or all of them, have seen.
#[derive(Debug, Default)]
pub struct Insight {
    /// Where the statements of each shape may run; of several workers a shape may come several times.
    pub verdicts: Vec<ShapeVerdict>,
    /// Clients that hold a server for long.
    pub holders: Vec<Holder>,
    /// Deadlocks that servers have found.
    pub deadlocks: Vec<Deadlock>,
    /// Statements that were run for each row of another's answer.
    pub repeated: Vec<Repeated>,
    /// The statements that were slow last.
    pub slow: Vec<SlowQuery>,
    /// Plans of shapes; of several workers a shape may come several times.
    pub plans: Vec<ShapePlans>,
    /// Changes of plans that mattered.
    pub plan_changes: Vec<PlanChange>,
    /// What servers say of their indexes; of several users and workers a database may come several times.
    pub indexes: Vec<DatabaseIndexes>,
}

impl Insight {
    /// What another worker has seen, too.
    pub fn extend(&mut self, other: Self) {
        let Self { verdicts, holders, deadlocks, repeated, slow, plans, plan_changes, indexes } = other;
        self.verdicts.extend(verdicts);
        self.holders.extend(holders);
        // Of the same statements several workers may know.
        for deadlock in deadlocks {
            let new = deadlock.join(&mut self.deadlocks);
            self.deadlocks.extend(new);
        }
        for repeated in repeated {
            let new = repeated.join(&mut self.repeated);
            self.repeated.extend(new);
        }
        self.slow.extend(slow);
        self.plans.extend(plans);
        self.plan_changes.extend(plan_changes);
        self.indexes.extend(indexes);
    }
}

impl Relay {
    /// All that has been seen.
    pub fn insight(&mut self) -> Insight {
        let (deadlocks, repeated, slow) = (self.deadlocks.all(), self.repeated(), self.slow_queries());
        let (plans, plan_changes) = self.plans();
        let (verdicts, holders) = (self.verdicts(), self.holders());
        let indexes = self.indexes();
        Insight { verdicts, holders, deadlocks, repeated, slow, plans, plan_changes, indexes }
    }

    /// What was seen of statements before counts no more.
    pub fn forget_seen(&mut self) {
        self.slow.forget();
        self.deadlocks.forget();
        self.repeats.forget();
        self.plans.forget();
    }

    /// Where the statements of each shape may run.
    pub fn verdicts(&self) -> Vec<ShapeVerdict> {
        self.shapes.verdicts(self.lane_fast_us(), self.now_us).collect()
    }

    /// What the catalog of a database says of a text, if it has been read.
    pub fn said_of(&self, database: &str, sql: &[u8]) -> Option<Said> {
        let of_it = self.groups.values().filter(|group| group.database == database && !group.retired);
        let catalogs = of_it.filter_map(|group| self.catalogs.all.get(group.catalog));
        let catalog = catalogs.into_iter().find(|catalog| catalog.epoch > 0)?;
        Some(Said {
            footing: catalog.code.footing(sql, true),
            reads_globals: catalog.code.reads_globals(sql, true),
            host: catalog.endpoint.to_string(),
        })
    }
}
