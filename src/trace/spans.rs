//! Spans of statements as messages of OTLP, with the attributes of OpenTelemetry's conventions for databases.
//! Must never say more of a statement than its text without values.
//!
//! The attributes are those of "Semantic conventions for PostgreSQL client operations" (stable since 1.33, but for
//! `db.response.returned_rows`), and `client.*`, `network.*`, `server.*`; what is pgweir's own is called `pgweir.*`. The span of a
//! statement is of kind SERVER: here the trace reaches pgweir. The part that a server has is of kind CLIENT, and has what describes a call of
//! a database; waiting and the cache are INTERNAL. `db.namespace` is the database as the client names it, without a schema.
//! `error.type` is the SQLSTATE.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::context::{Context, Ids};
use super::request::{Request, Run, Times};
use crate::base::clock;
use crate::config::DEFAULT_PORT;
use crate::meter::ShapeSum;
use crate::sql::summary::summary;
use crate::sql::verdict::StatementKind;

/// Of which conventions the attributes are.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.33.0";
/// Flags of a span (OTLP, `SpanFlags`): recorded; whether its parent is of another process is known; it is.
const SAMPLED: u32 = 0x01;
const IS_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// Shapes whose summaries are kept; beyond that all are made anew.
const MAX_SHAPES: usize = 10_000;

/// What makes spans of statements.
#[derive(Debug, Default)]
pub(super) struct Maker {
    ids: Ids,
    summaries: HashMap<u64, Arc<str>>,
}

/// What the attributes of a call are made of.
struct Call<'a> {
    request: &'a Request,
    summary: Arc<str>,
    clock: Clock,
}

impl Maker {
    /// A message with the spans of these statements.
    pub fn message(&mut self, requests: &[Box<Request>], resource: Resource) -> ExportTraceServiceRequest {
        let clock = Clock::now();
        let mut spans = Vec::with_capacity(requests.iter().map(|request| request.spans() as usize).sum());
        requests.iter().for_each(|request| self.add(request, clock, &mut spans));
        let scope = InstrumentationScope {
            name: "pgweir".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let schema_url = SCHEMA.to_owned();
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: schema_url.clone() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url }];
        ExportTraceServiceRequest { resource_spans }
    }

    fn add(&mut self, request: &Request, clock: Clock, spans: &mut Vec<Span>) {
        let call = Call { request, summary: self.summary(request), clock };
        spans.push(call.request_span());
        let context = &request.context;
        if let Some(lookup) = &request.lookup {
            let mut all = Attributes::default();
            all.of_cache(request);
            all.0.push(pair("pgweir.cache.hit", Value::BoolValue(lookup.hit)));
            spans.push(self.part(context, "cache lookup", call.clock, lookup.times, all));
        }
        if let Some(times) = request.wait {
            let is_lane = request.run.as_ref().is_some_and(|run| run.abreast > 0);
            let name = if is_lane { "lane wait" } else { "pool wait" };
            spans.push(self.part(context, name, call.clock, times, Attributes::default()));
        }
        if let Some(run) = &request.run {
            let part = self.part(context, call.name(), call.clock, run.times, Attributes::default());
            spans.push(call.run_span(run, part));
        }
    }

    /// A part of what has `context`.
    fn part(&mut self, context: &Context, name: &str, clock: Clock, times: Times, all: Attributes) -> Span {
        Span {
            trace_id: context.trace.to_vec(),
            span_id: self.ids.span().to_vec(),
            parent_span_id: context.span.to_vec(),
            flags: SAMPLED | IS_KNOWN,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: clock.unix_ns(times.0),
            end_time_unix_nano: clock.unix_ns(times.1),
            attributes: all.0,
            ..Span::default()
        }
    }

    fn summary(&mut self, request: &Request) -> Arc<str> {
        let Some((text, _)) = &request.statement.known else { return Arc::default() };
        if self.summaries.len() >= MAX_SHAPES {
            self.summaries.clear();
        }
        let summary = self.summaries.entry(request.statement.shape).or_insert_with(|| summary(text).into());
        Arc::clone(summary)
    }
}

