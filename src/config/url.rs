//! A configuration from connection URLs, as libpq writes them, for `pgweir run URL`.
//! Must never show a URL with its password, nor take a default identity for a missing one.
//!
//! Form: `postgres://user[:password]@host[:port]/dbname[?option=value&…]`, all parts
//! percent-encoded (PostgreSQL documentation, "Connection URIs"). What is read here becomes a
//! raw configuration, so that the checks of a file apply to URLs too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::check::{Check, Outside};
use super::endpoint::{DEFAULT_PORT, Endpoint};
use super::leaf::{FilePath, RawSecret, Text, Word};
use super::leaf_auth::RawSecrets;
use super::model::{AuthType, Config, SslMode};
use super::problem::{Problems, Source, nearest};
use super::reader::{Field, Named, Reader, Span, one_of};
use super::schema::{RawConfig, RawDatabase, RawListen, RawUser};
use super::words::Words;
use crate::base::secret::Secret;

/// What a URL can say, under the names libpq gives its options.
const OPTIONS: [&str; 9] =
    ["host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey"];

const FORM: &str = "postgres://user[:password]@host[:port]/dbname";

/// The decoded parts of one URL with their places. Overwritten when dropped: one is a password.
type Parts = BTreeMap<&'static str, (Zeroizing<String>, Span)>;

/// See [`Config::from_urls`].
pub(super) fn config(primary: &str, replicas: &[String]) -> Result<Config, Problems> {
    let mut reader = reader("URL", primary);
    let mut parts = parse(&mut reader, primary);
    if let Some(parts) = &mut parts {
        complete(&mut reader, parts);
    }
    let primary_endpoint = parts.as_ref().and_then(|parts| endpoint(&mut reader, parts));
    let mut replica_problems = Vec::new();
    let mut endpoints = Vec::new();
    for (index, url) in replicas.iter().enumerate() {
        let mut reader = self::reader(&format!("--replica {}", index + 1), url);
        if let Some(replica) = parse(&mut reader, url) {
            endpoints.extend(endpoint(&mut reader, &replica));
            agree(&mut reader, parts.as_ref(), &replica);
        }
        replica_problems.append(&mut reader.problems);
    }
    let mut config = None;
    if let (Some(parts), Some(endpoint)) = (parts, primary_endpoint) {
        let raw = raw(&mut reader, parts, endpoint, endpoints);
        let outside = Outside { directory: Path::new(""), variable: &|_| None };
        config = raw.and_then(|raw| Check { reader: &mut reader, outside }.config(raw));
    }
    let mut problems = reader.problems;
    problems.append(&mut replica_problems);
    config.filter(|_| problems.is_empty()).ok_or(Problems::new(problems))
}

fn reader(name: &str, url: &str) -> Reader {
    let mut source = Source::new(name, url);
    // Up to the last `@` of all, whatever stands between: here it can only be a login.
    if let Some(end) = url.rfind('@') {
        let start = url.find("://").map_or(0, |scheme| scheme + 3);
        let colon = url.get(start..end).and_then(|login| login.find(':'));
        source.hide(colon.map_or(0..0, |colon| start + colon + 1..end));
    }
    Reader::new::<RawConfig>(source)
}

/// The place of `part`, a slice of `url`.
fn place(url: &str, part: &str) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(url.as_ptr() as usize);
    start..start + part.len()
}

/// Takes the URL apart. `None` only when it is none.
fn parse(reader: &mut Reader, url: &str) -> Option<Parts> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        reader.note(0..url.len(), "this is no PostgreSQL URL", |problem| problem.expected(FORM));
        return None;
    };
    let (body, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, dbname) = body.split_once('/').unwrap_or((body, ""));
    if dbname.contains('@') {
        // Whatever was meant, part of a password would be taken for the host.
        let expected = "`/` and `@` in a password or name written %2F and %40";
        reader.note(place(url, dbname), "there is an `@` after the first `/` of the URL", |problem| {
            problem.expected(expected)
        });
    }
    let (login, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => (address, after.strip_prefix(':').unwrap_or(after)),
        None => server.rsplit_once(':').unwrap_or((server, "")),
    };
    let mut parts = Parts::new();
    let found = [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", dbname)];
    for (option, text) in found {
        insert(reader, url, &mut parts, option, text);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        match OPTIONS.iter().find(|option| **option == name) {
            Some(option) => insert(reader, url, &mut parts, option, text),
            None => {
                let expected = one_of(OPTIONS.map(|option| format!("`{option}`")));
                let hint = nearest(name, OPTIONS);
                reader.note(place(url, name), "unknown option in the URL", |problem| {
                    problem.expected(expected).did_you_mean(hint)
                });
            }
        }
    }
    Some(parts)
}

