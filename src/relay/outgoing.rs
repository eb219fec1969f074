//! Bytes on their way from a client to its server, and what is put among them.
//! Must never copy what goes out as it came.

use crate::wire::frame::{HEADER, Header};

/// Bytes going out: ranges of what came in, with pieces replaced.
pub(super) struct Outgoing<'a> {
    pub data: &'a [u8],
    /// Start of the range that is to go out as it came.
    from: usize,
    /// Something was replaced, or `tx` held something before: everything goes by way of `tx`.
    edited: bool,
    pub tx: Vec<u8>,
    /// The client asked for the replies so far.
    pub flushed: bool,
    /// The message at hand begins a batch.
    pub begins: bool,
    /// Where the batch at hand began, if it may be kept to be run again.
    pub kept_from: Option<usize>,
    /// It may come to nothing through no fault of its own: it uses a statement that was prepared before, or goes to a
    /// replica.
    pub may_fail: bool,
    /// The batch may be run elsewhere.
    pub movable: bool,
}

impl<'a> Outgoing<'a> {
    /// Nothing yet, of bytes that a client sent; what stands in `tx` goes ahead of them.
    pub fn new(data: &'a [u8], tx: Vec<u8>) -> Self {
        Self {
            data,
            from: 0,
            edited: false,
            tx,
            flushed: false,
            begins: false,
            kept_from: None,
            may_fail: false,
            movable: false,
        }
    }

    /// Bytes that go out behind those in `tx`.
    pub fn behind(data: &'a [u8], tx: Vec<u8>) -> Self {
        Self { edited: true, ..Self::new(data, tx) }
    }

    /// The message at `at` has the name at `offset` in it replaced, of `old` bytes; what is behind that goes out as it came.
    pub fn rename(&mut self, at: usize, header: &Header, old: usize, new: &[u8], offset: usize) {
        self.edit(at, offset + old + 1);
        let total = header.total - old + new.len();
        self.tx.push(header.tag);
        self.tx.extend_from_slice(&((total - 1) as u32).to_be_bytes());
        self.tx.extend_from_slice(self.data.get(at + HEADER..at + offset).unwrap_or_default());
        self.tx.extend_from_slice(new);
        self.tx.push(0);
    }

    /// Everything before `at` goes out as it came, the `skip` bytes there do not; what replaces
    /// them is then appended to `tx`.
    pub fn edit(&mut self, at: usize, skip: usize) {
        self.tx.extend_from_slice(self.data.get(self.from..at).unwrap_or_default());
        self.from = at + skip;
        self.edited = true;
    }

    /// Ends the last raw range at `at`. When nothing was edited the range stays where it is.
    pub fn edit_end(&mut self, at: usize) {
        if self.edited || !self.tx.is_empty() {
            self.edit(at, 0);
        } else {
            self.from = at;
        }
    }

    /// All that goes out, once it has ended.
    pub fn bytes(&self) -> &[u8] {
        if self.edited { &self.tx } else { self.data.get(..self.from).unwrap_or_default() }
    }
}