impl Call<'_> {
    /// "The span name SHOULD be {db.query.summary}", or else the name of the system.
    fn name(&self) -> &str {
        if self.summary.is_empty() { "postgresql" } else { &self.summary }
    }

    fn request_span(&self) -> Span {
        let Self { request, clock, .. } = self;
        let (context, session) = (&request.context, &request.session);
        let mut all = self.attributes();
        all.address(["server.address", "server.port"], session.local);
        all.address(["client.address", "client.port"], session.client);
        all.address(["network.peer.address", "network.peer.port"], session.peer);
        all.add("pgweir.user", session.user.as_str());
        if !session.application_name.is_empty() {
            all.add("pgweir.application_name", &*session.application_name);
        }
        if let Some(target) = &request.target {
            all.add("pgweir.target", &**target);
        }
        all.of_cache(request);
        if let Some(run) = &request.run {
            all.0.push(pair("pgweir.lane", Value::BoolValue(run.abreast > 0)));
        }
        let remote = if request.parent.is_some() { IS_REMOTE } else { 0 };
        Span {
            trace_id: context.trace.to_vec(),
            span_id: context.span.to_vec(),
            trace_state: request.parent.as_ref().map_or_else(String::new, |parent| parent.state.to_string()),
            parent_span_id: request.parent.as_ref().map_or_else(Vec::new, |parent| parent.context.span.to_vec()),
            flags: SAMPLED | IS_KNOWN | remote,
            name: self.name().to_owned(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: clock.unix_ns(request.times.0),
            end_time_unix_nano: clock.unix_ns(request.times.1),
            attributes: all.0,
            status: self.status(),
            ..Span::default()
        }
    }

    fn run_span(&self, run: &Run, part: Span) -> Span {
        let mut all = self.attributes();
        let (host, port) = server(&run.host);
        all.add("server.address", host);
        all.count("server.port", port.into());
        if run.abreast > 0 {
            all.count("pgweir.lane.abreast", run.abreast.into());
        }
        let first = Event {
            time_unix_nano: self.clock.unix_ns(run.first_us),
            name: "first byte".to_owned(),
            ..Event::default()
        };
        Span { kind: SpanKind::Client.into(), attributes: all.0, events: vec![first], status: self.status(), ..part }
    }

    /// What describes the call of a database.
    fn attributes(&self) -> Attributes {
        let request = self.request;
        let mut all = Attributes::default();
        all.add("db.system.name", "postgresql");
        all.add("db.namespace", request.session.database.as_str());
        if let Some((text, kind)) = &request.statement.known {
            all.add("db.query.text", &**text);
            if !self.summary.is_empty() {
                all.add("db.query.summary", &*self.summary);
            }
            if let Some(operation) = operation(*kind, &self.summary) {
                all.add("db.operation.name", operation);
            }
            if *kind == StatementKind::Select && request.error.is_none() {
                all.count("db.response.returned_rows", request.rows);
            }
        }
        if let Some(code) = &request.error {
            all.add("db.response.status_code", code.as_str());
            all.add("error.type", code.as_str());
        }
        all.add("pgweir.shape", ShapeSum::name(Some(request.statement.shape)));
        all.count("pgweir.rows", request.rows);
        all.count("pgweir.answer_bytes", request.bytes);
        all
    }

    fn status(&self) -> Option<Status> {
        let code = self.request.error.as_ref()?;
        Some(Status { message: format!("SQLSTATE {}", code.as_str()), code: StatusCode::Error.into() })
    }
}

/// What the grammar says that a statement does, where it is one.
fn operation(kind: StatementKind, summary: &str) -> Option<&str> {
    match kind {
        StatementKind::Empty | StatementKind::Many | StatementKind::Unknown => None,
        // WITH may have others in front.
        StatementKind::Select => Some("SELECT"),
        StatementKind::Insert => Some("INSERT"),
        StatementKind::Update => Some("UPDATE"),
        StatementKind::Delete => Some("DELETE"),
        StatementKind::Merge => Some("MERGE"),
        _ => summary.split(' ').next().filter(|word| !word.is_empty()),
    }
}

/// Host and port of what a server is called in the configuration, or the directory of its socket.
fn server(name: &str) -> (&str, u16) {
    let parted = name.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parted.unwrap_or((name, DEFAULT_PORT));
    (host.trim_matches(['[', ']']), port)
}

/// Attributes of a span.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &'static str, value: impl Into<String>) {
        self.0.push(pair(key, Value::StringValue(value.into())));
    }

    fn of_cache(&mut self, request: &Request) {
        if let Some(verdict) = &request.cache {
            self.add("pgweir.cache", verdict.as_str());
        }
    }

    fn count(&mut self, key: &'static str, value: u64) {
        self.0.push(pair(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))));
    }

    fn address(&mut self, [address, port]: [&'static str; 2], value: Option<SocketAddr>) {
        if let Some(value) = value {
            self.add(address, value.ip().to_canonical().to_string());
            self.count(port, value.port().into());
        }
    }
}

/// An attribute.
pub(super) fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What the clock of the workers says as the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When it began, nanoseconds since 1970.
    began_ns: u64,
}

impl Clock {
    /// By both clocks now; what was set meanwhile is made no account of.
    #[must_use]
    pub fn now() -> Self {
        let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { began_ns: (unix_ns as u64).saturating_sub(clock::now_us().saturating_mul(1000)) }
    }

    /// A moment in microseconds of [`crate::base::clock`] as nanoseconds since 1970.
    #[must_use]
    pub fn unix_ns(self, us: u64) -> u64 {
        self.began_ns.saturating_add(us.saturating_mul(1000))
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
