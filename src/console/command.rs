//! What can be said to the console, and how it is read.
//! Must never act: what it means is known when all of it is.

use super::block::Which;
use super::invalidate::Target;
use super::lex::{Token, Word, words};
use super::select::{Condition, Literal, Operator, Select};
use super::table::{Column, columns};
use super::view::View;
use crate::wire::error::{PgError, SqlState};

/// How the program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Whatever anybody does.
    AtOnce,
    /// When no client is in a transaction any more.
    WaitForServers,
    /// When all clients have left.
    WaitForClients,
}

/// One command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    Empty,
    Show(View, Select),
    /// `SHOW name` of a setting that drivers ask for.
    Setting(&'static str),
    Help,
    /// Accepted without a meaning, answered by this.
    Accept(&'static str),
    /// BEGIN, and the end of a transaction: nothing is one here, but drivers that are not told so begin one.
    Begin,
    Finish(&'static str),
    /// `SET name = value` of something that is not merely accepted.
    Set(String, Literal),
    Explain {
        database: Option<Literal>,
        user: Option<Literal>,
        sql: String,
    },
    Reload,
    Pause(Option<Literal>),
    Resume(Option<Literal>),
    Disable(Literal),
    Enable(Literal),
    Reconnect(Option<Literal>),
    Kill(Option<Literal>),
    KillClient(Literal),
    WaitClose(Option<Literal>),
    Invalidate(Target, Option<Literal>),
    WarmCache(Option<Literal>),
    Block(Which),
    Allow(Which),
    ResetStats,
    Shutdown(How),
    /// Known, but not to be had.
    Absent(&'static str, &'static str),
}

impl Command {
    /// The columns of its answer; `None` if that has no rows.
    ///
    /// # Errors
    /// It means a column that there is not.
    pub fn columns(&self) -> Result<Option<Vec<Column>>, PgError> {
        Ok(match self {
            Self::Show(view, select) => {
                let columns = view.columns();
                select.check(&columns)?;
                Some(columns)
            }
            Self::Setting(name) => Some(columns("s", name)),
            Self::Explain { .. } => Some(columns("s", "route")),
            _ => None,
        })
    }

    /// The highest parameter that it means; 0 if none.
    pub fn parameters(&self) -> usize {
        let of = |literals: &[&Option<Literal>]| {
            literals.iter().filter_map(|it| it.as_ref()).map(Literal::parameters).max().unwrap_or(0)
        };
        match self {
            Self::Show(View::Shape(shape), select) => select.parameters().max(shape.parameters()),
            Self::Show(_, select) => select.parameters(),
            Self::Explain { database, user, .. } => of(&[database, user]),
            Self::Pause(name)
            | Self::Resume(name)
            | Self::Reconnect(name)
            | Self::Kill(name)
            | Self::WarmCache(name)
            | Self::WaitClose(name) => of(&[name]),
            Self::Invalidate(target, database) => target.parameters().max(of(&[database])),
            Self::Block(which) | Self::Allow(which) => which.parameters(),
            Self::Disable(name) | Self::Enable(name) | Self::KillClient(name) | Self::Set(_, name) => name.parameters(),
            _ => 0,
        }
    }

    /// Whoever may only look may not have it done.
    pub fn needs_admin(&self) -> bool {
        !matches!(
            self,
            Self::Empty
                | Self::Show(..)
                | Self::Setting(_)
                | Self::Help
                | Self::Accept(_)
                | Self::Begin
                | Self::Finish(_)
                | Self::Explain { .. }
        )
    }
}

/// Settings that drivers ask for and set, and what they are told (`fake_show` of PgBouncer, src/admin.c).
pub(super) const FAKED: [(&str, &str); 5] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
];
/// Settings that drivers set and never ask for.
const IGNORED: [&str; 9] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "search_path",
    "statement_timeout",
];

/// The commands of a text, at least one; several are told apart by semicolons.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, PgError> {
    let tokens = words(text)?;
    let mut commands = Vec::new();
    let mut rest = &tokens[..];
    while let Some(token) = rest.first() {
        if token.word == Word::End {
            rest = &rest[1..];
            continue;
        }
        if let [first, second, ..] = rest
            && first.word.is("explain")
            && second.word.is("route")
        {
            // What follows is not ours to take apart.
            commands.push(explain(text, &rest[2..])?);
            break;
        }
        let end = rest.iter().position(|token| token.word == Word::End).unwrap_or(rest.len());
        commands.push(Parser { tokens: &rest[..end] }.command()?);
        rest = &rest[end..];
    }
    if commands.is_empty() {
        commands.push(Command::Empty);
    }
    Ok(commands)
}

/// `EXPLAIN ROUTE [ON database] [AS user] statement`
fn explain(text: &str, tokens: &[Token]) -> Result<Command, PgError> {
    let mut parser = Parser { tokens };
    let database = if parser.takes("on") { Some(parser.name("a database")?) } else { None };
    let user = if parser.takes("as") { Some(parser.name("a user")?) } else { None };
    let sql = parser.tokens.first().and_then(|token| text.get(token.at..)).unwrap_or_default();
    if sql.is_empty() {
        return Err(syntax("a statement is missing").hint("EXPLAIN ROUTE [ON database] [AS user] statement"));
    }
    Ok(Command::Explain { database, user, sql: sql.to_owned() })
}

