//! What is known of PostgreSQL's built-in functions by name.
//! Must never call a name safe one of whose overloads is not.

use std::sync::OnceLock;

use crate::sql::verdict::Effects;

/// Standing of a function name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Immutable or stable in every overload.
    Pure,
    /// Volatile, without effect, as good on a standby.
    Harmless,
    /// Built in, and not for a standby.
    Denied,
    /// Not built in.
    Unknown,
}

static LIST: OnceLock<Vec<(&'static str, Standing)>> = OnceLock::new();

fn list() -> &'static [(&'static str, Standing)] {
    LIST.get_or_init(|| {
        let lines = include_str!("functions.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| match line.split_once(' ') {
                None => (line, Standing::Pure),
                Some((name, "~")) => (name, Standing::Harmless),
                Some((name, _)) => (name, Standing::Denied),
            })
            .collect()
    })
}

/// Standing of an unqualified function name, or one of `pg_catalog`, folded as the server folds it.
pub(crate) fn standing(name: &str) -> Standing {
    let list = list();
    match list.binary_search_by_key(&name, |&(known, _)| known) {
        Ok(n) => list.get(n).map_or(Standing::Unknown, |&(_, standing)| standing),
        Err(_) => Standing::Unknown,
    }
}

/// What a call by this name leaves behind; `set_config` is for the caller, who sees its third argument.
pub(crate) fn effects(name: &[u8]) -> Effects {
    match name {
        b"pg_advisory_lock" | b"pg_advisory_lock_shared" | b"pg_try_advisory_lock" | b"pg_try_advisory_lock_shared" => {
            Effects::ADVISORY_LOCK
        }
        b"pg_advisory_unlock" | b"pg_advisory_unlock_shared" | b"pg_advisory_unlock_all" => Effects::ADVISORY_UNLOCK,
        b"pg_notify" => Effects::NOTIFY,
        b"pg_listening_channels" => Effects::LISTENING,
        b"setseed" => Effects::SETSEED,
        b"nextval" | b"setval" => Effects::SEQUENCE_STATE,
        b"currval" | b"lastval" => Effects::SEQUENCE_READ,
        b"query_to_xml" | b"query_to_xmlschema" | b"query_to_xml_and_xmlschema" | b"ts_stat" | b"ts_rewrite"
        // They read relations that only their arguments name.
        | b"table_to_xml" | b"table_to_xml_and_xmlschema" | b"schema_to_xml" | b"schema_to_xml_and_xmlschema"
        | b"database_to_xml" | b"database_to_xml_and_xmlschema"
        // They compute the expressions of an index.
        | b"brin_summarize_new_values" | b"brin_summarize_range" => Effects::OPAQUE,
        // Like a library, nothing takes them away but the end of the server.
        b"pg_replication_origin_session_setup" | b"pg_backup_start" | b"pg_start_backup"
        | b"pg_create_physical_replication_slot" | b"pg_create_logical_replication_slot"
        | b"pg_copy_physical_replication_slot" | b"pg_copy_logical_replication_slot"
        // Of an extension: a connection by name, for whoever is in the session.
        | b"dblink_connect" | b"dblink_connect_u" => Effects::LOAD,
        _ => Effects::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_sorted_and_answers() {
        assert!(list().windows(2).all(|w| w[0].0 < w[1].0));
        for (name, expected) in [
            ("now", Standing::Pure),
            ("extract", Standing::Pure),
            ("random", Standing::Harmless),
            ("pg_total_relation_size", Standing::Harmless),
            ("nextval", Standing::Denied),
            ("txid_current", Standing::Denied),
            ("pg_backend_pid", Standing::Denied),
            ("pg_stat_get_activity", Standing::Denied),
            ("table_to_xml", Standing::Denied),
            ("ts_rewrite", Standing::Denied),
            ("pg_try_advisory_xact_lock", Standing::Denied),
            ("my_function", Standing::Unknown),
            ("", Standing::Unknown),
        ] {
            assert_eq!(standing(name), expected, "{name}");
        }
    }
}
