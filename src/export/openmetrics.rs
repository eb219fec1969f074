//! The text of OpenMetrics 1.0 where that differs from Prometheus' own format 0.0.4, and who gets which.
//! Must never name a series otherwise than the other format does: who changes the format goes on with the same series.
//!
//! In OpenMetrics (`specification/OpenMetrics.md` of the project) a family of counters is called without `_total`, and only its samples with it;
//! a unit is said apart; quotation marks in HELP are escaped; and `# EOF` says that nothing is missing. Behind a bucket it may name a trace in which
//! one of those that are counted there can be seen (`queries.rs`).

use std::fmt::Write;

use axum::http::{HeaderMap, header};
use prometheus::proto::{MetricFamily, MetricType};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' protobuf, each message behind its length (`protobuf.rs`).
    Protobuf,
}

/// Units that names end with, before `_total`.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

impl Format {
    /// Value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// What somebody wants who sends these headers (RFC 9110, section 12.5.1): what is neither named nor liked
    /// less than another is not given; of what is liked alike the one that says more.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let (mut open, mut text, mut protobuf) = (0.0_f32, 0.0_f32, 0.0_f32);
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0, "1.0.0");
            let (mut proto, mut encoding) = ("", "");
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                let value = value.trim().trim_matches('"');
                match name.trim() {
                    "q" => quality = value.parse().unwrap_or(0.0),
                    "version" => version = value,
                    "proto" => proto = value,
                    "encoding" => encoding = value,
                    _ => {}
                }
            }
            // The drafts before 1.0 are told the same, as all who ask for them do.
            match kind.to_ascii_lowercase().as_str() {
                "application/openmetrics-text" if version.starts_with("1.") || version == "0.0.1" => {
                    open = open.max(quality);
                }
                "application/vnd.google.protobuf"
                    if proto == "io.prometheus.client.MetricFamily" && encoding == "delimited" =>
                {
                    protobuf = protobuf.max(quality);
                }
                "text/plain" => text = text.max(quality),
                _ => {}
            }
        }
        if protobuf > 0.0 && protobuf >= open.max(text) {
            return Self::Protobuf;
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What stands above the samples of a family whose samples have this name.
    pub fn push_head(self, text: &mut String, name: &str, kind: &str, help: &str) {
        if self != Self::OpenMetrics {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            return;
        }
        let (name, kind) = match (kind, name.strip_suffix("_info")) {
            ("gauge", Some(name)) => (name, "info"),
            ("counter", _) => (name.strip_suffix("_total").unwrap_or(name), kind),
            _ => (name, kind),
        };
        let _ = writeln!(text, "# TYPE {name} {kind}");
        let has = |unit: &&&str| name.strip_suffix(**unit).is_some_and(|name| name.ends_with('_'));
        if let Some(unit) = UNITS.iter().find(has) {
            let _ = writeln!(text, "# UNIT {name} {unit}");
        }
        let _ = write!(text, "# HELP {name} ");
        push_escaped(text, help);
        text.push('\n');
    }
}

/// Appends these families in OpenMetrics. They are counters and gauges, as [`super::family`] makes them.
pub(super) fn write(families: &[MetricFamily], text: &mut String) {
    for family in families {
        let is_counter = family.get_field_type() == MetricType::COUNTER;
        let kind = if is_counter { "counter" } else { "gauge" };
        Format::OpenMetrics.push_head(text, family.name(), kind, family.help());
        for metric in family.get_metric() {
            text.push_str(family.name());
            for (number, label) in metric.get_label().iter().enumerate() {
                text.push(if number == 0 { '{' } else { ',' });
                text.push_str(label.name());
                text.push_str("=\"");
                push_escaped(text, label.value());
                text.push('"');
            }
            text.push_str(if metric.get_label().is_empty() { " " } else { "} " });
            let value = if is_counter { metric.get_counter().get_value() } else { metric.get_gauge().get_value() };
            let _ = writeln!(text, "{value}");
        }
    }
}

/// Escapes a label's value, or a HELP of OpenMetrics: backslash, line feed and double quote, nothing else.
pub(super) fn push_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_it_gets_it() {
        let wants = |accept: &[&str]| {
            let headers = accept.iter().map(|value| (header::ACCEPT, value.parse().unwrap())).collect();
            Format::accepted(&headers) == Format::OpenMetrics
        };
        // Prometheus 2.42 and 2.5, and what other agents send.
        for accept in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.5, text/plain;q=0.5",
        ] {
            assert!(wants(&[accept]), "{accept}");
        }
        assert!(wants(&["text/html", "application/openmetrics-text"]));
        // Prometheus that knows native histograms.
        let protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let all = format!("{protobuf},application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5,*/*;q=0.1");
        let accepted =
            |accept: &str| Format::accepted(&[(header::ACCEPT, accept.parse().unwrap())].into_iter().collect());
        assert_eq!(accepted(&all), Format::Protobuf);
        assert_eq!(accepted(&all.replace("delimited", "text")), Format::OpenMetrics);
        assert_eq!(accepted(&format!("{protobuf};q=0.3,text/plain;q=0.5")), Format::Text);
        for accept in [
            "*/*",
            "text/plain",
            "application/*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=nonsense",
            "",
        ] {
            assert!(!wants(&[accept]), "{accept}");
        }
        assert!(!wants(&[]));
    }

    #[test]
    fn a_family_is_called_without_its_suffix() {
        let head = |name, kind| {
            let mut text = String::new();
            Format::OpenMetrics.push_head(&mut text, name, kind, "It is \"so\".");
            text
        };
        let help = "It is \\\"so\\\".";
        assert_eq!(head("a_total", "counter"), format!("# TYPE a counter\n# HELP a {help}\n"));
        assert_eq!(
            head("a_seconds_total", "counter"),
            format!("# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds {help}\n")
        );
        assert_eq!(
            head("a_bytes", "gauge"),
            format!("# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n# HELP a_bytes {help}\n")
        );
        assert_eq!(head("a_info", "gauge"), format!("# TYPE a info\n# HELP a {help}\n"));
        assert_eq!(head("megabytes", "gauge"), format!("# TYPE megabytes gauge\n# HELP megabytes {help}\n"));
    }
}
