//! `[cache.redis]`: the cache that processes share, behind each one's own.
//! Must never be without a secret: whoever can write to Redis could else put rows into answers.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::endpoint::{Endpoint, Host};
use super::leaf::{FilePath, Number, RawSecret, Size, Text, Timeout, Word};
use super::reader::{Field, Leaf, Reader, Span, join, section};
use super::words::words;
use crate::base::secret::Secret;

words! {
    /// What answers at the hosts.
    pub enum RedisMode {
        /// One server.
        Single = "single",
        /// Sentinels, which know who is the master.
        Sentinel = "sentinel",
        /// Nodes of a cluster.
        Cluster = "cluster",
    }
    refused {}
}

/// Redis' own port.
const PORT: u16 = 6379;
/// That of a sentinel.
const SENTINEL_PORT: u16 = 26_379;
/// Most hosts: each may have to be tried.
const HOSTS_MAX: usize = 32;
/// Fewest bytes of [`Redis::secret`].
pub const SECRET_MIN: usize = 32;

section! {
    /// `[cache.redis]`
    RawRedis {
        mode: Word<RedisMode>,
        hosts: Hosts,
        master_name: Text,
        user: Text,
        password: RawSecret,
        sentinel_user: Text,
        sentinel_password: RawSecret,
        database: Number<0, 1_000_000>,
        tls: bool,
        tls_ca_file: FilePath,
        tls_cert_file: FilePath,
        tls_key_file: FilePath,
        prefix: Text,
        secret: RawSecret,
        timeout: Timeout,
        max_ttl: Timeout,
        compress_above: Size<0, 0x3fff_ffff>,
        max_lookups: Number<1, 1_000_000>,
        max_writes: Number<1, 1_000_000>,
        one_flight: bool,
    }
}

/// `[cache.redis]`: answers that processes share. Equality is what a reload compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// What is at the hosts. Default [`RedisMode::Single`].
    pub mode: RedisMode,
    /// Where; one with [`RedisMode::Single`].
    pub hosts: Vec<Endpoint>,
    /// What sentinels call the master; set exactly with [`RedisMode::Sentinel`].
    pub master_name: Option<String>,
    /// User of the servers. Default: Redis' own default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// User of the sentinels.
    pub sentinel_user: Option<String>,
    /// Its password.
    pub sentinel_password: Option<Secret>,
    /// Number of the database. Default 0, in a cluster always.
    pub database: u32,
    /// Whether all connections use TLS; the host is verified.
    pub tls: bool,
    /// Certificates that may sign the servers', PEM. Default: those the system trusts.
    pub tls_ca_file: Option<PathBuf>,
    /// Certificate presented to them, PEM.
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key, PEM. Set exactly when the certificate is.
    pub tls_key_file: Option<PathBuf>,
    /// What all names begin with. Default `pgweir:`.
    pub prefix: String,
    /// What names and seals are derived from; at least 32 bytes, the same in all processes that share answers.
    pub secret: Secret,
    /// How long a request is waited for. Default 5 ms; never 0.
    pub timeout: Duration,
    /// No answer is older when it comes from there. Default 1 h; never 0.
    pub max_ttl: Duration,
    /// Longer answers are compressed, bytes. Default 2 KiB.
    pub compress_above: usize,
    /// Lookups under way at one time per worker; more are not made. Default 1000.
    pub max_lookups: u32,
    /// The same of writes. Default 1000.
    pub max_writes: u32,
    /// Whether what takes a server longer than 1 ms is asked by one process at a time, for which the others wait. Default true.
    pub one_flight: bool,
}

impl Redis {
    /// A server with nothing but where it is and a secret.
    #[must_use]
    pub fn new(hosts: Vec<Endpoint>, secret: Secret) -> Self {
        Self {
            mode: RedisMode::Single,
            hosts,
            master_name: None,
            user: None,
            password: None,
            sentinel_user: None,
            sentinel_password: None,
            database: 0,
            tls: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            prefix: "pgweir:".to_owned(),
            secret,
            timeout: Duration::from_millis(5),
            max_ttl: Duration::from_secs(3600),
            compress_above: 2048,
            max_lookups: 1000,
            max_writes: 1000,
            one_flight: true,
        }
    }
}

/// Where Redis is, without its port where that was not given.
#[derive(Debug)]
pub(super) struct Hosts(Vec<(Endpoint, bool)>);

impl Leaf for Hosts {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let expected = format!(r#"a list of 1 to {HOSTS_MAX} servers such as ["10.0.0.5:6379"]"#);
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, &expected);
            return None;
        };
        if items.is_empty() || items.len() > HOSTS_MAX {
            reader.wrong_value(path, value.span(), &expected, None);
            return None;
        }
        let hosts: Vec<_> = items.iter().map(|item| host(reader, path, item)).collect();
        hosts.into_iter().collect::<Option<_>>().map(Self)
    }
}

fn host(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<(Endpoint, bool)> {
    let expected = r#"a server such as "host:6379"; user, password, database and TLS have keys of their own"#;
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(path, value, expected);
        return None;
    };
    let found = Endpoint::from_str(text).ok().filter(|found| matches!(found.host, Host::Tcp(_)));
    let Some(endpoint) = found else {
        // It may be a URL with a password inside.
        reader.source.hide(value.span());
        reader.wrong_value(path, value.span(), expected, None);
        return None;
    };
    let tail = text.rsplit(']').next().unwrap_or_default();
    Some((endpoint, tail.contains(':')))
}

