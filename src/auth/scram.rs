//! SCRAM-SHA-256 (RFC 5802, RFC 7677) in both roles, as PostgreSQL speaks it, without I/O.
//! Must never compare a secret byte by byte, nor trust a length that the peer sent.
//!
//! Channel binding ([`Binding`]) is by the server's certificate only. The user name inside the SCRAM messages is ignored, as in PostgreSQL: the startup packet names the user.

mod binding;
mod client;
mod keys;
mod salted_cache;
mod server;
mod text;
mod verifier;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

pub use binding::Binding;
pub use client::{ClientExchange, ClientKey, Credential};
pub use salted_cache::SaltedCache;
pub use server::{ServerExchange, Success};
pub use verifier::Verifier;

pub(super) use verifier::default_iterations;

/// Name of the mechanism in the SASL messages (RFC 7677).
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Name of the mechanism with channel binding (RFC 7677).
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Iterations for verifiers that pgweir derives itself (PostgreSQL `SCRAM_SHA_256_DEFAULT_ITERATIONS`).
pub const ITERATIONS: u32 = 4096;

/// Salt bytes for verifiers that pgweir derives itself (PostgreSQL `SCRAM_DEFAULT_SALT_LEN`).
pub const SALT_LEN: usize = 16;

/// Most iterations accepted from a server, so that a hostile one cannot burn minutes of CPU.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// Longest salt in bytes, from a server or in a stored verifier.
pub const SALT_MAX: usize = 1024;

/// Longest combined nonce in bytes accepted from a server.
pub const NONCE_MAX: usize = 1024;

/// Longest message in bytes accepted from a client (PostgreSQL `PG_MAX_SASL_MESSAGE_LENGTH`).
pub const CLIENT_MESSAGE_MAX: usize = 1024;

/// Longest message in bytes accepted from a server: nonce, salt in base64 and room for extensions.
pub const SERVER_MESSAGE_MAX: usize = 4096;

/// Random bytes in an own nonce, 24 characters in base64 (PostgreSQL `SCRAM_RAW_NONCE_LEN`).
const RAW_NONCE_LEN: usize = 18;

/// Why a SCRAM exchange ended. No variant carries a secret or text a client sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message that the RFC does not allow, or that exceeds a bound, or comes out of turn; says what was wrong.
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// The client is bound to another certificate than the one shown here, or its `c=` differs from its own header.
    #[error("SCRAM channel binding check failed")]
    ChannelBinding,
    /// The client was not shown the offer of channel binding (PostgreSQL's words).
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The peer's nonce does not continue the one of this exchange.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// The client's proof is wrong, or the exchange was a mock.
    #[error("password authentication failed")]
    Refused,
    /// The server does not know the password: its signature is wrong.
    #[error("incorrect SCRAM server signature")]
    ServerSignature,
    /// The server ended the exchange with `e=`; its text, cut and made printable.
    #[error("server refused the SCRAM exchange: {0}")]
    ServerRefused(String),
    /// The client key at hand belongs to another salt or iteration count than the server asks for.
    #[error("the SCRAM key at hand does not belong to the server's salt and iteration count")]
    KeyMismatch,
    /// The operating system gave no random bytes.
    #[error("no random bytes available")]
    Random,
}

/// A new own nonce: printable, without a comma.
fn nonce() -> Result<String, ScramError> {
    use base64::Engine as _;
    let mut raw = [0; RAW_NONCE_LEN];
    aws_lc_rs::rand::fill(&mut raw).map_err(|_| ScramError::Random)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(raw))
}
