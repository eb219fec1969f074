//! Verdict and statistics by shape: the one place where a statement's text is looked at.
//! Must never parse a shape twice, nor let the number of shapes grow without bound.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::learned::Learned;
use crate::meter::{ErrorClass, Exemplar, Place, Sample, ShapeTable, ShapeView, SlotId, Unfit};
use crate::sql::classify::classify;
use crate::sql::footing::Footing;
use crate::sql::shape::{Flags, normalized, scan};
use crate::sql::vacates::vacated;
use crate::sql::verdict::{Effects, Route, StatementKind, Verdict};
use crate::sql::wish::{Wish, alone, wish};

/// Most shapes whose verdict is remembered; beyond that all are forgotten and learned anew.
const MAX_SHAPES: usize = 20_000;
/// Most bytes of a shape's text that are kept.
const TEXT_BYTES: usize = 1000;

/// Shape of statements too long to be looked at.
pub const LONG: u64 = 1;

/// What a catalog has said of a shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    /// Number of the catalog's state; 0 if none was asked.
    pub epoch: u32,
    /// How far statements of the shape may leave the primary.
    pub footing: Footing,
    /// They may read tables whose reads must show everything.
    pub global: bool,
    /// Their answers may be kept.
    pub keeps: bool,
}

/// What is known of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Shape, as in [`crate::sql::shape`].
    pub shape: u64,
    /// Where it may run.
    pub route: Route,
    /// What it leaves behind.
    pub effects: Effects,
    /// It may draw from a sequence.
    pub draws: bool,
    /// What its client reads afterwards may hang on it.
    pub writes: bool,
    /// Where its comments ask that it runs.
    pub wish: Wish,
    /// What it is.
    pub kind: StatementKind,
    /// Its comments ask that it shares no server.
    pub alone: bool,
    /// Its comments ask for something.
    pub hinted: bool,
    /// It has comments.
    pub commented: bool,
    /// What the catalog said that was asked last.
    pub stand: Stand,
}

impl Look {
    /// A statement too long to be looked at: to the primary. What it does to the session is
    /// unknown, so `effects` says what to assume.
    pub const fn long(effects: Effects) -> Self {
        Self {
            shape: LONG,
            route: Route::Primary,
            effects,
            draws: true,
            writes: true,
            wish: Wish::Auto,
            kind: StatementKind::Unknown,
            alone: false,
            hinted: false,
            commented: false,
            stand: Stand { epoch: 0, footing: Footing::Safe, global: false, keeps: false },
        }
    }

    /// It only reads, and leaves nothing behind: there is nothing to do before it runs.
    pub fn only_reads(&self) -> bool {
        self.effects.is_empty() && !self.draws && !self.writes
    }
}

/// Where the statements of a shape may run.
#[derive(Clone, Copy, Debug)]
pub struct ShapeVerdict {
    /// The shape.
    pub shape: u64,
    /// What the grammar says.
    pub verdict: Verdict,
    /// What the catalog says of those that were asked about; `None` if it was not asked.
    pub footing: Option<Footing>,
    /// A replica has refused one: they stay on the primary.
    pub refused: bool,
    /// Why they share no server, as far as that hangs on the shape; of several databases where they come nearest to it.
    pub unfit: Option<Unfit>,
}

impl ShapeVerdict {
    /// What workers say of each shape, put together: one of them may know more.
    #[must_use]
    pub fn by_shape(verdicts: impl IntoIterator<Item = Self>) -> HashMap<u64, Self> {
        let mut known: HashMap<u64, Self> = HashMap::new();
        for verdict in verdicts {
            let it = known.entry(verdict.shape).or_insert(verdict);
            it.footing = it.footing.or(verdict.footing);
            it.refused |= verdict.refused;
            it.unfit = nearer(it.unfit, verdict.unfit);
        }
        known
    }
}

/// What is nearer to sharing a server: nothing against it, or that it is stalled, slow, unknown; last its verdict.
fn nearer(one: Option<Unfit>, other: Option<Unfit>) -> Option<Unfit> {
    Some(one?.max(other?))
}

struct Shape {
    verdict: Verdict,
    text: Arc<str>,
    /// Clients read what it draws in another transaction.
    read_behind: bool,
    stand: Stand,
}

type Known = HashMap<u64, Shape, foldhash::fast::RandomState>;

fn text_of(known: &Known, shape: u64) -> Arc<str> {
    match (shape, known.get(&shape)) {
        (_, Some(shape)) => Arc::clone(&shape.text),
        (LONG, None) => "(statement of more than 256 KiB)".into(),
        (_, None) => "(forgotten)".into(),
    }
}

