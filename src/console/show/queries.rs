//! `SHOW QUERIES`, `SHOW SHAPE`, `SHOW ROUTING`: what is known of statements, by shape.
//! Must never show a value of a statement's, only its normalised text.

use std::collections::HashMap;

use super::super::Console;
use super::super::table::{Value, row};
use super::super::time::moment;
use super::super::view::By;
use super::Rows;
use crate::export::joined_plans;
use crate::meter::{Counter, ERROR_CLASSES, Lately, Phase, ShapeStats, ShapeSum};
use crate::relay::ShapeVerdict;
use crate::sql::footing::Footing;
use crate::wire::error::{PgError, SqlState};

/// The statement, and what it is called with where it runs.
fn label(stats: &ShapeStats) -> [Value; 3] {
    [ShapeSum::name(stats.shape).into(), (&*stats.pool.database).into(), (&*stats.pool.user).into()]
}

impl Console {
    /// All shapes with a call since the last reset, by pool.
    fn entries(&self) -> Vec<(ShapeSum, Lately)> {
        let all = ShapeSum::all(&self.about.registry).into_iter();
        all.filter_map(|entries| entries.lately().map(|lately| (entries, lately))).collect()
    }

    pub(super) fn queries(&self, by: By) -> Rows {
        let mut rows: Vec<(u64, Vec<Value>)> =
            self.entries().iter().filter_map(|(entries, lately)| query(entries, lately, by)).collect();
        rows.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// The statements that were slow lately, newest first.
    pub(super) async fn slow(&self) -> Result<Rows, PgError> {
        let mut all: Vec<_> = self.each(|relay| relay.slow_queries()).await?.into_iter().flatten().collect();
        all.sort_by_key(|it| std::cmp::Reverse(it.done_us));
        let row = |it: crate::relay::SlowQuery| {
            let tags = it.tags_text();
            row![
                moment(it.done_us),
                ShapeSum::name(Some(it.shape)),
                it.database,
                it.user,
                &*it.host,
                it.role.as_str(),
                it.sample.wait_us + it.sample.server_us,
                it.sample.wait_us,
                it.sample.first_us,
                it.sample.server_us,
                it.sample.rows,
                it.code.map(|code| code.as_str().to_owned()),
                it.lag_us,
                it.rode,
                it.client.map(|client| client.to_string()),
                &*it.application_name,
                &*it.text,
                it.why.name(),
                tags,
                it.parameters.as_deref(),
            ]
        };
        Ok(all.into_iter().map(row).collect())
    }

    /// How servers would run the statements of each shape, those of one together, the plan that was seen last first.
    pub(super) async fn plans(&self) -> Result<Rows, PgError> {
        let mut all = joined_plans(self.each(|relay| relay.plans().0).await?.into_iter().flatten().collect());
        all.sort_by(|a, b| (&a.database, &a.user, a.shape).cmp(&(&b.database, &b.user, b.shape)));
        let rows = |of: crate::relay::insight::ShapePlans| {
            let count = of.plans.len();
            let row = move |(number, it): (usize, &crate::relay::insight::KnownPlan)| {
                row![
                    ShapeSum::name(Some(of.shape)),
                    of.database.as_str(),
                    of.user.as_str(),
                    moment(it.first_us),
                    moment(it.last_us),
                    it.seen,
                    it.calls,
                    it.mean_us(),
                    it.plan.cost.round() as u64,
                    number + 1 == count,
                    &*it.host,
                    &*it.plan.outline,
                ]
            };
            of.plans.iter().enumerate().rev().map(row).collect::<Rows>()
        };
        Ok(all.into_iter().flat_map(rows).collect())
    }

    /// What the grammar and the catalogs say of each shape; of two workers the one that knows more.
    async fn verdicts(&self) -> Result<HashMap<u64, ShapeVerdict>, PgError> {
        Ok(ShapeVerdict::by_shape(self.each(|relay| relay.verdicts()).await?.into_iter().flatten()))
    }

    pub(super) async fn routing(&self) -> Result<Rows, PgError> {
        let verdicts = self.verdicts().await?;
        let disabled = self.about.caches.store().map(|store| store.disabled()).unwrap_or_default();
        let mut all = self.entries();
        all.sort_by_key(|(_, lately)| std::cmp::Reverse(lately.calls));
        let row = |(entries, lately): &(ShapeSum, Lately)| {
            let first = entries.first()?;
            let verdict = verdicts.get(&first.shape?);
            let mut row: Vec<Value> = label(first).into();
            row.extend(row![
                lately.calls,
                verdict.map(|it| it.verdict.route.name()),
                verdict.map(|it| it.verdict.reason.code()),
                verdict.and_then(|it| it.footing).map(footing_name),
                verdict.is_some_and(|it| it.refused),
                disabled.contains_key(&(Box::from(&*first.pool.database), first.shape?)).then_some("disabled"),
                verdict.map(|it| self.sharing(first, it)),
                &*first.text,
            ]);
            Some(row)
        };
        Ok(all.iter().filter_map(row).collect())
    }

    pub(super) async fn shape(&self, wanted: &str) -> Result<Rows, PgError> {
        let shape = match wanted {
            "other" => None,
            hex => Some(u64::from_str_radix(hex, 16).map_err(|_| {
                let error = PgError::error(SqlState::INVALID_TEXT, format!("\"{hex}\" is no shape"));
                error.hint("A shape is 16 hexadecimal digits, or other, as SHOW QUERIES has it.")
            })?),
        };
        let verdict = match shape {
            Some(shape) => self.verdicts().await?.remove(&shape),
            None => None,
        };
        let mut of_it = self.entries();
        of_it.retain(|(entries, _)| entries.first().is_some_and(|it| it.shape == shape));
        if of_it.is_empty() {
            let error = PgError::error(SqlState::UNDEFINED_OBJECT, format!("no statement of shape {wanted} is known"));
            return Err(error.hint("SHOW QUERIES lists the shapes. Rare ones are counted together as other."));
        }
        let details = |(entries, lately): &(ShapeSum, Lately)| {
            let first = entries.first()?;
            let sharing = verdict.as_ref().map(|it| self.sharing(first, it));
            Some(details(first, entries, lately, verdict.as_ref().zip(sharing)))
        };
        Ok(of_it.iter().filter_map(details).flatten().collect())
    }

    /// Whether statements of a shape share servers: `rides`, or why they do not, as far as that hangs on the shape.
    fn sharing(&self, of: &ShapeStats, verdict: &ShapeVerdict) -> &'static str {
        match verdict.unfit {
            _ if !self.config().terms(&of.pool.database, &of.pool.user).lanes => "off",
            Some(why) => why.name(),
            None => "rides",
        }
    }
}

