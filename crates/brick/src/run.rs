//! The brick process: from a volfile to a listening server, and in order to its end.
//!
//! SIGTERM, SIGINT and the control socket's Terminate end it cleanly; SIGHUP and Reload read the volfile again. When the
//! disk fails its health check the clients are told that the brick is down and the process ends.

mod control;
mod mounts;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mortar_rpc::Keepalive;
use mortar_rpc::control::serve as serve_control;
use mortar_rpc::server::{Listener, Options as RpcOptions};
use mortar_types::{Fops, Gfid};
use mortar_wire::volfile::{ParseError, Volfile};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::locks::Locks;
use crate::options::{BrickOptions, OptionsError, ServerOptions};
use crate::server::{Brick, BrickService, Stack};
use crate::store::{OpenError, Store};
use crate::upcall::CacheInvalidation;
use control::Control;

/// Descriptors that a brick wants: one per cached inode and open file.
const FILES_WANTED: u64 = 1 << 20;
/// How long threads may finish what they do at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads for calls that block; most calls run on the connections' own threads.
const BLOCKING_THREADS_MAX: usize = 64;
/// Pages of the same few events; more signals in a row change nothing.
const EVENTS_MAX: usize = 16;

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub volfile: PathBuf,
    pub listen: IpAddr,
    /// 0: any free one; it is printed.
    pub port: u16,
    pub control: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    /// `None`: to stderr.
    pub log_file: Option<PathBuf>,
    pub log_level: mortar_observe::Level,
    /// The uuid of the node's daemon, answered for `trusted.glusterfs.node-uuid`.
    pub node_uuid: Option<Uuid>,
}

impl Options {
    pub fn new(volfile: impl Into<PathBuf>) -> Self {
        Self {
            volfile: volfile.into(),
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
            control: None,
            pid_file: None,
            log_file: None,
            log_level: mortar_observe::Level::Info,
            node_uuid: None,
        }
    }
}

/// Why a brick did not start or had to end. Each message is a whole sentence for the admin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot read the volfile {}: {source}", path.display())]
    ReadVolfile { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    ParseVolfile { path: PathBuf, source: ParseError },
    #[error("{}: {source}", path.display())]
    Options { path: PathBuf, source: OptionsError },
    #[error("the volfile now describes another brick ({found}, it was {expected}); start a new process for it")]
    OtherBrick { expected: String, found: String },
    #[error("cannot serve the brick: {0}")]
    Open(#[from] OpenError),
    #[error("cannot listen on {address}: {source}; is another brick running there?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot serve the control socket {}: {source}", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("cannot write the pid file {}: {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("cannot open the log file: {0}")]
    Log(io::Error),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error(
        "the brick's disk failed its health check: {0}; check the disk and the file system, then start the brick again"
    )]
    Health(String),
}

/// What ends or changes a running brick.
#[derive(Debug)]
pub(crate) enum Event {
    Terminate,
    Reload,
    HealthFailed(String),
}

/// Runs a brick until it is told to end. Blocks the calling thread.
pub fn run(options: &Options) -> Result<(), RunError> {
    mortar_observe::init(options.log_file.as_deref(), options.log_level).map_err(RunError::Log)?;
    // Clients say with which mode things are created.
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_file_limit();
    let brick_options = read_options(options)?;
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("brick")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let result = runtime.block_on(serve(options, brick_options));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    if let Err(error) = &result {
        tracing::error!(%error, "the brick ends");
    }
    result
}

fn read_options(options: &Options) -> Result<BrickOptions, RunError> {
    let path = || options.volfile.clone();
    let text =
        std::fs::read_to_string(&options.volfile).map_err(|source| RunError::ReadVolfile { path: path(), source })?;
    let volfile = Volfile::parse(&text).map_err(|source| RunError::ParseVolfile { path: path(), source })?;
    let node_uuid = options.node_uuid.map(|uuid| Gfid(uuid.into_bytes()));
    BrickOptions::from_volfile(&volfile, node_uuid).map_err(|source| RunError::Options { path: path(), source })
}

