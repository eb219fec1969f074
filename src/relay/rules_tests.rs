//! Which rule counts for whom and what.
//! Must never need a server: rules are held against texts.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::Config;
use crate::sql::shape::scan;

const FILE: &str = r#"
[users.app]
password = "secret"
[users.analytics]
password = "secret"
[databases.shop]
primary = "h1:1"
replicas = ["h2:2", "h3:3"]
[databases.shop.groups]
second = ["h3:3"]
both = ["h1:1", "h2:2"]
[databases.shop.pools.orders]
pool_size = 30
[databases.shop.pools.reporting]
pool_size = 10
group = "both"
fallback = "fail"
"#;

fn rules(user: &str, sections: &str) -> Option<Rules> {
    let sections = sections.replace("[[]]", "[[databases.shop.rules]]");
    let config =
        Config::parse(&format!("{FILE}{sections}"), "test.toml").unwrap_or_else(|problems| panic!("{problems}"));
    Rules::new(&config.databases["shop"], user, |_, rate| Arc::new(Bucket::new(rate)))
}

/// Name of the rule that counts; empty for none.
fn counts(rules: &Rules, settings: &[(&str, &str)], sql: &str) -> String {
    let settings = settings.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    let fitting = rules.fitting(&settings.collect());
    let fits = rules.fit(&fitting, scan(sql.as_bytes(), true).shape, sql.as_bytes(), true);
    rules.of(rules.first(&fitting, fits)).map_or_else(String::new, |kept| kept.rule.name.clone())
}

#[test]
fn the_first_that_fits_counts() {
    let rules = rules(
        "app",
        r#"
        [[]]
        user = ["other", "an*"]
        [[]]
        name = "named"
        application_name = "orders*"
        table = ["orders", "lines"]
        [[]]
        application_name = "orders*"
        [[]]
        name = "tagged"
        tag = { route = "/export*", db = ["a", "b"] }
        [[]]
        name = "pond"
        schema = "pond"
        [[]]
        name = "fish"
        schema = "public"
        table = "fish"
        [[]]
        name = "rest"
        application_name = ["psql", "x"]
        "#,
    )
    .unwrap();
    let orders = [("application_name", "orders-eu")];
    for (settings, sql, expected) in [
        (&[][..], "SELECT 1", ""),
        (&orders, "SELECT 1", "#3"),
        (&orders, "SELECT * FROM orders WHERE id = 1", "named"),
        (&orders, "SELECT * FROM orders WHERE id = 2", "named"),
        (&orders, "SELECT * FROM shop.lines", "named"),
        (&orders, "SELECT 1 /*route='/export',db='a'*/", "#3"),
        (&[], "SELECT * FROM orders", ""),
        (&[], "SELECT 1 /*route='%2Fexport%2F1',db='b'*/", "tagged"),
        (&[], "SELECT 1 /*route='/export',db='c'*/", ""),
        (&[], "SELECT 1 /*route='/export'*/", ""),
        (&[], "SELECT * FROM pond.fish", "pond"),
        (&[], "SELECT * FROM fish", "fish"),
        (&[], "SELECT * FROM public.frog", ""),
        (&[("search_path", "\"$user\", pond, public")], "SELECT * FROM fish", "pond"),
        (&[("search_path", "\"Pond\"")], "SELECT * FROM fish", ""),
        (&[("search_path", "sea")], "SELECT * FROM public.fish", "fish"),
        (&[("application_name", "psql")], "SELECT 1", "rest"),
        (&[("application_name", "psql")], "DELETE FROM fish", "fish"),
        (&[("application_name", "psq")], "SELECT 1", ""),
    ] {
        assert_eq!(counts(&rules, settings, sql), expected, "{settings:?} {sql}");
        // Once more, as it is known by now.
        assert_eq!(counts(&rules, settings, sql), expected, "again {settings:?} {sql}");
    }
}

#[test]
fn a_shape_is_found_by_its_name() {
    let shape = scan(b"SELECT a FROM t WHERE b = 7", true).shape;
    let rules = rules("app", &format!("[[]]\nname = \"it\"\nshape = [\"0x1\", \"{shape:016x}\"]")).unwrap();
    assert_eq!(counts(&rules, &[], "select a from t where b = 8 -- yes"), "it");
    assert_eq!(counts(&rules, &[], "SELECT a FROM t WHERE c = 7"), "");
}

#[test]
fn who_no_rule_is_for_has_none() {
    let sections =
        "[[]]\nuser = \"analytics\"\ngroup = \"second\"\n[[]]\nuser = \"a*s\"\ntable = \"t\"\npool = \"orders\"";
    assert!(rules("app", sections).is_none());
    let rules = rules("analytics", sections).unwrap();
    // Nothing that comes behind one for all it says is looked at.
    assert!(!rules.fitting(&Settings::new()).hangs_on_statements());
    assert!(rules.fitting(&Settings::new()).always != Course::NONE);
}

#[test]
fn ways_lead_to_hosts_and_pools() {
    let rules = rules(
        "app",
        r#"
        [[]]
        table = "a"
        group = "second"
        fallback = "primary"
        [[]]
        table = "b"
        pool = "reporting"
        [[]]
        table = "c"
        group = "primary"
        pool = "orders"
        [[]]
        table = "d"
        group = "replicas"
        fallback = "fail"
        "#,
    )
    .unwrap();
    let told: Vec<_> = rules
        .kept
        .iter()
        .map(|kept| {
            let hosts: Vec<usize> = (0..200).filter(|&host| kept.way.leads_to(host)).take(4).collect();
            (kept.way.set, hosts, kept.way.with_primary, kept.way.fallback)
        })
        .collect();
    let expected = [
        (0, vec![2], true, Fallback::Primary),
        (2, vec![0, 1], true, Fallback::Fail),
        (1, vec![], true, Fallback::Primary),
        (0, vec![0, 1, 2, 3], false, Fallback::Fail),
    ];
    assert_eq!(told, expected);
}
