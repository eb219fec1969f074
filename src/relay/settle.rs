//! What a server's answer about its session means: which settings follow their client, and what keeps it there.
//! Must never let a value follow that another server might refuse or understand otherwise: that one pins.

use super::Client;
use super::inventory::{ADDING, HIDDEN, SETTING, Touched};
use crate::flow::params::{IDENTITY, Settings};
use crate::server::open::Parameters;
use crate::sql::settings::is_made_up;
use crate::sql::verdict::Effects;

/// Longest list of settings that is carried from server to server, bytes; a session with more keeps its server.
const SETTINGS_BYTES: usize = 16 * 1024;

/// One thing that the server says there is.
#[derive(Debug)]
pub(super) struct Told {
    /// `s` setting, `t` temporary object, `h` held cursor, `a` advisory lock, `l` channel, `p` prepared by SQL.
    pub kind: u8,
    /// Of the setting or channel.
    pub name: Vec<u8>,
    /// Of the setting; `None` if it cannot be read, or is not known.
    pub value: Option<Vec<u8>>,
    /// Whoever uses the session may set it.
    pub anyone: bool,
}

impl Told {
    /// The value of a setting that was asked for by name.
    pub fn short(name: &[u8], value: Option<Vec<u8>>) -> Self {
        Self { kind: b's', name: name.to_vec(), value, anyone: true }
    }
}

/// The server's session, apart from the answer.
pub(super) struct Session<'a> {
    /// Whom the pool logs in as.
    pub login: &'a str,
    /// What its server reported at its start.
    pub base: &'a Parameters,
    /// What it has reported last.
    pub status: &'a Parameters,
}

/// What follows from the answer.
#[derive(Debug)]
pub(super) struct Settled {
    /// Settings in force on this server, and those of the client's session, if that was asked.
    pub settings: Option<(Settings, Settings)>,
    /// What keeps the client with the server.
    pub pinned: Effects,
    /// The server may have settings that nobody can name.
    pub smudged: bool,
}

/// What the answer means for the client.
pub(super) fn settle(client: &Client, touched: &Touched, short: bool, told: &[Told], session: &Session<'_>) -> Settled {
    let named = &touched.named;
    let hidden = touched.effects.any(HIDDEN);
    let mut pinned = client.pinned.without(ADDING.union(HIDDEN)) | found(told);
    if !touched.effects.any(SETTING.union(HIDDEN).union(Effects::DISCARD_ALL)) {
        return Settled { settings: None, pinned, smudged: false };
    }
    pinned = pinned.without(SETTING);
    let starts_with = |name: &[u8]| client.start.settings.iter().any(|(known, _)| known == name);
    let was_empty = |name: &[u8]| client.params.settings.iter().any(|(known, value)| known == name && value.is_empty());
    // Where only the application knows the name it may have emptied this one itself.
    let by_code = hidden || (named.others && !named.hidden);
    let said_by_code = |name: &[u8]| by_code && !named.has_said(name, false) && !was_empty(name);
    let emptied = |name: &[u8]| starts_with(name) && (touched.bare || said_by_code(name));
    let mut here = if short { kept(client, touched) } else { Settings::new() };
    for told in told.iter().filter(|told| told.kind == b's') {
        if !told.name.is_ascii() && !same_encoding(session.status) {
            continue;
        }
        here.retain(|(known, _)| *known != told.name);
        let Some(value) = &told.value else {
            // One that nobody has made up, and that its own session may not read.
            if !told.name.contains(&b'.') {
                pinned |= Effects::SET_SESSION;
            }
            continue;
        };
        match &told.name[..] {
            // What code has reset is known no longer, and empty.
            name if value.is_empty() && emptied(name) => continue,
            b"role" if value == b"none" && !starts_with(b"role") => continue,
            b"session_authorization" if value == session.login.as_bytes() => continue,
            // It cannot be read, and pins anyway.
            b"seed" => continue,
            // They are set anew in each transaction.
            name if name.starts_with(b"transaction_") => continue,
            _ => here.push((told.name.clone(), value.clone())),
        }
        if !follows(told, value, session) {
            pinned |= Effects::SET_SESSION;
        }
    }
    here.sort_unstable();
    let bytes: usize = here.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > SETTINGS_BYTES {
        pinned |= Effects::SET_SESSION;
    }
    // Names that only the application knows stay until it says that all are gone.
    let cleared = named.all_back && !touched.doubt;
    if named.hidden || (client.pinned.any(Effects::SET_CONFIG) && !cleared) {
        pinned |= Effects::SET_CONFIG;
    }
    if named.seeds {
        pinned |= Effects::SETSEED;
    }
    // Whatever the session began with and is not there has gone back to its start.
    let gone = client.start.settings.iter().filter(|(name, _)| here.iter().all(|(known, _)| known != name));
    let mut own: Settings = here.iter().chain(gone).cloned().collect();
    own.sort_unstable();
    Settled { settings: Some((here, own)), pinned, smudged: hidden || named.hidden }
}

