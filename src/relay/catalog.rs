//! What is known of the code in databases, and what it says of a statement about to run.
//! Must never make a statement wait for it, nor believe what was read before code was changed from here.
//!
//! It is read ([`super::catalog_read`]) at the first occasion, then every `catalog_refresh`, and at once when a transaction
//! has ended that has, or may have, changed code, on whatever worker. Until then every statement counts as code that nobody
//! can see into; where it cannot be read, every function that is not built in. One catalog serves all users of the same
//! database on the same server.
//!
//! It also says which reads may leave the primary ([`crate::sql::footing`]). What it said of a shape is kept with the shape and the
//! catalog's epoch, so that a known statement costs one comparison; until it is read reads stay on the primary.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::inventory::{HIDDEN, SETTING};
use super::pins::PINNING;
use super::remote::Schema;
use super::shapes::{LONG, Look, Stand};
use super::{ClientId, GroupId, PoolId, Relay};
use crate::config::{Endpoint, TableName};
use crate::meter::DatabaseHealth;
use crate::sql::code::{Code, Resolved, names_in};
use crate::sql::defines::may_define;
use crate::sql::footing::Footing;
use crate::sql::verdict::{Effects, Route, StatementKind, StatementKind as K};

/// Statements for which code may have to be looked at even if no trigger, view or default is of interest.
const CODE: Effects = HIDDEN.union(Effects::DDL);

/// Pause before the next look when code ran that may have changed some, microseconds.
const HURRY_US: u64 = 1_000_000;
/// Names of settings remembered until code that was made here is read.
const MAX_FRESH: usize = 256;
/// Shapes remembered per catalog.
const MAX_SHAPES: usize = 20_000;

/// How far a catalog is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is up to date, as far as is known here.
    Full,
    /// It could not be read again since code was changed: only functions not built in count as unknown.
    Doubt,
    /// Code was changed, or was never read, and is about to be read: every statement counts as unknown.
    Stale,
}

/// The code of one database on one server.
pub(super) struct Catalog {
    pub(super) endpoint: Endpoint,
    pub(super) dbname: String,
    pub(super) code: Code,
    pub(super) trust: Trust,
    /// What is known of shapes, and for which effects of their own.
    pub(super) shapes: HashMap<u64, (Effects, Rc<Resolved>), foldhash::fast::RandomState>,
    /// Number of what it says: another whenever that is replaced, and of no other catalog of the worker; 0 until it is read.
    pub(super) epoch: u32,
    /// What it says of reads, by shape.
    pub(super) stands: HashMap<u64, Stand, foldhash::fast::RandomState>,
    /// On which relations the answers hang that may be kept, by shape; `None`: on too many.
    pub(super) sources: HashMap<u64, Option<Rc<[u32]>>, foldhash::fast::RandomState>,
    /// Which relations they may change, by shape and whether the grammar says that they only read; `None`: any.
    pub(super) written: HashMap<(u64, bool), Option<Rc<[u32]>>, foldhash::fast::RandomState>,
    /// What those may be taken back by, by shape: slots of the cache's.
    pub(super) deps: HashMap<u64, Arc<[u32]>, foldhash::fast::RandomState>,
    /// How often the schema had changed when it was asked.
    pub(super) schema: u64,
    /// Looks taken early, one after the other, that found nothing new.
    pub(super) vain: u32,
    /// When to look again, microseconds.
    pub(super) due_us: u64,
    /// When it was last looked at.
    pub(super) looked_us: u64,
    /// Being read or understood since.
    pub(super) since_us: Option<u64>,
    /// Whose server is being asked.
    pub(super) at: Option<PoolId>,
    /// How often code was changed from here.
    pub(super) changes: u64,
    /// Where all workers count that, and how far this one has heard.
    pub(super) health: Option<Arc<DatabaseHealth>>,
    heard: u64,
    /// Something in the database was changed, and not from here.
    pub(super) surprised: bool,
    /// What it said of its schema, for the cache that processes share; and whether it would not say when it was asked last.
    pub(super) shown: Option<Schema>,
    pub(super) no_schema: bool,
    /// Settings that code names which was made here since it was read.
    pub(super) fresh: Vec<Box<[u8]>>,
    /// Tables whose reads must show everything.
    pub(super) globals: Arc<[TableName]>,
}

