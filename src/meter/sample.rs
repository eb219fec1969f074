//! What is told of a finished statement, and under what it is counted.
//! Never holds a value of a statement's.

use std::sync::Arc;

use crate::wire::error::SqlState;

/// Database and user that a shape was run under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolLabel {
    /// Name of the database as clients give it.
    pub database: Arc<str>,
    /// Name of the user.
    pub user: Arc<str>,
}

/// Who has answered a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The server that takes writes, whichever that was at the time.
    Primary,
    /// A replica, by its name.
    Replica(Arc<str>),
    /// The process's own cache.
    L1,
    /// The cache that processes share.
    L2,
}

impl Target {
    /// As labels have it: `primary`, `l1`, `l2`, or the replica's name, which has a port or a path in it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Primary => "primary",
            Self::Replica(name) => name,
            Self::L1 => "l1",
            Self::L2 => "l2",
        }
    }
}

/// Whose statements, and who has answered them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Database and user.
    pub pool: Arc<PoolLabel>,
    /// Who has answered.
    pub target: Target,
}

#[cfg(test)]
impl Place {
    /// On the primary.
    pub fn test(database: &str, user: &str) -> Self {
        let pool = PoolLabel { database: database.into(), user: user.into() };
        Self { pool: Arc::new(pool), target: Target::Primary }
    }
}

/// A part of the time that a statement takes, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Wait for a server, or for the lane's turn.
    Wait,
    /// From sending the statement to the first byte of its answer. Answers that came together in a lane have equal parts.
    FirstByte,
    /// From sending the statement to the end of its answer.
    Server,
    /// How long its client kept answers from being written: it may reach into `Server`, which waits for a slow reader, and beyond.
    /// Answers that were still to be written when the next had come count with that.
    Write,
    /// `Wait` and `Server`.
    Total,
}

impl Phase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Wait, Self::FirstByte, Self::Server, Self::Write, Self::Total];

    /// As labels and columns have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::FirstByte => "first_byte",
            Self::Server => "server",
            Self::Write => "write",
            Self::Total => "total",
        }
    }
}

/// Classes of SQLSTATE that are counted by themselves (PostgreSQL's appendix A), and all the rest.
pub const ERROR_CLASSES: [&str; 18] =
    ["08", "0A", "21", "22", "23", "25", "26", "28", "40", "42", "53", "54", "55", "57", "58", "P0", "XX", "other"];

/// The class of an error: an index into [`ERROR_CLASSES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorClass(u8);

impl ErrorClass {
    /// The class that a code belongs to.
    #[must_use]
    pub fn of(code: SqlState) -> Self {
        let known = ERROR_CLASSES.iter().position(|class| code.0.starts_with(class.as_bytes()));
        Self(known.unwrap_or(ERROR_CLASSES.len() - 1) as u8)
    }

    /// Its place among [`ERROR_CLASSES`].
    #[must_use]
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// What one finished statement took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Time in which the client waited for a server, µs.
    pub wait_us: u64,
    /// Time from sending the statement to the first byte of its reply, µs.
    pub first_us: u64,
    /// Time from sending the statement to the end of its reply, µs.
    pub server_us: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// Bytes of the reply as the server sent it, with the protocol's own.
    pub bytes: u64,
    /// Whether the server answered with an ErrorResponse, and of which class.
    pub error: Option<ErrorClass>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_of_its_class_or_of_the_rest() {
        let class = |code: &[u8; 5]| ERROR_CLASSES[ErrorClass::of(SqlState(*code)).number()];
        assert_eq!([class(b"23505"), class(b"XX001"), class(b"0A000"), class(b"P1234")], ["23", "XX", "0A", "other"]);
    }

    #[test]
    fn phases_are_numbered_as_they_are_listed() {
        assert!(Phase::ALL.iter().enumerate().all(|(number, phase)| *phase as usize == number));
    }
}
