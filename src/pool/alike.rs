//! Whether a standby answers under the same settings as the primary, where its clients say nothing of them.
//! Must never let reads run where they would be answered otherwise: in another time zone, with other digits, by another search path.
//!
//! What is set for roles and databases is replicated; what stands in configuration files is each server's own. Which settings: those that a
//! result hangs on, and no limit or cost.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

use super::cluster::{Cluster, Member, Standing};

/// What the members have said of their settings: a line each, `name=value`, in the same order everywhere; and a summary of what is set for
/// roles and databases.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<(String, String)>);

/// What of a member's settings is not as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Those of the server.
    pub of_server: bool,
    /// Those of a role or database, which connections have from their start.
    pub of_roles: bool,
}

impl Settings {
    /// A member has these.
    pub(super) fn note(&mut self, number: usize, settings: String, of_roles: String) -> Changed {
        if self.0.len() <= number {
            self.0.resize_with(number + 1, Default::default);
        }
        let before = std::mem::replace(&mut self.0[number], (settings, of_roles));
        let (is_first, now) = (before.0.is_empty(), &self.0[number]);
        Changed { of_server: !is_first && before.0 != now.0, of_roles: !is_first && before.1 != now.1 }
    }

    /// What a member has other than another, as far as both have said it.
    fn apart(&self, number: usize, from: usize) -> Vec<(&str, &str)> {
        let of = |number: usize| self.0.get(number).map(|said| &said.0).filter(|said| !said.is_empty());
        let (Some(here), Some(there)) = (of(number), of(from)) else { return Vec::new() };
        here.lines().zip(there.lines()).filter(|(here, there)| here != there).collect()
    }
}

impl Cluster {
    /// A member has said what its settings are, before it says what it is, at `now_us`. What has changed since it did so last.
    pub fn has_settings(&self, number: usize, (settings, of_roles): (String, String), now_us: u64) -> Changed {
        let mut deciding = self.deciding.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = deciding.settings.note(number, settings, of_roles);
        self.look_at_settings(&deciding.settings);
        if changed.of_roles {
            self.roles_set_us.store(now_us, SeqCst);
        }
        changed
    }

    /// When it was noticed last that settings of roles or databases are others, microseconds; 0: never. Connections opened before may have others than
    /// new ones.
    pub fn roles_set_us(&self) -> u64 {
        self.roles_set_us.load(SeqCst)
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
        let note = |settings: &mut Settings, number, text: &str| settings.note(number, text.into(), "7".into());
        assert_eq!(note(&mut settings, 2, "a=1\nb=2"), Changed::default());
        assert!(settings.apart(0, 2).is_empty() && settings.apart(2, 0).is_empty());
        note(&mut settings, 0, "a=1\nb=3");
        assert_eq!(settings.apart(0, 2), [("b=3", "b=2")]);
        assert_eq!(note(&mut settings, 0, "a=1\nb=2"), Changed { of_server: true, of_roles: false });
        assert!(settings.apart(0, 2).is_empty());
        assert_eq!(note(&mut settings, 0, "a=1\nb=2"), Changed::default());
        assert_eq!(settings.note(0, "a=1\nb=2".into(), "8".into()), Changed { of_server: false, of_roles: true });
    }
}
