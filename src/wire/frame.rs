//! Message headers and the few fields the proxy reads, on borrowed bytes.
//! Must never trust a length: every accessor is bounded by the slice it was given.

/// Type byte and length of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type byte.
    pub tag: u8,
    /// Bytes of the whole message, type byte included; at least 5.
    pub total: usize,
}

/// Bytes of a header.
pub const HEADER: usize = 5;

/// A length below 4 or above the bound given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid message length {length} for message type 0x{tag:02x}{}", self.bound())]
pub struct BadLength {
    /// Type byte.
    pub tag: u8,
    /// The length as it stood on the wire.
    pub length: u32,
    /// The bound for it.
    pub most: usize,
}

impl BadLength {
    /// What to change when the message is merely long.
    fn bound(&self) -> String {
        if self.length < 4 { String::new() } else { format!("; max_packet_size allows {}", self.most) }
    }
}

impl Header {
    /// Reads the header at the front of `bytes`; `None` while fewer than five bytes are there.
    ///
    /// # Errors
    /// [`BadLength`] when the message would be shorter than its own length field or longer than
    /// `limit` bytes; nothing has been allocated for it.
    #[inline]
    pub fn peek(bytes: &[u8], limit: usize) -> Result<Option<Self>, BadLength> {
        let [tag, a, b, c, d, ..] = *bytes else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        let total = length as usize + 1;
        if length < 4 || total > limit {
            return Err(BadLength { tag, length, most: limit.saturating_sub(1) });
        }
        Ok(Some(Self { tag, total }))
    }
}

/// The zero-terminated string at the front of `bytes` and what follows it.
#[inline]
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Reads a big-endian 32-bit integer at the front of `bytes`.
#[inline]
pub fn be_u32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk::<4>()?))
}

/// Rows that a CommandComplete tag counts: the last word of `INSERT 0 5`, `SELECT 3`, `COPY 7`;
/// 0 where there is none.
pub fn rows_of_tag(tag: &[u8]) -> u64 {
    let mut rows = 0u64;
    let mut scale = 1u64;
    for &byte in tag.iter().rev() {
        match byte {
            b'0'..=b'9' => {
                rows = rows.saturating_add(u64::from(byte - b'0').saturating_mul(scale));
                scale = scale.saturating_mul(10);
            }
            b' ' => return rows,
            _ => return 0,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_lengths() {
        assert_eq!(Header::peek(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(Header::peek(b"Q\0\0\0\x04", 100), Ok(Some(Header { tag: b'Q', total: 5 })));
        assert!(Header::peek(b"Q\0\0\0\x03", 100).is_err());
        assert!(Header::peek(b"Q\xff\xff\xff\xff", usize::MAX / 2).is_ok());
        assert!(Header::peek(b"Q\0\0\x01\0", 100).is_err());
    }

    #[test]
    fn reads_row_counts() {
        assert_eq!(rows_of_tag(b"INSERT 0 50"), 50);
        assert_eq!(rows_of_tag(b"SELECT 7"), 7);
        assert_eq!(rows_of_tag(b"BEGIN"), 0);
        assert_eq!(rows_of_tag(b"CREATE TABLE"), 0);
        assert_eq!(rows_of_tag(b"12"), 0);
    }
}
