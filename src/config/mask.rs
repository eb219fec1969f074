//! Finds the secrets in a configuration text that may not even parse.
//! Must never miss one to show more: hiding too much is the safe mistake.

use std::ops::Range;

use super::problem::distance;

/// The byte ranges of `text` to hide when a line of it is printed: values of keys that are
/// or look like passwords, and passwords inside URLs.
///
/// Works on the text because the lines most in need of an error message are those that
/// the parser could not read.
pub(super) fn secrets_in(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    for (equals, _) in text.match_indices('=') {
        let before = text.get(..equals).unwrap_or_default();
        let after = text.get(equals + 1..).unwrap_or_default();
        if is_secret_key(key_before(before)) && !is_reference(after) {
            let start = equals + 1 + (after.len() - after.trim_start_matches([' ', '\t']).len());
            hidden.push(start..start + value_length(text.get(start..).unwrap_or_default()));
        }
    }
    for (scheme, _) in text.match_indices("://") {
        hidden.extend(url_password(text, scheme + 3));
    }
    hidden
}

/// The (dotted, perhaps quoted) key that ends where `before` ends.
fn key_before(before: &str) -> &str {
    let before = before.trim_end_matches([' ', '\t']);
    let part = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
    before.get(before.trim_end_matches(part).len()..).unwrap_or_default()
}

/// Whether a key's value is to be hidden: `password` or something meant to be it, and not
/// the `env` or `file` that only names where the secret is.
fn is_secret_key(key: &str) -> bool {
    let mut parts = key.split('.').map(|part| part.trim_matches(['"', '\'']).to_lowercase());
    let last = key.rsplit('.').next().unwrap_or_default();
    let speaks = |part: String| {
        ["pass", "pwd", "secret", "verifier"].iter().any(|word| part.contains(word)) || distance(&part, "password") <= 3
    };
    !matches!(last, "env" | "file") && parts.any(speaks)
}

/// Whether what follows `=` is `{ env = …` or `{ file = …`.
fn is_reference(after: &str) -> bool {
    let Some(inside) = after.trim_start_matches([' ', '\t']).strip_prefix('{') else {
        return false;
    };
    let inside = inside.trim_start();
    ["env", "file"].iter().any(|word| inside.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with('=')))
}

/// Bytes to hide from the start of a value: to the end of its line, or to the closing
/// quotes of a string of several lines.
fn value_length(value: &str) -> usize {
    for quotes in [r#"""""#, "'''"] {
        if let Some(inside) = value.strip_prefix(quotes) {
            return inside.find(quotes).map_or(value.len(), |end| end + 2 * quotes.len());
        }
    }
    // A list may go on over several lines, and a secret may have a bracket of its own: to the end of the last line
    // that looks like the end of a list.
    if value.starts_with('[') {
        let ends =
            value.match_indices('\n').find(|(at, _)| value.get(..*at).unwrap_or_default().trim_end().ends_with(']'));
        return ends.map_or(value.len(), |(at, _)| at);
    }
    value.find('\n').unwrap_or(value.len())
}

/// The password of a URL whose scheme ended before `start`. Reaches to the last `@`, since
/// a password that should have been percent-encoded may hold one, or a `/`.
fn url_password(text: &str, start: usize) -> Option<Range<usize>> {
    let rest = text.get(start..)?;
    let url = rest.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').next()?;
    let end = url.rfind('@')?;
    let colon = url.get(..end)?.find(':')?;
    Some(start + colon + 1..start + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str) -> Vec<&str> {
        secrets_in(text).into_iter().filter_map(|range| text.get(range)).collect()
    }

    #[test]
    fn hides_passwords_however_they_are_written() {
        assert_eq!(hidden("password = \"hunter2\""), ["\"hunter2\""]);
        assert_eq!(hidden("pasword=hunter2\nport = 1"), ["hunter2"]);
        assert_eq!(hidden("[users.a]\n\"password\" = 'hunter2'"), ["'hunter2'"]);
        assert_eq!(hidden("users.a.password = 5"), ["5"]);
        assert_eq!(hidden("password.value = \"x\""), ["\"x\""]);
        assert_eq!(hidden("a = { PASSWD = \"x\" }"), ["\"x\" }"]);
        assert_eq!(hidden("password = { value = \"x\" }"), ["{ value = \"x\" }"]);
        assert_eq!(hidden("password = \"\"\"\nhunter2\n\"\"\"\nport = 1"), ["\"\"\"\nhunter2\n\"\"\""]);
        assert_eq!(hidden("password = [\"a\",\n  \"b]\",\n] # x\n]\nport = 1"), ["[\"a\",\n  \"b]\",\n] # x\n]"]);
        assert_eq!(hidden("password = [\"a\", \"b\"]\nport = 1"), ["[\"a\", \"b\"]"]);
        assert_eq!(hidden("primary = \"postgres://u:p@ss/w@h:1/d\""), ["p@ss/w"]);
        assert_eq!(hidden("postgres://u@h/d?password=x"), ["x"]);
    }

    #[test]
    fn shows_what_is_no_secret() {
        for text in [
            "password = { env = \"NAME\" }",
            "password={file=\"/p\"}",
            "password.env = \"NAME\"",
            "port = 1",
            "server_tls_key_file = \"k\"",
            "postgres://host:5432/db",
            "dbname = \"x\"",
            "address = \"*\"",
        ] {
            assert_eq!(hidden(text), [""; 0], "{text}");
        }
    }
}
