//! Which alerts fire, and since when.
//! Must never let one come and go: it fires after having been so for a time, and is over at another mark than it fired at.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::Finding;
use super::kind::{Kind, Unit};

/// Alerts that are over and still shown, at most.
const RESOLVED_MAX: usize = 100;
/// For how long they are.
const RESOLVED_FOR_US: u64 = 900_000_000;

/// How an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    /// Above its mark, not for long enough yet.
    Pending,
    /// It fires.
    Firing,
    /// It did, and is over.
    Resolved,
}

impl AlertState {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What an alert is about: names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// An alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// What is the matter.
    pub kind: Kind,
    /// Where.
    pub labels: Labels,
    /// How it stands.
    pub state: AlertState,
    /// Since when, seconds since 1970.
    pub since_unix_s: f64,
    /// When it began to fire, seconds since 1970; `None` while pending.
    pub fired_unix_s: Option<f64>,
    /// What was found last.
    pub value: f64,
    /// The mark at which it fires.
    pub threshold: f64,
    since_us: u64,
}

impl Alert {
    /// One line for people.
    #[must_use]
    pub fn summary(&self) -> String {
        let place: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let value = self.marks().map(|(value, threshold)| format!(": {value}, limit {threshold}"));
        format!("{} ({}){}", self.kind.what(), place.join(", "), value.unwrap_or_default())
    }

    /// Value and threshold for people; `None` of what is so or is not.
    #[must_use]
    pub fn marks(&self) -> Option<(String, String)> {
        let unit = self.kind.unit();
        (unit != Unit::Flag).then(|| (unit.shown(self.value), unit.shown(self.threshold)))
    }
}

/// All alerts.
#[derive(Debug, Default)]
pub(super) struct Board {
    alerts: BTreeMap<(Kind, Labels), Alert>,
}

impl Board {
    /// Takes note of what was found; the alerts that have begun to fire, or are over. What is not found any more is over.
    pub(super) fn note(&mut self, findings: Vec<Finding>, now_us: u64, now_unix_s: f64) -> Vec<Alert> {
        let mut changed = Vec::new();
        let mut seen: Vec<(Kind, Labels)> = Vec::with_capacity(findings.len());
        for finding in findings {
            let key = (finding.kind, finding.labels.clone());
            self.found(&key, &finding, (now_us, now_unix_s), &mut changed);
            seen.push(key);
        }
        for (key, alert) in &mut self.alerts {
            if !seen.contains(key) && alert.state == AlertState::Firing {
                alert.turn(AlertState::Resolved, now_us, now_unix_s);
                changed.push(alert.clone());
            }
        }
        self.alerts.retain(|key, alert| match alert.state {
            AlertState::Pending => seen.contains(key),
            AlertState::Firing => true,
            AlertState::Resolved => now_us.saturating_sub(alert.since_us) < RESOLVED_FOR_US,
        });
        self.forget_oldest();
        changed
    }

    fn found(&mut self, key: &(Kind, Labels), finding: &Finding, now: (u64, f64), changed: &mut Vec<Alert>) {
        let (now_us, now_unix_s) = now;
        let known = self.alerts.get(key).map(|alert| alert.state);
        match known {
            None | Some(AlertState::Resolved) if finding.fires => {
                let alert = Alert {
                    kind: finding.kind,
                    labels: finding.labels.clone(),
                    state: AlertState::Pending,
                    since_unix_s: now_unix_s,
                    fired_unix_s: None,
                    value: finding.value,
                    threshold: finding.threshold,
                    since_us: now_us,
                };
                self.alerts.insert(key.clone(), alert);
            }
            Some(AlertState::Pending) if !finding.fires => {
                self.alerts.remove(key);
            }
            _ => {}
        }
        let Some(alert) = self.alerts.get_mut(key) else { return };
        if alert.state != AlertState::Resolved {
            (alert.value, alert.threshold) = (finding.value, finding.threshold);
        }
        let was_for = Duration::from_micros(now_us.saturating_sub(alert.since_us));
        match alert.state {
            AlertState::Pending if was_for >= finding.after => {
                alert.turn(AlertState::Firing, now_us, now_unix_s);
                alert.fired_unix_s = Some(now_unix_s);
                changed.push(alert.clone());
            }
            AlertState::Firing if finding.clears => {
                alert.turn(AlertState::Resolved, now_us, now_unix_s);
                changed.push(alert.clone());
            }
            AlertState::Pending | AlertState::Firing | AlertState::Resolved => {}
        }
    }

    /// Of those that are over no more than there is room for.
    fn forget_oldest(&mut self) {
        let mut over: Vec<(u64, (Kind, Labels))> = self
            .alerts
            .iter()
            .filter(|(_, alert)| alert.state == AlertState::Resolved)
            .map(|(key, alert)| (alert.since_us, key.clone()))
            .collect();
        if over.len() > RESOLVED_MAX {
            over.sort();
            for (_, key) in over.iter().take(over.len() - RESOLVED_MAX) {
                self.alerts.remove(key);
            }
        }
    }

    /// All of them: firing ones first, then pending, then resolved.
    pub(super) fn all(&self) -> Vec<Alert> {
        let mut all: Vec<Alert> = self.alerts.values().cloned().collect();
        all.sort_by_key(|alert| match alert.state {
            AlertState::Firing => 0,
            AlertState::Pending => 1,
            AlertState::Resolved => 2,
        });
        all
    }
}

impl Alert {
    fn turn(&mut self, state: AlertState, now_us: u64, now_unix_s: f64) {
        (self.state, self.since_us, self.since_unix_s) = (state, now_us, now_unix_s);
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
