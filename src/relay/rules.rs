//! Which of a database's rules fits: of the session once per set of settings, of the statement once per shape.
//! Must never read a text again whose shape is known, but for the tags in its comments.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::ClientId;
use crate::config::{Database, Destination, Fallback, HostGroup, RULES_MAX, RoutingRule, When, Workload};
use crate::flow::params::Settings;
use crate::pool::rate::Bucket;
use crate::sql::tables::{Named, tables};
use crate::sql::tags::tags;

/// Most shapes of which it is remembered which rules they fit; beyond that all are forgotten and learned anew.
const MAX_SHAPES: usize = 20_000;

/// Numbers of rules, as bits.
pub type Bits = u128;
const _: () = assert!(RULES_MAX <= Bits::BITS as usize);

/// The rule that counts, if any does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Course(u8);

impl Course {
    /// No rule.
    pub const NONE: Self = Self(0);

    fn first(rules: Bits) -> Self {
        if rules == 0 { Self::NONE } else { Self(rules.trailing_zeros() as u8 + 1) }
    }
}

/// What the rules make of a session before it has said anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fitting {
    /// The first that fits whatever it says.
    always: Course,
    /// Those before that one that hang on what it says.
    perhaps: Bits,
    /// Number of the schema in which it means tables that it names without one.
    schema: u16,
}

impl Fitting {
    /// Whether its statements have to be looked at.
    pub fn hangs_on_statements(&self) -> bool {
        self.perhaps != 0
    }
}

/// Where a batch may run.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Servers of which workload: 0, those of everybody, else one more than its number.
    pub set: usize,
    /// Members of the cluster to which reads go, as bits.
    hosts: u128,
    /// Also the primary, if it is one of them.
    pub with_primary: bool,
    /// Where else reads go.
    pub fallback: Fallback,
}

/// Where a batch runs without rules.
impl Default for Way {
    fn default() -> Self {
        Self { set: 0, hosts: u128::MAX, with_primary: false, fallback: Fallback::Replicas }
    }
}

impl Way {
    /// Whether reads go to this member of the cluster.
    pub fn leads_to(&self, member: usize) -> bool {
        u32::try_from(member).ok().and_then(|member| self.hosts.checked_shr(member)).is_some_and(|hosts| hosts & 1 == 1)
    }

    fn of(database: &Database, rule: &RoutingRule) -> Self {
        let set = rule.pool.map_or(0, |number| number + 1);
        let Some(Destination { group, fallback }) = &rule.reads else { return Self { set, ..Self::default() } };
        let fallback = *fallback;
        match group {
            HostGroup::Primary => Self { set, hosts: 0, with_primary: true, fallback: Fallback::Primary },
            HostGroup::Replicas => Self { set, fallback, ..Self::default() },
            HostGroup::Named(_, endpoints) => {
                let named = database.hosts().take(u128::BITS as usize).enumerate();
                let bits = named.filter(|(_, host)| endpoints.contains(host)).map(|(number, _)| 1 << number);
                Self { set, hosts: bits.fold(0, |all, bit: u128| all | bit), with_primary: true, fallback }
            }
        }
    }
}

/// One rule.
#[derive(Debug)]
pub struct Kept {
    /// As it was configured.
    pub rule: RoutingRule,
    /// Where it sends.
    pub way: Way,
    /// What limits its rate.
    pub bucket: Option<Arc<Bucket>>,
    /// Who waits for that, and since when, microseconds.
    pub queue: RefCell<VecDeque<(ClientId, u64)>>,
}

/// The rules of a database as one user meets them.
#[derive(Debug)]
pub struct Rules {
    kept: Vec<Kept>,
    workloads: Vec<Rc<Workload>>,
    /// Those that are for this user.
    mine: Bits,
    /// Those that ask for something that follows from the shape.
    of_shape: Bits,
    /// Those that ask for tags.
    of_tags: Bits,
    /// Rules that each shape fits, as far as that follows from it, by shape and schema.
    known: RefCell<HashMap<(u64, u16), Bits, foldhash::fast::RandomState>>,
    /// Schemas in which sessions mean tables.
    schemas: RefCell<Vec<Vec<u8>>>,
}

impl Rules {
    /// `None` if none of the database's rules can ever be for `user`. `bucket` finds what limits a rule's rate.
    pub fn new(database: &Database, user: &str, bucket: impl Fn(&RoutingRule, u32) -> Arc<Bucket>) -> Option<Self> {
        let rules = database.steering.rules.iter().take(RULES_MAX);
        let keep = |rule: &RoutingRule| Kept {
            way: Way::of(database, rule),
            bucket: rule.rate.map(|rate| bucket(rule, rate)),
            queue: RefCell::default(),
            rule: rule.clone(),
        };
        let bits = |fits: &dyn Fn(&When) -> bool| {
            let fitting = rules.clone().enumerate().filter(|(_, rule)| fits(&rule.when));
            fitting.fold(0, |all: Bits, (number, _)| all | 1 << number)
        };
        let mine = bits(&|when| when.user.fit(user.as_bytes()));
        let of_shape = bits(&|when| when.asks_of_tables() || !when.shape.is_empty());
        let of_tags = bits(&|when| !when.tag.is_empty());
        let kept = rules.clone().map(keep).collect();
        let workloads = database.steering.pools.iter().cloned().map(Rc::new).collect();
        let (known, schemas) = (RefCell::default(), RefCell::default());
        (mine != 0).then_some(Self { kept, workloads, mine, of_shape, of_tags, known, schemas })
    }

