//! Bodies of the login messages: AuthenticationRequest of a server and PasswordMessage of a client, without framing.
//! Must never decide anything; it packs, unpacks and bounds.
//!
//! Layouts: PostgreSQL manual, "Message Formats"; codes: `src/include/libpq/protocol.h`.

use super::scram::{MECHANISM, MECHANISM_PLUS};

/// Code of AuthenticationOk.
const OK: i32 = 0;
/// Code of AuthenticationCleartextPassword.
const CLEARTEXT: i32 = 3;
/// Code of AuthenticationMD5Password.
const MD5: i32 = 5;
/// Code of AuthenticationSASL.
const SASL: i32 = 10;
/// Code of AuthenticationSASLContinue.
const SASL_CONTINUE: i32 = 11;
/// Code of AuthenticationSASLFinal.
const SASL_FINAL: i32 = 12;

/// Body of AuthenticationOk.
pub const AUTHENTICATION_OK: [u8; 4] = OK.to_be_bytes();

/// Body of AuthenticationCleartextPassword.
pub const CLEARTEXT_REQUEST: [u8; 4] = CLEARTEXT.to_be_bytes();

/// Body of AuthenticationMD5Password.
pub fn md5_request(salt: [u8; 4]) -> Vec<u8> {
    request(MD5, &salt)
}

/// Body of AuthenticationSASL that offers SCRAM-SHA-256, ahead of it the mechanism with channel binding if `plus`.
pub fn sasl_request(plus: bool) -> Vec<u8> {
    let bound = if plus { [MECHANISM_PLUS.as_bytes(), b"\0"].concat() } else { Vec::new() };
    request(SASL, &[&bound[..], MECHANISM.as_bytes(), b"\0\0"].concat())
}

/// Body of AuthenticationSASLContinue.
pub fn sasl_continue(data: &[u8]) -> Vec<u8> {
    request(SASL_CONTINUE, data)
}

/// Body of AuthenticationSASLFinal.
pub fn sasl_final(data: &[u8]) -> Vec<u8> {
    request(SASL_FINAL, data)
}

fn request(code: i32, payload: &[u8]) -> Vec<u8> {
    [code.to_be_bytes().as_slice(), payload].concat()
}

/// Whether the mechanism list of an AuthenticationSASL (the body behind its code) has this mechanism.
pub fn offers(mechanisms: &[u8], mechanism: &str) -> bool {
    mechanisms.split(|byte| *byte == 0).take_while(|name| !name.is_empty()).any(|name| name == mechanism.as_bytes())
}

/// Body of SASLInitialResponse with the client-first-message, for a login towards a server.
pub fn initial_response(mechanism: &str, client_first: &[u8]) -> Vec<u8> {
    let length = i32::try_from(client_first.len()).unwrap_or(i32::MAX);
    [mechanism.as_bytes(), b"\0", &length.to_be_bytes(), client_first].concat()
}

/// Splits a SASLInitialResponse into mechanism and data; the data is `None` if the client sent none (length -1).
/// `None` if the lengths do not add up.
pub(super) fn split_initial_response(body: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let (mechanism, rest) = body.split_at_checked(end)?;
    let (length, data) = rest.get(1..)?.split_first_chunk::<4>()?;
    let length = i32::from_be_bytes(*length);
    if length == -1 && data.is_empty() {
        return Some((mechanism, None));
    }
    (usize::try_from(length).ok()? == data.len()).then_some((mechanism, Some(data)))
}

/// The text of a PasswordMessage: everything up to its only NUL, which ends it (PostgreSQL `recv_password_packet`).
pub(super) fn password(body: &[u8]) -> Option<&[u8]> {
    let (last, password) = body.split_last()?;
    (*last == 0 && !password.contains(&0)).then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_bodies_have_the_documented_layout() {
        assert_eq!(md5_request([1, 2, 3, 4]), [0, 0, 0, 5, 1, 2, 3, 4]);
        assert_eq!(sasl_request(false), b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        assert_eq!(sasl_request(true), b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        assert_eq!(sasl_continue(b"x"), b"\0\0\0\x0bx");
        assert_eq!(sasl_final(b"x"), b"\0\0\0\x0cx");
    }

    #[test]
    fn mechanism_list_is_searched_up_to_its_end() {
        assert!(offers(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", MECHANISM));
        assert!(offers(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0", MECHANISM_PLUS));
        assert!(offers(b"SCRAM-SHA-256", MECHANISM));
        assert!(!offers(b"SCRAM-SHA-256-PLUS\0\0", MECHANISM));
        assert!(!offers(b"SCRAM-SHA-256\0\0", MECHANISM_PLUS));
        assert!(!offers(b"X\0\0SCRAM-SHA-256\0", MECHANISM));
        assert!(!offers(b"", MECHANISM));
    }

    #[test]
    fn initial_response_lengths_must_add_up() {
        let body = initial_response(MECHANISM, b"n,,n=,r=x");
        assert_eq!(split_initial_response(&body), Some((MECHANISM.as_bytes(), Some(&b"n,,n=,r=x"[..]))));
        assert_eq!(split_initial_response(b"M\0\xff\xff\xff\xff"), Some((&b"M"[..], None)));
        for bad in [
            &b""[..],
            b"M",
            b"M\0",
            b"M\0\0\0\0",
            b"M\0\0\0\0\x01",
            b"M\0\0\0\0\0x",
            b"M\0\xff\xff\xff\xffx",
            b"M\0\xff\xff\xff\xfe",
            b"M\0\x7f\xff\xff\xffx",
        ] {
            assert_eq!(split_initial_response(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn password_ends_with_its_only_nul() {
        assert_eq!(password(b"md5\0"), Some(&b"md5"[..]));
        assert_eq!(password(b"\0"), Some(&b""[..]));
        assert_eq!(password(b""), None);
        assert_eq!(password(b"md5"), None);
        assert_eq!(password(b"a\0b\0"), None);
    }
}
