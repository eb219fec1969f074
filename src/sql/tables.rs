//! Tables that a statement names, at any depth: what routing rules ask for.
//! Must never be asked per query: the text goes through the whole grammar.

use super::classify::PARSE_LIMIT_BYTES;

/// A table as the server folds its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its schema; empty if the statement does not say.
    pub schema: String,
    /// Its name.
    pub table: String,
}

/// The tables (and views, and whatever else can stand for one) that a text names, each once; none if nobody can tell.
/// Names of its own WITH clauses are not among them.
#[must_use]
pub fn tables(sql: &[u8], standard_conforming_strings: bool) -> Vec<Named> {
    let options = if standard_conforming_strings {
        pg_query::ParserOptions::DEFAULT
    } else {
        pg_query::ParserOptions::DISABLE_STANDARD_CONFORMING_STRINGS
    };
    let text = std::str::from_utf8(sql).ok().filter(|text| text.len() <= PARSE_LIMIT_BYTES);
    let Some(summary) = text.and_then(|text| pg_query::summary(text, options, -1).ok()) else { return Vec::new() };
    let own = |table: &pg_query::Table| table.schema_name.is_empty() && summary.cte_names.contains(&table.table_name);
    let named = summary.tables.iter().filter(|table| !own(table));
    let mut tables: Vec<Named> =
        named.map(|table| Named { schema: table.schema_name.clone(), table: table.table_name.clone() }).collect();
    tables.sort_unstable();
    tables.dedup();
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sql: &str) -> String {
        let tables = tables(sql.as_bytes(), true);
        tables.iter().map(|it| format!("{}.{}", it.schema, it.table)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tables_at_any_depth() {
        for (sql, expected) in [
            ("SELECT 1", ""),
            ("SELECT * FROM Fish", ".fish"),
            ("SELECT * FROM \"Fish\", pond.fish f JOIN fish ON true", ".Fish .fish pond.fish"),
            ("WITH w AS (SELECT * FROM a) SELECT * FROM w, b WHERE EXISTS (SELECT FROM c.d)", ".a .b c.d"),
            ("INSERT INTO t SELECT * FROM u", ".t .u"),
            ("UPDATE t SET x = (SELECT max(y) FROM u)", ".t .u"),
            ("DELETE FROM s.t USING u", ".u s.t"),
            ("COPY t TO STDOUT", ".t"),
            ("COPY (SELECT * FROM v) TO STDOUT", ".v"),
            ("SELECT FROM", ""),
            ("not sql", ""),
        ] {
            assert_eq!(told(sql), expected, "{sql}");
        }
    }
}
