//! What two sessions may say differently, and whether they said the same beyond that.
//! It must never replace more than a name or a number that PostgreSQL draws anew for each session.

use std::collections::HashMap;
use std::fmt::Write as _;

use integration::wire::Frame;

use crate::player::Record;

/// Objects made by users have numbers from here on (`FirstNormalObjectId`, access/transam.h).
const FIRST_NORMAL: u32 = 16_384;

/// How the text begins when PostgreSQL did not answer a step.
pub const SILENT: &str = "PostgreSQL itself is silent";

/// The first difference of two sessions.
pub fn difference(direct: &Record, pooled: &Record) -> Option<String> {
    if let Some(step) = direct.silent {
        return Some(format!("{SILENT} in step {step}: the program is wrong\n{}", show(&direct.steps[step])));
    }
    let (mut left, mut right) = (Normal::default(), Normal::default());
    if login(&direct.login) != login(&pooled.login) {
        return Some(differs("the login", &login(&direct.login), &login(&pooled.login)));
    }
    let mut was_failed = false;
    for (at, wanted) in direct.steps.iter().enumerate() {
        let none = Vec::new();
        let (wanted, mut got) = (left.all(wanted), right.all(pooled.steps.get(at).unwrap_or(&none)));
        failed_anyway(&mut was_failed, &wanted, &mut got);
        if wanted != got {
            let silent = if pooled.silent == Some(at) { " (and then silence)" } else { "" };
            return Some(differs(&format!("step {at}{silent}"), &wanted, &got));
        }
    }
    let (wanted, got) = (left.all(&direct.farewell), right.all(&pooled.farewell));
    (wanted != got).then(|| differs("the farewell", &wanted, &got))
}

/// The login's messages in any order, without the key and the negotiation: PostgreSQL before 18 knows 3.0 only.
fn login(frames: &[Frame]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = frames.iter().filter(|frame| !matches!(frame.tag, b'K' | b'v')).cloned().collect();
    frames.sort_by(|a, b| (a.tag, &a.body).cmp(&(b.tag, &b.body)));
    frames
}

/// Numbers of one session's objects, in the order in which it saw them.
#[derive(Default)]
struct Normal(HashMap<u32, u32>);

impl Normal {
    fn all(&mut self, frames: &[Frame]) -> Vec<Frame> {
        let mut frames: Vec<Frame> = frames.iter().map(|frame| self.frame(frame)).collect();
        sort_reports(&mut frames);
        frames
    }

    fn frame(&mut self, frame: &Frame) -> Frame {
        let mut body = frame.body.clone();
        match frame.tag {
            b'T' => self.row_description(&mut body),
            // The process that notified.
            b'A' => body[..4].fill(0),
            b'E' | b'N' => body = unnamed(&body),
            _ => {}
        }
        Frame { tag: frame.tag, body }
    }

    /// Every table is numbered anew.
    fn row_description(&mut self, body: &mut [u8]) {
        let mut at = 2;
        while let Some(end) = body[at..].iter().position(|&byte| byte == 0) {
            at += end + 1;
            let oid = u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            if oid >= FIRST_NORMAL {
                let count = self.0.len() as u32;
                let number = *self.0.entry(oid).or_insert(count);
                body[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            at += 18;
            if at >= body.len() {
                break;
            }
        }
    }
}

/// Several settings reported at once come in the order of a hash table that differs from session to session.
fn sort_reports(frames: &mut [Frame]) {
    for run in frames.chunk_by_mut(|a, b| a.tag == b'S' && b.tag == b'S') {
        run.sort_by(|a, b| a.body.cmp(&b.body));
    }
}

/// In a transaction that has failed already a message about a statement that this server lacks fails for the Parse in front of it,
/// with 25P02, where PostgreSQL alone may find another error first or describe a command without rows. Both sides refuse and the
/// transaction stays failed, so such a batch counts as the same.
fn failed_anyway(was_failed: &mut bool, wanted: &[Frame], got: &mut Vec<Frame>) {
    let is_ready = |frame: &Frame| frame.tag == b'Z';
    let batches = wanted.split_inclusive(is_ready).zip(got.split_inclusive(is_ready));
    let mut all = Vec::new();
    for (left, right) in batches {
        let fails = |batch: &[Frame]| batch.last().is_some_and(|frame| is_ready(frame) && frame.body == b"E");
        let refused = right.iter().any(|frame| frame.tag == b'E' && frame.field(b'C').as_deref() == Some("25P02"));
        let same = *was_failed && fails(left) && fails(right) && refused;
        all.extend_from_slice(if same { left } else { right });
        *was_failed = fails(left);
    }
    if wanted.iter().filter(|frame| is_ready(frame)).count() == got.iter().filter(|frame| is_ready(frame)).count() {
        *got = all;
    }
}

/// An error without its place in PostgreSQL's source (a statement may fail in Parse instead of Bind), and with the names of prepared
/// statements replaced: pgweir's own differ from what they stand for.
fn unnamed(body: &[u8]) -> Vec<u8> {
    let fields = body.split(|&byte| byte == 0).filter(|field| !matches!(field.first(), Some(b'F' | b'L' | b'R')));
    let text = fields.map(String::from_utf8_lossy).collect::<Vec<_>>().join("\0");
    let text = text.replace("unnamed prepared statement does", "prepared statement \"\" does");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("prepared statement \"") {
        let Some((_, behind)) = after.split_once('"') else { break };
        let _ = write!(out, "{before}prepared statement ?");
        rest = behind;
    }
    out.push_str(rest);
    out.into_bytes()
}

fn differs(what: &str, wanted: &[Frame], got: &[Frame]) -> String {
    format!("{what} differs\n  PostgreSQL: {}\n  pgweir:     {}", show(wanted), show(got))
}

/// Frames, readable and not too long.
fn show(frames: &[Frame]) -> String {
    let mut text = String::new();
    for frame in frames {
        let body: String = String::from_utf8_lossy(&frame.body).chars().take(100).collect();
        let _ = write!(text, "{}[{}] ", char::from(frame.tag), body.escape_debug());
    }
    text
}
