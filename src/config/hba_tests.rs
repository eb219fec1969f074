//! Host-based rules: which one decides, and which are refused with what words.
//! Must never let a rule pass that PostgreSQL would read otherwise.
#![allow(clippy::unwrap_used)]

use super::hba::{Hba, HbaMethod, Visitor};
use super::hba_parse::parse;

fn hba(text: &str) -> Hba {
    let include = |name: &str| match name {
        "names" => Ok("alice, \"bob\"\n# nobody\ncarol".to_owned()),
        "nested" => Ok("@names".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    parse(text, &include).unwrap_or_else(|flaws| panic!("{flaws:?}"))
}

/// Line of the rule that decides about `FROM DATABASE USER`; FROM is an address, with `+` for TLS, or `unix`.
fn decides(hba: &Hba, visitor: &str) -> Option<usize> {
    let [from, database, user] = visitor.split(' ').collect::<Vec<_>>()[..] else { panic!("{visitor}") };
    let tls = from.starts_with('+');
    let address = from.trim_start_matches('+').parse().ok();
    assert!(address.is_some() || from == "unix");
    hba.rule_for(&Visitor { address, tls, database, user, replication: false }).map(|rule| rule.line)
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = hba("# comment\n\
        local all postgres peer map=m\n\
        hostnossl all all 10.0.0.0/8 reject\n\
        host \"all\" all all md5\n\
        host sameuser all 10.1.2.3/16 scram-sha-256\n\
        hostssl shop,\"odd name\" @names 0.0.0.0/0 cert map=certs\n\
        host shop all 192.168.0.0 255.255.0.255 password\n\
        host all dave 2001:db8::/32 trust clientcert=no\n"
        .replace(" clientcert=no", "")
        .as_str());
    for (visitor, line) in [
        ("unix shop postgres", Some(2)),
        ("unix shop alice", None),
        ("10.9.9.9 shop alice", Some(3)),
        ("+10.9.9.9 shop alice", Some(6)),
        ("+10.1.9.9 dave dave", Some(5)),
        ("+10.1.9.9 dave alice", None),
        ("127.0.0.1 all anybody", Some(4)),
        ("+127.0.0.1 shop bob", Some(6)),
        ("127.0.0.1 shop bob", None),
        ("+127.0.0.1 shop dave", None),
        ("192.168.7.0 shop dave", Some(7)),
        ("192.168.7.1 shop dave", None),
        ("2001:db8:1::5 shop dave", Some(8)),
        ("2001:db9:1::5 shop dave", None),
        ("::ffff:192.168.3.0 shop x", Some(7)),
    ] {
        assert_eq!(decides(&rules, visitor), line, "{visitor}");
    }
    let methods: Vec<_> = rules.rules().map(|rule| rule.method.as_str()).collect();
    assert_eq!(methods, ["peer", "reject", "md5", "scram-sha-256", "cert", "password", "trust"]);
    assert!(rules.rules().any(|rule| rule.map.as_deref() == Some("certs") && rule.method == HbaMethod::Cert));
}

#[test]
fn replication_is_in_no_database() {
    let rules = hba("host all all all trust\nhost replication,x all all md5");
    let visitor = Visitor { address: "1.2.3.4".parse().ok(), tls: false, database: "x", user: "u", replication: true };
    assert_eq!(rules.rule_for(&visitor).unwrap().line, 2);
    assert_eq!(rules.rule_for(&Visitor { replication: false, ..visitor }).unwrap().line, 1);
    let quoted = hba("host \"replication\" all all trust");
    assert!(quoted.rule_for(&visitor).is_none());
}

#[test]
fn masks_of_every_length() {
    let all =
        hba("host a all 0.0.0.0/0 trust\nhost b all ::/0 trust\nhost c all 1.2.3.4/32 trust\nhost d all ::1/128 trust");
    assert_eq!(decides(&all, "255.1.1.1 a u"), Some(1));
    assert_eq!(decides(&all, "::5 a u"), None, "an IPv4 network has no IPv6 addresses");
    assert_eq!(decides(&all, "::5 b u"), Some(2));
    assert_eq!(decides(&all, "1.2.3.4 c u"), Some(3));
    assert_eq!(decides(&all, "1.2.3.5 c u"), None);
    assert_eq!(decides(&all, "::1 d u"), Some(4));
    assert_eq!(decides(&all, "::2 d u"), None);
}

#[test]
fn what_cannot_be_honoured_is_refused_with_words() {
    for (line, what) in [
        ("host all +admins all md5", "member of which role"),
        ("host samerole all all md5", "member of which role"),
        ("host samegroup all all md5", "member of which role"),
        ("host all /^a all md5", "regular expressions"),
        ("host \"a\",/b all all md5", "regular expressions"),
        ("host all all samehost md5", "addresses of this machine"),
        ("host all all samenet md5", "addresses of this machine"),
        ("host all all db.example.org md5", "names of hosts"),
        ("host all all .example.org md5", "names of hosts"),
        ("host all all 10.0.0.0/33 md5", "mask"),
        ("host all all 10.0.0.0/ md5", "mask"),
        ("host all all 10.0.0.0/+8 md5", "mask"),
        ("host all all 10.0.0.0 md5", "mask"),
        ("host all all ::1 255.0.0.0 md5", "mask"),
        ("host all all all ldap ldapserver=x", "LDAP"),
        ("host all all all ident", "not part of this version"),
        ("host all all all SCRAM", "unknown authentication method"),
        ("host all all all peer", "unix socket"),
        ("host all all all cert", "TLS"),
        ("local all all cert", "TLS"),
        ("hostnossl all all all password", "in the clear"),
        ("host all all all md5 clientcert=verify-ca", "TLS"),
        ("hostssl all all all md5 clientcert=1", "unknown option"),
        ("hostssl all all all md5 map=x", "a map is used"),
        ("hostssl all all all cert map=", "unknown option"),
        ("hostgssenc all all all md5", "GSSAPI"),
        ("include other.conf", "not included"),
        ("hosts all all all md5", "unknown type"),
        ("host all all", "ends before its address"),
        ("host all all all", "ends before its method"),
        ("local all all", "ends before its method"),
        ("local", "ends before its databases"),
        ("local all all trust,md5", "one word"),
        ("host @missing all all md5", "no such file"),
        ("host @nested all all md5", "another list"),
        ("host \"all all all md5", "does not end"),
    ] {
        let include = |name: &str| match name {
            "nested" => Ok("@names".to_owned()),
            _ => Err("no such file".to_owned()),
        };
        let flaws = parse(&format!("# first\n{line}\n"), &include).unwrap_err();
        assert_eq!((flaws.len(), flaws[0].line), (1, 2), "{line}");
        let said = format!("{} {}", flaws[0].what, flaws[0].expected);
        assert!(said.contains(what), "{line}: {said}");
    }
    // All of them are told at once.
    assert_eq!(parse("a\nb\nlocal all all trust\nc", &|_| Err(String::new())).unwrap_err().len(), 3);
}
