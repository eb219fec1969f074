//! What each row has been: by when its writer began, and when it was told that it is so.
//! It must never know more than a client can: a commit counts from when its answer had come, not from when it was made.
//!
//! A *register* is something with one value at a time: a row, or a table's shape. Nobody writes to one beside another, so its states are in the order of
//! their commits. What a read shows of it was right at some moment from `t` on if no state behind the one that it shows had been
//! answered before `t`; and how old it was when it was asked for is the time since the first of these answers.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// What kind of a thing it is, which says how it is written and read (`writes.rs`, `reads.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A row that a trigger copies, views and functions show.
    Plain,
    /// A row of a partitioned table, which moves.
    Part,
    /// A row that others follow by foreign keys.
    Family,
    /// A table that is emptied.
    Flash,
    /// A row whose trigger puts its statement together as it runs.
    Dark,
    /// Which columns a table has.
    Shaped,
    /// What a view says.
    Replaced,
    /// What a function says.
    Fixed,
    /// Who may read a table.
    Lent,
    /// Whether a table is a partition.
    Detached,
    /// Which table has a name.
    Swapped,
    /// Whether a table is in front of another of the same name.
    Front,
    /// A row that only its owner may see.
    Vault,
    /// Rows of which each role sees its own.
    Own,
    /// Tables of one name in the schemas of roles.
    Place,
    /// Tables of one name in two schemas.
    Spot,
}

impl Kind {
    pub const ALL: [Self; 16] = [
        Self::Plain,
        Self::Part,
        Self::Family,
        Self::Flash,
        Self::Dark,
        Self::Shaped,
        Self::Replaced,
        Self::Fixed,
        Self::Lent,
        Self::Detached,
        Self::Swapped,
        Self::Front,
        Self::Vault,
        Self::Own,
        Self::Place,
        Self::Spot,
    ];

    /// Writing to it changes the schema, or may change anything: it is done now and then.
    pub fn is_rare(self) -> bool {
        matches!(
            self,
            Self::Shaped | Self::Replaced | Self::Fixed | Self::Lent | Self::Detached | Self::Swapped | Self::Front
        )
    }
}

/// What a register is from a commit on.
#[derive(Debug, Clone)]
pub struct State {
    pub value: String,
    /// It is there, or may be read.
    pub shown: bool,
    /// In which of two places.
    pub right: bool,
    /// When its writer was told.
    done: Option<Instant>,
}

impl State {
    pub fn of(value: String, shown: bool, right: bool) -> Self {
        Self { value, shown, right, done: None }
    }
}

/// What of a state a read shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// Its value, or no row.
    Value,
    /// Its value if it is on this side, or no row.
    Side(bool),
    /// Its value, or NULL.
    Link,
    /// Its value, whatever else.
    Always,
    /// Nothing but a refusal is right while it is not shown.
    Permitted,
}

/// No row.
pub const NOTHING: &str = "-";

impl Shows {
    fn of(self, state: &State) -> &str {
        match self {
            Self::Value if !state.shown => NOTHING,
            Self::Side(right) if !state.shown || state.right != right => NOTHING,
            Self::Link if !state.shown => "",
            Self::Permitted if !state.shown => "(refused)",
            _ => &state.value,
        }
    }
}

/// Whose writes a register is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    Any,
    Through,
    Past,
}

/// Of a writer.
#[derive(Debug, Default)]
pub struct Turn {
    next: u64,
    /// Nobody knows what became of the last write.
    pub unsure: bool,
}

#[derive(Debug)]
pub struct Register {
    pub name: String,
    pub kind: Kind,
    /// Number of its tables, and of the row there.
    pub group: usize,
    pub row: usize,
    pub writers: Writers,
    history: Mutex<Vec<State>>,
    turn: Mutex<Turn>,
}

/// What is to be said of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Judged {
    /// So long ago it was right for the last time.
    Aged(Duration),
    /// It lacks what its own client had written.
    Backward,
    /// Nobody has ever written that there.
    Foreign,
}

impl Register {
    pub fn new(name: &str, kind: Kind, (group, row): (usize, usize), writers: Writers) -> Self {
        let first = State { done: Some(Instant::now()), ..State::of(format!("{name}:0"), true, false) };
        let (history, turn) = (Mutex::new(vec![first]), Mutex::default());
        Self { name: name.into(), kind, group, row, writers, history, turn }
    }

