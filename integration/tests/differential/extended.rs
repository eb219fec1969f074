//! The extended protocol's part of a random program.
//! It must never leave a batch open: what follows is written as if it began a new one.

use integration::wire::Script;

use crate::dice::Dice;
use crate::program::{Author, Mode, Part, Step, fill};

const NAMES: &[&str] = &["", "a", "b", "c", "a longer name"];
const PORTALS: &[&str] = &["", "p", "q"];
/// Statements with the number of their parameters.
const TEXTS: &[(&str, usize)] = &[
    ("SELECT 1", 0),
    ("SELECT $1::text, $2::int", 2),
    ("SELECT i FROM generate_series(1, 12) i", 0),
    ("SELECT * FROM $t WHERE id >= $1 ORDER BY id", 1),
    ("INSERT INTO $t VALUES ($1, $2) ON CONFLICT DO NOTHING", 2),
    ("UPDATE $t SET s = $1 WHERE id = 11 RETURNING *", 1),
    ("SELECT 1 / $1::int", 1),
    ("", 0),
    ("SELECT repeat('r', 5000) FROM generate_series(1, 30)", 0),
    ("SELECT nosuch", 0),
    ("SELEC", 0),
    ("SELECT 1; SELECT 2", 0),
    ("SHOW work_mem", 0),
    ("SELECT $1::bytea, $2::text", 2),
];
const VALUES: &[Option<&str>] = &[Some("11"), Some("0"), Some("text"), None, Some("")];

/// A batch, or several, with Sync at the end.
pub fn unit(author: &mut Author) {
    match author.dice.roll(12) {
        0 if author.mode != Mode::Statement => portals(author),
        1 => copy(author),
        2 => flushed(author),
        3 => pipeline(author),
        _ => {
            let step = Step::of(batch(author));
            author.add(step);
        }
    }
}

/// Some messages and a Sync.
fn batch(author: &mut Author) -> Vec<Part> {
    let mut parts = Vec::new();
    for _ in 0..1 + author.dice.roll(4) {
        let (script, about) = messages(author);
        parts.push(Part { script, ready: 0, about });
    }
    parts.push(Part { script: Script::new().sync(), ready: 1, about: "S".into() });
    parts
}

fn messages(author: &mut Author) -> (Script, String) {
    let table = author.table;
    let open = author.open;
    let dice = &mut *author.dice;
    let portal = dice.pick(PORTALS);
    let name = dice.pick(NAMES);
    let (text, count) = text(dice, open);
    let sql = fill(text, table);
    let limit = [0, 0, 0, 3][dice.roll(4)];
    let script = Script::new();
    let kind = dice.roll(12);
    match kind {
        // PostgreSQL 15 itself may crash when a portal is executed in a transaction that has failed.
        3 | 6 if open => (script.close(b'P', portal), format!("[C P {portal:?}] ")),
        // Names are closed first half of the time: a second Parse of a name is an error.
        0 => (script.parse(name, &sql), format!("[P {name:?} {sql}] ")),
        1 => (script.close(b'S', name).parse(name, &sql), format!("[C P {name:?} {sql}] ")),
        2 => (script.describe(b'S', name), format!("[D S {name:?}] ")),
        3 => (script.describe(b'P', portal), format!("[D P {portal:?}] ")),
        4 => (script.close(b'S', name), format!("[C S {name:?}] ")),
        5 => (script.close(b'P', portal), format!("[C P {portal:?}] ")),
        6 => (script.execute(portal, limit), format!("[E {portal:?} {limit}] ")),
        7 => (bind(dice, script, portal, name, count), format!("[B {portal:?} {name:?} {count}] ")),
        8 => {
            let script = bind(dice, script, portal, name, count).execute(portal, limit);
            (script, format!("[B E {portal:?} {name:?} {count} {limit}] "))
        }
        9 | 10 => {
            let script = bind(dice, script.parse("", &sql), "", "", count).describe(b'P', "").execute("", limit);
            (script, format!("[P B D E {sql} {limit}] "))
        }
        _ => {
            let script =
                bind(dice, script.close(b'S', name).parse(name, &sql).describe(b'S', name), portal, name, count);
            (script.execute(portal, limit), format!("[C P D B E {name:?} {portal:?} {sql} {limit}] "))
        }
    }
}

