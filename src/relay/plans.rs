//! How servers would run the statements of each shape, and when that has become another way and slower, or faster.
//! Must never ask while another question is under way, nor more than once a second, nor of what was not run as it is asked.
//!
//! A plan is what EXPLAIN says with the values that a statement has just run with, under the same role and settings, on a connection of
//! its own to the same server ([`crate::server::explain`]). Of each shape it is asked once in a while, and soon after a statement of it was slow. What
//! statements have taken since is held by the plan that was the last one seen: when it is another one, and a few have run with that, the
//! two means tell whether it matters.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::indexes::{DatabaseIndexes, IndexUse, LackedIndex};
use super::notes::Note;
use super::{ClientId, GroupId, PoolId, Relay, Todo};
use crate::flow::params::transition;
use crate::meter::Sample;
use crate::server::explain::{Explain, Said, explain};
use crate::server::open::{Dial, OpenError};
use crate::sql::plan::{Plan, plan};
use crate::sql::verdict::StatementKind as K;

/// Shapes whose plans are known; beyond that no more come in.
const MAX_SHAPES: usize = 1000;
/// Plans of a shape that are remembered, those that were seen last.
const MAX_PLANS: usize = 4;
/// Changes that are remembered, the latest.
const MAX_CHANGES: usize = 100;
/// No worker asks more often, microseconds.
const PAUSE_US: u64 = 1_000_000;
/// Nor of one shape, if its statements are slow or its plan was another one, microseconds.
const SOON_US: u64 = 60_000_000;
/// So many statements have a mean.
const ENOUGH: u64 = 5;
/// How often the statistics of indexes are asked, with a plan, microseconds.
const STATISTICS_US: u64 = 3_600_000_000;

/// The outline of a plan, and what servers needed for a statement with it, microseconds.
pub type Spell = (Arc<str>, u64);

/// A plan of a shape.
#[derive(Clone, Debug)]
pub struct KnownPlan {
    /// The plan, as it was seen last.
    pub plan: Plan,
    /// The server that has said so.
    pub host: Arc<str>,
    /// The index that it seems to lack.
    pub lacks: Option<LackedIndex>,
    /// When it was seen first, microseconds of [`crate::base::clock`].
    pub first_us: u64,
    /// When it was seen last.
    pub last_us: u64,
    /// How often it was seen.
    pub seen: u64,
    /// Statements that ran between two looks at which it was the plan.
    pub calls: u64,
    /// What servers needed for these, microseconds.
    pub server_us: u64,
}

impl KnownPlan {
    /// What servers needed for one, microseconds, if enough have run.
    #[must_use]
    pub fn mean_us(&self) -> Option<u64> {
        (self.calls >= ENOUGH).then(|| self.server_us / self.calls)
    }
}

/// The plans of a shape.
#[derive(Clone, Debug)]
pub struct ShapePlans {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// Their shape.
    pub shape: u64,
    /// Its text without values.
    pub text: Arc<str>,
    /// The one that was seen last is the last.
    pub plans: Vec<KnownPlan>,
    /// Statements that have run since that, and what servers needed for them, microseconds: with the same plan, as far as is known.
    pub since: (u64, u64),
}

/// Statements of a shape take clearly longer, or less long, than they did with another plan.
#[derive(Clone, Debug)]
pub struct PlanChange {
    /// When that was clear, microseconds of [`crate::base::clock`].
    pub at_us: u64,
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// Their shape.
    pub shape: u64,
    /// Its text without values.
    pub text: Arc<str>,
    /// The plan before, and what a statement took with it, microseconds.
    pub before: Spell,
    /// The plan behind it, and what one takes.
    pub after: Spell,
}

/// What is known of a shape in a group.
#[derive(Debug, Default)]
struct Known {
    /// When its plan is asked next, microseconds.
    due_us: u64,
    /// When it was asked last.
    asked_us: u64,
    /// The one that was seen last is the last.
    plans: Vec<KnownPlan>,
    /// Statements that have run since that, and what servers needed for them, microseconds.
    since: (u64, u64),
    /// The plan before the last, and what a statement took with it, until it is clear what one takes now.
    before: Option<Spell>,
}

