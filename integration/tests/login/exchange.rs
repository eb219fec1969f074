//! The login message by message: an unknown user is treated as one with a wrong password.
//! It must never know a right proof: psql shows that right ones are accepted.

use crate::common::client::said;
use crate::common::{Client, Conf, eventually};
use crate::{KINDS, assert_discreet, methods};
use integration::Pgweir;
use integration::wire::{Frame, Script};

pub fn begin(port: u16, user: &str) -> (Client, Frame) {
    let mut client = Client::tcp(port);
    client.startup(0, &[("user", user)]);
    let request = client.read().unwrap();
    (client, request)
}

fn code(request: &Frame) -> u32 {
    assert_eq!(request.tag, b'R', "{request:?}");
    u32::from_be_bytes(request.body[..4].try_into().unwrap())
}

/// The refusal, in which the user's name is replaced, and that nothing comes behind it.
fn refusal(mut client: Client, user: &str) -> Vec<u8> {
    let frames = client.frames_to_end();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(said(&frames[0]), format!("28P01 password authentication failed for user \"{user}\""));
    let text = String::from_utf8(frames[0].body.clone()).unwrap();
    text.replace(user, "NAME").into_bytes()
}

pub fn initial(mechanism: &str, first: &str) -> Script {
    let length = (first.len() as u32).to_be_bytes();
    Script::new().raw(b'p', &[mechanism.as_bytes(), b"\0", &length, first.as_bytes()].concat())
}

/// What SCRAM says to a user: mechanisms, salt and iterations, and the refusal of a made-up proof.
#[derive(Debug, PartialEq, Clone)]
struct Said {
    mechanisms: Vec<u8>,
    salt: String,
    iterations: String,
    refusal: Vec<u8>,
}

fn scram(port: u16, user: &str, proof: &str) -> Said {
    let (mut client, request) = begin(port, user);
    assert_eq!(code(&request), 10);
    client.send(&initial("SCRAM-SHA-256", "n,,n=,r=rOprNGfwEbeRWgbNEkqO"));
    let first = client.read().unwrap();
    assert_eq!(code(&first), 11);
    let text = String::from_utf8(first.body[4..].to_vec()).unwrap();
    let parts: Vec<&str> = text.splitn(3, ',').collect();
    let nonce = parts[0].strip_prefix("r=").unwrap();
    assert!(nonce.starts_with("rOprNGfwEbeRWgbNEkqO") && nonce.len() > 36, "{nonce}");
    client.send(&Script::new().raw(b'p', format!("c=biws,r={nonce},p={proof}").as_bytes()));
    let (salt, iterations) = (parts[1].to_string(), parts[2].to_string());
    Said { mechanisms: request.body, salt, iterations, refusal: refusal(client, user) }
}

/// 32 zero bytes.
pub const PROOF: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

#[test]
fn defect_08_an_unknown_users_scram_exchange_looks_like_any_other() {
    let pgweir = methods("scram-sha-256").start();
    let port = pgweir.port();
    let known = scram(port, "plain", PROOF);
    for user in ["stranger", "verified", "another"] {
        let said = scram(port, user, PROOF);
        assert_eq!(said.mechanisms, known.mechanisms, "{user}");
        assert_eq!(said.iterations, known.iterations, "{user}");
        assert_eq!(said.salt.len(), known.salt.len(), "{user}");
        assert_eq!(said.refusal, known.refusal, "{user}");
        // Whoever asks twice sees the same salt, and every user has its own.
        assert_eq!(scram(port, user, PROOF).salt, said.salt, "{user}");
        assert_ne!(said.salt, known.salt, "{user}");
    }
    assert_eq!(scram(port, "plain", PROOF).salt, known.salt);
    // What stands for unknown users is the same after a restart and in every sibling; to know it takes the secret.
    let keyed = |secret: &str| methods("scram-sha-256").rest(&format!("[auth]\nmock_secret = \"{secret}\"")).start();
    let (one, same, other) = (keyed("0123456789abcdef"), keyed("0123456789abcdef"), keyed("fedcba9876543210"));
    for user in ["stranger", "plain", "another"] {
        let salt = |pgweir: &Pgweir| scram(pgweir.port(), user, PROOF).salt;
        assert_eq!(salt(&one), salt(&same), "{user}");
        assert_ne!(salt(&one), salt(&other), "{user}");
        assert_ne!(salt(&one), scram(port, user, PROOF).salt, "{user}");
    }
    assert_discreet(&pgweir.log());
}

/// The password line of the user of a kind.
fn line(kind: usize) -> String {
    format!("password = \"{}\"", crate::secrets()[kind])
}

fn md5(port: u16, user: &str, answer: &[u8]) -> (u32, Vec<u8>) {
    let (mut client, request) = begin(port, user);
    client.send(&Script::new().raw(b'p', answer));
    (code(&request), refusal(client, user))
}

