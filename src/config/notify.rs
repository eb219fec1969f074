//! `[alerts.notify]`: alerts as notifications in a database, for whoever listens there.
//! Must never name a database that there is not, nor leave open as whom pgweir logs in there.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::leaf::{RawSecret, Text, Timeout};
use super::model::Database;
use super::password::Password;
use super::reader::{Field, Leaf, Reader, join, section};

section! {
    /// `[alerts.notify]`
    RawNotify {
        database: Text,
        channel: Text,
        user: Text,
        password: RawSecret,
        timeout: Timeout,
    }
}

/// Where alerts are sent by NOTIFY.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertNotify {
    /// Name of the database as clients give it; there is one.
    pub database: String,
    /// Default [`AlertNotify::CHANNEL`]; at most 63 bytes.
    pub channel: String,
    /// Role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<Password>,
    /// How long one attempt may take, on all hosts of the database together. Default 10 s; never 0.
    pub timeout: Duration,
}

impl AlertNotify {
    /// Default of [`AlertNotify::channel`].
    pub const CHANNEL: &str = "performance_alert";
    /// Default of [`AlertNotify::timeout`].
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

/// Longest name of a channel, in bytes: `NAMEDATALEN` less the closing zero (PostgreSQL `src/include/pg_config_manual.h`).
const CHANNEL_MAX: usize = 63;

impl Check<'_> {
    pub(super) fn alert_notify(
        &mut self,
        raw: Field<RawNotify>,
        databases: Option<&BTreeMap<String, Database>>,
    ) -> Option<AlertNotify> {
        let Field::Set(raw, section) = raw else { return None };
        let Some((name, at)) = raw.database.text().zip(raw.database.span()) else {
            if raw.database.is_absent() {
                let title = "`alerts.notify` does not say in which database";
                self.reader.note(section, title, |problem| problem.expected(r#"database = "NAME""#));
            }
            return None;
        };
        if let Field::Set(channel, span) = &raw.channel
            && channel.0.len() > CHANNEL_MAX
        {
            let expected = format!("at most {CHANNEL_MAX} bytes");
            self.reader.wrong_value("alerts.notify.channel", span.clone(), &expected, None);
        }
        if let Field::Set(_, span) = &raw.password
            && raw.user.is_absent()
        {
            let title = "`alerts.notify` has a password but no `user` it belongs to";
            self.reader.note(span.clone(), title, |problem| problem.expected("`user` and `password`, or neither"));
        }
        let Some(database) = databases?.get(&name) else {
            let title = format!("`alerts.notify.database` names `{name}`, which is no database");
            self.reader.note(at, title, |problem| problem.expected("the NAME of a section [databases.NAME]"));
            return None;
        };
        let own = raw.user.set().map(|user| user.0);
        let password = self.server_password(raw.password);
        let login = own.map(|user| (user, password));
        let login = login.or_else(|| Some((database.user.clone()?, database.password.clone())));
        let Some((user, password)) = login else {
            let title = format!("`alerts.notify` does not say as whom to log in to database `{name}`");
            let expected = "`user` and `password` there: the database has none that all its servers are opened with";
            self.reader.note(section, title, |problem| problem.expected(expected));
            return None;
        };
        Some(AlertNotify {
            database: name,
            channel: raw.channel.set().map_or_else(|| AlertNotify::CHANNEL.to_owned(), |text| text.0),
            user,
            password,
            timeout: raw.timeout.set().map_or(AlertNotify::TIMEOUT, |timeout| timeout.0),
        })
    }
}
