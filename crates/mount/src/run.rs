//! A mount from its options to its end: into the background, up to a serving volume, unmounted by umount(8) or a signal.

use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mortar_rpc::Endpoint;
use mortar_sys::daemon::{Side, fork};
use mortar_types::fop::Lookup;
use mortar_types::{Context, Errno, Fops, Gfid, keys};
use mortar_volume::client::ConnectError;
use mortar_volume::getspec::{self, GetspecError, VolfileServer};
use mortar_volume::graph::{Graph, GraphError, GraphOptions, WaitError};
use mortar_volume::switch::{Limits, Switch};
use mortar_wire::volfile::{ParseError, Volfile};
use rustix::mount::{MountFlags, mount_remount};
use tokio::signal::unix::{SignalKind, signal};

use crate::helper;
use crate::mountpoint::Attachment;
use crate::options::{Options, TRANSFER_BYTES_MAX};
use crate::running::{self, Running};
use crate::source::{PORT, Source};

/// How long an unmount waits for the bricks to take back locks and marks.
const QUIESCE_LIMIT: Duration = Duration::from_secs(5);

/// Why a mount did not come up, or ended other than by being unmounted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Getspec(#[from] GetspecError),
    #[error("{} cannot be read: {error}", path.display())]
    ReadVolfile { path: PathBuf, error: io::Error },
    #[error("the volfile cannot be understood: {0}")]
    Volfile(#[from] ParseError),
    #[error(transparent)]
    Graph(Box<GraphError>),
    #[error("volume {volume} is not available: {reason}{}", hint(reason, volume))]
    NotUp { volume: String, reason: Box<WaitError> },
    #[error("volume {volume} has no directory {subdir}")]
    NoSubdir { volume: String, subdir: String },
    #[error("volume {volume} cannot be read: {errno}")]
    Root { volume: String, errno: Errno },
    #[error(transparent)]
    Mount(#[from] running::Error),
    #[error("no volume is mounted on {}", .0.display())]
    NotMounted(PathBuf),
    #[error("{} is mounted from {found}, not from {asked}", directory.display())]
    OtherMounted { directory: PathBuf, found: String, asked: String },
    #[error("the kernel refused to change the mount: {0}")]
    Remount(io::Error),
    #[error("the mount does not take up the volume as it is now: {0}; see its log")]
    Refresh(io::Error),
    #[error("cannot {what}: {error}")]
    System { what: &'static str, error: io::Error },
    /// What the background process said before it ended.
    #[error("{0}")]
    Background(String),
}

/// What to do about a volume that did not come up, where that can be said.
fn hint(reason: &WaitError, volume: &str) -> String {
    match reason {
        WaitError::Hopeless(ConnectError::NotRunning { .. }) => {
            format!("; start the volume with: gluster volume start {volume}")
        }
        WaitError::Hopeless(_) | WaitError::Timeout { .. } => String::new(),
    }
}

impl From<GraphError> for Error {
    fn from(error: GraphError) -> Self {
        Self::Graph(Box::new(error))
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::System { what, error }
}

/// Mounts and serves. In the foreground it returns after the unmount, otherwise as soon as the mount is up: then a
/// background process serves. Must be called while the process has no other threads.
pub fn run(options: &Options) -> Result<(), Error> {
    for warning in &options.warnings {
        eprintln!("{warning}");
    }
    if options.remount {
        return remount(options);
    }
    if options.foreground {
        observe(options);
        return serve(options, Ready { parent: None });
    }
    let (reader, writer) = io::pipe().map_err(system("make a pipe"))?;
    match fork().map_err(|errno| Error::System { what: "start a process", error: errno.into() })? {
        Side::Parent(_) => {
            drop(writer);
            wait_for(reader)
        }
        Side::Child => {
            drop(reader);
            background(options, writer)
        }
    }
}

/// What the background process reports through the pipe when it serves; otherwise its last words.
const UP: &str = "up\n";

/// The parent's side: waits for the child's report.
fn wait_for(report: PipeReader) -> Result<(), Error> {
    let mut said = String::new();
    // A line, not all: the child keeps its end for last words.
    BufReader::new(report).read_line(&mut said).map_err(system("hear from the mount's process"))?;
    match said.as_str() {
        UP => Ok(()),
        "" => Err(Error::Background("the mount's process ended without a word; see its log".to_owned())),
        said => Err(Error::Background(said.trim_end().to_owned())),
    }
}

/// The child's side: never returns to the caller's caller, whose work the parent does.
fn background(options: &Options, report: PipeWriter) -> ! {
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
    observe(options);
    let mut words = match report.try_clone() {
        Ok(words) => words,
        Err(_) => std::process::exit(1),
    };
    match serve(options, Ready { parent: Some(report) }) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            tracing::error!(%error, "the mount ends");
            // Nobody reads any more when the mount was up.
            let _ = writeln!(words, "{error}");
            std::process::exit(1)
        }
    }
}

/// Tells the parent process that the mount is up.
struct Ready {
    parent: Option<PipeWriter>,
}

impl Ready {
    fn tell(&mut self) {
        let Some(mut parent) = self.parent.take() else { return };
        let _ = parent.write_all(UP.as_bytes());
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            let _ = rustix::stdio::dup2_stdin(&null);
            let _ = rustix::stdio::dup2_stdout(&null);
            let _ = rustix::stdio::dup2_stderr(&null);
        }
    }
}

