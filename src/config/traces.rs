//! `[traces]`: where spans are sent, and of which statements.
//! Must never show what goes into a header: keys of collectors stand there.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::uri::Scheme;
use axum::http::{HeaderName, Uri};
use toml::Spanned;
use toml::de::DeValue;

use super::check::Check;
use super::discover::Interval;
use super::email::is_loopback;
use super::leaf::{FilePath, RawSecret, Share, Text, Timeout, Word};
use super::reader::{Field, Leaf, Named, Reader, join, section};
use super::words::words;
use crate::base::secret::Secret;

words! {
    /// How spans are sent (OpenTelemetry Protocol Exporter, `OTEL_EXPORTER_OTLP_PROTOCOL`).
    pub enum OtlpProtocol {
        /// Protobuf over HTTP/1.1.
        Http = "http/protobuf",
        /// gRPC over HTTP/2.
        Grpc = "grpc",
    }
    refused {
        "http/json" => "OTLP in JSON",
    }
}

impl OtlpProtocol {
    /// The port that collectors listen on (OTLP 1.x, "OTLP/gRPC Default Port", "OTLP/HTTP Default Port").
    const fn port(self) -> u16 {
        match self {
            Self::Http => 4318,
            Self::Grpc => 4317,
        }
    }
}

section! {
    /// `[traces]`
    RawTraces {
        endpoint: Text,
        protocol: Word<OtlpProtocol>,
        headers: Named<RawSecret>,
        ca_file: FilePath,
        ratio: Share,
        parent: bool,
        service_name: Text,
        interval: Interval,
        timeout: Timeout,
    }
}

/// `[traces]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Over TLS.
    pub tls: bool,
    /// The collector: a name or address, without brackets.
    pub host: String,
    /// Its port. Default 4318 or 4317, by [`Traces::protocol`]; with TLS 443.
    pub port: u16,
    /// Where traces go there; empty for [`OtlpProtocol::Grpc`]. Default `/v1/traces`.
    pub path: String,
    /// Default [`OtlpProtocol::Http`].
    pub protocol: OtlpProtocol,
    /// Sent with every request, names in lower case. Default: none.
    pub headers: Vec<(String, Secret)>,
    /// Certificates that may sign the collector's, PEM. Default: those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The part of statements that is traced of those that belong to no trace. Default 0.01.
    pub ratio: f64,
    /// A `traceparent` in a comment decides instead, and is whose child the statement is. Default true.
    pub parent: bool,
    /// `service.name`. Default `pgweir`.
    pub service_name: String,
    /// How long spans are gathered at most. Default 5 s, at least 100 ms.
    pub interval: Duration,
    /// How long one attempt to send may take. Default 10 s; never 0.
    pub timeout: Duration,
}

