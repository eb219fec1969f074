//! Where a statement would go, and why: what `pgweir explain-route` and `EXPLAIN ROUTE` say.
//! Must never run the statement, nor ask a server anything.

use std::fmt::Write;
use std::sync::Arc;

use crate::config::{
    Config, Database, Destination, Endpoint, Fallback, HostGroup, PoolMode, Routing, RoutingRule, SessionState,
    format_duration,
};
use crate::pool::rate::Bucket;
use crate::relay::insight::Said;
use crate::relay::rules::Rules;
use crate::sql::classify::classify;
use crate::sql::shape::scan;
use crate::sql::verdict::{Reason, Route, Verdict};
use crate::sql::wish::{Wish, wish};

/// Whether the catalog of the database has a say in where these statements go.
#[must_use]
pub fn asks_catalog(sql: &str) -> bool {
    let verdict = classify(sql.as_bytes(), &scan(sql.as_bytes(), true));
    matches!(verdict.route, Route::Replica | Route::Catalog)
}

/// What to tell about one text of statements sent by a user of an application to a database, with what its catalog says
/// of them, if that has a say.
pub fn told(
    config: &Config,
    entry: &Database,
    (user, application): (&str, &str),
    sql: &str,
    catalog: Option<Result<Said, String>>,
) -> String {
    let scanned = scan(sql.as_bytes(), true);
    let mut verdict = classify(sql.as_bytes(), &scanned);
    let mut is_global = false;
    let heard = match catalog {
        None => None,
        Some(Ok(said)) => {
            verdict = verdict.and_catalog(said.footing);
            is_global = said.reads_globals;
            Some(format!("as {} has it", said.host))
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
    out
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
