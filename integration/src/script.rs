//! Builds what a client sends, message by message.
//! It must never check anything: a test may want to send nonsense.

/// Builds the bytes of several messages, to be sent in one write.
#[derive(Debug, Default, Clone)]
pub struct Script(Vec<u8>);

impl Script {
    /// No message yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes built so far.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// This script, then `other`.
    #[must_use]
    pub fn append(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// A message with any tag and body.
    #[must_use]
    pub fn raw(mut self, tag: u8, body: &[u8]) -> Self {
        self.0.push(tag);
        self.0.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        self.0.extend_from_slice(body);
        self
    }

    /// Query.
    #[must_use]
    pub fn query(self, sql: &str) -> Self {
        self.raw(b'Q', &[sql.as_bytes(), b"\0"].concat())
    }

    /// Parse, with every parameter type left to the server.
    #[must_use]
    pub fn parse(self, statement: &str, sql: &str) -> Self {
        self.raw(b'P', &[statement.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
    }

    /// Bind of text parameters (`None` is NULL), with text results.
    #[must_use]
    pub fn bind(self, portal: &str, statement: &str, values: &[Option<&str>]) -> Self {
        let mut body = [portal.as_bytes(), b"\0", statement.as_bytes(), b"\0\0\0"].concat();
        body.extend_from_slice(&(values.len() as u16).to_be_bytes());
        for value in values {
            let length = value.map_or(-1, |text| text.len() as i32);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.unwrap_or_default().as_bytes());
        }
        body.extend_from_slice(&[0, 0]);
        self.raw(b'B', &body)
    }

    /// Describe of a statement (`b'S'`) or a portal (`b'P'`).
    #[must_use]
    pub fn describe(self, kind: u8, name: &str) -> Self {
        self.raw(b'D', &[&[kind], name.as_bytes(), b"\0"].concat())
    }

    /// Execute of a portal, at most `rows` rows (0: all).
    #[must_use]
    pub fn execute(self, portal: &str, rows: u32) -> Self {
        self.raw(b'E', &[portal.as_bytes(), b"\0", &rows.to_be_bytes()].concat())
    }

    /// Close of a statement (`b'S'`) or a portal (`b'P'`).
    #[must_use]
    pub fn close(self, kind: u8, name: &str) -> Self {
        self.raw(b'C', &[&[kind], name.as_bytes(), b"\0"].concat())
    }

    /// Sync.
    #[must_use]
    pub fn sync(self) -> Self {
        self.raw(b'S', &[])
    }

    /// Flush.
    #[must_use]
    pub fn flush(self) -> Self {
        self.raw(b'H', &[])
    }

    /// CopyData.
    #[must_use]
    pub fn copy_data(self, data: &[u8]) -> Self {
        self.raw(b'd', data)
    }

    /// CopyDone.
    #[must_use]
    pub fn copy_done(self) -> Self {
        self.raw(b'c', &[])
    }

    /// CopyFail.
    #[must_use]
    pub fn copy_fail(self, reason: &str) -> Self {
        self.raw(b'f', &[reason.as_bytes(), b"\0"].concat())
    }

    /// Terminate.
    #[must_use]
    pub fn terminate(self) -> Self {
        self.raw(b'X', &[])
    }
}
