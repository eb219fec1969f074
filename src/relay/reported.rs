//! Settings that follow their client because the server reports them: all that PgBouncer carries about.
//! Must never be used where settings are learned by asking.

use std::fmt::Write;
use std::rc::Rc;

use super::{ClientId, Relay, ServerId};
use crate::config::SessionState;
use crate::flow::params::literal;
use crate::wire::startup::Settings;

/// What PgBouncer tracks: `init_var_lookup` in its src/varcache.c, with the default of its track_extra_parameters.
const TRACKED: [&[u8]; 6] = [
    b"application_name",
    b"client_encoding",
    b"datestyle",
    b"intervalstyle",
    b"standard_conforming_strings",
    b"timezone",
];

/// SQL that turns a server with the settings `from` into one with `to` and leaves all that is in neither as it is,
/// whoever made it.
pub(super) fn apart(from: &Settings, to: &Settings) -> String {
    let mut sql = String::new();
    let gone = from.iter().filter(|(name, _)| to.iter().all(|(other, _)| other != name));
    let changed = to.iter().filter(|setting| !from.contains(setting));
    // NULL is the default (`set_config_by_name` in src/backend/utils/misc/guc_funcs.c).
    let gone = gone.map(|(name, _)| (name, "NULL".to_owned()));
    for (name, value) in gone.chain(changed.map(|(name, value)| (name, literal(value)))) {
        sql.push_str(if sql.is_empty() { "SELECT " } else { "," });
        let _ = write!(sql, "pg_catalog.set_config({},{value},false)", literal(name));
    }
    sql
}

impl Relay {
    /// The server told a client that a setting has this value now. By PgBouncer's rules the client has it from now on.
    pub(super) fn follow_reported(&mut self, id: ClientId, server: ServerId, name: &[u8], value: &[u8]) {
        let (Some(client), Some(this)) = (self.clients.get_mut(id), self.servers.get_mut(server)) else { return };
        let group = &mut self.groups[client.group];
        if group.terms.session_state != SessionState::PgBouncer || client.own {
            return;
        }
        let name = name.to_ascii_lowercase();
        if !TRACKED.contains(&&name[..]) {
            return;
        }
        let mut settings: Settings = client.params.settings.clone();
        settings.retain(|(known, _)| *known != name);
        settings.push((name, value.to_vec()));
        settings.sort_unstable();
        if settings != client.params.settings {
            client.params = group.intern_known(settings, &this.status);
            this.params = Rc::clone(&client.params);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_names_stays() {
        let settings = |pairs: &[(&str, &str)]| -> Settings {
            pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let (a, b) = (settings(&[("datestyle", "ISO"), ("timezone", "UTC")]), settings(&[("timezone", "it's")]));
        assert_eq!(apart(&a, &a), "");
        assert_eq!(
            apart(&a, &b),
            "SELECT pg_catalog.set_config(E'datestyle',NULL,false),pg_catalog.set_config(E'timezone',E'it''s',false)"
        );
    }
}
