//! `BLOCK SHAPE`, `ALLOW SHAPE` and `SHOW BLOCKED`: shapes whose statements are refused.
//! Must never outlive the program: what is to stay blocked is a rule with `refuse` in the configuration.

use std::sync::Arc;

use super::Console;
use super::command::{Command, Parser, syntax};
use super::select::{Literal, Parameters};
use super::session::{Answer, Seen};
use super::show::Rows;
use super::table::row;
use super::time::moment;
use crate::base::clock;
use crate::cache::signal;
use crate::meter::{ShapeSum, SharedCounter};
use crate::relay::LONG;
use crate::relay::blocked::{Block, Blocks, can_be_blocked};
use crate::wire::error::{PgError, SqlState};

/// Most shapes that are blocked at one time.
const BLOCKS_MAX: usize = 1000;

/// A shape, and the database if it is one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Which {
    shape: Literal,
    pub database: Option<Literal>,
}

impl Which {
    /// The highest parameter that it means; 0 if none.
    pub fn parameters(&self) -> usize {
        self.shape.parameters().max(self.database.as_ref().map_or(0, Literal::parameters))
    }

    fn shape(&self, parameters: &Parameters) -> Result<u64, PgError> {
        let text = self.shape.text(parameters)?;
        signal::shape(text).ok_or_else(|| {
            let error = PgError::error(SqlState::INVALID_TEXT, format!("\"{text}\" is no shape"));
            error.hint("A shape is 16 hexadecimal digits, as SHOW QUERIES has it.")
        })
    }
}

impl Parser<'_> {
    /// What follows `BLOCK` or `ALLOW`.
    pub(super) fn block(&mut self, is_blocked: bool) -> Result<Command, PgError> {
        let verb = if is_blocked { "BLOCK" } else { "ALLOW" };
        if !self.takes("shape") {
            return Err(syntax(format!("{verb} takes a shape")).hint(format!("{verb} SHAPE shape [IN database]")));
        }
        let shape = self.name("the shape, as SHOW QUERIES has it,")?;
        let database = if self.takes("in") { Some(self.name("a database")?) } else { None };
        let which = Which { shape, database };
        Ok(if is_blocked { Command::Block(which) } else { Command::Allow(which) })
    }
}

