//! What EXPLAIN (FORMAT JSON) says of a plan, so that it can be shown, and compared with another.
//! Must never keep a value of a statement's, nor take two plans that differ in costs alone for two.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::Value;

use super::normal::normalized;

/// Most bytes of an outline.
const OUTLINE_BYTES: usize = 1024;
/// Most bytes of a plan as it is kept; of a longer one the outline is.
const TREE_BYTES: usize = 8 * 1024;
/// Most bytes of one expression.
const EXPRESSION_BYTES: usize = 512;

/// What makes one plan another: how a node works and on what. Their names are PostgreSQL's (ExplainNode in src/backend/commands/explain.c).
const TELLING: [&str; 14] = [
    "Node Type",
    "Strategy",
    "Partial Mode",
    "Operation",
    "Parent Relationship",
    "Subplan Name",
    "Join Type",
    "Scan Direction",
    "Index Name",
    "Relation Name",
    "CTE Name",
    "Function Name",
    "Custom Plan Provider",
    "Command",
];
/// Names, beside [`TELLING`]; other texts are expressions, with values in them.
const NAMES: [&str; 4] = ["Schema", "Alias", "Tuplestore Name", "Table Function Name"];

/// The plan of a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Equal for plans that do the same: costs and rows do not count, nor digits in the names of tables and indexes, nor how many alike
    /// parts an Append has, as partitions of other values are no other plan.
    pub fingerprint: u64,
    /// Its nodes in a line, at most 1 KiB.
    pub outline: Arc<str>,
    /// As EXPLAIN shows it, in JSON, expressions without their values; `null` if that is longer than 8 KiB.
    pub tree: Arc<str>,
    /// The planner's estimate of the whole.
    pub cost: f64,
}

/// What EXPLAIN has answered. `None` if that is no plan.
#[must_use]
pub fn plan(answer: &[u8]) -> Option<Plan> {
    let mut whole: Value = serde_json::from_slice(answer).ok()?;
    let root = whole.get_mut(0)?.get_mut("Plan")?;
    let mut hasher = blake3::Hasher::new();
    hash(root, &mut hasher);
    let head = *hasher.finalize().as_bytes().first_chunk::<8>()?;
    let mut outline = String::new();
    write_outline(root, &mut outline);
    if outline.len() > OUTLINE_BYTES {
        outline.truncate(outline.floor_char_boundary(OUTLINE_BYTES));
        outline.push('…');
    }
    let cost = root.get("Total Cost").and_then(Value::as_f64).unwrap_or_default();
    strip(root);
    let tree = Some(root.to_string()).filter(|tree| tree.len() <= TREE_BYTES);
    let tree = tree.map_or_else(|| "null".into(), Arc::from);
    Some(Plan { fingerprint: u64::from_be_bytes(head), outline: outline.into(), tree, cost })
}

fn text<'a>(node: &'a Value, key: &str) -> Option<&'a str> {
    node.get(key)?.as_str()
}

