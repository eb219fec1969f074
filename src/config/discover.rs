//! Where the servers of a database are found out: names that DNS resolves, or the addresses of Patroni.
//! Must never resolve or ask anything: a configuration is checked without the network.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::endpoint::Endpoint;
use super::leaf::{FilePath, Timeout};
use super::model::Database;
use super::modes::Roles;
use super::reader::{Field, Leaf, Reader, Span};
use super::schema::RawDatabase;

/// Most places to ask: each may be asked at one time.
const SOURCES_MAX: usize = 16;
/// Shortest [`discover_interval`](super::Pool::discover_interval).
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// How the servers of a database are found out.
#[derive(Clone, Debug, PartialEq)]
pub enum Discover {
    /// Every address that one of these names resolves to is a server, at the port given with the name.
    Dns(Vec<Endpoint>),
    /// Patroni says who is a member.
    Patroni {
        /// Where its REST API is; each of them knows all members.
        apis: Vec<Api>,
        /// Certificates that may sign those of the APIs, PEM. Default: those the system trusts.
        ca_file: Option<PathBuf>,
    },
}

/// One REST API of Patroni.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// Over TLS.
    pub tls: bool,
    /// Where.
    pub endpoint: Endpoint,
}

impl Discover {
    /// Where it asks first: what stands for the database's servers where one name is needed for whoever these are.
    #[must_use]
    pub fn landmark(&self) -> Option<&Endpoint> {
        match self {
            Self::Dns(names) => names.first(),
            Self::Patroni { apis, .. } => apis.first().map(|api| &api.endpoint),
        }
    }
}

/// What was found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The servers, in an order that follows from nothing but what they are.
    pub servers: BTreeSet<Endpoint>,
    /// The names that their certificates must have, for those where that is not the host.
    pub tls_names: BTreeMap<Endpoint, String>,
    /// Those that are to take no reads.
    pub spared: BTreeSet<Endpoint>,
}

impl Database {
    /// These are its servers now.
    pub fn set_found(&mut self, found: &Found) {
        let mut servers = found.servers.iter().cloned();
        self.primary = servers.next().unwrap_or(Endpoint::UNKNOWN);
        self.replicas = servers.collect();
        self.tls_names.clone_from(&found.tls_names);
        self.reads.spared.clone_from(&found.spared);
    }

    /// What was found out last; `None` if nothing was.
    #[must_use]
    pub fn found(&self) -> Option<Found> {
        let known = self.primary != Endpoint::UNKNOWN;
        known.then(|| Found {
            servers: self.hosts().cloned().collect(),
            tls_names: self.tls_names.clone(),
            spared: self.reads.spared.clone(),
        })
    }

    /// What tells it from other databases of that name, whoever serves it: its first server, or where its servers are
    /// found out.
    #[must_use]
    pub fn landmark(&self) -> &Endpoint {
        self.discover.as_ref().and_then(Discover::landmark).unwrap_or(&self.primary)
    }
}

/// One URL of `discover`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    Dns(Endpoint),
    Patroni(Api),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns://{name}"),
            Self::Patroni(api) => api.fmt(f),
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.tls { "s" } else { "" }, self.endpoint)
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = r#""dns://NAME:PORT", or Patroni's address "http://HOST:PORT" or "https://HOST:PORT""#;
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let place = rest.strip_suffix("/cluster").unwrap_or(rest);
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.starts_with('/') || place.contains('@') {
            return Err(FORM.into());
        }
        let endpoint: Endpoint = place.parse().map_err(|error| format!("behind {scheme}:// {error}"))?;
        let tls = match scheme {
            "dns" if place == rest => return Ok(Self::Dns(endpoint)),
            "http" => false,
            "https" => true,
            _ => return Err(FORM.into()),
        };
        // 5432 would be PostgreSQL's own.
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        if !has_port {
            return Err(r#"the port of Patroni's REST API behind the host, such as "http://10.0.0.1:8008""#.into());
        }
        Ok(Self::Patroni(Api { tls, endpoint }))
    }
}

