//! One message of a client's, as far as it has come in.
//! Must never be taken for whole without asking.

use crate::wire::frame::{HEADER, Header};

/// One message of a client's.
pub(super) struct Message<'a> {
    /// Where it starts in the bytes at hand.
    pub at: usize,
    /// Type and length.
    pub header: Header,
    /// It and what follows, as far as it is here.
    pub data: &'a [u8],
}

impl<'a> Message<'a> {
    /// The body, if all of it is here.
    pub fn body(&self) -> Option<&'a [u8]> {
        self.data.get(HEADER..self.header.total)
    }

    /// The part of the body that is here.
    pub fn body_here(&self) -> &'a [u8] {
        self.data.get(HEADER..self.header.total.min(self.data.len())).unwrap_or_default()
    }
}