/// All catalogs of a worker.
pub(super) struct Catalogs {
    pub(super) all: Vec<Catalog>,
    /// The earliest time at which one is due.
    pub(super) due_us: u64,
    /// Some database may run code for statements that call no function of their own.
    pub(super) watching: bool,
    /// The newest epoch of all.
    pub(super) epoch: u32,
}

impl Default for Catalogs {
    fn default() -> Self {
        Self { all: Vec::new(), due_us: u64::MAX, watching: false, epoch: 0 }
    }
}

impl Catalogs {
    /// The number of the catalog of a database.
    pub fn number(&mut self, endpoint: &Endpoint, dbname: &str, health: Option<&Arc<DatabaseHealth>>) -> usize {
        let name = |health: Option<&Arc<DatabaseHealth>>| health.map(|health| Arc::clone(&health.database));
        let known = self
            .all
            .iter()
            .position(|it| it.endpoint == *endpoint && it.dbname == dbname && name(it.health.as_ref()) == name(health));
        known.unwrap_or_else(|| {
            self.all.push(Catalog {
                endpoint: endpoint.clone(),
                dbname: dbname.to_owned(),
                code: Code::default(),
                trust: Trust::Stale,
                surprised: false,
                shapes: HashMap::default(),
                epoch: 0,
                stands: HashMap::default(),
                sources: HashMap::default(),
                written: HashMap::default(),
                deps: HashMap::default(),
                schema: 0,
                vain: 0,
                due_us: 0,
                looked_us: 0,
                since_us: None,
                at: None,
                changes: 0,
                fresh: Vec::new(),
                shown: None,
                no_schema: false,
                globals: Arc::default(),
                health: health.cloned(),
                heard: health.map_or(0, |health| health.code_changes()),
            });
            self.settle();
            self.all.len() - 1
        })
    }

    fn settle(&mut self) {
        self.due_us = self.all.iter().map(|it| it.due_us).min().unwrap_or(u64::MAX);
        self.watching = self.all.iter().any(|it| it.code.watches() || it.trust == Trust::Stale);
    }

    /// Reads of these tables must show everything: if that is new, the catalog is read again, and until then counts as unread.
    pub(super) fn set_globals(&mut self, number: usize, globals: &[TableName]) {
        if self.all.get(number).is_some_and(|catalog| *catalog.globals != *globals) {
            self.change(number, |catalog| {
                catalog.globals = globals.into();
                catalog.code.fingerprint = Box::default();
                catalog.epoch = 0;
                catalog.changed();
            });
        }
    }

    /// What another worker has seen change counts from now on.
    pub(super) fn hear(&mut self, number: usize) {
        if self.all.get(number).is_some_and(Catalog::has_news) {
            self.change(number, Catalog::changed);
        }
    }

    pub(super) fn change(&mut self, number: usize, change: impl FnOnce(&mut Catalog)) {
        if let Some(catalog) = self.all.get_mut(number) {
            change(catalog);
            self.settle();
        }
    }
}

impl Catalog {
    /// Another worker has seen code change.
    fn has_news(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health.code_changes() != self.heard)
    }

    /// Code was changed: it is to be read again at once.
    fn changed(&mut self) {
        self.heard = self.health.as_ref().map_or(0, |health| health.code_changes());
        self.changes += 1;
        self.due_us = 0;
        self.trust = Trust::Stale;
    }

    fn resolve(&mut self, look: &Look, sql: &[u8], conforming: bool) -> Rc<Resolved> {
        if let Some((effects, known)) = self.shapes.get(&look.shape)
            && *effects == look.effects
        {
            return Rc::clone(known);
        }
        let resolved = Rc::new(self.code.resolve(sql, conforming, look.effects));
        if self.shapes.len() >= MAX_SHAPES {
            self.shapes.clear();
        }
        self.shapes.insert(look.shape, (look.effects, Rc::clone(&resolved)));
        resolved
    }
}

impl Relay {
    /// What the catalog says of a read, of which it was not asked since it was read. Parses the text at most once per shape and epoch.
    pub(super) fn stand_of(&mut self, id: ClientId, number: usize, look: &Look, sql: &[u8]) -> Stand {
        let conforming = self.clients.get(id).is_none_or(|client| client.conforming);
        let Some(catalog) = self.catalogs.all.get_mut(number) else { return Stand::default() };
        let stand = match catalog.stands.get(&look.shape) {
            Some(stand) => *stand,
            None => {
                if catalog.stands.len() >= MAX_SHAPES {
                    catalog.stands.clear();
                    catalog.sources.clear();
                    catalog.deps.clear();
                }
                let (footing, global) =
                    (catalog.code.footing(sql, conforming), catalog.code.reads_globals(sql, conforming));
                let keeps = !global && catalog.code.keeps(sql, conforming, footing);
                if keeps {
                    catalog.sources.insert(look.shape, catalog.code.sources(sql, conforming).map(Rc::from));
                }
                let stand = Stand { epoch: catalog.epoch, footing, global, keeps };
                catalog.stands.insert(look.shape, stand);
                stand
            }
        };
        self.shapes.stands(look.shape, stand);
        stand
    }

