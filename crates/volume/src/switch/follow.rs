//! Keeps a mounted volume at its newest volfile: what the volfile server tells, and what is asked for (`mount -o remount`).

use std::sync::Arc;
use std::time::Duration;

use mortar_types::fop::DictReply;
use mortar_types::{Dict, Errno, Outcome, Reply, Value, keys};
use mortar_wire::volfile::{ParseError, Volfile};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Core, Switch, TakeError, Taken};
use crate::getspec::VolfileServer;

/// Requests for the newest volfile that wait.
const REFRESHES_MAX: usize = 16;
/// After a change that had to be put off.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// Told when the newest volfile is in use.
pub(super) type Refresh = oneshot::Sender<Result<(), Errno>>;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("it cannot be understood: {0}")]
    Parse(#[from] ParseError),
    #[error(transparent)]
    Take(#[from] TakeError),
}

impl Switch {
    /// Takes up every change of the volfile, for as long as this is polled.
    pub async fn follow(self: Arc<Self>, server: VolfileServer) {
        let (asking, mut asked) = mpsc::channel(REFRESHES_MAX);
        self.core.refreshes.store(Some(Arc::new(asking)));
        let mut volfile = server.volfile();
        let mut waiting: Vec<Refresh> = Vec::new();
        let mut retry: Option<(Instant, Duration)> = None;
        loop {
            let at = retry.map_or_else(Instant::now, |(at, _)| at);
            tokio::select! {
                changed = volfile.changed() => if changed.is_err() {
                    // The server's task never ends by itself.
                    std::future::pending::<()>().await;
                },
                Some(refresh) = asked.recv() => {
                    server.refresh().await;
                    waiting.push(refresh);
                }
                () = tokio::time::sleep_until(at), if retry.is_some() => {}
            }
            let text = Arc::clone(&volfile.borrow_and_update());
            let answer = match self.take_text(&text).await {
                Err(Error::Take(error @ TakeError::Busy(_))) => {
                    let wait = retry.map_or(RETRY_FIRST, |(_, wait)| (wait * 2).min(RETRY_LONGEST));
                    tracing::info!(%error, ?wait, "the changed volume is taken up later");
                    retry = Some((Instant::now() + wait, wait));
                    continue;
                }
                Ok(Taken::Changed) => {
                    tracing::info!("the volume has changed and is used as it is now");
                    Ok(())
                }
                Ok(Taken::Unchanged) => Ok(()),
                Err(error) => {
                    tracing::error!(%error, "a changed volfile is not taken; the volume is used as it was");
                    Err(Errno::EINVAL)
                }
            };
            retry = None;
            for refresh in waiting.drain(..) {
                // Who asked may be gone.
                let _ = refresh.send(answer);
            }
        }
    }

    async fn take_text(&self, text: &str) -> Result<Taken, Error> {
        Ok(self.take(&Volfile::parse(text)?).await?)
    }
}

impl Core {
    /// Answers [`keys::REFRESH`] when the newest volfile is in use.
    pub(super) async fn refresh(&self) -> Outcome<Reply> {
        let (done, answer) = oneshot::channel();
        let asking = self.refreshes.load_full().ok_or(Errno::EOPNOTSUPP)?;
        asking.send(done).await.map_err(|_| Errno::EOPNOTSUPP)?;
        answer.await.map_err(|_| Errno::EIO)??;
        let dict = Dict::new().with(keys::REFRESH, Value::str("done"));
        Ok(DictReply { len: 0, dict: Some(dict), xdata: None }.into())
    }
}
