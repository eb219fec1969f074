//! `[log]`: what is logged, and in which form.
//! Must never decide where it goes: that is always standard error.

use toml::Spanned;
use toml::de::DeValue;

use super::leaf::{Filter, Word};
use super::reader::{Field, Leaf, Reader, join, section};
use super::words::words;

section! {
    /// `[log]`
    RawLog {
        level: Filter,
        format: Word<LogFormat>,
    }
}

/// `[log]`: what is logged and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, also per target: `info,pgweir::pool=debug`.
    /// Default `info`.
    pub level: String,
    /// Default text.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

words! {
    /// Form of a log line.
    pub enum LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
    refused {}
}
