//! One number for how well it goes.
//! Must never take off a point without saying what for and what to do.
//!
//! 100, less for everything that fires: the points of its kind ([`Kind::points`]) for the first of a kind, and as much again for all
//! others of that kind together. Never below 0. What is pending or over takes nothing.

use super::board::{Alert, AlertState};
use super::kind::Kind;

/// Points taken off.
#[derive(Clone, Debug, PartialEq)]
pub struct Deduction {
    /// What for.
    pub kind: Kind,
    /// How many.
    pub points: u32,
    /// How many alerts of the kind fire.
    pub count: usize,
    /// What is the matter with the first of them.
    pub what: String,
}

/// How well it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// 0 to 100.
    pub score: u32,
    /// Why it is not 100, the most first.
    pub deductions: Vec<Deduction>,
}

impl Health {
    /// By these alerts.
    #[must_use]
    pub fn of(alerts: &[Alert]) -> Self {
        let mut deductions: Vec<Deduction> = Vec::new();
        for &kind in Kind::ALL {
            let of_kind: Vec<_> =
                alerts.iter().filter(|alert| alert.kind == kind && alert.state == AlertState::Firing).collect();
            let Some(first) = of_kind.first() else { continue };
            let points = kind.points() * if of_kind.len() > 1 { 2 } else { 1 };
            deductions.push(Deduction { kind, points, count: of_kind.len(), what: first.summary() });
        }
        deductions.sort_by_key(|deduction| std::cmp::Reverse(deduction.points));
        let lost: u32 = deductions.iter().map(|deduction| deduction.points).sum();
        Self { score: 100_u32.saturating_sub(lost), deductions }
    }
}
