//! By which method a client may come in: by `auth_type`, or by the first rule that fits.
//! Must never fall back to another method than the one that is named.

use super::caller::Caller;
use super::knock::Refusal;
use crate::config::{AuthType, ClientCert, Config, HbaMethod, Visitor};
use crate::wire::error::{PgError, SqlState};

/// How a client proves who it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub method: HbaMethod,
    pub map: Option<&'a str>,
    pub client_cert: ClientCert,
}

/// The method for a client.
///
/// # Errors
/// No rule lets it in: PostgreSQL's words (`ClientAuthentication`, src/backend/libpq/auth.c).
pub(super) fn entry<'a>(
    config: &'a Config,
    caller: &Caller,
    database: &str,
    user: &str,
    replication: bool,
) -> Result<Entry<'a>, Refusal> {
    let plainly = |method| Ok(Entry { method, map: None, client_cert: ClientCert::No });
    match config.listen.auth_type {
        AuthType::Trust => return plainly(HbaMethod::Trust),
        AuthType::Md5 => return plainly(HbaMethod::Md5),
        AuthType::ScramSha256 => return plainly(HbaMethod::ScramSha256),
        AuthType::Password => return plainly(HbaMethod::Password),
        AuthType::Cert => return plainly(HbaMethod::Cert),
        AuthType::Hba => {}
    }
    let visitor = Visitor { address: caller.address(), tls: caller.tls.is_some(), database, user, replication };
    let from = caller.address().map_or_else(|| "[local]".to_owned(), |address| address.to_string());
    let encryption = if caller.tls.is_some() { "SSL encryption" } else { "no encryption" };
    let whom = match replication {
        true => format!("host \"{from}\", user \"{user}\", {encryption}"),
        false => format!("host \"{from}\", user \"{user}\", database \"{database}\", {encryption}"),
    };
    let refused = |message| Err(Refusal::Told(PgError::fatal(SqlState::INVALID_AUTHORIZATION, message)));
    let purpose = if replication { "replication connection" } else { "connection" };
    match config.auth.hba.as_ref().and_then(|hba| hba.rule_for(&visitor)) {
        Some(rule) if rule.method == HbaMethod::Reject => refused(format!("pg_hba.conf rejects {purpose} for {whom}")),
        Some(rule) => Ok(Entry { method: rule.method, map: rule.map.as_deref(), client_cert: rule.client_cert }),
        None if replication => refused(format!("no pg_hba.conf entry for replication connection from {whom}")),
        None => refused(format!("no pg_hba.conf entry for {whom}")),
    }
}
