//! Sends a batch and tells what came as lines that two servers can be compared by.
//! It must never leave anything out that a client could tell apart, but what is said here.

use std::time::Duration;

use integration::wire::{Frame, Script};

use crate::common::Client;
use crate::common::client::said;
use crate::dice::Dice;
use crate::program::{Batch, Message};

/// No answer takes longer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What a client hears when it has to wait.
const WAITS: &str = "no server connection is free yet; your request waits";

/// What is sent, cut where an answer is awaited.
pub fn script(messages: &[Message], number: usize) -> Vec<Vec<u8>> {
    let mut parts = vec![Script::new()];
    for message in messages {
        let last = parts.pop().unwrap_or_default();
        let filled = |sql: &str| sql.replace('#', &number.to_string());
        let last = match message {
            Message::Query(sql) => last.query(&filled(sql)),
            Message::Run { sql, values, rows } => {
                let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
                last.parse("", &filled(sql)).bind("", "", &values).describe(b'P', "").execute("", *rows)
            }
            Message::Again => last.execute("", 0),
            Message::Parse { name, sql } => last.parse(name, sql),
            Message::Use { name, values } => {
                let values: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
                last.bind("", name, &values).execute("", 0)
            }
            Message::Close { name } => last.close(b'S', name),
            Message::Sync => last.sync(),
            Message::Data(lines) => last.copy_data(lines.as_bytes()).copy_done(),
            Message::Await => {
                parts.push(last.flush());
                Script::new()
            }
        };
        parts.push(last);
    }
    parts.iter().map(|part| part.bytes().to_vec()).collect()
}

/// What a client hears that has sent a batch.
pub struct Answer {
    pub lines: Vec<String>,
    ended: bool,
}

/// Called when a client is told that it waits for a server, and once it has been: another may have to give one up.
pub type Waits<'a> = &'a mut dyn FnMut(&Client) -> Result<(), String>;

/// Sends a batch and reads all answers.
pub fn exchange(client: &mut Client, batch: &Batch, number: usize) -> Vec<String> {
    let [lines] = exchange_all([client], batch, number, &mut |_| Ok(())).unwrap_or_else(|error| [vec![error]]);
    lines
}

/// Sends a batch to several, to all before any has answered, and reads all answers.
pub fn exchange_all<const N: usize>(
    mut clients: [&mut Client; N],
    batch: &Batch,
    number: usize,
    waits: Waits<'_>,
) -> Result<[Vec<String>; N], String> {
    let parts = script(&batch.messages, number);
    let mut answers = [(); N].map(|()| Answer { lines: Vec::new(), ended: false });
    let last = parts.len() - 1;
    for (n, part) in parts.iter().enumerate() {
        for (client, _) in clients.iter_mut().zip(&answers).filter(|(_, answer)| !answer.ended) {
            let Some(seed) = batch.cuts else {
                client.write(part);
                continue;
            };
            cut(&mut Dice::new(seed + n as u64), part).for_each(|piece| {
                client.write(piece);
                // So that the other side may well have read it before the next.
                std::thread::sleep(Duration::from_micros(200));
            });
        }
        let ready = tags(part).filter(|tag| matches!(tag, b'S' | b'Q')).count();
        let until = if n == last { Until::Ready(ready) } else { Until::Done(ready) };
        for (client, answer) in clients.iter_mut().zip(&mut answers).filter(|(_, answer)| !answer.ended) {
            // Behind an error nothing comes until Sync.
            if matches!(until, Until::Done(0)) && answer.has_failed() {
                continue;
            }
            answer.ended = !read(client, &mut answer.lines, until, waits)?;
        }
    }
    Ok(answers.map(|answer| answer.lines))
}

impl Answer {
    fn has_failed(&self) -> bool {
        self.lines.iter().rev().take_while(|line| !line.starts_with('Z')).any(|line| line.starts_with('E'))
    }
}

#[derive(Clone, Copy)]
enum Until {
    /// So many ReadyForQuery.
    Ready(usize),
    /// So many of them, then the end of what one Execute says.
    Done(usize),
}

/// False when the connection has ended, or nothing more comes.
fn read(client: &mut Client, lines: &mut Vec<String>, until: Until, waits: Waits<'_>) -> Result<bool, String> {
    let (mut ready, done) = match until {
        Until::Ready(count) => (count, true),
        Until::Done(count) => (count, false),
    };
    loop {
        if ready == 0 && done {
            return Ok(true);
        }
        match client.read_in_time() {
            Ok(Some(frame)) if frame.tag == b'N' && said(&frame).ends_with(WAITS) => {
                waits(client)?;
                client.patience(PATIENCE);
            }
            Ok(Some(frame)) => {
                lines.extend(line(&frame, &client.key));
                match frame.tag {
                    b'Z' => ready -= 1,
                    b'C' | b'E' | b'I' | b's' if ready == 0 => return Ok(true),
                    _ => {}
                }
            }
            Ok(None) => {
                lines.push("the end".into());
                return Ok(false);
            }
            Err(_) => {
                lines.push("silence".into());
                return Ok(false);
            }
        }
    }
}

