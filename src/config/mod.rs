//! The configuration of pgweir: read, checked as a whole, explained when it is wrong.
//! Must never print a secret, nor hand out a configuration that has a problem.
//!
//! A text becomes a [`Config`] in two steps. `reader` walks the parsed TOML against
//! `schema`, the raw form: which keys there are and how each is written (`leaf`). `check`
//! then fills in defaults, fetches secrets, looks at files and finds what contradicts
//! itself: the validated form (`model`). Both note everything they find in [`Problems`].
//!
//! Relative paths start at the directory of the configuration file, not at the working
//! directory: a reload must find what the start found.

mod alerts;
mod audit;
mod auth;
mod cache;
mod check;
mod check_auth;
mod check_rules;
mod check_users;
mod consistency;
mod console;
mod discover;
mod doors;
mod email;
mod encryption;
mod endpoint;
mod fetch;
mod file;
mod hba;
mod hba_parse;
mod ident;
mod invalidation;
mod lanes;
mod leaf;
mod leaf_auth;
mod leaf_rules;
mod logging;
mod mask;
mod model;
mod modes;
mod moment;
mod network;
mod notify;
mod password;
mod problem;
mod reader;
mod reads;
mod redis;
mod rules;
mod schema;
mod stats;
mod suspect;
mod terms;
mod tls_files;
mod tokens;
mod traces;
mod units;
mod url;
mod userlist;
mod warm_up;
mod webhook;
mod words;

#[cfg(test)]
mod alerts_tests;
#[cfg(test)]
mod auth_tests;
#[cfg(test)]
mod check_rules_tests;
#[cfg(test)]
mod hba_tests;
#[cfg(test)]
mod problem_tests;
#[cfg(test)]
mod stats_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod warning_tests;

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, de};

pub use self::alerts::{Alerts, Threshold};
pub use self::audit::{Audit, Audited};
pub use self::auth::{Auth, AuthQuery};
pub use self::cache::{Cache, CacheMode, Stale, Ttl};
pub use self::consistency::{Consistency, TableName};
pub use self::console::{CONSOLE_DATABASES, Console};
pub use self::discover::{Api, Discover, Found};
pub use self::doors::{INSTANCE_MAX, Tcp, UnixSocket};
pub use self::email::{Email, SmtpTls};
pub use self::encryption::{ChannelBinding, SslMode, TlsMode, TlsNegotiation};
pub use self::endpoint::{DEFAULT_PORT, Endpoint, EndpointError, Host};
pub use self::file::ConfigFile;
pub use self::hba::{ClientCert, Hba, HbaMethod, Rule, Visitor};
pub use self::ident::Ident;
pub use self::invalidation::{Invalidation, Logical, OwnInvalidation};
pub use self::lanes::Lanes;
pub use self::logging::{Log, LogFormat};
pub use self::model::{AuthType, Config, Database, Listen, Pool, User};
pub use self::modes::{PoolMode, Roles, ServerOrder, SessionState, WaitAction};
pub use self::network::{BadNetwork, Network};
pub use self::notify::AlertNotify;
pub use self::password::{BrokenVerifier, Password};
pub use self::problem::{Problem, Problems};
pub use self::reads::{Balance, InTransactions, MAX_HOSTS, NoReplica, Reads, Routing};
pub use self::redis::{Redis, RedisMode};
pub use self::rules::{
    DEFAULT_POOL, Destination, Fallback, Glob, Globs, HostGroup, RULES_MAX, RoutingRule, Steering, When, Workload,
};
pub use self::stats::{Access, Measure, Stats, Token};
pub use self::terms::{Overrides, Terms};
pub use self::traces::{OtlpProtocol, Traces};
pub use self::units::{DURATION_MAX, format_duration, format_size, parse_duration, parse_size};
pub use self::warm_up::{Protocol, WarmUp};
pub use self::webhook::{Webhook, WebhookFormat};

use self::check::{Check, Outside};
use self::problem::Source;
use self::reader::{Leaf, Reader};
use self::schema::RawConfig;

impl Config {
    /// Reads and checks a configuration file. Opens the certificates and secrets it names,
    /// so it may block.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        ConfigFile::read(path).map(|(_, config)| config)
    }

    /// Reads and checks a configuration text as if it were the file `file_name`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Problems> {
        let directory = Path::new(file_name).parent().unwrap_or(Path::new(""));
        let outside = Outside { directory, variable: &|name| std::env::var(name).ok() };
        parse(text, file_name, outside)
    }

    /// The configuration of `pgweir run URL --replica URL…`: one database and one user as
    /// the URL names them, on the default ports of 127.0.0.1. With a password in the URL
    /// clients must prove it by SCRAM, without one they are trusted.
    ///
    /// # Errors
    /// Everything that is wrong with the URLs, or that a replica's says otherwise than the
    /// primary's.
    pub fn from_urls(primary: &str, replicas: &[String]) -> Result<Self, Problems> {
        url::config(primary, replicas)
    }
}

fn parse(text: &str, file_name: &str, outside: Outside<'_>) -> Result<Config, Problems> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader::new::<RawConfig>(Source::new(file_name, text));
    note_syntax(&mut reader, text, errors);
    let syntax_is_good = reader.problems.is_empty();
    let raw = read_around_syntax(&mut reader, text, tree);
    // Contradictions are certain only in a file that was understood as a whole.
    let config = match raw {
        Some(raw) if syntax_is_good => Check { reader: &mut reader, outside }.config(raw),
        _ => None,
    };
    let problems = reader.problems;
    config.filter(|_| problems.is_empty()).ok_or_else(|| Problems::of_text(problems))
}

/// Notes what the TOML parser could not read. It may say several things of one line, of
/// which the first is the cause.
fn note_syntax(reader: &mut Reader, text: &str, errors: Vec<de::Error>) {
    let mut lines = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        let (what, expected) = match error.message().split_once(", expected ") {
            Some((what, expected)) => (what, Some(expected)),
            None => (error.message(), None),
        };
        let problem = reader.source.problem(span, format!("not TOML: {what}"));
        if !lines.contains(&problem.line()) {
            lines.push(problem.line());
            reader.problems.push(match expected {
                Some(expected) => problem.expected(expected),
                None => problem,
            });
        }
    }
}

/// Reads the raw configuration, also of what the parser saved from a broken text. In that
/// case keys on broken lines are not judged; nor is anything if a section's header is
/// broken, for then it is unknown where its keys belong.
fn read_around_syntax(reader: &mut Reader, text: &str, tree: Spanned<DeTable<'_>>) -> Option<RawConfig> {
    let broken: Vec<_> = reader.problems.iter().filter_map(Problem::line).collect();
    let is_header = |line: &usize| text.lines().nth(line - 1).is_none_or(|line| line.trim_start().starts_with('['));
    if broken.iter().any(is_header) {
        return None;
    }
    let span = tree.span();
    let root = Spanned::new(span, DeValue::Table(tree.into_inner()));
    let syntax = reader.problems.len();
    let raw = RawConfig::read(reader, "", &root);
    let mut index = 0;
    reader.problems.retain(|problem| {
        index += 1;
        index <= syntax || problem.line().is_none_or(|line| !broken.contains(&line))
    });
    raw
}
