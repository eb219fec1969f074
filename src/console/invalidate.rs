//! `INVALIDATE`: which answers do not count any more.
//! Must never take a name for another because of its case: what is not in quotes is folded, as in SQL.

use super::Console;
use super::command::{Command, Parser, syntax};
use super::lex::Word;
use super::select::{Literal, Parameters};
use super::session::Answer;
use crate::cache::Signal;
use crate::cache::pattern::Pattern;
use crate::cache::signal::{self, What};
use crate::wire::error::{PgError, SqlState};

/// What is to go, before parameters are known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    /// `TABLE [schema.]table`
    Table(Option<String>, Literal),
    Tag(Literal),
    Shape(Literal),
    Pattern(Literal),
    /// `DATABASE`, which is named apart, or `ALL`.
    All,
}

const HINT: &str = "INVALIDATE TABLE [schema.]table, TAG tag, SHAPE shape, PATTERN 'pattern', each with IN database or without; DATABASE database; ALL";

impl Target {
    /// The highest parameter that it means; 0 if none.
    pub fn parameters(&self) -> usize {
        match self {
            Self::Table(_, literal) | Self::Tag(literal) | Self::Shape(literal) | Self::Pattern(literal) => {
                literal.parameters()
            }
            Self::All => 0,
        }
    }

    fn what(&self, parameters: &Parameters) -> Result<What, PgError> {
        Ok(match self {
            Self::Table(schema, name) => What::Table(schema.as_deref().map(Box::from), name.text(parameters)?.into()),
            Self::Tag(word) => What::Tag(word.text(parameters)?.into()),
            Self::Shape(shape) => {
                let text = shape.text(parameters)?;
                What::Shape(signal::shape(text).ok_or_else(|| {
                    let error = PgError::error(SqlState::INVALID_TEXT, format!("\"{text}\" is no shape"));
                    error.hint("A shape is 16 hexadecimal digits, as SHOW QUERIES has it.")
                })?)
            }
            Self::Pattern(pattern) => What::Pattern(Pattern::new(pattern.text(parameters)?).map_err(|why| {
                let error = PgError::error(SqlState::INVALID_TEXT, format!("this is no pattern: {why}"));
                error.hint("It is held against the whole of a statement, or a tag; * stands for anything, \\* for a *.")
            })?),
            Self::All => What::All,
        })
    }
}

impl Parser<'_> {
    /// What follows `INVALIDATE`.
    pub(super) fn invalidate(&mut self) -> Result<Command, PgError> {
        if self.takes("all") {
            return Ok(Command::Invalidate(Target::All, None));
        }
        if self.takes("database") {
            return Ok(Command::Invalidate(Target::All, Some(self.name("a database")?)));
        }
        let target = if self.takes("table") {
            self.table()?
        } else if self.takes("tag") {
            Target::Tag(self.name("a tag")?)
        } else if self.takes("shape") {
            Target::Shape(self.name("a shape")?)
        } else if self.takes("pattern") {
            Target::Pattern(self.name("a pattern")?)
        } else {
            return Err(syntax("what is to be invalidated is missing").hint(HINT));
        };
        let database = if self.takes("in") { Some(self.name("a database")?) } else { None };
        Ok(Command::Invalidate(target, database))
    }

    /// `table`, `schema.table`, either part in quotes or not.
    fn table(&mut self) -> Result<Target, PgError> {
        if let Some(Word::Parameter(_)) = self.tokens.first().map(|token| &token.word) {
            return Ok(Target::Table(None, self.name("a table")?));
        }
        let mut parts: Vec<String> = Vec::new();
        // A dot is a part of a word, but not of one in quotes.
        let mut is_due = true;
        while let Some((token, rest)) = self.tokens.split_first() {
            let (pieces, is_open): (Vec<String>, bool) = match &token.word {
                Word::Quoted(name) if is_due => (vec![name.clone()], false),
                Word::Bare(word) if is_due || word.starts_with('.') => {
                    (word.split('.').map(str::to_ascii_lowercase).collect(), word.ends_with('.'))
                }
                _ => break,
            };
            let mut pieces = pieces.into_iter();
            match (parts.last_mut(), pieces.next()) {
                (Some(last), Some(piece)) => last.push_str(&piece),
                (None, piece) => parts.extend(piece),
                (Some(_), None) => {}
            }
            parts.extend(pieces);
            (is_due, self.tokens) = (is_open, rest);
        }
        match &mut parts[..] {
            [name] if !name.is_empty() => Ok(Target::Table(None, Literal::Text(std::mem::take(name)))),
            [schema, name] if !schema.is_empty() && !name.is_empty() => {
                Ok(Target::Table(Some(std::mem::take(schema)), Literal::Text(std::mem::take(name))))
            }
            [] => Err(syntax("a table is missing").hint(HINT)),
            _ => Err(syntax("the name of a table has one part, or two with a dot between").hint(HINT)),
        }
    }
}