fn parts(node: &Value) -> &[Value] {
    node.get("Plans").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn hash(node: &Value, hasher: &mut blake3::Hasher) {
    for key in TELLING {
        // Every name ends, and what is not there is another than what is empty.
        hasher.update(&[u8::from(text(node, key).is_some())]);
        let folds = matches!(key, "Relation Name" | "Index Name");
        let mut last_is_digit = false;
        for byte in text(node, key).unwrap_or_default().bytes() {
            let is_digit = folds && byte.is_ascii_digit();
            if !(is_digit && last_is_digit) {
                hasher.update(&[if is_digit { b'#' } else { byte }]);
            }
            last_is_digit = is_digit;
        }
        hasher.update(&[0]);
    }
    let appends = matches!(text(node, "Node Type"), Some("Append" | "Merge Append"));
    let mut before = None;
    for part in parts(node) {
        let mut own = blake3::Hasher::new();
        hash(part, &mut own);
        let own = own.finalize();
        if !(appends && before == Some(own)) {
            hasher.update(own.as_bytes());
        }
        before = Some(own);
    }
    hasher.update(b")");
}

fn write_outline(node: &Value, out: &mut String) {
    if out.len() > OUTLINE_BYTES {
        return;
    }
    out.push_str(text(node, "Node Type").unwrap_or("?"));
    for (word, key) in [("using", "Index Name"), ("on", "Relation Name"), ("of", "CTE Name"), ("of", "Function Name")] {
        if let Some(name) = text(node, key) {
            let _ = write!(out, " {word} {name}");
        }
    }
    let parts = parts(node);
    for (number, part) in parts.iter().enumerate() {
        out.push_str(if number == 0 { " (" } else { ", " });
        write_outline(part, out);
    }
    if !parts.is_empty() {
        out.push(')');
    }
}

/// Takes the values out of expressions.
fn strip(node: &mut Value) {
    let Some(fields) = node.as_object_mut() else { return };
    for (key, value) in fields.iter_mut() {
        match value {
            // VERBOSE says of every node what it passes on.
            Value::Array(all) if key == "Output" => all.clear(),
            Value::Array(parts) if key == "Plans" => parts.iter_mut().for_each(strip),
            Value::String(_) if TELLING.contains(&key.as_str()) || NAMES.contains(&key.as_str()) => {}
            Value::String(expression) => *expression = without_values(expression),
            Value::Array(all) => {
                for one in all {
                    *one = one.as_str().map_or(Value::Null, |expression| without_values(expression).into());
                }
            }
            Value::Object(_) => *value = Value::Null,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

fn without_values(expression: &str) -> String {
    normalized(expression.as_bytes(), true, EXPRESSION_BYTES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(json: &str) -> Plan {
        plan(json.as_bytes()).unwrap()
    }

    fn scan(table: &str, cost: f64, value: &str) -> String {
        format!(
            r#"{{"Node Type": "Index Scan", "Parent Relationship": "Member", "Index Name": "{table}_pkey", "Relation Name": "{table}",
            "Alias": "t", "Total Cost": {cost}, "Index Cond": "(k = '{value}'::text)", "Output": ["k", "'{value}'::text"]}}"#
        )
    }

    #[test]
    fn values_and_costs_make_no_other_plan_and_are_not_kept() {
        let one = of(&format!("[{{\"Plan\": {}}}]", scan("orders", 8.3, "secret")));
        let other = of(&format!("[{{\"Plan\": {}}}]", scan("orders", 99.0, "hidden")));
        assert_eq!((one.fingerprint, &one.outline), (other.fingerprint, &other.outline));
        assert_eq!(&*one.outline, "Index Scan using orders_pkey on orders");
        assert_eq!((one.cost, other.cost), (8.3, 99.0));
        let tree: Value = serde_json::from_str(&one.tree).unwrap();
        assert!(!one.tree.contains("secret"), "{tree}");
        assert_eq!(tree["Relation Name"], "orders");
        assert!(tree["Index Cond"].as_str().unwrap().contains("k ="), "{tree}");
    }

    #[test]
    fn other_nodes_tables_and_shapes_make_another() {
        let scans = |tables: &[&str]| {
            let all: Vec<_> = tables.iter().map(|table| scan(table, 1.0, "v")).collect();
            of(&format!(r#"[{{"Plan": {{"Node Type": "Append", "Plans": [{}]}}}}]"#, all.join(","))).fingerprint
        };
        assert_eq!(scans(&["orders_2024", "orders_25"]), scans(&["orders_1"]), "partitions of other values");
        assert_ne!(scans(&["orders_1"]), scans(&["items_1"]));
        let joined = |kind: &str| {
            let (a, b) = (scan("a", 1.0, "v"), scan("a", 1.0, "v"));
            of(&format!(r#"[{{"Plan": {{"Node Type": "{kind}", "Plans": [{a},{b}]}}}}]"#))
        };
        assert_ne!(joined("Hash Join").fingerprint, joined("Nested Loop").fingerprint);
        assert_eq!(
            &*joined("Hash Join").outline,
            "Hash Join (Index Scan using a_pkey on a, Index Scan using a_pkey on a)"
        );
    }

    #[test]
    fn what_is_no_plan_or_too_long_is_none() {
        for text in ["", "{}", "[]", "[1]", "[{\"Plan\": 3", "null"] {
            assert_eq!(plan(text.as_bytes()), None, "{text}");
        }
        let many: Vec<_> = (0..500).map(|n| scan(&format!("t{n}"), 1.0, "v")).collect();
        let long = of(&format!(r#"[{{"Plan": {{"Node Type": "Append", "Plans": [{}]}}}}]"#, many.join(",")));
        assert!(&*long.tree == "null" && long.outline.len() <= OUTLINE_BYTES + 4 && long.outline.ends_with('…'));
    }
}
