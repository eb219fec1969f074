//! Errors as PostgreSQL speaks them: severity, SQLSTATE, message, detail, hint.
//! Must never carry a secret, nor a Rust error's internals without a sentence around it.

use std::borrow::Cow;

use super::frame::cstr;
use super::{build, tag};

/// Five characters of PostgreSQL's appendix A.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SqlState(pub [u8; 5]);

macro_rules! states {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = $doc] pub const $name: Self = Self(*$code);)*
        }
    };
}

states! {
    SUCCESS = b"00000", "successful_completion: for notices";
    PROTOCOL_VIOLATION = b"08P01", "protocol_violation";
    CONNECTION_FAILURE = b"08006", "connection_failure";
    CANNOT_CONNECT = b"08001", "sqlclient_unable_to_establish_sqlconnection";
    FEATURE_NOT_SUPPORTED = b"0A000", "feature_not_supported";
    INVALID_PARAMETER_VALUE = b"22023", "invalid_parameter_value";
    INVALID_TEXT = b"22P02", "invalid_text_representation";
    IN_FAILED_TRANSACTION = b"25P02", "in_failed_sql_transaction";
    UNDEFINED_STATEMENT = b"26000", "invalid_sql_statement_name";
    UNDEFINED_PORTAL = b"34000", "invalid_cursor_name";
    IDLE_TRANSACTION_TIMEOUT = b"25P03", "idle_in_transaction_session_timeout";
    TRANSACTION_TIMEOUT = b"25P04", "transaction_timeout";
    INVALID_AUTHORIZATION = b"28000", "invalid_authorization_specification";
    INVALID_PASSWORD = b"28P01", "invalid_password";
    INVALID_CATALOG_NAME = b"3D000", "invalid_catalog_name (no such database)";
    INSUFFICIENT_PRIVILEGE = b"42501", "insufficient_privilege";
    DUPLICATE_STATEMENT = b"42P05", "duplicate_prepared_statement";
    CONFIG_FILE = b"F0000", "config_file_error";
    SYNTAX_ERROR = b"42601", "syntax_error";
    UNDEFINED_COLUMN = b"42703", "undefined_column";
    UNDEFINED_OBJECT = b"42704", "undefined_object";
    UNDEFINED_PARAMETER = b"42P02", "undefined_parameter";
    TOO_MANY_CONNECTIONS = b"53300", "too_many_connections";
    CONFIGURATION_LIMIT = b"53400", "configuration_limit_exceeded";
    PROGRAM_LIMIT = b"54000", "program_limit_exceeded";
    NOT_IN_PREREQUISITE_STATE = b"55000", "object_not_in_prerequisite_state";
    CANT_CHANGE_RUNTIME_PARAM = b"55P02", "cant_change_runtime_param";
    QUERY_CANCELED = b"57014", "query_canceled";
    ADMIN_SHUTDOWN = b"57P01", "admin_shutdown";
    DEADLOCK_DETECTED = b"40P01", "deadlock_detected";
    CANNOT_CONNECT_NOW = b"57P03", "cannot_connect_now";
    IDLE_SESSION_TIMEOUT = b"57P05", "idle_session_timeout";
    INTERNAL = b"XX000", "internal_error";
}

impl SqlState {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

/// Whether the session lives on after the error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// No error at all: a word to the client between replies.
    Notice,
    /// The statement failed, the session goes on; a ReadyForQuery must follow.
    Error,
    /// The connection closes right after.
    Fatal,
}

/// An error that a client may see. It has its SQLSTATE from birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgError {
    /// Does the session end?
    pub severity: Severity,
    /// SQLSTATE.
    pub code: SqlState,
    /// Primary message; pgweir's own begin with `pgweir: ` so that it is clear who speaks.
    pub message: Cow<'static, str>,
    /// What to know about it.
    pub detail: Option<Cow<'static, str>>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl PgError {
    /// A FATAL error.
    pub fn fatal(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Fatal, code, message: message.into(), detail: None, hint: None }
    }

    /// An ERROR: the session goes on.
    pub fn error(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Error, ..Self::fatal(code, message) }
    }

    /// A word to the client, which changes nothing.
    pub fn notice(message: impl Into<Cow<'static, str>>) -> Self {
        Self { severity: Severity::Notice, ..Self::error(SqlState::SUCCESS, message) }
    }

    /// The same, after which the session ends.
    #[must_use]
    pub fn fatally(self) -> Self {
        Self { severity: Severity::Fatal, ..self }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what to know about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Appends the ErrorResponse or NoticeResponse to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let severity: &[u8] = match self.severity {
            Severity::Notice => b"NOTICE",
            Severity::Error => b"ERROR",
            Severity::Fatal => b"FATAL",
        };
        let tag = if self.severity == Severity::Notice { tag::server::NOTICE } else { tag::server::ERROR };
        build::message(out, tag, |out| {
            for (field, value) in [
                (b'S', Some(severity)),
                (b'V', Some(severity)),
                (b'C', Some(&self.code.0[..])),
                (b'M', Some(self.message.as_bytes())),
                (b'D', self.detail.as_ref().map(|text| text.as_bytes())),
                (b'H', self.hint.as_ref().map(|text| text.as_bytes())),
            ] {
                if let Some(value) = value {
                    out.push(field);
                    build::cstr(out, value);
                }
            }
            out.push(0);
        });
    }
}

impl std::fmt::Display for PgError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code.as_str())
    }
}

/// What the proxy reads of a server's ErrorResponse. A hostile or broken server may leave any
/// field out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE, `XX000` when the server sent none.
    pub code: SqlState,
    /// The session is over: severity FATAL or PANIC.
    pub fatal: bool,
    /// Primary message, possibly cut short.
    pub message: String,
}

impl ServerError {
    /// Reads the body (without header) of an ErrorResponse, which may be cut short.
    pub fn parse(mut body: &[u8]) -> Self {
        let mut error = Self { code: SqlState::INTERNAL, fatal: false, message: String::new() };
        while let Some((&field, rest)) = body.split_first() {
            let (value, rest) = cstr(rest).unwrap_or((rest, &[]));
            match field {
                0 => break,
                b'V' => error.fatal = value == b"FATAL" || value == b"PANIC",
                b'C' => {
                    if let Ok(code) = <[u8; 5]>::try_from(value) {
                        error.code = SqlState(code);
                    }
                }
                b'M' => error.message = String::from_utf8_lossy(value).into_owned(),
                _ => {}
            }
            body = rest;
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let mut out = Vec::new();
        PgError::fatal(SqlState::TOO_MANY_CONNECTIONS, "full").hint("wait").encode(&mut out);
        let read = ServerError::parse(&out[5..]);
        assert_eq!(read.code, SqlState::TOO_MANY_CONNECTIONS);
        assert!(read.fatal);
        assert_eq!(read.message, "full");
    }

    #[test]
    fn survives_a_server_without_sqlstate_or_terminator() {
        let read = ServerError::parse(b"SERROR\0Mhalf a mess");
        assert_eq!(read.code, SqlState::INTERNAL);
        assert_eq!(read.message, "half a mess");
        assert_eq!(ServerError::parse(b"").code, SqlState::INTERNAL);
        assert_eq!(ServerError::parse(b"C12\0\0").code, SqlState::INTERNAL);
    }
}