/// Verdicts and statistics.
pub struct Shapes {
    known: Known,
    /// How fast they are, by shape and number of the catalog: in another database the same statement is another one.
    learned: HashMap<(u64, usize), Learned, foldhash::fast::RandomState>,
    /// There is a shape that is read behind.
    any_read_behind: bool,
    /// What is known of shapes never seen.
    assumed: Learned,
    /// What looked like a read and was refused by a replica.
    refused: HashSet<u64, foldhash::fast::RandomState>,
    table: ShapeTable,
    /// The statement counted last, until somebody asks.
    counted: Option<SlotId>,
    /// The text looked at last, by address and length: routing and forwarding look at the same
    /// bytes one after the other.
    last: Option<(usize, usize, Look)>,
}

impl Shapes {
    /// Statistics for `capacity` shapes.
    pub fn new(capacity: usize) -> Self {
        Self {
            known: HashMap::default(),
            learned: HashMap::default(),
            any_read_behind: false,
            assumed: Learned::default(),
            refused: HashSet::default(),
            table: ShapeTable::new(capacity),
            counted: None,
            last: None,
        }
    }

    /// The readers' side of the statistics.
    pub fn view(&self) -> Arc<ShapeView> {
        self.table.view()
    }

    /// Adds a place to the statistics.
    pub fn add_place(&mut self, place: Place) -> u32 {
        self.table.add_place(place)
    }

    /// Forgets the text looked at last: to be called whenever other bytes may stand at its address.
    pub fn forget_last(&mut self) {
        self.last = None;
    }

    /// Looks at a statement: one pass of the lexer and one probe for a known shape.
    pub fn look(&mut self, sql: &[u8], conforming: bool) -> Look {
        let place = (sql.as_ptr() as usize, sql.len());
        if let Some((at, len, look)) = self.last
            && (at, len) == place
        {
            return look;
        }
        let look = self.look_anew(sql, conforming);
        self.last = Some((place.0, place.1, look));
        look
    }

    fn look_anew(&mut self, sql: &[u8], conforming: bool) -> Look {
        let scanned = scan(sql, conforming);
        let shape = scanned.shape;
        let known = self.known.get(&shape).map(|known| (known.verdict, known.stand));
        let stand = known.map(|(_, stand)| stand).unwrap_or_default();
        let verdict = match known.map(|(verdict, _)| verdict) {
            Some(verdict) if verdict.follows_from_shape() => verdict,
            _ => {
                let verdict = classify(sql, &scanned);
                if known.is_none() {
                    if self.known.len() >= MAX_SHAPES {
                        self.known.clear();
                    }
                    let text = normalized(sql, conforming, TEXT_BYTES).into();
                    self.known.insert(shape, Shape { verdict, text, read_behind: false, stand });
                }
                verdict
            }
        };
        let asks = scanned.flags.has(Flags::COMMENT_HINT);
        let (wish, alone) = if asks { (wish(sql, conforming), alone(sql, conforming)) } else { (Wish::Auto, false) };
        Look {
            shape,
            route: verdict.route,
            effects: verdict.effects,
            draws: verdict.may_draw(),
            writes: verdict.may_write(),
            wish,
            alone,
            hinted: asks,
            commented: scanned.flags.has(Flags::COMMENT),
            kind: verdict.kind,
            stand,
        }
    }

    /// All that is known, by shape.
    ///
    /// `fast_us`: what counts as fast; `now_us`: now.
    pub fn verdicts(&self, fast_us: u64, now_us: u64) -> impl Iterator<Item = ShapeVerdict> {
        let mut unfit: HashMap<u64, Option<Unfit>> = HashMap::new();
        for (&(shape, _), learned) in &self.learned {
            let why = learned.unfit(fast_us, now_us);
            unfit.entry(shape).and_modify(|known| *known = nearer(*known, why)).or_insert(why);
        }
        let verdict = move |(&shape, known): (&u64, &Shape)| {
            let Stand { epoch, footing, .. } = known.stand;
            let shares = epoch > 0
                && footing.is_shareable()
                && known.verdict.effects.without(Effects::UNKNOWN_FUNCTION).is_empty();
            let learned = || unfit.get(&shape).copied().unwrap_or(Some(Unfit::Unknown));
            ShapeVerdict {
                shape,
                verdict: known.verdict,
                footing: (epoch > 0).then_some(footing),
                refused: self.stays(shape),
                unfit: if shares { learned() } else { Some(Unfit::Verdict) },
            }
        };
        self.known.iter().map(verdict)
    }

    /// Remembers what a catalog says of a shape.
    pub fn stands(&mut self, shape: u64, stand: Stand) {
        if let Some(known) = self.known.get_mut(&shape) {
            known.stand = stand;
        }
        if let Some((_, _, look)) = &mut self.last
            && look.shape == shape
        {
            look.stand = stand;
        }
    }

