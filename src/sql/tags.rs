//! Tags that applications put into comments: `/*route='%2Fexport',db_driver='pg'*/`, as sqlcommenter defines them
//! (google.github.io/sqlcommenter/spec).
//! Must never take a string constant for a comment.

use super::lex::{Kind, Lexer};

/// Key and value of every tag in the comments of a text, as the application meant them. Without any nothing is allocated,
/// and a text in which nothing looks like one is only searched through.
#[must_use]
pub fn tags(sql: &[u8], standard_conforming_strings: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut tags = Vec::new();
    if memchr::memmem::find(sql, b"='").is_none() {
        return tags;
    }
    let comments = Lexer::new(sql, standard_conforming_strings).filter(|token| token.kind == Kind::Comment);
    comments.for_each(|token| add(&mut tags, token.bytes(sql)));
    tags
}

fn add(tags: &mut Vec<(Vec<u8>, Vec<u8>)>, comment: &[u8]) {
    let mut rest = comment;
    while let Some(at) = memchr::memmem::find(rest, b"='") {
        let (before, value) = (rest.get(..at).unwrap_or_default(), rest.get(at + 2..).unwrap_or_default());
        // A quote in it has a backslash in front.
        let ends = |end: &usize| *end == 0 || value.get(end - 1) != Some(&b'\\');
        let Some(end) = memchr::memchr_iter(b'\'', value).find(ends) else { return };
        let begins = before.iter().rposition(|byte| b", \t\r\n*/-".contains(byte)).map_or(0, |at| at + 1);
        let key = before.get(begins..).unwrap_or_default();
        if !key.is_empty() {
            tags.push((decoded(key), decoded(value.get(..end).unwrap_or_default())));
        }
        rest = value.get(end + 1..).unwrap_or_default();
    }
}

/// Without percent-encoding and backslashes in front of quotes.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
                continue;
            }
            (b'\\', ..) if tail.first() == Some(&b'\'') => {}
            _ => out.push(byte),
        }
        rest = tail;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sql: &str) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let tags = tags(sql.as_bytes(), true);
        tags.iter().map(|(key, value)| format!("{}={}", text(key), text(value))).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tags_of_comments() {
        for (sql, expected) in [
            ("SELECT 1 /*route='%2Fexport%2Fall',action='x'*/", "route=/export/all action=x"),
            ("/* controller='a b' , route='c' */ SELECT 1", "controller=a b route=c"),
            ("SELECT 1 -- route='x'", "route=x"),
            ("SELECT 1 /*a='it\\'s',b='%e4%zz%4'*/", "a=it's b=\u{fffd}%zz%4"),
            ("SELECT '/*route=''x''*/' WHERE a='b'", ""),
            ("SELECT 1 /* route = 'x', ='y', open='z */", ""),
            ("SELECT 1 /*a=''*/ /*b='2'*/", "a= b=2"),
            ("SELECT 1 WHERE a='x' /* nothing */", ""),
            ("SELECT 1", ""),
        ] {
            assert_eq!(told(sql), expected, "{sql}");
        }
    }
}
