//! Where a statement would go, and why: what `pgweir explain-route` and `EXPLAIN ROUTE` say.
//! Must never run the statement, nor ask a server anything.

use std::fmt::Write;
use std::sync::Arc;

use crate::config::{
    Config, Database, Destination, Endpoint, Fallback, HostGroup, PoolMode, Routing, RoutingRule, SessionState,
    format_duration,
};
use crate::pool::cluster::{Cluster, Member, Standing};
use crate::pool::rate::Bucket;
use crate::relay::insight::Said;
use crate::relay::pins::PINNING;
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
/// of them, if that has a say, and with its servers where they were asked what they are.
pub fn told_of(
    config: &Config,
    entry: &Database,
    (user, application): (&str, &str),
    sql: &str,
    catalog: Option<Result<Said, String>>,
    cluster: Option<&Cluster>,
) -> String {
    let scanned = scan(sql.as_bytes(), true);
    let mut verdict = classify(sql.as_bytes(), &scanned);
    let mut is_global = false;
    let heard = match catalog {
        None => None,
        Some(Ok(said)) => {
            verdict = verdict.and_catalog(said.footing);
            is_global = said.reads_globals;
            // It is read from whoever is the primary.
            let host = cluster.and_then(primary_of).map_or(said.host, ToString::to_string);
            Some(format!("as {host} has it"))
        }
        Some(Err(error)) => Some(format!("not asked, so that the grammar alone decides: {error}")),
    };
    let mut asks = wish(sql.as_bytes(), true);
    if asks == Wish::Replica && verdict.effects.any(PINNING) {
        // What it leaves in its session would keep that from the primary.
        asks = Wish::Auto;
    }
    let (mut out, mut of_rule) = (String::new(), String::new());
    let rule = rule(&mut of_rule, entry, user, application, sql, scanned.shape);
    let reads = may_read(config, entry, user, &verdict, asks, rule.as_ref());
    let _ = writeln!(out, "verdict:   {}", name(verdict.route, asks, reads));
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
    out.push_str(&of_rule);
    let servers = Servers::of(entry, cluster);
    let _ = writeln!(out, "server:    {}", server(config, entry, &servers, user, &verdict, asks, rule.as_ref()));
    if is_global && verdict.route == Route::Replica && reads {
        let _ = writeln!(
            out,
            "note:      it reads global_tables: it waits for a replica that has all that was committed before"
        );
    }
    if let Some(note) = note(&verdict, reads && asks != Wish::Standby) {
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

/// Of the verdict, and of a comment that overrules it.
fn name(route: Route, asks: Wish, reads: bool) -> String {
    let own = match route {
        Route::Replica => "replica",
        Route::Catalog => "replica if the catalog says so, else primary",
        Route::Primary => "primary",
        Route::BeginReadOnly => {
            "none yet; its reads to replicas one by one, and the primary from the first other statement on"
        }
        Route::FollowTransaction => "where its transaction is",
    };
    match (asks, route) {
        (Wish::Primary, Route::Replica | Route::Catalog | Route::BeginReadOnly) => {
            format!("primary, for which a comment asks; else {own}")
        }
        (Wish::Replica | Wish::Standby, Route::Primary) if reads => {
            format!("replica, for which a comment asks; else {own}")
        }
        _ => own.to_owned(),
    }
}

/// The member that takes writes, if that is known.
pub fn primary_of(cluster: &Cluster) -> Option<&Endpoint> {
    cluster.members.get(cluster.primary()?).map(|member| &member.endpoint)
}

/// What the servers of a database are to be called.
struct Servers {
    primary: String,
    replicas: String,
}

impl Servers {
    /// As they are known to be, else as the configuration has them.
    fn of(entry: &Database, cluster: Option<&Cluster>) -> Self {
        let spared = |host: &&Endpoint| !entry.reads.spared.contains(host);
        if let Some(cluster) = cluster
            && let Some(primary) = primary_of(cluster)
        {
            let others: Vec<&Member> = cluster.members.iter().filter(|member| member.endpoint != *primary).collect();
            let is_able = |member: &&&Member| matches!(member.standing(), Standing::Standby | Standing::Unknown);
            let able = list(others.iter().filter(is_able).map(|member| &member.endpoint).filter(spared), " or ");
            let all = list(others.iter().map(|member| &member.endpoint).filter(spared), " or ");
            let replicas = if able.is_empty() { all } else { able };
            return Self { primary: format!("{primary} (primary)"), replicas };
        }
        if entry.discover.is_none() && cluster.is_none() {
            let replicas = list(entry.replicas.iter(), " or ");
            return Self { primary: format!("{} (primary)", entry.primary), replicas };
        }
        // Nothing says which is which but they themselves.
        Self {
            primary: format!("the primary among {}", list(entry.hosts(), ", ")),
            replicas: format!("a replica among {}", list(entry.hosts().filter(spared), ", ")),
        }
    }
}

fn list<'a>(hosts: impl Iterator<Item = &'a Endpoint>, between: &str) -> String {
    hosts.map(ToString::to_string).collect::<Vec<_>>().join(between)
}

/// Whether reads of the database may go to replicas, for this user.
fn splits(config: &Config, entry: &Database, user: &str) -> bool {
    let in_session = config.terms(&entry.name, user).pool_mode == PoolMode::Session;
    !in_session && entry.routing == Routing::On && !entry.replicas.is_empty()
}

/// Whether a replica may be asked for the statement's answer.
fn may_read(
    config: &Config,
    entry: &Database,
    user: &str,
    verdict: &Verdict,
    asks: Wish,
    rule: Option<&RoutingRule>,
) -> bool {
    let is_refused = rule.is_some_and(|rule| rule.refuse.is_some());
    let stays = rule.and_then(|rule| rule.reads.as_ref()).is_some_and(|reads| reads.group == HostGroup::Primary);
    !is_refused
        && splits(config, entry, user)
        && match asks {
            Wish::Primary => false,
            Wish::Replica | Wish::Standby => true,
            Wish::Auto => verdict.route == Route::Replica && !stays,
        }
}

fn server(
    config: &Config,
    entry: &Database,
    servers: &Servers,
    user: &str,
    verdict: &Verdict,
    asks: Wish,
    rule: Option<&RoutingRule>,
) -> String {
    if rule.is_some_and(|rule| rule.refuse.is_some()) {
        return "none: the rule refuses it".into();
    }
    let Servers { primary, replicas } = servers;
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
            let group = list(hosts.iter(), " or ");
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
            SessionState::Strict | SessionState::PgBouncer => primary.clone(),
        },
        (Wish::Auto, false) => primary.clone(),
    }
}

/// What else decides. `retries`: the primary runs what a replica refuses.
fn note(verdict: &Verdict, retries: bool) -> Option<&'static str> {
    match verdict.reason {
        Reason::PureRead | Reason::VolatileRead | Reason::SessionSetting | Reason::StableRead if retries => {
            Some("should a replica refuse it the primary runs it, and its like from then on")
        }
        Reason::Unparsable => Some("the server's grammar may be newer than pgweir's"),
        _ => None,
    }
}
