//! SCRAM-SHA-256 in both roles, with messages that a hostile peer may send.
//! Must never let anybody in who did not know the password.
#![no_main]

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pgweir::auth::scram::{ClientExchange, Credential, SaltedCache, ServerExchange, Verifier};

const ITERATIONS: NonZeroU32 = NonZeroU32::MIN;

static VERIFIER: LazyLock<Arc<Verifier>> =
    LazyLock::new(|| Arc::new(Verifier::derive(b"secret", b"0123456789abcdef", ITERATIONS)));

#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    /// As the peer sent it.
    None,
    /// One byte made another.
    Byte { at: u16, to: u8 },
    /// Bytes put in.
    Insert { at: u16, bytes: &'a [u8] },
    /// Cut off.
    Cut { at: u16 },
    /// Something else altogether.
    Instead(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    right_password: bool,
    doomed: bool,
    stored: &'a str,
    edits: [Edit<'a>; 4],
    again: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    if let Some(verifier) = Verifier::parse(input.stored) {
        assert!(!verifier.salt.is_empty());
    }
    exchange(&input);
});

fn exchange(input: &Input<'_>) {
    let password: &[u8] = if input.right_password { b"secret" } else { b"wrong" };
    let Ok(mut client) = ClientExchange::new(Credential::password(password)) else { return };
    let verifier = Arc::clone(&VERIFIER);
    let mut server = if input.doomed { ServerExchange::doomed(verifier) } else { ServerExchange::new(verifier) };
    let mut untouched = true;
    let [first, challenge, proof, last] = &input.edits;
    let message = apply(client.client_first(), first, &mut untouched);
    let Ok(message) = server.on_client_first(&message) else {
        assert!(!untouched, "an honest client was refused");
        assert!(server.on_client_final(input.again).is_err(), "goes on after an error");
        return;
    };
    let message = apply(message, challenge, &mut untouched);
    // PBKDF2 costs what the message asks for; that is bounded, but too slow here.
    if asks_for_much(&message) {
        return;
    }
    let mut cache = SaltedCache::new();
    let Ok(message) = client.on_server_first(&message, &mut cache) else {
        assert!(!untouched, "an honest server was refused");
        assert!(client.on_server_final(input.again).is_err(), "goes on after an error");
        return;
    };
    let message = apply(message, proof, &mut untouched);
    let outcome = server.on_client_final(&message);
    let fair = input.right_password && !input.doomed;
    if outcome.is_ok() {
        assert!(fair, "let in without the password");
    }
    let Ok(success) = outcome else {
        assert!(!(fair && untouched), "an honest client was refused");
        // A server that does not know the password cannot say anything that the client believes.
        assert!(client.on_server_final(input.again).is_err(), "a made-up signature was believed");
        return;
    };
    let message = apply(success.server_final.clone(), last, &mut untouched);
    let believed = client.on_server_final(&message).is_ok();
    assert!(believed || !untouched, "an honest server was refused");
    assert!(client.on_server_final(&success.server_final).is_err(), "two ends of one exchange");
    assert!(server.on_client_final(input.again).is_err(), "two ends of one exchange");
}

fn apply(mut message: Vec<u8>, edit: &Edit<'_>, untouched: &mut bool) -> Vec<u8> {
    let before = message.clone();
    let place = |at: u16| usize::from(at) % (before.len() + 1);
    match edit {
        Edit::None => {}
        Edit::Byte { at, to } => {
            if let Some(byte) = message.get_mut(place(*at)) {
                *byte = *to;
            }
        }
        Edit::Insert { at, bytes } => {
            message.splice(place(*at)..place(*at), bytes.iter().copied());
        }
        Edit::Cut { at } => message.truncate(place(*at)),
        Edit::Instead(bytes) => message = bytes.to_vec(),
    }
    *untouched &= message == before;
    message
}

fn asks_for_much(message: &[u8]) -> bool {
    let Some(at) = message.windows(3).rposition(|w| w == b",i=") else { return false };
    message[at + 3..].iter().take_while(|byte| byte.is_ascii_digit()).count() > 3
}
