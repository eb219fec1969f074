//! The canonical tokens of a text: what the shape is the hash of, and what its display prints.
//! Must never allocate, nor drop a token that could matter to a verdict: only comments, empty statements and repeated placeholders go.

use memchr::{memchr, memmem};

use crate::sql::lex::{Kind, Lexer, Token, eq_word};
use crate::sql::shape::{First, Flags};

/// A canonical token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    /// A literal or parameter, whatever it was.
    Literal,
    Comma,
    Open,
    Close,
    /// Any other token, its bytes as written.
    Other(Kind),
}

/// Takes canonical tokens in order.
pub(crate) trait Sink {
    /// Any token but an unquoted word.
    fn item(&mut self, item: Item, bytes: &[u8]);
    /// An unquoted word of `sql`, to be folded to lower case.
    fn word(&mut self, sql: &[u8], token: Token);
}

/// Where in a list of literals or rows the stream is; items that may still be dropped are held back (named after `Held`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    Outside,
    Literal,
    LiteralHeldComma,
    Open,
    RowLiteral,
    RowLiteralHeldComma,
    Row,
    RowHeldComma,
    RowHeldOpen,
    RowHeldLiteral,
    RowHeldLiteralComma,
}

/// A sign in unary position waits for a number.
const SIGN: u8 = 1;
/// The last word was FOR.
const AFTER_FOR: u8 = 2;
/// No statement has begun, or the last one has ended; a `;` is written only when something follows.
const NO_STATEMENT: u8 = 4;
/// The first keyword has not come.
const NO_KEYWORD: u8 = 8;

/// The canonicaliser between the lexer and a sink.
pub(crate) struct Canon<'s, S> {
    sink: &'s mut S,
    list: List,
    sign: Token,
    /// What the next token must attend to, see the constants; usually nothing, and one test finds that out.
    alert: u8,
    depth: u32,
    pub statements: u32,
    pub first: First,
    pub flags: Flags,
    last: Token,
}

impl<'s, S: Sink> Canon<'s, S> {
    pub(crate) fn new(sink: &'s mut S) -> Self {
        let last = Token { kind: Kind::Semicolon, start: 0, end: 0 };
        Self {
            sink,
            list: List::Outside,
            sign: last,
            alert: NO_STATEMENT | NO_KEYWORD,
            depth: 0,
            statements: 0,
            first: First::Empty,
            flags: Flags::default(),
            last,
        }
    }

    /// Feeds a whole text.
    #[inline]
    pub(crate) fn run(&mut self, sql: &[u8], standard_conforming_strings: bool) {
        if !standard_conforming_strings {
            self.flags.set(Flags::BACKSLASH_ESCAPES);
        }
        for token in Lexer::new(sql, standard_conforming_strings) {
            if token.kind == Kind::Comment {
                self.comment(token.bytes(sql));
                continue;
            }
            self.token(token, sql);
            self.last = token;
        }
        self.flush_sign(sql);
        self.flush_list();
    }

    fn comment(&mut self, text: &[u8]) {
        self.flags.set(Flags::COMMENT);
        if memmem::find(text, b"pgweir:").is_some() {
            self.flags.set(Flags::COMMENT_HINT);
        }
    }

    #[inline]
    fn token(&mut self, token: Token, sql: &[u8]) {
        let bytes = token.bytes(sql);
        if self.alert != 0 && !self.attend(token, sql) {
            return;
        }
        match token.kind {
            Kind::Word => {
                self.word_flags(bytes);
                if self.list != List::Outside {
                    self.flush_list();
                    self.list = List::Outside;
                }
                self.sink.word(sql, token);
            }
            Kind::Text if self.escapes_are_unclear(bytes) => {
                self.flags.set(Flags::ENCODING);
                self.item(Item::Other(Kind::Text), b"'?");
            }
            Kind::Text | Kind::Number => {
                self.flags.set(Flags::LITERAL);
                self.item(Item::Literal, b"?");
            }
            Kind::Param => {
                self.flags.set(Flags::PARAM);
                self.item(Item::Literal, b"?");
            }
            Kind::Operator if matches!(bytes, b"+" | b"-") && self.is_unary(sql) => {
                self.sign = token;
                self.alert |= SIGN;
            }
            Kind::Comma => self.item(Item::Comma, bytes),
            Kind::Open => {
                self.depth += 1;
                self.item(Item::Open, bytes);
            }
            Kind::Close => {
                self.depth = self.depth.saturating_sub(1);
                self.item(Item::Close, bytes);
            }
            Kind::Semicolon if self.depth == 0 => self.alert |= NO_STATEMENT,
            kind => {
                self.rare_flags(kind, bytes);
                self.write(Item::Other(kind), bytes);
            }
        }
    }

    /// What the tokens before left to be done; false if `token` needs nothing more.
    #[cold]
    fn attend(&mut self, token: Token, sql: &[u8]) -> bool {
        if token.kind != Kind::Number {
            self.flush_sign(sql);
        }
        self.alert &= !SIGN;
        if self.alert & AFTER_FOR != 0 {
            self.alert &= !AFTER_FOR;
            let word = token.bytes(sql);
            if token.kind == Kind::Word
                && [b"update".as_slice(), b"share", b"no", b"key"].iter().any(|lock| eq_word(word, lock))
            {
                self.flags.set(Flags::FOR_LOCK);
            }
        }
        if self.alert & NO_STATEMENT != 0 {
            if token.kind == Kind::Semicolon {
                return false;
            }
            self.alert &= !NO_STATEMENT;
            if self.statements > 0 {
                self.write(Item::Other(Kind::Semicolon), b";");
            }
            self.statements = self.statements.saturating_add(1);
        }
        if self.first == First::Empty && token.kind != Kind::Open {
            self.first = if token.kind == Kind::Word { First::of(token.bytes(sql)) } else { First::Other };
            self.alert &= !NO_KEYWORD;
        }
        true
    }

