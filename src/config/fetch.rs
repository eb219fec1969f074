//! Files and environment variables that a configuration names.
//! Must never let a secret into a problem's text.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::check::Check;
use super::leaf::{FilePath, RawSecret};
use super::password::Password;
use super::reader::{Field, Span};
use crate::base::secret::Secret;

/// Longest secret read from a file, in bytes; anything longer is the wrong file.
const SECRET_FILE_MAX: u64 = 64 * 1024;

impl Check<'_> {
    /// The path from the configuration's directory, of a file that can be opened.
    pub(super) fn file(&mut self, raw: Field<FilePath>) -> Option<PathBuf> {
        let Field::Set(FilePath(path), span) = raw else {
            return None;
        };
        let path = self.outside.directory.join(path);
        self.open(&path, span).map(|_| path)
    }

    fn open(&mut self, path: &Path, span: Span) -> Option<File> {
        let opened = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
            true => Err(ErrorKind::IsADirectory.into()),
            false => Ok(file),
        });
        match opened {
            Ok(file) => Some(file),
            Err(error) => {
                let title = format!("cannot open {}: {}", path.display(), why(&error));
                self.reader.note(span, title, |problem| problem.expected("a readable file"));
                None
            }
        }
    }

    /// A secret of any form, wherever it is.
    pub(super) fn secret(&mut self, raw: Field<RawSecret>) -> Option<Secret> {
        match raw.set()? {
            RawSecret::Value(secret) => Some(secret),
            RawSecret::Env(name, span) => self.secret_of_env(&name, span),
            RawSecret::File(path, span) => self.secret_of_file(&path, span),
        }
    }

    pub(super) fn password(&mut self, raw: Field<RawSecret>) -> Option<Password> {
        let span = raw.span()?;
        match Password::classify(self.secret(raw)?) {
            Ok(password) => Some(password),
            Err(broken) => {
                self.reader.note(span, "broken SCRAM verifier", |problem| problem.expected(broken));
                None
            }
        }
    }

    /// The text of a file of at most `limit` bytes. It may hold secrets, hence it is overwritten when done.
    pub(super) fn text_of_file(&mut self, path: &Path, span: Span, limit: u64) -> Option<Zeroizing<String>> {
        let file = self.open(path, span.clone())?;
        let room = file.metadata().map_or(0, |about| about.len()).min(limit) as usize;
        let mut text = Zeroizing::new(String::with_capacity(room + 1));
        let read = file.take(limit + 1).read_to_string(&mut text);
        if read.is_err() || text.len() as u64 > limit {
            let title = format!("cannot read {}", path.display());
            let expected = format!("a text in UTF-8 of at most {}", super::format_size(limit));
            self.reader.note(span, title, |problem| problem.expected(expected));
            return None;
        }
        Some(text)
    }

    fn secret_of_env(&mut self, name: &str, span: Span) -> Option<Secret> {
        let secret = (self.outside.variable)(name).map(Secret::new);
        if secret.as_ref().is_none_or(Secret::is_empty) {
            let state = if secret.is_some() { "empty" } else { "not set" };
            let title = format!("the environment variable `{name}` is {state}");
            self.reader.note(span, title, |problem| problem.expected("a variable that holds the secret"));
            return None;
        }
        secret
    }

    fn secret_of_file(&mut self, path: &Path, span: Span) -> Option<Secret> {
        let path = self.outside.directory.join(path);
        let file = self.open(&path, span.clone())?;
        // Room for all of it at once: a growing buffer would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(SECRET_FILE_MAX as usize + 1));
        let read = file.take(SECRET_FILE_MAX + 1).read_to_string(&mut text);
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        let usable = !secret.is_empty() && !secret.contains('\0') && text.len() as u64 <= SECRET_FILE_MAX;
        if read.is_err() || !usable {
            let title = format!("{} holds no secret", path.display());
            let expected = "one text in UTF-8, not empty, without a zero byte, at most 64KiB";
            self.reader.note(span, title, |problem| problem.expected(expected));
            return None;
        }
        Some(Secret::new(secret.to_owned()))
    }
}

/// An I/O error in the words an operator knows, without the number of the error.
pub(super) fn why(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        kind => kind.to_string(),
    }
}
