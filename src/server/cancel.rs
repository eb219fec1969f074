//! Asks a server to cancel what a connection of ours is running.
//! Must never return before the server has closed the cancel connection: only then can the signal
//! no longer hit what runs next (`reference/defects.md` entry 20).

use std::io;

use super::open::{BackendKey, Dial, Encrypt, OpenError};
use super::stream::Stream;
use crate::wire::build;

/// Sends a CancelRequest and waits until the server has closed the connection.
///
/// # Errors
/// The server could not be reached; nothing was cancelled.
pub async fn cancel(dial: &Dial, key: &BackendKey) -> Result<(), OpenError> {
    let work = async {
        // Sent in plain, as libpq did until version 17: a server reads it before any rule about TLS.
        let mut stream = Stream::new(dial.connect(Encrypt::No).await?);
        let mut request = Vec::new();
        build::cancel(&mut request, key.pid, &key.secret);
        stream.send(&request).await?;
        stream.closed().await;
        Ok(())
    };
    let timed_out = || OpenError::Io(io::ErrorKind::TimedOut.into());
    tokio::time::timeout(dial.timeout, work).await.unwrap_or_else(|_| Err(timed_out()))
}
