//! What a server is asked about its session, in SQL.
//! Must never hang on the session's settings: neither on its search_path nor on what it has made plans cost.

use super::Client;
use super::inventory::{HIDDEN, SETTING, Touched};
use crate::flow::params::{IDENTITY, literal};
use crate::sql::verdict::Effects;

/// What to ask, and the names if it is only for their values. Everything is qualified: the session's search_path is
/// its own affair.
pub(super) fn question(client: &Client, touched: &Touched) -> (String, Option<Vec<Box<[u8]>>>) {
    let effects = touched.effects;
    let mut parts = things(client, effects);
    let settings = effects.any(SETTING.union(HIDDEN).union(Effects::DISCARD_ALL));
    if settings && parts.is_empty() && touched.is_plain(client) {
        let names = touched.named.names.clone();
        let columns: String =
            names.iter().map(|name| format!(",pg_catalog.current_setting({},true)", literal(name))).collect();
        let sql = if names.is_empty() { String::new() } else { format!("SELECT 'n'{columns}") };
        return (sql, Some(names));
    }
    let known = client.params.settings.iter().map(|(name, _)| &name[..]);
    let mut names: Vec<&[u8]> = touched.named.names.iter().map(|name| &**name).chain(known).collect();
    let dear = !parts.is_empty() && names.iter().any(|name| changes_costs(name));
    let mut sql = String::new();
    if dear && settings {
        sql = format!("{LISTED} AND name OPERATOR(pg_catalog.=) 'jit';");
    }
    if dear {
        // A plan that its settings make dear would be compiled, for the better part of a second. All of it is one
        // transaction.
        sql.push_str("SET LOCAL jit=off;");
    }
    if settings {
        let but = if dear { " AND name OPERATOR(pg_catalog.<>) 'jit'" } else { "" };
        parts.push(format!("{LISTED}{but}"));
        // PostgreSQL does not list these (GUC_NO_SHOW_ALL), nor those that applications make up.
        names.retain(|name| name.contains(&b'.'));
        names.extend(IDENTITY);
        names.sort_unstable();
        names.dedup();
        let names: Vec<String> = names.into_iter().map(literal).collect();
        parts.push(format!(
            "SELECT 's',n,pg_catalog.current_setting(n,true),NULL FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) AS n",
            names.join(",")
        ));
    }
    sql.push_str(&parts.join(" UNION ALL "));
    (sql, None)
}

/// The settings of the session that the server lists.
const LISTED: &str = "SELECT 's',pg_catalog.lower(name),\
    CASE WHEN setting IS NOT NULL THEN pg_catalog.current_setting(name) END,context \
    FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'";

/// What is asked about all but settings.
fn things(client: &Client, effects: Effects) -> Vec<String> {
    let hidden = effects.any(HIDDEN);
    let mut parts: Vec<String> = Vec::new();
    let asks = |what: Effects| hidden || effects.any(what.union(Effects::DISCARD)) || client.pinned.any(what);
    let mut things = |kind: char, name: &str, from: &str| {
        parts.push(format!(
            "(SELECT '{kind}',{name}::pg_catalog.text,NULL::pg_catalog.text,NULL::pg_catalog.text FROM {from})"
        ));
    };
    if asks(Effects::TEMP) {
        // Whatever is in a schema depends on it: 2615 is pg_namespace.
        things(
            't',
            "''",
            "pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615 \
             AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() LIMIT 1",
        );
    }
    if asks(Effects::HOLD_CURSOR) {
        things('h', "''", "pg_catalog.pg_cursors WHERE is_holdable LIMIT 1");
    }
    if asks(Effects::ADVISORY_LOCK) {
        things(
            'a',
            "''",
            "pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
             AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() LIMIT 1",
        );
    }
    if asks(Effects::LISTEN) {
        things('l', "channel", "pg_catalog.pg_listening_channels() AS l(channel)");
    }
    if hidden || client.pinned.any(Effects::OPAQUE) {
        things('p', "''", "pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1");
        // DEALLOCATE in code takes away what is shared; those are numbered.
        let shared =
            "pg_catalog.pg_prepared_statements WHERE NOT from_sql AND name OPERATOR(pg_catalog.~) '^__pgweir_[0-9]'";
        things('c', "pg_catalog.count(*)", shared);
    }
    parts
}

/// Whether a setting changes what plans cost, or from what cost on they are compiled.
fn changes_costs(name: &[u8]) -> bool {
    name.starts_with(b"enable_") || name.starts_with(b"jit") || name.ends_with(b"_cost")
}
