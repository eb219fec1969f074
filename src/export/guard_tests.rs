//! Whom the guard lets in.
//! Never needs a socket: `http_tests` and the integration tests have them.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::secret::Secret;
use crate::config::Token;

fn guard(tokens: &[(Access, &str)], address: &str) -> Guard {
    let token = |(n, (role, secret)): (usize, &(Access, &str))| {
        (n.to_string(), Token { role: *role, secret: Secret::new((*secret).to_owned()) })
    };
    let stats = Stats { tokens: tokens.iter().enumerate().map(token).collect(), ..Stats::default() };
    Guard::new(&stats, None, address.parse().unwrap())
}

fn judged(guard: &Guard, method: Method, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    guard.judge("192.0.2.1".parse().unwrap(), &method, &headers, None)
}

#[test]
fn without_tokens_a_loopback_name_must_be_asked_for() {
    let guard = guard(&[], "127.0.0.1:1");
    let ask = |host: &str| judged(&guard, Method::GET, &[("host", host)]);
    for host in ["localhost", "LocalHost:9127", "127.0.0.1:9127", "127.9.9.9", "[::1]:9127", "[::ffff:127.0.0.1]"] {
        assert_eq!(ask(host), Ok(()), "{host}");
    }
    for host in
        ["evil.example", "localhost.evil.example:9127", "10.0.0.1:9127", "[2001:db8::1]", "", "[", "127.0.0.1.evil"]
    {
        assert_eq!(ask(host), Err(Refusal::ForeignHost), "{host}");
    }
    assert_eq!(judged(&guard, Method::GET, &[]), Err(Refusal::ForeignHost));
    let mut two = HeaderMap::new();
    for host in ["localhost", "127.0.0.1"] {
        two.append("host", host.parse().unwrap());
    }
    assert_eq!(guard.judge("192.0.2.1".parse().unwrap(), &Method::GET, &two, None), Err(Refusal::ForeignHost));
    let post = |kind: &str| judged(&guard, Method::POST, &[("host", "localhost"), ("content-type", kind)]);
    assert_eq!((post("application/json"), post("Application/JSON; charset=utf-8")), (Ok(()), Ok(())));
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        assert_eq!(post(kind), Err(Refusal::NotJson), "{kind}");
    }
}

#[test]
fn tokens_open_what_their_role_allows() {
    let guard = guard(&[(Access::Read, "look-look-look-look"), (Access::Write, "make-make-make-make")], "0.0.0.0:1");
    let ask = |method, value: &str| judged(&guard, method, &[("host", "anything"), ("authorization", value)]);
    for method in [Method::GET, Method::HEAD] {
        assert_eq!(ask(method.clone(), "Bearer look-look-look-look"), Ok(()));
        assert_eq!(ask(method.clone(), "bearer  make-make-make-make "), Ok(()));
        assert_eq!(ask(method.clone(), "Bearer look-look-look-loo"), Err(Refusal::BadToken));
        assert_eq!(ask(method.clone(), "Bearer"), Err(Refusal::NoToken));
        assert_eq!(ask(method, "Basic look-look-look-look"), Err(Refusal::NoToken));
    }
    for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
        assert_eq!(ask(method.clone(), "Bearer look-look-look-look"), Err(Refusal::ReadOnly));
        assert_eq!(ask(method, "Bearer make-make-make-make"), Ok(()));
    }
    assert_eq!(judged(&guard, Method::GET, &[("host", "localhost")]), Err(Refusal::NoToken));
}

#[test]
fn a_reload_takes_tokens_over_and_opens_no_door() {
    let guard = guard(&[(Access::Read, "look-look-look-look")], "0.0.0.0:1");
    let ask = |value: &str| judged(&guard, Method::GET, &[("host", "localhost"), ("authorization", value)]);
    let token = Token { role: Access::Read, secret: Secret::new("another-another-one".into()) };
    guard.reload(&Stats { tokens: [("a".to_owned(), token)].into(), ..Stats::default() }, None);
    assert_eq!(
        (ask("Bearer look-look-look-look"), ask("Bearer another-another-one")),
        (Err(Refusal::BadToken), Ok(()))
    );
    // The address changes at the next start only.
    guard.reload(&Stats::default(), None);
    assert_eq!(ask("Bearer another-another-one"), Err(Refusal::NoTokens));
}

#[test]
fn tokens_are_not_tried_one_after_the_other() {
    let guard = guard(&[(Access::Read, "look-look-look-look"), (Access::Write, "make-make-make-make")], "127.0.0.1:1");
    let ask = |from: &str, value: &str| {
        let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
        guard.judge(from.parse().unwrap(), &Method::GET, &headers, None)
    };
    let (look, make) = ("Bearer look-look-look-look", "Bearer make-make-make-make");
    assert_eq!(ask("127.0.0.1", look), Ok(()));
    let wrong = |n: u32| ask("127.0.0.1", &format!("Bearer guess-guess-guess-{n}"));
    (0..10).for_each(|n| assert_eq!(wrong(n), Err(Refusal::BadToken)));
    assert!(matches!(wrong(10), Err(Refusal::TooMany(1..=7))), "{:?}", wrong(10));
    assert!(matches!(ask("127.0.0.1", make), Err(Refusal::TooMany(_))));
    assert_eq!((ask("127.0.0.1", look), ask("127.0.0.2", make)), (Ok(()), Ok(())));
    assert_eq!(ask("127.0.0.1", "Basic x"), Err(Refusal::NoToken));
}
