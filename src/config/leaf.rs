//! How each kind of value is read: numbers, durations, words, addresses, secrets.
//! Must never put a value into a message: it may be a secret at the wrong key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::endpoint::Endpoint;
use super::problem::nearest;
use super::reader::{Leaf, Reader, Span, join, one_of};
use super::units::{format_size, parse_duration, parse_size};
use super::words::Words;
use crate::base::secret::Secret;

type Value<'i> = Spanned<DeValue<'i>>;

fn integer(value: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(value.as_str(), value.radix()).ok()
}

/// The text of a string that is not empty and holds no zero byte, which neither the
/// protocol nor the file system could carry.
fn text<'a>(reader: &mut Reader, path: &str, value: &'a Value<'_>, expected: &str) -> Option<&'a str> {
    let Some(text) = value.get_ref().as_str() else {
        reader.wrong_type(path, value, expected);
        return None;
    };
    if text.is_empty() || text.contains('\0') {
        let expected = format!("{expected}, not empty and without a zero byte");
        reader.wrong_value(path, value.span(), &expected, None);
        return None;
    }
    Some(text)
}

/// A whole number within bounds.
#[derive(Debug)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Leaf for Number<MIN, MAX> {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let expected = format!("a whole number from {MIN} to {MAX}");
        let Some(number) = value.get_ref().as_integer() else {
            reader.wrong_type(path, value, &expected);
            return None;
        };
        let number = integer(number).and_then(|n| u32::try_from(n).ok()).filter(|n| (MIN..=MAX).contains(n));
        if number.is_none() {
            reader.wrong_value(path, value.span(), &expected, None);
        }
        number.map(Self)
    }
}

/// A part of all: a number from 0 to 1.
#[derive(Debug)]
pub(super) struct Share(pub(super) f64);

impl Leaf for Share {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        real(reader, path, value, 1.0, "a number from 0 to 1, such as 0.001").map(Self)
    }
}

/// How many times something: a number from 0 to 100.
#[derive(Debug)]
pub(super) struct Factor(pub(super) f64);

impl Leaf for Factor {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        real(reader, path, value, 100.0, "a number from 0 to 100, such as 1.5").map(Self)
    }
}

/// A number from 0 to `most`.
fn real(reader: &mut Reader, path: &str, value: &Value<'_>, most: f64, expected: &str) -> Option<f64> {
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        DeValue::Integer(number) => integer(number).map(|number| number as f64),
        _ => {
            reader.wrong_type(path, value, expected);
            return None;
        }
    };
    let number = number.filter(|number| (0.0..=most).contains(number));
    if number.is_none() {
        reader.wrong_value(path, value.span(), expected, None);
    }
    number
}

/// A number of bytes within bounds, as a whole number or with a unit.
#[derive(Debug)]
pub(super) struct Size<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Leaf for Size<MIN, MAX> {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let (min, max) = (format_size(MIN.into()), format_size(MAX.into()));
        let expected = format!(r#"a size from {min} to {max}: bytes, or a number with a unit such as "64KiB", "1MiB""#);
        let bytes = match value.get_ref() {
            DeValue::Integer(number) => integer(number),
            DeValue::String(text) => parse_size(text),
            _ => {
                reader.wrong_type(path, value, &expected);
                return None;
            }
        };
        let bytes = bytes.and_then(|n| u32::try_from(n).ok()).filter(|n| (MIN..=MAX).contains(n));
        if bytes.is_none() {
            reader.wrong_value(path, value.span(), &expected, None);
        }
        bytes.map(Self)
    }
}

const DURATION: &str = r#"a duration such as "500ms", "30s", "2m", "1h", at most "365d""#;

/// A duration, or the number 0. PgBouncer's bare seconds get the right spelling as a hint.
fn duration(reader: &mut Reader, path: &str, value: &Value<'_>, expected: &str) -> Option<Duration> {
    let (duration, hint) = match value.get_ref() {
        DeValue::String(text) => (parse_duration(text), None),
        DeValue::Integer(number) => match integer(number) {
            Some(0) => (Some(Duration::ZERO), None),
            number => (None, number.map(|seconds| format!("\"{seconds}s\""))),
        },
        _ => {
            reader.wrong_type(path, value, expected);
            return None;
        }
    };
    if duration.is_none() {
        reader.wrong_value(path, value.span(), expected, hint);
    }
    duration
}

