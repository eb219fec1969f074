//! Tests of the login decision: every method with every kind of secret, and hostile clients.
//! Must never accept a case that is not written down as accepted.
#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;

use super::*;
use crate::auth::scram::{ClientExchange, Credential, SaltedCache, Verifier};

const PASSWORD: &str = "pencil";

/// Of a gate whose one user has a password in plain text, so that strangers are asked as such.
fn cache() -> VerifierCache {
    let mut cache = VerifierCache::new([5; 32]);
    cache.prepare("alice", &["x"]);
    cache
}

fn stored_verifier(password: &str) -> String {
    Verifier::derive(password.as_bytes(), b"salt", NonZeroU32::new(2).unwrap()).format().to_string()
}

fn begin(method: Method, user: &str, stored: Option<&str>) -> Result<(Login, Step), LoginError> {
    let secrets: Vec<&str> = stored.into_iter().collect();
    Login::start(method, &Account { user, secrets: &secrets, expired: false }, None, &mut cache())
}

/// What a login came to, and how the client was asked.
#[derive(Debug, PartialEq)]
enum Outcome {
    TrustIn,
    Md5In,
    Md5Out,
    ScramIn,
    ScramInWithKey,
    ScramOut,
}

/// A whole login of an honest client that believes in `password`.
fn attempt(method: Method, user: &str, stored: Option<&str>, password: &str) -> Outcome {
    let (mut login, step) = begin(method, user, stored).unwrap();
    let refused = LoginError::Refused { user: user.to_owned() };
    let body = match step {
        Step::Done(_) => return Outcome::TrustIn,
        Step::Send(body) => body,
    };
    if body.starts_with(&5_i32.to_be_bytes()) {
        let salt = body[4..].try_into().unwrap();
        let response = md5::response(user, password.as_bytes(), salt);
        return match login.on_message(&[response.as_bytes(), b"\0"].concat()) {
            Ok(Step::Done(done)) => {
                assert!(done.before_ok.is_none() && done.identity.client_key.is_none());
                Outcome::Md5In
            }
            other => {
                assert_eq!(other.unwrap_err(), refused);
                Outcome::Md5Out
            }
        };
    }
    assert_eq!(body, sasl::sasl_request(false));
    let mut client = ClientExchange::new(Credential::password(password.as_bytes())).unwrap();
    let first = sent(login.on_message(&sasl::initial_response(MECHANISM, &client.client_first())));
    let answer = client.on_server_first(first.strip_prefix(&[0, 0, 0, 11]).unwrap(), &mut SaltedCache::new());
    match login.on_message(&answer.unwrap()) {
        Ok(Step::Done(done)) => {
            let last = done.before_ok.unwrap();
            client.on_server_final(last.strip_prefix(&[0, 0, 0, 12]).unwrap()).unwrap();
            if done.identity.client_key.is_some() { Outcome::ScramInWithKey } else { Outcome::ScramIn }
        }
        other => {
            assert_eq!(other.unwrap_err(), refused);
            Outcome::ScramOut
        }
    }
}

fn sent(step: Result<Step, LoginError>) -> Vec<u8> {
    match step.unwrap() {
        Step::Send(body) => body,
        Step::Done(_) => panic!("done too early"),
    }
}

#[test]
fn every_method_with_every_secret() {
    let verifier = stored_verifier(PASSWORD);
    let hash = md5::hash("bob", PASSWORD.as_bytes());
    let hash_of_empty = md5::hash("bob", b"");
    let damaged = &verifier[..verifier.len() - 1];
    use Outcome::{Md5In, Md5Out, ScramIn, ScramInWithKey, ScramOut, TrustIn};
    // Stored secret, then the outcome with its password by md5 and by SCRAM.
    let cases = [
        (Some(PASSWORD), PASSWORD, Md5In, ScramIn),
        (Some(&hash), PASSWORD, Md5In, ScramOut),
        (Some(&verifier), PASSWORD, ScramInWithKey, ScramInWithKey),
        (Some(PASSWORD), "Pencil", Md5Out, ScramOut),
        (Some(&hash), "Pencil", Md5Out, ScramOut),
        (Some(&verifier), "Pencil", ScramOut, ScramOut),
        // The text of a secret is not its password.
        (Some(&hash), &hash, Md5Out, ScramOut),
        (Some(&verifier), &verifier, ScramOut, ScramOut),
        (Some(damaged), damaged, Md5Out, ScramOut),
        // Nothing stored: nothing opens it, least of all nothing.
        (None, PASSWORD, Md5Out, ScramOut),
        (None, "", Md5Out, ScramOut),
        (Some(""), "", Md5Out, ScramOut),
        (Some(&hash_of_empty), "", Md5Out, ScramOut),
        (Some(PASSWORD), "", Md5Out, ScramOut),
    ];
    for (stored, password, by_md5, by_scram) in cases {
        assert_eq!(attempt(Method::Md5, "bob", stored, password), by_md5, "md5 {stored:?} {password:?}");
        assert_eq!(attempt(Method::Scram, "bob", stored, password), by_scram, "scram {stored:?} {password:?}");
        assert_eq!(attempt(Method::Trust, "bob", stored, password), TrustIn);
    }
}