    /// A backslash in an escape string that is not UTF-8 may be the second half of a character (SJIS, BIG5 ..), and the string may end elsewhere than
    /// the lexer thinks. Such a text must not share the shape of a clear one.
    #[inline]
    fn escapes_are_unclear(&self, text: &[u8]) -> bool {
        let escapes = matches!(text.first(), Some(b'e' | b'E')) || self.flags.has(Flags::BACKSLASH_ESCAPES);
        escapes && memchr(b'\\', text).is_some() && std::str::from_utf8(text).is_err()
    }

    #[inline]
    fn word_flags(&mut self, word: &[u8]) {
        match word.len() {
            3 if eq_word(word, b"for") => self.alert |= AFTER_FOR,
            4 if eq_word(word, b"into") => self.flags.set(Flags::INTO),
            10 if eq_word(word, b"set_config") => self.flags.set(Flags::SET_CONFIG),
            _ => {}
        }
    }

    fn rare_flags(&mut self, kind: Kind, bytes: &[u8]) {
        match kind {
            Kind::UnicodeWord => self.flags.set(Flags::UNICODE_WORD),
            Kind::QuotedWord if bytes == b"\"set_config\"" => self.flags.set(Flags::SET_CONFIG),
            Kind::Unknown => self.flags.set(Flags::UNKNOWN),
            _ => {}
        }
    }

    /// Whether a sign after the last token belongs to what follows: after the start, an operator, `(`, `[`, `,` or a keyword that an expression follows.
    fn is_unary(&self, sql: &[u8]) -> bool {
        match self.last.kind {
            Kind::Semicolon | Kind::Operator | Kind::Open | Kind::Comma => true,
            Kind::Punct => !matches!(self.last.bytes(sql), b"]"),
            Kind::Word => {
                let word = self.last.bytes(sql);
                BEFORE_EXPRESSION.iter().any(|k| eq_word(word, k.as_bytes()))
            }
            _ => false,
        }
    }

    fn flush_sign(&mut self, sql: &[u8]) {
        if self.alert & SIGN != 0 {
            self.write(Item::Other(Kind::Operator), self.sign.bytes(sql));
        }
    }

    /// Writes what is held back: the item that comes cannot extend the list.
    #[inline(never)]
    fn flush_list(&mut self) {
        let held: &[(Item, &[u8])] = match self.list {
            List::LiteralHeldComma | List::RowLiteralHeldComma | List::RowHeldComma => &[(Item::Comma, b",")],
            List::RowHeldOpen => &[(Item::Comma, b","), (Item::Open, b"(")],
            List::RowHeldLiteral => &[(Item::Comma, b","), (Item::Open, b"("), (Item::Literal, b"?")],
            List::RowHeldLiteralComma => {
                &[(Item::Comma, b","), (Item::Open, b"("), (Item::Literal, b"?"), (Item::Comma, b",")]
            }
            _ => return,
        };
        for &(item, bytes) in held {
            self.sink.item(item, bytes);
        }
        self.list = match self.list {
            List::RowHeldOpen => List::Open,
            List::RowHeldLiteral => List::RowLiteral,
            _ => List::Outside,
        };
    }

    #[inline]
    fn item(&mut self, item: Item, bytes: &[u8]) {
        // Items that extend or repeat a list are dropped or held.
        let next = match (self.list, item) {
            (List::Literal, Item::Comma) => List::LiteralHeldComma,
            (List::LiteralHeldComma, Item::Literal) => List::Literal,
            (List::RowLiteral, Item::Comma) => List::RowLiteralHeldComma,
            (List::RowLiteralHeldComma, Item::Literal) => List::RowLiteral,
            (List::Row, Item::Comma) => List::RowHeldComma,
            (List::RowHeldComma, Item::Open) => List::RowHeldOpen,
            (List::RowHeldOpen | List::RowHeldLiteralComma, Item::Literal) => List::RowHeldLiteral,
            (List::RowHeldLiteral, Item::Comma) => List::RowHeldLiteralComma,
            (List::RowHeldLiteral, Item::Close) => List::Row,
            _ => return self.write(item, bytes),
        };
        self.list = next;
    }

    #[inline]
    fn write(&mut self, item: Item, bytes: &[u8]) {
        if self.list != List::Outside {
            self.flush_list();
        }
        self.sink.item(item, bytes);
        self.list = match (self.list, item) {
            (_, Item::Open) => List::Open,
            (List::Open, Item::Literal) => List::RowLiteral,
            (List::RowLiteral, Item::Close) => List::Row,
            (_, Item::Literal) => List::Literal,
            _ => List::Outside,
        };
    }
}

/// Keywords after which a sign is unary. A word that is missing here costs a second shape for negative numbers, nothing else.
pub(crate) const BEFORE_EXPRESSION: [&str; 36] = [
    "select",
    "where",
    "and",
    "or",
    "not",
    "limit",
    "offset",
    "between",
    "symmetric",
    "then",
    "else",
    "when",
    "in",
    "values",
    "return",
    "returning",
    "by",
    "on",
    "having",
    "set",
    "case",
    "like",
    "ilike",
    "to",
    "distinct",
    "all",
    "using",
    "escape",
    "default",
    "with",
    "increment",
    "minvalue",
    "maxvalue",
    "first",
    "next",
    "from",
];
