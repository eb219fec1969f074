//! Checks of a database's groups, pools and rules: what they name, and whether each can ever count.
//! Must never refuse a rule that could fit something.

use std::collections::HashMap;

use super::check::Check;
use super::endpoint::Endpoint;
use super::leaf::Text;
use super::leaf_rules::Listed;
use super::problem::nearest;
use super::reader::{Field, Named, Span, one_of};
use super::reads::Routing;
use super::rules::{
    BUILT_IN, DEFAULT_POOL, Destination, Fallback, HostGroup, RULES_MAX, RoutingRule, Steering, When, Workload,
};
use super::schema::{RawRule, RawWorkload};

/// Most pools of a database: a client's is kept as a byte.
const POOLS_MAX: usize = 255;

/// What a database has of each kind.
pub(super) struct RawSteering {
    pub(super) groups: Field<Named<Vec<Endpoint>>>,
    pub(super) pools: Field<Named<RawWorkload>>,
    pub(super) rules: Field<Listed<RawRule>>,
}

/// What rules may name. `None` for a section that cannot be read: nothing certain can be said about it.
struct Names {
    groups: HashMap<String, Option<Vec<Endpoint>>>,
    /// In the order of the pools, with where each sends reads.
    pools: Vec<(String, Option<Destination>)>,
    /// Not all of them could be read.
    broken: bool,
    routing: Routing,
}

