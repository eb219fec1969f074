//! What servers say of indexes: those that a plan seems to lack, and what the statistics have of the others.
//! Must never take an index for worth having that the planner has tried and would not use.

use std::collections::HashMap;
use std::sync::Arc;

use crate::server::explain::Said;
use crate::sql::code_graph;
use crate::sql::plan::plan;

/// An index that a plan seems to lack.
#[derive(Clone, Debug, PartialEq)]
pub struct LackedIndex {
    /// What makes it.
    pub statement: String,
    /// What the plan costs with it, by the planner with HypoPG, less than half of what it costs without; `None` where nobody could check that.
    pub cost: Option<f64>,
}

impl LackedIndex {
    /// The one that is worth having.
    pub(super) fn of(said: &Said) -> Option<Self> {
        let (wish, tried) = said.wish.as_ref()?;
        let cost = match tried {
            Some(tried) => Some(plan(tried)?.cost).filter(|cost| cost * 2.0 < wish.cost),
            None => None,
        };
        let is_worth = if tried.is_some() { cost.is_some() } else { wish.is_plain };
        is_worth.then(|| Self { statement: wish.statement(), cost })
    }
}

/// What the statistics of a server say of an index, or of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexUse {
    /// Nothing was looked up in an index.
    Unused {
        /// Its name, with its schema.
        index: String,
        /// Its table's.
        table: String,
        /// Its number, which stays with it.
        oid: u32,
        /// Its size.
        bytes: u64,
        /// How old the statistics are, seconds.
        seconds: u64,
        /// When it was first heard of, microseconds of [`crate::base::clock`].
        known_us: u64,
    },
    /// A table of some size is read whole more often than by its indexes.
    Scanned {
        /// Its name, with its schema.
        table: String,
        /// How often.
        scans: u64,
        /// Rows read by that.
        rows: u64,
    },
}

impl IndexUse {
    /// Of the rows of `indexes.sql` in src/server, which have come now; `known`: when each index was first heard of. Those that are not
    /// among them are forgotten.
    pub(super) fn all(rows: &[u8], known: &mut HashMap<u32, u64>, now_us: u64) -> Vec<Self> {
        let text = |column: &[u8]| String::from_utf8_lossy(column).into_owned();
        let number = |column: &[u8]| text(column).parse().unwrap_or(0);
        let one = |[kind, index, table, first, second]: code_graph::Row<'_>| match kind.strip_prefix(b"unused ") {
            Some(oid) => {
                let (index, table, bytes, seconds) = (text(index), text(table), number(first), number(second));
                let oid = text(oid).parse().unwrap_or(0);
                let known_us = known.get(&oid).copied().unwrap_or(now_us);
                Self::Unused { index, table, oid, bytes, seconds, known_us }
            }
            None => Self::Scanned { table: text(table), scans: number(first), rows: number(second) },
        };
        let all: Vec<Self> = code_graph::rows(rows).map(one).collect();
        let unused = all.iter().filter_map(|it| match it {
            Self::Unused { oid, known_us, .. } => Some((*oid, *known_us)),
            Self::Scanned { .. } => None,
        });
        *known = unused.collect();
        all
    }
}

/// What the statistics of a database say.
#[derive(Clone, Debug)]
pub struct DatabaseIndexes {
    /// Name of the database as clients give it.
    pub database: String,
    /// The server whose they are.
    pub host: Arc<str>,
    /// All servers of the database.
    pub all: Vec<Arc<str>>,
    /// When it was asked, microseconds of [`crate::base::clock`].
    pub asked_us: u64,
    /// What they say.
    pub uses: Vec<IndexUse>,
}

/// As many of each kind as `indexes.sql` asks for.
const MOST: usize = 20;

impl DatabaseIndexes {
    /// Whether an index of this size may be unused although it is not among those that the server has told: it tells the largest.
    #[must_use]
    pub fn may_leave_out(&self, size: u64) -> bool {
        let sizes = self.uses.iter().filter_map(|it| match it {
            IndexUse::Unused { bytes, .. } => Some(*bytes),
            IndexUse::Scanned { .. } => None,
        });
        let (mut told, mut least) = (0, u64::MAX);
        sizes.for_each(|bytes| (told, least) = (told + 1, least.min(bytes)));
        told >= MOST && size <= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::index::Wish;

    #[test]
    fn an_index_must_be_worth_having() {
        let said = |is_plain, with: Option<f64>| {
            let wish = Wish { table: "public.t".into(), columns: vec!["a".into()], cost: 1000.0, is_plain };
            let with = with.map(|cost| {
                format!(r#"[{{"Plan": {{"Node Type": "Index Scan", "Total Cost": {cost}}}}}]"#).into_bytes()
            });
            LackedIndex::of(&Said { wish: Some((wish, with)), ..Said::default() })
        };
        let lacked = |cost| Some(LackedIndex { statement: "CREATE INDEX ON public.t (a)".into(), cost });
        assert_eq!([said(false, None), said(false, Some(600.0)), said(true, Some(600.0))], [None, None, None]);
        assert_eq!([said(true, None), said(false, Some(8.0))], [lacked(None), lacked(Some(8.0))]);
        assert_eq!(LackedIndex::of(&Said::default()), None);
    }

    #[test]
    fn rows_of_the_statistics_are_read() {
        let row = |columns: [&str; 5]| {
            let mut out = vec![0, 5];
            for column in columns {
                out.extend_from_slice(&(column.len() as u32).to_be_bytes());
                out.extend_from_slice(column.as_bytes());
            }
            out
        };
        let unused = row(["unused 7", "s.i", "s.t", "8192", "60"]);
        let rows = [unused.clone(), row(["missing", "", "s.u", "100", "5000"])].concat();
        let one = |known_us| {
            let (index, table) = ("s.i".to_owned(), "s.t".to_owned());
            IndexUse::Unused { index, table, oid: 7, bytes: 8192, seconds: 60, known_us }
        };
        let mut known = HashMap::new();
        let scanned = IndexUse::Scanned { table: "s.u".into(), scans: 100, rows: 5000 };
        assert_eq!(IndexUse::all(&rows, &mut known, 5), [one(5), scanned.clone()]);
        assert_eq!(IndexUse::all(&rows, &mut known, 9), [one(5), scanned]);
        // Another that is called the same, and one that was used meanwhile.
        let other = row(["unused 8", "s.i", "s.t", "8192", "60"]);
        IndexUse::all(&other, &mut known, 11);
        assert_eq!(IndexUse::all(&unused, &mut known, 13), [one(13)]);
    }
}