impl Check<'_> {
    /// The cache behind the cache, if there is to be one.
    pub(super) fn redis(&mut self, raw: Field<RawRedis>) -> Option<Redis> {
        let Field::Set(raw, span) = raw else { return None };
        let mode = raw.mode.word(RedisMode::Single);
        self.fits(&raw, mode);
        self.redis_tls(&raw);
        if raw.hosts.is_absent() {
            self.note_redis(span.clone(), "`[cache.redis]` does not say where Redis is", r#"hosts = ["host:6379"]"#);
        }
        let Hosts(hosts) = raw.hosts.set()?;
        let mode = mode?;
        let port = if mode == RedisMode::Sentinel { SENTINEL_PORT } else { PORT };
        let hosts = hosts.into_iter().map(|(at, has_port)| if has_port { at } else { Endpoint { port, ..at } });
        let secret = self.redis_secret(raw.secret, span)?;
        let default = Redis::new(hosts.collect(), secret);
        Some(Redis {
            mode,
            master_name: raw.master_name.set().map(|text| text.0),
            user: raw.user.set().map(|text| text.0),
            password: self.secret(raw.password),
            sentinel_user: raw.sentinel_user.set().map(|text| text.0),
            sentinel_password: self.secret(raw.sentinel_password),
            database: raw.database.set().map_or(0, |number| number.0),
            tls: raw.tls.set().unwrap_or(false),
            tls_ca_file: self.file(raw.tls_ca_file),
            tls_cert_file: self.file(raw.tls_cert_file),
            tls_key_file: self.file(raw.tls_key_file),
            prefix: raw.prefix.set().map_or(default.prefix, |text| text.0),
            timeout: raw.timeout.set().map_or(default.timeout, |timeout| timeout.0),
            max_ttl: raw.max_ttl.set().map_or(default.max_ttl, |timeout| timeout.0),
            compress_above: raw.compress_above.set().map_or(default.compress_above, |size| size.0 as usize),
            max_lookups: raw.max_lookups.set().map_or(default.max_lookups, |number| number.0),
            max_writes: raw.max_writes.set().map_or(default.max_writes, |number| number.0),
            one_flight: raw.one_flight.set().unwrap_or(default.one_flight),
            hosts: default.hosts,
            secret: default.secret,
        })
    }

    /// Notes what does not go together with the mode.
    fn fits(&mut self, raw: &RawRedis, mode: Option<RedisMode>) {
        let Some(mode) = mode else { return };
        if let Field::Set(Hosts(hosts), span) = &raw.hosts
            && mode == RedisMode::Single
            && hosts.len() > 1
        {
            let title = "a single server is at one place, not at several";
            self.note_redis(span.clone(), title, r#"one host, or mode = "sentinel" or "cluster""#);
        }
        if let (RedisMode::Sentinel, Field::Absent) = (mode, &raw.master_name)
            && let Some(span) = raw.mode.span()
        {
            let title = "`mode` is \"sentinel\" but nothing says what the sentinels call the master";
            self.note_redis(span, title, r#"master_name = "NAME""#);
        }
        let of_sentinel = [
            ("master_name", raw.master_name.span()),
            ("sentinel_user", raw.sentinel_user.span()),
            ("sentinel_password", raw.sentinel_password.span()),
        ];
        for (name, span) in of_sentinel {
            if let (Some(span), true) = (span, mode != RedisMode::Sentinel) {
                self.note_redis(span, &format!("`{name}` is never used without sentinels"), r#"mode = "sentinel""#);
            }
        }
        if let Field::Set(number, span) = &raw.database
            && mode == RedisMode::Cluster
            && number.0 != 0
        {
            self.note_redis(span.clone(), "a cluster has no database but 0", "no `database`");
        }
        for (user, name, password) in [
            (raw.user.span(), "user", &raw.password),
            (raw.sentinel_user.span(), "sentinel_user", &raw.sentinel_password),
        ] {
            if let (Some(span), true) = (user, password.is_absent()) {
                self.note_redis(span, &format!("`{name}` has no password"), "its password, or neither");
            }
        }
    }

    fn redis_tls(&mut self, raw: &RawRedis) {
        self.pair("tls_cert_file", &raw.tls_cert_file, "tls_key_file", &raw.tls_key_file);
        let off = match &raw.tls {
            Field::Set(on, _) => !on,
            Field::Absent => true,
            Field::Bad => false,
        };
        for (name, file) in [("tls_ca_file", &raw.tls_ca_file), ("tls_cert_file", &raw.tls_cert_file)] {
            if let (Some(span), true) = (file.span(), off) {
                self.note_redis(span, &format!("`cache.redis.{name}` is never used without TLS"), "tls = true");
            }
        }
        if !off {
            self.authorities_of("tls_ca_file", &raw.tls_ca_file);
        }
    }

    fn redis_secret(&mut self, raw: Field<RawSecret>, section: Span) -> Option<Secret> {
        let expected = format!(
            "at least {SECRET_MIN} random characters, the same in all processes, such as of openssl rand -base64 32"
        );
        if raw.is_absent() {
            self.note_redis(section, "`[cache.redis]` has no `secret`", &format!("secret = {expected}"));
        }
        let span = raw.span()?;
        let secret = self.secret(raw)?;
        if secret.expose().len() < SECRET_MIN {
            self.note_redis(span, "`cache.redis.secret` is so short that it could be guessed", &expected);
        }
        Some(secret)
    }

    fn note_redis(&mut self, span: Span, title: &str, expected: &str) {
        self.reader.note(span, title, |problem| problem.expected(expected));
    }
}

#[cfg(test)]
#[path = "redis_tests.rs"]
mod tests;