    fn history(&self) -> MutexGuard<'_, Vec<State>> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one writer at a time.
    pub fn turn(&self) -> Option<MutexGuard<'_, Turn>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
        }
    }

    /// A value that it never had.
    pub fn another(&self, turn: &mut Turn) -> String {
        turn.next += 1;
        format!("{}:{}", self.name, turn.next)
    }

    pub fn last(&self) -> State {
        self.history().last().cloned().unwrap_or_else(|| State::of(String::new(), false, false))
    }

    /// A writer is about to make it this: the number of the state.
    pub fn begins(&self, state: State) -> usize {
        let mut history = self.history();
        history.push(state);
        history.len() - 1
    }

    /// It was told that it is.
    pub fn done(&self, number: usize) {
        if let Some(state) = self.history().get_mut(number) {
            state.done = Some(Instant::now());
        }
    }

    /// What this, seen by a read that began then, was. Its client had made state `least` itself.
    pub fn judge(&self, seen: &str, shows: Shows, began: Instant, least: usize) -> Judged {
        let history = self.history();
        let Some(number) = history.iter().rposition(|state| shows.of(state) == seen) else { return Judged::Foreign };
        if number < least {
            return Judged::Backward;
        }
        let over = history.iter().skip(number + 1).filter_map(|state| state.done).min();
        Judged::Aged(over.map_or(Duration::ZERO, |over| began.saturating_duration_since(over)))
    }
}

/// What came of a session, or of all.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub reads: u64,
    /// Reads that were rightly refused.
    pub refused: u64,
    /// Reads that failed for another reason, and connections that were lost.
    pub failed: u64,
    pub lost: u64,
    pub through: u64,
    pub past: u64,
    /// Writes of which nobody knows what became.
    pub unsure: u64,
    /// How old the oldest was, of what was written through pgweir only, past it only, either way.
    pub oldest: [Duration; 3],
    pub stale: u64,
    /// Reads that lacked what their own client had written.
    pub backward: u64,
    /// Rows that the role may not see, or that were never there.
    pub wrong: u64,
    /// Writes and reads by kind.
    pub kinds: [[u64; 2]; Kind::ALL.len()],
}

impl Tally {
    pub fn and(mut self, other: &Self) -> Self {
        self.reads += other.reads;
        self.refused += other.refused;
        self.failed += other.failed;
        self.lost += other.lost;
        self.through += other.through;
        self.past += other.past;
        self.unsure += other.unsure;
        self.stale += other.stale;
        self.backward += other.backward;
        self.wrong += other.wrong;
        for (mine, theirs) in self.oldest.iter_mut().zip(other.oldest) {
            *mine = (*mine).max(theirs);
        }
        for (mine, theirs) in self.kinds.iter_mut().flatten().zip(other.kinds.iter().flatten()) {
            *mine += theirs;
        }
        self
    }

    pub fn of_kind(&mut self, kind: Kind, what: usize) {
        let number = Kind::ALL.iter().position(|known| *known == kind).unwrap_or(0);
        self.kinds[number][what] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_right_until_the_next_one_was_answered() {
        let register = Register::new("x", Kind::Plain, (0, 1), Writers::Any);
        let write = |shown| {
            let value = register.another(&mut register.turn().unwrap());
            register.begins(State::of(value, shown, false))
        };
        let judge = |seen, at| register.judge(seen, Shows::Value, at, 0);
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!((judge("x:0", soon), judge("x:1", soon)), (Judged::Aged(Duration::ZERO), Judged::Foreign));
        let one = write(true);
        assert_eq!(
            (judge("x:0", soon), judge("x:1", soon)),
            (Judged::Aged(Duration::ZERO), Judged::Aged(Duration::ZERO))
        );
        register.done(one);
        let Judged::Aged(age) = judge("x:0", soon) else { panic!("it was there") };
        assert!(age > Duration::from_secs(4) && age <= Duration::from_secs(5));
        assert_eq!(register.judge("x:0", Shows::Value, soon, one), Judged::Backward);
        // What nobody was told of does not count, what came behind it does.
        write(false);
        assert_eq!(judge("x:1", soon), Judged::Aged(Duration::ZERO));
        assert_eq!(judge(NOTHING, soon), Judged::Aged(Duration::ZERO));
        let three = write(true);
        register.done(three);
        assert!(matches!(judge(NOTHING, soon), Judged::Aged(age) if age > Duration::from_secs(4)));
        assert_eq!(judge("x:2", soon), Judged::Foreign, "it was not to be seen");
    }
}