impl Traces {
    /// Default of [`Traces::ratio`].
    pub const RATIO: f64 = 0.01;
    /// Default of [`Traces::service_name`].
    pub const SERVICE_NAME: &str = "pgweir";
    /// Default of [`Traces::interval`]: that of `OTEL_BSP_SCHEDULE_DELAY` (OpenTelemetry, Batch Span Processor).
    pub const INTERVAL: Duration = Duration::from_secs(5);
    /// Default of [`Traces::timeout`]: that of `OTEL_EXPORTER_OTLP_TIMEOUT`.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Scheme, host and port, as a URL and the header `Host` have them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// TLS or not, host, port and path of a URL.
fn place(text: &str, protocol: OtlpProtocol) -> Option<(bool, String, u16, String)> {
    let uri: Uri = text.parse().ok()?;
    let tls = *uri.scheme()? == Scheme::HTTPS;
    let authority = uri.authority()?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let port = match authority.port() {
        Some(_) => authority.port_u16().filter(|port| *port != 0)?,
        // A colon with something else behind it.
        None if authority.as_str() != authority.host() => return None,
        // What is reached over the Internet is where that always is.
        None if tls => 443,
        None => protocol.port(),
    };
    let path = match (uri.path_and_query().map_or("/", |path| path.as_str()), protocol) {
        ("/", OtlpProtocol::Grpc) => String::new(),
        // What stands for all signals (OTLP Exporter, "Endpoint URLs for OTLP/HTTP").
        ("/", OtlpProtocol::Http) => "/v1/traces".to_owned(),
        (path, _) => path.to_owned(),
    };
    let plain = !authority.as_str().contains('@') && !host.is_empty() && (tls || *uri.scheme()? == Scheme::HTTP);
    plain.then_some((tls, host, port, path))
}

impl Check<'_> {
    pub(super) fn traces(&mut self, raw: Field<RawTraces>) -> Option<Traces> {
        let Field::Set(raw, span) = raw else { return None };
        let expected = r#"such as "http://127.0.0.1:4318", without a user or password"#;
        if raw.endpoint.is_absent() {
            self.reader
                .note(span, "`[traces]` has no endpoint", |problem| problem.expected(format!("endpoint, {expected}")));
        }
        self.authorities_of("traces.ca_file", &raw.ca_file);
        let headers = self.headers(raw.headers);
        let protocol = raw.protocol.word(OtlpProtocol::Http)?;
        let at = raw.endpoint.span()?;
        let Some((tls, host, port, path)) = place(&raw.endpoint.set()?.0, protocol) else {
            let title = "`traces.endpoint` is no URL that pgweir understands";
            self.reader.note(at, title, |problem| problem.expected(expected));
            return None;
        };
        if protocol == OtlpProtocol::Grpc && !path.is_empty() {
            let title = "`traces.endpoint` has a path, which gRPC has no place for";
            let expected = "host and port only, or protocol = \"http/protobuf\"";
            self.reader.note(at.clone(), title, |problem| problem.expected(expected));
        }
        if !tls && !headers.is_empty() && !is_loopback(&host) {
            let title = "`traces.headers` go over the network in the clear";
            self.reader.warn(at, title, "an endpoint that begins with https://");
        }
        Some(Traces {
            tls,
            host,
            port,
            path,
            protocol,
            headers,
            ca_file: self.file(raw.ca_file),
            ratio: raw.ratio.set().map_or(Traces::RATIO, |share| share.0),
            parent: raw.parent.set().unwrap_or(true),
            service_name: raw.service_name.set().map_or_else(|| Traces::SERVICE_NAME.to_owned(), |name| name.0),
            interval: raw.interval.set().map_or(Traces::INTERVAL, |interval| interval.0),
            timeout: raw.timeout.set().map_or(Traces::TIMEOUT, |timeout| timeout.0),
        })
    }

    fn headers(&mut self, raw: Field<Named<RawSecret>>) -> Vec<(String, Secret)> {
        let mut headers = Vec::new();
        for (name, span, raw) in raw.set().unwrap_or_default().0 {
            let Some(raw) = raw else { continue };
            // What says how a message is to be read is not for others to say; nor can gRPC take bytes as text.
            let own = ["content-type", "content-length", "host", "te", "transfer-encoding", "connection", "user-agent"];
            let lower = name.to_ascii_lowercase();
            let is_name = HeaderName::from_bytes(lower.as_bytes()).is_ok() && !lower.ends_with("-bin");
            if !is_name || own.contains(&lower.as_str()) || lower.starts_with("grpc-") {
                let title = format!("`{name}` is no header that can be set for traces");
                self.reader
                    .note(span.clone(), title, |problem| problem.expected("such as \"authorization\", \"x-api-key\""));
            }
            let Some(value) = self.secret(Field::Set(raw, span.clone())) else { continue };
            if !value.expose().bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                let title = format!("the value of `{name}` in `traces.headers` does not fit into a header");
                self.reader.note(span, title, |problem| problem.expected("printable ASCII characters"));
            }
            headers.push((lower, value));
        }
        headers
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    const REST: &str = "[databases.d]\nprimary = \"h\"\n[users.u]\npassword = \"x\"\n";

    fn parsed(lines: &str) -> Result<Config, String> {
        Config::parse(&format!("[traces]\n{lines}\n{REST}"), "f.toml").map_err(|problems| problems.to_string())
    }

