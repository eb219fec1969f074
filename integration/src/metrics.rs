//! Reads the Prometheus text format, as far as pgweir writes it.
//! It must never guess: a line it does not understand is an error.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// One line of `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels, unescaped.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value, empty when the label is missing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Parses a whole exposition; comments are skipped.
///
/// # Errors
/// With the line that is not of the format.
pub fn parse(text: &str) -> Result<Vec<Sample>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| sample(line).ok_or_else(|| Error::new(format!("not a metric: {line}")))).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) =
        if let Some(inner) = rest.strip_prefix('{') { labels(inner)? } else { (BTreeMap::new(), rest) };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.into(), labels, value })
}

/// Reads `a="b",c="d"} …` and gives what follows the brace.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut found = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((found, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        found.insert(name.to_string(), value);
        rest = after;
    }
}

/// Reads up to the closing quote; `\\`, `\"` and `\n` are the escapes of the format.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (true, 'n') => value.push('\n'),
            (true, c) => value.push(c),
            (false, '"') => return Some((value, text.get(at + 1..)?)),
            (false, '\\') => {}
            (false, c) => value.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::parse;

    #[test]
    fn labels_are_unescaped() {
        let text = "# HELP x y\nx{query=\"a \\\"b\\\" \\\\ }, \\n\",le=\"+Inf\"} 3 17\nplain 1.5e3\n";
        let samples = parse(text).unwrap();
        assert_eq!(samples[0].label("query"), "a \"b\" \\ }, \n");
        assert_eq!((samples[0].label("le"), samples[0].value), ("+Inf", 3.0));
        assert_eq!((samples[1].name.as_str(), samples[1].value), ("plain", 1500.0));
        assert!(parse("x{a=\"b} 1").is_err());
    }
}
