//! What signals name, and what goes with them.
//! Must never hang on two names that share a slot: these do not.

#![allow(clippy::unwrap_used)]

use super::*;

const DATABASES: [&str; 2] = ["shop", "other"];

fn table(name: &str) -> What {
    What::Table(None, name.into())
}

#[test]
fn json_says_what_is_to_go() {
    let cases = [
        (r#"{"table":"menu_items","tenant_id":7,"record_id":42,"action":"UPDATE"}"#, None, table("menu_items")),
        (r#"{"table":"app.menu","database":"shop"}"#, Some("shop"), table("app.menu")),
        (r#"{"schema":"app","table":"menu"}"#, None, What::Table(Some("app".into()), "menu".into())),
        (r#"{"tag":"menu","table":null,"all":false}"#, None, What::Tag("menu".into())),
        (r#"{"pattern":"* FROM menu *"}"#, None, What::Pattern(Pattern::new("* FROM menu *").unwrap())),
        (r#"{"shape":"00Ff"}"#, None, What::Shape(255)),
        (r#" {"all":true,"database":"shop"} "#, Some("shop"), What::All),
    ];
    for (text, database, what) in cases {
        let signal = Signal { database: database.map(Box::from), what };
        assert_eq!(Signal::of_json(text.as_bytes()), Ok(signal), "{text}");
    }
}

#[test]
fn what_says_nothing_is_none() {
    for text in ["", "menu", "{", "{\"table\":\"a\"} x", "\u{fffd}"] {
        assert!(matches!(Signal::of_json(text.as_bytes()), Err(Unclear::Syntax(_))), "{text}");
    }
    for (text, said) in [
        ("[]", "object"),
        ("5", "object"),
        ("{}", "exactly one"),
        (r#"{"database":"shop"}"#, "exactly one"),
        (r#"{"all":false}"#, "exactly one"),
        (r#"{"table":"a","tag":"b"}"#, "exactly one"),
        (r#"{"table":5}"#, "\"table\" must be"),
        (r#"{"table":""}"#, "\"table\" must be"),
        (r#"{"tag":["a"]}"#, "\"tag\" must be"),
        (r#"{"shape":"xyz"}"#, "16 hexadecimal digits"),
        (r#"{"shape":"+1"}"#, "16 hexadecimal digits"),
        (r#"{"shape":"00000000000000001"}"#, "16 hexadecimal digits"),
        (r#"{"pattern":7}"#, "\"pattern\" must be"),
        (r#"{"pattern":" "}"#, "\"pattern\" is none: a pattern is empty"),
        (r#"{"pattern":"a\\"}"#, "behind a \\"),
        (r#"{"shape":12}"#, "16 hexadecimal digits"),
        (r#"{"all":1}"#, "\"all\" must be"),
        (r#"{"database":7,"all":true}"#, "\"database\" must be"),
    ] {
        let error = Signal::of_json(text.as_bytes()).map_err(|error| error.to_string());
        assert!(matches!(&error, Err(error) if error.contains(said)), "{text}: {error:?}");
    }
}

/// Two answers, one of which reads `app.menu`; one of which nobody knows what it reads; one with a tag; one of another database.
#[test]
fn a_signal_takes_what_hangs_on_it_and_nothing_else() {
    let of = |database: &str, tables: Option<&[(&'static [u8], &'static [u8])]>| {
        deps(database, 7, tables.map(|tables| tables.iter().copied()))
    };
    let menu = of("shop", Some(&[(b"app", b"menu")]));
    let line = of("shop", Some(&[(b"app", b"line")]));
    let unknown = of("shop", None);
    let tagged: Arc<[u32]> = line.iter().copied().chain([tag("shop", b"menu")]).collect();
    let other = of("other", Some(&[(b"app", b"menu")]));
    let all = [&menu, &line, &unknown, &tagged, &other];
    for (json, gone) in [
        (r#"{"table":"menu"}"#, [true, false, true, false, true]),
        (r#"{"table":"app.menu"}"#, [true, false, true, false, true]),
        (r#"{"table":"menu","schema":"app","database":"shop"}"#, [true, false, true, false, false]),
        (r#"{"table":"public.menu"}"#, [false, false, true, false, false]),
        (r#"{"table":"Menu","database":"shop"}"#, [false, false, true, false, false]),
        (r#"{"tag":"menu"}"#, [false, false, false, true, false]),
        (r#"{"shape":"7","database":"shop"}"#, [true, true, true, true, false]),
        (r#"{"shape":"8"}"#, [false; 5]),
        (r#"{"all":true,"database":"other"}"#, [false, false, false, false, true]),
        (r#"{"all":true}"#, [true; 5]),
        (r#"{"all":true,"database":"none"}"#, [false; 5]),
    ] {
        let (paused, signals) = (clock::paused::Paused::new(), Signals::default());
        let began_us = clock::now_us();
        // In the same microsecond nobody knows.
        signals.give(&Signal::of_json(json.as_bytes()).unwrap(), DATABASES);
        let stand = |began_us| all.map(|deps| !signals.marks().stand(deps, began_us));
        assert_eq!(stand(began_us), gone, "{json}");
        paused.advance(std::time::Duration::from_micros(1));
        assert_eq!(stand(clock::now_us()), [false; 5], "{json}");
    }
}

#[test]
fn others_are_owed_it_once_somebody_can_tell_them() {
    let signals = Signals::default();
    signals.give(&Signal::all(None), DATABASES);
    assert!(signals.take_untold().is_empty());
    signals.set_shares();
    signals.give(&Signal::all(Some("shop")), DATABASES);
    signals.heard(&Signal { database: None, what: table("menu") }, "shop");
    let untold = signals.take_untold();
    assert_eq!(untold.len(), 1);
    // It did not succeed, and something was said meanwhile.
    let (word, us) = untold.into_iter().next().unwrap();
    let Word::Slot(slot) = word else { panic!("{word:?}") };
    signals.owe_again([(word.clone(), us + 5)]);
    signals.owe_again([(word.clone(), us)]);
    assert_eq!(signals.take_untold().into_iter().next(), Some((word.clone(), us + 5)));
    // What comes back is no news, what others say is.
    let far_us = us + 1_000_000;
    signals.is_told([(word.clone(), 70)]);
    signals.hears(&word, 70, far_us);
    assert!(signals.marks().stand(&[slot], far_us));
    signals.hears(&word, 71, far_us);
    assert!(!signals.marks().stand(&[slot], far_us) && signals.marks().stand(&[slot], far_us + 1));
}

/// An answer of this database that began then.
fn entry(database: &str, began_us: u64) -> Entry {
    let tenant = Arc::new(crate::cache::Tenant::new(database));
    let stamp = crate::cache::Stamp { began_us, source: crate::cache::Source::Primary };
    Entry::new(10, (bytes::Bytes::new(), 0), stamp, began_us + 1, u64::MAX, tenant)
}

#[test]
fn a_pattern_takes_what_it_is_for_and_nothing_else() {
    let paused = clock::paused::Paused::new();
    let signals = Signals::default();
    signals.set_shares();
    let (old, other) = (entry("shop", clock::now_us()), entry("other", clock::now_us()));
    let stands = |entry: &Entry, database, text: &'static [u8]| {
        signals.stand(database, entry, || Some(Said { text, ..Said::default() }))
    };
    let give = |json: &str| signals.give(&Signal::of_json(json.as_bytes()).unwrap(), DATABASES);
    assert!(stands(&old, "shop", b"SELECT v FROM menu"));
    give(r#"{"pattern":"* from menu","database":"shop"}"#);
    assert!(!stands(&old, "shop", b"SELECT v FROM menu") && stands(&old, "shop", b"SELECT v FROM line"));
    assert!(stands(&other, "other", b"SELECT v FROM menu"));
    // It stays so, whatever else it was held against.
    assert!(!stands(&entry("shop", clock::now_us()), "shop", b"SELECT v FROM menu"));
    paused.advance(std::time::Duration::from_micros(1));
    assert!(stands(&entry("shop", clock::now_us()), "shop", b"SELECT v FROM menu"));
    give(r#"{"pattern":"*"}"#);
    assert!(!stands(&other, "other", b"SELECT v FROM menu"));
    assert!(!signals.stand("shop", &entry("shop", clock::now_us()), || None), "nobody can read what it says");
}

/// However many there are, what nobody remembers any more takes all of its database.
#[test]
fn patterns_that_are_forgotten_take_everything() {
    let paused = clock::paused::Paused::new();
    let signals = Signals::default();
    signals.set_shares();
    let old = entry("shop", clock::now_us());
    let says = || Some(Said { text: b"SELECT 1", ..Said::default() });
    for number in 0..=MOST {
        assert!(signals.stand("shop", &old, says), "{number}");
        paused.advance(std::time::Duration::from_micros(1));
        let json = format!(r#"{{"pattern":"nothing {number}","database":"shop"}}"#);
        signals.give(&Signal::of_json(json.as_bytes()).unwrap(), DATABASES);
    }
    let slot = whole(Some("shop"));
    let old = old.hanging_on([slot].into());
    assert!(!signals.stand("shop", &old, says), "the first of them is forgotten");
    // Others are told the same.
    let untold = signals.take_untold();
    assert!(untold.contains_key(&Word::Slot(slot)) && untold.len() == MOST + 1, "{untold:?}");
    let others = Signals::default();
    let (word, _) = untold.iter().find(|(word, _)| matches!(word, Word::Pattern(..))).unwrap();
    let Word::Pattern(_, pattern) = word else { panic!("{word:?}") };
    let says = || Some(Said { text: pattern.text().as_bytes(), ..Said::default() });
    others.hears(word, 5, 70);
    assert!(!others.stand("shop", &entry("shop", 70), says) && others.stand("shop", &entry("shop", 71), says));
}
