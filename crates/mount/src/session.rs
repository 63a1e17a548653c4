//! A mounted file system: reads requests from the device, has the bridge answer them, ends when the kernel unmounts.
//!
//! One task reads, in the runtime that also drives the volume's sockets: a request is taken, sent to the bricks and
//! answered by the same thread when only one is busy, and a second thread joins when there is more to do. Requests run as
//! tasks of their own, so none waits for another.

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::bridge::{Bridge, Interrupted, Response};
use crate::kernel::device::{Device, ReadBuffer, Received};
use crate::kernel::init::{InitRequest, Wishes, negotiate};
use crate::kernel::reply::{Answer, Body};
use crate::kernel::request::{Operation, Request};
use mortar_types::Errno;

/// What wakes the reader: a request, or the end of the mount, which the device reports as an error only.
const EVENTS: Interest = Interest::READABLE.add(Interest::ERROR);

/// So many requests are taken while others wait for the thread.
const REQUESTS_AT_ONCE: u32 = 16;

/// How long unmounting waits for releases and the like.
const FINISH_WAIT: Duration = Duration::from_secs(10);

/// Requests that wait for a lock and can be interrupted, by their unique number.
#[derive(Debug, Default)]
struct Waiting {
    by_unique: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Waiting {
    fn register(&self, request: &Request) -> Option<Interrupted> {
        if !matches!(request.operation, Operation::Setlk { wait: true, .. }) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.by_unique.lock().insert(request.header.unique, sender);
        Some(receiver)
    }

    fn interrupt(&self, unique: u64) {
        if let Some(sender) = self.by_unique.lock().remove(&unique) {
            // The request may have been answered at this moment.
            let _ = sender.send(());
        }
    }

    fn done(&self, unique: u64) {
        self.by_unique.lock().remove(&unique);
    }
}

/// The session of one mount.
#[derive(Debug)]
pub struct Session {
    device: Arc<AsyncFd<Arc<Device>>>,
    bridge: Arc<Bridge>,
    waiting: Arc<Waiting>,
    buffer: ReadBuffer,
}

/// Why a session could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel's FUSE is too old: Linux 5.11 or newer is needed")]
    KernelTooOld,
    #[error("the mount was taken away before it was ready")]
    Unmounted,
    #[error("cannot read /dev/fuse")]
    Device(#[from] io::Error),
}

impl Session {
    /// Agrees with the kernel on the protocol. The device must have been mounted; to be called inside the runtime.
    pub async fn begin(device: Arc<Device>, bridge: Arc<Bridge>, wishes: &Wishes) -> Result<Self, Error> {
        let payload_bytes_max = wishes.transfer_bytes_max as usize;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; here the file lives exactly as long as its registration"
        )]
        let device = AsyncFd::with_interest(device, EVENTS)?;
        let mut session = Self {
            device: Arc::new(device),
            bridge,
            waiting: Arc::default(),
            buffer: ReadBuffer::new(payload_bytes_max),
        };
        let message = loop {
            match session.device.get_ref().receive(&mut session.buffer)? {
                Received::Message(message) => break message,
                Received::Unmounted => return Err(Error::Unmounted),
                Received::Empty => session.device.ready(EVENTS).await?.clear_ready(),
            }
        };
        let offer = InitRequest::parse(&message).ok_or(Error::KernelTooOld)?;
        let agreed = negotiate(&offer, wishes);
        tracing::debug!(?offer, ?agreed, "FUSE session begins");
        session.device.get_ref().reply(offer.header.unique, &Answer::Body(Body::init(&agreed)));
        Ok(session)
    }

    /// Serves until the kernel unmounts.
    pub async fn serve(mut self) -> Result<(), Error> {
        let device = Arc::clone(&self.device);
        let mut taken: u32 = 0;
        'mounted: loop {
            let mut ready = device.ready(EVENTS).await?;
            loop {
                match device.get_ref().receive(&mut self.buffer)? {
                    Received::Message(message) => {
                        self.accept(&message);
                        taken = taken.wrapping_add(1);
                        if taken.is_multiple_of(REQUESTS_AT_ONCE) {
                            // Requests that wait for bricks are tasks of this thread, too.
                            tokio::task::yield_now().await;
                        }
                    }
                    Received::Empty => break,
                    Received::Unmounted => break 'mounted,
                }
            }
            ready.clear_ready();
        }
        if tokio::time::timeout(FINISH_WAIT, self.bridge.finish()).await.is_err() {
            tracing::warn!("unmounted with work still under way");
        }
        Ok(())
    }

    fn accept(&self, message: &bytes::Bytes) {
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(malformed) => {
                tracing::warn!(%malformed, "ignored");
                if malformed.unique != 0 {
                    self.device.get_ref().reply(malformed.unique, &Answer::Error(Errno::EIO));
                }
                return;
            }
        };
        match request.operation {
            Operation::Interrupt { unique } => return self.waiting.interrupt(unique),
            // No fop, and no reply: not worth a task.
            Operation::Forget { .. } | Operation::BatchForget { .. } => return self.bridge.forget(&request),
            _ => {}
        }
        let interrupted = self.waiting.register(&request);
        let (device, bridge, waiting) =
            (Arc::clone(self.device.get_ref()), Arc::clone(&self.bridge), Arc::clone(&self.waiting));
        let mut answering = async move {
            let (unique, waits) = (request.header.unique, interrupted.is_some());
            // A request that is never answered hangs its caller for good, and a panic here would end the mount.
            let response = AssertUnwindSafe(bridge.respond(request, interrupted)).catch_unwind().await;
            let response = response.unwrap_or_else(|_| Response::failed(Errno::EIO));
            if waits {
                waiting.done(unique);
            }
            if !device.reply(unique, &response.answer) {
                bridge.revoke(response.grant);
            }
        }
        .boxed();
        // The first step here: what is at hand is answered without a task, and what must be asked of the bricks is on
        // its way before another request is looked at. The task polls again and so misses nothing.
        if answering.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(answering);
        }
    }
}