/// A syntax error.
pub(super) fn syntax(message: impl Into<String>) -> PgError {
    PgError::error(SqlState::SYNTAX_ERROR, message.into())
}

/// Words that are yet to be read.
pub(super) struct Parser<'a> {
    pub tokens: &'a [Token],
}

impl Parser<'_> {
    fn command(mut self) -> Result<Command, PgError> {
        let Some(Word::Bare(verb)) = self.next() else { return Err(self.unknown()) };
        let command = match verb.to_ascii_lowercase().as_str() {
            "show" | "select" => self.show()?,
            "set" => self.set()?,
            "begin" => self.all(Command::Begin),
            "start" if self.takes("transaction") => self.all(Command::Begin),
            "commit" | "end" => self.all(Command::Finish("COMMIT")),
            "rollback" | "abort" => self.all(Command::Finish("ROLLBACK")),
            "discard" => self.all(Command::Accept("DISCARD ALL")),
            "reset" if !self.takes("stats") => self.all(Command::Accept("RESET")),
            "reset" => Command::ResetStats,
            "deallocate" => self.all(Command::Accept("DEALLOCATE")),
            "reload" => Command::Reload,
            "pause" => Command::Pause(self.database()?),
            "resume" => Command::Resume(self.database()?),
            "disable" => Command::Disable(self.name("a database")?),
            "enable" => Command::Enable(self.name("a database")?),
            "reconnect" => Command::Reconnect(self.database()?),
            "kill" => Command::Kill(self.database()?),
            "kill_client" => Command::KillClient(self.name("the id of a client")?),
            "wait_close" => Command::WaitClose(self.database()?),
            "invalidate" => self.invalidate()?,
            "warm" if self.takes("cache") => Command::WarmCache(self.database()?),
            "shutdown" => Command::Shutdown(self.how()?),
            "suspend" => self.all(Command::Absent(
                "SUSPEND",
                "Start another pgweir on the same ports with so_reuseport, then SHUTDOWN WAIT_FOR_CLIENTS.",
            )),
            "block" => self.block(true)?,
            "allow" => self.block(false)?,
            _ => return Err(self.unknown()),
        };
        self.finish()?;
        Ok(command)
    }

    fn unknown(&self) -> PgError {
        // In PgBouncer's words, which its users search for.
        syntax("invalid command, use SHOW HELP").hint("Use SHOW HELP.")
    }

    fn next(&mut self) -> Option<&Word> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(&first.word)
    }

    /// Whether the next word is this key word, which is then read.
    pub(super) fn takes(&mut self, keyword: &str) -> bool {
        let is_it = self.tokens.first().is_some_and(|token| token.word.is(keyword));
        if is_it {
            self.next();
        }
        is_it
    }

    /// Reads all that follows, which does not matter.
    fn all(&mut self, command: Command) -> Command {
        self.tokens = &[];
        command
    }

    fn finish(&self) -> Result<(), PgError> {
        match self.tokens.first().map(|token| &token.word) {
            None => Ok(()),
            Some(word) => Err(syntax(format!("syntax error at {}", shown(word)))),
        }
    }

    pub(super) fn name(&mut self, what: &str) -> Result<Literal, PgError> {
        match self.next() {
            Some(Word::Bare(name) | Word::Quoted(name)) => Ok(Literal::Text(name.clone())),
            Some(Word::Parameter(number)) => Ok(Literal::Parameter(*number)),
            Some(word) => Err(syntax(format!("syntax error at {}: {what} is expected", shown(word)))),
            None => Err(syntax(format!("{what} is missing"))),
        }
    }

    fn database(&mut self) -> Result<Option<Literal>, PgError> {
        if self.tokens.is_empty() { Ok(None) } else { self.name("a database").map(Some) }
    }

    fn how(&mut self) -> Result<How, PgError> {
        let how = match self.tokens.first().map(|token| &token.word) {
            None => return Ok(How::AtOnce),
            Some(word) if word.is("wait_for_servers") => How::WaitForServers,
            Some(word) if word.is("wait_for_clients") => How::WaitForClients,
            Some(word) => {
                let message = format!("syntax error at {}", shown(word));
                return Err(syntax(message).hint("SHUTDOWN, SHUTDOWN WAIT_FOR_SERVERS or SHUTDOWN WAIT_FOR_CLIENTS"));
            }
        };
        self.next();
        Ok(how)
    }

    /// `SET name = value`, `SET name TO value`. What drivers set is accepted.
    fn set(&mut self) -> Result<Command, PgError> {
        let name = match self.next() {
            Some(Word::Bare(word)) if word.eq_ignore_ascii_case("session") || word.eq_ignore_ascii_case("local") => {
                let name = self.next().cloned();
                name.filter(|word| matches!(word, Word::Bare(_)))
            }
            Some(word @ (Word::Bare(_) | Word::Quoted(_))) => Some(word.clone()),
            _ => None,
        };
        let Some(Word::Bare(name) | Word::Quoted(name)) = name else {
            return Err(syntax("a setting is missing").hint("SET name = value"));
        };
        let known = |it: &&str| it.eq_ignore_ascii_case(&name);
        let harmless = ["time", "names", "characteristics", "transaction"].iter().any(known);
        let accepted = harmless || IGNORED.iter().any(known) || FAKED.iter().any(|(it, _)| known(it));
        if accepted {
            return Ok(self.all(Command::Accept("SET")));
        }
        let equals = self.tokens.first().is_some_and(|token| token.word == Word::Operator("=".to_owned()));
        if equals {
            self.next();
        } else if !self.takes("to") {
            return Err(syntax(format!("a value for \"{name}\" is missing")).hint("SET name = value"));
        }
        Ok(Command::Set(name, self.name("a value")?))
    }

    fn show(&mut self) -> Result<Command, PgError> {
        let name = match self.next() {
            Some(Word::Bare(name) | Word::Quoted(name)) => name.to_ascii_lowercase(),
            _ => return Err(syntax("what is to be shown is missing").hint("Use SHOW HELP.")),
        };
        if name == "help" {
            return Ok(Command::Help);
        }
        // SHOW TIME ZONE, SHOW TRANSACTION ISOLATION LEVEL.
        let name = match name.as_str() {
            "time" if self.takes("zone") => "timezone",
            "transaction" if self.takes("isolation") && self.takes("level") => "default_transaction_isolation",
            name => name,
        };
        if let Some((name, _)) = FAKED.iter().find(|(faked, _)| *faked == name) {
            return Ok(Command::Setting(name));
        }
        if name == "fds" {
            let hint = "Start another pgweir on the same ports with so_reuseport instead of handing sockets over.";
            return Ok(self.all(Command::Absent("SHOW FDS", hint)));
        }
        let Some(mut view) = View::named(name) else { return Err(self.unknown()) };
        if let View::Shape(shape) = &mut view {
            *shape = self.name("the shape, as SHOW QUERIES has it,")?;
        }
        let mut select = Select::default();
        if let View::Queries(by) = &mut view
            && self.takes("by")
        {
            let Literal::Text(word) = self.name("total, p99, calls or errors")? else {
                return Err(syntax("BY takes one of total, p99, calls, errors"));
            };
            *by = super::view::By::named(&word)
                .ok_or_else(|| syntax(format!("BY takes one of total, p99, calls, errors, not \"{word}\"")))?;
        }
        self.select(&mut select)?;
        Ok(Command::Show(view, select))
    }

    /// `[WHERE column op value [AND ..]] [ORDER BY column [ASC | DESC] [, ..]] [LIMIT n]`
    fn select(&mut self, select: &mut Select) -> Result<(), PgError> {
        if self.takes("where") {
            loop {
                select.conditions.push(self.condition()?);
                if !self.takes("and") {
                    break;
                }
            }
        }
        if self.takes("order") {
            if !self.takes("by") {
                return Err(syntax("ORDER without BY"));
            }
            loop {
                let column = self.column()?;
                let descending = self.takes("desc");
                if !descending {
                    self.takes("asc");
                }
                select.order.push((column, descending));
                if !self.takes(",") {
                    break;
                }
            }
        }
        if self.takes("limit") {
            select.limit = Some(self.name("a number")?);
        }
        Ok(())
    }

    fn column(&mut self) -> Result<String, PgError> {
        match self.next() {
            Some(Word::Bare(name)) => Ok(name.to_ascii_lowercase()),
            Some(Word::Quoted(name)) => Ok(name.clone()),
            Some(word) => Err(syntax(format!("syntax error at {}: a column is expected", shown(word)))),
            None => Err(syntax("a column is missing")),
        }
    }

    fn condition(&mut self) -> Result<Condition, PgError> {
        let column = self.column()?;
        if self.takes("is") {
            let operator = if self.takes("not") { Operator::IsNotNull } else { Operator::IsNull };
            if !self.takes("null") {
                return Err(syntax("IS takes NULL or NOT NULL"));
            }
            return Ok(Condition { column, operator, value: Literal::Text(String::new()) });
        }
        let operator = match self.next() {
            Some(Word::Operator(operator)) => Operator::named(operator),
            Some(word) if word.is("like") => Some(Operator::Like),
            _ => None,
        };
        let operator = operator.ok_or_else(|| {
            syntax(format!("no operator behind \"{column}\"")).hint("=, <>, <, <=, >, >=, LIKE, IS [NOT] NULL")
        })?;
        Ok(Condition { column, operator, value: self.name("a value")? })
    }
}

fn shown(word: &Word) -> String {
    match word {
        Word::Bare(word) => format!("\"{word}\""),
        Word::Quoted(word) => format!("'{word}'"),
        Word::Parameter(number) => format!("${number}"),
        Word::Operator(operator) => format!("\"{operator}\""),
        Word::End => "\";\"".to_owned(),
    }
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
