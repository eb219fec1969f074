//! `pgweir explain-route`: where a statement would go, and why.
//! Must never run the statement: servers are asked for their catalog at most.

use std::fmt::Write;
use std::sync::Arc;

use crate::auth::ServerSecret;
use crate::config::{
    Config, Database, Destination, Endpoint, Fallback, HostGroup, MAX_HOSTS, PoolMode, Routing, RoutingRule,
    SessionState, format_duration,
};
use crate::pool::rate::Bucket;
use crate::relay::catalog_question;
use crate::relay::rules::Rules;
use crate::server::open::{Dial, tls_of};
use crate::server::rows::rows;
use crate::sql::classify::classify;
use crate::sql::code::Code;
use crate::sql::shape::scan;
use crate::sql::verdict::{Reason, Route, Verdict};
use crate::sql::wish::{Wish, wish};

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
    let verdict = classify(sql.as_bytes(), &scan(sql.as_bytes(), true));
    let asks = matches!(verdict.route, Route::Replica | Route::Catalog);
    told(config, entry, (user, application), sql, asks.then(|| catalog(config, entry, user)))
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

/// With what was heard of the catalog, if it was asked for.
fn told(
    config: &Config,
    entry: &Database,
    (user, application): (&str, &str),
    sql: &str,
    catalog: Option<Result<(Code, Endpoint), String>>,
) -> Result<String, String> {
    let scanned = scan(sql.as_bytes(), true);
    let mut verdict = classify(sql.as_bytes(), &scanned);
    let mut is_global = false;
    let heard = match catalog {
        None => None,
        Some(Ok((code, host))) => {
            verdict = verdict.and_catalog(code.footing(sql.as_bytes(), true));
            is_global = code.reads_globals(sql.as_bytes(), true);
            Some(format!("as {host} has it"))
        }
        Some(Err(error)) => Some(format!("not asked, so that the grammar alone decides: {error}")),
    };
    let asks = wish(sql.as_bytes(), true);
    let mut out = String::new();
    let _ = writeln!(out, "verdict:   {}", name(verdict.route));
    let _ = writeln!(out, "reason:    {} ({})", verdict.reason.code(), verdict.reason.text());
    if let Some(heard) = heard {
        let _ = writeln!(out, "catalog:   {heard}");
    }
    let _ = writeln!(out, "statement: {:?}, shape {:016x}", verdict.kind, scanned.shape);
    if !verdict.effects.is_empty() {
        let _ = writeln!(out, "effects:   {:?}", verdict.effects);
    }
    if asks != Wish::Auto {
        let _ = writeln!(out, "asks for:  {asks:?}, in a comment");
    }
    let rule = rule(&mut out, entry, user, application, sql, scanned.shape);
    let _ = writeln!(out, "server:    {}", server(config, entry, user, &verdict, asks, rule.as_ref()));
    if is_global && verdict.route == Route::Replica {
        let _ = writeln!(
            out,
            "note:      it reads global_tables: it waits for a replica that has all that was committed before"
        );
    }
    if let Some(note) = note(&verdict) {
        let _ = writeln!(out, "note:      {note}");
    }
    Ok(out)
}

/// The rule that counts, and what it does.
fn rule(
    out: &mut String,
    entry: &Database,
    user: &str,
    application: &str,
    sql: &str,
    shape: u64,
) -> Option<RoutingRule> {
    let settings = vec![(b"application_name".to_vec(), application.as_bytes().to_vec())];
    let rules = Rules::new(entry, user, |_, rate| Arc::new(Bucket::new(rate)))?;
    let fitting = rules.fitting(&settings);
    let fits = rules.fit(&fitting, shape, sql.as_bytes(), true);
    let rule = &rules.of(rules.first(&fitting, fits))?.rule;
    let pool = rule.pool.and_then(|number| entry.steering.pools.get(number));
    let reads = rule.reads.as_ref().map(|Destination { group, fallback }| {
        let group = match group {
            HostGroup::Primary => "to the primary".to_owned(),
            HostGroup::Replicas => format!("to replicas, else {fallback}"),
            HostGroup::Named(name, _) => format!("to the group {name}, else {fallback}"),
        };
        format!("reads {group}")
    });
    let says = [
        rule.refuse.as_ref().map(|text| format!("refused: {text}")),
        pool.map(|pool| format!("pool {}", pool.name)),
        reads,
        (!rule.lanes).then(|| "on servers of their own".to_owned()),
        rule.rate.map(|rate| format!("at most {rate} a second")),
        rule.timeout.map(|timeout| format!("query_timeout {}", format_duration(timeout))),
    ];
    let says = says.into_iter().flatten().collect::<Vec<_>>().join("; ");
    let _ = writeln!(out, "rule:      {} ({})", rule.name, if says.is_empty() { "as without rules" } else { &says });
    Some(rule.clone())
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

/// Of the verdict.
fn name(route: Route) -> &'static str {
    match route {
        Route::Replica => "replica",
        Route::Catalog => "replica if the catalog says so, else primary",
        Route::Primary => "primary",
        Route::BeginReadOnly => {
            "none yet; its reads to replicas one by one, and the primary from the first other statement on"
        }
        Route::FollowTransaction => "where its transaction is",
    }
}

