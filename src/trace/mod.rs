//! Floor 4: spans of statements for OpenTelemetry, and the task that sends them to a collector.
//! Must never keep a worker waiting, nor lose a span without counting it.
//!
//! A worker decides which statements are recorded ([`Sampler`]), and hands each of them in as one piece when it is over ([`Request`], [`Desk`]); what it
//! comes to as spans is made out on the control thread, which also converts the time. The queue has a bounded length, and who hands
//! something in wakes nobody until there is enough for a message: the task comes by itself after `interval`. Numbers are
//! those of OpenTelemetry's Batch Span Processor, counted in statements instead of spans.
//!
//! One message is under way at a time. One that could not be sent is tried again, at growing intervals, as long as the protocol allows it and it is not too
//! old; then it is given up, and the next one's turn comes.

mod context;
mod request;
mod send;
mod spans;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

pub use self::context::{Context, Ids, Parent, Sampler, SpanId, TraceId};
pub use self::request::{Lookup, Request, Run, Session, Statement, Times};
pub use self::spans::Clock;

use self::send::{Failure, Link};
use self::spans::{Maker, pair};
use crate::config::Traces;
use crate::meter::TraceNumbers;

/// Statements that wait to be sent at most (`OTEL_BSP_MAX_QUEUE_SIZE`).
const QUEUE: usize = 2048;
/// Spans in a message at most (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
const BATCH_SPANS: u64 = 512;
/// Spans that a statement comes to at most.
const PARTS: u64 = 4;
/// So many statements are worth a message at once.
const BATCH: usize = (BATCH_SPANS / PARTS) as usize;
/// Before the second attempt, and at most between two; each pause is twice the one before.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// For how long a message is tried.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// Longest pause that a collector may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(300);

/// What the task is to do.
#[derive(Clone, Debug)]
enum Order {
    /// Send there; `None`: nowhere.
    Send(Option<Traces>),
    /// Send what there is, and end.
    End,
}

/// Where statements are handed in.
#[derive(Debug)]
pub struct Desk {
    requests: mpsc::Sender<Box<Request>>,
    orders: watch::Sender<Order>,
    enough: Arc<Notify>,
    numbers: Arc<TraceNumbers>,
}

impl Default for Desk {
    /// Nobody sends what is handed in.
    fn default() -> Self {
        let (requests, orders) = (mpsc::channel(1).0, watch::Sender::new(Order::End));
        Self { requests, orders, enough: Arc::default(), numbers: Arc::default() }
    }
}

impl Desk {
    /// Hands a statement in; its spans are counted as dropped if there is no room for it.
    pub fn tell(&self, request: Box<Request>) {
        let spans = request.spans();
        if self.requests.try_send(request).is_err() {
            self.numbers.dropped.add(spans);
        }
        // Of the task's sleep nobody is told until it is worth it.
        if self.requests.max_capacity() - self.requests.capacity() >= BATCH {
            self.enough.notify_one();
        }
    }

    /// From now on it is sent as the configuration says.
    pub fn reconfigure(&self, config: Option<&Traces>) {
        self.orders.send_replace(Order::Send(config.cloned()));
    }

    /// What has been handed in is sent, and then nothing more.
    pub fn end(&self) {
        self.orders.send_replace(Order::End);
    }
}

/// A message on its way.
#[derive(Debug)]
struct Parcel {
    bytes: Bytes,
    spans: u64,
    /// When it was made.
    since: Instant,
    pause: Duration,
}

/// The task that sends.
pub struct Courier {
    requests: mpsc::Receiver<Box<Request>>,
    orders: watch::Receiver<Order>,
    enough: Arc<Notify>,
    numbers: Arc<TraceNumbers>,
    config: Option<Traces>,
    instance: String,
    maker: Maker,
    ids: Ids,
    link: Link,
    parcel: Option<Parcel>,
    /// Nothing is sent before.
    next: Instant,
    /// What was said of it last: the same is not said again.
    told: String,
}

/// The two ends of the queue.
#[must_use]
pub fn open(config: Option<&Traces>, numbers: &Arc<TraceNumbers>) -> (Desk, Courier) {
    let (requests, queue) = mpsc::channel(QUEUE);
    let (orders, heard) = watch::channel(Order::Send(config.cloned()));
    let enough = Arc::new(Notify::new());
    let desk = Desk { requests, orders, enough: Arc::clone(&enough), numbers: Arc::clone(numbers) };
    let mut ids = Ids::default();
    let courier = Courier {
        requests: queue,
        orders: heard,
        enough,
        numbers: Arc::clone(numbers),
        config: config.cloned(),
        instance: instance(&mut ids),
        maker: Maker::default(),
        ids,
        link: Link::default(),
        parcel: None,
        next: Instant::now(),
        told: String::new(),
    };
    (desk, courier)
}

/// A random UUID (RFC 9562, version 4), as `service.instance.id` is to be where nothing better is known.
fn instance(ids: &mut Ids) -> String {
    let number = u128::from(ids.draw()) << 64 | u128::from(ids.draw());
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| digits.get(part).unwrap_or_default());
    parts.join("-")
}

