//! Authentication: SCRAM-SHA-256 and md5 in both roles, and the login decision for clients; pure, without I/O.
//! Must never open a socket, read a clock, log a secret, or decide by anything but the bytes it was handed.
//!
//! [`login::Login`] is what the gate drives for a client; [`scram::ClientExchange`] and [`md5::response`] are what a
//! login towards a server uses; [`secret_kind::SecretKind`] tells what kind of secret a configured password text is.

mod candidates;
pub mod certificate;
pub mod login;
pub mod md5;
mod mocks;
pub mod sasl;
pub mod scram;
pub mod secret_kind;
mod server_secret;
mod verifier_cache;

pub use mocks::Mocks;
pub use server_secret::ServerSecret;
pub use verifier_cache::VerifierCache;

use aws_lc_rs::digest;

/// Bytes of a SHA-256 digest, and of every SCRAM-SHA-256 key.
pub const KEY_LEN: usize = 32;

/// One SCRAM-SHA-256 key or the secret that mock salts are derived from.
pub type Key = [u8; KEY_LEN];

/// SHA-256 of the parts one after another.
fn sha256(parts: &[&[u8]]) -> Key {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(context.finish().as_ref());
    key
}
