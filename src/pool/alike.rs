//! Whether a standby answers under the same settings as the primary, where its clients say nothing of them.
//! Must never let reads run where they would be answered otherwise: in another time zone, with other digits, by another search path.
//!
//! What is set for roles and databases is replicated; what stands in configuration files is each server's own. Which settings: those that a
//! result hangs on, and no limit or cost.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

use super::cluster::{Cluster, Member, Standing};

/// What the members have said of their settings: a line each, `name=value`, in the same order everywhere.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<String>);

impl Settings {
    /// A member has these.
    pub(super) fn note(&mut self, number: usize, settings: String) {
        if self.0.len() <= number {
            self.0.resize(number + 1, String::new());
        }
        self.0[number] = settings;
    }

    /// What a member has other than another, as far as both have said it.
    fn apart(&self, number: usize, from: usize) -> Vec<(&str, &str)> {
        let of = |number: usize| self.0.get(number).filter(|said| !said.is_empty());
        let (Some(here), Some(there)) = (of(number), of(from)) else { return Vec::new() };
        here.lines().zip(there.lines()).filter(|(here, there)| here != there).collect()
    }
}

impl Cluster {
    /// A member has said what its settings are, before it says what it is.
    pub fn has_settings(&self, number: usize, settings: String) {
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        deciding.settings.note(number, settings);
        self.look_at_settings(&deciding.settings);
    }

    /// Whether the member may serve anybody's reads.
    pub(super) fn is_able(&self, member: &Member) -> bool {
        let is_standby = member.standing() == Standing::Standby && member.is_certain();
        is_standby && !self.may_stray(member) && !member.is_unlike()
    }

    /// Looks at all members again: one has said what its settings are, or another is the primary.
    pub(super) fn look_at_settings(&self, settings: &Settings) {
        let primary = self.primary();
        for (number, member) in self.members.iter().enumerate() {
            let apart = primary.map_or_else(Vec::new, |primary| settings.apart(number, primary));
            let is_unlike = !apart.is_empty();
            if is_unlike == member.unlike.swap(is_unlike, SeqCst) {
                continue;
            }
            if is_unlike {
                let apart = apart.iter().map(|(here, there)| format!("{here} (primary: {there})"));
                let settings = apart.collect::<Vec<_>>().join("; ");
                tracing::warn!(
                    server = %member.endpoint, %settings,
                    "the server would answer otherwise than the primary: it serves no reads until its settings are the same"
                );
            } else {
                tracing::info!(server = %member.endpoint, "the server has the settings of the primary");
            }
        }
    }
}

impl Member {
    /// It has other settings than the primary, as a result hangs on: it serves no reads.
    pub fn is_unlike(&self) -> bool {
        self.unlike.load(SeqCst)
    }

    /// It may follow another line than the primary: it serves no reads.
    pub fn strays(&self) -> bool {
        self.strays.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_said_nothing_is_like_all() {
        let mut settings = Settings::default();
        assert!(settings.apart(0, 2).is_empty());
        settings.note(2, "a=1\nb=2".into());
        assert!(settings.apart(0, 2).is_empty() && settings.apart(2, 0).is_empty());
        settings.note(0, "a=1\nb=3".into());
        assert_eq!(settings.apart(0, 2), [("b=3", "b=2")]);
        settings.note(0, "a=1\nb=2".into());
        assert!(settings.apart(0, 2).is_empty());
    }
}
