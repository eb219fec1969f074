//! Messages of the console's protocol, by the crate `pgwire`.
//! Must never give that crate more than one whole message: it trusts the lengths that stand in there.

use bytes::{BufMut, BytesMut};
use pgwire::messages::{DecodeContext, Message, PgWireFrontendMessage, ProtocolVersion};

use crate::server::stream;
use crate::wire::error::{PgError, SqlState};
use crate::wire::frame::cstr;
use crate::wire::tag::client as tag;

/// Understands a message.
pub(super) fn decode(message: &stream::Message) -> Result<PgWireFrontendMessage, PgError> {
    let invalid = || {
        let what = format!("invalid message of type \"{}\"", message.tag.escape_ascii());
        PgError::fatal(SqlState::PROTOCOL_VIOLATION, what)
    };
    if !is_whole(message) {
        return Err(invalid());
    }
    let mut bytes = BytesMut::with_capacity(message.body.len() + 5);
    bytes.put_u8(message.tag);
    bytes.put_u32(message.body.len() as u32 + 4);
    bytes.put_slice(&message.body);
    let mut context = DecodeContext::new(ProtocolVersion::default());
    context.awaiting_frontend_ssl = false;
    context.awaiting_frontend_startup = false;
    PgWireFrontendMessage::decode(&mut bytes, &context).ok().flatten().ok_or_else(invalid)
}

/// Whether a message has exactly what one of its type has: the decoder panics at what is cut short, and reads over what is
/// too long.
fn is_whole(message: &stream::Message) -> bool {
    let mut body = Body(Some(&message.body));
    match message.tag {
        tag::QUERY | tag::COPY_FAIL => body.text(),
        tag::PARSE => {
            body.text();
            body.text();
            let types = body.count();
            body.skip(types * 4);
        }
        tag::BIND => {
            body.text();
            body.text();
            let formats = body.count();
            body.skip(formats * 2);
            for _ in 0..body.count() {
                body.value();
            }
            let formats = body.count();
            body.skip(formats * 2);
        }
        tag::DESCRIBE | tag::CLOSE => {
            body.skip(1);
            body.text();
        }
        tag::EXECUTE => {
            body.text();
            body.skip(4);
        }
        tag::SYNC | tag::FLUSH | tag::TERMINATE | tag::COPY_DONE => {}
        tag::COPY_DATA => return true,
        _ => return false,
    }
    body.0.is_some_and(<[u8]>::is_empty)
}

/// What is left of a body; `None` once it was too short.
struct Body<'a>(Option<&'a [u8]>);

impl Body<'_> {
    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.and_then(|rest| rest.get(bytes..));
    }

    fn text(&mut self) {
        self.0 = self.0.and_then(cstr).map(|(_, rest)| rest);
    }

    fn count(&mut self) -> usize {
        let count = self.0.and_then(|rest| rest.first_chunk::<2>()).map(|bytes| u16::from_be_bytes(*bytes));
        self.skip(2);
        count.unwrap_or(0).into()
    }

    fn value(&mut self) {
        let length = self.0.and_then(|rest| rest.first_chunk::<4>()).map(|bytes| i32::from_be_bytes(*bytes));
        self.skip(4);
        match length {
            // NULL
            Some(-1) => {}
            Some(length) => self.skip(usize::try_from(length).unwrap_or(usize::MAX)),
            None => self.0 = None,
        }
    }
}

/// Appends a message.
pub(super) fn put(out: &mut BytesMut, message: &impl Message) {
    // It fails for what is longer than a message can be.
    if let Err(error) = message.encode(out) {
        tracing::error!("an answer of the console is too long: {error}");
    }
}

/// Appends an error or notice.
pub(super) fn put_error(out: &mut BytesMut, error: &PgError) {
    let mut bytes = Vec::new();
    error.encode(&mut bytes);
    out.put_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> stream::Message {
        stream::Message { tag, body: body.to_vec() }
    }

    #[test]
    fn whole_messages_are_understood_and_others_are_not() {
        assert!(matches!(decode(&message(b'Q', b"SHOW POOLS\0")), Ok(PgWireFrontendMessage::Query(_))));
        assert!(matches!(decode(&message(b'P', b"\0SHOW POOLS\0\0\0")), Ok(PgWireFrontendMessage::Parse(_))));
        assert!(matches!(decode(&message(b'S', b"")), Ok(PgWireFrontendMessage::Sync(_))));
        // Cut short, too long, of no known type.
        for (tag, body) in [
            (b'P', &b"\0SHOW POOLS\0"[..]),
            (b'P', b"\0SHOW POOLS\0\0\x05"),
            (b'B', b"\0\0\0\0\0\x01\0\0\0\x10ab"),
            (b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
            (b'B', b""),
            (b'E', b"\0\0"),
            (b'C', b""),
            (b'D', b""),
            (b'S', b"more"),
            (b'Q', b"SHOW POOLS\0more\0"),
            (b'?', b""),
        ] {
            let refused = decode(&message(tag, body));
            assert!(refused.is_err(), "{} {body:?}", char::from(tag));
        }
    }
}
