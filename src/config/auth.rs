//! `[auth]`, validated: rules, maps, the look-up of users, what failed logins lead to.
//! Must never hold a value that has not been checked, nor know how it was written.

use std::time::Duration;

use super::hba::Hba;
use super::ident::Ident;
use super::password::Password;
use crate::base::secret::Secret;

/// `[auth]`: who may come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// The rules, set exactly when `auth_type` is `hba`.
    pub hba: Option<Hba>,
    /// Maps from names in certificates and of the system to users.
    pub ident: Ident,
    /// How users are looked up who are not configured, if they are.
    pub query: Option<AuthQuery>,
    /// Failed logins from one address after which it is refused for a while. Default 0: never, and nobody is delayed.
    pub failed_logins_max: u32,
    /// For how long. Default 60 s; never 0.
    pub failed_logins_ban: Duration,
    /// What unknown users are shown is made of it; at least [`Auth::MOCK_SECRET_MIN`] bytes. Default: something that
    /// outlives the process.
    pub mock_secret: Option<Secret>,
}

impl Auth {
    /// Who could guess it could tell unknown users from known ones.
    pub const MOCK_SECRET_MIN: usize = 16;
}

/// How users are looked up on the servers.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthQuery {
    /// The query: its one parameter is the name, its row the name and the secret.
    pub sql: String,
    /// Who runs it.
    pub user: String,
    /// What this user proves itself with.
    pub password: Option<Password>,
    /// Database of the configuration it is run in. Default: the one the client asks for.
    pub database: Option<String>,
    /// How long an answer is believed. Default 30 s, at most [`AuthQuery::CACHE_MAX`]; 0: every login asks.
    pub cache: Duration,
}

impl AuthQuery {
    /// PgBouncer's `auth_query` (its etc/pgbouncer.ini): an expired password is none (CVE-2025-2291). Names are
    /// qualified here in addition, because the query must not depend on a search_path (CVE-2025-12819).
    pub const SQL: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() THEN NULL \
                           ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";
    /// Default of [`AuthQuery::cache`].
    pub const CACHE: Duration = Duration::from_secs(30);
    /// A password that was changed or has expired must not be good for longer.
    pub const CACHE_MAX: Duration = Duration::from_secs(3600);
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            hba: None,
            ident: Ident::default(),
            query: None,
            failed_logins_max: 0,
            failed_logins_ban: Duration::from_secs(60),
            mock_secret: None,
        }
    }
}