/// A statement's text and the number of its parameters. PostgreSQL 15 itself crashes now and then on an empty one in a failed
/// transaction (it looks up the search path there).
fn text(dice: &mut Dice, open: bool) -> (&'static str, usize) {
    let (text, count) = TEXTS[dice.roll(TEXTS.len())];
    if open && text.is_empty() { TEXTS[0] } else { (text, count) }
}

/// Bind of `count` random values (now and then one too many), with text or binary results.
fn bind(dice: &mut Dice, script: Script, portal: &str, name: &str, count: usize) -> Script {
    let count = count + usize::from(dice.once_in(12));
    let values: Vec<Option<&str>> = (0..count).map(|_| VALUES[dice.roll(VALUES.len())]).collect();
    if !dice.once_in(4) {
        return script.bind(portal, name, &values);
    }
    let mut body = [portal.as_bytes(), b"\0", name.as_bytes(), b"\0\0\0"].concat();
    body.extend_from_slice(&(count as u16).to_be_bytes());
    for value in values {
        body.extend_from_slice(&value.map_or(-1, |text| text.len() as i32).to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default().as_bytes());
    }
    body.extend_from_slice(&[0, 1, 0, 1]);
    script.raw(b'B', &body)
}

/// Many batches in one write.
fn pipeline(author: &mut Author) {
    let count = 2 + author.dice.roll(8);
    let batches = (0..count).flat_map(|_| batch(author)).collect();
    author.add(Step::of(batches));
}

/// A portal read in pieces over several Syncs inside a transaction.
fn portals(author: &mut Author) {
    let begin = !author.open;
    if begin {
        author.add(Step::query("BEGIN"));
        author.open = true;
    }
    let open = Script::new().parse("", "SELECT i, 'p' || i FROM generate_series(1, 10) i").bind("p", "", &[]);
    author.add(Step::new("[P B E p 3] S", open.execute("p", 3).sync(), 1));
    for _ in 0..author.dice.roll(5) {
        if author.dice.once_in(3) {
            let step = Step::of(batch(author));
            author.add(step);
        }
        author.add(Step::new("[E p 4] S", Script::new().execute("p", 4).sync(), 1));
    }
    author.add(Step::new("[C P p] S", Script::new().close(b'P', "p").sync(), 1));
    if begin {
        let end = if author.dice.once_in(2) { "COMMIT" } else { "ROLLBACK" };
        author.add(Step::query(end));
        author.open = false;
    }
}

/// Parts that are answered before the Sync.
fn flushed(author: &mut Author) {
    let (name, count) = (author.dice.pick(NAMES), author.dice.roll(4));
    let (text, parameters) = text(author.dice, author.open);
    let sql = fill(text, author.table);
    // Replies: CloseComplete, ParseComplete, and RowDescription or NoData.
    let open = Script::new().close(b'S', name).parse(name, &sql).describe(b'S', name).flush();
    author.add(Step::flush(format!("[C P D {name:?} {sql}] H"), open, 3));
    for _ in 0..count {
        let script = bind(author.dice, Script::new(), "", name, parameters).execute("", 0).flush();
        author.add(Step::flush(format!("[B E {name:?}] H"), script, 2));
    }
    author.add(Step::new("S", Script::new().sync(), 1));
}

/// COPY through Execute, both ways.
fn copy(author: &mut Author) {
    let table = author.table;
    let open = |sql: &str| Script::new().parse("", &fill(sql, table)).bind("", "", &[]).execute("", 0);
    let (about, script, ready) = match author.dice.roll(5) {
        0 => ("copy out by Execute", open("COPY (TABLE $t ORDER BY id) TO STDOUT").sync(), 1),
        1 => {
            let script = open("COPY $t FROM STDIN").copy_data(b"400\ta\n").copy_data(b"401\tb\n").copy_done();
            ("copy in by Execute", script.sync(), 1)
        }
        2 => {
            let script = open("COPY $t FROM STDIN").copy_data(b"402\ta\n").copy_fail("no more").sync();
            ("copy in by Execute and fail", script, 1)
        }
        3 => {
            let script = open("COPY $t FROM STDIN").copy_data(b"nonsense\n").copy_data(b"403\tb\n").copy_done().sync();
            ("copy in of nonsense by Execute", script, 1)
        }
        _ => {
            let script = open("COPY $t FROM STDIN").flush().copy_data(b"404\ta\n").copy_done().execute("", 0).sync();
            ("copy in by Execute, executed again", script, 1)
        }
    };
    // Else a later batch that executes the unnamed statement would wait for a COPY that nobody feeds.
    author.add(Step::new(about, script.close(b'S', "").sync(), ready + 1));
}
