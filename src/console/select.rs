//! `WHERE`, `ORDER BY` and `LIMIT` on whatever is shown.
//! Must never show a row that was not asked for because a value could not be compared.

use std::cmp::Ordering;

use super::table::{Column, Table, Type, Value};
use crate::wire::error::{PgError, SqlState};

/// A value in a command, or a parameter that stands for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(String),
    Parameter(usize),
}

/// The values of parameters.
pub(super) type Parameters = [Option<String>];

impl Literal {
    /// The text.
    pub fn text<'a>(&'a self, parameters: &'a Parameters) -> Result<&'a str, PgError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parameter(number) => match number.checked_sub(1).and_then(|at| parameters.get(at)) {
                Some(Some(text)) => Ok(text),
                Some(None) => {
                    let message = format!("parameter ${number} must not be NULL");
                    Err(PgError::error(SqlState::INVALID_TEXT, message))
                }
                None => {
                    let message = format!("there is no parameter ${number}");
                    Err(PgError::error(SqlState::UNDEFINED_PARAMETER, message))
                }
            },
        }
    }

    /// The highest parameter that it means; 0 if none.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Parameter(number) => *number,
        }
    }
}

/// How a column is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    IsNull,
    IsNotNull,
}

impl Operator {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "=" => Self::Equal,
            "<>" | "!=" => Self::Different,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order == Ordering::Equal,
            Self::Different => order != Ordering::Equal,
            Self::Less => order == Ordering::Less,
            Self::LessOrEqual => order != Ordering::Greater,
            Self::Greater => order == Ordering::Greater,
            Self::GreaterOrEqual => order != Ordering::Less,
            Self::Like | Self::IsNull | Self::IsNotNull => false,
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub column: String,
    pub operator: Operator,
    pub value: Literal,
}

/// Which rows are shown, and in what order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Select {
    pub conditions: Vec<Condition>,
    pub order: Vec<(String, bool)>,
    pub limit: Option<Literal>,
}

/// A condition whose value is known.
enum Test<'a> {
    Number(Operator, i64),
    Text(Operator, &'a str),
}

impl Select {
    /// The highest parameter that it means; 0 if none.
    pub fn parameters(&self) -> usize {
        let values = self.conditions.iter().map(|condition| &condition.value);
        values.chain(&self.limit).map(Literal::parameters).max().unwrap_or(0)
    }

    /// Whether all of its columns exist.
    ///
    /// # Errors
    /// One does not.
    pub fn check(&self, columns: &[Column]) -> Result<(), PgError> {
        let names = self.conditions.iter().map(|condition| &condition.column);
        names.chain(self.order.iter().map(|(name, _)| name)).try_for_each(|name| place(columns, name).map(drop))
    }