    /// Whether the group's catalog was never read and will be known in a moment: until then no text tells what views and the like do. There is
    /// nothing to wait for where the primary did not answer, or cannot be asked.
    pub(super) fn catalog_is_awaited(&self, group: GroupId) -> bool {
        let group = &self.groups[group];
        let Some(catalog) = self.catalogs.all.get(group.catalog) else { return false };
        catalog.epoch == 0
            && (catalog.due_us == 0 || catalog.since_us.is_some())
            && !catalog.code.is_too_large
            && self.config.pool.catalog_refresh.is_some()
            && group.cluster.primary().is_some()
            && self.pools[group.primary].failure.is_none()
    }

    /// A statement names what the catalog does not have: it may have been made since. The longer nothing of the kind is found, the
    /// longer the pauses.
    pub(super) fn look_soon(&mut self, number: usize) {
        let Some(catalog) = self.catalogs.all.get(number) else { return };
        let due_us = catalog.looked_us + (HURRY_US << catalog.vain.min(5));
        if catalog.due_us > due_us && catalog.since_us.is_none() {
            self.catalogs.change(number, |catalog| {
                catalog.due_us = due_us;
                catalog.vain = catalog.vain.saturating_add(1);
            });
        }
    }

    /// What a statement about to run does to its session, with the code that it runs.
    pub(super) fn look_into(&mut self, id: ClientId, look: Look, sql: &[u8]) -> (Look, Option<Rc<Resolved>>) {
        if !self.catalogs.watching && !look.effects.any(CODE) {
            return (look, None);
        }
        self.look_deeper(id, look, sql)
    }

    fn look_deeper(&mut self, id: ClientId, mut look: Look, sql: &[u8]) -> (Look, Option<Rc<Resolved>>) {
        if look.shape == LONG || self.config.pool.catalog_refresh.is_none() {
            return (look, None);
        }
        let Some(client) = self.clients.get(id) else { return (look, None) };
        let group = &self.groups[client.group];
        let (number, has_replicas) = (group.catalog, group.splits);
        self.catalogs.hear(number);
        let Some(catalog) = self.catalogs.all.get_mut(number) else { return (look, None) };
        let code = catalog.resolve(&look, sql, client.conforming);
        // Before the first time only a primary tells, which whoever reads from replicas may never ask.
        let reads = look.route == Route::Replica && catalog.code.fingerprint.is_empty();
        let unsure = match catalog.trust {
            Trust::Full => false,
            Trust::Stale if !(reads && has_replicas) => true,
            Trust::Doubt | Trust::Stale => look.effects.any(HIDDEN),
        };
        let mut effects = code.touch.effects;
        // Not what is only unsure: what discards others' values must not come before what has to be alone, as VACUUM.
        look.draws |= match look.kind {
            StatementKind::Maintenance | StatementKind::TwoPhase => false,
            StatementKind::Ddl => effects.any(Effects::SEQUENCE_STATE),
            _ => effects.any(Effects::SEQUENCE_STATE.union(HIDDEN)),
        };
        // What SQL's EXECUTE will do is noted by its effects alone.
        if unsure || (look.effects.any(Effects::PREPARE) && effects.any(SETTING)) {
            effects |= Effects::UNKNOWN_FUNCTION;
        }
        look.effects = effects;
        // Or who calls nothing but such functions would be sent to the primary for what it wrote, again and again.
        if look.route == Route::Catalog
            && matches!(
                catalog.stands.get(&look.shape).map(|stand| stand.footing),
                Some(footing) if footing.is_read() || footing == Footing::Optimistic
            )
        {
            (look.writes, look.draws) = (false, false);
        }
        let due_us = catalog.looked_us + HURRY_US;
        if effects.any(HIDDEN) && catalog.due_us > due_us {
            // It may have changed code, or was made since.
            self.catalogs.change(number, |catalog| catalog.due_us = due_us);
        }
        (look, Some(code))
    }

