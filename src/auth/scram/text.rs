//! The attribute syntax of SCRAM messages (RFC 5802 section 7): `a=value,b=value`.
//! Must never accept more than the bound it is given, nor a byte that is not UTF-8.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ScramError;
use crate::auth::Key;

/// The message as text, if it is UTF-8, holds no NUL and is 1 to `limit_bytes` long.
pub(super) fn text(message: &[u8], limit_bytes: usize) -> Result<&str, ScramError> {
    if message.is_empty() {
        return Err(ScramError::Malformed("empty message"));
    }
    if message.len() > limit_bytes {
        return Err(ScramError::Malformed("message too long"));
    }
    if message.contains(&0) {
        return Err(ScramError::Malformed("NUL byte"));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

/// Reads attributes from left to right.
pub(super) struct Attributes<'a>(Option<&'a str>);

impl<'a> Attributes<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(Some(text))
    }

    /// The next attribute as name and value, `None` behind the last one.
    fn next(&mut self) -> Result<Option<(u8, &'a str)>, ScramError> {
        let Some(rest) = self.0 else { return Ok(None) };
        let (piece, rest) = match rest.split_once(',') {
            Some((piece, rest)) => (piece, Some(rest)),
            None => (rest, None),
        };
        self.0 = rest;
        let Some((name, value)) = piece.split_once('=') else {
            return Err(ScramError::Malformed("attribute without value"));
        };
        match name.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Ok(Some((*letter, value))),
            _ => Err(ScramError::Malformed("invalid attribute name")),
        }
    }

    /// The value of the next attribute, which must be the one named; `missing` describes its absence.
    pub(super) fn expect(&mut self, name: u8, missing: &'static str) -> Result<&'a str, ScramError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            Some((b'm', _)) => Err(ScramError::Malformed("unsupported mandatory extension")),
            Some(_) | None => Err(ScramError::Malformed(missing)),
        }
    }

    /// Steps over optional extensions, which RFC 5802 says to ignore; `m` is mandatory and a second `p` a forgery.
    pub(super) fn skip_extensions(&mut self) -> Result<(), ScramError> {
        while let Some((name, _)) = self.next()? {
            if matches!(name, b'm' | b'p') {
                return Err(ScramError::Malformed("unsupported extension"));
            }
        }
        Ok(())
    }
}

/// Whether a nonce is 1 to `limit_bytes` printable characters (RFC 5802 `printable`; the comma cannot occur here).
pub(super) fn is_nonce(nonce: &str, limit_bytes: usize) -> bool {
    (1..=limit_bytes).contains(&nonce.len()) && nonce.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b',')
}

/// Decodes strict base64 of at most `limit_bytes` decoded bytes.
pub(super) fn decode(base64: &str, limit_bytes: usize) -> Option<Vec<u8>> {
    if base64.len() > limit_bytes.div_ceil(3) * 4 {
        return None;
    }
    let bytes = STANDARD.decode(base64).ok()?;
    (bytes.len() <= limit_bytes).then_some(bytes)
}

/// Decodes a key, proof or signature: exactly 32 bytes.
pub(super) fn decode_key(base64: &str) -> Option<Key> {
    let bytes = zeroize::Zeroizing::new(decode(base64, crate::auth::KEY_LEN)?);
    bytes.as_slice().try_into().ok()
}

/// A positive decimal number without sign or leading blanks.
pub(super) fn decode_iterations(digits: &str, limit: u32) -> Option<std::num::NonZeroU32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let iterations: std::num::NonZeroU32 = digits.parse().ok()?;
    (iterations.get() <= limit).then_some(iterations)
}

/// Standard base64 with padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
