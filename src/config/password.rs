//! A password in one of the three forms PostgreSQL stores.
//! Must never take a broken verifier for a plaintext password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::secret::Secret;

/// A password as configured for a user or a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// The password itself: serves every method on both sides.
    Plain(Secret),
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, well-formed: proves clients by
    /// SCRAM but cannot log in to a server that asks for a password.
    Scram(Secret),
    /// `md5` and 32 hexadecimal digits: MD5 on both sides, no SCRAM.
    Md5(Secret),
}

/// A text that begins as a SCRAM verifier and does not go on as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey as PostgreSQL stores it in pg_authid")]
pub struct BrokenVerifier;

const SCRAM: &str = "SCRAM-SHA-256$";
/// Bytes of StoredKey and ServerKey (`SCRAM_SHA_256_KEY_LEN`, PostgreSQL `src/include/common/scram-common.h`).
const KEY_LENGTH: usize = 32;

impl Password {
    /// Tells the form by its look, as PostgreSQL's `get_password_type` (`src/backend/libpq/crypt.c`)
    /// does, except that a broken SCRAM verifier is an error and not a plaintext.
    ///
    /// # Errors
    /// When the text begins with `SCRAM-SHA-256$` and is no verifier.
    pub fn classify(secret: Secret) -> Result<Self, BrokenVerifier> {
        let text = secret.expose();
        if let Some(rest) = text.strip_prefix(SCRAM) {
            return if is_verifier(rest) { Ok(Self::Scram(secret)) } else { Err(BrokenVerifier) };
        }
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        match text.strip_prefix("md5") {
            Some(hash) if hash.len() == 32 && hash.bytes().all(lower_hex) => Ok(Self::Md5(secret)),
            _ => Ok(Self::Plain(secret)),
        }
    }

    /// The text, whatever its form.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        match self {
            Self::Plain(secret) | Self::Scram(secret) | Self::Md5(secret) => secret,
        }
    }
}

/// What follows the scheme: `iterations:salt$StoredKey:ServerKey`, the last three in base64
/// (PostgreSQL `parse_scram_secret`, `src/backend/libpq/auth-scram.c`).
fn is_verifier(rest: &str) -> bool {
    let key = |text: &str| STANDARD.decode(text).is_ok_and(|key| key.len() == KEY_LENGTH);
    let Some((head, keys)) = rest.split_once('$') else {
        return false;
    };
    let (Some((iterations, salt)), Some((stored, server))) = (head.split_once(':'), keys.split_once(':')) else {
        return false;
    };
    let salted = STANDARD.decode(salt).is_ok_and(|salt| !salt.is_empty());
    iterations.parse().is_ok_and(|n: i32| n > 0) && salted && key(stored) && key(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn classify(text: &str) -> Result<Password, BrokenVerifier> {
        Password::classify(Secret::new(text.to_owned()))
    }

    #[test]
    fn forms() {
        let verifier = format!("SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}");
        assert!(matches!(classify(&verifier), Ok(Password::Scram(_))));
        assert!(matches!(classify("md5d8578edf8458ce06fbc5bb76a58c5ca4"), Ok(Password::Md5(_))));
        for plain in ["hunter2", "md5", "md5 is old", "md5D8578EDF8458CE06FBC5BB76A58C5CA4", "SCRAM"] {
            assert!(matches!(classify(plain), Ok(Password::Plain(_))), "{plain}");
        }
    }

    #[test]
    fn broken_verifiers() {
        for rest in [
            String::new(),
            "4096:c2FsdA==".to_owned(),
            format!("0:c2FsdA==${KEY}:{KEY}"),
            format!("x:c2FsdA==${KEY}:{KEY}"),
            format!("4096:${KEY}:{KEY}"),
            format!("4096:c2FsdA==$AAEC:{KEY}"),
            format!("4096:c2FsdA==${KEY}"),
        ] {
            assert_eq!(classify(&format!("SCRAM-SHA-256${rest}")), Err(BrokenVerifier), "{rest}");
        }
    }
}
