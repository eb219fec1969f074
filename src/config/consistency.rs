//! What a read that leaves the primary must show at least.
//! Must never let a table be named in a way that could mean several.

use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::leaf::Refresh;
use super::reader::{Field, Leaf, Reader};
use super::schema::RawConfig;
use super::words::words;

words! {
    /// What a client's reads must show of what was there before.
    pub enum Consistency {
        /// Whatever the client has written or seen itself.
        Session = "session",
        /// Nothing: a replica serves it as it is.
        Off = "off",
    }
    refused {}
}

/// A table, as the catalog has its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its schema; empty for any.
    pub schema: String,
    /// Its name.
    pub name: String,
}

impl TableName {
    /// Whether this table is meant.
    #[must_use]
    pub fn is(&self, schema: &[u8], name: &[u8]) -> bool {
        self.name.as_bytes() == name && (self.schema.is_empty() || self.schema.as_bytes() == schema)
    }
}

impl Leaf for Vec<TableName> {
    fn read(reader: &mut Reader, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        let expected = r#"a list of tables, each "table" or "schema.table" as pg_class has them"#;
        let Some(items) = value.get_ref().as_array() else {
            reader.wrong_type(path, value, expected);
            return None;
        };
        let is_name = |name: &str| !name.is_empty() && !name.contains(['.', '"', '\0', ' ']);
        let mut tables = Self::new();
        for item in items {
            let text = item.get_ref().as_str().unwrap_or_default();
            let (schema, name) = text.split_once('.').map_or((None, text), |(schema, name)| (Some(schema), name));
            if !is_name(name) || !schema.is_none_or(is_name) {
                reader.wrong_value(path, item.span(), expected, None);
                return None;
            }
            tables.push(TableName { schema: schema.unwrap_or_default().into(), name: name.into() });
        }
        Some(tables)
    }
}

impl Check<'_> {
    /// Notes tables whose readers nobody could tell.
    pub(super) fn globals(&mut self, raw: &RawConfig) {
        let never = |refresh: &Field<Refresh>| matches!(refresh, Field::Set(refresh, _) if refresh.is_never());
        if !matches!(&raw.pool, Field::Set(pool, _) if never(&pool.catalog_refresh)) {
            return;
        }
        let Field::Set(databases, _) = &raw.databases else { return };
        for database in databases.0.iter().filter_map(|(_, _, database)| database.as_ref()) {
            if let Field::Set(_, span) = &database.global_tables {
                let title = "`global_tables` need the catalog, which is never read with `catalog_refresh` = 0";
                self.reader.note(span.clone(), title, |problem| {
                    problem.expected("another `catalog_refresh`: what views and functions read is found there")
                });
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parsed(lines: &str) -> Result<Config, String> {
        let text = format!("[databases.a]\nhosts = [\"h1\", \"h2\"]\n{lines}\n[users.u]\npassword = \"x\"");
        Config::parse(&text, "f.toml").map_err(|problems| problems.to_string())
    }

    #[test]
    fn tables_have_a_schema_or_any() {
        let config = parsed("consistency = \"off\"\nglobal_tables = [\"orders\", \"s.Accounts\"]").unwrap();
        let reads = &config.databases["a"].reads;
        assert_eq!(reads.consistency, Consistency::Off);
        assert!(reads.global_tables[0].is(b"any", b"orders") && !reads.global_tables[0].is(b"any", b"order"));
        assert!(reads.global_tables[1].is(b"s", b"Accounts") && !reads.global_tables[1].is(b"t", b"Accounts"));
    }

    #[test]
    fn what_names_no_table_is_told() {
        for (lines, said) in [
            ("global_tables = [\"a.b.c\"]", "\"table\" or \"schema.table\""),
            ("global_tables = [\"\"]", "\"table\" or \"schema.table\""),
            ("global_tables = [\".t\"]", "\"table\" or \"schema.table\""),
            ("global_tables = [7]", "\"table\" or \"schema.table\""),
            ("consistency = \"global\"", "\"session\" or \"off\""),
        ] {
            let problem = parsed(lines).unwrap_err();
            assert!(problem.contains(said), "{lines}: {problem}");
        }
        let text = "[pool]\ncatalog_refresh = 0\n[databases.a]\nhosts = [\"h1\", \"h2\"]\nglobal_tables = [\"t\"]\n\
            [users.u]\npassword = \"x\"";
        let problem = Config::parse(text, "f.toml").unwrap_err().to_string();
        assert!(problem.contains("`catalog_refresh`"), "{problem}");
    }
}
