//! `[[cache.warm_up]]`: reads whose answers are to be in the cache before anybody asks.
//! Must never name a database or a user that there is not.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::cache::CacheMode;
use super::check::Check;
use super::leaf::{Number, Text, Wait, Word};
use super::leaf_rules::Listed;
use super::problem::nearest;
use super::reader::{Field, Leaf, Named, Reader, Span, join, section};
use super::schema::RawCache;
use super::words::words;

words! {
    /// How a statement is sent: answers to the one are no answers to the other.
    pub enum Protocol {
        /// As a Query.
        Simple = "simple",
        /// Parsed without a name, bound to nothing, described as a portal, executed whole, all in text.
        Extended = "extended",
    }
    refused {}
}

section! {
    /// `[[cache.warm_up]]`
    RawWarmUp {
        database: Text,
        user: Text,
        queries: Queries,
        every: Wait,
        concurrency: Number<1, 100>,
        protocol: Word<Protocol>,
        settings: Named<Text>,
    }
}

/// Reads whose answers are kept ahead, as one user of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmUp {
    /// Name of the database as clients give it.
    pub database: String,
    /// Name of the user.
    pub user: String,
    /// The statements.
    pub queries: Vec<String>,
    /// How often they are asked, beside at the start; `None`: when somebody says so.
    pub every: Option<Duration>,
    /// So many at once, at most. Default 1.
    pub concurrency: usize,
    /// How they are sent. Default [`Protocol::Simple`].
    pub protocol: Protocol,
    /// What the session sets, with names in lower case, in their order.
    pub settings: Vec<(String, String)>,
}

/// One statement, or several.
#[derive(Debug)]
pub(super) struct Queries(Vec<String>);

impl Leaf for Queries {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let items = value.get_ref().as_array().filter(|items| !items.is_empty());
        let Some(items) = items else {
            reader.wrong_type(path, value, "a list of statements, such as [\"SELECT * FROM menu\"]");
            return None;
        };
        let read: Vec<_> = items.iter().map(|item| Text::read(reader, path, item)).collect();
        read.into_iter().map(|sql| sql.map(|sql| sql.0)).collect::<Option<_>>().map(Self)
    }
}

impl Check<'_> {
    /// What `[[cache.warm_up]]` says. `None`: not all databases, or users, could be read.
    pub(super) fn warm_ups<D, U>(
        &mut self,
        cache: &mut RawCache,
        databases: Option<&BTreeMap<String, D>>,
        users: Option<&BTreeMap<String, U>>,
    ) -> Vec<WarmUp> {
        let listed: Listed<RawWarmUp> = std::mem::take(&mut cache.warm_up).set().unwrap_or_default();
        let serves = matches!(&cache.mode, Field::Set(mode, _) if mode.0 == CacheMode::On);
        let (Some(databases), Some(users)) = (databases, users) else { return Vec::new() };
        let databases: Vec<&str> = databases.keys().map(String::as_str).collect();
        let users: Vec<&str> = users.keys().map(String::as_str).collect();
        let mut all = Vec::new();
        for (span, raw) in listed.0 {
            let Some(raw) = raw else { continue };
            if !serves {
                self.reader.warn(span.clone(), "nothing is warmed up while the cache is not on", "mode = \"on\"");
            }
            let database = self.name_of("database", "databases", (&raw.database, &span), &databases);
            let user = self.name_of("user", "users", (&raw.user, &span), &users);
            if raw.queries.is_absent() {
                let title = "a warm-up without `queries` does nothing";
                self.reader.note(span, title, |problem| problem.expected("queries = [\"SELECT * FROM menu\"]"));
            }
            let settings = raw.settings.set().unwrap_or_default().0.into_iter();
            let mut settings: Vec<_> =
                settings.filter_map(|(name, _, value)| Some((name.to_ascii_lowercase(), value?.0))).collect();
            settings.sort();
            all.extend(database.zip(user).zip(raw.queries.set()).map(|((database, user), queries)| WarmUp {
                database,
                user,
                queries: queries.0,
                every: raw.every.set().and_then(Wait::limit),
                concurrency: raw.concurrency.set().map_or(1, |number| number.0 as usize),
                protocol: raw.protocol.set().map_or(Protocol::Simple, |word| word.0),
                settings,
            }));
        }
        all
    }

    /// The name that a key gives, which must be one of those that there are.
    fn name_of(
        &mut self,
        key: &str,
        section: &str,
        (field, place): (&Field<Text>, &Span),
        known: &[&str],
    ) -> Option<String> {
        let name = field.text();
        let Some(name) = name else {
            if field.is_absent() {
                let title = format!("a warm-up has no `{key}`");
                self.reader.note(place.clone(), title, |problem| {
                    problem.expected(format!("{key} = \"NAME\", of one of [{section}.NAME]"))
                });
            }
            return None;
        };
        if !known.contains(&name.as_str())
            && let Some(span) = field.span()
        {
            let hint = nearest(&name, known.iter().copied());
            let title = format!("there is no {key} `{name}`");
            self.reader.note(span, title, |problem| {
                problem.expected(format!("the NAME of a section [{section}.NAME]")).did_you_mean(hint)
            });
        }
        Some(name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parsed(lines: &str) -> Result<Config, String> {
        let text = format!(
            "[cache]\nmode = \"on\"\nttl = \"1h\"\n[[cache.warm_up]]\n{lines}\n[databases.a]\nprimary = \"h1\"\n[users.u]\npassword = \"x\""
        );
        Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_is_asked_ahead() {
        let lines = "database = \"a\"\nuser = \"u\"\nqueries = [\"SELECT 1\", \"SELECT 2\"]";
        let one = parsed(lines).unwrap().cache.warm_up.remove(0);
        assert_eq!((one.every, one.concurrency, one.protocol), (None, 1, Protocol::Simple));
        assert_eq!((one.queries.len(), one.settings.len()), (2, 0));
        let more = "every = \"10m\"\nconcurrency = 4\nprotocol = \"extended\"\nsettings = { TimeZone = \"UTC\", DateStyle = \"ISO\" }";
        let one = parsed(&format!("{lines}\n{more}")).unwrap().cache.warm_up.remove(0);
        assert_eq!((one.every, one.concurrency, one.protocol), (Some(Duration::from_secs(600)), 4, Protocol::Extended));
        assert_eq!(one.settings, [("datestyle", "ISO"), ("timezone", "UTC")].map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (lines, said) in [
            ("user = \"u\"\nqueries = [\"SELECT 1\"]", "a warm-up has no `database`"),
            ("database = \"b\"\nuser = \"u\"\nqueries = [\"SELECT 1\"]", "there is no database `b`"),
            ("database = \"a\"\nuser = \"v\"\nqueries = [\"SELECT 1\"]", "there is no user `v`"),
            ("database = \"a\"\nuser = \"u\"", "without `queries`"),
            ("database = \"a\"\nuser = \"u\"\nqueries = []", "a list of statements"),
            ("database = \"a\"\nuser = \"u\"\nqueries = [\"SELECT 1\"]\nconcurrency = 0", "1 to 100"),
        ] {
            let problems = parsed(lines).unwrap_err();
            assert!(problems.contains(said), "{problems}\nlacks: {said}");
        }
    }
}
