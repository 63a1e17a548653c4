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

/// Who waits for a reply. Woken only after the table's lock is given back, or it would run into it.
pub(super) enum Waiter {
    Caller(oneshot::Sender<Outcome>),
    Ping,
}

impl Waiter {
    pub(super) fn answer(self, outcome: Outcome) {
        if let Self::Caller(sender) = self {
            // The caller may have given up; then nobody is interested.
            let _ = sender.send(outcome);
        }
    }
}

struct Call {
    waiter: Waiter,
    sent: Instant,
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

    /// Takes a call off the table: its reply has come, or its caller has gone.
    pub(super) fn take(&mut self, xid: u32) -> Option<Waiter> {
        let call = self.waiting.remove(&xid)?;
        self.callers -= usize::from(matches!(call.waiter, Waiter::Caller(_)));
        Some(call.waiter)
    }

    /// Takes the calls sent at least `age` ago.
    pub(super) fn take_expired(&mut self, now: Instant, age: Duration) -> Vec<Waiter> {
        let late = |call: &Call| now.saturating_duration_since(call.sent) >= age;
        let expired: Vec<u32> = self.waiting.iter().filter(|(_, call)| late(call)).map(|(xid, _)| *xid).collect();
        expired.into_iter().filter_map(|xid| self.take(xid)).collect()
    }

    /// Refuses all calls to come and takes those that wait; `None` when it was closed already.
    pub(super) fn close(&mut self) -> Option<Vec<Waiter>> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        self.callers = 0;
        Some(self.waiting.drain().map(|(_, call)| call.waiter).collect())
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
        calls.take(second).unwrap().answer(Ok(Bytes::from_static(b"b")));
        calls.take(first).unwrap().answer(Ok(Bytes::from_static(b"a")));
        assert!(calls.take(first).is_none());
        assert_eq!(first_reply.try_recv().unwrap(), Ok(Bytes::from_static(b"a")));
        assert_eq!(second_reply.try_recv().unwrap(), Ok(Bytes::from_static(b"b")));
        assert_eq!(calls.callers(), 0);
    }

    #[test]
    fn closing_hands_out_all_and_refuses_later_calls() {
        let (mut calls, now) = (Calls::new(), Instant::now());
        let (_, _reply) = calls.add_caller(now).unwrap();
        assert_eq!(calls.close().unwrap().len(), 1);
        assert!(calls.close().is_none());
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
        for waiter in calls.take_expired(later, Duration::from_secs(5)) {
            waiter.answer(Err(CallError::Timeout));
        }
        assert_eq!(old.try_recv().unwrap(), Err(CallError::Timeout));
        assert!(young.try_recv().is_err());
    }
}
