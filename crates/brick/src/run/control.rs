//! What the node's daemon may ask over the control socket.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mortar_rpc::control::{Handler, Reply, Request, StatusReply};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Event, mounts};
use crate::options::BrickOptions;
use crate::server::Brick;

pub(super) struct Control {
    path: PathBuf,
    volume_id: Uuid,
    port: u16,
    brick: Arc<Brick>,
    events: mpsc::Sender<Event>,
}

impl Control {
    pub(super) fn new(options: &BrickOptions, port: u16, brick: Arc<Brick>, events: mpsc::Sender<Event>) -> Self {
        Self {
            path: options.store.root.clone(),
            volume_id: Uuid::from_bytes(options.store.volume_id.0),
            port,
            brick,
            events,
        }
    }

    async fn status(&self, detail: bool, clients: bool) -> StatusReply {
        let path = self.path.clone();
        let detail = match detail {
            // The file system may not answer for long.
            true => tokio::task::spawn_blocking(move || mounts::detail(&path)).await.ok().flatten(),
            false => None,
        };
        StatusReply {
            pid: std::process::id(),
            port: Some(self.port),
            brick_path: Some(self.path.clone()),
            volume_id: Some(self.volume_id),
            detail,
            clients: if clients { self.brick.clients() } else { Vec::new() },
        }
    }

    async fn send(&self, event: Event) -> Reply {
        match self.events.send(event).await {
            Ok(()) => Reply::Ok,
            Err(_) => Reply::Error { message: "the brick is ending already".to_owned() },
        }
    }
}

#[async_trait]
impl Handler for Control {
    async fn request(&self, request: Request) -> Reply {
        match request {
            Request::Status { detail, clients } => Reply::Status(self.status(detail, clients).await),
            Request::Terminate => self.send(Event::Terminate).await,
            Request::Reload => self.send(Event::Reload).await,
            _ => Reply::Error { message: "this is a brick, not the heal daemon".to_owned() },
        }
    }
}