/// The URLs, each with its place.
#[derive(Debug)]
pub(super) struct Sources(Vec<(Source, Span)>);

impl Leaf for Sources {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let expected = format!(r#"a list of 1 to {SOURCES_MAX} URLs such as ["dns://pg.example.org:5432"]"#);
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, &expected);
            return None;
        };
        if items.is_empty() || items.len() > SOURCES_MAX {
            reader.wrong_value(path, value.span(), &expected, None);
            return None;
        }
        let read = |item: &Spanned<DeValue<'_>>| {
            let Some(text) = item.get_ref().as_str() else {
                reader.wrong_type(path, item, "a URL");
                return None;
            };
            let source = Source::from_str(text).map_err(|error| reader.wrong_value(path, item.span(), &error, None));
            Some((source.ok()?, item.span()))
        };
        let sources: Vec<_> = items.iter().map(read).collect();
        sources.into_iter().collect::<Option<_>>().map(Self)
    }
}

/// How often is asked.
#[derive(Debug)]
pub(super) struct Interval(pub(super) Duration);

impl Leaf for Interval {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let interval = Timeout::read(reader, path, value)?.0;
        if interval < INTERVAL_MIN {
            reader.wrong_value(path, value.span(), r#"a duration of at least "100ms""#, None);
            return None;
        }
        Some(Self(interval))
    }
}

impl Check<'_> {
    /// How the servers of the database `name` are found out, if they are. Notes what else says who they are, and sources
    /// that do not go together.
    pub(super) fn discover(&mut self, name: &str, raw: &mut RawDatabase) -> Option<Discover> {
        let ca = std::mem::take(&mut raw.discover_ca_file);
        let Field::Set(Sources(sources), span) = std::mem::take(&mut raw.discover) else {
            self.no_ca_file(&ca, name);
            return None;
        };
        if [raw.primary.is_absent(), raw.replicas.is_absent(), raw.hosts.is_absent()].contains(&false) {
            let title = format!("database `{name}` has `discover` beside `primary`, `replicas` or `hosts`");
            self.reader.note(span.clone(), title, |problem| problem.expected("`discover` alone, or none"));
        }
        if let Field::Set(word, span) = &raw.roles
            && word.0 == Roles::Declared
        {
            let title = "with `discover` nothing declares which one is the primary".to_owned();
            self.reader.note(span.clone(), title, |problem| problem.expected("`primary` and `replicas` instead"));
        }
        let (mut names, mut apis) = (Vec::new(), Vec::new());
        for (source, span) in sources {
            let other = match &source {
                Source::Dns(_) => !apis.is_empty(),
                Source::Patroni(_) => !names.is_empty(),
            };
            if other {
                let title = format!("{source} does not go with what is before it");
                self.reader
                    .note(span.clone(), title, |it| it.expected("names for DNS only, or Patroni's addresses only"));
            }
            let twice = match &source {
                Source::Dns(name) => names.contains(name),
                Source::Patroni(api) => apis.contains(api),
            };
            if twice {
                self.reader.note(span, format!("{source} is there twice"), |problem| problem);
            }
            match source {
                Source::Dns(name) => names.push(name),
                Source::Patroni(api) => apis.push(api),
            }
        }
        if !apis.iter().any(|api| api.tls) {
            self.no_ca_file(&ca, name);
        } else {
            self.authorities_of("discover_ca_file", &ca);
        }
        let ca_file = self.file(ca);
        Some(if apis.is_empty() { Discover::Dns(names) } else { Discover::Patroni { apis, ca_file } })
    }

    fn no_ca_file(&mut self, ca: &Field<FilePath>, name: &str) {
        if let Field::Set(_, span) = ca {
            let title = format!("`discover_ca_file` is never used: database `{name}` asks nobody over TLS");
            self.reader.note(span.clone(), title, |it| it.expected(r#"discover = ["https://HOST:PORT"]"#));
        }
    }
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
