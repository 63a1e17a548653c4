//! The daemon's side.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};

use crate::control::line::{read_line, write_line};
use crate::control::{HealProgress, Reply, Request, StatusReply, SubvolumeCrawls};

/// Why a request has no good reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process has died or hung up.
    #[error("the control connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("the process does not speak the control protocol: {0}")]
    Protocol(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
    #[error("the process answered something that was not asked")]
    Unexpected,
}

/// Requests that wait for a reply; the callers of a node's daemon are few.
const WAITING_MAX: usize = 256;

/// Who waits for a reply, in the order of the requests.
type Waiting = Arc<Mutex<VecDeque<oneshot::Sender<Vec<u8>>>>>;

/// A connection to one process's control socket. Its users may ask at the same time; replies come in order.
#[derive(Debug)]
pub struct Client {
    /// `None` when a request was given up half-written: nothing can follow it.
    writer: tokio::sync::Mutex<Option<OwnedWriteHalf>>,
    waiting: Waiting,
    ended: watch::Receiver<bool>,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    pub async fn connect(path: &Path) -> io::Result<Self> {
        let (read, write) = UnixStream::connect(path).await?.into_split();
        let waiting = Waiting::default();
        let (ended_sender, ended) = watch::channel(false);
        let reader = tokio::spawn(receive(read, Arc::clone(&waiting), ended_sender));
        Ok(Self { writer: tokio::sync::Mutex::new(Some(write)), waiting, ended, reader })
    }

    /// Asks and waits for the reply; callers set their own time limit around it.
    pub async fn request(&self, request: &Request) -> Result<Reply, Error> {
        let reply = self.send(request).await?;
        let line = reply.await.map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match serde_json::from_slice(&line)? {
            Reply::Error { message } => Err(Error::Refused(message)),
            reply => Ok(reply),
        }
    }

    async fn send(&self, request: &Request) -> Result<oneshot::Receiver<Vec<u8>>, Error> {
        // Held while the line is written, so that lines do not mix; a stuck peer holds up only its own requests.
        let mut slot = self.writer.lock().await;
        let mut writer = slot.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= WAITING_MAX || *self.ended.borrow() {
                *slot = Some(writer);
                return Err(io::Error::from(io::ErrorKind::NotConnected).into());
            }
            waiting.push_back(sender);
        }
        write_line(&mut writer, request).await?;
        *slot = Some(writer);
        Ok(receiver)
    }

    /// A request that is answered with [`Reply::Ok`].
    pub async fn order(&self, request: &Request) -> Result<(), Error> {
        match self.request(request).await? {
            Reply::Ok => Ok(()),
            _ => Err(Error::Unexpected),
        }
    }

    pub async fn status(&self, detail: bool, clients: bool) -> Result<StatusReply, Error> {
        match self.request(&Request::Status { detail, clients }).await? {
            Reply::Status(status) => Ok(status),
            _ => Err(Error::Unexpected),
        }
    }

    pub async fn progress(&self, volume: &str) -> Result<HealProgress, Error> {
        match self.request(&Request::Progress { volume: volume.to_owned() }).await? {
            Reply::Progress(progress) => Ok(progress),
            _ => Err(Error::Unexpected),
        }
    }

    /// Of heald.
    pub async fn crawls(&self, volume: &str) -> Result<Vec<SubvolumeCrawls>, Error> {
        match self.request(&Request::Crawls { volume: volume.to_owned() }).await? {
            Reply::Crawls { subvolumes } => Ok(subvolumes),
            _ => Err(Error::Unexpected),
        }
    }

    /// Of `mortar rebalance`.
    pub async fn rebalance_status(&self) -> Result<mortar_api::rebalance::Progress, Error> {
        match self.request(&Request::RebalanceStatus).await? {
            Reply::Rebalance(progress) => Ok(*progress),
            _ => Err(Error::Unexpected),
        }
    }

    /// Returns when the process has ended or closed the connection.
    pub async fn ended(&self) {
        // An error means that the reader is gone, which is the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Hands each line to the request that it answers.
async fn receive(read: OwnedReadHalf, waiting: Waiting, ended: watch::Sender<bool>) {
    let mut read = BufReader::new(read);
    // A line that nobody waits for breaks the protocol as much as one that is too long.
    while let Ok(Some(line)) = read_line(&mut read).await {
        let Some(sender) = waiting.lock().pop_front() else {
            break;
        };
        // The caller may have given up; its reply still takes its place.
        let _ = sender.send(line);
    }
    // Under the lock, so that no request slips in unseen.
    let mut waiting = waiting.lock();
    waiting.clear();
    ended.send_replace(true);
}