    /// Notes what a statement about to run does to the session, with the code that it runs, and whether it may write.
    pub(super) fn take_look(&mut self, id: ClientId, look: &Look, code: Option<&Resolved>, sql: &[u8]) {
        if matches!(look.kind, K::Set | K::SetTransaction | K::Reset | K::Show) {
            // Where it is read afterwards may hang on it, what is there does not.
            self.clients.get_mut(id).into_iter().for_each(|client| client.wrote |= look.writes);
        } else if look.writes || self.shapes.stays(look.shape) {
            self.note_write(id);
        } else if matches!(look.kind, K::Select | K::Copy | K::Explain | K::Fetch)
            && let Some(client) = self.clients.get_mut(id)
        {
            client.saw = true;
        }
        if let Some(code) = code
            && (code.defines || (look.effects.any(Effects::OPAQUE) && may_define(sql)))
        {
            self.note_defines(id, sql);
        }
        if look.effects.any(Effects::DDL) {
            self.note_alters(id, look);
            self.note_replaced(id, sql);
            if let Some(client) = self.clients.get(id) {
                let number = self.groups[client.group].catalog;
                self.catalogs.change(number, |catalog| catalog.vain = 0);
            }
        }
        if look.effects.is_empty() || self.looks_away(id) {
            return;
        }
        let culprits =
            HIDDEN.union(SETTING).union(Effects::LISTEN).union(if code.is_some() { PINNING } else { Effects::NONE });
        if look.effects.any(culprits)
            && let Some(client) = self.clients.get_mut(id)
        {
            client.culprit = look.shape;
        }
        self.take_effects(id, look.effects, sql);
        if let Some(code) = code
            && let Some(client) = self.clients.get_mut(id)
            && let Some(touched) = &mut client.touched
        {
            let catalog = self.catalogs.all.get(self.groups[client.group].catalog);
            // Code that nobody can see into may set what other code does.
            let hidden = catalog.filter(|_| look.effects.any(HIDDEN)).into_iter();
            let others = hidden.flat_map(|catalog| catalog.fresh.iter().chain(catalog.code.settings()));
            code.touch.names.iter().chain(others).for_each(|name| touched.named.add(name));
            touched.named.others |= code.touch.others;
            touched.named.hidden |= code.touch.hidden;
        }
    }

    /// The statement may change the code of the database.
    pub(super) fn note_defines(&mut self, id: ClientId, sql: &[u8]) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.defines = true;
        client.caching().alters = true;
        let names = names_in(sql, client.conforming);
        if let Some(catalog) = self.catalogs.all.get_mut(self.groups[client.group].catalog) {
            catalog.fresh.extend(names);
            catalog.fresh.sort_unstable();
            catalog.fresh.dedup();
            catalog.fresh.truncate(MAX_FRESH);
        }
        // What comes behind it in the lease may run the new code.
        self.touch(id, Effects::UNKNOWN_FUNCTION, b"");
    }

    /// The client has nothing under way: what it may have changed of the code is there.
    pub(super) fn note_definitions(&mut self, id: ClientId) {
        self.note_altered(id);
        if self.clients.get(id).is_some_and(|client| client.defines) {
            self.code_changed(id);
        }
    }

    /// Looks whether other workers have seen code change.
    pub(super) fn hear_code_changes(&mut self) {
        for number in 0..self.catalogs.all.len() {
            self.catalogs.hear(number);
        }
    }

    fn code_changed(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.defines = false;
        let number = self.groups[client.group].catalog;
        self.of_same_name(number).iter().for_each(|health| health.change_code());
        let name = self.catalogs.all.get(number).map(|catalog| catalog.dbname.clone());
        for number in 0..self.catalogs.all.len() {
            if self.catalogs.all.get(number).map(|catalog| &catalog.dbname) == name.as_ref() {
                self.catalogs.change(number, Catalog::changed);
            }
        }
    }

    /// The databases whose servers call them as they call that of a catalog: that one may be there under several names, and by several
    /// addresses, for clients.
    pub(super) fn of_same_name(&self, number: usize) -> Vec<Arc<DatabaseHealth>> {
        let Some(catalog) = self.catalogs.all.get(number) else { return Vec::new() };
        let is_same = |health: &&Arc<DatabaseHealth>| self.config.dbname_of(&health.database) == catalog.dbname;
        self.registry.databases().iter().filter(is_same).cloned().collect()
    }
}
