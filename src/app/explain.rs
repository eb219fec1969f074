//! `pgweir explain-route`: where a statement would go, and why.
//! Must never run the statement: servers are asked for their catalog at most.

use std::time::Duration;

use crate::auth::ServerSecret;
use crate::config::{Config, Database, Endpoint, MAX_HOSTS, Roles};
use crate::console::route::{asks_catalog, primary_of, told_of};
use crate::pool::cluster::{Cluster, Says};
use crate::relay::catalog_question;
use crate::relay::insight::Said;
use crate::server::open::{Dial, OpenError, tls_of};
use crate::server::position::{Asker, Place};
use crate::server::rows::rows;
use crate::sql::code::Code;

/// What to tell about one text of statements sent by `user` of `application` to `database`; the only one of the
/// configuration if it is not named. The servers are asked which one is the primary, and that for the catalog where it has a say.
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
    let (cluster, unasked) = match roles(config, entry, user) {
        Ok(cluster) => (cluster, None),
        Err(error) => (None, Some(error)),
    };
    let cluster = cluster.as_ref();
    let said = asks_catalog(sql).then(|| catalog(config, entry, cluster, user)).map(|heard| {
        let (code, host) = heard?;
        let (footing, reads_globals) = (code.footing(sql.as_bytes(), true), code.reads_globals(sql.as_bytes(), true));
        Ok(Said { footing, reads_globals, host: host.to_string() })
    });
    let mut told = told_of(config, entry, (user, application), sql, said, cluster);
    if let Some(error) = unasked {
        told.push_str(&format!("hosts:     not asked which one is the primary: {error}\n"));
    }
    Ok(told)
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

/// The servers of a database, as they say what they are; `None` where nobody has to be asked. An error if none of them says it.
fn roles(config: &Config, entry: &Database, user: &str) -> Result<Option<Cluster>, String> {
    let is_certain = entry.discover.is_none() && (entry.replicas.is_empty() || entry.roles == Roles::Declared);
    if is_certain {
        return Ok(None);
    }
    let hosts: Vec<&Endpoint> = entry.hosts().take(MAX_HOSTS).collect();
    let dials = hosts.iter().map(|host| dial(config, entry, host, user)).collect::<Result<Vec<_>, _>>()?;
    let cluster = Cluster::new(hosts.into_iter().cloned(), Roles::Found);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let all = dials.len();
    let failed = tokio::task::LocalSet::new().block_on(&runtime, hear(config, &cluster, dials));
    if failed.len() < all { Ok(Some(cluster)) } else { Err(failed.join("; ")) }
}

