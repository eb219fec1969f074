//! What the code behind a read says of running it on a standby: the lattice, and where its values come from.
//! Must never call a read safe of which a part was not seen.
//!
//! After routing-and-cache.md 1.2 and 1.4 B. A standby refuses what writes; that is found by running it there. What it answers otherwise
//! than the primary without an error (advisory locks, statistics, positions of sequences, its own addresses) must be found here.

use super::functions::{self, Standing};
use super::timed;
use super::verdict::{Effects, Reason, Route, Verdict};
use super::words::is_session_setting;

/// How far a read may leave the primary. In this order, and what has parts has the last of theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Footing {
    /// It does on a standby what it does on the primary.
    #[default]
    Safe,
    /// It does, but its answer hangs on settings that it asks for by name, or is drawn anew each time: it is for a server that no other
    /// client shares.
    Alone,
    /// It does, but in another transaction its answer may be another, as it hangs on what time it is.
    Timed,
    /// Both.
    TimedAlone,
    /// It seems to; if a standby refuses it the primary must run it, so that nothing of its answer may have been seen.
    Optimistic,
    /// It must not.
    Primary(Reason),
}

impl Footing {
    const fn rank(self) -> u8 {
        match self {
            Self::Safe => 0,
            Self::Alone => 1,
            Self::Timed => 2,
            Self::TimedAlone => 3,
            Self::Optimistic => 4,
            Self::Primary(_) => 5,
        }
    }

    /// Adds what a part says. True if that changes the whole; of two reasons the first stays.
    pub fn merge(&mut self, part: Self) -> bool {
        let part = if *self == Self::Timed && part == Self::Alone { Self::TimedAlone } else { part };
        let part = if *self == Self::Alone && part == Self::Timed { Self::TimedAlone } else { part };
        let grows = part.rank() > self.rank();
        if grows {
            *self = part;
        }
        grows
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, part: Self) -> Self {
        self.merge(part);
        self
    }

    /// Of code that may run for statements which do not name it: casts, support of operator classes, input and output of types, checks of
    /// domains. What a standby refuses, or what nobody can look into, only keeps everything from being certain: few statements run it.
    #[must_use]
    pub fn implied(self) -> Self {
        match self {
            Self::Primary(Reason::Function | Reason::Sequence | Reason::ForeignTable | Reason::NodeSetting) => self,
            Self::Primary(_) => Self::Optimistic,
            other => other,
        }
    }

    /// It only reads for certain.
    #[must_use]
    pub const fn is_read(self) -> bool {
        matches!(self, Self::Safe | Self::Alone | Self::Timed | Self::TimedAlone)
    }

    /// Its answer hangs on nothing that clients who share a server may have different.
    #[must_use]
    pub const fn is_shareable(self) -> bool {
        matches!(self, Self::Safe | Self::Timed)
    }

    /// The catalog lacks something that the statement names: it may have been made since.
    #[must_use]
    pub const fn is_unheard(self) -> bool {
        matches!(self, Self::Primary(Reason::UnknownRelation | Reason::FunctionUnknown))
    }
}

impl Verdict {
    /// What grammar and catalog say together.
    #[must_use]
    pub fn and_catalog(self, footing: Footing) -> Self {
        let (route, reason) = match (self.route, footing) {
            (Route::Primary | Route::BeginReadOnly | Route::FollowTransaction, _) => (self.route, self.reason),
            (Route::Replica | Route::Catalog, Footing::Primary(reason)) => (Route::Primary, reason),
            (Route::Replica, footing) if footing.is_read() => (Route::Replica, self.reason),
            (Route::Replica | Route::Catalog, _) => (Route::Replica, Reason::StableRead),
        };
        Self { route, reason, ..self }
    }
}

/// Extensions whose functions in C are known to be what they are declared, beside those that leave nothing in a session.
const TRUSTED: &[&[u8]] = &[
    b"dict_int",
    b"dict_xsyn",
    b"h3",
    b"h3_postgis",
    b"hll",
    b"intagg",
    b"ip4r",
    b"isn",
    b"pg_bigm",
    b"pg_trgm",
    b"prefix",
    b"rum",
    b"semver",
    b"tdigest",
    b"tsm_system_rows",
    b"tsm_system_time",
];

/// Extensions whose volatile functions have no effect: they draw random bytes, or read the clock.
const HARMLESS: &[&[u8]] = &[b"pg_uuidv7", b"pgcrypto", b"uuid-ossp"];

/// Extensions that tell of the node they run on.
const LOCAL: &[&[u8]] = &[
    b"adminpack",
    b"amcheck",
    b"file_fdw",
    b"pageinspect",
    b"pg_buffercache",
    b"pg_freespacemap",
    b"pg_prewarm",
    b"pg_stat_statements",
    b"pg_visibility",
    b"pg_walinspect",
    b"pgrowlocks",
    b"pgstattuple",
    b"sslinfo",
];

