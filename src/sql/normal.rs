//! Prints a shape for people.
//! Must never print two shapes alike, nor a literal; what may be in one, as its quotes do not match, is left out.

use crate::sql::canon::{BEFORE_EXPRESSION, Canon, Item, Sink};
use crate::sql::lex::{Kind, Lexer, Token};

/// The canonical text of a shape for people: words in lower case, literals as `?` (an operator's own `?` is doubled), at most `limit` bytes of it
/// and `…` if that was not all. Bytes that are not UTF-8 become U+FFFD. Of a text whose quotes do not match, as one that an application has put
/// together with `O'Brien`, only what is before the first of them: whatever is behind may be a value.
#[must_use]
pub fn normalized(sql: &[u8], standard_conforming_strings: bool, limit: usize) -> String {
    let mut sink = TextSink { text: Vec::new(), last: None, limit };
    let clear = clear(sql, standard_conforming_strings);
    Canon::new(&mut sink).run(clear, standard_conforming_strings);
    let mut text = sink.text;
    let cut = text.len() > limit;
    if cut {
        // Back to a character boundary, so that no half character is shown.
        let end = (0..=limit).rev().find(|&n| text.get(n).is_none_or(|b| b & 0xc0 != 0x80)).unwrap_or(0);
        text.truncate(end);
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if cut || clear.len() < sql.len() {
        text.push('…');
    }
    text
}

/// The text as far as it is certain what is a value: all of it, or what is before the first quote if they do not match.
fn clear(sql: &[u8], standard_conforming_strings: bool) -> &[u8] {
    let is_quoted = |kind| matches!(kind, Kind::Text | Kind::QuotedWord | Kind::UnicodeWord);
    // The first string, and the first of either kind of quotes.
    let (mut text, mut any) = (None, None);
    let mut last: Option<Token> = None;
    for token in Lexer::new(sql, standard_conforming_strings) {
        if let Some(last) = last.filter(|last| is_quoted(last.kind) && last.end == token.start)
            && matches!(token.kind, Kind::Word | Kind::Number | Kind::Text | Kind::Param)
        {
            // `'it's`: a quote within a value has ended it.
            let end = if last.kind == Kind::Text { text } else { any };
            return sql.get(..end.unwrap_or_default()).unwrap_or_default();
        }
        if is_quoted(token.kind) {
            any.get_or_insert(token.start);
        }
        if token.kind == Kind::Text {
            text.get_or_insert(token.start);
        }
        last = Some(token);
    }
    let Some(last) = last.filter(|last| is_quoted(last.kind)) else { return sql };
    // One that is not closed would go on.
    let longer = [last.bytes(sql), b" "].concat();
    if Lexer::new(&longer, standard_conforming_strings).next().is_none_or(|token| token.end < longer.len()) {
        return sql;
    }
    let end = if last.kind == Kind::Text { text } else { any };
    sql.get(..end.unwrap_or_default()).unwrap_or_default()
}

/// Prints the canonical tokens.
struct TextSink {
    text: Vec<u8>,
    last: Option<Item>,
    limit: usize,
}

impl TextSink {
    /// Whether a space belongs between the last item and this one. Two tokens that would read as one must have it, see the tests.
    fn spaced(&self, item: Item, bytes: &[u8]) -> bool {
        let Some(last) = self.last else { return false };
        let name = |item| matches!(item, Item::Other(Kind::Word | Kind::QuotedWord | Kind::UnicodeWord));
        let dot = |item| item == Item::Other(Kind::Dot);
        let punct = |item| matches!(item, Item::Other(Kind::Punct | Kind::Dot));
        if punct(item) && punct(last) {
            return true;
        }
        let tight_after = last == Item::Open
            || (dot(last) && (name(item) || bytes == b"*"))
            || self.text.ends_with(b"::")
            || self.text.ends_with(b"[");
        let tight_before = matches!(item, Item::Comma | Item::Close | Item::Other(Kind::Semicolon))
            || (dot(item) && (name(last) || last == Item::Close))
            || matches!(bytes, b"::" | b"[" | b"]");
        let call = item == Item::Open && last == Item::Other(Kind::Word) && !self.ends_with_keyword();
        !(tight_after || tight_before || call)
    }

    fn ends_with_keyword(&self) -> bool {
        let start = self.text.iter().rposition(|b| !b.is_ascii_alphanumeric() && *b != b'_').map_or(0, |n| n + 1);
        let word = self.text.get(start..).unwrap_or_default();
        BEFORE_EXPRESSION.iter().chain(&["as", "exists", "join", "over", "filter"]).any(|k| k.as_bytes() == word)
    }
}

impl Sink for TextSink {
    fn word(&mut self, sql: &[u8], token: Token) {
        self.item(Item::Other(Kind::Word), token.bytes(sql));
    }

    fn item(&mut self, item: Item, bytes: &[u8]) {
        if self.text.len() > self.limit {
            return;
        }
        if self.spaced(item, bytes) {
            self.text.push(b' ');
        }
        match item {
            Item::Other(Kind::Word) => self.text.extend(bytes.iter().map(u8::to_ascii_lowercase)),
            Item::Other(Kind::Operator) => {
                for &b in bytes {
                    self.text.push(b);
                    if b == b'?' {
                        self.text.push(b);
                    }
                }
            }
            _ => self.text.extend_from_slice(bytes),
        }
        self.last = Some(item);
    }
}