impl Known {
    /// This plan was seen. A change that matters, if it is clear by now: before and after.
    fn sees(&mut self, plan: Plan, lacks: Option<LackedIndex>, host: Arc<str>, now_us: u64) -> Option<(Spell, Spell)> {
        // If it is another plan than before, nobody can tell with which of them these ran; those before the first ran with that.
        let (calls, server_us) = std::mem::take(&mut self.since);
        if let Some(last) = self.plans.last_mut().filter(|last| last.plan.fingerprint == plan.fingerprint) {
            (last.calls, last.server_us) = (last.calls + calls, last.server_us.saturating_add(server_us));
            (last.plan, last.host, last.last_us, last.seen) = (plan, host, now_us, last.seen + 1);
            last.lacks = lacks;
            let after_us = last.mean_us()?;
            let (before, before_us) = self.before.take()?;
            let shifted = after_us * 2 > before_us * 3 || after_us * 3 < before_us * 2;
            return shifted.then(|| ((before, before_us), (Arc::clone(&last.plan.outline), after_us)));
        }
        let last = self.plans.last().map(|last| (Arc::clone(&last.plan.outline), last.mean_us()));
        if let Some((outline, Some(mean_us))) = last {
            self.before.get_or_insert((outline, mean_us));
        }
        let known = self.plans.iter().position(|it| it.plan.fingerprint == plan.fingerprint);
        let (first_us, seen) = known.map_or((now_us, 1), |at| {
            let it = self.plans.remove(at);
            (it.first_us, it.seen + 1)
        });
        let (calls, server_us) = if self.plans.is_empty() { (calls, server_us) } else { (0, 0) };
        self.plans.push(KnownPlan { plan, host, lacks, first_us, last_us: now_us, seen, calls, server_us });
        if self.plans.len() > MAX_PLANS {
            self.plans.remove(0);
        }
        self.due_us = self.due_us.min(now_us + SOON_US);
        None
    }
}

/// A question that is to be asked.
pub struct Question {
    group: GroupId,
    shape: u64,
    host: Arc<str>,
    dial: Rc<Dial>,
    what: Explain,
}

impl Question {
    /// Asks it.
    pub(super) async fn ask(&self) -> Result<Said, OpenError> {
        explain(&self.dial, &self.what).await
    }
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// How often that of a shape is asked, microseconds; 0: never.
    every_us: u64,
    known: HashMap<(GroupId, u64), Known>,
    changes: VecDeque<PlanChange>,
    /// What the statistics of the group's database say, on each host.
    indexes: HashMap<(GroupId, Arc<str>), DatabaseIndexes>,
    /// When each of the indexes that are unused there was first heard of, by its number.
    heard: HashMap<(GroupId, Arc<str>), HashMap<u32, u64>>,
    /// A question is under way.
    asking: bool,
    /// No other is asked before, microseconds.
    free_us: u64,
}

impl Plans {
    pub fn new(every: Option<Duration>) -> Self {
        Self { every_us: every.map_or(0, |every| every.as_micros() as u64), ..Self::default() }
    }

    /// They are asked so often from now on.
    pub fn reconfigure(&mut self, every: Option<Duration>) {
        let every_us = Self::new(every).every_us;
        if self.every_us != every_us {
            self.every_us = every_us;
            self.known.values_mut().for_each(|known| known.due_us = 0);
        }
    }

    /// Somebody wants to know them.
    pub fn is_on(&self) -> bool {
        self.every_us > 0
    }

    /// What was seen; not since when there are indexes, which is no number of what statements did.
    pub fn forget(&mut self) {
        self.known.clear();
        self.changes.clear();
        self.indexes.clear();
    }

    /// There is no such group any more.
    pub fn forget_group(&mut self, group: GroupId) {
        self.known.retain(|(of, _), _| *of != group);
        self.indexes.retain(|(of, _), _| *of != group);
        self.heard.retain(|(of, _), _| *of != group);
    }

    /// A statement has run. Whether its plan is to be asked now.
    fn ran(&mut self, group: GroupId, shape: u64, server_us: u64, is_slow: bool, now_us: u64) -> bool {
        if self.known.len() >= MAX_SHAPES && !self.known.contains_key(&(group, shape)) {
            return false;
        }
        let known = self.known.entry((group, shape)).or_default();
        known.since = (known.since.0 + 1, known.since.1.saturating_add(server_us));
        if is_slow {
            known.due_us = known.due_us.min(known.asked_us + SOON_US);
        }
        known.due_us <= now_us && !self.asking && self.free_us <= now_us
    }