#[test]
fn refusal_is_worded_as_postgresql_does() {
    let error = LoginError::Refused { user: "bob".to_owned() };
    assert_eq!(error.to_string(), "password authentication failed for user \"bob\"");
    assert_eq!(error.sqlstate(), "28P01");
}

/// By its bytes, an unknown user's exchange is that of a known one with a plaintext password.
#[test]
fn unknown_user_sees_the_same_challenge_every_time() {
    let challenge = |stored: Option<&str>| {
        let (mut login, _) = begin(Method::Scram, "bob", stored).unwrap();
        let body = sent(login.on_message(&sasl::initial_response(MECHANISM, b"n,,n=,r=abc")));
        let text = String::from_utf8(body[4..].to_vec()).unwrap();
        let (nonce, rest) = text.split_once(',').unwrap();
        (nonce.len(), rest.to_owned())
    };
    let known = challenge(Some(PASSWORD));
    assert_eq!(challenge(None), known);
    assert_eq!(challenge(None), known);
    assert_eq!(challenge(Some(&md5::hash("bob", b"x"))), known);
}

#[test]
fn client_key_opens_a_server_with_the_same_verifier() {
    let stored = stored_verifier(PASSWORD);
    let (mut login, _) = begin(Method::Scram, "bob", Some(&stored)).unwrap();
    let mut client = ClientExchange::new(Credential::password(PASSWORD.as_bytes())).unwrap();
    let first = sent(login.on_message(&sasl::initial_response(MECHANISM, &client.client_first())));
    let answer = client.on_server_first(&first[4..], &mut SaltedCache::new()).unwrap();
    let Step::Done(done) = login.on_message(&answer).unwrap() else { panic!("not done") };

    let mut server = ServerExchange::new(Verifier::parse(&stored).unwrap());
    let mut proxy = ClientExchange::new(Credential::ClientKey(done.identity.client_key.unwrap())).unwrap();
    let first = server.on_client_first(&proxy.client_first()).unwrap();
    let answer = proxy.on_server_first(&first, &mut SaltedCache::new()).unwrap();
    proxy.on_server_final(&server.on_client_final(&answer).unwrap().server_final).unwrap();
}

#[test]
fn absent_initial_response_gets_an_empty_challenge() {
    let (mut login, _) = begin(Method::Scram, "bob", Some(PASSWORD)).unwrap();
    assert_eq!(sent(login.on_message(b"SCRAM-SHA-256\0\xff\xff\xff\xff")), sasl::sasl_continue(b""));
    assert!(sent(login.on_message(b"n,,n=,r=abc")).starts_with(b"\0\0\0\x0br=abc"));
}

#[test]
fn hostile_messages_end_the_login_with_a_protocol_error() {
    let initial: &[&[u8]] = &[
        b"",
        b"\0",
        b"pencil\0",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0\0\0\0\x05n,,",
        b"SCRAM-SHA-256\0\0\0\0\0",
        b"SCRAM-SHA-256\0\0\0\0\x0bp=x,,n=,r=a",
        b"SCRAM-SHA-256-PLUS\0\0\0\0\x0bn,,n=,r=abc",
        b"scram-sha-256\0\0\0\0\x0bn,,n=,r=abc",
    ];
    let good = sasl::initial_response(MECHANISM, b"n,,n=,r=abc");
    for stored in [Some(PASSWORD), None] {
        for message in initial {
            let (mut login, _) = begin(Method::Scram, "bob", stored).unwrap();
            assert_eq!(login.on_message(message).unwrap_err().sqlstate(), "08P01", "{message:?}");
            assert_eq!(login.on_message(&good).unwrap_err().sqlstate(), "08P01", "no second try");
        }
    }
    for message in [&b""[..], b"md5", b"md5\0x", b"a\0b\0"] {
        let (mut login, _) = begin(Method::Md5, "bob", Some(PASSWORD)).unwrap();
        assert_eq!(login.on_message(message).unwrap_err().sqlstate(), "08P01", "{message:?}");
    }
    for message in [&b"\0"[..], b"pencil\0", b"md5\0"] {
        let (mut login, _) = begin(Method::Md5, "bob", Some(PASSWORD)).unwrap();
        assert_eq!(login.on_message(message).unwrap_err().sqlstate(), "28P01", "{message:?}");
    }
    let (mut login, _) = begin(Method::Trust, "bob", None).unwrap();
    assert_eq!(login.on_message(b"x\0").unwrap_err().sqlstate(), "08P01");
}

