//! Tests of SCRAM: published vectors, verifiers made by PostgreSQL, both roles against each other, hostile input.
//! Must never depend on a random outcome that could fail by chance.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// RFC 7677 section 3.
pub(super) const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
pub(super) const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
pub(super) const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
pub(super) const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
pub(super) const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
pub(super) const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
pub(super) const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn few() -> NonZeroU32 {
    NonZeroU32::new(3).unwrap()
}

pub(super) fn verifier(password: &str) -> Verifier {
    Verifier::derive(password.as_bytes(), b"0123456789abcdef", few())
}

fn client(password: &str) -> ClientExchange {
    ClientExchange::new(Credential::password(password.as_bytes())).unwrap()
}

pub(super) fn vector_client() -> ClientExchange {
    ClientExchange::assemble(Credential::password(b"pencil"), "user", CLIENT_NONCE.to_owned())
}

pub(super) fn vector_server() -> ServerExchange {
    let salt = text::decode(SALT, SALT_MAX).unwrap();
    ServerExchange::new(Verifier::derive(b"pencil", &salt, default_iterations()))
}

/// A whole exchange; the server's outcome, and the client's opinion of it if it came to that.
fn talk(mut client: ClientExchange, mut server: ServerExchange) -> Result<Success, ScramError> {
    let server_first = server.on_client_first(&client.client_first())?;
    let client_final = client.on_server_first(&server_first, &mut SaltedCache::new())?;
    let success = server.on_client_final(&client_final)?;
    client.on_server_final(&success.server_final)?;
    Ok(success)
}

#[test]
fn client_speaks_the_rfc_7677_vector() {
    let mut client = vector_client();
    assert_eq!(client.client_first(), CLIENT_FIRST.as_bytes());
    let answer = client.on_server_first(SERVER_FIRST.as_bytes(), &mut SaltedCache::new()).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), CLIENT_FINAL);
    client.on_server_final(SERVER_FINAL.as_bytes()).unwrap();
}