    /// What is left of the table.
    ///
    /// # Errors
    /// A column is not there, or a value is no number where one is needed.
    pub fn apply(&self, table: &mut Table, parameters: &Parameters) -> Result<(), PgError> {
        let mut tests = Vec::new();
        for condition in &self.conditions {
            let at = place(&table.columns, &condition.column)?;
            let value = condition.value.text(parameters)?;
            let is_text = table.columns.get(at).is_none_or(|column| column.kind == Type::Text);
            let null = matches!(condition.operator, Operator::IsNull | Operator::IsNotNull);
            let test = if is_text || null || condition.operator == Operator::Like {
                Test::Text(condition.operator, value)
            } else {
                Test::Number(condition.operator, number(value, &condition.column)?)
            };
            tests.push((at, test));
        }
        table.rows.retain(|row| tests.iter().all(|(at, test)| row.get(*at).is_some_and(|value| passes(value, test))));
        let order: Vec<_> = self
            .order
            .iter()
            .map(|(name, down)| Ok((place(&table.columns, name)?, *down)))
            .collect::<Result<_, PgError>>()?;
        table.rows.sort_by(|one, other| {
            let by = |&(at, down): &(usize, bool)| {
                let order = compare(one.get(at), other.get(at));
                if down { order.reverse() } else { order }
            };
            order.iter().map(by).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        if let Some(limit) = &self.limit {
            let limit = number(limit.text(parameters)?, "LIMIT")?;
            let limit = usize::try_from(limit)
                .map_err(|_| PgError::error(SqlState::INVALID_TEXT, "LIMIT must not be negative"))?;
            table.rows.truncate(limit);
        }
        Ok(())
    }
}

fn place(columns: &[Column], name: &str) -> Result<usize, PgError> {
    columns.iter().position(|column| column.name == name).ok_or_else(|| {
        let error = PgError::error(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"));
        let names = columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", ");
        error.hint(format!("The columns are {names}."))
    })
}

fn number(text: &str, what: &str) -> Result<i64, PgError> {
    text.trim().parse().map_err(|_| {
        PgError::error(SqlState::INVALID_TEXT, format!("\"{text}\" is no whole number, as {what} is compared with"))
    })
}

fn passes(value: &Value, test: &Test<'_>) -> bool {
    match (test, value) {
        (Test::Text(Operator::IsNull, _), value) => *value == Value::Null,
        (Test::Text(Operator::IsNotNull, _), value) => *value != Value::Null,
        // As in SQL, nothing can be said of what is not there.
        (_, Value::Null) => false,
        (Test::Text(operator, wanted), value) => {
            let text = match value {
                Value::Text(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Null => return false,
            };
            if *operator == Operator::Like { like(&text, wanted) } else { operator.holds(text.as_str().cmp(wanted)) }
        }
        (Test::Number(operator, wanted), Value::Number(number)) => operator.holds(number.cmp(wanted)),
        (Test::Number(..), Value::Text(_)) => false,
    }
}

/// Numbers by size, texts by their bytes, what is not there behind both.
fn compare(one: Option<&Value>, other: Option<&Value>) -> Ordering {
    match (one, other) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => one.cmp(other),
        (Some(Value::Text(one)), Some(Value::Text(other))) => one.cmp(other),
        (one, other) => {
            let is_null = |value: Option<&Value>| matches!(value, None | Some(Value::Null));
            is_null(one).cmp(&is_null(other))
        }
    }
}

/// `%` is anything, `_` any one character, `\` takes the meaning of what follows. Without recursion: both may be long.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let mut wanted = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        wanted.push(match c {
            '\\' => (chars.next().unwrap_or('\\'), true),
            c => (c, false),
        });
    }
    let (mut at, mut want) = (0, 0);
    // Where to go on if what follows the last % does not fit here.
    let mut again = None;
    while at < text.len() {
        match wanted.get(want) {
            Some(('%', false)) => {
                again = Some((at, want + 1));
                want += 1;
            }
            Some((c, literal)) if text.get(at) == Some(c) || (*c == '_' && !literal) => {
                at += 1;
                want += 1;
            }
            _ => match again {
                Some((from, behind)) => {
                    again = Some((from + 1, behind));
                    (at, want) = (from + 1, behind);
                }
                None => return false,
            },
        }
    }
    wanted.get(want..).unwrap_or_default().iter().all(|it| *it == ('%', false))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::table::{columns, row};
    use super::*;

    #[test]
    fn like_is_sqls() {
        for (text, pattern, fits) in [
            ("select 1", "sel%", true),
            ("select 1", "%1", true),
            ("select 1", "%e%e%", true),
            ("select 1", "%x%", false),
            ("abc", "a_c", true),
            ("abc", "a\\_c", false),
            ("a_c", "a\\_c", true),
            ("", "%", true),
            ("", "_", false),
            ("aaab", "%aab", true),
        ] {
            assert_eq!(like(text, pattern), fits, "{text} LIKE {pattern}");
        }
    }

    #[test]
    fn rows_are_chosen_and_ordered() {
        let table = Table {
            columns: columns("si", "name n"),
            rows: vec![row!["a", 10u32], row!["b", 9u32], row!["c", None::<u32>], row!["d", 11u32]],
        };
        let select = |text: &str| match super::super::command::commands(&format!("SHOW pools {text}")).unwrap().pop() {
            Some(super::super::command::Command::Show(_, select)) => select,
            other => panic!("{other:?}"),
        };
        let names = |text: &str, parameters: &[Option<String>]| {
            let mut table = table.clone();
            select(text).apply(&mut table, parameters).map(|()| {
                table
                    .rows
                    .iter()
                    .map(|row| if let Value::Text(name) = &row[0] { name.clone() } else { String::new() })
                    .collect::<String>()
            })
        };
        assert_eq!(names("WHERE n > 9", &[]).unwrap(), "ad");
        assert_eq!(names("WHERE n > $1 AND name <> 'd'", &[Some("8".into())]).unwrap(), "ab");
        assert_eq!(names("ORDER BY n DESC LIMIT 2", &[]).unwrap(), "cd");
        assert_eq!(names("ORDER BY n", &[]).unwrap(), "badc");
        assert_eq!(names("WHERE n IS NULL", &[]).unwrap(), "c");
        assert_eq!(names("WHERE n LIKE '1_'", &[]).unwrap(), "ad");
        assert_eq!(names("WHERE n = 'x'", &[]).unwrap_err().code, SqlState::INVALID_TEXT);
        assert_eq!(names("WHERE m = 1", &[]).unwrap_err().code, SqlState::UNDEFINED_COLUMN);
        assert_eq!(names("WHERE n = $2", &[None]).unwrap_err().code, SqlState::UNDEFINED_PARAMETER);
    }
}
