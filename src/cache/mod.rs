//! Floor 4: answers of reads that are kept: their keys, what makes them whole, and where they are.
//! Must never decide what may be kept: the relay does.
//!
//! An answer is kept as the bytes that PostgreSQL sent ([`entry`]), under everything that they hang on ([`key`]), in one [`store`] for all
//! workers. It is taken from what a client is sent, and is kept only if it is whole and nothing but an answer ([`answer`]). It is good for a
//! time, or as long as nothing that it hangs on was changed ([`feed`], [`marks`]; of one row, where it reads no other: [`row`]) or is being written to ([`fence`]), and in any case until somebody says that it does not
//! count any more ([`signal`], [`pattern`], [`hearing`]). Some is asked for before anybody needs it ([`warm`]). Behind the store there may be another that processes share ([`remote`]).

pub mod aloft;
pub mod answer;
pub mod entry;
pub mod feed;
pub mod fence;
pub mod hearing;
pub mod key;
pub mod marks;
pub mod oldest;
pub mod pattern;
pub mod remote;
pub mod row;
pub mod seen;
pub mod shared;
pub mod signal;
pub mod store;
pub mod unseen;
pub mod warm;
pub mod worth;

pub use entry::{Account, Entry, Source, Stamp, Tenant};
pub use feed::{Feed, Traced};
pub use fence::{Fence, Fenced};
pub use hearing::Hearing;
pub use remote::Remote;
pub use shared::{Caches, StoreRef};
pub use signal::{Signal, Signals};
pub use store::{Demand, Put, Store};
pub use warm::{Outcome, Warming};