async fn serve(options: &Options, mut brick_options: BrickOptions) -> Result<(), RunError> {
    let (events, mut received) = mpsc::channel(EVENTS_MAX);
    watch_signals(&events).map_err(RunError::Runtime)?;
    let health = Mutex::new(Some(events.clone()));
    brick_options.store.on_health_failure = Some(Arc::new(move |failure| {
        if let Some(events) = health.lock().take() {
            // The receiver is gone when the process ends anyway.
            let _ = events.try_send(Event::HealthFailed(failure.to_string()));
        }
    }));

    let running = Running::start(&brick_options)?;
    let address = SocketAddr::new(options.listen, options.port);
    let listener = Listener::bind_tcp(address).map_err(|source| RunError::Listen { address, source })?;
    let port = listener.local_address().map_or(options.port, |address| address.port());
    let _control = match &options.control {
        Some(path) => {
            let handler = Arc::new(Control::new(&brick_options, port, Arc::clone(&running.brick), events.clone()));
            let served = serve_control(path, handler);
            Some(served.map_err(|source| RunError::Control { path: path.clone(), source })?)
        }
        None => None,
    };
    let _pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let service = Arc::new(BrickService(Arc::clone(&running.brick)));
    let server = listener.serve(service, rpc_options(&brick_options.server));
    announce(port);
    tracing::info!(brick = brick_options.name, port, "the brick serves");

    let mut end = Ok(());
    while let Some(event) = received.recv().await {
        match event {
            Event::Terminate => break,
            Event::Reload => match read_options(options) {
                Ok(changed) => running.reconfigure(&brick_options, &changed).await,
                Err(error) => tracing::error!(%error, "the volfile was not read again, the brick goes on unchanged"),
            },
            Event::HealthFailed(reason) => {
                running.brick.announce_down();
                end = Err(RunError::Health(reason));
                break;
            }
        }
    }
    server.shutdown().await;
    tracing::info!(brick = brick_options.name, "the brick has ended");
    end
}

/// The layers of a brick that serves.
struct Running {
    locks: Arc<Locks>,
    upcall: Arc<CacheInvalidation>,
    brick: Arc<Brick>,
}

impl Running {
    fn start(options: &BrickOptions) -> Result<Self, RunError> {
        let store: Arc<dyn Fops> = Store::open(options.store.clone())?;
        let label = format!("{}:{}", options.store.hostname, options.store.root.display());
        let locks = Locks::new(store, label, &options.locks);
        let upcall = CacheInvalidation::new(Arc::clone(&locks) as Arc<dyn Fops>, options.upcall);
        let stack =
            Stack { top: Arc::clone(&upcall) as Arc<dyn Fops>, locks: Arc::clone(&locks), upcall: Arc::clone(&upcall) };
        let brick = Brick::new(options.name.clone(), options.store.volume_id, stack, options.server.clone());
        Ok(Self { locks, upcall, brick })
    }

    /// Takes the options that a running brick can take; those of the store need a new process.
    async fn reconfigure(&self, old: &BrickOptions, new: &BrickOptions) {
        let identity = |options: &BrickOptions| (options.name.clone(), options.store.root.clone());
        if identity(old) != identity(new) || old.store.volume_id != new.store.volume_id {
            let error = RunError::OtherBrick { expected: old.name.clone(), found: new.name.clone() };
            tracing::error!(%error, "the volfile was not applied");
            return;
        }
        self.locks.reconfigure(&new.locks);
        self.upcall.reconfigure(new.upcall);
        self.brick.reconfigure(new.server.clone()).await;
        tracing::info!("the volfile has been read again");
    }
}

fn rpc_options(options: &ServerOptions) -> RpcOptions {
    RpcOptions {
        outstanding_max: options.outstanding_max.unwrap_or(usize::MAX),
        keepalive: Keepalive {
            idle: options.keepalive_idle,
            interval: options.keepalive_interval,
            count: options.keepalive_count,
        },
        user_timeout: options.user_timeout,
        pulse: true,
        ..RpcOptions::default()
    }
}

fn watch_signals(events: &mpsc::Sender<Event>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let events = events.clone();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                Some(()) = terminate.recv() => Event::Terminate,
                Some(()) = interrupt.recv() => Event::Terminate,
                Some(()) = hangup.recv() => Event::Reload,
                else => return,
            };
            if events.send(event).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Tells whoever started the process that it serves. Nobody may be listening.
fn announce(port: u16) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "ready {port}").and_then(|()| stdout.flush());
}

/// As many descriptors as the process may have; what it gets is used, however little.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(FILES_WANTED), maximum: Some(FILES_WANTED) };
    let is_enough = limit.current.is_none_or(|current| current >= FILES_WANTED);
    if is_enough || setrlimit(Resource::Nofile, wanted).is_ok() {
        return;
    }
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Written when the brick serves, removed at its end.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<Self, RunError> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|source| RunError::PidFile { path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may be gone already, with its directory.
        let _ = std::fs::remove_file(&self.0);
    }
}