/// Asks all members at once what they are; what went wrong.
async fn hear(config: &Config, cluster: &Cluster, dials: Vec<Dial>) -> Vec<String> {
    let limit = config.pool.check_timeout;
    let asked: Vec<_> = dials.into_iter().map(|dial| tokio::task::spawn_local(place(dial, limit))).collect();
    let mut failed = Vec::new();
    for (number, (task, member)) in asked.into_iter().zip(cluster.members.iter()).enumerate() {
        let error = match task.await {
            Ok(Ok(place)) => {
                let (standby, lsn) = (place.standby, place.lsn.unwrap_or(0));
                let (shown, timeline) = (place.shown.unwrap_or(lsn), place.timeline.unwrap_or(0));
                cluster.heard(number, member.ask(), Says { standby, lsn, shown, timeline });
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        cluster.is_down(number);
        failed.push(format!("{}: {error}", member.endpoint));
    }
    failed
}

async fn place(dial: Dial, limit: Duration) -> Result<Place, OpenError> {
    Asker::connect(&dial, limit).await?.role().await
}

/// The code that the database has, by the primary or, if nobody knows that, the first server that answers of those that
/// may be it, and which that is.
fn catalog(
    config: &Config,
    entry: &Database,
    cluster: Option<&Cluster>,
    user: &str,
) -> Result<(Code, Endpoint), String> {
    let hosts: Vec<&Endpoint> = match cluster.and_then(primary_of) {
        Some(primary) => vec![primary],
        // Of those that were found out nothing says which is the primary.
        None => entry.hosts().take(if entry.discover.is_some() { MAX_HOSTS } else { 1 }).collect(),
    };
    let mut failed = Vec::new();
    for host in hosts {
        match catalog_of(config, entry, host, user) {
            Ok(code) => return Ok((code, host.clone())),
            Err(error) => failed.push(error),
        }
    }
    Err(failed.join("; "))
}

fn catalog_of(config: &Config, entry: &Database, host: &Endpoint, user: &str) -> Result<Code, String> {
    let dial = dial(config, entry, host, user)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = runtime.map_err(|error| error.to_string())?.block_on(rows(&dial, &catalog_question()));
    let code = Code::new(&asked.map_err(|error| format!("{host}: {error}"))?, is_global(entry));
    if code.is_too_large { Err("the database has too much code".into()) } else { Ok(code) }
}

/// How a server is opened for who asks.
fn dial(config: &Config, entry: &Database, host: &Endpoint, user: &str) -> Result<Dial, String> {
    let (login, password) = match (config.users.get(user), &entry.user) {
        (Some(known), _) => entry.server_login(known),
        (None, Some(forced)) => (forced.as_str(), entry.password.as_ref()),
        (None, None) if user.is_empty() => return Err("nobody to log in as: give --user".into()),
        (None, None) => (user, None),
    };
    let tls = tls_of(entry).map_err(|error| error.to_string())?;
    Ok(Dial::new(config, entry, host, login, ServerSecret::of(password.cloned()), tls))
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
        Ok(told_of(&config, entry(&config, database)?, ("app", "psql"), sql, None, None))
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
    fn names_who_is_the_primary_by_now() {
        let config = Config::parse(TWO, "test.toml").unwrap();
        let entry = entry(&config, Some("a")).unwrap();
        let cluster = Cluster::new(entry.hosts().cloned(), Roles::Found);
        let told = |sql: &str| {
            let host = "h1:1".to_owned();
            let said = Said { footing: Code::default().footing(sql.as_bytes(), true), reads_globals: false, host };
            told_of(&config, entry, ("app", ""), sql, Some(Ok(said)), Some(&cluster))
        };
        let says = |standby| Says { standby, lsn: 1, shown: 1, timeline: 2 };
        cluster.heard(0, 1, says(true));
        assert!(told("DELETE FROM t").contains("server:    the primary among h1:1, h2:2, h3:3\n"));
        cluster.is_down(2);
        cluster.heard(1, 1, says(false));
        assert!(told("DELETE FROM t").contains("server:    h2:2 (primary)\n"));
        let read = told("SELECT 1");
        assert!(read.contains("server:    h1:1; h2:2 (primary) while"), "{read}");
        assert!(read.contains("catalog:   as h2:2 has it\n"), "{read}");
    }

    #[test]
    fn says_of_replicas_only_what_is_asked_of_them() {
        let refusing = format!("{TWO}[[databases.a.rules]]\ntable = \"t\"\nrefuse = \"not here\"\n");
        let note = "note:      should a replica refuse it";
        for (sql, verdict, has_note) in [
            ("SELECT 1", "replica\n", true),
            ("TABLE t", "replica\n", false),
            ("/* pgweir: primary */ SELECT 1", "primary, for which a comment asks; else replica\n", false),
            ("/* pgweir: replica */ SELECT 1", "replica\n", true),
            ("/* pgweir: standby */ SELECT 1", "replica\n", false),
            ("/* pgweir: replica */ SELECT nextval('s')", "replica, for which a comment asks; else primary\n", false),
        ] {
            let told = told(&refusing, Some("a"), sql).unwrap();
            assert!(told.starts_with(&format!("verdict:   {verdict}")), "{sql}:\n{told}");
            assert_eq!(told.contains(note), has_note, "{sql}:\n{told}");
        }
        assert!(!told(TWO, Some("b"), "SELECT 1").unwrap().contains(note));
    }

    #[test]
    fn wants_to_know_the_user() {
        let config = Config::parse(TWO, "test.toml").unwrap();
        let told = explain(&config, Some("a"), "", "", "SELECT 1").unwrap();
        for what in [
            "catalog:   not asked, so that the grammar alone decides: ",
            "hosts:     not asked which one is the primary: ",
        ] {
            assert!(told.contains(&format!("{what}nobody to log in as: give --user\n")), "{told}");
        }
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
