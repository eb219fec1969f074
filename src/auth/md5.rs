//! PostgreSQL's md5 password method, both roles.
//! Must never be offered where SCRAM is possible and asked for; it exists for old clients and servers.

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What stored hashes and responses begin with.
const PREFIX: &str = "md5";

/// Length of a stored hash and of a response: the prefix and 32 hexadecimal digits (PostgreSQL `MD5_PASSWD_LEN`).
pub const HASH_LEN: usize = 35;

/// `md5` and the hexadecimal digest of the parts one after another.
fn hash_of(parts: &[&[u8]]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digest = Md5::new();
    for part in parts {
        digest.update(part);
    }
    let mut text = Zeroizing::new(String::with_capacity(HASH_LEN));
    text.push_str(PREFIX);
    for byte in digest.finalize() {
        for nibble in [byte >> 4, byte & 15] {
            text.push(DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from));
        }
    }
    text
}

/// Whether a text is a stored md5 hash (PostgreSQL `get_password_type`: lower-case digits only).
pub fn is_hash(stored: &str) -> bool {
    stored.len() == HASH_LEN
        && stored.strip_prefix(PREFIX).is_some_and(|hex| hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')))
}

/// The hash that a server stores for a password: `md5` and md5(password, user).
pub fn hash(user: &str, password: &[u8]) -> Zeroizing<String> {
    hash_of(&[password, user.as_bytes()])
}

/// The answer to AuthenticationMD5Password of one who knows the password; a PasswordMessage body without its NUL.
pub fn response(user: &str, password: &[u8], salt: [u8; 4]) -> Zeroizing<String> {
    salted(&hash(user, password), salt)
}

/// The answer of one who knows the stored hash only; `None` if `stored` is not one.
pub fn response_from_hash(stored: &str, salt: [u8; 4]) -> Option<Zeroizing<String>> {
    is_hash(stored).then(|| salted(stored, salt))
}

/// Whether `given` answers `salt` rightly for the stored hash; in constant time. Never if `stored` is no hash.
pub fn check(stored: &str, salt: [u8; 4], given: &[u8]) -> bool {
    response_from_hash(stored, salt).is_some_and(|expected| expected.as_bytes().ct_eq(given).into())
}

/// Whether a stored hash is that of this user's password; in constant time.
pub fn is_of(stored: &str, user: &str, password: &[u8]) -> bool {
    is_hash(stored) && bool::from(hash(user, password).as_bytes().ct_eq(stored.as_bytes()))
}

fn salted(hash: &str, salt: [u8; 4]) -> Zeroizing<String> {
    let hex = hash.strip_prefix(PREFIX).unwrap_or(hash);
    hash_of(&[hex.as_bytes(), &salt])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // From PostgreSQL 15: set password_encryption = 'md5'; create role "Alice" password 'secret'.
    const STORED: &str = "md54f5dcaa3eecb19137a9a1d22c8c83f9e";

    #[test]
    fn hash_is_that_of_postgresql() {
        assert_eq!(hash("Alice", b"secret").as_str(), STORED);
        // printf penciluser | md5sum
        assert_eq!(hash("user", b"pencil").as_str(), "md520c46e3762c864548e296b33c3406aa9");
    }

    #[test]
    fn password_and_hash_give_the_same_response() {
        let salt = [1, 2, 0xff, 0];
        let stored = hash("alice", b"secret");
        let given = response("alice", b"secret", salt);
        assert_eq!(response_from_hash(&stored, salt).unwrap(), given);
        assert!(check(&stored, salt, given.as_bytes()));
        assert!(!check(&stored, [1, 2, 0xff, 1], given.as_bytes()), "bound to the salt");
        assert!(!check(&hash("bob", b"secret"), salt, given.as_bytes()), "bound to the user");
        assert!(!check(&stored, salt, given.as_bytes().get(..34).unwrap()));
        assert!(!check(&stored, salt, b""));
        assert!(!check(&stored, salt, stored.as_bytes()), "the stored hash itself is no answer");
    }

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_hash() {
        assert!(is_hash(STORED));
        assert!(!is_hash(&STORED.to_uppercase()));
        assert!(!is_hash("md54F5DCAA3EECB19137A9A1D22C8C83F9E"));
        assert!(!is_hash("md5"));
        assert!(!is_hash(&format!("{STORED}0")));
        assert!(!is_hash("md5é5dcaa3eecb19137a9a1d22c8c83f9e"));
        assert!(!check("plain", [0; 4], response("u", b"plain", [0; 4]).as_bytes()));
    }
}
