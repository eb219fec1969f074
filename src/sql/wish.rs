//! Where an application asks that its statements run: `/* pgweir: replica */`, or `SET pgweir.target = 'replica'`.
//! Must never be asked about a text in which [`super::shape::Flags::COMMENT_HINT`] was not seen: it reads the text again.

use super::lex::{Kind, Lexer};

/// Name of the setting, folded.
pub const SETTING: &[u8] = b"pgweir.target";

/// Where statements are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Wherever the router thinks best.
    #[default]
    Auto,
    /// The primary, reads too.
    Primary,
    /// A replica that may serve this client, whatever the statement looks like; the primary if there is none, and for
    /// what a replica refuses.
    Replica,
    /// A replica; where none may serve, an error.
    Standby,
}

impl Wish {
    /// The spellings, those of libpq's `target_session_attrs` among them (`src/interfaces/libpq/fe-connect.c`).
    #[must_use]
    pub fn of(word: &[u8]) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Some(match &word[..] {
            b"auto" | b"any" => Self::Auto,
            b"primary" | b"read-write" => Self::Primary,
            b"replica" | b"prefer-replica" | b"prefer-standby" => Self::Replica,
            b"standby" | b"read-only" => Self::Standby,
            _ => return None,
        })
    }

    /// This one, or `other` where it says nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self == Self::Auto { other } else { self }
    }
}

/// What the comments of a text ask for: the last of them that says `pgweir:` and a word of [`Wish::of`]. In one, words
/// follow each other with commas or blanks between them, and those of another kind are passed over.
#[must_use]
pub fn wish(sql: &[u8], standard_conforming_strings: bool) -> Wish {
    let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    comments.filter_map(|token| in_comment(token.bytes(sql))).last().unwrap_or_default()
}

/// Whether a comment asks that the statement shares no server with others': `/* pgweir: alone */`.
#[must_use]
pub fn alone(sql: &[u8], standard_conforming_strings: bool) -> bool {
    let mut comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    comments.any(|token| {
        words(token.bytes(sql)).is_some_and(|mut words| words.any(|word| word.eq_ignore_ascii_case(b"alone")))
    })
}

/// For how long a comment asks that the answer is kept: what stands behind the last `ttl=`.
#[must_use]
pub fn ttl(sql: &[u8], standard_conforming_strings: bool) -> Option<&[u8]> {
    let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    let in_comment = |comment| words(comment)?.filter_map(|word| word.strip_prefix(b"ttl=")).next_back();
    comments.filter_map(|token| in_comment(token.bytes(sql))).last()
}

/// What comments call the answer by, so that it can be taken back by that name: what stands behind each `tag=`, in ascending order, each
/// once.
#[must_use]
pub fn cache_tags(sql: &[u8], standard_conforming_strings: bool) -> Vec<&[u8]> {
    let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    let in_comment =
        |comment| words(comment).into_iter().flatten().filter_map(|word: &[u8]| word.strip_prefix(b"tag="));
    let mut tags: Vec<&[u8]> = comments.flat_map(|token| in_comment(token.bytes(sql))).collect();
    tags.retain(|tag| !tag.is_empty());
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// All that comments ask of pgweir, as they say it: `target=primary, ttl=5s`; empty if they ask for nothing.
#[must_use]
pub fn asked(sql: &[u8], standard_conforming_strings: bool) -> Vec<u8> {
    let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    let all = comments.filter_map(|token| Some(words(token.bytes(sql))?.filter(|word| !word.is_empty())));
    all.flatten().collect::<Vec<_>>().join(&b", "[..])
}

/// The words behind pgweir's name in a comment.
fn words(comment: &[u8]) -> Option<impl DoubleEndedIterator<Item = &[u8]>> {
    const MARK: &[u8] = b"pgweir:";
    let at = memchr::memmem::find(comment, MARK)? + MARK.len();
    Some(comment.get(at..)?.split(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'*' | b'/')))
}

fn in_comment(comment: &[u8]) -> Option<Wish> {
    words(comment)?.filter_map(|word| Wish::of(word.strip_prefix(b"target=").unwrap_or(word))).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked() {
        for (sql, all) in [
            ("/* pgweir: primary,ttl=5s */ SELECT 1 -- pgweir:alone", "primary, ttl=5s, alone"),
            ("SELECT '/* pgweir: primary */' /* nothing */ /* pgweir: */", ""),
        ] {
            assert_eq!(asked(sql.as_bytes(), true), all.as_bytes(), "{sql}");
        }
    }

    #[test]
    fn comments_say_where() {
        let cases: [(&str, Wish); 10] = [
            ("/* pgweir: primary */ SELECT 1", Wish::Primary),
            ("SELECT 1 -- pgweir:replica", Wish::Replica),
            ("SELECT 1 -- pgweir: target=Read-Only, other=7\n", Wish::Standby),
            ("SELECT 1 /*pgweir:prefer-standby*/", Wish::Replica),
            ("/* pgweir: primary */ SELECT 1 /* pgweir: replica */", Wish::Replica),
            ("/* pgweir: primary */ SELECT 1 /* pgweir: nonsense */", Wish::Primary),
            ("SELECT '/* pgweir: primary */'", Wish::Auto),
            ("/* primary */ SELECT 1", Wish::Auto),
            ("/* pgweir: */ SELECT 1", Wish::Auto),
            ("/* a /* pgweir: primary */ b */ SELECT 1", Wish::Primary),
        ];
        for (sql, expected) in cases {
            assert_eq!(wish(sql.as_bytes(), true), expected, "{sql}");
        }
    }

    #[test]
    fn comments_say_for_how_long() {
        for (sql, expected) in [
            ("/* pgweir: ttl=60 tag=menu */ SELECT 1", Some("60")),
            ("SELECT 1 -- pgweir: tag=a,ttl=menu", Some("menu")),
            ("/* pgweir: ttl=1m */ SELECT 1 /*pgweir:ttl=*/", Some("")),
            ("SELECT 'pgweir: ttl=60' /* ttl=60 */", None),
        ] {
            assert_eq!(ttl(sql.as_bytes(), true), expected.map(str::as_bytes), "{sql}");
        }
    }

    #[test]
    fn comments_say_by_what_name() {
        for (sql, expected) in [
            ("/* pgweir: ttl=60 tag=menu */ SELECT 1", &["menu"][..]),
            ("/* pgweir: tag=b,tag=a */ SELECT 1 -- pgweir: tag=c tag=a", &["a", "b", "c"]),
            ("SELECT 'pgweir: tag=a' /* tag=b */ /* pgweir: tag= ttl=1 */", &[]),
            ("SELECT 1", &[]),
        ] {
            let expected: Vec<&[u8]> = expected.iter().map(|tag| tag.as_bytes()).collect();
            assert_eq!(cache_tags(sql.as_bytes(), true), expected, "{sql}");
        }
    }

    #[test]
    fn what_a_statement_says_comes_first() {
        assert_eq!(Wish::Auto.or(Wish::Standby), Wish::Standby);
        assert_eq!(Wish::Primary.or(Wish::Standby), Wish::Primary);
        assert_eq!(Wish::of(b"secondary"), None);
    }
}
