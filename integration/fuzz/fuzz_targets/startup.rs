//! The first packet of a connection: `wire::startup` on arbitrary bytes.
//! Must never accept what cannot be written again and read back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir::wire::build;
use pgweir::wire::startup::{BadStartup, MAX_PACKET, Packet, Startup, length};

fuzz_target!(|data: &[u8]| {
    // An odd first byte: the rest is the body of a well-framed packet, so that the fuzzer need not
    // learn to count.
    match data.split_first() {
        Some((mode, body)) if mode % 2 == 1 => {
            let mut packet = Vec::new();
            let code: [u8; 4] = match mode % 3 {
                0 => 80_877_102u32.to_be_bytes(),
                1 => [0, 3, 0, mode / 64],
                _ => [0, 3, 0, 0],
            };
            build::untagged(&mut packet, |out| {
                out.extend_from_slice(&code);
                out.extend_from_slice(body);
            });
            check(&packet);
        }
        Some((_, rest)) => check(rest),
        None => check(data),
    }
});

fn check(bytes: &[u8]) {
    // As the gate does it: never more than the packet's own length.
    if let Ok(Some(length)) = length(bytes) {
        assert!((8..=MAX_PACKET).contains(&length), "length {length} is out of bounds");
        if let Some(packet) = bytes.get(..length) {
            whole(packet);
        }
    }
    whole(bytes);
}

fn whole(packet: &[u8]) {
    match Packet::parse(packet) {
        Ok(Packet::Startup(startup)) => read_back(startup),
        Ok(Packet::Cancel { pid, key }) => {
            let mut out = Vec::new();
            build::cancel(&mut out, pid, &key);
            assert_eq!(Packet::parse(&out), Ok(Packet::Cancel { pid, key }));
            assert_eq!(length(&out), Ok(Some(out.len())));
        }
        Ok(Packet::Ssl | Packet::GssEnc) => assert_eq!(packet.len(), 8),
        Err(bad) => assert!(!bad.to_string().is_empty()),
    }
}

fn read_back(startup: Startup) {
    let mut out = Vec::new();
    let pairs: Vec<(&[u8], &[u8])> = startup.parameters.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    build::startup(&mut out, &pairs);
    let again = Packet::parse(&out);
    settings(&startup);
    let Startup { parameters, .. } = startup;
    assert_eq!(again, Ok(Packet::Startup(Startup { parameters, ..Startup::default() })));
    let told = length(&out);
    let expected = if out.len() <= MAX_PACKET { Ok(Some(out.len())) } else { Err(BadStartup::Length) };
    assert_eq!(told, expected);
}

fn settings(startup: &Startup) {
    let Ok(settings) = startup.settings() else { return };
    for (name, value) in &settings {
        assert!(!name.is_empty(), "a setting without a name");
        assert!(!name.iter().any(u8::is_ascii_uppercase), "a name not in lower case");
        assert!(!name.contains(&0) && !value.contains(&0), "a zero byte in a string");
    }
    assert!(settings.windows(2).all(|pair| pair[0].0 < pair[1].0), "settings not sorted, or one twice");
}
