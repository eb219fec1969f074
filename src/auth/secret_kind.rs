//! Tells what a configured password text is: plaintext, md5 hash or SCRAM verifier.
//! Must never take a damaged verifier for a plaintext password: that would make the damaged text the password.

use super::md5;
use super::scram::{MECHANISM, Verifier};

/// The forms of a stored secret (PostgreSQL `get_password_type`, and PgBouncer's userlist).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretKind {
    /// Nothing: no login is possible with it.
    Empty,
    /// A plaintext password.
    Plain,
    /// `md5` and 32 lower-case hexadecimal digits.
    Md5,
    /// A SCRAM-SHA-256 verifier.
    Scram(Verifier),
    /// Begins like a verifier and is none; no login is possible with it. Configuration checks should report it.
    Damaged,
}

impl SecretKind {
    /// Classifies the text; never fails.
    pub fn of(stored: &str) -> Self {
        if stored.is_empty() {
            return Self::Empty;
        }
        if md5::is_hash(stored) {
            return Self::Md5;
        }
        if !stored.strip_prefix(MECHANISM).is_some_and(|rest| rest.starts_with('$')) {
            return Self::Plain;
        }
        Verifier::parse(stored).map_or(Self::Damaged, Self::Scram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::ITERATIONS;

    #[test]
    fn every_form_is_recognised() {
        assert_eq!(SecretKind::of(""), SecretKind::Empty);
        assert_eq!(SecretKind::of("secret"), SecretKind::Plain);
        assert_eq!(SecretKind::of("md5 is old"), SecretKind::Plain);
        assert_eq!(SecretKind::of("SCRAM-SHA-256"), SecretKind::Plain);
        assert_eq!(SecretKind::of(&md5::hash("u", b"p")), SecretKind::Md5);
        let verifier = crate::auth::Mocks::new([7; 32]).verifier("u");
        let text = verifier.format();
        assert_eq!(SecretKind::of(&text), SecretKind::Scram(verifier));
        for end in "SCRAM-SHA-256$".len()..text.len() {
            let cut = text.get(..end).unwrap_or_default();
            assert_eq!(SecretKind::of(cut), SecretKind::Damaged, "{cut}");
        }
        assert_eq!(SecretKind::of(&text.replace(&ITERATIONS.to_string(), "-1")), SecretKind::Damaged);
        assert_eq!(SecretKind::of(&text.replace(&ITERATIONS.to_string(), "0")), SecretKind::Damaged);
        assert_eq!(SecretKind::of(&text.replace(&ITERATIONS.to_string(), "+1")), SecretKind::Damaged);
    }
}
