//! `pgweir explain-route`: where a statement would go, and why.
//! Must never run the statement: servers are asked for their catalog at most.

use crate::auth::ServerSecret;
use crate::config::{Config, Database, Endpoint, MAX_HOSTS};
use crate::console::route::{asks_catalog, told};
use crate::relay::catalog_question;
use crate::relay::insight::Said;
use crate::server::open::{Dial, tls_of};
use crate::server::rows::rows;
use crate::sql::code::Code;

/// What to tell about one text of statements sent by `user` of `application` to `database`; the only one of the
/// configuration if it is not named. The catalog is asked for where it has a say.
///
/// # Errors
/// The database is not in the configuration, or not named though there are several.
pub fn explain(
    config: &Config,
    database: Option<&str>,
    user: &str,
    application: &str,
    sql: &str,
) -> Result<String, String> {
    let entry = entry(config, database)?;
    if entry.discover.is_some() && entry.primary == Endpoint::UNKNOWN {
        let config = found(config, &entry.name)?;
        return explain(&config, Some(&entry.name), user, application, sql);
    }
    let said = asks_catalog(sql).then(|| catalog(config, entry, user)).map(|heard| {
        let (code, host) = heard?;
        let (footing, reads_globals) = (code.footing(sql.as_bytes(), true), code.reads_globals(sql.as_bytes(), true));
        Ok(Said { footing, reads_globals, host: host.to_string() })
    });
    Ok(told(config, entry, (user, application), sql, said))
}

/// The configuration with the servers of this database as they are now.
fn found(config: &Config, database: &str) -> Result<Config, String> {
    let mut config = config.clone();
    config.databases.retain(|name, _| name == database);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(super::discover::fill(&mut config, None));
    let known = config.databases.values().all(|entry| entry.primary != Endpoint::UNKNOWN);
    if known { Ok(config) } else { Err(format!("nobody tells who the servers of \"{database}\" are")) }
}

/// The code that the database has, by the primary or the first server found that answers, and which that is.
fn catalog(config: &Config, entry: &Database, user: &str) -> Result<(Code, Endpoint), String> {
    let mut failed = Vec::new();
    // Of those that were found out nothing says which is the primary.
    for host in entry.hosts().take(if entry.discover.is_some() { MAX_HOSTS } else { 1 }) {
        match catalog_of(config, entry, host, user) {
            Ok(code) => return Ok((code, host.clone())),
            Err(error) => failed.push(error),
        }
    }
    Err(failed.join("; "))
}

fn catalog_of(config: &Config, entry: &Database, host: &Endpoint, user: &str) -> Result<Code, String> {
    let (login, password) = match (config.users.get(user), &entry.user) {
        (Some(known), _) => entry.server_login(known),
        (None, Some(forced)) => (forced.as_str(), entry.password.as_ref()),
        (None, None) => (user, None),
    };
    let tls = tls_of(entry).map_err(|error| error.to_string())?;
    let dial = Dial::new(config, entry, host, login, ServerSecret::of(password.cloned()), tls);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map_err(|error| error.to_string())?.block_on(rows(&dial, &catalog_question()));
    let code = Code::new(&asked.map_err(|error| format!("{host}: {error}"))?, is_global(entry));
    if code.is_too_large { Err("the database has too much code".into()) } else { Ok(code) }
}

/// Which tables of the database are global.
fn is_global(entry: &Database) -> impl Fn(&[u8], &[u8]) -> bool {
    |schema, name| entry.reads.global_tables.iter().any(|table| table.is(schema, name))
}

