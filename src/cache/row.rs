//! Rows that answers hang on by their keys: what a table's rows are told by, and one number for each key.
//! Must never give two texts of one value different numbers, nor read a value in another way than the server does.
//!
//! Whoever reads the row with one key needs to know of changes of that key only: of the row that has it, loses it or gets it. The stream tells what a row was
//! and is by the table's *replica identity*, its primary key where nothing else was chosen: when that changes, the old one comes as well. So what is
//! meant is a read by equality on all columns of that. Only columns of types count whose values are equal exactly if they are the same
//! number: integers of any width, and UUIDs. Where the stream says something else than the catalog (another key, a key that it
//! does not tell, too many rows in one transaction) all rows of the table are taken to have changed.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::wire::pgoutput::{KEY_COLUMNS, Told};

/// Types by OID (src/include/catalog/pg_type.dat): int8, int2, int4, uuid.
const INTEGERS: [u32; 3] = [20, 21, 23];
const UUID: u32 = 2950;

/// By what the rows of a table are told: columns with their types' OIDs, in the order of the table's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Box<[(Box<[u8]>, u32)]>);

impl Identity {
    /// Of JSON as `relay/stream_tables.sql` gives it, `[["id",23]]`; `None` if rows are not told so that answers could hang on one.
    #[must_use]
    pub fn of_json(text: &[u8]) -> Option<Self> {
        let columns: Vec<(String, u32)> = serde_json::from_slice(text).ok()?;
        let is_exact = |kind: u32| kind == UUID || INTEGERS.contains(&kind);
        let fits = (1..=KEY_COLUMNS).contains(&columns.len()) && columns.iter().all(|(_, kind)| is_exact(*kind));
        fits.then(|| Self(columns.into_iter().map(|(name, kind)| (name.into_bytes().into(), kind)).collect()))
    }

    /// How many columns it has: one at least.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.0.len()
    }

    /// Whether that is what the stream tells its rows by.
    #[must_use]
    pub fn is_as(&self, told: &[Told<'_>]) -> bool {
        let same = |((name, kind), told): (&(Box<[u8]>, u32), &Told<'_>)| **name == *told.name && *kind == told.kind;
        self.0.len() == told.len() && self.0.iter().zip(told).all(same)
    }

    /// The number of a key; `value` gives that of a column, by its place in the key, its name, and whether it is a UUID.
    pub fn key(&self, mut value: impl FnMut(usize, &[u8], bool) -> Option<u128>) -> Option<u64> {
        self.0.iter().enumerate().try_fold(0, |seed, (at, (name, kind))| {
            let value = value(at, name, *kind == UUID)?;
            Some(xxh3_64_with_seed(&value.to_be_bytes(), seed))
        })
    }

    /// The number of the key that the stream tells.
    #[must_use]
    pub fn key_told(&self, values: &[&[u8]; KEY_COLUMNS]) -> Option<u64> {
        self.key(|at, _, is_uuid| read(values.get(at)?, is_uuid))
    }
}

/// The number of a value in text.
#[must_use]
pub fn read(text: &[u8], is_uuid: bool) -> Option<u128> {
    if is_uuid { uuid(text) } else { integer(text) }
}

/// The number of a value in binary.
#[must_use]
pub fn read_binary(value: &[u8], is_uuid: bool) -> Option<u128> {
    let number = match *value {
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        ref bytes => return Some(u128::from_be_bytes(bytes.try_into().ok()?)).filter(|_| is_uuid),
    };
    Some(wide(number)).filter(|_| !is_uuid)
}

fn wide(number: i64) -> u128 {
    i128::from(number).cast_unsigned()
}

/// Digits with a sign or without, between blanks. What a server understands besides, as hexadecimal digits, is left alone.
fn integer(text: &[u8]) -> Option<u128> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    text.parse::<i64>().ok().map(wide)
}