impl Courier {
    /// Sends until it is told to end, or nobody is left who might hand something in.
    pub async fn run(mut self) {
        let enough = Arc::clone(&self.enough);
        loop {
            let waits = self.parcel.is_some();
            let pause = self.config.as_ref().map_or(Traces::INTERVAL, |config| config.interval);
            let due = if waits { self.next } else { self.next.max(Instant::now() + pause) };
            tokio::select! {
                biased;
                changed = self.orders.changed() => {
                    let order = self.orders.borrow_and_update().clone();
                    let ends = changed.is_err() || matches!(order, Order::End);
                    if ends {
                        self.requests.close();
                    }
                    // What was handed in under the old configuration goes where that says, as far as it goes at once.
                    self.deliver_all().await;
                    match order {
                        Order::Send(config) if !ends => self.reconfigure(config),
                        _ => return self.give_up_all(),
                    }
                }
                () = sleep_until(due), if self.config.is_some() => self.deliver(false).await,
                // While one waits for another attempt, more does not matter.
                () = enough.notified(), if !waits && self.next <= Instant::now() => self.deliver(true).await,
            }
        }
    }

    fn reconfigure(&mut self, config: Option<Traces>) {
        if config.is_none() {
            self.give_up_all();
        }
        self.link = Link::default();
        self.told.clear();
        self.next = Instant::now();
        self.config = config;
    }

    /// Sends what has gathered; `whole`: only as long as it fills messages.
    async fn deliver(&mut self, whole: bool) {
        loop {
            if self.parcel.is_none() && !(whole && self.requests.len() < BATCH) {
                self.parcel = self.pack();
            }
            if self.parcel.is_none() || !self.attempt().await {
                return;
            }
        }
    }

    /// Sends all that there is, up to the first that fails; that one is tried again later.
    async fn deliver_all(&mut self) {
        if let Some(parcel) = &mut self.parcel {
            parcel.pause = PAUSES[0];
        }
        self.deliver(false).await;
    }

    /// A message of what has gathered, if anything has.
    fn pack(&mut self) -> Option<Parcel> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut spans = 0;
        while spans + PARTS <= BATCH_SPANS
            && let Ok(request) = self.requests.try_recv()
        {
            spans += request.spans();
            batch.push(request);
        }
        let Some(config) = self.config.as_ref().filter(|_| !batch.is_empty()) else {
            // It was turned off meanwhile.
            self.numbers.dropped.add(spans);
            return None;
        };
        let text = |key, value: &str| pair(key, Value::StringValue(value.to_owned()));
        let attributes = vec![
            text("service.name", &config.service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &self.instance),
            pair("process.pid", Value::IntValue(std::process::id().into())),
        ];
        let message = self.maker.message(&batch, Resource { attributes, ..Resource::default() });
        let bytes = Bytes::from(message.encode_to_vec());
        Some(Parcel { bytes, spans, since: Instant::now(), pause: PAUSES[0] })
    }

    /// Tries to send the message; whether it is done with.
    async fn attempt(&mut self) -> bool {
        let (Some(config), Some(mut parcel)) = (&self.config, self.parcel.take()) else { return true };
        let sent = timeout(config.timeout, Box::pin(self.link.send(config, parcel.bytes.clone()))).await;
        let late = || Err(Failure::Later(format!("no answer within {} s", config.timeout.as_secs_f32()), None));
        let spans = parcel.spans;
        match sent.unwrap_or_else(|_| late()) {
            Ok(answer) => {
                let rejected = answer.partial_success.map_or(0, |part| part.rejected_spans.max(0) as u64).min(spans);
                self.numbers.exported.add(spans - rejected);
                self.numbers.dropped.add(rejected);
                match rejected {
                    0 => self.told.clear(),
                    _ => self.say(format!("the collector has rejected spans: {rejected} of {spans}")),
                }
            }
            Err(Failure::Later(why, asked)) => {
                self.numbers.failures.add(1);
                // So that not all who send to one collector come back at one moment.
                let part = 0.75 + (self.ids.draw() >> 40) as f64 / f64::from(1 << 25);
                let pause = asked.unwrap_or_default().min(ASKED_PAUSE_MAX).max(parcel.pause.mul_f64(part));
                self.next = Instant::now() + pause;
                self.say(format!("spans could not be sent, which is tried again: {why}"));
                if parcel.since.elapsed() + pause <= TRIED_FOR {
                    parcel.pause = (parcel.pause * 2).min(PAUSES[1]);
                    self.parcel = Some(parcel);
                } else {
                    self.numbers.dropped.add(spans);
                }
                return false;
            }
            Err(Failure::Never(why)) => {
                self.numbers.failures.add(1);
                self.numbers.dropped.add(spans);
                self.say(format!("spans were refused and are dropped: {why}"));
            }
        }
        true
    }

    fn say(&mut self, what: String) {
        if what != self.told {
            let to = self.config.as_ref().map(Traces::authority).unwrap_or_default();
            tracing::warn!("traces to {to}: {what}");
            self.told = what;
        }
    }

    /// What could not be sent never will be.
    fn give_up_all(&mut self) {
        let mut spans = self.parcel.take().map_or(0, |parcel| parcel.spans);
        while let Ok(request) = self.requests.try_recv() {
            spans += request.spans();
        }
        self.numbers.dropped.add(spans);
    }
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
