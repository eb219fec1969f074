//! The values of a Bind, for people to read.
//! Must never be longer than it was asked for, nor trust a count or a length.

use std::fmt::Write;

/// What stands behind the names of a Bind, or as much of it as is here: `$1 = 'text', $2 = NULL, $3 = \x00ff`, values in text format as
/// they were sent, in binary format as hexadecimal. At most `limit` bytes and `…` where that is not all.
#[must_use]
pub fn values(bind: &[u8], limit: usize) -> String {
    let mut text = String::new();
    let whole = write(bind, limit, &mut text).is_some();
    cut(text, limit, whole)
}

/// At most `limit` bytes of a text, and `…` where that is not all.
#[must_use]
pub fn beginning(text: &[u8], limit: usize) -> String {
    let part = text.get(..limit.saturating_add(4)).unwrap_or(text);
    cut(String::from_utf8_lossy(part).into_owned(), limit, part.len() == text.len())
}

fn cut(mut text: String, limit: usize, whole: bool) -> String {
    if whole && text.len() <= limit {
        return text;
    }
    let end = (0..=limit.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text.push('…');
    text
}

/// `None` if that was not all.
fn write(bind: &[u8], limit: usize, out: &mut String) -> Option<()> {
    let (formats, mut rest) = list(bind)?;
    let formats = rest.split_off(..formats * 2)?;
    let (count, mut rest) = list(rest)?;
    for number in 1..=count {
        if out.len() > limit {
            return None;
        }
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let between = if number > 1 { ", " } else { "" };
        write!(out, "{between}${number} = ").ok()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            out.push_str("NULL");
            rest = behind;
            continue;
        };
        let here = length.min(behind.len());
        let (value, behind) = behind.split_at(here);
        one(value, is_binary(formats, number), limit.saturating_sub(out.len()), out);
        if here < length {
            return None;
        }
        rest = behind;
    }
    Some(())
}

/// What stands behind the names of a Bind without the formats that are wanted of the answer: formats and values. `None` if not all is here.
#[must_use]
pub fn formats_and_values(bind: &[u8]) -> Option<&[u8]> {
    let (formats, rest) = list(bind)?;
    let (count, mut rest) = list(rest.get(formats * 2..)?)?;
    for _ in 0..count {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        // A null has no bytes.
        rest = behind.get(usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0)..)?;
    }
    bind.get(..bind.len() - rest.len())
}

/// None for all is text; one is for all.
fn is_binary(formats: &[u8], number: usize) -> bool {
    let at = if formats.len() == 2 { 0 } else { (number - 1) * 2 };
    formats.get(at..at + 2).is_some_and(|format| format != [0, 0])
}

/// What lies beyond `room` is not looked at: it is cut off anyway.
fn one(value: &[u8], binary: bool, room: usize, out: &mut String) {
    let value = value.get(..room.saturating_add(4)).unwrap_or(value);
    if binary {
        out.push_str("\\x");
        value.iter().for_each(|byte| {
            let _ = write!(out, "{byte:02x}");
        });
    } else {
        out.push('\'');
        out.push_str(&String::from_utf8_lossy(value).replace('\'', "''"));
        out.push('\'');
    }
}

/// A count of two bytes, and what follows.
fn list(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    Some((usize::from(u16::from_be_bytes(*count)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(formats.len() as u16).to_be_bytes());
        formats.iter().for_each(|format| out.extend_from_slice(&format.to_be_bytes()));
        out.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            out.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            out.extend_from_slice(value.unwrap_or_default());
        }
        out.extend_from_slice(&[0, 0]);
        out
    }

    #[test]
    fn values_read_as_they_were_sent() {
        let three = [Some(&b"it's"[..]), None, Some(&b"\x00\xff"[..])];
        assert_eq!(values(&bind(&[0, 0, 1], &three), 100), r"$1 = 'it''s', $2 = NULL, $3 = \x00ff");
        assert_eq!(values(&bind(&[1], &three), 100), r"$1 = \x69742773, $2 = NULL, $3 = \x00ff");
        assert_eq!(values(&bind(&[], &[Some(b"")]), 100), "$1 = ''");
        assert_eq!(values(&bind(&[], &[]), 100), "");
    }

    #[test]
    fn what_is_too_long_or_not_there_is_cut() {
        let long = vec![b'x'; 10_000];
        let text = values(&bind(&[], &[Some(&long), Some(&long)]), 64);
        assert!(text.len() == 64 + '…'.len_utf8() && text.starts_with("$1 = 'xxx"), "{text}");
        let whole = bind(&[0], &[Some("größe".as_bytes()), Some(b"b")]);
        for end in 0..whole.len() {
            for limit in [0, 7, 9, 1000] {
                let text = values(&whole[..end], limit);
                assert!(text.len() <= limit + '…'.len_utf8(), "{text}");
            }
        }
        assert_eq!(values(&[0, 0, 0xff, 0xff], 100), "…");
        assert_eq!(beginning("größe".as_bytes(), 3), "gr…");
        assert_eq!(beginning(b"abc", 3), "abc");
    }
}
