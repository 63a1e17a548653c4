//! Daemons in this process, each on a loopback address of its own, and their API sockets.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use mortar_api::peer::{List, Members, Probe, Probed};
use mortar_api::volume::{BrickRef, Create, Layout};
use mortar_api::{Error, Operation};
use mortar_pool::{Daemon, Options};
use tempfile::TempDir;

use crate::fake;

/// A node's directories and address; its daemon comes and goes.
pub struct Node {
    pub dir: TempDir,
    pub address: IpAddr,
    /// The same for all nodes of a pool, another one for each test: sockets on 0.0.0.0 of other programs are in the way.
    port: u16,
    pub daemon: Option<Daemon>,
}

impl Node {
    pub fn new(address: &str, port: u16) -> Self {
        // Extended attributes are needed, which a tmpfs may not have.
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        Self { dir, address: address.parse().expect("an address"), port, daemon: None }
    }

    pub async fn up(address: &str, port: u16) -> Self {
        if std::env::var_os("MORTAR_LOG").is_some() {
            mortar_observe::init(None, mortar_observe::Level::Info).expect("the log");
        }
        let mut node = Self::new(address, port);
        node.start().await;
        node
    }

    pub fn options(&self) -> Options {
        Options {
            data_dir: self.dir.path().join("data"),
            run_dir: self.dir.path().join("run"),
            log_dir: self.dir.path().join("log"),
            listen: self.address,
            port: self.port,
            peer_port: self.port + 1,
            node_name: None,
            executable: Some(fake::executable(self.dir.path())),
            moves_files: true,
        }
    }

    pub async fn start(&mut self) {
        self.daemon = Some(Daemon::start(self.options()).await.expect("the daemon starts"));
    }

    pub async fn stop(&mut self) {
        self.daemon.take().expect("runs").stop().await;
    }

    pub async fn end(mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop_with_processes().await;
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn brick(&self, name: &str) -> BrickRef {
        BrickRef { host: self.address.to_string(), path: self.dir.path().join(name).display().to_string() }
    }

    pub async fn ask<O: Operation>(&self, request: &O) -> Result<O::Answer, Error> {
        ask(&self.dir.path().join("run").join(mortar_api::SOCKET_NAME), request).await
    }

    pub async fn must<O: Operation>(&self, request: &O) -> O::Answer {
        match self.ask(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("{}: {error}", O::PATH),
        }
    }

    pub async fn refused<O: Operation>(&self, request: &O) -> Error
    where
        O::Answer: std::fmt::Debug,
    {
        self.ask(request).await.expect_err("is refused")
    }

    pub async fn probe(&self, other: &Self) {
        let host = other.address.to_string();
        assert_eq!(self.must(&Probe { host }).await, Probed::Added);
    }

    pub async fn members(&self) -> Members {
        self.must(&List {}).await
    }
}

async fn ask<O: Operation>(socket: &Path, request: &O) -> Result<O::Answer, Error> {
    let stream = tokio::net::UnixStream::connect(socket).await.expect("the API socket answers");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("is HTTP");
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(serde_json::to_vec(request).expect("is JSON")));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v1/{}", O::PATH))
        .header("host", "mortar")
        .body(body)
        .expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let good = response.status().is_success();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    if good {
        return Ok(serde_json::from_slice(&body).expect("the answer's shape"));
    }
    Err(serde_json::from_slice(&body).unwrap_or_else(|_| panic!("not an error: {body:?}")))
}

/// Waits until something holds; panics with what was waited for.
pub async fn wait_for(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn replica_2(name: &str, bricks: [BrickRef; 2]) -> Create {
    Create {
        name: name.to_owned(),
        layout: Layout::Replicate { replica: 2, arbiter: 0 },
        bricks: bricks.to_vec(),
        // Temporary directories lie on the root partition.
        force: true,
    }
}
