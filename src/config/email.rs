//! `[alerts.emails.NAME]`: who gets alerts by e-mail, and through which server.
//! Must never send a password, nor what is alarming, over a network in the clear unless that was asked for by name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::Authority;
use lettre::message::Mailbox;
use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::leaf::{FilePath, RawSecret, Text, Timeout, Wait, Word};
use super::leaf_auth::Texts;
use super::reader::{Field, Leaf, Named, Reader, Span, join, section};
use super::words::words;
use crate::base::secret::Secret;

words! {
    /// How TLS is used towards a mail server. Where it is, the host is verified.
    pub enum SmtpTls {
        /// Begun by STARTTLS; a server that does not offer it gets no mail.
        StartTls = "starttls",
        /// From the first byte.
        Implicit = "tls",
        /// Not at all, to a server on this machine.
        Off = "off",
        /// Not at all, wherever the server is.
        Insecure = "insecure",
    }
    refused {}
}

impl SmtpTls {
    /// Ports of submission (RFC 6409), of the same over TLS (RFC 8314), and of mail transfer (RFC 5321).
    const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Implicit => 465,
            Self::Off | Self::Insecure => 25,
        }
    }
}

section! {
    /// `[alerts.emails.NAME]`
    RawEmail {
        smtp: Text,
        tls: Word<SmtpTls>,
        user: Text,
        password: RawSecret,
        from: Text,
        to: Texts,
        group_wait: Wait,
        ca_file: FilePath,
        timeout: Timeout,
    }
}

/// Somebody who is told of alerts by e-mail.
#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    /// The mail server: a name or address, without brackets.
    pub host: String,
    /// Its port. Default 587, 465 or 25, by [`Email::tls`].
    pub port: u16,
    /// Default [`SmtpTls::StartTls`].
    pub tls: SmtpTls,
    /// User and password there. Default: none.
    pub login: Option<(String, Secret)>,
    /// Who sends.
    pub from: Mailbox,
    /// Who gets it; at least one.
    pub to: Vec<Mailbox>,
    /// How long is waited for more to be told before a mail goes out. Default 10 s.
    pub group_wait: Duration,
    /// Certificates that may sign the server's, PEM. Default: those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take. Default 30 s; never 0.
    pub timeout: Duration,
}

impl Email {
    /// Default of [`Email::group_wait`].
    pub const GROUP_WAIT: Duration = Duration::from_secs(10);
    /// Default of [`Email::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(30);
}

/// Host and port, which is the one usual for `tls` where it is not given.
fn server(text: &str, tls: SmtpTls) -> Option<(String, u16)> {
    let authority: Authority = text.parse().ok()?;
    let host = authority.host();
    let port = match authority.port_u16() {
        Some(port) => port,
        None if host.len() == text.len() => tls.port(),
        None => return None,
    };
    (!text.contains('@') && !host.is_empty() && port != 0).then(|| (host.trim_matches(['[', ']']).to_owned(), port))
}

/// Whether this is certainly the machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl Check<'_> {
    pub(super) fn emails(&mut self, raw: Field<Named<RawEmail>>) -> BTreeMap<String, Email> {
        let mut emails = BTreeMap::new();
        for (name, span, raw) in raw.set().unwrap_or_default().0 {
            if let Some(email) = raw.and_then(|raw| self.email(&name, span, raw)) {
                emails.insert(name, email);
            }
        }
        emails
    }

    fn email(&mut self, name: &str, span: Span, raw: RawEmail) -> Option<Email> {
        let about = |key: &str| format!("alerts.emails.{name}.{key}");
        self.authorities_of(&about("ca_file"), &raw.ca_file);
        let needed = [
            (raw.smtp.is_absent(), "mail server", r#"smtp = "mail.example:587""#),
            (raw.from.is_absent(), "sender", r#"from = "pgweir@example.org""#),
            (raw.to.is_absent(), "recipient", r#"to = ["ops@example.org"]"#),
        ];
        for (_, what, expected) in needed.into_iter().filter(|(is_absent, ..)| *is_absent) {
            let title = format!("e-mail `{name}` has no {what}");
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        }
        let tls = raw.tls.word(SmtpTls::StartTls);
        let place = raw.smtp.span();
        let smtp = raw.smtp.set().zip(tls).and_then(|(text, tls)| {
            let found = server(&text.0, tls);
            if let (None, Some(span)) = (&found, &place) {
                let expected = r#""host" or "host:port", such as "mail.example:587""#;
                self.reader.wrong_value(&about("smtp"), span.clone(), expected, None);
            }
            found
        });
        if let (Some((host, _)), Some(SmtpTls::Off)) = (&smtp, tls)
            && !is_loopback(host)
        {
            let title = format!("e-mail `{name}` would go to {host} unencrypted");
            let expected = r#"tls = "starttls" or "tls"; "insecure" if that is meant, "off" is for this machine only"#;
            self.reader.note(raw.tls.span().unwrap_or(span.clone()), title, |problem| problem.expected(expected));
        }
        if raw.user.is_absent() != raw.password.is_absent() {
            let title = format!("e-mail `{name}` has a user without a password, or a password without a user");
            let at = raw.user.span().or(raw.password.span()).unwrap_or(span);
            self.reader.note(at, title, |problem| problem.expected("`user` and `password`, or neither"));
        }
        let user = raw.user.set().map(|text| text.0);
        let login = user.zip(self.secret(raw.password));
        let from = self.mailbox(&about("from"), raw.from.span(), raw.from.text());
        let at = raw.to.span();
        let named = raw.to.set().map_or_else(Vec::new, |texts| texts.0);
        if let (true, Some(span)) = (named.is_empty(), at) {
            self.reader.wrong_value(&about("to"), span, "at least one address", None);
        }
        let read = |(text, span): (String, Span)| self.mailbox(&about("to"), Some(span), Some(text));
        let to: Vec<Mailbox> = named.into_iter().filter_map(read).collect();
        let (ca_file, (host, port)) = (self.file(raw.ca_file), smtp?);
        Some(Email {
            host,
            port,
            tls: tls?,
            login,
            from: from?,
            to,
            group_wait: raw.group_wait.set().map_or(Email::GROUP_WAIT, |wait| wait.0),
            ca_file,
            timeout: raw.timeout.set().map_or(Email::TIMEOUT, |timeout| timeout.0),
        })
    }

    fn mailbox(&mut self, path: &str, span: Option<Span>, text: Option<String>) -> Option<Mailbox> {
        let (span, text) = (span?, text?);
        let mailbox = text.parse().ok();
        if mailbox.is_none() {
            let expected = r#"an address such as "ops@example.org" or "Operators <ops@example.org>""#;
            self.reader.wrong_value(path, span, expected, None);
        }
        mailbox
    }
}
