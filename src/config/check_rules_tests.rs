//! What becomes of groups, pools and rules, and exactly what is said of wrong ones.
//! Must never depend on this machine.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;

const REST: &str =
    "[users.u]\npassword = \"x\"\n[databases.d]\nprimary = \"h\"\nreplicas = [\"i\", \"j:1\"]\n[databases.d.groups]\n";

/// First lines and expectations of all problems with these sections; `%` stands for the database.
fn said(sections: &str) -> Vec<String> {
    let text = format!("{REST}{}", sections.replace('%', "databases.d"));
    let problems = Config::parse(&text, "f.toml").err().unwrap_or_else(|| panic!("nothing said of {sections}"));
    let lines = |problem: &Problem| {
        let told = problem.to_string();
        let of_use =
            told.lines().filter_map(|line| line.strip_prefix("error: ").or(line.trim_start().strip_prefix("= ")));
        of_use.collect::<Vec<_>>().join("; ")
    };
    problems.iter().map(lines).collect()
}

fn accepted(sections: &str) -> Config {
    let text = format!("{REST}{}", sections.replace('%', "databases.d"));
    Config::parse(&text, "f.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn all_of_a_rule_arrives() {
    let config = accepted(
        r#"
        second = ["j:1"]
        [%.pools.b]
        pool_size = 30
        query_wait_timeout = "2s"
        query_timeout = 0
        [%.pools.a]
        pool_size = 1
        group = "replicas"
        fallback = "fail"
        [[%.rules]]
        name = "all"
        user = ["a", "b*"]
        application_name = "c"
        table = "t"
        schema = "s"
        shape = ["0x1f", "00000000000000ff"]
        tag = { route = "/x*", "db driver" = ["y"] }
        group = "second"
        pool = "a"
        rate = 5
        timeout = "30s"
        [[%.rules]]
        table = "u"
        pool = "a"
        [[%.rules]]
        pool = "b"
        "#,
    );
    let Steering { pools, rules } = &config.databases["d"].steering;
    let names: Vec<_> = pools.iter().map(|pool| (pool.name.as_str(), pool.pool_size)).collect();
    assert_eq!(names, [("b", 30), ("a", 1)]);
    assert_eq!(pools[0].query_wait_timeout, Some(Duration::from_secs(2)));
    assert_eq!((pools[0].query_timeout, pools[1].query_timeout), (Some(Duration::ZERO), None));
    let [all, second, last] = &rules[..] else { panic!("{rules:?}") };
    assert_eq!((all.name.as_str(), second.name.as_str(), last.name.as_str()), ("all", "#2", "#3"));
    assert_eq!((all.pool, all.rate, all.timeout), (Some(1), Some(5), Some(Duration::from_secs(30))));
    assert_eq!(all.when.shape, [31, 255]);
    assert_eq!(all.when.tag.len(), 2);
    let group = HostGroup::Named("second".into(), vec!["j:1".parse().unwrap()]);
    assert_eq!(all.reads, Some(Destination { group, fallback: Fallback::Replicas }));
    // Of its pool, where it has none itself.
    assert_eq!(second.reads, Some(Destination { group: HostGroup::Replicas, fallback: Fallback::Fail }));
    assert_eq!((last.reads.as_ref(), last.pool), (None, Some(0)));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
}

#[test]
fn the_example_of_the_readme_is_accepted() {
    let readme = include_str!("../../README.md");
    let (_, behind) = readme.split_once("### Rules, groups and workload pools\n\n```toml\n").unwrap();
    let (example, _) = behind.split_once("```").unwrap();
    let config = Config::parse(&format!("{example}\n[users.web]\npassword = \"x\""), "README.md");
    let config = config.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert_eq!(config.databases["shop"].steering.rules.len(), 5);
}

#[test]
fn a_pool_that_nobody_comes_to_is_suspicious() {
    let config = accepted("[%.pools.a]\npool_size = 1");
    assert!(config.warnings.to_string().contains("no rule sends anybody to the pool `a`"), "{}", config.warnings);
}

#[test]
fn wrong_groups_pools_and_rules() {
    for (sections, expected) in [
        ("a = [\"i:5433\"]", "i:5433 in the group `a` is not a server of database `d`; expected h:5432, i:5432 or j:1"),
        ("a = []", "the group `a` has no servers; expected [\"host:5432\"]"),
        ("replicas = [\"i\"]", "the group `replicas` is there anyway; expected another name"),
        ("[%.pools.a]", "pool `a` of database `d` has no size; expected pool_size = 10"),
        (
            "[%.pools.default]\npool_size = 1",
            "`default` is what the pool is called that is there anyway; expected another name, or no such section",
        ),
        (
            "[%.pools.a]\npool_size = 1\nfallback = \"fail\"",
            "`fallback` says where reads go whose group cannot serve them, and there is no `group`; expected `group` next to it",
        ),
        (
            "one = [\"i\"]\n[[%.rules]]\ngroup = \"on\"",
            "there is no group `on`; expected \"one\", \"primary\" or \"replicas\"; did you mean `one`?",
        ),
        ("[[%.rules]]\npool = \"a\"", "there is no pool `a`; expected a section [databases.NAME.pools.POOL]"),
        (
            "[%.pools.abc]\npool_size = 1\n[[%.rules]]\npool = \"abd\"",
            "there is no pool `abd`; expected \"abc\"; did you mean `abc`?",
        ),
        (
            "[[%.rules]]\nname = \"a\"\nuser = \"x\"\n[[%.rules]]\nname = \"a\"\nuser = \"y\"",
            "another rule of database `d` is called `a`; expected a name of its own, or none",
        ),
        (
            "[[%.rules]]\nrate = 1\n[[%.rules]]\nuser = \"x\"",
            "this rule can never count: whatever fits it fits rule `#1` before it; expected another order, or other conditions",
        ),
        (
            "[[%.rules]]\nuser = \"x\"\n[[%.rules]]\nuser = \"x\"\ntable = \"t\"",
            "this rule can never count: whatever fits it fits rule `#1` before it; expected another order, or other conditions",
        ),
        (
            "[[%.rules]]\nrefuse = \"no\"\nrate = 1",
            "a rule that refuses does nothing else; expected `refuse` alone, or a rule without it",
        ),
        (
            "[[%.rules]]\nuser = \"a**b\"",
            "`databases.d.rules.user` has no valid value; expected a name, in which * stands for anything, or a list of such \
             names: one * is enough; did you mean `\"a*b\"`?",
        ),
        (
            "[[%.rules]]\nuser = []",
            "`databases.d.rules.user` has no valid value; expected a name, in which * stands for anything, or a list of such names",
        ),
        (
            "[[%.rules]]\nshape = \"0x1g\"",
            "`databases.d.rules.shape` has no valid value; expected a shape as the metrics and `pgweir explain-route` name \
             it, such as \"1f0a59c2b7d3e846\", or a list of shapes",
        ),
        (
            "[[%.rules]]\ntag = \"x\"",
            "`databases.d.rules.tag` has the wrong type; expected tags and what they say, such as { route = \"/export*\" }, \
             found a string",
        ),
        (
            "[%.rules]\nuser = \"x\"",
            "`databases.d.rules` has the wrong type; expected sections [[databases.d.rules]], found a table",
        ),
        (
            "[[%.rules]]\nrate = 0",
            "`databases.d.rules.rate` has no valid value; expected a whole number from 1 to 1000000",
        ),
    ] {
        assert_eq!(said(sections), [expected], "{sections}");
    }
}

#[test]
fn groups_need_replicas_and_routing() {
    let text =
        "[users.u]\npassword = \"x\"\n[databases.d]\nprimary = \"h\"\n[[databases.d.rules]]\ngroup = \"replicas\"";
    let told = Config::parse(text, "f.toml").unwrap_err().to_string();
    assert!(told.contains("reads go nowhere but to the primary: `routing` is off, or there are no replicas"), "{told}");
}

#[test]
fn rules_fit_into_their_bits() {
    let rules = |count: usize| (0..count).fold(String::new(), |all, n| format!("{all}[[%.rules]]\nuser = \"u{n}\"\n"));
    assert_eq!(accepted(&rules(RULES_MAX)).databases["d"].steering.rules.len(), RULES_MAX);
    assert_eq!(said(&rules(RULES_MAX + 1)), ["database `d` has 129 rules; expected at most 128"]);
}
