//! `SHOW ALERTS`, `SHOW HEALTH`, `SHOW ADVICE`: what is alarming, how well it goes, and what could be better.
//! Must never look itself: it shows what was found.

use super::super::Console;
use super::super::table::row;
use super::super::time;
use super::Rows;
use crate::export::{Advice, advise};
use crate::health::{Alert, Unit};
use crate::relay::insight::Insight;
use crate::wire::error::PgError;

impl Console {
    pub(super) fn alerts(&self) -> Rows {
        let row = |alert: &Alert| {
            let unit = alert.kind.unit();
            let shown = |value| (unit != Unit::Flag).then(|| unit.shown(value));
            let place: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            row![
                alert.kind.name(),
                alert.kind.severity().as_str(),
                alert.state.as_str(),
                time::written(alert.since_unix_s as u64),
                place.join(" "),
                shown(alert.value),
                shown(alert.threshold),
                alert.summary(),
                alert.kind.action(),
            ]
        };
        self.about.watch.alerts().iter().map(row).collect()
    }

    /// What `/api/database/optimizations` says, too.
    pub(super) async fn advice(&self) -> Result<Rows, PgError> {
        let mut insight = Insight::default();
        self.each(|relay| relay.insight()).await?.into_iter().for_each(|one| insight.extend(one));
        let row = |it: Advice| {
            row![it.kind, it.database, it.user, it.count, it.time_us, it.shape, it.what, it.action, it.query]
        };
        Ok(advise(&self.about.registry, &self.config(), insight).into_iter().map(row).collect())
    }

    /// The score, then what was taken off and what for.
    pub(super) fn health(&self) -> Rows {
        let health = self.about.watch.health();
        let mut rows = vec![row!["score", i64::from(health.score), None::<&str>, None::<&str>]];
        for it in health.deductions {
            rows.push(row![it.kind.name(), -i64::from(it.points), it.what, it.kind.action()]);
        }
        rows
    }
}
