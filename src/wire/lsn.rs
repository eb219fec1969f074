//! Positions in the write-ahead log as text.
//! Must never take half a position for one.

/// Reads `XXXXXXXX/XXXXXXXX` (`pg_lsn_in_internal`, src/backend/utils/adt/pg_lsn.c).
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |digits: &str| {
        let good = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| good)
    };
    Some(u64::from(part(high)?) << 32 | u64::from(part(low)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_positions() {
        assert_eq!(parse_lsn("0/1"), Some(1));
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("FFFFFFFF/FFFFFFFF"), Some(u64::MAX));
        for bad in ["", "1", "/1", "1/", "1/g", "100000000/0", "1/2/3", "+1/2", "0/000000001"] {
            assert_eq!(parse_lsn(bad), None, "{bad}");
        }
    }
}
