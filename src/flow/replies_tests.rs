//! Scripts of server bytes and what they must mean.
//! Must never look at private state that a caller could not see.
#![allow(clippy::unwrap_used)]