/// As PostgreSQL writes it, in letters of either case. What it understands besides is left alone.
fn uuid(text: &[u8]) -> Option<u128> {
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let is_whole = text.len() == 36 && text.iter().enumerate().all(|(at, byte)| is_dash(at) == (*byte == b'-'));
    let mut digits = text.iter().filter(|byte| **byte != b'-');
    let digit = |number: u128, byte: &u8| Some(number << 4 | u128::from(char::from(*byte).to_digit(16)?));
    if is_whole { digits.try_fold(0, digit) } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(identity: &Identity, text: &str) -> Option<u64> {
        let mut values = [&b""[..]; KEY_COLUMNS];
        text.split(',').zip(&mut values).for_each(|(text, value)| *value = text.as_bytes());
        identity.key_told(&values)
    }

    #[test]
    fn one_value_has_one_number() {
        for (text, same) in [("5", &["05", "+5", " 5 ", "\t5\n"][..]), ("-5", &["-05"]), ("0", &["-0", "000"])] {
            let number = read(text.as_bytes(), false);
            assert!(number.is_some());
            same.iter().for_each(|same| assert_eq!(read(same.as_bytes(), false), number, "{same}"));
        }
        for (value, text) in [(&[0, 5][..], "5"), (&[0xff; 4], "-1"), (&[0, 0, 0, 0, 0, 0, 1, 0], "256")] {
            assert_eq!(read_binary(value, false), read(text.as_bytes(), false), "{text}");
            assert_eq!(read_binary(value, true), None);
        }
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        let number = read(uuid.as_bytes(), true).unwrap();
        assert_eq!(number, 0x123e_4567_e89b_12d3_a456_4266_1417_4000);
        assert_eq!(read(uuid.to_uppercase().as_bytes(), true), Some(number));
        assert_eq!(read_binary(&number.to_be_bytes(), true), Some(number));
        assert_eq!(read_binary(&number.to_be_bytes(), false), None);
    }

    #[test]
    fn what_may_be_another_value_has_none() {
        for text in ["", "5.0", "1e2", "0x10", "1_000", "9223372036854775808", "five", "5 5", "--5", "\u{a0}5"] {
            assert_eq!(read(text.as_bytes(), false), None, "{text}");
        }
        let short = "123e4567-e89b-12d3-a456-42661417400";
        for text in ["", "{123e4567-e89b-12d3-a456-426614174000}", "123e4567e89b12d3a456426614174000", short] {
            assert_eq!(read(text.as_bytes(), true), None, "{text}");
        }
        let binary = |value: &[u8], is_uuid| read_binary(value, is_uuid);
        assert_eq!((binary(&[5], false), binary(&[], false), binary(&[0; 15], true)), (None, None, None));
    }

    #[test]
    fn keys_are_told_apart() {
        let identity = |json: &str| Identity::of_json(json.as_bytes());
        let (one, two) = (identity(r#"[["id",23]]"#).unwrap(), identity(r#"[["a",20],["b",2950]]"#).unwrap());
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        assert_eq!(key(&one, "5"), key(&one, "05"));
        assert!(key(&one, "5").is_some() && key(&one, "5") != key(&one, "6") && key(&one, "x").is_none());
        assert!(key(&two, &format!("5,{uuid}")).is_some() && key(&two, "5,5").is_none() && key(&two, "5").is_none());
        let told = |name: &'static str, kind| Told { at: 0, name: name.as_bytes(), kind };
        assert!(two.is_as(&[told("a", 20), told("b", 2950)]) && two.columns() == 2);
        for other in [&[told("a", 20)][..], &[told("b", 2950), told("a", 20)], &[told("a", 23), told("b", 2950)], &[]] {
            assert!(!two.is_as(other), "{other:?}");
        }
        let many = r#"[["a",23],["b",23],["c",23],["d",23],["e",23]]"#;
        for bad in ["", "null", "[]", r#"[["id",25]]"#, many, r#"["id"]"#] {
            assert_eq!(identity(bad), None, "{bad}");
        }
    }
}