impl Check<'_> {
    /// `hosts` are the servers of the database `name`; `None` if they could not all be read.
    pub(super) fn steering(
        &mut self,
        name: &str,
        raw: RawSteering,
        hosts: Option<&[Endpoint]>,
        routing: Routing,
    ) -> Steering {
        let broken = matches!(raw.groups, Field::Bad) || matches!(raw.pools, Field::Bad);
        let mut names = Names { groups: HashMap::new(), pools: Vec::new(), broken, routing };
        for (group, span, endpoints) in raw.groups.set().unwrap_or_default().0 {
            self.group(name, &group, span, endpoints.as_deref(), hosts);
            names.groups.insert(group, endpoints);
        }
        let mut pools = Vec::new();
        for (pool, span, raw) in raw.pools.set().unwrap_or_default().0 {
            if pool == DEFAULT_POOL || pools.len() >= POOLS_MAX {
                let title = match pools.len() {
                    POOLS_MAX => format!("database `{name}` has more than {POOLS_MAX} pools"),
                    _ => format!("`{pool}` is what the pool is called that is there anyway"),
                };
                self.reader.note(span.clone(), title, |problem| problem.expected("another name, or no such section"));
            }
            let Some(raw) = raw else {
                names.broken = true;
                continue;
            };
            if raw.pool_size.is_absent() {
                let title = format!("pool `{pool}` of database `{name}` has no size");
                self.reader.note(span.clone(), title, |problem| problem.expected("pool_size = 10"));
            }
            let reads = self.destination(&names, &raw.group, &raw.fallback);
            names.pools.push((pool.clone(), reads));
            pools.push((span, workload(pool, raw)));
        }
        let rules = self.routing_rules(name, raw.rules, &names);
        for (number, (span, pool)) in pools.iter().enumerate() {
            if rules.iter().all(|rule| rule.pool != Some(number)) && !names.broken {
                let title = format!("no rule sends anybody to the pool `{}`", pool.name);
                self.reader.warn(span.clone(), title, &format!("[[databases.{name}.rules]] with `pool`"));
            }
        }
        Steering { pools: pools.into_iter().map(|(_, pool)| pool).collect(), rules }
    }

    /// Notes what is wrong with a group.
    fn group(
        &mut self,
        name: &str,
        group: &str,
        span: Span,
        endpoints: Option<&[Endpoint]>,
        hosts: Option<&[Endpoint]>,
    ) {
        if BUILT_IN.contains(&group) {
            let title = format!("the group `{group}` is there anyway");
            self.reader.note(span.clone(), title, |problem| problem.expected("another name"));
        }
        let Some(endpoints) = endpoints else { return };
        if endpoints.is_empty() {
            let title = format!("the group `{group}` has no servers");
            self.reader.note(span.clone(), title, |problem| problem.expected(r#"["host:5432"]"#));
        }
        let Some(hosts) = hosts else { return };
        for endpoint in endpoints.iter().filter(|endpoint| !hosts.contains(endpoint)) {
            let title = format!("{endpoint} in the group `{group}` is not a server of database `{name}`");
            let known = one_of(hosts.iter().map(ToString::to_string));
            self.reader.note(span.clone(), title, |problem| problem.expected(known));
        }
    }

    fn routing_rules(&mut self, name: &str, raw: Field<Listed<RawRule>>, names: &Names) -> Vec<RoutingRule> {
        let mut rules: Vec<RoutingRule> = Vec::new();
        let span = raw.span().unwrap_or_default();
        for (number, (span, raw)) in raw.set().unwrap_or_default().0.into_iter().enumerate() {
            let Some(raw) = raw else { continue };
            let (named, whole) = (raw.name.span(), raw.is_whole());
            let rule = self.routing_rule(number, raw, names);
            if let Some(named) = named.clone()
                && rules.iter().any(|other| other.name == rule.name)
            {
                let title = format!("another rule of database `{name}` is called `{}`", rule.name);
                self.reader.note(named, title, |problem| problem.expected("a name of its own, or none"));
            }
            if let Some(other) = rules.iter().find(|other| whole && other.when.covers(&rule.when)) {
                let title = format!("this rule can never count: whatever fits it fits rule `{}` before it", other.name);
                self.reader.note(span, title, |problem| problem.expected("another order, or other conditions"));
            }
            rules.push(rule);
        }
        if rules.len() > RULES_MAX {
            let title = format!("database `{name}` has {} rules", rules.len());
            self.reader.note(span, title, |problem| problem.expected(format!("at most {RULES_MAX}")));
        }
        rules
    }

    fn routing_rule(&mut self, number: usize, raw: RawRule, names: &Names) -> RoutingRule {
        let acts = [raw.group.span(), raw.pool.span(), raw.rate.span(), raw.timeout.span(), raw.lanes.span()];
        if !raw.refuse.is_absent()
            && let Some(span) = acts.into_iter().flatten().next()
        {
            let title = "a rule that refuses does nothing else";
            self.reader.note(span, title, |problem| problem.expected("`refuse` alone, or a rule without it"));
        }
        let own = self.destination(names, &raw.group, &raw.fallback);
        let pool = self.named_pool(names, &raw.pool);
        let of_pool = pool.and_then(|number| names.pools.get(number)).and_then(|(_, reads)| reads.clone());
        RoutingRule {
            name: raw.name.text().unwrap_or_else(|| format!("#{}", number + 1)),
            reads: own.or(of_pool),
            pool,
            refuse: raw.refuse.text(),
            rate: raw.rate.number().map(|(rate, _)| rate),
            timeout: raw.timeout.set().map(|wait| wait.0),
            lanes: raw.lanes.set().unwrap_or(true),
            cache_ttl: raw.cache_ttl.set(),
            when: When {
                user: raw.user.set().unwrap_or_default(),
                application_name: raw.application_name.set().unwrap_or_default(),
                table: raw.table.set().unwrap_or_default(),
                schema: raw.schema.set().unwrap_or_default(),
                shape: raw.shape.set().map_or_else(Vec::new, |shapes| shapes.0),
                tag: raw.tag.set().map_or_else(Vec::new, |tags| tags.0),
            },
        }
    }

    /// The pool that a rule names.
    fn named_pool(&mut self, names: &Names, field: &Field<Text>) -> Option<usize> {
        let (pool, span) = field.text().zip(field.span())?;
        let number = names.pools.iter().position(|(known, _)| *known == pool);
        if number.is_none() && !names.broken {
            let title = format!("there is no pool `{pool}`");
            let known = names.pools.iter().map(|(name, _)| name.as_str());
            let hint = nearest(&pool, known.clone());
            let expected = match one_of(known.map(|name| format!("{name:?}"))) {
                none if none.is_empty() => "a section [databases.NAME.pools.POOL]".to_owned(),
                known => known,
            };
            self.reader.note(span, title, |problem| problem.expected(expected).did_you_mean(hint));
        }
        number
    }

    /// Where a `group` and a `fallback` send reads.
    fn destination(
        &mut self,
        names: &Names,
        group: &Field<Text>,
        fallback: &Field<super::leaf::Word<Fallback>>,
    ) -> Option<Destination> {
        if let Some(span) = fallback.span()
            && group.is_absent()
        {
            let title = "`fallback` says where reads go whose group cannot serve them, and there is no `group`";
            self.reader.note(span, title, |problem| problem.expected("`group` next to it"));
        }
        let (group, span) = group.text().zip(group.span())?;
        if names.routing == Routing::Off {
            let title = "reads go nowhere but to the primary: `routing` is off, or there are no replicas";
            self.reader.note(span.clone(), title, |problem| problem.expected("no `group`, or replicas and `routing`"));
        }
        let fallback = fallback.word(Fallback::Replicas)?;
        let group = match &group[..] {
            "primary" => HostGroup::Primary,
            "replicas" => HostGroup::Replicas,
            _ => match names.groups.get(&group) {
                Some(endpoints) => HostGroup::Named(group, endpoints.clone()?),
                None if names.broken => return None,
                None => {
                    let title = format!("there is no group `{group}`");
                    let known = || names.groups.keys().map(String::as_str).chain(BUILT_IN);
                    let hint = nearest(&group, known());
                    let expected = one_of(known().map(|name| format!("{name:?}")));
                    self.reader.note(span, title, |problem| problem.expected(expected).did_you_mean(hint));
                    return None;
                }
            },
        };
        Some(Destination { group, fallback })
    }
}

impl RawRule {
    /// All of its conditions could be read.
    fn is_whole(&self) -> bool {
        let globs = [&self.user, &self.application_name, &self.table, &self.schema];
        !globs.into_iter().any(|field| matches!(field, Field::Bad))
            && !matches!(self.shape, Field::Bad)
            && !matches!(self.tag, Field::Bad)
    }
}

fn workload(name: String, raw: RawWorkload) -> Workload {
    Workload {
        name,
        // One without a size was noted.
        pool_size: raw.pool_size.set().map_or(1, |n| n.0),
        query_wait_timeout: raw.query_wait_timeout.set().map(|wait| wait.0),
        query_timeout: raw.query_timeout.set().map(|wait| wait.0),
    }
}