fn observe(options: &Options) {
    let path = (!options.foreground || options.log_file.is_some()).then(|| options.log_path());
    if let Err(error) = mortar_observe::init(path.as_deref(), options.log_level) {
        eprintln!("no log is written: {error}");
        let _ = mortar_observe::init(None, options.log_level);
    }
}

fn serve(options: &Options, ready: Ready) -> Result<(), Error> {
    if let Some(score) = options.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(system("set oom_score_adj"))?;
    }
    if let Some(path) = &options.pid_file {
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(system("write the pid file"))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .thread_name("mount")
        .enable_all()
        .build()
        .map_err(system("start threads"))?;
    let ended = runtime.block_on(serve_until_unmounted(options, ready));
    // A blocked lock of a volume that is gone must not keep an unmounted process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Some(path) = &options.pid_file {
        let _ = std::fs::remove_file(path);
    }
    ended
}

async fn serve_until_unmounted(options: &Options, mut ready: Ready) -> Result<(), Error> {
    // Before anything is mounted: a signal that comes early must not leave a dead mount behind.
    let mut terminate = signal(SignalKind::terminate()).map_err(system("handle signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("handle signals"))?;
    let volume = Volume::open(options).await?;
    let (attachment, wishes) = (attachment(options), options.wishes());
    let running =
        Running::start(volume.top(), Gfid::ROOT, &options.directory, &attachment, options.config.clone(), &wishes)
            .await?;
    tracing::info!(source = %options.source_text, directory = %options.directory.display(), "mounted");
    ready.tell();
    let mounted = running.mounted().clone();
    let switch = Arc::clone(&volume.switch);
    let mut ended = std::pin::pin!(running.ended());
    let mut followed = std::pin::pin!(volume.follow());
    tokio::select! {
        result = &mut ended => {
            tracing::info!("unmounted");
            quiesce(&switch).await;
            return Ok(result?);
        }
        () = &mut followed => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Busy: it goes away from the name space now and ends with its last user.
    if mounted.unmount(false).is_err() {
        mounted.unmount(true).map_err(system("unmount"))?;
    }
    let result = ended.await;
    quiesce(&switch).await;
    Ok(result?)
}

/// Gives back what the replicate layers hold, so that no dirty mark is left for the healer. A brick that does not answer
/// may not keep the process: its marks are healed when it returns.
async fn quiesce(switch: &Switch) {
    for set in switch.graph().replica_sets() {
        if tokio::time::timeout(QUIESCE_LIMIT, set.layer.quiesce()).await.is_err() {
            tracing::warn!("a brick does not answer; its locks end with the connection");
        }
    }
}

fn attachment(options: &Options) -> Attachment {
    let mut flags = options.flags;
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let first_server = match (&options.source, options.source_text.rsplit_once(':')) {
        (Source::Volume { servers, .. }, Some((_, volume))) if servers.len() > 1 => {
            servers.first().map(|server| format!("{server}:{volume}"))
        }
        _ => None,
    };
    Attachment {
        source: first_server.unwrap_or_else(|| options.source_text.clone()),
        subtype: options.face.subtype().to_owned(),
        flags,
        allow_other: true,
        // With ACLs the kernel checks them, and permission bits by them.
        default_permissions: !options.config.acl,
        max_read: TRANSFER_BYTES_MAX,
        further: options.further.clone(),
    }
}

/// The volume behind a mount, and the server that tells of its changes.
struct Volume {
    switch: Arc<Switch>,
    server: Option<VolfileServer>,
}

impl Volume {
    /// Finds the volume's description, connects to its bricks, and makes sure that its root can be read.
    async fn open(options: &Options) -> Result<Self, Error> {
        let (server, text, mut graph_options) = match &options.source {
            Source::Volume { servers, volfile_id, subdir } => {
                let endpoint = |server: &String| Endpoint::Host { host: server.clone(), port: options.port };
                let servers = servers.iter().map(endpoint).collect();
                let asked = getspec::Options {
                    timeout: options.wait.min(Duration::from_secs(10)),
                    ..getspec::Options::new(servers, volfile_id)
                };
                let server = VolfileServer::connect(asked).await?;
                let text = Arc::clone(&server.volfile().borrow());
                let graph_options =
                    GraphOptions { subdir: subdir.clone(), ..GraphOptions::new("fuse", volfile_id.as_str()) };
                (Some(server), text, graph_options)
            }
            Source::File(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|error| Error::ReadVolfile { path: path.clone(), error })?;
                (None, text.into(), GraphOptions::new("fuse", path.to_string_lossy()))
            }
        };
        if options.port != PORT {
            graph_options.glusterd_port = Some(options.port);
        }
        let name = || options.source.volume().to_owned();
        let graph = Graph::build(&Volfile::parse(&text)?, graph_options)?;
        graph
            .wait_up(options.wait)
            .await
            .map_err(|reason| Error::NotUp { volume: name(), reason: Box::new(reason) })?;
        if let Err(error) = graph.heal_on_access() {
            tracing::warn!(%error, "what this mount finds unequal waits for the healer");
        }
        let volume = Self { switch: Switch::new(graph, Limits::default()), server };
        match (volume.check_root().await, &options.source) {
            (Ok(()), _) => Ok(volume),
            (Err(Errno::ENOENT | Errno::ESTALE), Source::Volume { subdir: Some(subdir), .. }) => {
                Err(Error::NoSubdir { volume: name(), subdir: subdir.clone() })
            }
            (Err(errno), _) => Err(Error::Root { volume: name(), errno }),
        }
    }

    fn top(&self) -> Arc<dyn Fops> {
        Arc::clone(&self.switch) as Arc<dyn Fops>
    }

    async fn check_root(&self) -> Result<(), Errno> {
        let lookup = Lookup { gfid: Gfid::ROOT, parent: Gfid::NULL, flags: 0, name: bytes::Bytes::new(), xdata: None };
        self.top().fop(&Context::default(), lookup).await.map(drop).map_err(|failure| failure.errno)
    }

    /// Takes up changes of the volume for as long as it is served. A mount of a volfile on disk hears of none.
    async fn follow(self) {
        match self.server {
            Some(server) => self.switch.follow(server).await,
            None => std::future::pending().await,
        }
    }
}

/// Changes a mount that is there: read-only or not, and the kernel's flags; and has it take up the newest volfile. It
/// follows changes anyway: who remounts after a change of the volume can rely on it from then on.
fn remount(options: &Options) -> Result<(), Error> {
    let directory = options.directory.canonicalize().unwrap_or_else(|_| options.directory.clone());
    let found = helper::mounted_source(&directory).ok_or_else(|| Error::NotMounted(directory.clone()))?;
    let same = |left: &str, right: &str| Source::parse(left).ok() == Source::parse(right).ok();
    if found != options.source_text && !same(&found, &options.source_text) {
        return Err(Error::OtherMounted { directory, found, asked: options.source_text.clone() });
    }
    let flags = attachment(options).flags;
    mount_remount(directory.as_path(), flags, c"").map_err(|error| Error::Remount(error.into()))?;
    let mut answer = [0; 16];
    match rustix::fs::getxattr(&directory, keys::REFRESH, &mut answer[..]) {
        // A mount of a volfile on disk.
        Ok(_) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODATA) => Ok(()),
        Err(error) => Err(Error::Refresh(error.into())),
    }
}
