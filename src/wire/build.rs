//! Messages the proxy itself sends, appended to a byte vector.
//! Must never be used for what is merely passed on: that travels as it came.

use super::tag;

/// Appends one typed message whose body `fill` writes; the length is put in afterwards.
pub fn message(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    untagged(out, fill);
}

/// Appends a message without a type byte, as the first packet of a connection is.
pub fn untagged(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = (out.len() - start) as u32;
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends `text` and its terminator. A zero byte inside would end the string early for the
/// reader, so the rest is dropped here, where it is visible.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// Query.
pub fn query(out: &mut Vec<u8>, sql: &[u8]) {
    message(out, tag::client::QUERY, |out| cstr(out, sql));
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    message(out, tag::client::SYNC, |_| {});
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, tag::client::CLOSE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// Describe of a prepared statement.
pub fn describe_statement(out: &mut Vec<u8>, name: &[u8]) {
    message(out, tag::client::DESCRIBE, |out| {
        out.push(b'S');
        cstr(out, name);
    });
}

/// Parse; `tail` is what follows the name on the wire: text, terminator, parameter types.
pub fn parse(out: &mut Vec<u8>, name: &[u8], tail: &[u8]) {
    message(out, tag::client::PARSE, |out| {
        cstr(out, name);
        out.extend_from_slice(tail);
    });
}

/// Authentication request; `body` starts with the 32-bit code.
pub fn authentication(out: &mut Vec<u8>, body: &[u8]) {
    message(out, tag::server::AUTHENTICATION, |out| out.extend_from_slice(body));
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, &[0; 4]);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    message(out, tag::server::PARAMETER_STATUS, |out| {
        cstr(out, name);
        cstr(out, value);
    });
}

/// BackendKeyData: 4 bytes of key in protocol 3.0, up to 256 in 3.2.
pub fn backend_key(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    message(out, tag::server::BACKEND_KEY_DATA, |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// ReadyForQuery with transaction status `I`, `T` or `E`.
pub fn ready(out: &mut Vec<u8>, status: u8) {
    message(out, tag::server::READY, |out| out.push(status));
}

/// NegotiateProtocolVersion: the newest minor version spoken here and the options not known.
pub fn negotiate(out: &mut Vec<u8>, minor: u32, unknown: &[Vec<u8>]) {
    message(out, tag::server::NEGOTIATE, |out| {
        out.extend_from_slice(&(0x0003_0000 | minor).to_be_bytes());
        out.extend_from_slice(&(unknown.len() as u32).to_be_bytes());
        for option in unknown {
            cstr(out, option);
        }
    });
}

/// CancelRequest.
pub fn cancel(out: &mut Vec<u8>, pid: u32, key: &[u8]) {
    untagged(out, |out| {
        out.extend_from_slice(&super::startup::CANCEL.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(key);
    });
}

/// StartupMessage for protocol 3.0.
pub fn startup(out: &mut Vec<u8>, parameters: &[(&[u8], &[u8])]) {
    untagged(out, |out| {
        out.extend_from_slice(&0x0003_0000u32.to_be_bytes());
        for (name, value) in parameters {
            cstr(out, name);
            cstr(out, value);
        }
        out.push(0);
    });
}
