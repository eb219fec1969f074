//! Finds where a client's batch ends, without looking into the messages.
//! Must never consume anything: a batch is taken by whoever forwards it.

use crate::wire::frame::{BadLength, Header};
use crate::wire::tag::client as tag;

/// What stands at the front of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Nothing that could be acted on yet.
    Incomplete,
    /// `len` bytes that end where the server will answer.
    Whole {
        /// Bytes up to and with the last message.
        len: usize,
        /// How it ends.
        end: End,
    },
    /// Too long to be looked at as a whole; it must be passed on as it comes.
    Oversize,
    /// A message that only means something to a server which is copying (CopyData, CopyDone,
    /// CopyFail) and stands outside any batch; `len` bytes of it are here, `total` in all.
    Stray {
        /// Bytes of the whole message.
        total: usize,
    },
    /// Terminate.
    Terminate,
    /// A message type that no client may send now.
    Unknown(u8),
}

/// How a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// One Query.
    Query,
    /// One FunctionCall.
    Call,
    /// Sync: the server answers with ReadyForQuery.
    Sync,
    /// Flush: more of the same implicit transaction may follow.
    Flush,
}

/// Looks at `bytes` from the start of a message; a batch longer than `limit` is
/// [`Batch::Oversize`]. `max_message` bounds single messages.
///
/// # Errors
/// [`BadLength`] of a message that no limit allows.
pub fn batch(bytes: &[u8], limit: usize, max_message: usize) -> Result<Batch, BadLength> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && let Some(header) = Header::peek(rest, max_message)?
    {
        let end = match header.tag {
            tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE => None,
            tag::SYNC => Some(End::Sync),
            tag::FLUSH => Some(End::Flush),
            // A Query behind a Parse without Sync belongs to what was begun: the batch ends
            // with it all the same.
            tag::QUERY => Some(End::Query),
            tag::FUNCTION_CALL => Some(End::Call),
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL if at == 0 => {
                return Ok(Batch::Stray { total: header.total });
            }
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => None,
            tag::TERMINATE => return Ok(Batch::Terminate),
            other => return Ok(Batch::Unknown(other)),
        };
        at += header.total;
        if at > limit {
            return Ok(Batch::Oversize);
        }
        if at > bytes.len() {
            break;
        }
        if let Some(end) = end {
            return Ok(Batch::Whole { len: at, end });
        }
    }
    Ok(Batch::Incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build;

    fn find(bytes: &[u8]) -> Batch {
        batch(bytes, 1000, 1 << 20).unwrap()
    }

    #[test]
    fn finds_the_end_of_a_batch() {
        let mut bytes = Vec::new();
        build::parse(&mut bytes, b"s", b"select 1\0\0\0");
        assert_eq!(find(&bytes), Batch::Incomplete);
        build::sync(&mut bytes);
        let len = bytes.len();
        assert_eq!(find(&bytes), Batch::Whole { len, end: End::Sync });
        build::query(&mut bytes, b"select 2");
        assert_eq!(find(&bytes), Batch::Whole { len, end: End::Sync });
        for cut in 0..len {
            assert_eq!(find(&bytes[..cut]), Batch::Incomplete, "cut at {cut}");
        }
    }

    #[test]
    fn knows_what_is_too_long_before_it_is_here() {
        assert_eq!(find(b"Q\0\0\x10\0"), Batch::Oversize);
        assert!(batch(b"Q\xff\xff\xff\xff", 1000, 1 << 20).is_err());
        assert!(batch(b"Q\0\0\0\0", 1000, 1 << 20).is_err());
    }

    #[test]
    fn names_what_does_not_belong() {
        assert_eq!(find(b"X\0\0\0\x04"), Batch::Terminate);
        assert_eq!(find(b"z\0\0\0\x04"), Batch::Unknown(b'z'));
        assert_eq!(find(b"c\0\0\0\x04"), Batch::Stray { total: 5 });
    }
}
