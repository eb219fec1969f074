//! Floor 9: the program around the workers: command line, boot, signals, reload, logs.
//! Must never be needed by any floor below.

pub mod ask;
mod boot;
pub mod cli;
mod discover;
mod doors;
mod explain;
pub mod log;
mod notify;
mod reload;
mod run;
mod top;
mod warm_up;
