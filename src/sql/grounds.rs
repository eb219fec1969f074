//! What a catalog says of a read: by every name in its text.
//! Must never take a name for one thing when it may stand for another: all things of a name count, whatever the search_path and the role.
//!
//! So neither SET search_path nor SET ROLE changes the answer, and it holds for all texts of a shape. Only a schema in the text narrows it down.
//! Temporary objects need not be thought of: a client that has some keeps its server.

use super::applied::Applied;
use super::classify::parses;
use super::code::Code;
use super::footing::{Footing, alone};
use super::functions::{self, Standing};
use super::lex::Kind;
use super::timed::is_timed;
use super::verdict::Reason;
use super::words::{Words, tokens};

impl Code {
    /// How far the read in this text may leave the primary, of which the grammar alone has said that it may, or might. Takes some
    /// microseconds: to be remembered by shape.
    #[must_use]
    pub fn footing(&self, sql: &[u8], standard_conforming_strings: bool) -> Footing {
        let all = tokens(sql, standard_conforming_strings);
        let words = Words::new(sql, &all);
        let Some(summary) = parses(sql, standard_conforming_strings, words) else {
            return Footing::Primary(Reason::Unparsable);
        };
        let mut footing = self.implied;
        for table in &summary.tables {
            let (schema, name) = (table.schema_name.as_bytes(), table.table_name.as_str());
            let is_cte = schema.is_empty() && summary.cte_names.iter().any(|cte| cte == name);
            footing.merge(match self.relation(schema, name.as_bytes()) {
                None if is_cte => Footing::Safe,
                None => Footing::Primary(Reason::UnknownRelation),
                Some(known) => known,
            });
        }
        // The summary forgets where a CTE is visible: elsewhere its name may be a relation's.
        for name in &summary.cte_names {
            footing.merge(self.relation(b"", name.as_bytes()).unwrap_or_default());
        }
        for call in &summary.functions {
            let schema = call.schema_name.as_deref().unwrap_or_default();
            footing.merge(match schema {
                "pg_catalog" => alone(functions::standing(&call.function_name), call.function_name.as_bytes()),
                _ => self.call(schema.as_bytes(), &call.function_name),
            });
        }
        footing.and(self.words(words))
    }

    /// Of operators, and of functions that are called as if they were columns.
    fn words(&self, words: Words<'_>) -> Footing {
        let mut footing = if is_timed(words) { Footing::Timed } else { Footing::Safe };
        let applied = Applied::of(words);
        for at in 0..words.len() {
            if words.kind(at) == Some(Kind::Operator) {
                let is_foreign = at >= 2 && words.kind(at - 1) == Some(Kind::Dot) && !words.is(at - 2, "pg_catalog");
                footing.merge(match self.operators.get(words.bytes(at)) {
                    None if is_foreign => Footing::Primary(Reason::Operator),
                    known => known.copied().unwrap_or_default(),
                });
            } else if words.kind(at + 1) != Some(Kind::Open)
                && let Some(name) = words.name(at)
            {
                let is_applied = applied.has(at);
                for function in self.functions(&name).iter().filter(|function| is_applied || function.is_attribute) {
                    footing.merge(function.footing);
                }
                // What is no function's name is a field's or a type's.
                let built_in = std::str::from_utf8(&name).map_or(Standing::Unknown, functions::standing);
                if is_applied && built_in != Standing::Unknown {
                    footing.merge(alone(built_in, &name));
                }
            }
        }
        footing
    }

    /// Of all relations of a name; `None` without any.
    fn relation(&self, schema: &[u8], name: &[u8]) -> Option<Footing> {
        let fits = |there: &[u8]| schema.is_empty() || schema == there;
        let known = self.relations.get(name)?.iter().filter(|(there, _)| fits(there));
        known.map(|(_, footing)| *footing).reduce(Footing::and)
    }

    /// Of all functions of a name, also beside a built-in one.
    fn call(&self, schema: &[u8], name: &str) -> Footing {
        let fits = |there: &[u8]| schema.is_empty() || schema == there;
        let known = self.functions(name.as_bytes()).iter().filter(|function| fits(&function.schema));
        let none = match functions::standing(name) {
            standing @ (Standing::Pure | Standing::Harmless) if schema.is_empty() => alone(standing, name.as_bytes()),
            _ => Footing::Primary(Reason::FunctionUnknown),
        };
        known.map(|function| function.footing).reduce(Footing::and).unwrap_or(none)
    }
}
