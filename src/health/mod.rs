//! Floor 6: how well it goes: the last hour, what is alarming, a score, and who is told.
//! Must never be waited for by a worker: it reads what they count, on the control thread.
//!
//! Every `[alerts] interval` one task takes a reading (`reading`), makes findings of it (`findings`: how each pool,
//! host, database and certificate does, held against its mark), and puts them on the board (`board`), which knows since when
//! something is so, and when it is over. What changes there is logged and sent
//! (`deliver` keeps it for each receiver until it is sent, `way` knows how: `webhook`, `email`, `notify`). Readers get copies: [`Watch`].
//!
//! Memory: 13 readings with a histogram of 1.6 KiB per database, and 360 points of the last hour of about 250 bytes.

mod board;
mod certificates;
mod deliver;
mod email;
mod findings;
mod history;
mod kind;
mod message;
mod notify;
mod reading;
mod score;
mod watch;
mod way;
mod webhook;

pub use board::{Alert, AlertState};
pub use deliver::Outcome;
pub use history::{HEAT_BOUNDS_US, Point, STEP};
pub use kind::{Kind, Severity, Unit};
pub use score::{Deduction, Health};
pub use watch::{Outcomes, Watch};
