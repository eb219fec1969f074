//! The key schedule of SCRAM-SHA-256 (RFC 5802 section 3): from password to keys and signatures.
//! Must never see a message; it knows bytes and keys only.

use std::borrow::Cow;
use std::num::NonZeroU32;

use aws_lc_rs::{hmac as aws_hmac, pbkdf2};
use zeroize::Zeroizing;

use crate::auth::{KEY_LEN, Key, sha256};

/// HMAC-SHA-256 of `message` under `key`.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> Key {
    let key = aws_hmac::Key::new(aws_hmac::HMAC_SHA256, key);
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(aws_hmac::sign(&key, message).as_ref());
    out
}

/// SASLprep (RFC 4013), or the bytes as they are where it does not apply: PostgreSQL does the same in
/// `scram_build_secret` and libpq, so that a password in another encoding still works.
fn prepare(password: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(password) else {
        return Cow::Borrowed(password);
    };
    match stringprep::saslprep(text) {
        Ok(Cow::Owned(prepared)) => Cow::Owned(prepared.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(password),
    }
}

/// ClientKey and ServerKey of a password.
#[derive(Clone)]
pub(super) struct DerivedKeys {
    pub(super) client_key: Zeroizing<Key>,
    pub(super) server_key: Zeroizing<Key>,
}

/// Runs PBKDF2: some 0.2 µs per iteration, so under 1 ms for the usual 4096.
pub(super) fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> DerivedKeys {
    let mut prepared = prepare(password);
    let mut salted = Zeroizing::new([0; KEY_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, &prepared, salted.as_mut());
    if let Cow::Owned(copy) = &mut prepared {
        zeroize::Zeroize::zeroize(copy);
    }
    DerivedKeys {
        client_key: Zeroizing::new(hmac(salted.as_ref(), b"Client Key")),
        server_key: Zeroizing::new(hmac(salted.as_ref(), b"Server Key")),
    }
}

/// StoredKey of a ClientKey.
pub(super) fn stored_key(client_key: &Key) -> Key {
    sha256(&[client_key])
}

/// Proof from key and signature, and key from proof and signature: both are this XOR.
pub(super) fn xor(left: &Key, right: &Key) -> Key {
    let mut out = *left;
    for (byte, other) in out.iter_mut().zip(right) {
        *byte ^= other;
    }
    out
}

/// The text that both sides sign (RFC 5802 section 3, AuthMessage).
pub(super) fn auth_message(client_first_bare: &str, server_first: &str, without_proof: &str) -> String {
    [client_first_bare, server_first, without_proof].join(",")
}