impl Console {
    /// What it names does not count any more, on any worker, when this returns.
    pub(super) fn invalidate(
        &self,
        target: &Target,
        database: Option<String>,
        parameters: &Parameters,
    ) -> Result<Answer, PgError> {
        let signal = Signal { database: database.map(Box::from), what: target.what(parameters)? };
        let config = self.config();
        self.about.caches.signals().give(&signal, config.databases.keys().map(String::as_str));
        self.about.registry.signals.console.add(1);
        tracing::info!("invalidated on the console: {signal:?}");
        Ok(Answer::Done("INVALIDATE"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::command::commands;
    use super::*;

    fn read(text: &str) -> Result<(Target, Option<Literal>), String> {
        match commands(text).map(|all| all.into_iter().next()) {
            Ok(Some(Command::Invalidate(target, database))) => Ok((target, database)),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.message.into_owned()),
        }
    }

    #[test]
    fn tables_are_named_as_in_sql() {
        let text = |text: &str| Literal::Text(text.to_owned());
        for (table, schema, name) in [
            ("Menu", None, "menu"),
            ("\"Menu\"", None, "Menu"),
            ("App.Menu", Some("app"), "menu"),
            ("\"App\".Menu", Some("App"), "menu"),
            ("app.\"Me.nu\"", Some("app"), "Me.nu"),
            ("\"A\" . \"B\"", Some("A"), "B"),
        ] {
            let target = Target::Table(schema.map(str::to_owned), text(name));
            assert_eq!(read(&format!("INVALIDATE TABLE {table}")), Ok((target.clone(), None)), "{table}");
            assert_eq!(read(&format!("invalidate table {table} in shop")), Ok((target, Some(text("shop")))), "{table}");
        }
        assert_eq!(read("INVALIDATE TABLE $1 IN $2").unwrap().1, Some(Literal::Parameter(2)));
        for bad in ["", "a.b.c", "a.", ".b", "a b", "a IN", "\"\"", "IN shop"] {
            assert!(read(&format!("INVALIDATE TABLE {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_rest_has_one_name() {
        let text = |text: &str| Literal::Text(text.to_owned());
        assert_eq!(read("INVALIDATE ALL"), Ok((Target::All, None)));
        assert_eq!(read("INVALIDATE DATABASE shop"), Ok((Target::All, Some(text("shop")))));
        assert_eq!(read("INVALIDATE TAG menu IN shop;"), Ok((Target::Tag(text("menu")), Some(text("shop")))));
        assert_eq!(read("INVALIDATE SHAPE 00ff"), Ok((Target::Shape(text("00ff")), None)));
        assert_eq!(
            read("INVALIDATE PATTERN '* from Menu' IN shop"),
            Ok((Target::Pattern(text("* from Menu")), Some(text("shop"))))
        );
        assert_eq!(read("INVALIDATE PATTERN $1"), Ok((Target::Pattern(Literal::Parameter(1)), None)));
        let (target, _) = read(r"INVALIDATE PATTERN 'a\b'").unwrap();
        assert!(target.what(&[]).unwrap_err().message.contains("no pattern"));
        for bad in ["", "ALL IN shop", "PATTERN", "DATABASE", "TAG", "SHAPE", "SHAPE 00ff shop", "CACHE"] {
            assert!(read(&format!("INVALIDATE {bad}")).is_err(), "{bad}");
        }
        let (target, _) = read("INVALIDATE SHAPE nonsense").unwrap();
        assert!(target.what(&[]).is_err());
    }
}