/// By what it is asked for an unknown user cannot be told from a known one, whatever those have to log in with.
#[test]
fn unknown_users_are_asked_as_known_ones() {
    let verifier = stored_verifier(PASSWORD);
    let hash = md5::hash("bob", PASSWORD.as_bytes());
    for secret in [PASSWORD, &verifier, &hash] {
        let mut cache = VerifierCache::new([5; 32]);
        cache.prepare("bob", &[secret]);
        let mut asked = |user, secrets: &[&str]| {
            let account = Account { user, secrets, expired: false };
            let (mut login, step) = Login::start(Method::Md5, &account, None, &mut cache).unwrap();
            match step {
                Step::Send(body) if body == sasl::sasl_request(false) => {
                    let first = sent(login.on_message(&sasl::initial_response(MECHANISM, b"n,,n=,r=abc")));
                    let text = String::from_utf8(first[4..].to_vec()).unwrap();
                    let salt = text.split(',').nth(1).unwrap().len();
                    (false, salt, text.rsplit(',').next().unwrap().to_owned())
                }
                Step::Send(body) => (true, body.len(), String::new()),
                Step::Done(_) => panic!("not asked"),
            }
        };
        let known = asked("bob", &[secret]);
        for stranger in ["alice", "carol", "dave", "erin"] {
            assert_eq!(asked(stranger, &[]), known, "{stranger} against {secret}");
            assert_eq!(asked(stranger, &[""]), known, "without a password");
        }
    }
}

#[test]
fn md5_salts_differ_from_login_to_login() {
    let start = || match begin(Method::Md5, "bob", None).unwrap().1 {
        Step::Send(body) => body,
        Step::Done(_) => panic!("no proof asked"),
    };
    // Four equal salts in a row by chance: once in 2^96.
    let salts = [start(), start(), start(), start()];
    assert!(salts.iter().any(|salt| *salt != salts[0]));
}

/// Whether `password` gets in by cleartext with these secrets, and whether it brings a key.
fn by_cleartext(user: &str, secrets: &[&str], expired: bool, password: &str) -> Option<bool> {
    let account = Account { user, secrets, expired };
    let (mut login, step) = Login::start(Method::Cleartext, &account, None, &mut cache()).unwrap();
    assert!(matches!(step, Step::Send(body) if body == sasl::CLEARTEXT_REQUEST));
    match login.on_message(&[password.as_bytes(), b"\0"].concat()) {
        Ok(Step::Done(done)) => Some(done.identity.client_key.is_some()),
        Ok(Step::Send(_)) => panic!("asks again"),
        Err(error) => {
            assert_eq!(error, LoginError::Refused { user: user.to_owned() });
            None
        }
    }
}

#[test]
fn cleartext_with_every_secret() {
    let verifier = stored_verifier(PASSWORD);
    let other = Verifier::derive(b"second", b"other salt", NonZeroU32::new(2).unwrap()).format().to_string();
    let hash = md5::hash("bob", PASSWORD.as_bytes());
    let hash_of_empty = md5::hash("bob", b"");
    let of_empty = stored_verifier("");
    for (secrets, password, outcome) in [
        (&[PASSWORD][..], PASSWORD, Some(false)),
        (&[&hash], PASSWORD, Some(false)),
        (&[&verifier], PASSWORD, Some(true)),
        (&[&verifier, &other], "second", Some(true)),
        (&[&verifier, "second", &hash], "second", Some(false)),
        (&[PASSWORD], "Pencil", None),
        (&[PASSWORD], "", None),
        (&[&hash], &hash, None),
        (&[&verifier], &verifier, None),
        (&[&verifier[..verifier.len() - 1]], &verifier[..verifier.len() - 1], None),
        (&[], "", None),
        (&[], PASSWORD, None),
        (&[""], "", None),
        (&[&hash_of_empty], "", None),
        (&[&of_empty], "", None),
    ] {
        assert_eq!(by_cleartext("bob", secrets, false, password), outcome, "{secrets:?} {password}");
        assert_eq!(by_cleartext("bob", secrets, true, password), None, "expired");
    }
    let huge = verifier.replace("$2:", "$2000000000:");
    assert_eq!(by_cleartext("bob", &[&huge], false, PASSWORD), None, "two minutes of work");
}

/// A whole SCRAM login; whether it succeeded and brought a key.
fn by_scram(secrets: &[&str], expired: bool, password: &str) -> Option<bool> {
    let account = Account { user: "bob", secrets, expired };
    let (mut login, _) = Login::start(Method::Scram, &account, None, &mut cache()).unwrap();
    let mut client = ClientExchange::new(Credential::password(password.as_bytes())).unwrap();
    let first = sent(login.on_message(&sasl::initial_response(MECHANISM, &client.client_first())));
    let answer = client.on_server_first(&first[4..], &mut SaltedCache::new()).unwrap();
    match login.on_message(&answer) {
        Ok(Step::Done(done)) => Some(done.identity.client_key.is_some()),
        _ => None,
    }
}

