//! Sending files as they are read, with a count of what has gone.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::Body;

/// How many bytes have been handed to the connection so far. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<AtomicU64>);

impl Sent {
    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// A body of several sources one after the other, read on a thread of their own as fast as the daemon takes
/// them.
pub(crate) fn reading_body(sources: Vec<Box<dyn Read + Send>>, sent: Sent) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        for source in sources {
            if !pump(source, &sender) {
                return;
            }
        }
    });
    let frames = stream::unfold((receiver, sent), |(mut receiver, sent)| async move {
        let chunk = receiver.recv().await?;
        if let Ok(bytes) = &chunk {
            sent.add(bytes.len());
        }
        Some((chunk.map(Frame::data), (receiver, sent)))
    });
    BodyExt::boxed(StreamBody::new(frames))
}

/// Reads one source to its end; false when nobody listens any more.
fn pump(mut source: Box<dyn Read + Send>, sender: &mpsc::Sender<io::Result<Bytes>>) -> bool {
    loop {
        let mut buffer = vec![0; CHUNK];
        match source.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                buffer.truncate(count);
                if sender.blocking_send(Ok(buffer.into())).is_err() {
                    return false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // Nobody listening is the only failure, and then nobody wants to know.
                let _ = sender.blocking_send(Err(error));
                return false;
            }
        }
    }
}
