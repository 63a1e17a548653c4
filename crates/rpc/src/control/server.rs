//! The supervised process's side.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::control::line::{read_line, write_line};
use crate::control::{Reply, Request};
use crate::server::bind_unix_socket;

/// The daemon keeps one connection; a person who looks in may have another few.
const CONNECTIONS_MAX: usize = 64;

/// Answers requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    async fn request(&self, request: Request) -> Reply;
}

/// A control socket that is served until this is dropped.
#[derive(Debug)]
pub struct Server {
    task: tokio::task::JoinHandle<()>,
    path: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        // It may be gone already, with its directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the control socket at `path`, readable by its owner only. One left behind by a killed process is replaced.
pub fn serve(path: &Path, handler: Arc<dyn Handler>) -> io::Result<Server> {
    let listener = bind_unix_socket(path)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let task = tokio::spawn(accept(listener, handler));
    Ok(Server { task, path: path.to_owned() })
}

async fn accept(listener: UnixListener, handler: Arc<dyn Handler>) {
    // Dropped, and with it every connection, when the accept task is aborted.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let handler = Arc::clone(&handler);
                    connections.spawn(async move {
                        if let Err(error) = converse(stream, &*handler).await {
                            tracing::debug!(%error, "control connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a control connection failed");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: UnixStream, handler: &dyn Handler) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(line) = read_line(&mut stream).await? {
        let reply = match serde_json::from_slice(&line) {
            Ok(request) => handler.request(request).await,
            Err(error) => Reply::Error { message: format!("the request is not understood: {error}") },
        };
        write_line(&mut stream, &reply).await?;
    }
    Ok(())
}
