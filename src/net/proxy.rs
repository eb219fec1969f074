//! The PROXY protocol's header, versions 1 and 2, as a pure parser.
//! Must never believe a length beyond its bound, nor look at a byte behind the header.
//!
//! Source: "The PROXY protocol, versions 1 & 2" (HAProxy, doc/proxy-protocol.txt), sections 2.1
//! and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Longest header of version 1, its line end included (section 2.1).
const V1_MAX: usize = 107;
/// Longest header of version 2 taken here. The format allows 65,551 bytes, but what load balancers
/// put behind the addresses (TLVs: names of TLS and of cloud endpoints) is some hundred.
pub const V2_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part of version 2: signature, version and command, family, length.
const V2_HEAD: usize = 16;

/// What stands at the front of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a header: all bytes so far belong to it.
    Incomplete,
    /// A whole header.
    Complete {
        /// Its bytes.
        length: usize,
        /// Where the client is; `None` when the proxy speaks for itself (LOCAL) or does not know
        /// (UNKNOWN, another family): then the connection's own address counts.
        source: Option<SocketAddr>,
    },
}

/// No header, or a wrong one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid PROXY header: {0}")]
pub struct Malformed(&'static str);

/// Reads the header at the front of `bytes`.
///
/// # Errors
/// [`Malformed`]; more bytes cannot make it valid.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |start: &[u8]| bytes.iter().zip(start).all(|(a, b)| a == b);
    if begins(V1_START) && bytes.first() == V1_START.first() {
        return v1(bytes);
    }
    if begins(V2_START) {
        return v2(bytes);
    }
    Err(Malformed("neither version's first bytes"))
}

fn v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let head = bytes.get(..bytes.len().min(V1_MAX)).unwrap_or_default();
    let Some(end) = head.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_MAX { Ok(Parsed::Incomplete) } else { Err(Malformed("no line end in 107 bytes")) };
    };
    let line = head.get(V1_START.len()..end).ok_or(Malformed("cut short"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("not ASCII"))?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let length = end + 2;
    if family == "UNKNOWN" {
        // "The receiver must ignore anything presented before the CRLF."
        return Ok(Parsed::Complete { length, source: None });
    }
    let mut word = || words.next().ok_or(Malformed("too few fields"));
    let (source, target, source_port, target_port) = (word()?, word()?, word()?, word()?);
    if words.next().is_some() {
        return Err(Malformed("too many fields"));
    }
    let source = match family {
        "TCP4" => both::<Ipv4Addr>(source, target).map(IpAddr::V4),
        "TCP6" => both::<Ipv6Addr>(source, target).map(IpAddr::V6),
        _ => return Err(Malformed("neither TCP4, TCP6 nor UNKNOWN")),
    }?;
    port(target_port)?;
    Ok(Parsed::Complete { length, source: Some(SocketAddr::new(source, port(source_port)?)) })
}

fn both<A: FromStr>(source: &str, target: &str) -> Result<A, Malformed> {
    let bad = Malformed("an address that is none of its family");
    target.parse::<A>().map_err(|_| bad)?;
    source.parse().map_err(|_| bad)
}

/// Decimal, without sign or leading zeros.
fn port(text: &str) -> Result<u16, Malformed> {
    let port = text.parse::<u16>().map_err(|_| Malformed("a port that is none"))?;
    if port.to_string() == text { Ok(port) } else { Err(Malformed("a port with a sign or leading zeros")) }
}

fn v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    // Each byte is judged as soon as it is there: a stranger is not waited for.
    if bytes.get(12).is_some_and(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(Malformed("neither LOCAL nor PROXY of version 2"));
    }
    if bytes.get(13).is_some_and(|byte| !matches!(byte, 0x00 | 0x11 | 0x21 | 0x31)) {
        return Err(Malformed("a family that no stream has"));
    }
    let Some([command, family, high, low]) = bytes.get(12..V2_HEAD).and_then(|head| <[u8; 4]>::try_from(head).ok())
    else {
        return Ok(Parsed::Incomplete);
    };
    let length = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_MAX {
        return Err(Malformed("longer than 4096 bytes"));
    }
    let addresses: usize = match (command, family) {
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x31) => 216,
        _ => 0,
    };
    if length < V2_HEAD + addresses {
        return Err(Malformed("too short for its addresses"));
    }
    let Some(body) = bytes.get(V2_HEAD..length) else { return Ok(Parsed::Incomplete) };
    let source = match addresses {
        12 => address::<4>(body, 8).map(|(ip, port)| SocketAddr::new(Ipv4Addr::from(ip).into(), port)),
        36 => address::<16>(body, 32).map(|(ip, port)| SocketAddr::new(Ipv6Addr::from(ip).into(), port)),
        _ => None,
    };
    Ok(Parsed::Complete { length, source })
}

/// The source address at the front of `body` and the source port at `port_at`.
fn address<const N: usize>(body: &[u8], port_at: usize) -> Option<([u8; N], u16)> {
    let ip = body.first_chunk::<N>()?;
    let port = body.get(port_at..)?.first_chunk::<2>()?;
    Some((*ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