impl Console {
    /// From now on statements of the shape are refused, on every worker when this returns.
    pub(super) async fn block(
        &self,
        which: &Which,
        database: Option<String>,
        parameters: &Parameters,
        seen: &Seen,
    ) -> Result<Answer, PgError> {
        let shape = which.shape(parameters)?;
        let known = self.each(move |relay| relay.known_shape(shape)).await?.into_iter().flatten().next();
        let name = ShapeSum::name(Some(shape));
        let never = known.as_ref().is_some_and(|(_, kind)| !can_be_blocked(*kind));
        if never || shape == LONG {
            let what = if never { "begin or end transactions" } else { "are too long to be looked at" };
            let message = format!("pgweir: statements that {what} cannot be blocked: {name}");
            return Err(PgError::error(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        {
            let mut blocked = self.blocked.borrow_mut();
            let key = (shape, database);
            if blocked.len() >= BLOCKS_MAX && !blocked.contains_key(&key) {
                let error =
                    PgError::error(SqlState::PROGRAM_LIMIT, format!("pgweir: {BLOCKS_MAX} are blocked already"));
                return Err(error.hint("For so many take rules with `refuse` in the configuration."));
            }
            tracing::info!(shape = name, database = key.1.as_deref().unwrap_or("*"), "blocked on the console");
            let block = || Block {
                shape,
                database: key.1.clone(),
                since_us: clock::now_us(),
                by: seen.row.user.clone(),
                refused: SharedCounter::default(),
            };
            let made = Arc::new(block());
            blocked.entry(key).or_insert(made);
        }
        self.tell_blocked().await?;
        Ok(match known {
            Some(_) => Answer::Done("BLOCK"),
            None => {
                let notice = PgError::notice(format!("no statement of shape {name} is known yet"));
                Answer::Notice("BLOCK", notice.hint("SHOW QUERIES lists the shapes."))
            }
        })
    }

    /// Statements of the shape run again; without a database wherever they were blocked.
    pub(super) async fn allow(
        &self,
        which: &Which,
        database: Option<String>,
        parameters: &Parameters,
    ) -> Result<Answer, PgError> {
        let shape = which.shape(parameters)?;
        let name = ShapeSum::name(Some(shape));
        let was = {
            let mut blocked = self.blocked.borrow_mut();
            let before = blocked.len();
            match &database {
                Some(_) => drop(blocked.remove(&(shape, database.clone()))),
                None => blocked.retain(|(known, _), _| *known != shape),
            }
            if before == blocked.len() {
                let everywhere = blocked.contains_key(&(shape, None));
                let error = PgError::error(SqlState::UNDEFINED_OBJECT, format!("shape {name} is not blocked"));
                return Err(match (database, everywhere) {
                    (Some(database), true) => {
                        error.detail(format!("It is blocked in all databases, not in \"{database}\" alone."))
                    }
                    _ => error.hint("SHOW BLOCKED lists those that are. What a rule refuses is in the configuration."),
                });
            }
            before - blocked.len()
        };
        tracing::info!(shape = name, database = database.as_deref().unwrap_or("*"), "allowed on the console ({was})");
        self.tell_blocked().await?;
        Ok(Answer::Done("ALLOW"))
    }

    async fn tell_blocked(&self) -> Result<(), PgError> {
        let blocks = Arc::new(Blocks::new(self.blocked.borrow().values().cloned()));
        self.each(move |relay| relay.block_shapes(&blocks)).await?;
        Ok(())
    }

    /// The block that a statement of this shape would meet in a database.
    pub(super) fn block_of(&self, shape: u64, database: &str) -> Option<Arc<Block>> {
        let blocked = self.blocked.borrow();
        blocked.get(&(shape, None)).or_else(|| blocked.get(&(shape, Some(database.to_owned())))).cloned()
    }

    /// Those that are blocked.
    pub(super) async fn blocked(&self) -> Result<Rows, PgError> {
        let blocks: Vec<Arc<Block>> = self.blocked.borrow().values().cloned().collect();
        let shapes: Arc<[u64]> = blocks.iter().map(|block| block.shape).collect();
        let texts = self
            .each(move |relay| shapes.iter().map(|shape| Some(relay.known_shape(*shape)?.0)).collect::<Vec<_>>())
            .await?;
        let row = |(number, block): (usize, &Arc<Block>)| {
            let text = texts.iter().find_map(|texts| texts.get(number)?.clone());
            row![
                ShapeSum::name(Some(block.shape)),
                block.database.clone(),
                moment(block.since_us),
                &*block.by,
                block.refused.get(),
                text.map(|text| text.to_string()),
            ]
        };
        Ok(blocks.iter().enumerate().map(row).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::command::commands;
    use super::*;

    #[test]
    fn a_shape_is_named_and_perhaps_a_database() {
        let text = |text: &str| Literal::Text(text.to_owned());
        let which = |database: Option<&str>| Which { shape: text("00ff"), database: database.map(text) };
        assert_eq!(commands("BLOCK SHAPE 00ff").unwrap(), [Command::Block(which(None))]);
        assert_eq!(commands("allow shape '00ff' in shop;").unwrap(), [Command::Allow(which(Some("shop")))]);
        let Command::Block(which) = commands("BLOCK SHAPE $2 IN $1").unwrap().remove(0) else { panic!("no BLOCK") };
        assert_eq!(which.parameters(), 2);
        for bad in ["BLOCK", "BLOCK 1", "ALLOW SHAPE", "BLOCK SHAPE 1 shop", "BLOCK SHAPE 1 IN", "ALLOW ALL"] {
            assert!(commands(bad).is_err(), "{bad}");
        }
        for bad in ["other", "", "0123456789abcdef0", "-1"] {
            assert!(Which { shape: text(bad), database: None }.shape(&[]).is_err(), "{bad}");
        }
    }
}
