//! Floor 2: numbers written by the workers and read by anybody: counters, histograms, statement shapes.
//! Never takes a lock, reads a clock or does I/O; a reader never makes a writer wait.
//!
//! Every number has **one writer**, the worker that owns it, which does `store(load + 1, Relaxed)`: a plain
//! move, no lock prefix. A second writer would lose updates (never memory safety). Readers see each number
//! monotonic, but two numbers read one after the other may be some samples apart.

mod by_shape;
mod cache;
pub mod counters;
mod exemplar;
pub mod histogram;
mod lanes;
mod lately;
mod notable;
pub mod pins;
pub mod registry;
mod remote;
mod sample;
mod shape_stats;
pub mod shapes;

pub use by_shape::ShapeSum;
pub use cache::{
    Bypass, CacheBound, CacheCounters, CacheGauges, Miss, SignalNumbers, StreamNumbers, Unkept, WarmNumbers,
};
pub use counters::{
    AuditNumbers, Counter, Gauge, PoolCounters, PoolTarget, Role, SharedCounter, TraceNumbers, WorkerGauge,
};
pub use exemplar::{Exemplar, Exemplars};
pub use histogram::{Histogram, HistogramSnapshot};
pub use lanes::{LaneCounters, Unfit};
pub use lately::Lately;
pub use pins::{Construct, PinBoard, PinCounters, PinLog, Pinned};
pub use registry::{DatabaseHealth, NotReady, Registry};
pub use remote::{RemoteCounters, RemoteMiss, RemoteWrite};
pub use sample::{ERROR_CLASSES, ErrorClass, Phase, Place, PoolLabel, Sample, Target};
pub use shape_stats::ShapeStats;
pub use shapes::{ShapeTable, ShapeView, SlotId};