/// A duration of which 0 turns the limit off.
#[derive(Debug)]
pub(super) struct Wait(pub(super) Duration);

impl Wait {
    /// The limit, if there is one.
    pub(super) fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl Leaf for Wait {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        duration(reader, path, value, &format!("{DURATION}, or 0")).map(Self)
    }
}

/// A duration that cannot be 0, because something would wait for ever or never start.
#[derive(Debug)]
pub(super) struct Timeout(pub(super) Duration);

impl Leaf for Timeout {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let duration = duration(reader, path, value, DURATION)?;
        if duration.is_zero() {
            reader.wrong_value(path, value.span(), &format!("{DURATION}; this one cannot be turned off"), None);
            return None;
        }
        Some(Self(duration))
    }
}

/// How often something is looked at; 0 turns it off.
#[derive(Debug)]
pub(super) struct Refresh(Duration);

impl Refresh {
    /// There are none.
    pub(super) fn is_never(&self) -> bool {
        self.0.is_zero()
    }

    /// Between two looks, if there are any.
    pub(super) fn period(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl Leaf for Refresh {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let expected = "\"1s\" to \"1d\", or 0";
        let period = duration(reader, path, value, expected)?;
        let fits = period.is_zero() || (period.as_secs() >= 1 && period.as_secs() <= 86_400);
        if !fits {
            reader.wrong_value(path, value.span(), expected, None);
        }
        fits.then_some(Self(period))
    }
}

impl Leaf for bool {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            reader.wrong_type(path, value, "true or false");
        }
        found
    }
}

/// A name: any text that is not empty.
#[derive(Debug)]
pub(super) struct Text(pub(super) String);

impl Leaf for Text {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        text(reader, path, value, "a string").map(|text| Self(text.to_owned()))
    }
}

/// A statement, or nothing.
#[derive(Debug)]
pub(super) struct Sql(pub(super) String);

impl Leaf for Sql {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        match value.get_ref().as_str() {
            Some("") => Some(Self(String::new())),
            _ => text(reader, path, value, "an SQL statement, or \"\"").map(|text| Self(text.to_owned())),
        }
    }
}

/// The path of a file, absolute or from the directory of the configuration.
#[derive(Debug)]
pub(super) struct FilePath(pub(super) PathBuf);

impl Leaf for FilePath {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        text(reader, path, value, "the path of a file").map(|text| Self(PathBuf::from(text)))
    }
}

/// One word of an enumeration.
#[derive(Debug)]
pub(super) struct Word<T>(pub(super) T);

impl<T: Words> Leaf for Word<T> {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let expected = one_of(T::WORDS.iter().map(|(word, _)| format!("{word:?}")));
        let text = text(reader, path, value, &expected)?;
        if let Some((_, found)) = T::WORDS.iter().find(|(word, _)| *word == text) {
            return Some(Self(*found));
        }
        if let Some((word, feature)) = T::REFUSED.iter().find(|(word, _)| *word == text) {
            let title = format!("`{path}` cannot be {word:?}: {feature} is not part of this version of pgweir");
            reader.note(value.span(), title, |problem| problem.expected(expected));
            return None;
        }
        let renamed = T::RENAMED.iter().find(|(old, _)| *old == text).map(|(_, new)| *new);
        let nearest = || nearest(text, T::WORDS.iter().map(|(word, _)| *word));
        let hint = renamed.map(str::to_owned).or_else(nearest).map(|word| format!("{word:?}"));
        reader.wrong_value(path, value.span(), &expected, hint);
        None
    }
}

/// IP addresses to listen on; `"*"` is all of both families.
#[derive(Debug)]
pub(super) struct Addresses(pub(super) Vec<IpAddr>);

