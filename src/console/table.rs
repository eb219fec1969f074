//! What the console answers with: named and typed columns, and rows of values.
//! Must never hold a row that has another length than its columns.

use bytes::{BufMut, BytesMut};
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};

use crate::wire::error::{PgError, SqlState};

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int4,
    Int8,
    Numeric,
}

impl Type {
    /// Number and length in PostgreSQL (src/include/catalog/pg_type.dat).
    fn oid(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1700, -1),
        }
    }
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub name: &'static str,
    pub kind: Type,
}

/// Columns from a letter for the type of each (`s` text, `i` int4, `q` int8, `N` numeric) and their names.
pub(super) fn columns(types: &str, names: &'static str) -> Vec<Column> {
    debug_assert_eq!(types.len(), names.split_ascii_whitespace().count(), "{names}");
    let kind = |letter| match letter {
        'i' => Type::Int4,
        'q' => Type::Int8,
        'N' => Type::Numeric,
        _ => Type::Text,
    };
    types
        .chars()
        .zip(names.split_ascii_whitespace())
        .map(|(letter, name)| Column { name, kind: kind(letter) })
        .collect()
}

/// A value; what it looks like on the wire hangs on its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! numbers {
    ($($from:ty),*) => {
        $(impl From<$from> for Value {
            fn from(number: $from) -> Self {
                // More than fits is a number that nobody counts to.
                Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
            }
        })*
    };
}
numbers!(u16, u32, u64, usize, i32, i64);

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Self::Number(is.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A row of whatever can be a [`Value`].
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::console::table::Value::from($value)),*] };
}
pub(super) use row;

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

/// How a client wants a column: as text, or in PostgreSQL's binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text = 0,
    Binary = 1,
}

/// The forms that a Bind asks for: none, one for all, or one for each column.
pub(super) fn forms(codes: &[i16], columns: usize) -> Result<Vec<Form>, PgError> {
    let form = |code: &i16| match code {
        0 => Ok(Form::Text),
        1 => Ok(Form::Binary),
        _ => Err(PgError::error(SqlState::PROTOCOL_VIOLATION, format!("invalid format code: {code}"))),
    };
    match codes {
        [] => Ok(vec![Form::Text; columns]),
        [all] => Ok(vec![form(all)?; columns]),
        each if each.len() == columns => each.iter().map(form).collect(),
        each => {
            let message = format!("bind message has {} result formats but query has {columns} columns", each.len());
            Err(PgError::error(SqlState::PROTOCOL_VIOLATION, message))
        }
    }
}

/// RowDescription.
pub(super) fn description(columns: &[Column], forms: &[Form]) -> RowDescription {
    let fields = columns.iter().enumerate().map(|(at, column)| {
        let (oid, length) = column.kind.oid();
        let form = forms.get(at).copied().unwrap_or(Form::Text);
        FieldDescription::new(column.name.to_owned(), 0, 0, oid, length, -1, form as i16)
    });
    RowDescription::new(fields.collect())
}

/// DataRow.
pub(super) fn data(columns: &[Column], row: &[Value], forms: &[Form]) -> DataRow {
    let mut bytes = BytesMut::new();
    for (at, (column, value)) in columns.iter().zip(row).enumerate() {
        let form = forms.get(at).copied().unwrap_or(Form::Text);
        let start = bytes.len();
        bytes.put_i32(-1);
        let is_null = match (value, column.kind, form) {
            (Value::Null, ..) => true,
            (Value::Text(text), ..) => {
                bytes.put_slice(text.as_bytes());
                false
            }
            (Value::Number(number), kind, form) => {
                put_number(&mut bytes, *number, kind, form);
                false
            }
        };
        if !is_null {
            let length = (bytes.len() - start - 4) as u32;
            if let Some(field) = bytes.get_mut(start..start + 4) {
                field.copy_from_slice(&length.to_be_bytes());
            }
        }
    }
    DataRow::new(bytes, columns.len() as i16)
}

fn put_number(bytes: &mut BytesMut, number: i64, kind: Type, form: Form) {
    let small = i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
    match (kind, form) {
        (Type::Int4, Form::Text) => bytes.put_slice(small.to_string().as_bytes()),
        (Type::Int4, Form::Binary) => bytes.put_i32(small),
        (Type::Int8, Form::Binary) => bytes.put_i64(number),
        (Type::Numeric, Form::Binary) => put_numeric(bytes, number),
        (Type::Text, _) | (_, Form::Text) => bytes.put_slice(number.to_string().as_bytes()),
    }
}

/// As `numeric_send` of PostgreSQL (src/backend/utils/adt/numeric.c) has it: digits to the base of 10,000, the highest
/// first and none that are 0 at the end.
fn put_numeric(bytes: &mut BytesMut, number: i64) {
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        digits.push((rest % 10_000) as u16);
        rest /= 10_000;
    }
    let weight = (digits.len() as i16 - 1).max(0);
    digits.reverse();
    while digits.last() == Some(&0) {
        digits.pop();
    }
    bytes.put_u16(digits.len() as u16);
    bytes.put_i16(weight);
    bytes.put_u16(if number < 0 { 0x4000 } else { 0 });
    bytes.put_u16(0);
    digits.into_iter().for_each(|digit| bytes.put_u16(digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_form_that_is_asked_for() {
        let columns = columns("siqNs", "a b c d e");
        let row = row!["x", 7u64, 8u64, 120_034_000u64, None::<&str>];
        let text = data(&columns, &row, &[Form::Text; 5]).data;
        assert_eq!(&text[..], b"\0\0\0\x01x\0\0\0\x017\0\0\0\x018\0\0\0\x09120034000\xff\xff\xff\xff");
        let binary = data(&columns, &row, &[Form::Binary; 5]).data;
        assert_eq!(&binary[5..13], b"\0\0\0\x04\0\0\0\x07");
        assert_eq!(&binary[13..25], b"\0\0\0\x08\0\0\0\0\0\0\0\x08");
        // 1, 2003, 4000 of 10,000 each; nothing behind the point.
        assert_eq!(&binary[25..43], b"\0\0\0\x0e\0\x03\0\x02\0\0\0\0\0\x01\x07\xd3\x0f\xa0");
    }

    #[test]
    fn zero_and_round_numbers_have_no_digits_too_many() {
        let numeric = |number| {
            let mut bytes = BytesMut::new();
            put_numeric(&mut bytes, number);
            bytes.to_vec()
        };
        assert_eq!(numeric(0), [0; 8]);
        assert_eq!(numeric(20_000), [0, 1, 0, 1, 0, 0, 0, 0, 0, 2]);
    }

    #[test]
    fn formats_must_fit_the_columns() {
        assert_eq!(forms(&[], 2).ok(), Some(vec![Form::Text; 2]));
        assert_eq!(forms(&[1], 2).ok(), Some(vec![Form::Binary; 2]));
        assert!(forms(&[1, 0, 1], 2).is_err() && forms(&[2], 2).is_err());
    }
}
