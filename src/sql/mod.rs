//! What pgweir knows of SQL: a lexer, the shape of a statement, and once per shape the verdict of PostgreSQL's own grammar.
//! Must never do I/O, keep state, require UTF-8 or trust text to be valid SQL.
//!
//! [`shape::scan`] runs for every statement; [`classify::classify`] once per shape. A verdict follows from the shape, so what a literal says is not in it:
//! the body of a DO block, the value and name given to `set_config`, the path of a COPY, the value of a SET. Whoever needs those reads the text; the
//! effects [`verdict::Effects::OPAQUE`], `SET_CONFIG`, `SET_SESSION`, `EXECUTE` and `LOAD` say when. A word such as `true` is not a literal here.

mod applied;
pub mod block;
pub mod bodies;
pub mod by_key;
mod canon;
pub mod classify;
pub mod code;
pub(crate) mod code_graph;
pub mod deeds;
pub mod defines;
pub mod footing;
mod functions;
mod globals;
mod grounds;
pub mod index;
pub mod kept;
pub mod lasting;
pub mod lex;
pub mod nesting;
mod normal;
pub mod own;
pub(crate) mod pids;
pub mod plan;
pub mod prepared;
pub mod replaces;
pub mod settings;
pub mod shape;
pub mod sources;
mod statement;
pub mod summary;
pub mod tables;
pub mod tags;
pub mod timed;
pub mod vacates;
pub mod verdict;
pub mod wish;
pub(crate) mod words;
pub mod writes;