impl Leaf for Addresses {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"an IP address such as "127.0.0.1" or "::1", "*" for all, or a list of addresses"#;
        const ALL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let before = reader.problems.len();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for item in &items {
            let Some(text) = text(reader, path, item, EXPECTED) else {
                continue;
            };
            match text.parse() {
                _ if text == "*" && items.len() == 1 => addresses.extend(ALL),
                Ok(address) if addresses.contains(&address) => {}
                Ok(address) => addresses.push(address),
                Err(_) => reader.wrong_value(path, item.span(), EXPECTED, None),
            }
        }
        if items.is_empty() {
            reader.wrong_value(path, value.span(), EXPECTED, None);
        }
        (reader.problems.len() == before).then_some(Self(addresses))
    }
}

/// An address and port, or `"off"`.
#[derive(Debug)]
pub(super) struct HttpAddress(pub(super) Option<SocketAddr>);

impl Leaf for HttpAddress {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"an IP address with a port such as "127.0.0.1:9127", or "off""#;
        match text(reader, path, value, EXPECTED)? {
            "off" => Some(Self(None)),
            text => {
                let address = text.parse().ok();
                if address.is_none() {
                    reader.wrong_value(path, value.span(), EXPECTED, None);
                }
                address.map(|address| Self(Some(address)))
            }
        }
    }
}

impl Leaf for Endpoint {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"a server such as "host:5432" or "/var/run/postgresql""#;
        match Endpoint::from_str(text(reader, path, value, EXPECTED)?) {
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                reader.wrong_value(path, value.span(), &error.to_string(), None);
                None
            }
        }
    }
}

impl Leaf for Vec<Endpoint> {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, r#"a list of servers such as ["host:5432"]"#);
            return None;
        };
        let endpoints: Vec<_> = items.iter().map(|item| Endpoint::read(reader, path, item)).collect();
        endpoints.into_iter().collect()
    }
}

/// What to log: levels, per target if wanted. Checked here because the `tracing` crate
/// takes a misspelt level for the name of a target.
#[derive(Debug)]
pub(super) struct Filter(pub(super) String);

impl Leaf for Filter {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let levels = one_of(LEVELS.map(|level| format!("{level:?}")));
        let expected = format!("{levels}, also per target as in \"info,pgweir::pool=debug\"");
        let text = text(reader, path, value, &expected)?;
        for directive in text.split(',') {
            let (target, level) = directive.rsplit_once('=').unwrap_or(("pgweir", directive));
            let named = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
            if target.is_empty() || !target.chars().all(named) || !LEVELS.contains(&level) {
                let hint = nearest(level, LEVELS).map(|level| format!("{level:?}"));
                reader.wrong_value(path, value.span(), &expected, hint);
                return None;
            }
        }
        Some(Self(text.to_owned()))
    }
}

/// A secret, or where it is to be found.
#[derive(Debug)]
pub(super) enum RawSecret {
    Value(Secret),
    Env(String, Span),
    File(PathBuf, Span),
}

impl Leaf for RawSecret {
    fn read(reader: &mut Reader, path: &str, value: &Value<'_>) -> Option<Self> {
        const EXPECTED: &str = r#"a string, { env = "NAME" } or { file = "PATH" }"#;
        let Some(table) = value.get_ref().as_table() else {
            reader.source.hide(value.span());
            return text(reader, path, value, EXPECTED).map(|text| Self::Value(Secret::new(text.to_owned())));
        };
        let is_known = |key: &str| matches!(key, "env" | "file");
        let mut unknown = false;
        for (key, value) in table.iter().filter(|(key, _)| !is_known(key.get_ref())) {
            // Someone may have put the secret itself here.
            reader.source.hide(value.span());
            reader.unknown(path, key, &["env", "file"]);
            unknown = true;
        }
        match (table.get("env"), table.get("file")) {
            _ if unknown => None,
            (Some(env), None) => {
                let name = text(reader, &join(path, "env"), env, "the name of an environment variable")?;
                Some(Self::Env(name.to_owned(), env.span()))
            }
            (None, Some(file)) => {
                let name = text(reader, &join(path, "file"), file, "the path of a file")?;
                Some(Self::File(PathBuf::from(name), file.span()))
            }
            _ => {
                reader.wrong_value(path, value.span(), EXPECTED, None);
                None
            }
        }
    }
}
