//! `[console]`: who may use the virtual database by which pgweir is watched and told what to do.
//! Must never let anybody in who is not listed.

use std::time::Duration;

use super::check::Check;
use super::reader::{Field, Span};
use super::schema::RawConsole;

/// The names of the virtual database: pgweir's own, and the one under which tools made for PgBouncer look for it.
pub const CONSOLE_DATABASES: [&str; 2] = ["pgweir", "pgbouncer"];

/// `[console]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// Users who may do everything there. Default: none.
    pub admin_users: Vec<String>,
    /// Users who may only look. Default: none.
    pub stats_users: Vec<String>,
    /// Over how long the averages of `SHOW STATS` go. Default 60 s; never 0.
    pub stats_period: Duration,
}

impl Default for Console {
    fn default() -> Self {
        Self { admin_users: Vec::new(), stats_users: Vec::new(), stats_period: Duration::from_secs(60) }
    }
}

impl Console {
    /// Whether a database of this name is the console.
    #[must_use]
    pub fn is(database: &str) -> bool {
        CONSOLE_DATABASES.contains(&database)
    }

    pub(super) fn of(raw: RawConsole) -> Self {
        let default = Self::default();
        let names = |texts: Field<super::leaf_auth::Texts>| {
            texts.set().map_or_else(Vec::new, |texts| texts.0.into_iter().map(|(name, _)| name).collect())
        };
        Self {
            admin_users: names(raw.admin_users),
            stats_users: names(raw.stats_users),
            stats_period: raw.stats_period.set().map_or(default.stats_period, |period| period.0),
        }
    }
}

impl Check<'_> {
    /// Notes a database that nobody could ever reach, as the console has its name.
    pub(super) fn reserved(&mut self, name: &str, span: &Span) {
        if Console::is(name) {
            let title = format!("no database can be named `{name}`: that is pgweir's console");
            let expected = r#"another name for clients; `dbname` says what the database is called on its servers"#;
            self.reader.note(span.clone(), title, |problem| problem.expected(expected));
        }
    }
}
