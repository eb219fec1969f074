//! Patterns of rules, and which rules hide others.
//! Must never read a configuration; `problem_tests` do.

use super::*;

fn globs(patterns: &[&str]) -> Globs {
    Globs(patterns.iter().map(|pattern| Glob((*pattern).to_owned())).collect())
}

#[test]
fn a_star_stands_for_anything() {
    for (pattern, text, fits) in [
        ("orders", "orders", true),
        ("orders", "orders2", false),
        ("orders", "", false),
        ("orders*", "orders", true),
        ("orders*", "orders-eu", true),
        ("orders*", "preorders", false),
        ("*", "", true),
        ("*orders", "preorders", true),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "acb", false),
        ("/api/*/export", "/api/v2/export", true),
        ("/api/*/export", "/api/export", false),
        ("a?", "ab", false),
    ] {
        assert_eq!(Glob(pattern.to_owned()).fits(text.as_bytes()), fits, "{pattern} {text}");
    }
    assert!(globs(&[]).fit(b"anything"));
    assert!(globs(&["a", "b*"]).fit(b"bee") && !globs(&["a", "b*"]).fit(b"c"));
}

#[test]
fn a_rule_hides_those_that_ask_for_more() {
    let user = When { user: globs(&["a"]), ..When::default() };
    let both = When { table: globs(&["t"]), ..user.clone() };
    let table = When { table: globs(&["t"]), ..When::default() };
    let tagged = When { tag: vec![("route".into(), globs(&["/x"]))], ..When::default() };
    assert!(When::default().covers(&user) && When::default().covers(&When::default()));
    assert!(user.covers(&both) && table.covers(&both) && !both.covers(&user));
    assert!(!user.covers(&When::default()) && !table.covers(&user));
    // Of one table: what fits both conditions may fit neither of them for one and the same.
    assert!(!table.covers(&When { schema: globs(&["s"]), ..When::default() }));
    assert!(tagged.covers(&tagged) && !tagged.covers(&user) && When::default().covers(&tagged));
    assert!(!user.asks_of_statement() && both.asks_of_statement() && tagged.asks_of_statement());
}
