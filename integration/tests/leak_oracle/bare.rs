//! A client of the bare protocol for the leak oracle.
//! It must never send the same marker twice.

use integration::wire::{Frame, Script, Wire};
use integration::{DATABASE, PASSWORD, USER};

/// A pipeline's unit: what to send up to one Sync (or a Query), and what must come back.
struct Step {
    script: Script,
    expected: Expected,
}

enum Expected {
    /// Rows of one text column, in order.
    Rows(Vec<String>),
    /// An error with this SQLSTATE whose message holds this text.
    Error(&'static str, String),
    /// A command tag.
    Done(String),
}

/// A client of the bare protocol.
pub struct Bare {
    name: String,
    wire: Wire,
    next: u64,
    random: u64,
    checked: u64,
}

impl Bare {
    /// Logs in.
    pub fn new(number: usize, port: u16) -> Self {
        let wire = Wire::connect(port, USER, DATABASE, PASSWORD).unwrap();
        let random = 0x9e37_79b9_7f4a_7c15 ^ ((number as u64) << 32 | 1);
        Self { name: format!("bare-{number}"), wire, next: 0, random, checked: 0 }
    }

    /// One that asks one thing at a time from then on, as most applications do: its reads share servers with others'.
    pub fn alone(number: usize, port: u16) -> Self {
        let mut this = Self::new(number, port);
        let named = format!("SELECT '{} got ' || $1::text", this.name);
        this.ask(&Script::new().parse("", "SELECT 1").sync(), &Expected::Done(String::new()));
        this.ask(&Script::new().parse("s", &named).sync(), &Expected::Done(String::new()));
        this
    }

    /// Asks one thing, and checks the answer.
    pub fn turn_alone(&mut self) {
        let mark = self.marker();
        let script = Script::new();
        let step = match self.draw(4) {
            0 => {
                let rows = Expected::Rows(vec![format!("{} got {mark}", self.name)]);
                Step { script: script.bind("", "s", &[Some(&mark)]).execute("", 0).sync(), expected: rows }
            }
            // Somebody locks the table now and then; what has stalled once shares no server for a while, so there are several.
            1 => {
                let name = self.draw(4);
                let sql = format!("SELECT '{mark}:' || count(*) FROM seen s{name} WHERE owner = '{mark}'");
                Step { script: script.query(&sql), expected: Expected::Rows(vec![format!("{mark}:0")]) }
            }
            _ => self.step(),
        };
        self.ask(&step.script, &step.expected);
    }

    /// Says goodbye; how many answers were checked.
    pub fn leave(mut self) -> u64 {
        self.wire.send(&Script::new().terminate()).unwrap();
        self.checked
    }

    fn marker(&mut self) -> String {
        self.next += 1;
        format!("{}/{}", self.name, self.next)
    }

    /// xorshift64, Marsaglia 2003.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    /// Sends one to twelve steps in one write, then checks every answer.
    pub fn turn(&mut self) {
        let steps: Vec<Step> = (0..=self.draw(12)).map(|_| self.step()).collect();
        let all = steps.iter().fold(Script::new(), |all, step| all.append(&step.script));
        self.wire.send(&all).unwrap();
        for step in &steps {
            let frames = self.wire.read_until_ready().unwrap();
            check(&self.name, &step.expected, &frames);
            self.checked += 1;
        }
        match self.draw(8) {
            0 => self.transaction(),
            1 => self.copy(),
            2 => self.portal(),
            _ => {}
        }
    }

    fn step(&mut self) -> Step {
        let mark = self.marker();
        let kind = self.draw(7);
        // Same name in every client, another text in each.
        let named = format!("SELECT '{} got ' || $1::text", self.name);
        let script = Script::new();
        let (script, expected) = match kind {
            0 => (script.query(&format!("SELECT '{mark}'")), Expected::Rows(vec![mark])),
            1 => {
                let sql = format!("SELECT '{mark}:' || i FROM generate_series(1, 40) i");
                (script.query(&sql), Expected::Rows((1..=40).map(|i| format!("{mark}:{i}")).collect()))
            }
            2 => {
                let script = script.parse("", "SELECT $1::text").bind("", "", &[Some(&mark)]).describe(b'P', "");
                (script.execute("", 0).sync(), Expected::Rows(vec![mark]))
            }
            3 => {
                let script = script.close(b'S', "s").parse("s", &named).bind("", "s", &[Some(&mark)]);
                let rows = Expected::Rows(vec![format!("{} got {mark}", self.name)]);
                (script.execute("", 0).sync(), rows)
            }
            4 => {
                let script = script.close(b'S', "s").parse("s", &named).describe(b'S', "s").sync();
                return Step { script, expected: Expected::Done(String::new()) };
            }
            5 => (script.query(&format!("SELECT \"{mark}\"")), Expected::Error("42703", mark)),
            _ => {
                let script = script.parse("", "SELECT $1::text::int").bind("", "", &[Some(&mark)]).execute("", 0);
                // What follows the error up to the Sync is to be skipped.
                (script.bind("", "none", &[]).execute("", 0).sync(), Expected::Error("22P02", mark))
            }
        };
        Step { script, expected }
    }

