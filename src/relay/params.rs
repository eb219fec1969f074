//! The settings of a session, and what follows from them: found out once for all sessions that have the same.
//! Must never be changed once it is shared, but for what a server has reported.

use std::cell::RefCell;
use std::rc::Rc;

use super::group::Group;
use super::rules::Fitting;
use crate::cache::key::Key;
use crate::flow::params::{Settings, acts};
use crate::pool::cluster::Lsn;
use crate::server::open::Parameters;
use crate::sql::own::MIN_LSN;
use crate::sql::wish::{self, Wish};
use crate::wire::lsn::parse_lsn;

/// Settings of a session's start, shared by all sessions that have the same.
#[derive(Debug, Default)]
pub struct ParamSet {
    /// Name and value, sorted.
    pub settings: Settings,
    /// They decide who a session acts as.
    pub acts: bool,
    /// Those of them that can change what a statement's text means.
    pub meaning: Rc<Settings>,
    /// Those of them that all who share a server must have alike.
    pub riding: RefCell<Settings>,
    /// Those of them that an answer may hang on, as it is kept under them.
    pub kept_under: Box<[u8]>,
    /// Where the session asks that its statements run.
    pub wish: Wish,
    /// What the rules of its database make of it.
    pub(super) fitting: Fitting,
    /// A position that its reads must not lie before, which it knows from another session.
    pub min_lsn: Option<Lsn>,
    /// Its transactions are serializable, which standbys refuse, unless they say otherwise.
    pub serializable: bool,
    /// Its transactions are under READ COMMITTED unless they say otherwise.
    pub is_read_committed: bool,
    /// Nothing in it says what transactions are unless they say so, but perhaps that.
    pub is_plain: bool,
    /// What a server reported when it first took them, over what it reports anyway. Present means
    /// that some server of the pool has accepted the settings, so they can be sent ahead of a
    /// request without waiting.
    pub reported: RefCell<Option<Parameters>>,
}

/// Settings that no statement's meaning hangs on, beside those that applications and extensions make up: they may
/// differ between clients that share a prepared statement.
const MEANINGLESS: [&[u8]; 6] = [
    b"application_name",
    b"client_min_messages",
    b"idle_in_transaction_session_timeout",
    b"idle_session_timeout",
    b"lock_timeout",
    b"statement_timeout",
];

impl ParamSet {
    /// Of a server opened with its client's settings, and what that reported.
    pub(super) fn of_own(reported: Parameters) -> Self {
        Self::new(Settings::new(), Some(reported))
    }

    /// With what a server reported when it took them, if one has.
    pub(super) fn new(settings: Settings, reported: Option<Parameters>) -> Self {
        let means = |name: &[u8]| !name.contains(&b'.') && !MEANINGLESS.contains(&name);
        let meant = settings.iter().filter(|(name, _)| means(name)).cloned().collect();
        let value = |name: &[u8]| settings.iter().find(|(known, _)| *known == name).map(|(_, value)| &value[..]);
        // What nobody understands counts as asking for more than any replica has. RESET leaves an empty value.
        let said = |name: &[u8]| value(name).filter(|text| !text.is_empty());
        let wish = said(wish::SETTING).map_or(Wish::Auto, |text| Wish::of(text).unwrap_or(Wish::Primary));
        let position = |text: &[u8]| std::str::from_utf8(text).ok().and_then(parse_lsn).unwrap_or(Lsn::MAX);
        let min_lsn = said(MIN_LSN).map(position);
        let isolation = value(b"default_transaction_isolation");
        let isolated = |level: &[u8]| isolation.is_some_and(|it| it.eq_ignore_ascii_case(level));
        let (serializable, is_read_committed) = (isolated(b"serializable"), isolated(b"read committed"));
        let modes = settings.iter().filter(|(name, _)| name.starts_with(b"default_transaction_")).count();
        let is_plain = modes == usize::from(is_read_committed);
        let acts = settings.iter().any(acts);
        let (meaning, reported, fitting) = (Rc::new(meant), RefCell::new(reported), Fitting::default());
        let riding = RefCell::new(settings.clone());
        let kept_under = kept_under(&settings);
        Self {
            settings,
            acts,
            meaning,
            riding,
            kept_under,
            wish,
            fitting,
            min_lsn,
            serializable,
            is_read_committed,
            is_plain,
            reported,
        }
    }

    /// Those who share a server may differ in these.
    fn may_differ_in(&self, free: &[String]) {
        let is_free = |name: &[u8]| free.iter().any(|free| free.as_bytes() == name);
        *self.riding.borrow_mut() = self.settings.iter().filter(|(name, _)| !is_free(name)).cloned().collect();
    }
}

/// Most sets of settings remembered per group beyond those in use.
const MAX_SETS: usize = 1024;

impl Group {
    /// The shared form of `settings`.
    pub(super) fn intern(&mut self, settings: Settings) -> Rc<ParamSet> {
        if settings.is_empty() {
            return Rc::clone(&self.no_params);
        }
        if let Some(set) = self.sets.get(&settings) {
            return Rc::clone(set);
        }
        if self.sets.len() >= MAX_SETS {
            self.sets.retain(|_, set| Rc::strong_count(set) > 1);
        }
        let mut set = ParamSet::new(settings.clone(), None);
        set.fitting = self.fitting(&settings);
        set.may_differ_in(&self.lane_settings);
        // One for all that mean the same, so that comparing is comparing pointers.
        let others = self.sets.values().chain([&self.no_params]);
        if let Some(same) = others.map(|other| &other.meaning).find(|meaning| **meaning == set.meaning) {
            set.meaning = Rc::clone(same);
        }
        let set = Rc::new(set);
        self.sets.insert(settings, Rc::clone(&set));
        set
    }

    /// From now on clients may differ in these settings, and in no others, who share a server.
    pub(super) fn frees(&mut self, settings: &[String]) {
        if *self.lane_settings == *settings {
            return;
        }
        self.lane_settings = settings.into();
        self.sets.values().for_each(|set| set.may_differ_in(settings));
    }

    fn fitting(&self, settings: &Settings) -> Fitting {
        self.rules.as_ref().map_or_else(Fitting::default, |rules| rules.fitting(settings))
    }

    /// The shared form of settings that a server has in force.
    pub(super) fn intern_known(&mut self, settings: Settings, status: &Parameters) -> Rc<ParamSet> {
        let set = self.intern(settings);
        self.accepted(&set, status);
        set
    }

    /// A server has accepted these settings, and has reported all of `status` by now.
    pub(super) fn accepted(&self, set: &ParamSet, status: &Parameters) {
        if set.reported.borrow().is_none() {
            let base = self.base.as_deref().unwrap_or_default();
            *set.reported.borrow_mut() = Some(status.iter().filter(|pair| !base.contains(pair)).cloned().collect());
        }
    }
}

/// Whatever is not known to matter to no answer: those that applications make up are asked for by code, too.
fn kept_under(settings: &Settings) -> Box<[u8]> {
    let mut buffer = Vec::new();
    let mut key = Key::new(&mut buffer);
    let matters = |name: &[u8]| !name.starts_with(b"pgweir.") && !MEANINGLESS.contains(&name);
    for (name, value) in settings.iter().filter(|(name, _)| matters(name)) {
        key.field(name);
        key.field(value);
    }
    buffer.into()
}