    /// The rule that counts.
    pub fn of(&self, course: Course) -> Option<&Kept> {
        self.kept.get(usize::from(course.0).checked_sub(1)?)
    }

    /// The workload pool of this number.
    pub fn workload(&self, number: usize) -> Option<Rc<Workload>> {
        self.workloads.get(number).cloned()
    }

    /// Those that limit a rate.
    pub fn limiting(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.bucket.is_some())
    }

    /// How many clients wait for a rate.
    pub fn waiting(&self) -> u64 {
        self.limiting().map(|kept| kept.queue.borrow().len() as u64).sum()
    }

    /// What they make of a session with these settings.
    pub fn fitting(&self, settings: &Settings) -> Fitting {
        let value = |name: &[u8]| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..]);
        let name = value(b"application_name").unwrap_or_default();
        let fits = self.bits(self.mine, |rule| rule.when.application_name.fit(name));
        let spoken = self.of_shape | self.of_tags;
        let always = fits & !spoken;
        // The bits below the lowest.
        let before = if always == 0 { Bits::MAX } else { (1 << always.trailing_zeros()) - 1 };
        let schema = value(b"search_path").map_or(&b"public"[..], first_schema);
        Fitting { always: Course::first(always), perhaps: fits & spoken & before, schema: self.schema(schema) }
    }

    /// Which of those that hang on statements this one fits, of this shape.
    pub fn fit(&self, fitting: &Fitting, shape: u64, sql: &[u8], conforming: bool) -> Bits {
        let mut fits = fitting.perhaps;
        if fits & self.of_shape != 0 {
            fits &= self.known(fitting, shape, sql, conforming) | !self.of_shape;
        }
        if fits & self.of_tags != 0 {
            let tags = tags(sql, conforming);
            let says = |rule: &RoutingRule| {
                let said = |(key, globs): &(String, crate::config::Globs)| {
                    tags.iter().any(|(tag, value)| tag == key.as_bytes() && globs.fit(value))
                };
                rule.when.tag.iter().all(said)
            };
            fits &= self.bits(fits & self.of_tags, says) | !self.of_tags;
        }
        fits
    }

    /// The rule that counts for statements of which some fit these.
    pub fn first(&self, fitting: &Fitting, fits: Bits) -> Course {
        match Course::first(fits) {
            Course::NONE => fitting.always,
            first => first,
        }
    }

    fn bits(&self, of: Bits, fits: impl Fn(&RoutingRule) -> bool) -> Bits {
        let fitting = self.kept.iter().enumerate().filter(|(number, kept)| of >> number & 1 == 1 && fits(&kept.rule));
        fitting.fold(0, |all, (number, _)| all | 1 << number)
    }

    fn known(&self, fitting: &Fitting, shape: u64, sql: &[u8], conforming: bool) -> Bits {
        let key = (shape, fitting.schema);
        if let Some(&known) = self.known.borrow().get(&key) {
            return known;
        }
        let schemas = self.schemas.borrow();
        let schema = schemas.get(usize::from(fitting.schema)).map_or(&b""[..], |schema| schema);
        let asks = self.kept.iter().any(|kept| kept.rule.when.asks_of_tables());
        let tables = if asks { tables(sql, conforming) } else { Vec::new() };
        let fits = self.bits(self.of_shape, |rule| {
            let when = &rule.when;
            (when.shape.is_empty() || when.shape.contains(&shape))
                && (!when.asks_of_tables() || tables.iter().any(|table| is_meant(when, table, schema)))
        });
        let mut known = self.known.borrow_mut();
        if known.len() >= MAX_SHAPES {
            known.clear();
        }
        known.insert(key, fits);
        fits
    }

    fn schema(&self, name: &[u8]) -> u16 {
        let mut schemas = self.schemas.borrow_mut();
        if let Some(known) = schemas.iter().position(|schema| schema == name) {
            return known as u16;
        }
        // Beyond that many it counts as none.
        if schemas.len() < usize::from(u16::MAX) {
            schemas.push(name.to_vec());
            return schemas.len() as u16 - 1;
        }
        u16::MAX
    }
}

fn is_meant(when: &When, table: &Named, schema: &[u8]) -> bool {
    let schema = if table.schema.is_empty() { schema } else { table.schema.as_bytes() };
    when.table.fit(table.table.as_bytes()) && when.schema.fit(schema)
}

/// The first schema of a `search_path` that is not the user's own, as the server folds it (`SplitIdentifierString` in
/// src/backend/utils/adt/varlena.c).
fn first_schema(path: &[u8]) -> &[u8] {
    let names = path.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let bare = |name: &'_ [u8]| name.len() >= 2 && name.starts_with(b"\"") && name.ends_with(b"\"");
    let mut names = names.map(|name| if bare(name) { name.get(1..name.len() - 1).unwrap_or_default() } else { name });
    names.find(|name| !name.is_empty() && *name != b"$user").unwrap_or_default()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
