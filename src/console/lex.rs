//! Takes a text that was sent to the console apart into words.
//! Must never judge what they mean.

use crate::wire::error::{PgError, SqlState};

/// What a word is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A name or key word as it was written.
    Bare(String),
    /// A name in double quotes, or a text in single ones.
    Quoted(String),
    /// A parameter, counted from 1.
    Parameter(usize),
    /// `=`, `<>` and the like.
    Operator(String),
    /// `;`
    End,
}

impl Word {
    /// Whether it is this key word, whatever its case.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// A word, and where in the text it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub word: Word,
    pub at: usize,
}

/// The words of `text`, without comments.
pub(super) fn words(text: &str) -> Result<Vec<Token>, PgError> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..)
        && let Some(first) = rest.chars().next()
    {
        let (word, length) = match first {
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            _ if rest.starts_with("/*") => (None, comment(rest).ok_or_else(|| unfinished("comment"))?),
            ';' => (Some(Word::End), 1),
            '\'' | '"' => {
                let (value, length) = quoted(rest, first).ok_or_else(|| unfinished("quoted string"))?;
                (Some(Word::Quoted(value)), length)
            }
            '=' | '<' | '>' | '!' | '~' => {
                let length = rest.find(|c| !"=<>!~".contains(c)).unwrap_or(rest.len());
                (Some(Word::Operator(rest[..length].to_owned())), length)
            }
            _ => {
                let is_part = |c: char| !c.is_whitespace() && !";'\"=<>!~,".contains(c);
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let comment = ["/*", "--"].iter().filter_map(|begin| rest.find(begin)).min().unwrap_or(end);
                let length = end.min(comment).max(first.len_utf8());
                let word = &rest[..length];
                let number = word.strip_prefix('$').and_then(|number| number.parse().ok()).filter(|n| *n > 0);
                (Some(number.map_or_else(|| Word::Bare(word.to_owned()), Word::Parameter)), length)
            }
        };
        words.extend(word.map(|word| Token { word, at }));
        at += length;
    }
    Ok(words)
}

/// Length of the comment at the front; they nest, as in PostgreSQL.
fn comment(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    loop {
        let rest = text.get(at..)?;
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += rest.chars().next()?.len_utf8();
        }
    }
}

/// What stands between the quotes at the front, and how long it is with them; two quotes are one.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != quote {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            return Some((value, at + 1));
        }
    }
    None
}

fn unfinished(what: &str) -> PgError {
    PgError::error(SqlState::SYNTAX_ERROR, format!("unterminated {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn takes_apart() {
        let all = |text| words(text).unwrap().into_iter().map(|token| token.word).collect::<Vec<_>>();
        let bare = |word: &str| Word::Bare(word.into());
        let quoted = |word: &str| Word::Quoted(word.into());
        assert_eq!(all("SHOW pools;"), [bare("SHOW"), bare("pools"), Word::End]);
        assert_eq!(
            all("show/* a /* b */ c */clients where user='it''s' -- no\nand wait_us>=$1"),
            [
                bare("show"),
                bare("clients"),
                bare("where"),
                bare("user"),
                Word::Operator("=".into()),
                quoted("it's"),
                bare("and"),
                bare("wait_us"),
                Word::Operator(">=".into()),
                Word::Parameter(1)
            ]
        );
        assert_eq!(all("PAUSE \"my \"\"db\""), [bare("PAUSE"), quoted("my \"db")]);
        assert_eq!(all("é,$0"), [bare("é"), bare(","), bare("$0")]);
        for text in ["'", "a \"b", "/* /* */"] {
            assert_eq!(words(text).unwrap_err().code, SqlState::SYNTAX_ERROR);
        }
    }
}
