//! A moment in time as the configuration writes it: RFC 3339, also as a TOML date-time.
//! Must never guess a time zone.

use std::time::{Duration, SystemTime};

use toml::value::{Datetime, Offset};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The moment of a date-time that has a date, a time and an offset; nothing before 1970.
pub(super) fn moment(datetime: &Datetime) -> Option<SystemTime> {
    let (date, time) = (datetime.date?, datetime.time?);
    let offset_minutes = match datetime.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let clock = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    let seconds = u64::try_from(days * DAY + clock - offset_minutes * 60).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Days from 1970-01-01 in the Gregorian calendar: years are counted from March, so that the leap day is the last
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        // date -d … +%s
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T05:24:41Z", 1_795_238_681),
            ("2024-02-29T23:59:59+02:00", 1_709_243_999),
            ("2000-03-01 00:00:00-05:30", 951_888_600),
            ("2100-12-31T00:00:00.5Z", 4_133_894_400),
        ] {
            let found = moment(&text.parse().unwrap()).unwrap();
            assert_eq!(found.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["2026-11-21T05:24:41", "2026-11-21", "05:24:41", "1969-01-01T00:00:00Z"] {
            assert_eq!(moment(&text.parse().unwrap()), None, "{text}");
        }
    }
}