fn server(
    config: &Config,
    entry: &Database,
    user: &str,
    verdict: &Verdict,
    asks: Wish,
    rule: Option<&RoutingRule>,
) -> String {
    if rule.is_some_and(|rule| rule.refuse.is_some()) {
        return "none: the rule refuses it".into();
    }
    let list = |hosts: &mut dyn Iterator<Item = &Endpoint>| hosts.map(ToString::to_string).collect::<Vec<_>>();
    let (primary, replicas) = match entry.discover {
        None => (format!("{} (primary)", entry.primary), list(&mut entry.replicas.iter()).join(" or ")),
        // Nothing says which is which but they themselves.
        Some(_) => {
            let spared = |host: &&Endpoint| !entry.reads.spared.contains(host);
            let replicas = list(&mut entry.hosts().filter(spared)).join(", ");
            (
                format!("the primary among {}", list(&mut entry.hosts()).join(", ")),
                format!("a replica among {replicas}"),
            )
        }
    };
    let reads = verdict.route == Route::Replica;
    let terms = config.terms(&entry.name, user);
    if terms.pool_mode == PoolMode::Session {
        return format!("{primary}: in session mode a client keeps one server");
    }
    if entry.routing == Routing::Off || entry.replicas.is_empty() {
        return match asks {
            Wish::Standby => "none: it asks for a standby, and reads are not sent to any".into(),
            _ => format!("{primary}: routing is off"),
        };
    }
    match (asks, reads) {
        (Wish::Primary, _) => format!("{primary}: it asks for that"),
        (Wish::Standby, _) => format!("{replicas}, else an error: it asks for that"),
        (Wish::Replica, _) => format!("{replicas}, else {primary}: it asks for that"),
        (Wish::Auto, true)
            if let Some(Destination { group, fallback }) = rule.and_then(|rule| rule.reads.as_ref())
                && *group != HostGroup::Replicas =>
        {
            let HostGroup::Named(_, hosts) = group else { return format!("{primary}: the rule sends it there") };
            let group = list(&mut hosts.iter()).join(" or ");
            match fallback {
                Fallback::Replicas => format!("{group}; another replica or {primary} while these may not serve it"),
                Fallback::Primary => format!("{group}; {primary} while these may not serve it"),
                Fallback::Fail => format!("{group}; an error while these may not serve it"),
            }
        }
        (Wish::Auto, true) => {
            format!(
                "{replicas}; {primary} while these lack what the client wrote, and inside of transactions that may write"
            )
        }
        (Wish::Auto, false) if verdict.route == Route::BeginReadOnly => match terms.session_state {
            SessionState::Transparent => format!(
                "none yet; {replicas} for its reads if it is READ COMMITTED, {primary} from the first other statement on"
            ),
            SessionState::Strict | SessionState::PgBouncer => primary,
        },
        (Wish::Auto, false) => primary,
    }
}

/// What else decides.
fn note(verdict: &Verdict) -> Option<&'static str> {
    match verdict.reason {
        Reason::PureRead | Reason::VolatileRead | Reason::SessionSetting | Reason::StableRead => {
            Some("should a replica refuse it the primary runs it, and its like from then on")
        }
        Reason::Unparsable => Some("the server's grammar may be newer than pgweir's"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(file: &str, database: Option<&str>, sql: &str) -> Result<String, String> {
        let config = Config::parse(file, "test.toml").unwrap();
        super::told(&config, entry(&config, database)?, ("app", "psql"), sql, None)
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
