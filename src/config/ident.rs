//! User name maps, in the syntax of PostgreSQL's `pg_ident.conf`.
//! Must never match a name by anything but equality: patterns are refused.

use super::tokens::{Flaw, lines};

/// Which names of the outer world (of a certificate, of the operating system) may come in as which user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ident(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    map: String,
    outer: String,
    user: Option<String>,
}

impl Ident {
    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<Flaw>> {
        let (mut entries, mut flaws) = (Vec::new(), Vec::new());
        for line in lines(text)? {
            let mut flaw = |span, what: &str, expected: &str| flaws.push(Flaw::new(line.number, span, what, expected));
            let words: Vec<_> = line.fields.iter().filter(|field| field.len() == 1).flatten().collect();
            let [map, outer, user] = &words[..] else {
                flaw(line.span.clone(), "not a line of a user name map", "three names: MAP OUTER-NAME USER");
                continue;
            };
            if line.fields.len() != 3 {
                flaw(line.span.clone(), "not a line of a user name map", "three names: MAP OUTER-NAME USER");
            } else if let Some(token) = [outer, user].into_iter().find(|token| token.begins('/')) {
                flaw(token.span.clone(), "regular expressions are not supported", "a line for each name");
            } else if user.begins('+') {
                flaw(user.span.clone(), "pgweir does not know who is member of which role", "a line for each user");
            } else {
                let user = (!user.is("all")).then(|| user.text.clone());
                entries.push(Entry { map: map.text.clone(), outer: outer.text.clone(), user });
            }
        }
        if flaws.is_empty() { Ok(Self(entries)) } else { Err(flaws) }
    }

    /// Whether a map of this name has a line.
    #[must_use]
    pub fn has(&self, map: &str) -> bool {
        self.0.iter().any(|entry| entry.map == map)
    }

    /// Whether who is `outer` elsewhere may be `user` here; without a map the two must be the same.
    #[must_use]
    pub fn allows(&self, map: Option<&str>, outer: &str, user: &str) -> bool {
        let Some(map) = map else { return outer == user };
        self.0.iter().any(|entry| {
            entry.map == map && entry.outer == outer && entry.user.as_deref().is_none_or(|known| known == user)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        let ident = Ident::parse("# m\nm alice app\nm \"bob b\" \"all\"\nadmin root all\n").unwrap();
        assert!(ident.allows(None, "alice", "alice") && !ident.allows(None, "alice", "app"));
        assert!(ident.allows(Some("m"), "alice", "app"));
        assert!(!ident.allows(Some("m"), "alice", "alice"), "only what the map says");
        assert!(ident.allows(Some("m"), "bob b", "all") && !ident.allows(Some("m"), "bob b", "app"));
        assert!(ident.allows(Some("admin"), "root", "anybody"));
        assert!(!ident.allows(Some("other"), "alice", "alice"));
        assert!(ident.has("m") && !ident.has("other"));
    }

    #[test]
    fn flaws() {
        for bad in ["m a", "m a b c", "m a,b c", "m /^a c", "m a /b", "m a +b", "m \"a b"] {
            assert_eq!(Ident::parse(&format!("\n{bad}")).unwrap_err()[0].line, 2, "{bad}");
        }
    }
}