/// Of a function by what it is declared, its body apart. `flags` as in `relay/catalog.sql`: kind, volatility, language, attribute, extension;
/// `quiet`: extensions known to leave nothing in a session.
pub(crate) fn declared(flags: &[u8], quiet: &[&[u8]]) -> Footing {
    let &[kind, volatility, language, _, ref extension @ ..] = flags else {
        return Footing::Primary(Reason::UnseenCode);
    };
    let is_in = |list: &[&[u8]]| list.contains(&extension);
    match (language, volatility) {
        // What an aggregate does its parts do, which it depends on.
        _ if kind == b'a' => Footing::Safe,
        (b's' | b'p', b'i') => Footing::Safe,
        // PostgreSQL runs nothing in them that writes (`init_execution_state` in src/backend/executor/functions.c, `exec_stmt_execsql` in
        // src/pl/plpgsql/src/pl_exec.c), and what they call has its own footing; but they may ask for the time.
        (b's' | b'p', b's') => Footing::Timed,
        // The body is read: what it writes, or what cannot be seen of it, is added.
        (b's' | b'p', _) => Footing::Optimistic,
        (b'c', _) if is_in(LOCAL) => Footing::Primary(Reason::Function),
        (b'c', b'i') => Footing::Safe,
        // Another name for a built-in one, whatever that does.
        (b'i', b'i') if extension.is_empty() => Footing::Primary(Reason::UnseenCode),
        (b'i', b'i') => Footing::Safe,
        (b'c' | b'i', b's') if is_in(quiet) || is_in(TRUSTED) => Footing::Safe,
        (b'c', b'v') if is_in(HARMLESS) => Footing::Safe,
        (b'c' | b'i', b'v') => Footing::Primary(Reason::VolatileFunction),
        _ => Footing::Primary(Reason::UnseenCode),
    }
}

/// Of what leaves something in a session, or might.
pub(crate) fn touching(effects: Effects) -> Footing {
    if effects.is_empty() {
        Footing::Safe
    } else if effects.without(Effects::UNKNOWN_FUNCTION).is_empty() {
        Footing::Primary(Reason::UnseenCode)
    } else {
        Footing::Primary(Reason::Function)
    }
}

/// Of a relation by kind and persistence (`pg_class.relkind`, `relpersistence`).
pub(crate) fn stored(flags: &[u8]) -> Footing {
    match flags {
        [b'S', ..] => Footing::Primary(Reason::Sequence),
        [b'f', ..] => Footing::Primary(Reason::ForeignTable),
        [_, b'u', ..] => Footing::Primary(Reason::UnloggedTable),
        [_, b't', ..] => Footing::Primary(Reason::TemporaryRelation),
        _ => Footing::Safe,
    }
}

/// Of a mark that `relay/catalog.sql` sets.
pub(crate) fn marked(mark: &[u8]) -> Footing {
    if mark == b"timed" {
        return Footing::Timed;
    }
    Footing::Primary(match mark {
        b"locks" => Reason::ViewLocksRows,
        b"catalog" => Reason::CatalogRelation,
        b"definer" => Reason::SecurityDefiner,
        b"writes" => Reason::VolatileFunction,
        _ => Reason::UnseenCode,
    })
}

/// Of a built-in function that is not immutable, called in a stored expression.
pub(crate) fn built_in(name: &[u8]) -> Footing {
    match std::str::from_utf8(name).map_or(Standing::Unknown, functions::standing) {
        standing @ (Standing::Pure | Standing::Harmless) => {
            let timed = if timed::tells_time(name) { Footing::Timed } else { Footing::Safe };
            timed.and(alone(standing, name))
        }
        Standing::Denied => Footing::Primary(Reason::Function),
        Standing::Unknown => Footing::Primary(Reason::FunctionUnknown),
    }
}

/// Of `current_setting` in a stored expression, by the name that it asks for; empty if that is no constant.
pub(crate) fn asked(name: &[u8]) -> Footing {
    if is_session_setting(name) { Footing::Alone } else { Footing::Primary(Reason::NodeSetting) }
}

/// Of a built-in function that has no effect: whether its answer is for one client only.
pub(crate) fn alone(standing: Standing, name: &[u8]) -> Footing {
    let asks = name == b"current_setting";
    if asks || standing == Standing::Harmless { Footing::Alone } else { Footing::Safe }
}

/// Words behind which a body of SQL or PL/pgSQL writes or locks. As columns they are rare; then nothing is lost but a standby's help.
const WRITING: [&[u8]; 16] = [
    b"insert",
    b"update",
    b"delete",
    b"merge",
    b"truncate",
    b"copy",
    b"create",
    b"alter",
    b"drop",
    b"refresh",
    b"reindex",
    b"vacuum",
    b"lock",
    b"share",
    b"grant",
    b"revoke",
];

/// Of an identifier in the body of a function in SQL or PL/pgSQL.
pub(crate) fn word(name: &[u8]) -> Footing {
    if WRITING.contains(&name) {
        return Footing::Primary(Reason::VolatileFunction);
    }
    match std::str::from_utf8(name).map_or(Standing::Unknown, functions::standing) {
        Standing::Denied => Footing::Primary(Reason::Function),
        Standing::Unknown if is_catalog(name) => Footing::Primary(Reason::CatalogRelation),
        standing => alone(standing, name),
    }
}

/// A name that belongs to the system's own relations, by what it looks like.
fn is_catalog(name: &[u8]) -> bool {
    name == b"information_schema" || (name.starts_with(b"pg_") && name != b"pg_catalog" && name != b"pg_temp")
}

#[cfg(test)]
#[path = "footing_tests.rs"]
mod tests;
