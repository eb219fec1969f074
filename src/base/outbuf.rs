//! Bytes that a socket would not take yet.
//! Must never grow without a bound: whoever appends checks [`OutBuf::len`] against its limit.

/// A byte queue that is empty, and owns no memory, almost always.
#[derive(Debug, Default)]
pub struct OutBuf {
    bytes: Vec<u8>,
    head: usize,
}

impl OutBuf {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes waiting, oldest first.
    pub fn pending(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.head > 0 && self.head >= self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops the first `n` bytes; gives the memory back when nothing is left.
    pub fn consume(&mut self, n: usize) {
        self.head = (self.head + n).min(self.bytes.len());
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_frees_when_drained() {
        let mut q = OutBuf::default();
        q.push(b"hello ");
        q.push(b"world");
        q.consume(6);
        assert_eq!(q.pending(), b"world");
        q.push(b"!");
        assert_eq!(q.pending(), b"world!");
        q.consume(6);
        assert!(q.is_empty());
        assert_eq!(q.bytes.capacity(), 0);
    }
}
