//! Hostile input to both SCRAM roles: nothing but the right bytes is accepted, and nothing panics.
//! Must never depend on a random outcome that could fail by chance.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::tests::{
    CLIENT_FINAL, CLIENT_FIRST, CLIENT_NONCE, SALT, SERVER_FINAL, SERVER_FIRST, SERVER_NONCE, vector_client,
    vector_server, verifier,
};
use super::*;

#[test]
fn server_refuses_hostile_first_messages() {
    let long = format!("n,,n=,r={}", "x".repeat(65_536));
    let malformed: &[&[u8]] = &[
        b"",
        b"n",
        b"n,,",
        b"n,,n=",
        b"n,,n=,",
        b"n,,n=,r=",
        b"n,,r=abc",
        b"n,,n=,s=abc",
        b"n,,r=abc,n=",
        b"n,a=admin,n=,r=abc",
        b"n,x,n=,r=abc",
        b"x,,n=,r=abc",
        b"N,,n=,r=abc",
        b"n,,m=must,n=,r=abc",
        b"n,,n=,r=abc,m=must",
        b"n,,n=,r=abc,",
        b"n,,n=,r=abc,junk",
        b"n,,n=,r=abc,xx=1",
        b"n,,n=,r=abc,1=1",
        b"n,,n=,r=a b",
        b"n,,n=,r=a\x7f",
        b"n,,n=,r=abc\0",
        b"n,,n=\xff,r=abc",
        "n,,n=,r=ab\u{e9}".as_bytes(),
        long.as_bytes(),
    ];
    for message in malformed {
        let error = ServerExchange::new(verifier("x")).on_client_first(message).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error:?} for {:?}", String::from_utf8_lossy(message));
    }
    let bound = ServerExchange::new(verifier("x")).on_client_first(b"p=tls-exporter,,n=,r=abc");
    assert!(matches!(bound, Err(ScramError::Malformed(_))));
    for accepted in ["n,,n=,r=abc", "y,,n=bob,r=abc", "n,,n=,r=abc,x=ignored,y=z=z"] {
        ServerExchange::new(verifier("x")).on_client_first(accepted.as_bytes()).unwrap();
    }
}

/// The vector's final message with something changed, against a server that waits for it.
fn finish(message: &[u8]) -> Result<(), ScramError> {
    let mut server = vector_server();
    server.challenge(CLIENT_FIRST.as_bytes(), SERVER_NONCE)?;
    server.on_client_final(message).map(drop)
}

#[test]
fn server_refuses_hostile_final_messages() {
    assert_eq!(finish(CLIENT_FINAL.as_bytes()), Ok(()));
    let (head, proof) = CLIENT_FINAL.split_once(",p=").unwrap();
    let nonce = head.strip_prefix("c=biws,").unwrap();
    let huge = format!("{head},p={}", "A".repeat(65_536));
    let malformed = [
        String::new(),
        head.to_owned(),
        format!("{nonce},p={proof}"),
        format!("c=biws,p={proof}"),
        format!("{nonce},c=biws,p={proof}"),
        format!("{head},p="),
        format!("{head},p={}", proof.get(..40).unwrap()),
        format!("{head},p={}", proof.trim_end_matches('=')),
        format!("{head},p={proof}\n"),
        format!("{head},p={proof},x=y"),
        format!("{head},p={proof}{proof}"),
        format!("{head},p={proof},p={proof}"),
        format!("{head},m=x,p={proof}"),
        format!("{head},junk,p={proof}"),
        format!("{head}\0,p={proof}"),
        huge,
    ];
    for message in malformed {
        let error = finish(message.as_bytes()).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error:?} for {message:?}");
    }
    assert!(matches!(finish(b"c=biws,r=\xff,p=AAAA"), Err(ScramError::Malformed("not UTF-8"))));
    // "eSws" is y,, and the client said n,,; the second is n,, with one byte more.
    for binding in ["eSws", "biwsAA==", ""] {
        assert_eq!(finish(format!("c={binding},{nonce},p={proof}").as_bytes()), Err(ScramError::ChannelBinding));
    }
    for nonce in [CLIENT_NONCE, SERVER_NONCE, "", "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0x"] {
        assert_eq!(finish(format!("c=biws,r={nonce},p={proof}").as_bytes()), Err(ScramError::Nonce));
    }
    // A well-formed extension is allowed, but it is signed: the old proof does not fit any more.
    assert_eq!(finish(format!("{head},x=y,p={proof}").as_bytes()), Err(ScramError::Refused));
    let flipped = proof.replacen('d', "e", 1);
    assert_eq!(finish(format!("{head},p={flipped}").as_bytes()), Err(ScramError::Refused));
}

