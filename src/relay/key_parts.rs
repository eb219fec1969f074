//! What the key of an answer says of the statement, and of what it was given.
//! Must never be taken for more than the key of an answer: it is read as `super::cached` puts it together.

use crate::cache::feed::Tables;
use crate::cache::key::Fields;
use crate::cache::pattern::Said;
use crate::cache::row::{Identity, read, read_binary};
use crate::cache::{Feed, Traced};
use crate::sql::by_key::Value;
use crate::sql::code::Code;

/// Types of parameters that are compared with integers and UUIDs as what they are: of none is said what they are, then the server takes them for
/// what they are compared with; and int8, int2, int4, uuid (src/include/catalog/pg_type.dat).
const KINDS: [u32; 5] = [0, 20, 21, 23, 2950];

/// Most relations of which an answer hangs on single rows: partitions, above all.
const MOST: usize = 32;

/// Relations, each with the number of a key of its rows.
pub(super) type Keys = [(u32, u64)];

/// The parts of a key.
struct Parts<'a> {
    conforming: bool,
    text: &'a [u8],
    /// Types of the parameters as its Parse has them, and its Bind behind the names.
    given: Option<(&'a [u8], &'a [u8])>,
    tags: Vec<&'a [u8]>,
}

fn parts(key: &[u8]) -> Option<Parts<'_>> {
    let mut fields = Fields::of(key);
    // How often the schema was changed, whose it is, the timeline.
    let _ = (fields.number()?, fields.field()?, fields.number()?);
    let conforming = fields.number()? != 0;
    // Settings.
    fields.field()?;
    let (protocol, text) = (fields.number()?, fields.field()?);
    let given = if protocol > 0 { Some((fields.field()?, fields.field()?)) } else { None };
    let mut tags = Vec::new();
    while !fields.is_at_end() {
        tags.push(fields.field()?);
    }
    Some(Parts { conforming, text, given, tags })
}

/// What patterns are held against.
pub(super) fn said_by(key: &[u8]) -> Option<Said<'_>> {
    let Parts { text, given, tags, .. } = parts(key)?;
    Some(Said { text, bind: given.map(|(_, bind)| bind), tags })
}

/// The keys of the rows that an answer hangs on, one for each of the relations that its statement reads; `None` if it hangs on others as well.
pub(super) fn rows_of(key: &[u8], code: &Code, relations: &[u32], tables: &Tables) -> Option<Box<Keys>> {
    if relations.is_empty() || relations.len() > MOST {
        return None;
    }
    // Before anything is read.
    let identities = relations.iter().map(|oid| Some((*oid, tables.get(oid)?.identity.as_ref()?)));
    let identities = identities.collect::<Option<Vec<_>>>()?;
    let Parts { conforming, text, given, .. } = parts(key)?;
    code.by_key(text, conforming, |conditions| {
        let number = |name: &[u8], is_uuid: bool| {
            let of_column = conditions.iter().filter(|(column, _)| **column == *name);
            of_column.filter_map(|(_, value)| number(*value, is_uuid, given)).next()
        };
        let key =
            |(oid, identity): &(u32, &Identity)| Some((*oid, identity.key(|_, name, is_uuid| number(name, is_uuid))?));
        identities.iter().map(key).collect()
    })
}

/// The number that a value is, if it is certain.
fn number(value: Value<'_>, is_uuid: bool, given: Option<(&[u8], &[u8])>) -> Option<u128> {
    match value {
        Value::Number(_, _) if is_uuid => None,
        Value::Number(false, digits) => read(digits, false),
        Value::Number(true, digits) => read(&[b"-", digits].concat(), false),
        Value::Text(text) => read(text, is_uuid),
        Value::Param(number) => {
            let (types, bind) = given?;
            if !KINDS.contains(&kind(types, number)?) {
                return None;
            }
            let (value, is_binary) = param(bind, number)?;
            if is_binary { read_binary(value, is_uuid) } else { read(value, is_uuid) }
        }
    }
}

/// The type of a parameter as a Parse has it.
fn kind(types: &[u8], number: usize) -> Option<u32> {
    let (count, listed) = types.split_first_chunk::<2>()?;
    if number > usize::from(u16::from_be_bytes(*count)) {
        return Some(0);
    }
    crate::wire::frame::be_u32(listed.get(number.checked_sub(1)? * 4..)?)
}

/// The value of a parameter, and whether it is in binary; `None` if it is NULL or not there.
fn param(bind: &[u8], number: usize) -> Option<(&[u8], bool)> {
    let count = |bytes: &[u8]| Some(usize::from(u16::from_be_bytes(*bytes.first_chunk::<2>()?)));
    let formats = count(bind)?;
    let (formats, rest) = bind.get(2..)?.split_at_checked(formats * 2)?;
    let (all, mut rest) = (count(rest)?, rest.get(2..)?);
    for at in 0..all.min(number) {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, behind) = behind.split_at_checked(length.unwrap_or(0))?;
        if at + 1 == number {
            let place = if formats.len() == 2 { 0 } else { at * 2 };
            let is_binary = formats.get(place..place + 2).is_some_and(|format| format != [0, 0]);
            return length.map(|_| (value, is_binary));
        }
        rest = behind;
    }
    None
}

/// What the read hangs on that is about to begin, by what it was known to be when it was asked.
pub(super) fn traced(feed: &Feed, relations: &[u32], rows: Option<&Keys>, replayed: Option<u64>) -> Option<Traced> {
    rows.map_or_else(|| feed.trace(relations, replayed), |rows| feed.trace_rows(rows, replayed))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_with_their_types() {
        let mut bind = b"\0\x02\0\0\0\x01\0\x03".to_vec();
        bind.extend_from_slice(b"\0\0\0\x015\0\0\0\x02\0\x07\xff\xff\xff\xff\0\0");
        assert_eq!(param(&bind, 1), Some((&b"5"[..], false)));
        assert_eq!(param(&bind, 2), Some((&b"\0\x07"[..], true)));
        assert_eq!((param(&bind, 3), param(&bind, 4), param(&bind, 0), param(b"\0", 1)), (None, None, None, None));
        let types = [&b"\0\x02"[..], &23u32.to_be_bytes(), &25u32.to_be_bytes()].concat();
        assert_eq!([1, 2, 3].map(|number| kind(&types, number)), [Some(23), Some(25), Some(0)]);
        assert_eq!((kind(b"\0\x01\0", 1), kind(b"", 1)), (None, None));
        let of = |value, is_uuid| number(value, is_uuid, Some((&types, &bind)));
        assert_eq!(of(Value::Param(1), false), Some(5));
        assert_eq!(of(Value::Param(2), false), None, "a text is not compared as a number");
        assert_eq!(
            (of(Value::Number(true, b"1"), false), of(Value::Number(false, b"1"), true)),
            (Some(u128::MAX), None)
        );
        assert_eq!((of(Value::Text(b" 7 "), false), of(Value::Text(b"7.0"), false)), (Some(7), None));
    }
}
