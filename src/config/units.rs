//! Durations (`"30s"`) and sizes (`"64KiB"`) as the configuration writes them.
//! Must never guess: a number without a unit, or with an unknown one, is no value.

use std::time::Duration;

/// The longest duration a configuration may name: a year. Deadlines are sums of a clock
/// reading and such a duration; the bound keeps every one of them representable.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Units of time, in microseconds, smallest first.
const TIMES: &[(&str, u64)] =
    &[("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// Units of size, in bytes. `K` with an `i` counts in 1024 (IEC 80000-13), without in 1000
/// (SI); `kB` is SI's own spelling of the latter.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Splits `"30s"` into 30 and `"s"`. The number has only digits: no sign, no fraction.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit.trim_start()))
}

/// Reads a duration: a whole number and one of `us`, `ms`, `s`, `m`, `h`, `d`; or `"0"`.
/// `None` for anything else, and for more than [`DURATION_MAX`].
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    if number == 0 && unit.is_empty() {
        return Some(Duration::ZERO);
    }
    let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
    let duration = Duration::from_micros(number.checked_mul(*factor)?);
    (duration <= DURATION_MAX).then_some(duration)
}

/// Writes a duration in the largest unit that holds it exactly; parts of a microsecond
/// are dropped. [`parse_duration`] reads it back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let us = duration.as_micros();
    if us == 0 {
        return "0".to_owned();
    }
    let exact = |(_, factor): &&(&str, u64)| us.is_multiple_of(u128::from(*factor));
    let (unit, factor) = TIMES.iter().rev().find(exact).copied().unwrap_or(("us", 1));
    format!("{}{unit}", us / u128::from(factor))
}

/// Reads a size in bytes: a whole number and one of `B`, `kB`/`KB`, `MB`, `GB` (of 1000),
/// `KiB`, `MiB`, `GiB` (of 1024), or none.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Writes a size in the largest unit of 1024 that holds it exactly, else as a plain number
/// of bytes. [`parse_size`] reads it back.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let exact = |(unit, factor): &&(&str, u64)| unit.ends_with("iB") && bytes != 0 && bytes.is_multiple_of(*factor);
    match SIZES.iter().rev().find(exact) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Some(500));
        assert_eq!(parse_duration("250us"), Some(Duration::from_micros(250)));
        assert_eq!(ms("30s"), Some(30_000));
        assert_eq!(ms("2m"), Some(120_000));
        assert_eq!(ms("1h"), Some(3_600_000));
        assert_eq!(ms("365d"), Some(DURATION_MAX.as_millis()));
        assert_eq!(ms("0"), Some(0));
        assert_eq!(ms("0s"), Some(0));
        for bad in ["", "30", "s", "-1s", "1.5s", "30S", "30sec", "366d", "1h30m", "99999999999999999999s"] {
            assert_eq!(ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("1MiB"), Some(1 << 20));
        assert_eq!(parse_size("16KB"), Some(16_000));
        assert_eq!(parse_size("16kB"), Some(16_000));
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("2 GiB"), Some(1 << 31));
        for bad in ["", "KiB", "-1", "1.5MiB", "64kib", "64K", "18446744073709551615KiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn round_trips() {
        for ms in [0, 1, 500, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000, 604_800_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_micros(1500)), "1500us");
        for bytes in [0, 1, 1000, 1023, 1024, 65_536, 1 << 20, 3 << 30, 0x3fff_fffe, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }
        assert_eq!(format_size(65_536), "64KiB");
    }
}