fn entry<'a>(config: &'a Config, database: Option<&str>) -> Result<&'a Database, String> {
    let names = || config.databases.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match (database, config.databases.len()) {
        (Some(name), _) => config
            .databases
            .get(name)
            .ok_or_else(|| format!("no database \"{name}\" in the configuration: it has {}", names())),
        (None, 1) => config.databases.values().next().ok_or_else(String::new),
        (None, _) => Err(format!("which database? --database is one of {}", names())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(file: &str, database: Option<&str>, sql: &str) -> Result<String, String> {
        let config = Config::parse(file, "test.toml").unwrap();
        Ok(super::told(&config, entry(&config, database)?, ("app", "psql"), sql, None))
    }

    const TWO: &str = "[databases.a]\nprimary = \"h1:1\"\nreplicas = [\"h2:2\", \"h3:3\"]\n\
        [databases.b]\nprimary = \"h4:4\"\n[users.app]\npassword = \"secret\"\n";

    #[test]
    fn says_where_and_why() {
        for (database, sql, expected) in [
            ("a", "SELECT 1", "verdict:   replica\nreason:    pure_read ("),
            ("a", "SELECT 1", "server:    h2:2 or h3:3; h1:1 (primary) while"),
            ("a", "SELECT nextval('s')", "reason:    function_denied ("),
            ("a", "SELECT nextval('s')", "server:    h1:1 (primary)\n"),
            (
                "a",
                "BEGIN READ ONLY",
                "server:    none yet; h2:2 or h3:3 for its reads if it is READ COMMITTED, h1:1 (primary) from",
            ),
            ("a", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "server:    h1:1 (primary)\n"),
            ("a", "/* pgweir: standby */ TABLE t", "server:    h2:2 or h3:3, else an error"),
            ("b", "SELECT 1", "server:    h4:4 (primary): routing is off"),
            ("b", "SELECT 1 /* pgweir: standby */", "server:    none"),
        ] {
            let told = told(TWO, Some(database), sql).unwrap();
            assert!(told.contains(expected), "{sql}:\n{told}");
        }
    }

    #[test]
    fn names_the_rule_that_counts() {
        let file = format!(
            "{TWO}[databases.a.groups]\nsecond = [\"h3:3\"]\n[databases.a.pools.slow]\npool_size = 3\n\
            [[databases.a.rules]]\ntable = \"t\"\nrefuse = \"not here\"\n\
            [[databases.a.rules]]\nname = \"it\"\napplication_name = \"ps*\"\npool = \"slow\"\ngroup = \"second\"\n\
            rate = 7\ntimeout = \"30s\"\n"
        );
        for (sql, expected) in [
            ("TABLE t", "rule:      #1 (refused: not here)\nserver:    none: the rule refuses it\n"),
            ("SELECT 1", "server:    h3:3; another replica or h1:1 (primary) while"),
            (
                "SELECT 1",
                "rule:      it (pool slow; reads to the group second, else replicas; at most 7 a second; query_timeout 30s)\n",
            ),
        ] {
            let told = told(&file, Some("a"), sql).unwrap();
            assert!(told.contains(expected), "{sql}:\n{told}");
        }
        assert!(!told(&file, Some("b"), "SELECT 1").unwrap().contains("rule:"));
    }

    #[test]
    fn asks_who_the_servers_are() {
        let file = "[databases.a]\ndiscover = [\"dns://127.0.0.1:1\", \"dns://127.0.0.2:1\"]\n[users.app]\npassword = \"secret\"\n";
        let config = Config::parse(file, "test.toml").unwrap();
        let told = explain(&config, None, "app", "", "SELECT 1").unwrap();
        let both = "127.0.0.1:1, 127.0.0.2:1";
        assert!(told.contains(&format!("server:    a replica among {both}; the primary among {both} while")), "{told}");
        assert!(told.contains("catalog:   not asked, so that the grammar alone decides: 127.0.0.1:1: "), "{told}");
        let config = Config::parse(&file.replace("127.0.0.", "nowhere.invalid."), "test.toml").unwrap();
        assert!(explain(&config, None, "app", "", "SELECT 1").is_err());
    }

    #[test]
    fn wants_to_know_the_database() {
        assert!(told(TWO, None, "SELECT 1").unwrap_err().contains("one of a, b"));
        assert!(told(TWO, Some("c"), "SELECT 1").unwrap_err().contains("it has a, b"));
    }
}