fn query(entries: &ShapeSum, lately: &Lately, by: By) -> Option<(u64, Vec<Value>)> {
    let first = entries.first()?;
    let &Lately { calls, errors, rows, total_us, .. } = lately;
    let total = lately.phase(Phase::Total);
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| total.quantile(q));
    let weight = match by {
        By::Total => total_us,
        By::P99 => p99,
        By::Calls => calls,
        By::Errors => errors,
    };
    let mut row: Vec<Value> = label(first).into();
    row.extend(row![
        calls,
        errors,
        rows,
        total_us,
        lately.phase(Phase::Wait).sum_us,
        lately.phase(Phase::Server).sum_us,
        p50,
        p95,
        p99,
        total.max_us,
        lately.missed_us_max,
        &*first.text,
    ]);
    Some((weight, row))
}

/// Everything about a shape in one pool, an item a row.
fn details(
    first: &ShapeStats,
    entries: &ShapeSum,
    lately: &Lately,
    verdict: Option<(&ShapeVerdict, &'static str)>,
) -> Rows {
    let mut items: Vec<(String, Value)> = vec![("query".into(), (&*first.text).into())];
    if let Some((it, sharing)) = verdict {
        items.push(("verdict".into(), it.verdict.route.name().into()));
        items.push(("reason".into(), it.verdict.reason.code().into()));
        items.push(("reason_text".into(), it.verdict.reason.text().into()));
        items.push(("catalog".into(), it.footing.map(footing_name).into()));
        items.push(("refused".into(), if it.refused { "yes" } else { "no" }.into()));
        items.push(("lanes".into(), sharing.into()));
    }
    let number = |number: u64| Value::from(number.to_string());
    for (name, of) in [
        ("calls", lately.calls),
        ("errors", lately.errors),
        ("rows", lately.rows),
        ("bytes", lately.bytes),
        ("missed_us_max", lately.missed_us_max),
    ] {
        items.push((name.into(), number(of)));
    }
    for phase in [Phase::Total, Phase::Wait, Phase::FirstByte, Phase::Server, Phase::Write] {
        let (phase, all) = (phase.name(), lately.phase(phase));
        items.push((format!("{phase}_us"), number(all.sum_us)));
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)] {
            items.push((format!("{phase}_{name}_us"), number(all.quantile(q))));
        }
        items.push((format!("{phase}_max_us"), number(all.max_us)));
    }
    items.extend(since_start(entries));
    let row = |(item, value)| {
        let mut row: Vec<Value> = label(first).into();
        row.extend([Value::from(item), value]);
        row
    };
    items.into_iter().map(row).collect()
}

/// What is counted since the start only, whatever was reset: who has answered, and what failed for what.
fn since_start(entries: &ShapeSum) -> Vec<(String, Value)> {
    let number = |number: u64| Value::from(number.to_string());
    let mut items = Vec::new();
    for (at, class) in ERROR_CLASSES.iter().enumerate() {
        let count = entries.sum(|stats| stats.errors_of.get(at).map_or(0, Counter::get));
        items.extend((count > 0).then(|| (format!("errors_{class}"), number(count))));
    }
    for (target, of_it) in entries.by_target() {
        let total = of_it.merged(Phase::Total);
        items.push((format!("{}: calls", target.name()), number(of_it.sum(|stats| stats.calls.get()))));
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            items.push((format!("{}: total_{name}_us", target.name()), number(total.quantile(q))));
        }
    }
    items
}

/// What the catalog says: where it may run, or why on the primary.
fn footing_name(footing: Footing) -> &'static str {
    match footing {
        Footing::Safe => "safe",
        Footing::Alone => "alone",
        Footing::Timed => "timed",
        Footing::TimedAlone => "timed_alone",
        Footing::Optimistic => "optimistic",
        Footing::Primary(reason) => reason.code(),
    }
}
