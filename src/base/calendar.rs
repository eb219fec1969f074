//! Seconds since 1970 as a date and a time of day.
//! Must never ask for a time zone: what is read on one machine is compared with what is read on another.

use std::fmt::{Display, Formatter, Result};

/// A moment of UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    days: u64,
    second: u64,
}

impl Moment {
    /// So many seconds after 1970 began.
    #[must_use]
    pub fn at(unix_s: u64) -> Self {
        Self { days: unix_s / 86_400, second: unix_s % 86_400 }
    }

    /// `2026-11-22`. By Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms"): years begin in March,
    /// so that leap days come last, and are counted in eras of 400, after which all repeats.
    #[must_use]
    pub fn date(self) -> impl Display {
        let days = self.days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Numbers([year_of_era + era * 400 + u64::from(month <= 2), month, day], '-')
    }

    /// `04:30:00`.
    #[must_use]
    pub fn time(self) -> impl Display {
        Numbers([self.second / 3600, self.second / 60 % 60, self.second % 60], ':')
    }
}

/// Three numbers with this between them.
struct Numbers([u64; 3], char);

impl Display for Numbers {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Self([a, b, c], between) = self;
        write!(f, "{a:02}{between}{b:02}{between}{c:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_200, "2024-03-01 00:00:00"),
            (1_798_761_599, "2026-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            let moment = Moment::at(seconds);
            assert_eq!(format!("{} {}", moment.date(), moment.time()), text);
        }
    }
}
