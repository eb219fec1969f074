//! The SQL lexer: cuts a statement's bytes into tokens exactly where PostgreSQL's own scanner does.
//! Must never allocate, recurse, require UTF-8, or fail: what is not closed ends with the text, what is not known is one `Unknown` byte.
//!
//! Follows `src/backend/parser/scan.l` of PostgreSQL 18. Two deliberate differences: `N'..'` is one token (there `NCHAR` and a string), and trailing
//! junk of a number (`1abc`, an error there) belongs to the token. A word directly after `$1` is a token of its own, as in servers before 15 and pg_query. Keywords are not told from identifiers; see [`eq_word`].
//! A byte >= 0x80 is an identifier byte, which is right for every *server* encoding. In a client-only encoding (SJIS, BIG5, GBK, UHC, GB18030,
//! JOHAB) the second byte of a character may be a backslash, bracket or operator; the server converts before it scans, this lexer cannot. Whoever serves
//! such a client must not trust what follows from its tokens where bytes >= 0x80 stand outside of plain strings.

use memchr::{memchr, memchr2, memmem};

/// What a token is. Comments are tokens too, white space is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unquoted identifier or keyword, as written.
    Word,
    /// `"..."`, with its quotes.
    QuotedWord,
    /// `U&"..."`: an identifier whose name only the server can tell (a `UESCAPE` clause may follow).
    UnicodeWord,
    /// Any string or bit-string constant, with prefix, quotes and continuations over line ends.
    Text,
    /// Integer or float without sign, including trailing junk.
    Number,
    /// `$1`.
    Param,
    /// Operator of any length, `=>` included.
    Operator,
    /// `,`
    Comma,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `.`
    Dot,
    /// `;`
    Semicolon,
    /// `[`, `]`, `:`, `::`, `:=` and `..`
    Punct,
    /// `-- ...` up to the line end, or `/* ... */`, nested.
    Comment,
    /// A byte that no token can start with.
    Unknown,
}

/// A token: its kind and its bytes `start..end` in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset after its last byte; always greater than `start`.
    pub end: usize,
}

impl Token {
    /// The bytes of the token in `sql`, empty if `sql` is not the text it came from.
    #[must_use]
    pub fn bytes<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        sql.get(self.start..self.end).unwrap_or_default()
    }
}

/// Whether an unquoted word is this keyword or identifier; `lower` must be lower case. ASCII folding, as PostgreSQL does for keywords.
#[must_use]
#[inline]
pub fn eq_word(word: &[u8], lower: &[u8]) -> bool {
    word.len() == lower.len() && word.eq_ignore_ascii_case(lower)
}

const SPACE: u8 = 1;
const WORD_START: u8 = 2;
const WORD: u8 = 4;
const DIGIT: u8 = 8;
const OPERATOR: u8 = 16;
/// Characters that let a longer operator end in `+` or `-` (scan.l, rule `{operator}`).
const OPERATOR_ODD: u8 = 32;

const CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut b = 0usize;
    while b < 256 {
        table[b] = match b as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => WORD_START | WORD,
            b'0'..=b'9' => DIGIT | WORD,
            b'$' => WORD,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%' => OPERATOR | OPERATOR_ODD,
            b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' => OPERATOR,
            _ => 0,
        };
        b += 1;
    }
    table
}

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// How a quote or backslash inside of a string constant is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// A doubled quote is a quote.
    Plain,
    /// So is one after a backslash.
    Escapes,
    /// `B'..'` and `X'..'`: a quote ends, doubled or not.
    Bits,
}

/// Iterator over the tokens of one text.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    pos: usize,
    standard_conforming_strings: bool,
}

impl<'a> Lexer<'a> {
    /// Starts at the first byte. With `standard_conforming_strings` off a backslash escapes in plain `'..'` too.
    #[must_use]
    pub fn new(sql: &'a [u8], standard_conforming_strings: bool) -> Self {
        Self { sql, pos: 0, standard_conforming_strings }
    }