/// During a rotation both passwords are good, in whatever form each is on record.
#[test]
fn any_of_several_secrets_lets_in() {
    let verifier = stored_verifier("old");
    let hash = md5::hash("bob", b"hashed");
    for (secrets, password, outcome) in [
        (&["new", "old"][..], "new", Some(false)),
        (&["new", "old"], "old", Some(false)),
        (&["new", "old"], "older", None),
        (&["new", &verifier], "new", Some(false)),
        (&["new", &verifier], "old", Some(true)),
        (&[&hash, "new"], "new", Some(false)),
        (&[&hash, "new"], "hashed", None),
        (&["", "new"], "new", Some(false)),
        (&["", "new"], "", None),
    ] {
        assert_eq!(by_scram(secrets, false, password), outcome, "{secrets:?} {password}");
        assert_eq!(by_scram(secrets, true, password), None, "expired");
    }
    let md5 = |secrets: &[&str], expired, password: &str| {
        let account = Account { user: "bob", secrets, expired };
        let (mut login, step) = Login::start(Method::Md5, &account, None, &mut cache()).unwrap();
        let Step::Send(body) = step else { panic!("no question") };
        let response = md5::response("bob", password.as_bytes(), body[4..].try_into().unwrap());
        login.on_message(&[response.as_bytes(), b"\0"].concat()).is_ok()
    };
    for password in ["new", "hashed"] {
        assert!(md5(&["new", &hash], false, password));
        assert!(!md5(&["new", &hash], true, password), "expired");
    }
    assert!(!md5(&["new", &hash], false, "old"));
}

/// By its challenge a user whose password has expired cannot be told from one whose has not.
#[test]
fn an_expired_users_challenge_stays_the_same() {
    let verifier = stored_verifier(PASSWORD);
    let challenge = |expired| {
        let account = Account { user: "bob", secrets: &[&verifier], expired };
        let (mut login, _) = Login::start(Method::Scram, &account, None, &mut cache()).unwrap();
        let body = sent(login.on_message(&sasl::initial_response(MECHANISM, b"n,,n=,r=abc")));
        String::from_utf8(body[4..].to_vec()).unwrap().split_once(',').unwrap().1.to_owned()
    };
    assert_eq!(challenge(true), challenge(false));
}

#[test]
fn channel_binding_is_offered_over_tls_and_held_to() {
    let hash: Arc<[u8]> = Arc::from(&b"hash of the certificate"[..]);
    let start = |binding: Option<&Arc<[u8]>>| {
        let account = Account { user: "bob", secrets: &[PASSWORD], expired: false };
        let (login, step) = Login::start(Method::Scram, &account, binding.cloned(), &mut cache()).unwrap();
        let Step::Send(body) = step else { panic!("no question") };
        assert_eq!(body, sasl::sasl_request(binding.is_some()));
        login
    };
    let finish = |mut login: Login, mechanism, binding| {
        let client = ClientExchange::new(Credential::password(PASSWORD.as_bytes())).unwrap();
        let mut client = client.bound(binding);
        let Step::Send(first) = login.on_message(&sasl::initial_response(mechanism, &client.client_first()))? else {
            panic!("no challenge");
        };
        let answer = client.on_server_first(&first[4..], &mut SaltedCache::new()).unwrap();
        login.on_message(&answer)
    };
    use crate::auth::scram::Binding;
    let bound = |hash: &[u8]| Binding::EndPoint(hash.to_vec());
    assert!(matches!(finish(start(Some(&hash)), MECHANISM_PLUS, bound(&hash)), Ok(Step::Done(_))));
    assert!(matches!(finish(start(Some(&hash)), MECHANISM, Binding::None), Ok(Step::Done(_))));
    assert!(matches!(finish(start(None), MECHANISM, Binding::NotOffered), Ok(Step::Done(_))));
    let code = |outcome: Result<Step, LoginError>| outcome.unwrap_err().sqlstate();
    assert_eq!(code(finish(start(Some(&hash)), MECHANISM_PLUS, bound(b"another"))), "28000");
    assert_eq!(code(finish(start(Some(&hash)), MECHANISM, Binding::NotOffered)), "28000", "downgrade");
    assert_eq!(code(finish(start(Some(&hash)), MECHANISM, bound(&hash))), "08P01");
    assert_eq!(code(finish(start(Some(&hash)), MECHANISM_PLUS, Binding::None)), "08P01");
    assert_eq!(code(finish(start(None), MECHANISM_PLUS, bound(&hash))), "08P01");
}