    /// A replica has refused a statement of this shape as one that writes: from now on such go to the primary.
    pub fn is_refused(&mut self, shape: u64) {
        if self.refused.len() >= MAX_SHAPES {
            self.refused.clear();
        }
        self.refused.insert(shape);
    }

    /// Whether a replica is known to refuse statements of this shape.
    pub fn stays(&self, shape: u64) -> bool {
        !self.refused.is_empty() && self.refused.contains(&shape)
    }

    /// What replicas refuse may have changed.
    pub fn forget_refused(&mut self) {
        self.refused.clear();
    }

    /// A client was seen to read what statements of this shape draw in another transaction.
    pub fn is_read_behind(&mut self, shape: u64) {
        if let Some(known) = self.known.get_mut(&shape) {
            known.read_behind = true;
            self.any_read_behind = true;
        }
    }

    /// Whether what statements of this shape draw should stay with their client for a while.
    pub fn keeps(&self, shape: u64) -> bool {
        self.any_read_behind && self.known.get(&shape).is_some_and(|known| known.read_behind)
    }

    /// How fast statements of this shape have been seen to be in the database of this catalog.
    pub fn learned(&self, shape: u64, catalog: usize) -> Learned {
        self.learned.get(&(shape, catalog)).copied().unwrap_or(self.assumed)
    }

    /// Every shape is one that may share servers, as far as is not known better.
    #[cfg(test)]
    pub fn assume_light(&mut self) {
        self.assumed = Learned::light();
        self.learned.retain(|_, learned| learned.is_known());
    }

    /// What is known of a shape, to learn more; nothing of one that never rides.
    pub fn learns(&mut self, shape: u64, catalog: usize) -> Option<&mut Learned> {
        let known = self.known.get(&shape)?;
        if !matches!(known.verdict.route, Route::Replica | Route::Catalog) {
            return None;
        }
        if self.learned.len() >= 2 * MAX_SHAPES {
            self.learned.clear();
        }
        Some(self.learned.entry((shape, catalog)).or_insert(self.assumed))
    }

    /// The statements of this shape, without values.
    pub fn text(&self, shape: u64) -> Arc<str> {
        text_of(&self.known, shape)
    }

    /// The same and what they are, if one was seen and is not forgotten.
    pub fn known(&self, shape: u64) -> Option<(Arc<str>, StatementKind)> {
        self.known.get(&shape).map(|known| (Arc::clone(&known.text), known.verdict.kind))
    }

    /// What the grammar says of a shape, if one was seen and is not forgotten.
    pub fn verdict(&self, shape: u64) -> Option<Verdict> {
        self.known.get(&shape).map(|known| known.verdict)
    }

    /// The database that a statement of this shape must have for itself.
    pub fn vacates(&self, shape: u64) -> Option<String> {
        let known = self.known.get(&shape).filter(|known| known.verdict.kind == StatementKind::Ddl)?;
        vacated(known.text.as_bytes())
    }

    /// Counts a finished statement. How long its shape takes on average, this one included, microseconds.
    pub fn record(&mut self, place: u32, shape: u64, sample: &Sample) -> u64 {
        let text = || text_of(&self.known, shape).to_string();
        let slot = self.table.slot(place, shape, text);
        self.table.record(slot, sample);
        self.counted = Some(slot);
        self.table.mean_us(slot)
    }

    /// How long a server usually needs for statements of this shape, microseconds; `None` if none was counted.
    pub fn usual_us(&self, place: u32, shape: u64) -> Option<u64> {
        self.table.mean_of(place, shape)
    }

    /// Counts a statement that was refused, behind a wait of so long for a server, microseconds.
    pub fn record_unserved(&mut self, place: u32, shape: u64, wait_us: u64, class: ErrorClass) {
        let text = || text_of(&self.known, shape).to_string();
        let slot = self.table.slot(place, shape, text);
        self.table.record_unserved(slot, wait_us, class);
    }

    /// The statement that was counted last, since this was asked.
    pub fn counted(&mut self) -> Option<SlotId> {
        self.counted.take()
    }

    /// The same without asking.
    pub fn last_counted(&self) -> Option<SlotId> {
        self.counted
    }

    /// A statement that was counted can be seen in a trace.
    pub fn exemplify(&mut self, slot: SlotId, exemplar: Exemplar) {
        self.table.exemplify(slot, exemplar);
    }

    /// A statement that was counted kept its client reading for so long, microseconds.
    pub fn record_write(&mut self, slot: SlotId, us: u64) {
        self.table.record_write(slot, us);
    }
}
