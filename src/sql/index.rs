//! Which index a plan lacks, as far as a plan tells.
//! Must never wish for one that could not serve the condition that is scanned for.

use serde_json::Value;

use super::lex::{Kind, Lexer, Token};

/// Most columns of an index.
const COLUMNS: usize = 3;
/// A scan that takes a smaller part of what its plan costs is not what makes it slow.
const SHARE: f64 = 0.5;
/// Nor one that costs less in all, in the planner's units.
const COST: f64 = 1000.0;
/// Where nobody can check it: an index would find fewer rows than one per so many units that the scan costs. A row of a hundred bytes costs
/// about a thirtieth of a unit to read (`cost_seqscan` in src/backend/optimizer/path/costsize.c), so that is one in six hundred.
const FINDS: f64 = 20.0;

/// An index that a plan lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The table, with its schema, quoted where needed.
    pub table: String,
    /// Its columns: those first that are compared with `=`.
    pub columns: Vec<String>,
    /// What the plan costs without it.
    pub cost: f64,
    /// It would find so few rows that it is worth having even where nobody can check that.
    pub is_plain: bool,
}

impl Wish {
    /// What makes it.
    #[must_use]
    pub fn statement(&self) -> String {
        format!("CREATE INDEX ON {} ({})", self.table, self.columns.join(", "))
    }
}

/// Of the answer of EXPLAIN (FORMAT JSON, VERBOSE): the index for the scan of a whole table that most of it costs.
#[must_use]
pub fn wish(answer: &[u8]) -> Option<Wish> {
    let whole: Value = serde_json::from_slice(answer).ok()?;
    let root = whole.get(0)?.get("Plan")?;
    let cost = number(root, "Total Cost")?;
    let mut dearest = None;
    find(root, &mut dearest);
    let (scan, own) = dearest?;
    if own < cost * SHARE || own < COST {
        return None;
    }
    let text = |key| scan.get(key).and_then(Value::as_str);
    let columns = columns(text("Filter")?.as_bytes(), text("Alias")?.as_bytes())?;
    let table = format!("{}.{}", quoted(text("Schema")?), quoted(text("Relation Name")?));
    let is_plain = number(scan, "Plan Rows").is_some_and(|rows| rows * FINDS < own);
    Some(Wish { table, columns, cost, is_plain })
}

fn number(node: &Value, key: &str) -> Option<f64> {
    node.get(key)?.as_f64()
}

fn find<'a>(node: &'a Value, dearest: &mut Option<(&'a Value, f64)>) {
    if node.get("Node Type").and_then(Value::as_str) == Some("Seq Scan")
        && let Some(cost) = number(node, "Total Cost")
        && dearest.is_none_or(|(_, known)| cost > known)
    {
        *dearest = Some((node, cost));
    }
    node.get("Plans").and_then(Value::as_array).into_iter().flatten().for_each(|part| find(part, dearest));
}