    /// That of this shape is asked, or cannot be.
    fn asks(&mut self, group: GroupId, shape: u64, now_us: u64) {
        let every_us = self.every_us;
        if let Some(known) = self.known.get_mut(&(group, shape)) {
            (known.asked_us, known.due_us) = (now_us, now_us.saturating_add(every_us));
        }
    }
}

impl Relay {
    /// A client's statement is over; what was noted of it is looked for if its plan is to be asked.
    pub(super) fn mind_plan(
        &mut self,
        (id, pool): (ClientId, PoolId),
        shape: u64,
        sample: &Sample,
        note: impl FnOnce(&Self) -> Option<Note>,
    ) {
        let group = self.pools[pool].group;
        let is_slow = sample.server_us >= self.groups[group].terms.slow_query_us;
        if sample.error.is_none() && self.plans.ran(group, shape, sample.server_us, is_slow, self.now_us) {
            self.plans.asks(group, shape, self.now_us);
            if let Some(note) = note(self) {
                self.ask_plan(id, pool, shape, &note);
            }
        }
    }

    #[cold]
    fn ask_plan(&mut self, id: ClientId, pool: PoolId, shape: u64, note: &Note) {
        let kind = self.shapes.known(shape).map(|(_, kind)| kind);
        if !matches!(kind, Some(K::Select | K::Insert | K::Update | K::Delete | K::Merge)) {
            return;
        }
        let Some(client) = self.clients.get(id) else { return };
        let this = &self.pools[pool];
        let Some(mut what) = note.explain(transition(&Vec::new(), &client.params.settings, false)) else { return };
        let asked = self.plans.indexes.get(&(this.group, Arc::clone(&this.counters.target.host)));
        what.statistics = asked.is_none_or(|it| it.asked_us + STATISTICS_US <= self.now_us);
        self.plans.asking = true;
        let (group, host, dial) = (this.group, Arc::clone(&this.counters.target.host), Rc::clone(&this.dial));
        self.todo.push(Todo::Explain(Box::new(Question { group, shape, host, dial, what })));
    }

    /// A server has said how it would run the statements of a shape, or would not.
    pub fn explained(&mut self, question: &Question, answer: Result<Said, OpenError>) {
        self.now_us = crate::base::clock::now_us();
        (self.plans.asking, self.plans.free_us) = (false, self.now_us + PAUSE_US);
        let &Question { group, shape, ref host, .. } = question;
        let said = match answer {
            Ok(said) => said,
            Err(error) => return tracing::debug!(server = %host, "no plan: {}", error.without_words()),
        };
        let Some(of) = self.groups.get(group) else { return };
        if let Some(rows) = &said.statistics {
            let (database, host, asked_us) = (of.database.clone(), Arc::clone(host), self.now_us);
            let heard = self.plans.heard.entry((group, Arc::clone(&host))).or_default();
            let uses = IndexUse::all(rows, heard, asked_us);
            let all = of.members.iter().map(|pool| Arc::clone(&self.pools[*pool].counters.target.host)).collect();
            self.plans
                .indexes
                .insert((group, Arc::clone(&host)), DatabaseIndexes { database, host, all, asked_us, uses });
        }
        let (Some(plan), Some(known)) = (plan(&said.plan), self.plans.known.get_mut(&(group, shape))) else { return };
        let change = known.sees(plan, LackedIndex::of(&said), Arc::clone(host), self.now_us);
        let Some((before, after)) = change else { return };
        let change = PlanChange {
            at_us: self.now_us,
            database: of.database.clone(),
            user: of.user.clone(),
            shape,
            text: self.shapes.text(shape),
            before,
            after,
        };
        log(&change);
        self.registry.plan_changes.add(1);
        self.plans.changes.truncate(MAX_CHANGES - 1);
        self.plans.changes.push_front(change);
    }

    /// What servers have said of their indexes.
    pub fn indexes(&self) -> Vec<DatabaseIndexes> {
        self.plans.indexes.values().cloned().collect()
    }

