//! The end of a client's batch: `flow::requests` on arbitrary bytes.
//! Must never accept a batch that is not all there, or that more bytes would change.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use pgweir::flow::requests::{Batch, End, batch};
use pgweir::wire::frame::Header;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    limit: u16,
    max_message: u16,
    cut: u16,
    framed: Vec<(u8, &'a [u8])>,
    raw: &'a [u8],
}

const TAGS: &[u8] = b"QPBDECSHFdcfX";

fuzz_target!(|input: Input<'_>| {
    let (limit, max_message) = (usize::from(input.limit), usize::from(input.max_message).max(5));
    let mut bytes = Vec::new();
    for (tag, body) in &input.framed {
        pgweir::wire::build::message(&mut bytes, TAGS[usize::from(*tag) % TAGS.len()], |out| {
            out.extend_from_slice(body);
        });
    }
    bytes.extend_from_slice(input.raw);
    let all = batch(&bytes, limit, max_message);
    let cut = usize::from(input.cut) % (bytes.len() + 1);
    let front = batch(&bytes[..cut], limit, max_message);
    match front {
        // What is known does not change when more comes.
        Ok(Batch::Incomplete) => {}
        known => assert_eq!(known, all, "{cut} bytes said one thing, {} another", bytes.len()),
    }
    if let Ok(Batch::Whole { len, end }) = all {
        assert!(len <= bytes.len() && len <= limit, "a batch of {len} of {} bytes", bytes.len());
        if cut < len {
            assert_eq!(front, Ok(Batch::Incomplete));
        }
        let last = walk(&bytes[..len], max_message);
        let expected = match end {
            End::Query => b'Q',
            End::Call => b'F',
            End::Sync => b'S',
            End::Flush => b'H',
        };
        assert_eq!(last, expected);
    }
});

/// Steps over whole messages that fill `bytes` exactly; the type of the last.
fn walk(bytes: &[u8], max_message: usize) -> u8 {
    let (mut at, mut last) = (0, 0);
    while at < bytes.len() {
        let header = Header::peek(&bytes[at..], max_message).expect("bounded").expect("whole");
        assert!(!b"SHQF".contains(&last), "a batch goes on behind its end");
        last = header.tag;
        at += header.total;
    }
    assert_eq!(at, bytes.len(), "a batch ends inside a message");
    last
}
