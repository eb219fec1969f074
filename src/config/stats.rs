//! `[stats]`: where metrics, the HTTP API and the dashboard are served, and to whom.
//! Must never let the port be reached from another machine by whoever has no token, nor have tokens cross a network in the clear unless
//! that was asked for by name.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::leaf::{FilePath, HttpAddress, Number, RawSecret, Wait, Word};
use super::reader::{Field, Leaf, Named, Reader, Span, join, section};
use super::words::words;
use crate::base::secret::Secret;

/// Fewest bytes of [`Token::secret`].
const TOKEN_MIN: usize = 16;

words! {
    /// What a token is good for.
    pub enum Access {
        /// To look: GET and HEAD.
        Read = "read",
        /// To have things done, too.
        Write = "write",
    }
    refused {}
}

words! {
    /// Whether statements are measured one by one.
    pub enum Measure {
        /// They are: times by shape, and what is told of slow ones.
        On = "on",
        /// They are not. What PgBouncer counts of a pool is counted all the same.
        Off = "off",
    }
    refused {}
}

section! {
    /// `[stats]`
    RawStats {
        address: HttpAddress,
        max_shapes: Number<1, 1_000_000>,
        max_series: Number<100, 100_000_000>,
        n_plus_one: Number<0, 1_000_000>,
        unused_index_after: Wait,
        tls_cert_file: FilePath,
        tls_key_file: FilePath,
        allow_cleartext_tokens: bool,
        tokens: Named<RawToken>,
    }
}

section! {
    /// `[stats.tokens.NAME]`
    RawToken {
        role: Word<Access>,
        secret: RawSecret,
    }
}

/// `[stats.tokens.NAME]`: what a program or a person shows to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is good for. Default [`Access::Read`].
    pub role: Access,
    /// What follows `Authorization: Bearer`: at least 16 printable ASCII characters without spaces.
    pub secret: Secret,
}

/// `[stats]`: metrics, health, the HTTP API and the dashboard.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Where they are served. Default 127.0.0.1:9127; `"off"` is `None`. Beyond loopback only with tokens, and with TLS or
    /// [`Stats::allow_cleartext_tokens`].
    pub address: Option<SocketAddr>,
    /// Query shapes with figures of their own; the rest shares one, `other`. Default 2000.
    pub max_shapes: u32,
    /// Series of shapes in one answer of `/metrics`; what takes the least time in all is left out. Default 500,000.
    pub max_series: u32,
    /// Fewest rows behind which a statement that is run for each of them is called an N+1 pattern. Default 0: nobody looks, as to look costs every statement.
    pub n_plus_one: u32,
    /// For how long nothing was looked up in an index that is called unused. Default a day; zero: at once.
    pub unused_index_after: Duration,
    /// Who is let in, by a name that only stands in the file. Default: none, then everybody is who reaches the address.
    pub tokens: BTreeMap<String, Token>,
    /// Certificate chain, PEM; with it the port speaks TLS only.
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key, PEM. Set exactly when the certificate is.
    pub tls_key_file: Option<PathBuf>,
    /// Beyond loopback tokens may be sent without TLS, as something in front speaks it, or nobody can listen. Default false.
    pub allow_cleartext_tokens: bool,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9127))),
            max_shapes: 2000,
            max_series: 500_000,
            n_plus_one: 0,
            unused_index_after: Duration::from_secs(86_400),
            tokens: BTreeMap::new(),
            tls_cert_file: None,
            tls_key_file: None,
            allow_cleartext_tokens: false,
        }
    }
}

impl Check<'_> {
    pub(super) fn stats(&mut self, raw: RawStats) -> Stats {
        let default = Stats::default();
        self.pair("tls_cert_file", &raw.tls_cert_file, "tls_key_file", &raw.tls_key_file);
        self.tls_files("", &raw.tls_cert_file, &raw.tls_key_file, &Field::Absent);
        let allow_cleartext_tokens = raw.allow_cleartext_tokens.set().unwrap_or(default.allow_cleartext_tokens);
        let no_tokens = match &raw.tokens {
            Field::Absent => true,
            Field::Set(named, _) => named.0.is_empty(),
            Field::Bad => false,
        };
        if let Field::Set(address, span) = &raw.address
            && let Some(address) = address.0
            && !address.ip().is_loopback()
        {
            let in_clear = raw.tls_cert_file.is_absent() && !allow_cleartext_tokens;
            self.beyond_loopback(address, span.clone(), no_tokens, in_clear);
        }
        Stats {
            address: raw.address.set().map_or(default.address, |address| address.0),
            max_shapes: raw.max_shapes.set().map_or(default.max_shapes, |n| n.0),
            max_series: raw.max_series.set().map_or(default.max_series, |n| n.0),
            n_plus_one: raw.n_plus_one.set().map_or(default.n_plus_one, |n| n.0),
            unused_index_after: raw.unused_index_after.set().map_or(default.unused_index_after, |wait| wait.0),
            tokens: self.tokens(raw.tokens),
            tls_cert_file: self.file(raw.tls_cert_file),
            tls_key_file: self.file(raw.tls_key_file),
            allow_cleartext_tokens,
        }
    }

    fn beyond_loopback(&mut self, address: SocketAddr, span: Span, no_tokens: bool, in_clear: bool) {
        if no_tokens {
            let title = format!("anybody who reaches {address} could read everything there: there is no token");
            let expected = r#"a section [stats.tokens.NAME] with role and secret, or address = "127.0.0.1:9127""#;
            self.reader.note(span, title, |problem| problem.expected(expected));
        } else if in_clear {
            let title = format!("tokens for {address} would cross the network in the clear");
            let expected = "`tls_cert_file` and `tls_key_file` in [stats], or `allow_cleartext_tokens = true` where TLS ends in front of it";
            self.reader.note(span, title, |problem| problem.expected(expected));
        }
    }

    fn tokens(&mut self, raw: Field<Named<RawToken>>) -> BTreeMap<String, Token> {
        let mut tokens: BTreeMap<String, Token> = BTreeMap::new();
        for (name, span, raw) in raw.set().unwrap_or_default().0 {
            let Some(raw) = raw else { continue };
            let expected =
                format!("at least {TOKEN_MIN} random characters without spaces, such as of openssl rand -base64 32");
            if raw.secret.is_absent() {
                let title = format!("token `{name}` has no secret");
                self.reader.note(span.clone(), title, |problem| problem.expected(format!("secret = {expected}")));
            }
            let at = raw.secret.span().unwrap_or(span);
            let (Some(role), Some(secret)) = (raw.role.word(Access::Read), self.secret(raw.secret)) else { continue };
            let text = secret.expose();
            if text.len() < TOKEN_MIN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                let title = format!("the secret of token `{name}` could be guessed, or does not fit into a header");
                self.reader.note(at.clone(), title, |problem| problem.expected(expected));
            }
            if let Some((other, _)) = tokens.iter().find(|(_, token)| token.secret == secret) {
                let title = format!("tokens `{other}` and `{name}` have the same secret");
                self.reader.note(at, title, |problem| problem.expected("a secret of its own for each"));
            }
            tokens.insert(name, Token { role, secret });
        }
        tokens
    }
}