#[test]
fn server_speaks_the_rfc_7677_vector() {
    let mut server = vector_server();
    let first = server.challenge(CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
    assert_eq!(String::from_utf8(first).unwrap(), SERVER_FIRST);
    let success = server.on_client_final(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(success.server_final).unwrap(), SERVER_FINAL);
}

/// `create role … password …` in PostgreSQL 15.18 with UTF-8, then `select rolpassword from pg_authid`.
#[test]
fn verifiers_of_postgresql_are_derived_alike() {
    let stored = [
        (
            "pencil",
            "SCRAM-SHA-256$4096:FY0kqQY6mshyvCb/dPXhyw==$iDhATG5C297XdIxZ48mSS37tLa5TpN7E14nsAhKoTfs=:uaOUZCB9DoSflPh2uGRmzZX+K+B22dLCozgcmHfui8E=",
        ),
        // No-break space, soft hyphen and the ligature fi: all three change under SASLprep.
        (
            "p\u{e4}ss\u{a0}w\u{ad}o\u{fb01}rd",
            "SCRAM-SHA-256$4096:0CmB2GavJe3pDz/VJArz8Q==$iL6r24Wte0oimRnoq1yP5plpBEf+BrYw09rSh54ycdU=:qEQCdg4aFciMDTPNRDChudTR0U89OxMkXawsyTyPR7I=",
        ),
        // Prohibited by SASLprep, so taken as they are: control characters, an unassigned one, mixed direction.
        (
            "tab\there",
            "SCRAM-SHA-256$4096:DIeyila8GHce4QbG+T0Y9Q==$C3dEHm32H4ml67O2/1qTeGSKxlQmw2bQXs9BmHpLVbs=:NDBX62KT8cZfibnKjypzOh/L1KPzhdCGPGNr2W4c0/U=",
        ),
        (
            "\u{e9}\u{7}x",
            "SCRAM-SHA-256$4096:Lk+pl638K2+iACqDb+0ELQ==$NDvDjwHDzm4HglPQXjr2FXdfynpm5RZU115JVvQPK7E=:ihdOQUyVDnT4bMBbW5mPgXimkmZILkvmEp+WyBsusPs=",
        ),
        (
            "x\u{221}y",
            "SCRAM-SHA-256$4096:whKgc/y67DferEQbdVLx0w==$vuo0In55B2Wkcl7hiDtVBR6Ak8spmV6gTxDvD9JMl64=:uL82IG1VF3tTWLLSLZx4S7N1AG3eSZ8/yvy9usXkPIE=",
        ),
        (
            "\u{627}a",
            "SCRAM-SHA-256$4096:JPa+hMSGSXIdcoLbZqd0oQ==$aOYhIwipIBuDCS1Q1OIncJ/v8xoaOrZXAJZcDx/0jC0=:4mufKK1F6/5xyTnjhJwf93emgY9VnkMUyaHd1UrGYZ4=",
        ),
    ];
    for (password, stored) in stored {
        let parsed = Verifier::parse(stored).unwrap();
        assert_eq!(parsed.format().as_str(), stored);
        let derived = Verifier::derive(password.as_bytes(), &parsed.salt, parsed.iterations);
        assert_eq!(derived.format().as_str(), stored, "{password:?}");
    }
}

#[test]
fn damaged_verifiers_are_refused() {
    let good = verifier("x").format();
    assert!(Verifier::parse(&good).is_some());
    let long_salt = "A".repeat(1372);
    let key = "A".repeat(43);
    for bad in [
        good.replace("SHA-256", "SHA-1"),
        good.replace("$3:", "$0:"),
        good.replace("$3:", "$-3:"),
        good.replace("$3:", "$ 3:"),
        good.replace("$3:", "$2147483648:"),
        good.replace("$3:", "$:"),
        good.replace("=:", ":"),
        format!("{}x", good.as_str()),
        format!("{}:", good.as_str()),
        format!(" {}", good.as_str()),
        format!("SCRAM-SHA-256$3:$ {key}=:{key}="),
        format!("SCRAM-SHA-256$3:$${key}=:{key}="),
        format!("SCRAM-SHA-256$3:${key}=:{key}="),
        format!("SCRAM-SHA-256$3:{long_salt}${key}=:{key}="),
    ] {
        assert_eq!(Verifier::parse(&bad), None, "{bad}");
    }
    assert!(Verifier::parse(&format!("SCRAM-SHA-256$3:AAAA${key}=:{key}=")).is_some(), "the above are close misses");
}

#[test]
fn wrong_password_doomed_exchange_and_mock_end_alike() {
    let wrong = talk(client("secret"), ServerExchange::new(verifier("Secret")));
    assert_eq!(wrong.unwrap_err(), ScramError::Refused);
    let doomed = talk(client("secret"), ServerExchange::doomed(verifier("secret")));
    assert_eq!(doomed.unwrap_err(), ScramError::Refused, "even with the right password");
    let mock = crate::auth::Mocks::new([1; 32]).verifier("nobody");
    assert_eq!(mock.iterations.get(), ITERATIONS);
    assert_eq!(mock.salt.len(), SALT_LEN);
    assert_eq!(talk(client("secret"), ServerExchange::doomed(mock)).unwrap_err(), ScramError::Refused);
}

#[test]
fn client_key_of_one_login_opens_the_same_verifier_only() {
    let stored = verifier("secret");
    let success = talk(client("secret"), ServerExchange::new(stored.clone())).unwrap();
    let key = success.client_key;
    let with_key = || ClientExchange::new(Credential::ClientKey(key.clone())).unwrap();
    talk(with_key(), ServerExchange::new(stored.clone())).unwrap();
    let salted_anew = Verifier::derive(b"secret", b"another salt", few());
    assert_eq!(talk(with_key(), ServerExchange::new(salted_anew)).unwrap_err(), ScramError::KeyMismatch);
    let counted_anew = Verifier::derive(b"secret", &stored.salt, NonZeroU32::new(4).unwrap());
    assert_eq!(talk(with_key(), ServerExchange::new(counted_anew)).unwrap_err(), ScramError::KeyMismatch);
    let other = Verifier::derive(b"other", &stored.salt, few());
    assert_eq!(talk(with_key(), ServerExchange::new(other)).unwrap_err(), ScramError::Refused);
}

#[test]
fn cache_derives_once_per_password_salt_and_count_and_stays_bounded() {
    let mut cache = SaltedCache::new();
    let first = cache.derive(b"a", b"salt", few());
    let again = cache.derive(b"a", b"salt", few());
    assert_eq!((first.client_key, first.server_key), (again.client_key, again.server_key));
    assert_eq!((cache.derivations, cache.len()), (1, 1));
    cache.derive(b"b", b"salt", few());
    cache.derive(b"a", b"tlas", few());
    cache.derive(b"a", b"salt", NonZeroU32::MIN);
    assert_eq!(cache.derivations, 4);
    for n in 0..1000_u32 {
        cache.derive(&n.to_be_bytes(), b"salt", NonZeroU32::MIN);
    }
    assert_eq!(cache.len(), 256);
    cache.clear();
    assert!(cache.is_empty());
}

#[test]
fn debug_shows_no_key() {
    let stored = verifier("x");
    let shown = format!("{stored:?} {:?} {:?}", Credential::password(b"hidden"), client("hidden"));
    assert!(!shown.contains("hidden") && !shown.contains("stored_key") && !shown.contains('['), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_password_opens_its_own_verifier_only(password in any::<Vec<u8>>(), other in any::<Vec<u8>>(),
                                                salt in prop::collection::vec(any::<u8>(), 1..40)) {
        let exchange = |password: &[u8]| ClientExchange::new(Credential::password(password)).unwrap();
        let stored = Verifier::derive(&password, &salt, few());
        let parsed = Verifier::parse(&stored.format()).unwrap();
        prop_assert!(talk(exchange(&password), ServerExchange::new(parsed)).is_ok());
        if Verifier::derive(&other, &salt, few()) != stored {
            prop_assert_eq!(talk(exchange(&other), ServerExchange::new(stored)).unwrap_err(), ScramError::Refused);
        }
    }

    #[test]
    fn any_text_opens_its_own_verifier(password in any::<String>()) {
        prop_assert!(talk(client(&password), ServerExchange::new(verifier(&password))).is_ok());
    }
}

/// Two ends that see the same certificate, and what happens when somebody between has another or hides the offer.
#[test]
fn channel_binding_holds_a_man_in_the_middle_off() {
    let bound = |hash: &[u8]| client("secret").bound(Binding::EndPoint(hash.to_vec()));
    let offering = |hash: Option<&[u8]>, plus| {
        let mut server = ServerExchange::new(verifier("secret"));
        server.offer(hash.map(Arc::from));
        server.choose(plus);
        server
    };
    talk(bound(b"one"), offering(Some(b"one"), true)).unwrap();
    assert_eq!(talk(bound(b"one"), offering(Some(b"two"), true)).unwrap_err(), ScramError::ChannelBinding);
    let stripped = client("secret").bound(Binding::NotOffered);
    assert_eq!(talk(stripped, offering(Some(b"one"), false)).unwrap_err(), ScramError::Downgrade);
    talk(client("secret").bound(Binding::NotOffered), offering(None, false)).unwrap();
    talk(client("secret"), offering(Some(b"one"), false)).unwrap();
}

#[test]
fn any_of_several_passwords_opens() {
    let (one, two) = (verifier("one"), verifier("two"));
    let server = || {
        let mut server = ServerExchange::new(one.clone());
        server.add(two.clone());
        server.add(Verifier::derive(b"three", b"another salt", few()));
        server
    };
    assert_eq!(talk(client("one"), server()).unwrap().verifier, 0);
    assert_eq!(talk(client("two"), server()).unwrap().verifier, 1);
    assert_eq!(talk(client("three"), server()).unwrap_err(), ScramError::Refused);
    let mut doomed = server();
    doomed.doom();
    assert_eq!(talk(client("two"), doomed).unwrap_err(), ScramError::Refused);
}
