//! The lines of `pg_hba.conf` and `pg_ident.conf`, cut into fields as PostgreSQL cuts them.
//! Must never give a meaning to a word: whoever asked for the fields does.
//!
//! After `next_token` and `tokenize_auth_file` of PostgreSQL's `src/backend/libpq/hba.c`.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

/// A word, and whether it was quoted: then it is a name whatever it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) quoted: bool,
    /// Its place in the text, in bytes.
    pub(super) span: Range<usize>,
}

impl Token {
    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }

    /// Whether it begins with a character that gives it another meaning than a name.
    pub(super) fn begins(&self, with: char) -> bool {
        !self.quoted && self.text.starts_with(with)
    }
}

/// The fields of a line that has any; each is a list of words between commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) fields: Vec<Vec<Token>>,
    /// Its place in the text, in bytes.
    pub(super) span: Range<usize>,
}

/// Something that cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) expected: String,
}

impl Flaw {
    pub(super) fn new(line: usize, span: Range<usize>, what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { line, span, what: what.into(), expected: expected.into() }
    }
}

/// The lines that say something. A backslash at the end of a line joins the next one to it.
pub(super) fn lines(text: &str) -> Result<Vec<Line>, Vec<Flaw>> {
    let mut reader = Lines { text, chars: text.char_indices().peekable(), number: 1 };
    let (mut lines, mut flaws) = (Vec::new(), Vec::new());
    while reader.chars.peek().is_some() {
        match reader.line() {
            Ok(line) if line.fields.is_empty() => {}
            Ok(line) => lines.push(line),
            Err(flaw) => flaws.push(flaw),
        }
    }
    if flaws.is_empty() { Ok(lines) } else { Err(flaws) }
}

struct Lines<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    number: usize,
}

/// Where a word ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Blank,
    Comma,
    Line,
}

impl Lines<'_> {
    fn line(&mut self) -> Result<Line, Flaw> {
        let (number, start) = (self.number, self.at());
        let mut fields = Vec::new();
        let mut field: Vec<Token> = Vec::new();
        let end = loop {
            let (token, end) = self.token(number)?;
            field.extend(token);
            // A list goes on behind its comma, also over blanks.
            if end != End::Comma && !field.is_empty() {
                fields.push(std::mem::take(&mut field));
            }
            if end == End::Line {
                break self.at();
            }
        };
        fields.extend((!field.is_empty()).then_some(field));
        let shown = self.text.get(start..end).map_or(0, |line| line.trim_end().len());
        Ok(Line { number, fields, span: start..start + shown })
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    /// The next character of this line; `None` at its end, which is stepped over.
    fn next(&mut self) -> Option<char> {
        loop {
            match self.chars.next()? {
                (_, '\n') => {
                    self.number += 1;
                    return None;
                }
                (at, '\\') => {
                    let rest = self.text.get(at + 1..).unwrap_or_default();
                    if !(rest.starts_with('\n') || rest.starts_with("\r\n")) {
                        return Some('\\');
                    }
                    while self.chars.next_if(|(_, c)| *c == '\r').is_some() {}
                    self.chars.next();
                    self.number += 1;
                }
                (_, c) => return Some(c),
            }
        }
    }

    fn token(&mut self, line: usize) -> Result<(Option<Token>, End), Flaw> {
        let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r');
        let mut start = self.at();
        let mut c = self.next();
        while c.is_some_and(is_blank) {
            start = self.at();
            c = self.next();
        }
        let (mut text, mut inside, mut was_quote, mut quoted) = (String::new(), false, false, false);
        let mut stop = start;
        let end = loop {
            match c {
                None => break End::Line,
                Some('#') if !inside => {
                    while self.next().is_some() {}
                    break End::Line;
                }
                Some(',') if !inside => break End::Comma,
                Some(c) if is_blank(c) && !inside => break End::Blank,
                Some('"') => {
                    // Two quotes inside of quotes are one.
                    if was_quote {
                        text.push('"');
                    }
                    was_quote = inside && !was_quote;
                    quoted |= !inside && text.is_empty();
                    inside = !inside;
                }
                Some(c) => {
                    was_quote = false;
                    text.push(c);
                }
            }
            stop = self.at();
            c = self.next();
        };
        if inside {
            return Err(Flaw::new(line, start..stop, "a quoted name does not end", "a closing \" on the same line"));
        }
        let token = (quoted || !text.is_empty()).then_some(Token { text, quoted, span: start..stop });
        Ok((token, end))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<Vec<Vec<String>>> {
        let word = |token: Token| if token.quoted { format!("<{}>", token.text) } else { token.text };
        let field = |field: Vec<Token>| field.into_iter().map(word).collect();
        lines(text).unwrap().into_iter().map(|line| line.fields.into_iter().map(field).collect()).collect()
    }

    #[test]
    fn fields_lists_quotes_comments() {
        assert_eq!(cut("local all all trust"), [[["local"], ["all"], ["all"], ["trust"]]]);
        assert_eq!(cut("a b,c, d\te # x\n\n  # y\n"), [vec![vec!["a"], vec!["b", "c", "d"], vec!["e"]]]);
        assert_eq!(cut("\"a b\" \"all\" \"x\"\"y\" \"\""), [[["<a b>"], ["<all>"], ["<x\"y>"], ["<>"]]]);
        assert_eq!(cut("a\"b c\"d"), [[["ab cd"]]]);
        assert_eq!(cut("\"#\"#"), [[["<#>"]]]);
        assert_eq!(cut("a \\\n b\nc\r\n\\x"), [vec![vec!["a"], vec!["b"]], vec![vec!["c"]], vec![vec!["\\x"]]]);
        assert_eq!(cut(""), [[[""; 0]; 0]; 0]);
    }

    #[test]
    fn places() {
        let text = "# one\nlocal  all,\"x\" # c\n\\\nz";
        let found = lines(text).unwrap();
        assert_eq!(found[0].number, 2);
        assert_eq!(&text[found[0].fields[1][1].span.clone()], "\"x\"");
        assert_eq!(&text[found[0].fields[0][0].span.clone()], "local");
        assert_eq!(found[1].number, 3);
        let flaws = lines("a\n\"b\nc").unwrap_err();
        assert_eq!((flaws.len(), flaws[0].line), (1, 2));
    }

    proptest::proptest! {
        #[test]
        fn nothing_does_harm(text in "[a \\t\"#,\\\\\n\r\u{e9}]{0,40}") {
            let _ = lines(&text);
        }
    }
}