#[test]
fn y_header_is_accepted_with_its_own_binding_only() {
    let mut server = vector_server();
    server.challenge(b"y,,n=user,r=rOprNGfwEbeRWgbNEkqO", SERVER_NONCE).unwrap();
    assert_eq!(server.on_client_final(CLIENT_FINAL.as_bytes()).unwrap_err(), ScramError::ChannelBinding);
    let mut server = vector_server();
    server.challenge(b"y,,n=user,r=rOprNGfwEbeRWgbNEkqO", SERVER_NONCE).unwrap();
    let other = CLIENT_FINAL.replace("biws", "eSws");
    // The binding fits; the proof was made for the other text.
    assert_eq!(server.on_client_final(other.as_bytes()).unwrap_err(), ScramError::Refused);
}

#[test]
fn steps_are_taken_once_and_in_order() {
    let out_of_turn = ScramError::Malformed("message out of turn");
    assert_eq!(vector_server().on_client_final(CLIENT_FINAL.as_bytes()).unwrap_err(), out_of_turn);
    let mut server = vector_server();
    server.challenge(CLIENT_FIRST.as_bytes(), SERVER_NONCE).unwrap();
    assert_eq!(server.on_client_final(b"junk").unwrap_err(), ScramError::Malformed("no proof"));
    assert_eq!(server.on_client_final(CLIENT_FINAL.as_bytes()).unwrap_err(), out_of_turn, "no second guess");
    let mut client = vector_client();
    assert_eq!(client.on_server_final(SERVER_FINAL.as_bytes()).unwrap_err(), out_of_turn);
    assert!(client.on_server_first(SERVER_FIRST.as_bytes(), &mut SaltedCache::new()).is_err());
}

#[test]
fn client_refuses_hostile_servers() {
    let first = |message: &str| vector_client().on_server_first(message.as_bytes(), &mut SaltedCache::new());
    let own = SERVER_FIRST.split_once(",s=").unwrap().0;
    let salt_limit = text::encode(&[0; SALT_MAX]);
    first(&format!("{own},s={salt_limit},i=1")).unwrap();
    first(&format!("{own},s={SALT},i=1,x=ignored")).unwrap();
    for message in [
        String::new(),
        own.to_owned(),
        format!("{own},s={SALT}"),
        format!("{own},s=,i=4096"),
        format!("{own},s=*,i=4096"),
        format!("{own},s={},i=1", text::encode(&[0; SALT_MAX + 1])),
        format!("{own},s={SALT},i=0"),
        format!("{own},s={SALT},i=-1"),
        format!("{own},s={SALT},i=1x"),
        format!("{own},s={SALT},i=1000001"),
        format!("{own},s={SALT},i=99999999999999999999"),
        format!("m=x,{SERVER_FIRST}"),
        format!("{SERVER_FIRST},m=x"),
        format!("{SERVER_FIRST}\0"),
        format!("r={CLIENT_NONCE}{},s={SALT},i=1", "x".repeat(NONCE_MAX)),
        format!("r={CLIENT_NONCE}{},s={SALT},i=1", "x".repeat(65_536)),
    ] {
        let error = first(&message).unwrap_err();
        assert!(matches!(error, ScramError::Malformed(_)), "{error:?} for {message:?}");
    }
    for nonce in [CLIENT_NONCE, "x", "xrOprNGfwEbeRWgbNEkqO", "ROprNGfwEbeRWgbNEkqOabc"] {
        assert_eq!(first(&format!("r={nonce},s={SALT},i=1")), Err(ScramError::Nonce), "{nonce}");
    }
}

#[test]
fn client_refuses_hostile_last_words() {
    let last = |message: &str| {
        let mut client = vector_client();
        client.on_server_first(SERVER_FIRST.as_bytes(), &mut SaltedCache::new()).unwrap();
        client.on_server_final(message.as_bytes())
    };
    assert_eq!(last(&SERVER_FINAL.replace("v=6", "v=7")), Err(ScramError::ServerSignature));
    assert_eq!(last("e=no\nsuch"), Err(ScramError::ServerRefused("no?such".to_owned())));
    let Err(ScramError::ServerRefused(text)) = last(&format!("e={}", "é".repeat(1000))) else {
        panic!("a server's e= must be reported");
    };
    assert_eq!(text.chars().count(), 100);
    for message in ["", "v=", "v=AAAA", "x=y", "v"] {
        assert!(matches!(last(message), Err(ScramError::Malformed(_))), "{message:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_either_role_panic(first in any::<Vec<u8>>(), last in any::<Vec<u8>>(), tail in "[rscipvnm=,A-D0-9]{0,60}") {
        for message in [&first[..], tail.as_bytes()] {
            let _ = ServerExchange::new(verifier("x")).on_client_first(message);
            let _ = vector_client().on_server_first(message, &mut SaltedCache::new());
            prop_assert!(finish(message).is_err());
        }
        let _ = finish(&last);
        let mut client = vector_client();
        client.on_server_first(format!("r={CLIENT_NONCE}x,s=AAAA,i=1").as_bytes(), &mut SaltedCache::new()).unwrap();
        prop_assert!(client.on_server_final(&last).is_err());
        let _ = Verifier::parse(&tail);
    }
}