    fn ask(&mut self, script: &Script, expected: &Expected) {
        self.wire.send(script).unwrap();
        let frames = self.wire.read_until_ready().unwrap();
        check(&self.name, expected, &frames);
        self.checked += 1;
    }

    /// Rows of an open transaction are seen by its owner, and by nobody after the rollback.
    fn transaction(&mut self) {
        let n = self.next;
        let mark = self.marker();
        let count = format!("SELECT count(*)::text FROM seen WHERE owner = '{mark}'");
        self.ask(&Script::new().query("BEGIN"), &Expected::Done("BEGIN".into()));
        let insert = format!("INSERT INTO seen VALUES ('{mark}', {n})");
        self.ask(&Script::new().query(&insert), &Expected::Done("INSERT 0 1".into()));
        self.ask(&Script::new().query(&count), &Expected::Rows(vec!["1".into()]));
        if n.is_multiple_of(3) {
            self.ask(&Script::new().query(&format!("SELECT \"{mark}\"")), &Expected::Error("42703", mark.clone()));
            self.ask(&Script::new().query("SELECT 1"), &Expected::Error("25P02", String::new()));
        }
        self.ask(&Script::new().query("ROLLBACK"), &Expected::Done("ROLLBACK".into()));
        self.ask(&Script::new().query(&count), &Expected::Rows(vec!["0".into()]));
    }

    /// COPY in and out inside one transaction, then rolled back.
    fn copy(&mut self) {
        let mark = self.marker();
        self.ask(&Script::new().query("BEGIN"), &Expected::Done("BEGIN".into()));
        let rows: String = (0..50).map(|n| format!("{mark}\t{n}\n")).collect();
        let start = Script::new().query("COPY seen FROM STDIN");
        self.ask(&start.copy_data(rows.as_bytes()).copy_done(), &Expected::Done("COPY 50".into()));
        let out = format!("COPY (SELECT owner, n FROM seen WHERE owner = '{mark}' ORDER BY n) TO STDOUT");
        self.wire.send(&Script::new().query(&out)).unwrap();
        let frames = self.wire.read_until_ready().unwrap();
        let data: Vec<u8> =
            frames.iter().filter(|frame| frame.tag == b'd').flat_map(|frame| frame.body.clone()).collect();
        assert_eq!(String::from_utf8(data).unwrap(), rows, "{}", self.name);
        self.ask(&Script::new().query("ROLLBACK"), &Expected::Done("ROLLBACK".into()));
        let abandoned = Script::new().query("COPY seen FROM STDIN").copy_data(b"x\t1\n").copy_fail(&mark);
        self.ask(&abandoned, &Expected::Error("57014", mark));
    }

    /// A portal read in pieces over several flushes, which keeps the server until the Sync.
    fn portal(&mut self) {
        let mark = self.marker();
        let sql = format!("SELECT '{mark}:' || i FROM generate_series(1, 9) i");
        let open = Script::new().parse("", &sql).bind("p", "", &[]).execute("p", 4).flush();
        self.wire.send(&open).unwrap();
        let mut rows = Vec::new();
        loop {
            let frame = self.wire.read().unwrap();
            match frame.tag {
                b'D' => rows.push(first(&frame)),
                b's' => self.wire.send(&Script::new().execute("p", 4).flush()).unwrap(),
                b'C' => break,
                b'1' | b'2' => {}
                tag => panic!("{}: unexpected {:?}", self.name, char::from(tag)),
            }
        }
        assert_eq!(rows, (1..=9).map(|i| format!("{mark}:{i}")).collect::<Vec<_>>());
        self.ask(&Script::new().sync(), &Expected::Done(String::new()));
    }
}

fn first(frame: &Frame) -> String {
    String::from_utf8(frame.row().swap_remove(0).unwrap_or_default()).unwrap()
}

fn check(name: &str, expected: &Expected, frames: &[Frame]) {
    let error = frames.iter().find(|frame| frame.tag == b'E');
    let rows: Vec<String> = frames.iter().filter(|frame| frame.tag == b'D').map(first).collect();
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    let name = format!("{name}, messages {tags}");
    let told = error.map(|frame| format!("{:?} {:?}", frame.field(b'C'), frame.field(b'M')));
    match expected {
        Expected::Rows(wanted) => assert_eq!((wanted, &None), (&rows, &told), "{name}"),
        Expected::Done(wanted) => {
            let command = frames.iter().find_map(Frame::command).unwrap_or_default();
            assert_eq!((wanted, &None, 0), (&command, &told, rows.len()), "{name}");
        }
        Expected::Error(state, text) => {
            let error = error.unwrap_or_else(|| panic!("{name}: no error {state} but {rows:?}"));
            assert_eq!(error.field(b'C').as_deref(), Some(*state), "{name}: {told:?}");
            assert!(error.field(b'M').is_some_and(|message| message.contains(text)), "{name}: {told:?} without {text}");
        }
    }
}