/// A name as PostgreSQL writes it (`quote_identifier` in src/backend/utils/adt/ruleutils.c), but that keywords are quoted as well.
fn quoted(name: &str) -> String {
    let is_plain = name
        .bytes()
        .enumerate()
        .all(|(at, byte)| matches!(byte, b'a'..=b'z' | b'_') || (at > 0 && byte.is_ascii_digit()));
    if is_plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Columns that a condition compares with something and that must all hold: `((t.a = 1) AND ((t.b)::text > 'x'::text))`. None if it has
/// other parts that matter more than they do.
fn columns(filter: &[u8], alias: &[u8]) -> Option<Vec<String>> {
    let tokens: Vec<Token> = Lexer::new(filter, true).filter(|token| token.kind != Kind::Comment).collect();
    let is = |at: usize, kind: Kind, text: &[u8]| {
        tokens.get(at).is_some_and(|token| token.kind == kind && (text.is_empty() || token.bytes(filter) == text))
    };
    let alternates = |word: &[u8]| tokens.iter().any(|token| token.kind == Kind::Word && token.bytes(filter) == word);
    if alternates(b"OR") || alternates(b"NOT") || alternates(b"SubPlan") {
        return None;
    }
    let (mut equal, mut range) = (Vec::new(), Vec::new());
    for (at, token) in tokens.iter().enumerate() {
        let names_it = token
            .bytes(filter)
            .strip_prefix(b"\"")
            .map_or(token.bytes(filter), |it| it.strip_suffix(b"\"").unwrap_or(it));
        let is_column = names_it == alias && is(at + 1, Kind::Dot, b"") && at > 0 && is(at - 1, Kind::Open, b"");
        let column = tokens.get(at + 2).filter(|it| is_column && matches!(it.kind, Kind::Word | Kind::QuotedWord));
        let Some(column) = column else { continue };
        // What is declared as varchar is compared as text, which its index can do.
        let is_text = is(at + 3, Kind::Close, b"") && is(at + 4, Kind::Punct, b"::") && is(at + 5, Kind::Word, b"text");
        let behind = if is_text { at + 6 } else { at + 3 };
        let Some(operator) = tokens.get(behind).filter(|it| it.kind == Kind::Operator) else { continue };
        let list = match operator.bytes(filter) {
            b"=" => &mut equal,
            b"<" | b">" | b"<=" | b">=" => &mut range,
            _ => continue,
        };
        let name = String::from_utf8(column.bytes(filter).to_vec()).ok()?;
        if !list.contains(&name) {
            list.push(name);
        }
    }
    range.retain(|name| !equal.contains(name));
    // Behind one range an index says no more.
    equal.extend(range.into_iter().take(1));
    equal.truncate(COLUMNS);
    (!equal.is_empty()).then_some(equal)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(filter: &str) -> Option<String> {
        columns(filter.as_bytes(), b"t").map(|columns| columns.join(", "))
    }

    #[test]
    fn columns_that_an_index_could_serve() {
        assert_eq!(of("(t.a = 1)").unwrap(), "a");
        assert_eq!(of("((t.a > 1) AND ((t.b)::text = 'x'::text) AND (t.c < 3))").unwrap(), "b, a");
        assert_eq!(of("((t.a >= 1) AND (t.a < 9))").unwrap(), "a");
        assert_eq!(of("(t.\"A b\" = ANY ('{1,2}'::integer[]))").unwrap(), "\"A b\"");
        assert_eq!(of("((t.a = 1) AND (t.b = 2) AND (t.c = 3) AND (t.d = 4))").unwrap(), "a, b, c");
        for none in [
            "((t.a = 1) OR (t.b = 2))",
            "(lower(t.a) = 'x'::text)",
            "((t.a)::numeric = 1.5)",
            "(t.a ~~ '%x'::text)",
            "(t.a <> 1)",
            "(u.a = 1)",
            "(NOT t.a)",
            "(t.a IS NULL)",
            "",
        ] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn the_scan_that_costs_most_is_wished_away() {
        let scan = |cost: f64, rows: f64| {
            format!(
                r#"{{"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "Order", "Alias": "t", "Total Cost": {cost},
                "Plan Rows": {rows}, "Filter": "(t.a = 1)"}}"#
            )
        };
        let plan = |parts: &[String], cost: f64| {
            wish(
                format!(
                    r#"[{{"Plan": {{"Node Type": "Sort", "Total Cost": {cost}, "Plans": [{}]}}}}]"#,
                    parts.join(",")
                )
                .as_bytes(),
            )
        };
        let found = plan(&[scan(2000.0, 1.0), scan(10.0, 1.0)], 2100.0).unwrap();
        assert_eq!(found.statement(), "CREATE INDEX ON public.\"Order\" (a)");
        assert!(found.is_plain && found.cost == 2100.0);
        assert!(!plan(&[scan(2000.0, 500.0)], 2100.0).unwrap().is_plain);
        assert_eq!(plan(&[scan(2000.0, 1.0)], 9000.0), None, "most is something else");
        assert_eq!(plan(&[scan(20.0, 1.0)], 20.0), None, "it is cheap");
        assert_eq!(wish(b"nonsense"), None);
    }
}
