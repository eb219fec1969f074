//! `SHOW QUERIES`, `SHOW SHAPE`, `SHOW ROUTING`: what is known of statements, by shape.
//! Must never show a value of a statement's, only its normalised text.

use std::collections::HashMap;

use super::super::Console;
use super::super::table::{Value, row};
use super::super::view::By;
use super::Rows;
use crate::meter::{Histogram, ShapeStats, ShapeSum};
use crate::relay::ShapeVerdict;
use crate::sql::footing::Footing;
use crate::wire::error::{PgError, SqlState};

/// A part of the time that statements of a shape have taken.
type Phase = fn(&ShapeStats) -> &Histogram;

/// The statement, and what it is called with where it runs.
fn label(stats: &ShapeStats) -> [Value; 3] {
    [ShapeSum::name(stats.shape).into(), (&*stats.pool.database).into(), (&*stats.pool.user).into()]
}

impl Console {
    /// All shapes with a call, by pool.
    fn entries(&self) -> Vec<ShapeSum> {
        ShapeSum::all(&self.about.registry)
    }

    pub(super) fn queries(&self, by: By) -> Rows {
        let mut rows: Vec<(u64, Vec<Value>)> = self.entries().iter().filter_map(|entries| query(entries, by)).collect();
        rows.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// What the grammar and the catalogs say of each shape; of two workers the one that knows more.
    async fn verdicts(&self) -> Result<HashMap<u64, ShapeVerdict>, PgError> {
        let mut known: HashMap<u64, ShapeVerdict> = HashMap::new();
        for verdict in self.each(|relay| relay.verdicts()).await?.into_iter().flatten() {
            let it = known.entry(verdict.shape).or_insert(verdict);
            it.footing = it.footing.or(verdict.footing);
            it.refused |= verdict.refused;
        }
        Ok(known)
    }

    pub(super) async fn routing(&self) -> Result<Rows, PgError> {
        let verdicts = self.verdicts().await?;
        let disabled = self.about.caches.store().map(|store| store.disabled()).unwrap_or_default();
        let mut all = self.entries();
        all.sort_by_key(|entries| std::cmp::Reverse(entries.sum(|stats| stats.calls.get())));
        let row = |entries: &ShapeSum| {
            let first = entries.first()?;
            let verdict = verdicts.get(&first.shape?);
            let mut row: Vec<Value> = label(first).into();
            row.extend(row![
                entries.sum(|stats| stats.calls.get()),
                verdict.map(|it| it.verdict.route.name()),
                verdict.map(|it| it.verdict.reason.code()),
                verdict.and_then(|it| it.footing).map(footing_name),
                verdict.is_some_and(|it| it.refused),
                disabled.contains(&(Box::from(&*first.pool.database), first.shape?)).then_some("disabled"),
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
        let of_it: Vec<ShapeSum> =
            self.entries().into_iter().filter(|entries| entries.first().is_some_and(|it| it.shape == shape)).collect();
        if of_it.is_empty() {
            let error = PgError::error(SqlState::UNDEFINED_OBJECT, format!("no statement of shape {wanted} is known"));
            return Err(error.hint("SHOW QUERIES lists the shapes. Rare ones are counted together as other."));
        }
        Ok(of_it.iter().flat_map(|entries| details(entries, verdict.as_ref())).collect())
    }
}

fn query(entries: &ShapeSum, by: By) -> Option<(u64, Vec<Value>)> {
    let first = entries.first()?;
    let total = entries.merged(|stats| &stats.total);
    let [calls, errors, rows, total_us] = [
        entries.sum(|stats| stats.calls.get()),
        entries.sum(|stats| stats.errors.get()),
        entries.sum(|stats| stats.rows.get()),
        entries.sum(|stats| stats.total_us.get()),
    ];
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
        entries.sum(|stats| stats.wait.sum_us()),
        entries.sum(|stats| stats.server.sum_us()),
        p50,
        p95,
        p99,
        total.max_us,
        entries.sum(|stats| stats.missed_us_max),
        &*first.text,
    ]);
    Some((weight, row))
}

/// Everything about a shape in one pool, an item a row.
fn details(entries: &ShapeSum, verdict: Option<&ShapeVerdict>) -> Rows {
    let Some(first) = entries.first() else { return Vec::new() };
    let mut items: Vec<(String, Value)> = vec![("query".into(), (&*first.text).into())];
    if let Some(it) = verdict {
        items.push(("verdict".into(), it.verdict.route.name().into()));
        items.push(("reason".into(), it.verdict.reason.code().into()));
        items.push(("reason_text".into(), it.verdict.reason.text().into()));
        items.push(("catalog".into(), it.footing.map(footing_name).into()));
        items.push(("refused".into(), if it.refused { "yes" } else { "no" }.into()));
    }
    let number = |number: u64| Value::from(number.to_string());
    for (name, of) in [
        ("calls", entries.sum(|stats| stats.calls.get())),
        ("errors", entries.sum(|stats| stats.errors.get())),
        ("rows", entries.sum(|stats| stats.rows.get())),
        ("missed_us_max", entries.sum(|stats| stats.missed_us_max)),
    ] {
        items.push((name.into(), number(of)));
    }
    let phases: [(&str, Phase); 3] =
        [("total", |stats| &stats.total), ("wait", |stats| &stats.wait), ("server", |stats| &stats.server)];
    for (phase, part) in phases {
        let all = entries.merged(part);
        items.push((format!("{phase}_us"), number(all.sum_us)));
        for (name, q) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)] {
            items.push((format!("{phase}_{name}_us"), number(all.quantile(q))));
        }
        items.push((format!("{phase}_max_us"), number(all.max_us)));
    }
    let row = |(item, value)| {
        let mut row: Vec<Value> = label(first).into();
        row.extend([Value::from(item), value]);
        row
    };
    items.into_iter().map(row).collect()
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
