//! `[audit]`: a log of who ran what.
//! Must never have values of statements written that nobody asked for.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::leaf::{FilePath, Number, Size};
use super::leaf_auth::Texts;
use super::reader::{Field, Leaf, Reader, join, section};
use super::words::{Words, words};

words! {
    /// What statements can do that are worth a line.
    pub enum Audited {
        /// They change the schema.
        Ddl = "ddl",
        /// They change rows, or might.
        Dml = "dml",
        /// They change who may do what, or who does it: roles, rights, SET ROLE.
        Role = "role",
        /// They run code that their text does not show.
        Call = "call",
    }
    refused {}
}

section! {
    /// `[audit]`
    RawAudit {
        file: FilePath,
        what: Texts,
        parameter_bytes: Size<0, 65_536>,
        rotate_bytes: Size<0, 0xffff_ffff>,
        keep: Number<1, 1_000>,
    }
}

/// `[audit]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// Where lines are appended.
    pub file: PathBuf,
    /// Which statements. Default: all of them.
    pub what: Vec<Audited>,
    /// So many bytes of what a statement was given are written. Default 0: nothing of that.
    pub parameter_bytes: u32,
    /// Length at which the file is put aside. Default 100 MiB; 0: never.
    pub rotate_bytes: u32,
    /// How many of those are kept. Default 10.
    pub keep: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            what: Audited::WORDS.iter().map(|(_, what)| *what).collect(),
            parameter_bytes: 0,
            rotate_bytes: 100 << 20,
            keep: 10,
        }
    }
}

impl Check<'_> {
    pub(super) fn audit(&mut self, raw: Field<RawAudit>) -> Option<Audit> {
        let Field::Set(raw, span) = raw else { return None };
        let default = Audit::default();
        if raw.file.is_absent() {
            self.reader.note(span, "`[audit]` has no file", |problem| {
                problem.expected(r#"file, such as "/var/log/pgweir/audit.log""#)
            });
        }
        let what = raw.what.set().map_or(default.what, |texts| self.audited(texts));
        let FilePath(file) = raw.file.set()?;
        Some(Audit {
            file: self.outside.directory.join(file),
            what,
            parameter_bytes: raw.parameter_bytes.set().map_or(default.parameter_bytes, |size| size.0),
            rotate_bytes: raw.rotate_bytes.set().map_or(default.rotate_bytes, |size| size.0),
            keep: raw.keep.set().map_or(default.keep, |n| n.0),
        })
    }

    fn audited(&mut self, texts: Texts) -> Vec<Audited> {
        let mut all = Vec::new();
        for (text, span) in texts.0 {
            match Audited::WORDS.iter().find(|(word, _)| *word == text) {
                Some((_, what)) => all.push(*what),
                None => {
                    let words: Vec<String> = Audited::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                    let title = format!("`{text}` is nothing that statements are audited for");
                    self.reader.note(span, title, |problem| problem.expected(words.join(", ")));
                }
            }
        }
        all
    }
}