/// Adds a part unless it is empty; of two the later counts, as in libpq.
fn insert(reader: &mut Reader, url: &str, parts: &mut Parts, option: &'static str, text: &str) {
    let span = place(url, text);
    match decode(text) {
        Some(decoded) if decoded.is_empty() => {}
        Some(decoded) => {
            parts.insert(option, (decoded, span));
        }
        None => {
            let title = format!("`{option}` in the URL is not properly percent-encoded");
            let expected = "two hexadecimal digits after each %, together UTF-8 without a zero byte";
            reader.note(span, title, |problem| problem.expected(expected));
        }
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1). A `+` stays what it is, as in libpq.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    // As long as the text at most: it never grows and so leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0)?);
        rest = after;
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// Adds the database named as the user when there is none, as libpq does, and notes a
/// missing user: the operating system's, which libpq takes, is nobody's intention here.
fn complete(reader: &mut Reader, parts: &mut Parts) {
    match parts.get("user").cloned() {
        Some(user) => {
            parts.entry("dbname").or_insert(user);
        }
        None => {
            let problem = reader.source.problem_of_all("the URL names no user");
            reader.problems.push(problem.expected(FORM));
        }
    }
}

fn endpoint(reader: &mut Reader, parts: &Parts) -> Option<Endpoint> {
    let mut port = DEFAULT_PORT;
    if let Some((text, span)) = parts.get("port") {
        match text.parse() {
            Ok(number) if number != 0 => port = number,
            _ => {
                // Here may be half a password with a `/` in it, so the text is not repeated.
                let expected = "a number from 1 to 65535; in a password, `/`, `?`, `@` are %2F, %3F, %40";
                reader.note(span.clone(), "the port in the URL is no port", |problem| problem.expected(expected));
                return None;
            }
        }
    }
    let Some((host, span)) = parts.get("host") else {
        let problem = reader.source.problem_of_all("the URL names no host");
        reader.problems.push(problem.expected("a host, or ?host=/directory of a unix socket"));
        return None;
    };
    match Endpoint::new(host, port) {
        Ok(endpoint) => Some(endpoint),
        Err(error) => {
            reader.note(span.clone(), "the host in the URL is no host", |problem| problem.expected(error));
            None
        }
    }
}

/// Notes what a replica says otherwise than the primary: there is one database and one login.
fn agree(reader: &mut Reader, primary: Option<&Parts>, replica: &Parts) {
    let Some(primary) = primary else { return };
    for (option, (text, span)) in replica {
        let same = primary.get(option).is_some_and(|(other, _)| other == text);
        if !same && !matches!(*option, "host" | "port") {
            let title = format!("`{option}` is not that of the primary's URL");
            reader.note(span.clone(), title, |problem| problem.expected("the same, or nothing"));
        }
    }
}

/// The configuration file that would say the same. `None` only without a user.
fn raw(reader: &mut Reader, mut parts: Parts, primary: Endpoint, replicas: Vec<Endpoint>) -> Option<RawConfig> {
    let (user, user_span) = parts.remove("user")?;
    let (dbname, dbname_span) = parts.remove("dbname")?;
    let sslmode = sslmode(reader, &parts);
    // libpq's word for the authorities the system trusts, which is also what no file means.
    parts.retain(|option, (text, _)| *option != "sslrootcert" || text.as_str() != "system");
    let mut file = |option| match parts.remove(option) {
        Some((path, span)) => Field::Set(FilePath(PathBuf::from(path.as_str())), span),
        None => Field::Absent,
    };
    let database = RawDatabase {
        primary: Field::Set(primary, 0..0),
        replicas: if replicas.is_empty() { Field::Absent } else { Field::Set(replicas, 0..0) },
        dbname: Field::Set(Text(dbname.to_string()), dbname_span.clone()),
        server_tls_sslmode: sslmode,
        server_tls_ca_file: file("sslrootcert"),
        server_tls_cert_file: file("sslcert"),
        server_tls_key_file: file("sslkey"),
        ..RawDatabase::default()
    };
    let password = match parts.remove("password") {
        Some((mut text, span)) => {
            let secret = RawSecret::Value(Secret::new(std::mem::take(&mut *text)));
            Field::Set(RawSecrets(vec![(secret, span.clone())]), span)
        }
        None => Field::Absent,
    };
    let auth_type = if password.is_absent() { AuthType::Trust } else { AuthType::ScramSha256 };
    let listen = RawListen { auth_type: Field::Set(Word(auth_type), 0..0), ..RawListen::default() };
    let named = RawUser { password, ..RawUser::default() };
    Some(RawConfig {
        listen: Field::Set(listen, 0..0),
        databases: Field::Set(Named(vec![(dbname.to_string(), dbname_span, Some(database))]), 0..0),
        users: Field::Set(Named(vec![(user.to_string(), user_span, Some(named))]), 0..0),
        ..RawConfig::default()
    })
}

/// The mode as libpq understands it: `sslrootcert` turns `require` into `verify-ca`, and
/// `system` alone means `verify-full` (PostgreSQL documentation, "libpq: SSL Support").
fn sslmode(reader: &mut Reader, parts: &Parts) -> Field<Word<SslMode>> {
    let root = parts.get("sslrootcert").map(|(text, _)| text.as_str());
    let Some((text, span)) = parts.get("sslmode") else {
        return match root {
            Some("system") => Field::Set(Word(SslMode::VerifyFull), 0..0),
            _ => Field::Absent,
        };
    };
    match SslMode::WORDS.iter().find(|(word, _)| *word == text.as_str()) {
        Some((_, SslMode::Require)) if root.is_some() => Field::Set(Word(SslMode::VerifyCa), span.clone()),
        Some((_, mode)) => Field::Set(Word(*mode), span.clone()),
        None => {
            let hint = nearest(text, SslMode::WORDS.iter().map(|(word, _)| *word));
            let expected = one_of(SslMode::WORDS.iter().map(|(word, _)| format!("`{word}`")));
            reader.note(span.clone(), "`sslmode` has no valid value", |problem| {
                problem.expected(expected).did_you_mean(hint)
            });
            Field::Bad
        }
    }
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
