//! The error of this library: one sentence for the person who reads a failed test.
//! It must never be matched on; a caller that needs to decide asks the server instead.

use std::fmt;

/// What went wrong, as a sentence. `Debug` prints the sentence too, so that a test which returns it is readable.
#[derive(Clone)]
pub struct Error(String);

/// The result of everything here that touches the machine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to an error of the standard library.
pub(crate) trait During<T> {
    /// `what` reads as in "cannot WHAT: reason".
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error(format!("cannot {}: {error}", what())))
    }
}