    /// The byte at `at`, 0 past the end: NUL starts and continues nothing, and cannot occur in a protocol string.
    #[inline]
    fn at(&self, at: usize) -> u8 {
        self.sql.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn span_end(&self, mut at: usize, class: u8) -> usize {
        while let Some(&b) = self.sql.get(at)
            && is(b, class)
        {
            at += 1;
        }
        at
    }

    /// End of the token of `first` at `start`, and its kind.
    #[inline]
    fn token(&self, first: u8, start: usize) -> (Kind, usize) {
        if is(first, WORD_START) {
            return self.word(first, start);
        }
        match first {
            b'0'..=b'9' => (Kind::Number, self.number(start)),
            b',' => (Kind::Comma, start + 1),
            b'(' => (Kind::Open, start + 1),
            b')' => (Kind::Close, start + 1),
            b';' => (Kind::Semicolon, start + 1),
            b'\'' => (Kind::Text, self.string(start + 1, self.plain())),
            b'"' => (Kind::QuotedWord, self.quoted(start + 1)),
            b'[' | b']' => (Kind::Punct, start + 1),
            b'.' => match self.at(start + 1) {
                b'0'..=b'9' => (Kind::Number, self.number(start)),
                b'.' => (Kind::Punct, start + 2),
                _ => (Kind::Dot, start + 1),
            },
            b':' if matches!(self.at(start + 1), b':' | b'=') => (Kind::Punct, start + 2),
            b':' => (Kind::Punct, start + 1),
            b'$' => self.dollar(start),
            b'-' if self.at(start + 1) == b'-' => (Kind::Comment, self.line_end(start)),
            b'/' if self.at(start + 1) == b'*' => (Kind::Comment, self.comment(start + 2)),
            _ if is(first, OPERATOR) => (Kind::Operator, self.operator(start)),
            _ => (Kind::Unknown, start + 1),
        }
    }

    /// A word, or one of the constants that start with a letter.
    #[inline]
    fn word(&self, first: u8, start: usize) -> (Kind, usize) {
        let end = self.span_end(start + 1, WORD);
        if end == start + 1 {
            let next = self.at(end);
            match first | 0x20 {
                b'e' if next == b'\'' => {
                    return (Kind::Text, self.string(end + 1, Quoting::Escapes));
                }
                b'n' if next == b'\'' => return (Kind::Text, self.string(end + 1, self.plain())),
                b'b' | b'x' if next == b'\'' => {
                    return (Kind::Text, self.string(end + 1, Quoting::Bits));
                }
                b'u' if next == b'&' && self.at(end + 1) == b'\'' => {
                    return (Kind::Text, self.string(end + 2, Quoting::Plain));
                }
                b'u' if next == b'&' && self.at(end + 1) == b'"' => {
                    return (Kind::UnicodeWord, self.quoted(end + 2));
                }
                _ => {}
            }
        }
        (Kind::Word, end)
    }

    fn plain(&self) -> Quoting {
        if self.standard_conforming_strings { Quoting::Plain } else { Quoting::Escapes }
    }

    fn line_end(&self, start: usize) -> usize {
        self.sql.get(start..).and_then(|rest| memchr2(b'\n', b'\r', rest)).map_or(self.sql.len(), |n| start + n)
    }

    /// End of a block comment whose first `/*` ends at `pos`; comments nest.
    fn comment(&self, mut pos: usize) -> usize {
        let mut depth = 1usize;
        while let Some(n) = self.sql.get(pos..).and_then(|rest| memchr2(b'*', b'/', rest)) {
            pos += n;
            match (self.at(pos), self.at(pos + 1)) {
                (b'*', b'/') => {
                    pos += 2;
                    depth -= 1;
                    if depth == 0 {
                        return pos;
                    }
                }
                (b'/', b'*') => {
                    pos += 2;
                    depth += 1;
                }
                _ => pos += 1,
            }
        }
        self.sql.len()
    }

    /// End of a string constant whose opening quote ends at `pos`, its continuations included.
    fn string(&self, mut pos: usize, quoting: Quoting) -> usize {
        loop {
            let Some(rest) = self.sql.get(pos..) else {
                return self.sql.len();
            };
            let found = if quoting == Quoting::Escapes { memchr2(b'\'', b'\\', rest) } else { memchr(b'\'', rest) };
            let Some(n) = found else {
                return self.sql.len();
            };
            pos += n;
            if self.at(pos) == b'\\' || (self.at(pos + 1) == b'\'' && quoting != Quoting::Bits) {
                pos += 2;
            } else {
                let Some(next) = self.continuation(pos + 1) else {
                    return pos + 1;
                };
                pos = next;
            }
        }
    }

    /// After a closing quote: white space with a line end, then a quote, goes on with the string (scan.l `quotecontinue`).
    #[inline]
    fn continuation(&self, mut pos: usize) -> Option<usize> {
        let mut line_ended = false;
        loop {
            match self.at(pos) {
                b'\n' | b'\r' => {
                    line_ended = true;
                    pos += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => pos += 1,
                b'-' if self.at(pos + 1) == b'-' => pos = self.line_end(pos),
                b'\'' if line_ended => return Some(pos + 1),
                _ => return None,
            }
        }
    }

    /// End of a quoted identifier whose opening quote ends at `pos`.
    fn quoted(&self, mut pos: usize) -> usize {
        while let Some(n) = self.sql.get(pos..).and_then(|rest| memchr(b'"', rest)) {
            pos += n + 1;
            if self.at(pos) != b'"' {
                return pos;
            }
            pos += 1;
        }
        self.sql.len()
    }

    /// `$1`, `$$..$$`, `$tag$..$tag$` or a lone `$`.
    fn dollar(&self, start: usize) -> (Kind, usize) {
        let next = self.at(start + 1);
        if is(next, DIGIT) {
            return (Kind::Param, self.span_end(start + 1, DIGIT));
        }
        let mut end = start + 1;
        if is(next, WORD_START) {
            while is(self.at(end), WORD) && self.at(end) != b'$' {
                end += 1;
            }
        }
        if self.at(end) != b'$' {
            return (Kind::Unknown, start + 1);
        }
        let tag = self.sql.get(start..=end).unwrap_or_default();
        let body = self.sql.get(end + 1..).unwrap_or_default();
        let close = memmem::find(body, tag).map_or(self.sql.len(), |n| end + 1 + n + tag.len());
        (Kind::Text, close)
    }

    /// End of a number; `1..2` is the integer 1 and `..` (scan.l `numericfail`).
    fn number(&self, start: usize) -> usize {
        let mut pos = start;
        if self.at(pos) == b'0' && matches!(self.at(pos + 1) | 0x20, b'x' | b'o' | b'b') {
            return self.junk(pos + 2);
        }
        pos = self.digits(pos);
        if self.at(pos) == b'.' && self.at(pos + 1) != b'.' {
            pos = self.digits(pos + 1);
        }
        if self.at(pos) | 0x20 == b'e' && matches!(self.at(pos + 1), b'+' | b'-') {
            pos += 2;
        }
        self.junk(pos)
    }

    /// What follows a number without a gap; `$` may begin a parameter or a dollar quote.
    #[inline]
    fn junk(&self, mut pos: usize) -> usize {
        while is(self.at(pos), WORD) && self.at(pos) != b'$' {
            pos += 1;
        }
        pos
    }

    #[inline]
    fn digits(&self, mut pos: usize) -> usize {
        while is(self.at(pos), DIGIT) || (self.at(pos) == b'_' && is(self.at(pos + 1), DIGIT)) {
            pos += 1;
        }
        pos
    }

    /// End of an operator: cut before a comment, and trailing `+` or `-` only with an odd character before (scan.l `{operator}`).
    fn operator(&self, start: usize) -> usize {
        let mut end = start + 1;
        let mut odd = is(self.at(start), OPERATOR_ODD);
        while is(self.at(end), OPERATOR) && !matches!((self.at(end), self.at(end + 1)), (b'-', b'-') | (b'/', b'*')) {
            odd |= is(self.at(end), OPERATOR_ODD);
            end += 1;
        }
        if !odd {
            while end > start + 1 && matches!(self.at(end - 1), b'+' | b'-') {
                end -= 1;
            }
        }
        end
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        let start = self.span_end(self.pos, SPACE);
        let &first = self.sql.get(start)?;
        let (kind, end) = self.token(first, start);
        let end = end.min(self.sql.len()); // an escape at the very end points one past it
        self.pos = end;
        Some(Token { kind, start, end })
    }
}

#[cfg(test)]
#[path = "lex_tests.rs"]
mod tests;
