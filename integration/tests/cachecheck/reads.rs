//! What a register is read by, and what of it that shows.
//! It must never read what hangs on more than one register: what is right then is hard to say.

use crate::dice::Dice;
use crate::model::{Kind, Register, Shows, Writers};
use crate::tables::WHOSE;

/// A read of one row.
#[derive(Debug, Clone)]
pub struct Read {
    /// With `$1` where the row's number belongs.
    pub sql: String,
    pub shows: Shows,
    /// It must be refused.
    pub forbidden: bool,
    /// As a simple query alone: its columns change, or a plan would keep what it says.
    pub simple: bool,
    /// What has to come first in the search path.
    pub path: Option<&'static str>,
}

impl Read {
    fn of(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), shows: Shows::Value, forbidden: false, simple: false, path: None }
    }

    fn shows(mut self, shows: Shows) -> Self {
        self.shows = shows;
        self
    }

    fn simple(mut self) -> Self {
        self.simple = true;
        self
    }

    fn path(mut self, schema: &'static str) -> Self {
        self.path = Some(schema);
        self
    }
}

/// A read of it by this role. `None`: this role reads another register where it would read this one.
pub fn read(register: &Register, role: &str, dice: &mut Dice) -> Option<Read> {
    let n = register.group;
    let of = |ways: &[Read], dice: &mut Dice| Some(ways[dice.below(ways.len())].clone());
    let read = match register.kind {
        Kind::Plain => of(
            &[
                Read::of(format!("SELECT v FROM plain{n} WHERE id = $1")),
                Read::of(format!("SELECT v FROM mirror{n} WHERE id = $1")),
                Read::of(format!("SELECT v FROM both{n} WHERE id = $1")),
                Read::of(format!("SELECT looks{n}($1)")).shows(Shows::Link).simple(),
                Read::of(format!("WITH p AS (SELECT * FROM plain{n}) SELECT (SELECT v FROM p WHERE id = $1)"))
                    .shows(Shows::Link),
                Read::of(format!("SELECT max(p.v) FROM plain{n} p, mirror{n} m WHERE p.id = $1 AND m.v = p.v"))
                    .shows(Shows::Link),
            ],
            dice,
        ),
        Kind::Part => of(
            &[
                Read::of(format!("SELECT v FROM part{n} WHERE id = $1")),
                Read::of(format!("SELECT v FROM part{n}_l WHERE id = $1")).shows(Shows::Side(false)),
                Read::of(format!(
                    "SELECT v FROM part{n}_r WHERE id = $1 UNION ALL SELECT v FROM part{n}_l WHERE id = $1"
                )),
                Read::of(format!("SELECT v FROM part{n}_r WHERE id = $1")).shows(Shows::Side(true)),
            ],
            dice,
        ),
        Kind::Family => of(
            &[
                Read::of(format!("SELECT code FROM child{n} WHERE id = $1")),
                Read::of(format!("SELECT code FROM grand{n} WHERE id = $1")),
                Read::of(format!("SELECT code FROM pet{n} WHERE id = $1")).shows(Shows::Link),
                Read::of(format!("SELECT g.code FROM grand{n} g JOIN parent{n} p ON p.code = g.code WHERE p.id = $1")),
                Read::of(format!("SELECT code FROM parent{n} WHERE id = $1")),
            ],
            dice,
        ),
        Kind::Flash => of(&[Read::of(format!("SELECT v FROM flash{n}"))], dice),
        Kind::Dark => {
            of(&[Read::of("SELECT v FROM dim WHERE id = $1"), Read::of("SELECT v FROM dark WHERE id = $1")], dice)
        }
        Kind::Shaped => Some(Read::of("SELECT * FROM shaped").simple()),
        Kind::Replaced => Some(Read::of("SELECT v FROM replaced").simple()),
        Kind::Fixed => Some(Read::of("SELECT fixed(1)").simple()),
        Kind::Lent => {
            let shows = if role == "app" { Shows::Always } else { Shows::Permitted };
            Some(Read::of("SELECT v FROM lent WHERE id = $1").shows(shows))
        }
        Kind::Detached => Some(Read::of("SELECT v FROM whole WHERE id = $1").simple()),
        Kind::Swapped => Some(Read::of("SELECT v FROM swapped WHERE id = $1").simple()),
        Kind::Front => Some(Read::of("SELECT v FROM front WHERE id = 1").simple().path("a")),
        Kind::Vault => Some(Read { forbidden: role != "app", ..Read::of("SELECT v FROM vault WHERE id = $1") }),
        Kind::Own => {
            let ways = [Read::of("SELECT v FROM own"), Read::of("SELECT v FROM owned")];
            of(&ways, dice).filter(|_| WHOSE.get(n).is_some_and(|whose| *whose == role))
        }
        Kind::Place => {
            let whose = WHOSE.get(n).is_some_and(|whose| *whose == role);
            whose.then(|| Read::of("SELECT v FROM place WHERE id = $1").path("\"$user\""))
        }
        Kind::Spot => Some(Read::of("SELECT v FROM spot WHERE id = $1").path(if n == 0 { "a" } else { "b" })),
    };
    read.map(|read| match register.writers {
        // Of what nobody counts a time is the only bound.
        Writers::Past => Read { sql: format!("/* pgweir: ttl=1s */ {}", read.sql), ..read },
        _ => read,
    })
}