    /// The plans that were seen, and those changes of them that mattered, the latest first.
    pub fn plans(&self) -> (Vec<ShapePlans>, Vec<PlanChange>) {
        let seen = self.plans.known.iter().filter(|(_, known)| !known.plans.is_empty());
        let of = |(&(group, shape), known): (&(GroupId, u64), &Known)| {
            let group = self.groups.get(group)?;
            Some(ShapePlans {
                database: group.database.clone(),
                user: group.user.clone(),
                shape,
                text: self.shapes.text(shape),
                plans: known.plans.clone(),
                since: known.since,
            })
        };
        (seen.filter_map(of).collect(), self.plans.changes.iter().cloned().collect())
    }
}

/// A line in the log.
fn log(change: &PlanChange) {
    let PlanChange { shape, before: (before, before_us), after: (after, after_us), .. } = change;
    tracing::warn!(
        target: "pgweir::plan",
        database = change.database,
        user = change.user,
        shape = format_args!("{shape:016x}"),
        before_ms = *before_us as f64 / 1e3,
        after_ms = *after_us as f64 / 1e3,
        before = &**before,
        after = &**after,
        query = &*change.text,
        "a statement has another plan and is {}", if after_us > before_us { "slower" } else { "faster" }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(fingerprint: u64) -> Plan {
        Plan { fingerprint, outline: format!("plan {fingerprint}").into(), tree: "null".into(), cost: 1.0 }
    }

    /// Runs statements, and says what plan they have then.
    fn runs(known: &mut Known, count: u64, us: u64, fingerprint: u64) -> Option<(u64, u64)> {
        known.since = (count, count * us);
        known.sees(seen(fingerprint), None, "host".into(), 7).map(|((_, before), (_, after))| (before, after))
    }

    #[test]
    fn another_plan_counts_if_it_takes_longer_or_less_long() {
        let mut known = Known::default();
        assert_eq!(runs(&mut known, 1, 900, 1), None);
        assert_eq!(known.plans.last().map(|it| (it.calls, it.server_us)), Some((1, 900)));
        known = Known::default();
        assert_eq!(runs(&mut known, 0, 0, 1), None);
        assert_eq!(runs(&mut known, 10, 100, 1), None);
        assert_eq!(runs(&mut known, 1000, 900, 2), None, "with which of the two they ran is not known");
        assert_eq!(runs(&mut known, ENOUGH - 1, 900, 2), None, "too few have");
        assert_eq!(runs(&mut known, 100, 900, 2), Some((100, 900)));
        assert_eq!(runs(&mut known, 100, 900, 2), None, "once");
        // About as long.
        assert_eq!(runs(&mut known, 100, 900, 3), None);
        assert_eq!(runs(&mut known, 100, 1000, 3), None);
        assert_eq!(runs(&mut known, 100, 1000, 1), None);
        assert_eq!(runs(&mut known, 100, 10, 1), Some((1000, 10)));
        assert_eq!(
            known.plans.iter().map(|it| (it.plan.fingerprint, it.seen)).collect::<Vec<_>>(),
            [(2, 4), (3, 2), (1, 4)]
        );
        for n in 10..20 {
            runs(&mut known, 1, 1, n);
        }
        assert_eq!(known.plans.len(), MAX_PLANS);
    }

    #[test]
    fn plans_are_asked_one_after_the_other_and_of_each_shape_now_and_then() {
        let group = GroupId::default();
        let mut plans = Plans::new(Some(Duration::from_secs(600)));
        assert!(plans.is_on() && !Plans::new(None).is_on());
        let mut ran = |shape, slow, now_us| {
            let asks = plans.ran(group, shape, 10, slow, now_us);
            if asks {
                plans.asks(group, shape, now_us);
                plans.free_us = now_us + PAUSE_US;
            }
            asks
        };
        assert!(ran(1, false, 1) && !ran(1, false, 2));
        // Another shape waits for its turn.
        assert!(!ran(2, true, 3) && ran(2, false, 1 + PAUSE_US));
        // A slow one brings it forward, but for a minute.
        assert!(!ran(1, true, 10 * PAUSE_US) && ran(1, true, 61 * PAUSE_US));
        assert!(!ran(1, false, 100 * PAUSE_US) && ran(1, false, 700 * PAUSE_US));
        for shape in 10..2000 {
            ran(shape, false, 700 * PAUSE_US);
        }
        assert_eq!(plans.known.len(), MAX_SHAPES);
        plans.forget_group(group);
        assert!(plans.known.is_empty());
    }
}