    fn traces(lines: &str) -> Traces {
        parsed(lines).unwrap_or_else(|problems| panic!("{problems}")).traces.unwrap()
    }

    #[test]
    fn there_are_none_unless_they_are_asked_for() {
        assert_eq!(Config::parse(REST, "f.toml").map_err(|it| it.to_string()).unwrap().traces, None);
    }

    #[test]
    fn all_of_it_is_taken_over() {
        let found = traces(
            "endpoint = \"https://otel.example:4443/otlp\"\nheaders = { X-Api-Key = \"hunter2\", authorization = \"Bearer b\" }\n\
             ratio = 1\nparent = false\nservice_name = \"edge\"\ninterval = \"1s\"\ntimeout = \"2s\"",
        );
        let secret = |text: &str| Secret::new(text.to_owned());
        let headers =
            vec![("x-api-key".to_owned(), secret("hunter2")), ("authorization".to_owned(), secret("Bearer b"))];
        let expected = Traces {
            tls: true,
            host: "otel.example".to_owned(),
            port: 4443,
            path: "/otlp".to_owned(),
            protocol: OtlpProtocol::Http,
            headers,
            ca_file: None,
            ratio: 1.0,
            parent: false,
            service_name: "edge".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
        };
        assert_eq!(found, expected);
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn ports_and_paths_are_those_of_collectors() {
        let place = |lines: &str| {
            let found = traces(lines);
            format!("{}{}", found.authority(), found.path)
        };
        assert_eq!(place("endpoint = \"http://c\""), "c:4318/v1/traces");
        assert_eq!(place("endpoint = \"http://c/\"\nprotocol = \"grpc\""), "c:4317");
        assert_eq!(place("endpoint = \"https://c\"\nprotocol = \"grpc\""), "c:443");
        assert_eq!(place("endpoint = \"HTTP://[::1]:1/a?b=c\""), "[::1]:1/a?b=c");
        let found = traces("endpoint = \"http://c\"");
        assert_eq!((found.ratio, found.parent, found.service_name.as_str()), (0.01, true, "pgweir"));
        assert_eq!((found.interval, found.timeout), (Traces::INTERVAL, Traces::TIMEOUT));
    }

    #[test]
    fn what_cannot_be_is_said() {
        let said = |lines: &str| parsed(lines).unwrap_err();
        let with = |lines: &str| said(&format!("endpoint = \"http://c\"\n{lines}"));
        assert!(said("ratio = 1").contains("`[traces]` has no endpoint"));
        for endpoint in ["c:4318", "ftp://c", "http://", "http://u@c", "http://c:0", "http://c:x", "/v1/traces"] {
            let said = said(&format!("endpoint = \"{endpoint}\""));
            assert!(said.contains("`traces.endpoint` is no URL that pgweir understands"), "{endpoint}: {said}");
        }
        let grpc = said("endpoint = \"http://c/v1/traces\"\nprotocol = \"grpc\"");
        assert!(grpc.contains("has a path, which gRPC has no place for"), "{grpc}");
        assert!(with("protocol = \"http/json\"").contains("OTLP in JSON is not part of this version"));
        assert!(with("ratio = 1.5").contains("a number from 0 to 1"));
        assert!(with("interval = \"10ms\"").contains("at least \"100ms\""));
        for name in ["a b", "Content-Type", "grpc-timeout", "trace-bin", "Host"] {
            let said = with(&format!("headers = {{ \"{name}\" = \"hunter2\" }}"));
            assert!(said.contains(&format!("`{name}` is no header that can be set")), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        let said = with("headers = { a = \"hunter\\n2\" }");
        assert!(said.contains("does not fit into a header") && !said.contains("hunter"), "{said}");
    }

    #[test]
    fn keys_in_the_clear_are_warned_of() {
        let warned = |endpoint: &str| {
            let config = parsed(&format!("endpoint = \"{endpoint}\"\nheaders = {{ key = \"x\" }}")).unwrap();
            config.warnings.to_string().contains("`traces.headers` go over the network in the clear")
        };
        assert!(warned("http://collector:4318"));
        assert!(!warned("http://localhost:4318") && !warned("https://collector"));
    }
}
