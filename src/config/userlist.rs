//! PgBouncer's `userlist.txt`: names and secrets, a pair to a line.
//! Must never put a line of it into a message.

use crate::base::secret::Secret;

/// One user of the list.
#[derive(Debug)]
pub(super) struct Listed {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) secret: Secret,
}

/// Reads a list: `"name" "secret"`, two quotes inside for one, what follows is ignored, as are empty lines and those
/// that begin with `;` (PgBouncer `load_auth_file`).
///
/// # Errors
/// The numbers of the lines that are neither.
pub(super) fn parse(text: &str) -> Result<Vec<Listed>, Vec<usize>> {
    let (mut users, mut broken) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(';') {
            continue;
        }
        let pair = quoted(line).and_then(|(name, rest)| {
            let (secret, _) = quoted(rest.trim_start())?;
            (!name.is_empty() && rest.starts_with([' ', '\t'])).then_some((name, secret))
        });
        match pair {
            Some((name, secret)) => users.push(Listed { line: index + 1, name, secret: Secret::new(secret) }),
            None => broken.push(index + 1),
        }
    }
    if broken.is_empty() { Ok(users) } else { Err(broken) }
}

/// The text between quotes at the start, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    // Room for all of it at once: a growing buffer would leave copies of a secret behind.
    let mut inside = String::with_capacity(rest.len());
    loop {
        let (piece, after) = rest.split_once('"')?;
        inside.push_str(piece);
        match after.strip_prefix('"') {
            Some(after) => {
                inside.push('"');
                rest = after;
            }
            None => return (!inside.contains('\0')).then_some((inside, after)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_pgbouncer() {
        let text = "; comment\n\n\"a\" \"secret\"\n  \"b c\"\t\"x\"\"y\" ignored \"too\"\r\n\"d\" \"\"\n";
        let users = parse(text).unwrap();
        let all: Vec<_> = users.iter().map(|user| (user.line, user.name.as_str(), user.secret.expose())).collect();
        assert_eq!(all, [(3, "a", "secret"), (4, "b c", "x\"y"), (5, "d", "")]);
    }

    #[test]
    fn broken_lines_are_named_by_number() {
        let text = "\"a\" \"b\"\na b\n\"a\"\n\"a\" b\n\"a\" \"b\n\"\" \"b\"\n\"a\"\"b\"";
        assert_eq!(parse(text).unwrap_err(), [2, 3, 4, 5, 6, 7]);
    }
}
