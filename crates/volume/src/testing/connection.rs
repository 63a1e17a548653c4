//! One client's way to a brick in memory.

use std::sync::Arc;

use async_trait::async_trait;
use mortar_types::{ClientId, Context, Errno, Fops, Outcome, Reply, Request, Upcall, UpcallSink};
use parking_lot::Mutex;

use super::locks::{Asked, Notices};
use super::{Brick, Call, Fault};

pub struct Connection {
    brick: Arc<Brick>,
    client: ClientId,
    sink: Mutex<Option<Arc<dyn UpcallSink>>>,
}

/// What a locked look at the brick came to.
pub(super) enum Step {
    Done(Outcome<Reply>),
    /// Answered with this once the lock is granted.
    Wait(tokio::sync::oneshot::Receiver<()>, Reply),
    /// To be tried again after this.
    Park(tokio::sync::oneshot::Receiver<()>, Request),
}

impl Connection {
    pub(super) fn new(brick: Arc<Brick>, client: ClientId) -> Arc<Self> {
        Arc::new(Self { brick, client, sink: Mutex::new(None) })
    }

    pub(super) fn tell(&self, upcall: Upcall) {
        let sink = self.sink.lock().clone();
        if let Some(sink) = sink {
            sink.upcall(upcall);
        }
    }

    fn deliver(&self, notices: Notices) {
        for (client, upcall) in notices {
            let connection = {
                let state = self.brick.state.lock();
                state.connections.iter().find(|connection| connection.client == client).cloned()
            };
            if let Some(connection) = connection {
                connection.tell(upcall);
            }
        }
    }

    fn begin(&self, call: &Call) -> Result<(Fault, Option<std::time::Duration>), Errno> {
        let mut state = self.brick.state.lock();
        if !state.up {
            return Err(Errno::ENOTCONN);
        }
        state.log.push(call.clone());
        let fault = state.plan.as_mut().map_or(Fault::None, |plan| plan(call));
        Ok((fault, state.delay.as_mut().map(|delay| delay())))
    }
}

#[async_trait]
impl Fops for Connection {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        let call = Call { client: self.client, request };
        let (fault, delay) = self.begin(&call)?;
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        match fault {
            Fault::Fail(errno) => return Err(errno.into()),
            Fault::Die => {
                self.brick.set_up(false);
                return Err(Errno::ENOTCONN.into());
            }
            Fault::None | Fault::DieAfter => {}
        }
        let mut request = call.request;
        let step = loop {
            let (step, notices) = {
                let mut state = self.brick.state.lock();
                if !state.up {
                    return Err(Errno::ENOTCONN.into());
                }
                state.perform(&self.brick.name, (self.client, ctx.lk_owner.clone()), request)
            };
            self.deliver(notices);
            match step {
                Step::Park(released, again) => {
                    // A brick that goes down drops the sender: the next round says so.
                    drop(released.await);
                    request = again;
                }
                step => break step,
            }
        };
        if fault == Fault::DieAfter {
            self.brick.set_up(false);
            return Err(Errno::ENOTCONN.into());
        }
        match step {
            Step::Done(outcome) => {
                if let Some(delay) = delay {
                    tokio::time::sleep(delay).await;
                    if !self.brick.state.lock().up {
                        return Err(Errno::ENOTCONN.into());
                    }
                }
                outcome
            }
            Step::Wait(granted, reply) => match granted.await {
                Ok(()) => Ok(reply),
                Err(_) => Err(Errno::ENOTCONN.into()),
            },
            Step::Park(..) => unreachable!("left the loop only with another step"),
        }
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        *self.sink.lock() = Some(sink);
    }

    fn is_up(&self) -> bool {
        self.brick.state.lock().up
    }

    fn compounds(&self) -> bool {
        self.brick.state.lock().compounds
    }

    fn name(&self) -> &str {
        &self.brick.name
    }
}

impl Asked {
    pub(super) fn into_step(self, reply: impl Into<Reply>) -> Step {
        match self {
            Self::Granted => Step::Done(Ok(reply.into())),
            Self::Refused => Step::Done(Err(Errno::EAGAIN.into())),
            Self::Wait(granted) => Step::Wait(granted, reply.into()),
        }
    }
}