/// The settings before, without those that texts have surely taken back.
fn kept(client: &Client, touched: &Touched) -> Settings {
    let named = &touched.named;
    let goes = |name: &[u8]| {
        named.back.iter().any(|back| !back.local && *back.name == *name)
            || (named.all_back && !IDENTITY.contains(&name))
    };
    let start = client.start.settings.iter().filter(|(name, _)| goes(name));
    let before = client.params.settings.iter().filter(|(name, _)| !goes(name));
    before.chain(start).cloned().collect()
}

/// What the server says there is beside settings.
fn found(told: &[Told]) -> Effects {
    told.iter().fold(Effects::NONE, |all, told| {
        all | match told.kind {
            b't' => Effects::TEMP,
            b'h' => Effects::HOLD_CURSOR,
            b'a' => Effects::ADVISORY_LOCK,
            b'l' => Effects::LISTEN,
            b'p' => Effects::OPAQUE,
            _ => Effects::NONE,
        }
    })
}

/// Whether any other server takes this value, and means the same by it.
fn follows(told: &Told, value: &[u8], session: &Session<'_>) -> bool {
    let may = told.anyone || acts_as_superuser(session.base);
    // Values come in the client's encoding and go in the server's.
    let plain = value.is_ascii() || same_encoding(session.status);
    let name = !told.name.contains(&b'.') || is_made_up(&told.name);
    // Whatever is created under it lives in this server.
    let temporary = told.name == b"search_path" && memchr::memmem::find(value, b"pg_temp").is_some();
    may && plain && name && !temporary
}

fn reported<'a>(all: &'a Parameters, name: &[u8]) -> Option<&'a [u8]> {
    all.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
}

/// Whether the session's user is a superuser now, by what the server has reported.
pub(super) fn acts_as_superuser(status: &Parameters) -> bool {
    reported(status, b"is_superuser") == Some(b"on")
}

/// Whether the client's encoding is the server's, by what the server has reported.
pub(super) fn same_encoding(status: &Parameters) -> bool {
    let plain = |name: &[u8]| -> Vec<u8> {
        let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
        let letters: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
        if letters == b"unicode" { b"utf8".to_vec() } else { letters }
    };
    let encodings = (reported(status, b"client_encoding"), reported(status, b"server_encoding"));
    matches!(encodings, (Some(one), Some(other)) if plain(one) == plain(other))
}

/// The same, or one that applications make up.
pub(super) fn is_anyones(name: &[u8]) -> bool {
    if name.contains(&b'.') { is_made_up(name) } else { is_plain(name) }
}

/// Whether this is a setting that everybody may set in every session, by its own name.
pub(super) fn is_plain(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|name| PLAIN.split_ascii_whitespace().any(|plain| plain == name))
}

/// Settings of context `user` whose values no server refuses that runs the same version
/// (src/backend/utils/misc/guc_tables.c).
const PLAIN: &str = "
    application_name backend_flush_after bytea_output check_function_bodies client_encoding client_min_messages
    constraint_exclusion cpu_index_tuple_cost cpu_operator_cost cpu_tuple_cost cursor_tuple_fraction datestyle
    default_transaction_deferrable default_transaction_isolation default_transaction_read_only
    effective_cache_size enable_async_append enable_bitmapscan enable_gathermerge enable_hashagg enable_hashjoin
    enable_incremental_sort enable_indexonlyscan enable_indexscan enable_material enable_memoize enable_mergejoin
    enable_nestloop enable_parallel_append enable_parallel_hash enable_partition_pruning
    enable_partitionwise_aggregate enable_partitionwise_join enable_seqscan enable_sort enable_tidscan
    escape_string_warning extra_float_digits from_collapse_limit geqo gin_fuzzy_search_limit hash_mem_multiplier
    idle_in_transaction_session_timeout idle_session_timeout intervalstyle jit join_collapse_limit lock_timeout
    maintenance_work_mem max_parallel_workers_per_gather parallel_leader_participation parallel_setup_cost
    parallel_tuple_cost plan_cache_mode quote_all_identifiers random_page_cost row_security search_path
    seq_page_cost standard_conforming_strings statement_timeout synchronous_commit timezone transaction_timeout
    work_mem xmlbinary xmloption";
