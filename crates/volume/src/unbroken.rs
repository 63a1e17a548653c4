//! Work that is done to its end even when its caller is gone.
//!
//! A change that has begun must be judged and recorded. As a task of its own it would cost two more hops between
//! threads, so it runs in its caller's, and becomes a task only when the caller drops it half-way.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, CatchUnwind};
use mortar_types::{Errno, Outcome, Reply};
use tokio::runtime::Handle;

/// The work, until it is done.
pub(crate) struct Unbroken {
    work: Option<CatchUnwind<AssertUnwindSafe<BoxFuture<'static, Outcome<Reply>>>>>,
    runtime: Handle,
}

impl Unbroken {
    /// `work` goes on in `runtime` when this is dropped before it is done. A panic in it is an EIO to its caller.
    pub(crate) fn new(runtime: &Handle, work: impl Future<Output = Outcome<Reply>> + Send + 'static) -> Self {
        Self { work: Some(AssertUnwindSafe(work.boxed()).catch_unwind()), runtime: runtime.clone() }
    }
}

impl Future for Unbroken {
    type Output = Outcome<Reply>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(Err(Errno::EIO.into())) };
        match work.poll_unpin(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(outcome) => {
                self.work = None;
                Poll::Ready(outcome.unwrap_or_else(|_| Err(Errno::EIO.into())))
            }
        }
    }
}

impl Drop for Unbroken {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use mortar_types::fop::AckReply;

    use super::*;

    fn slow(done: &Arc<AtomicBool>) -> Unbroken {
        let done = Arc::clone(done);
        Unbroken::new(&Handle::current(), async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            done.store(true, Ordering::SeqCst);
            Ok(AckReply { xdata: None }.into())
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_caller_leaves_is_done_all_the_same() {
        let done = Arc::new(AtomicBool::new(false));
        assert!(tokio::time::timeout(Duration::from_millis(10), slow(&done)).await.is_err());
        assert!(!done.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_caller_waits_for_is_answered() {
        let done = Arc::new(AtomicBool::new(false));
        slow(&done).await.unwrap();
        assert!(done.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_operation() {
        let work = Unbroken::new(&Handle::current(), async { panic!("on purpose") });
        assert_eq!(work.await.unwrap_err().errno, Errno::EIO);
    }
}
