//! What a worker knows of statements and code, for the console.
//! Must never learn anything new because somebody asks.

use super::Relay;
use super::shapes::ShapeVerdict;
use crate::sql::footing::Footing;

/// What the catalog of a database says of a text.
#[derive(Clone, Debug)]
pub struct Said {
    /// How far the text may leave the primary.
    pub footing: Footing,
    /// It may read tables whose reads must show everything.
    pub reads_globals: bool,
    /// The server whose catalog it is.
    pub host: String,
}

impl Relay {
    /// Where the statements of each shape may run.
    pub fn verdicts(&self) -> Vec<ShapeVerdict> {
        self.shapes.verdicts().collect()
    }

    /// What the catalog of a database says of a text, if it has been read.
    pub fn said_of(&self, database: &str, sql: &[u8]) -> Option<Said> {
        let of_it = self.groups.values().filter(|group| group.database == database && !group.retired);
        let catalogs = of_it.filter_map(|group| self.catalogs.all.get(group.catalog));
        let catalog = catalogs.into_iter().find(|catalog| catalog.epoch > 0)?;
        Some(Said {
            footing: catalog.code.footing(sql, true),
            reads_globals: catalog.code.reads_globals(sql, true),
            host: catalog.endpoint.to_string(),
        })
    }
}