#[test]
fn defect_08_an_unknown_users_md5_exchange_looks_like_any_other() {
    let all = methods("md5");
    let hashed = Conf::database_only("primary = \"127.0.0.1:1\"").listen("auth_type = \"md5\"");
    let pgweir = hashed.user("plain", &line(0)).user("hashed", &line(1)).start();
    let wrong = b"md5d41d8cd98f00b204e9800998ecf8427e\0";
    let known = md5(pgweir.port(), "plain", wrong);
    assert_eq!(known.0, 5);
    for user in ["stranger", "hashed"] {
        assert_eq!(md5(pgweir.port(), user, wrong), known, "{user}");
    }
    // Empty, cut short, not even of the form.
    for answer in [&b"\0"[..], b"md5\0", b"x\0", b"md5d41d8cd98f00b204e9800998ecf842\0", &[b'x'; 500]] {
        for user in ["plain", "stranger"] {
            let (mut client, _) = begin(pgweir.port(), user);
            client.send(&Script::new().raw(b'p', answer));
            let error = client.read().unwrap();
            let code = error.field(b'C').unwrap();
            assert!(code == "28P01" || code == "08P01", "{user} {answer:?}: {}", said(&error));
        }
    }
    // Whose users have verifiers asks unknown ones for SCRAM, as often as those told to iterate.
    let verified = Conf::database_only("primary = \"127.0.0.1:1\"").listen("auth_type = \"md5\"");
    let strange = line(2).replace("$4096:", "$12345:");
    let verified = verified.user("verified", &strange).start();
    let known = scram(verified.port(), "verified", PROOF);
    assert_eq!(known.iterations, "i=12345");
    for user in ["stranger", "another", "third"] {
        let said = scram(verified.port(), user, PROOF);
        assert_eq!((said.mechanisms, said.iterations), (known.mechanisms.clone(), known.iterations.clone()), "{user}");
        assert_eq!((said.salt.len(), said.refusal), (known.salt.len(), known.refusal.clone()), "{user}");
    }
    // Where both kinds are, strangers are of both.
    let pgweir_of_all = all.start();
    let codes = (0..40).map(|n| code(&begin(pgweir_of_all.port(), &format!("stranger{n}")).1));
    assert_eq!(codes.collect::<std::collections::BTreeSet<_>>(), [5, 10].into());
    // The salt is new every time.
    let salt = || begin(pgweir.port(), "plain").1.body;
    assert_ne!(salt(), salt());
}

/// A secret that no answer can match, and none at all.
#[test]
fn defect_04_what_is_not_a_proof_is_refused() {
    let pgweir = methods("scram-sha-256").start();
    for user in KINDS.iter().chain(&["stranger"]) {
        for proof in ["", "=", "AAAA", "not base64!", &"A".repeat(4000)] {
            let (mut client, _) = begin(pgweir.port(), user);
            client.send(&initial("SCRAM-SHA-256", "n,,n=,r=abcdefghijklmnopqrstuvwx"));
            let first = client.read().unwrap();
            let text = String::from_utf8(first.body[4..].to_vec()).unwrap();
            let nonce = text.split(',').next().unwrap();
            client.send(&Script::new().raw(b'p', format!("c=biws,{nonce},p={proof}").as_bytes()));
            let frames = client.frames_to_end();
            assert_eq!(frames.len(), 1);
            let code = frames[0].field(b'C').unwrap();
            assert!(code == "28P01" || code == "08P01", "{user} {proof:?}: {}", said(&frames[0]));
        }
    }
}

#[test]
fn broken_exchanges_end_the_connection() {
    let pgweir = methods("scram-sha-256").start();
    let long = "x".repeat(70_000);
    let cases = [
        initial("SCRAM-SHA-1", "n,,n=,r=abcdefghijklmnopqrstuvwx"),
        initial("", ""),
        initial("SCRAM-SHA-256", ""),
        initial("SCRAM-SHA-256", "y"),
        initial("SCRAM-SHA-256", "n,,n=,r="),
        initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=abcdefghijklmnopqrstuvwx"),
        initial("SCRAM-SHA-256", &format!("n,,n=,r={long}")),
        Script::new().raw(b'p', b""),
        Script::new().raw(b'p', b"SCRAM-SHA-256"),
        Script::new().raw(b'p', b"SCRAM-SHA-256\0\xff\xff\xff\xfe"),
        Script::new().raw(b'p', b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,"),
        Script::new().query("SELECT 1"),
        Script::new().sync(),
    ];
    for script in &cases {
        let (mut client, _) = begin(pgweir.port(), "plain");
        client.send(script);
        let frames = client.frames_to_end();
        assert!(frames.iter().all(|frame| frame.tag == b'E'), "{frames:?}");
        assert!(frames.len() <= 1, "{frames:?}");
    }
    // A message longer than any of a login is not waited for.
    let (mut client, _) = begin(pgweir.port(), "plain");
    client.write(&[b'p', 0x7f, 0xff, 0xff, 0xff]);
    assert!(client.frames_to_end().iter().all(|frame| frame.tag == b'E'));
    // Its limit is not one that could be configured.
    eventually("the log tells", || pgweir.log().contains("before a session is up at most"));
    assert!(!pgweir.log().contains("max_packet_size"));
    // rustls is heard when asked for only.
    assert!(!pgweir.log().contains("rustls"));
}

/// Whatever comes behind the last message of the login is a query of the session, not lost.
#[test]
fn a_query_right_behind_the_startup_message() {
    let pgweir = methods("trust").start();
    let mut client = Client::tcp(pgweir.port());
    let hello = crate::common::client::startup(0, &[("user", "plain")]);
    client.write(&[&hello[..], Script::new().query("SELECT 'early'").bytes()].concat());
    client.welcome().unwrap();
    let rows = crate::common::client::outcome(&client.ready(1));
    assert_eq!(rows, Ok(vec![vec!["early".to_string()]]));
}