/// The tags of the messages in these bytes.
fn tags(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (head, _) = rest.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        rest = &rest[1 + length..];
        Some(head[0])
    })
}

fn cut<'a>(dice: &mut Dice, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut places: Vec<usize> = (0..1 + dice.roll(4)).map(|_| dice.roll(bytes.len().max(1))).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    let pieces: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
    pieces.into_iter().filter(|piece| !piece.is_empty())
}

/// An error or notice.
pub fn error_text(frame: &Frame) -> String {
    let field = |code: u8| frame.field(code).unwrap_or_default();
    let more: String = [b'D', b'H', b'P', b'W']
        .into_iter()
        .filter_map(|code| {
            Some(format!(" [{} {}]", char::from(code), frame.field(code).filter(|text| !text.starts_with("pgweir: "))?))
        })
        .collect();
    // Two clusters do not count alike, nor take the same time; and a temporary schema, once made, stays in its server, which changes what a role hears
    // that may have none.
    let message = field(b'M');
    let message = match message.as_str() {
        took if took.starts_with("duration: ") => "duration",
        oid if oid.starts_with("invalid role OID") => "invalid role OID",
        none if none.starts_with("permission denied for schema pg_temp_") => "no temporary tables",
        none if none.starts_with("permission denied to create temporary tables") => "no temporary tables",
        message => message,
    };
    format!("{} {} {}{more} {message}", char::from(frame.tag), field(b'V'), field(b'C'))
}

/// A frame as a client sees it: without where in PostgreSQL's source an error was raised, and without parameters, which are
/// compared by their last values.
fn line(frame: &Frame, key: &[u8]) -> Option<String> {
    Some(match frame.tag {
        b'S' => return None,
        b'A' => heard(frame, key),
        b'E' | b'N' => error_text(frame),
        b'Z' => format!("Z {}", frame.body.escape_ascii()),
        b'D' => {
            let value = |value: Option<Vec<u8>>| value.map_or("NULL".into(), |value| value.escape_ascii().to_string());
            format!("D {}", frame.row().into_iter().map(value).collect::<Vec<_>>().join(" | "))
        }
        b'T' => format!("T {} bytes", frame.body.len()),
        tag => format!("{} {}", char::from(tag), frame.body.escape_ascii()),
    })
}

/// A notification, as a line that begins with `A`: a process id says whether it is the client's own, unless code has sent it.
fn heard(frame: &Frame, key: &[u8]) -> String {
    let (pid, text) = frame.body.split_at(4.min(frame.body.len()));
    let text = text.escape_ascii().to_string();
    let who = if text.contains("code") { "code" } else { ["other", "own"][usize::from(key.starts_with(pid))] };
    format!("A {who} {text}")
}

/// Reads notifications that are still on their way, until `enough` or nothing comes for `limit`.
pub fn hear(client: &mut Client, into: &mut Vec<String>, limit: Duration, enough: impl Fn(&[String]) -> bool) {
    while !enough(into) && client.speaks_within(limit) {
        client.patience(PATIENCE);
        match client.read_in_time() {
            Ok(Some(frame)) => into.extend(line(&frame, &client.key)),
            Ok(None) | Err(_) => return into.push("the end".into()),
        }
    }
    client.patience(PATIENCE);
}

/// The lines that differ, and what surrounds them.
pub fn difference(pooled: &[String], direct: &[String]) -> String {
    let same = pooled.iter().zip(direct).take_while(|(one, other)| one == other).count();
    let show = |lines: &[String]| {
        let from = lines.iter().skip(same).take(4).map(|line| format!("\n    {line}")).collect::<String>();
        if from.is_empty() { "\n    nothing".into() } else { from }
    };
    let columns = pooled.get(same).zip(direct.get(same)).map_or(String::new(), |(one, other)| {
        let pairs = one.split(" | ").zip(other.split(" | ")).enumerate();
        let differs = pairs.filter(|(_, (one, other))| one != other);
        differs.map(|(n, (one, other))| format!("\n  column {n}: {one:?} and {other:?}")).collect()
    });
    format!("  pooled, behind {same} lines that are the same:{}\n  direct:{}{columns}", show(pooled), show(direct))
}
