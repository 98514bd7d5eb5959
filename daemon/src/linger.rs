//! A request whose body nobody reads to its end: what the client still sends is taken and thrown away for a while after
//! the answer. A connection closed under a client that is writing takes the answer with it: the client sees a broken pipe
//! where the reason of a refusal should be (as nginx's `lingering_close`).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use crate::limits;

/// The body of a request, which is read on when it is dropped before its end.
pub struct Lingering {
    body: Option<Incoming>,
    /// Nothing is sent before it is asked for, and nobody has.
    unasked: bool,
}

impl Lingering {
    /// The body of the request with these headers.
    pub fn new(body: Incoming, headers: &HeaderMap) -> Lingering {
        Lingering { body: Some(body), unasked: headers.contains_key(header::EXPECT) }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.unasked = false;
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.unasked && !body.is_end_stream()) else {
            return;
        };
        // Outside the runtime there is no connection either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(timeout(limits::LINGER, throw_away(body)));
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut left = limits::LINGER_BYTES;
    while let Ok(Some(Ok(frame))) = timeout(limits::LINGER_IDLE, body.frame()).await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(taken) else { return };
        left = rest;
    }
}
