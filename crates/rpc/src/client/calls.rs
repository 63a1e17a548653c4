//! Calls under way: who waits for which xid.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mortar_types::Errno;
use mortar_wire::auth::OwnerTooLong;
use mortar_wire::header::ReplyStatus;
use tokio::sync::oneshot;

use crate::outbox::TooLong;

/// Why a call has no reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    #[error("the connection is closed")]
    Disconnected,
    #[error("no reply within the frame timeout")]
    Timeout,
    #[error("the server refused the call: {0:?}")]
    Refused(ReplyStatus),
    #[error(transparent)]
    Owner(#[from] OwnerTooLong),
    #[error("the message is too long for a record")]
    TooLong,
}

impl From<TooLong> for CallError {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}

impl CallError {
    /// What a fop that failed this way answers.
    pub const fn errno(self) -> Errno {
        match self {
            // A call that ran into the frame timeout fails like one whose connection broke (`rpc-clnt.c: call_bail`).
            Self::Disconnected | Self::Timeout => Errno::ENOTCONN,
            // What GlusterFS's own client makes of a reply it cannot use (`client-rpc-fops_v2.c`, "error" path).
            Self::Refused(_) => Errno::EINVAL,
            Self::Owner(_) => Errno::E2BIG,
            Self::TooLong => Errno::EFBIG,
        }
    }
}

pub(super) type Outcome = Result<Bytes, CallError>;

enum Waiter {
    Caller(oneshot::Sender<Outcome>),
    Ping,
}

struct Call {
    waiter: Waiter,
    sent: Instant,
}

/// What became of a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resolved {
    Delivered,
    Pong,
    /// The caller no longer waits.
    Unknown,
}

#[derive(Default)]
pub(super) struct Calls {
    waiting: HashMap<u32, Call>,
    callers: usize,
    last_xid: u32,
    closed: bool,
}

impl Calls {
    pub(super) fn new() -> Self {
        // The first call of a GlusterFS client has xid 2.
        Self { last_xid: 1, ..Self::default() }
    }

    /// Calls that somebody waits for.
    pub(super) const fn callers(&self) -> usize {
        self.callers
    }

    pub(super) fn add_caller(&mut self, now: Instant) -> Result<(u32, oneshot::Receiver<Outcome>), CallError> {
        let (sender, receiver) = oneshot::channel();
        let xid = self.add(Waiter::Caller(sender), now)?;
        self.callers += 1;
        Ok((xid, receiver))
    }

    pub(super) fn add_ping(&mut self, now: Instant) -> Result<u32, CallError> {
        self.add(Waiter::Ping, now)
    }

    fn add(&mut self, waiter: Waiter, now: Instant) -> Result<u32, CallError> {
        if self.closed {
            return Err(CallError::Disconnected);
        }
        // Numbers wrap; one may still belong to a lock call that waits since.
        loop {
            self.last_xid = self.last_xid.wrapping_add(1);
            if let Entry::Vacant(place) = self.waiting.entry(self.last_xid) {
                place.insert(Call { waiter, sent: now });
                return Ok(self.last_xid);
            }
        }
    }

    pub(super) fn forget(&mut self, xid: u32) {
        if let Some(call) = self.waiting.remove(&xid) {
            self.callers -= usize::from(matches!(call.waiter, Waiter::Caller(_)));
        }
    }

    pub(super) fn resolve(&mut self, xid: u32, outcome: Outcome) -> Resolved {
        match self.waiting.remove(&xid).map(|call| call.waiter) {
            Some(Waiter::Caller(sender)) => {
                self.callers -= 1;
                match sender.send(outcome) {
                    Ok(()) => Resolved::Delivered,
                    Err(_) => Resolved::Unknown,
                }
            }
            Some(Waiter::Ping) => Resolved::Pong,
            None => Resolved::Unknown,
        }
    }

    /// Fails the calls sent longer than `age` ago.
    pub(super) fn expire(&mut self, now: Instant, age: Duration) {
        let late = |call: &Call| now.saturating_duration_since(call.sent) >= age;
        let expired: Vec<u32> = self.waiting.iter().filter(|(_, call)| late(call)).map(|(xid, _)| *xid).collect();
        for xid in expired {
            self.resolve(xid, Err(CallError::Timeout));
        }
    }

    /// Fails everything that waits and all calls to come. `false` when it was closed already.
    pub(super) fn close(&mut self) -> bool {
        for (_, call) in self.waiting.drain() {
            if let Waiter::Caller(sender) = call.waiter {
                // The caller may have given up.
                let _ = sender.send(Err(CallError::Disconnected));
            }
        }
        self.callers = 0;
        !std::mem::replace(&mut self.closed, true)
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_find_their_callers_in_any_order() {
        let (mut calls, now) = (Calls::new(), Instant::now());
        let (first, mut first_reply) = calls.add_caller(now).unwrap();
        let (second, mut second_reply) = calls.add_caller(now).unwrap();
        assert_eq!((first, second, calls.callers()), (2, 3, 2));
        assert_eq!(calls.resolve(second, Ok(Bytes::from_static(b"b"))), Resolved::Delivered);
        assert_eq!(calls.resolve(first, Ok(Bytes::from_static(b"a"))), Resolved::Delivered);
        assert_eq!(calls.resolve(first, Ok(Bytes::new())), Resolved::Unknown);
        assert_eq!(first_reply.try_recv().unwrap(), Ok(Bytes::from_static(b"a")));
        assert_eq!(second_reply.try_recv().unwrap(), Ok(Bytes::from_static(b"b")));
        assert_eq!(calls.callers(), 0);
    }

    #[test]
    fn closing_fails_all_and_later_calls() {
        let (mut calls, now) = (Calls::new(), Instant::now());
        let (_, mut reply) = calls.add_caller(now).unwrap();
        assert!(calls.close());
        assert!(!calls.close());
        assert_eq!(reply.try_recv().unwrap(), Err(CallError::Disconnected));
        assert_eq!(calls.add_caller(now).unwrap_err(), CallError::Disconnected);
    }

    #[test]
    fn a_number_in_use_is_skipped_after_wrapping() {
        let (mut calls, now) = (Calls::new(), Instant::now());
        let (kept, _reply) = calls.add_caller(now).unwrap();
        calls.last_xid = kept.wrapping_sub(1);
        assert_eq!(calls.add_ping(now).unwrap(), kept + 1);
        assert_eq!(calls.callers(), 1);
    }

    #[test]
    fn only_old_calls_expire() {
        let (mut calls, now) = (Calls::new(), Instant::now());
        let (_, mut old) = calls.add_caller(now).unwrap();
        let later = now + Duration::from_secs(10);
        let (_, mut young) = calls.add_caller(later).unwrap();
        calls.expire(later, Duration::from_secs(5));
        assert_eq!(old.try_recv().unwrap(), Err(CallError::Timeout));
        assert!(young.try_recv().is_err());
    }
}
