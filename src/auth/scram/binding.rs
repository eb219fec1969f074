//! Channel binding of SCRAM: the GS2 header, and what `c=` must say (RFC 5802 sections 6 and 7, RFC 5929).
//! Must never let a client or a man between go without a binding that both ends could have had.

use super::ScramError;
use super::text::encode;

/// The only type of binding spoken, as in PostgreSQL: a hash of the server's certificate (RFC 5929 section 4).
const TYPE: &str = "tls-server-end-point";

/// What the client role says about channel binding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Binding {
    /// It can do none: no TLS, or switched off.
    #[default]
    None,
    /// It could, and the server offers none. A server that did is warned by this of a man who removed the offer.
    NotOffered,
    /// Bound to the certificate of which this is the hash.
    EndPoint(Vec<u8>),
}

impl Binding {
    /// Whether the mechanism is [`super::MECHANISM_PLUS`].
    pub fn is_plus(&self) -> bool {
        matches!(self, Self::EndPoint(_))
    }

    /// The header of the client-first-message.
    pub(super) fn header(&self) -> &'static str {
        match self {
            Self::None => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    /// The value of `c=`.
    pub(super) fn attribute(&self) -> String {
        let data: &[u8] = if let Self::EndPoint(hash) = self { hash } else { &[] };
        encode(&[self.header().as_bytes(), data].concat())
    }
}

/// Splits the GS2 header from the rest of a client-first-message and judges it (PostgreSQL
/// `read_client_first_message`). `offered` is the hash of the own certificate if the mechanism with binding was
/// offered, `plus` whether the client chose it.
pub(super) fn accept<'a>(
    message: &'a str,
    offered: Option<&[u8]>,
    plus: bool,
) -> Result<(Binding, &'a str), ScramError> {
    let malformed = |what| Err(ScramError::Malformed(what));
    let Some((flag, rest)) = message.split_once(',') else { return malformed("no channel binding flag") };
    let binding = match (flag, plus) {
        ("n" | "y", true) => return malformed("SCRAM-SHA-256-PLUS without channel binding data"),
        ("n", false) => Binding::None,
        ("y", false) if offered.is_some() => return Err(ScramError::Downgrade),
        ("y", false) => Binding::NotOffered,
        (flag, plus) => match (flag.strip_prefix("p="), plus, offered) {
            (None, ..) => return malformed("invalid channel binding flag"),
            (Some(_), false, _) => return malformed("channel binding data without SCRAM-SHA-256-PLUS"),
            (Some(TYPE), true, Some(hash)) => Binding::EndPoint(hash.to_vec()),
            (Some(_), true, _) => return malformed("unsupported channel binding type"),
        },
    };
    match rest.split_once(',') {
        Some(("", bare)) => Ok((binding, bare)),
        Some((identity, _)) if identity.starts_with("a=") => malformed("authorization identity is not supported"),
        Some(_) | None => malformed("invalid GS2 header"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: &[u8] = &[7; 32];

    #[test]
    fn headers_are_those_of_the_rfc() {
        assert_eq!(Binding::None.attribute(), "biws");
        assert_eq!(Binding::NotOffered.attribute(), "eSws");
        let bound = Binding::EndPoint(HASH.to_vec());
        assert_eq!(bound.attribute(), encode(&[b"p=tls-server-end-point,,", HASH].concat()));
    }

    #[test]
    fn every_flag_with_every_offer() {
        let ok = |message, offered, plus| accept(message, offered, plus).map(|(binding, _)| binding);
        assert_eq!(ok("n,,x", None, false), Ok(Binding::None));
        assert_eq!(ok("n,,x", Some(HASH), false), Ok(Binding::None), "an old client");
        assert_eq!(ok("y,,x", None, false), Ok(Binding::NotOffered));
        assert_eq!(ok("y,,x", Some(HASH), false), Err(ScramError::Downgrade));
        assert_eq!(ok("p=tls-server-end-point,,x", Some(HASH), true), Ok(Binding::EndPoint(HASH.to_vec())));
        for (message, offered, plus) in [
            ("p=tls-server-end-point,,x", Some(HASH), false),
            ("p=tls-server-end-point,,x", None, true),
            ("p=tls-server-end-point,,x", None, false),
            ("p=tls-unique,,x", Some(HASH), true),
            ("p=,,x", Some(HASH), true),
            ("n,,x", Some(HASH), true),
            ("y,,x", Some(HASH), true),
            ("n", None, false),
            ("n,", None, false),
            ("n,a=b,x", None, false),
            ("n,b,x", None, false),
            ("x,,x", None, false),
            ("", None, false),
        ] {
            assert!(matches!(ok(message, offered, plus), Err(ScramError::Malformed(_))), "{message}");
        }
        assert_eq!(accept("n,,n=a,r=b", None, false).unwrap().1, "n=a,r=b");
    }
}
