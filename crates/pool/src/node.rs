//! The node: its identity, its share of the consensus, and the way to change the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mortar_api::{Error, ErrorKind, Freshness};
use mortar_logic::pool::{Applied, Command, Kind, Member, Refusal, State};
use openraft::BasicNode;
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::heal_connections::Connections;
use crate::identity::{Authority, Identity, IdentityError, Origin};
use crate::jobs::Jobs;
use crate::options::Options;
use crate::paths::Paths;
use crate::peers::{CallError, Channel, Peers};
use crate::portmap::Portmap;
use crate::raft::{self, Database, DatabaseError, Metrics, Network, Raft, View};
use crate::service::internal::{Reached, Write};
use crate::supervisor::{Settings, Supervisor};
use crate::tls::{Tls, TlsError};

/// A change that has not been agreed on by then is reported as not done.
const WRITE_TIMEOUT: Duration = Duration::from_secs(8);
const WRITE_RETRY: Duration = Duration::from_millis(50);
/// How long members may lag behind a change before its maker is answered all the same.
const APPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// After a start or a break it takes a moment until it is known who answers.
const MAJORITY_GRACE: Duration = Duration::from_millis(1500);
/// How long a predecessor may take to end.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a leader for so long while a majority answers, something is wrong.
const LEADER_TIMEOUT: Duration = Duration::from_secs(6);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the pool's consensus: {0}")]
    Raft(#[from] openraft::error::Fatal<Uuid>),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

/// One life of the consensus, from a start of the daemon or a change of pool to the next.
struct Life {
    raft: Raft,
    database: Database,
}

impl Life {
    async fn begin(
        uuid: Uuid,
        database: &Database,
        peers: &Arc<Peers>,
        view: &watch::Sender<Arc<View>>,
    ) -> Result<Self, openraft::error::Fatal<Uuid>> {
        let database = database.life();
        let raft = raft::start(uuid, &database, Network::new(Arc::clone(peers)), view.clone()).await?;
        Ok(Self { raft, database })
    }
}

/// Shared by everything in the daemon.
pub(crate) struct Node {
    pub options: Options,
    pub paths: Paths,
    pub tls: Arc<Tls>,
    pub peers: Arc<Peers>,
    pub portmap: Arc<Portmap>,
    pub supervisor: Arc<Supervisor>,
    pub jobs: Jobs,
    identity: RwLock<Identity>,
    database: Database,
    raft: RwLock<Life>,
    view: watch::Sender<Arc<View>>,
    /// Held by whoever takes nodes in or moves this one: one at a time.
    pub membership: Semaphore,
    pub heal_connections: Connections,
}

impl Node {
    /// Reads what is stored and starts the consensus. Nothing listens yet.
    ///
    /// # Errors
    /// When the data directory is unusable.
    pub(crate) async fn start(options: Options) -> Result<Arc<Self>, StartError> {
        let paths = options.paths();
        paths
            .prepare()
            .map_err(|error| StartError::Io { what: "making the daemon's directories".to_owned(), error })?;
        let identity = Identity::load_or_create(&paths.identity())?;
        let database = open_database(&paths.database()).await?;
        // Different only after a crash between the two steps of joining, leaving or recovering a pool.
        database.belong_to(identity.pool_id, identity.recovered_from)?;
        let tls = Arc::new(Tls::new(&identity)?);
        let peers = Peers::new(identity.uuid, identity.pool_id, Arc::clone(&tls));
        let view = watch::Sender::new(Arc::new(raft::stored_view(&database)?));
        let life = Life::begin(identity.uuid, &database, &peers, &view).await?;
        let portmap = Arc::new(Portmap::default());
        let executable = match &options.executable {
            Some(executable) => executable.clone(),
            None => std::env::current_exe()
                .map_err(|error| StartError::Io { what: "finding the own executable".to_owned(), error })?,
        };
        let settings = Settings {
            paths: paths.clone(),
            node: identity.uuid,
            listen: options.listen,
            port: options.port,
            executable,
        };
        let supervisor = Supervisor::new(settings, Arc::clone(&portmap));
        Ok(Arc::new(Self {
            options,
            paths,
            tls,
            peers,
            portmap,
            supervisor,
            jobs: Jobs::default(),
            identity: RwLock::new(identity),
            database,
            raft: RwLock::new(life),
            view,
            membership: Semaphore::new(1),
            heal_connections: Connections::default(),
        }))
    }

    pub(crate) fn uuid(&self) -> Uuid {
        self.peers.local()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.read().clone()
    }

    pub(crate) fn raft(&self) -> Raft {
        self.raft.read().raft.clone()
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    pub(crate) fn watch_view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(crate) fn metrics(&self) -> Metrics {
        self.raft().metrics().borrow().clone()
    }

    pub(crate) fn channel(&self, target: Uuid) -> Channel {
        self.peers.channel(target)
    }

    /// This node as a member.
    pub(crate) fn own_member(&self) -> Member {
        Member {
            uuid: self.uuid(),
            hostname: self.options.own_name(),
            other_names: Vec::new(),
            peer_port: self.options.peer_port,
            port: self.options.port,
        }
    }

    /// It has nothing to lose by joining another pool.
    pub(crate) fn is_fresh(&self) -> bool {
        let view = self.view();
        view.state.members.len() <= 1 && view.state.volumes.is_empty() && self.identity.read().origin == Origin::Formed
    }

    /// Makes a pool of this node, when it is new; otherwise does nothing.
    ///
    /// # Errors
    /// When the consensus does not work.
    pub(crate) async fn form_if_new(&self) -> Result<(), Error> {
        let identity = self.identity();
        if identity.origin == Origin::Joined {
            return Ok(());
        }
        let raft = self.raft();
        let internal = |error: String| Error::new(ErrorKind::Internal, error);
        if !raft.is_initialized().await.map_err(|error| internal(error.to_string()))? {
            let own = self.own_member();
            let address = BasicNode::new(format!("{}:{}", own.hostname, own.peer_port));
            let members = BTreeMap::from([(identity.uuid, address)]);
            raft.initialize(members).await.map_err(|error| internal(error.to_string()))?;
        } else if self.voters().len() == 1 {
            // Nobody else to ask: no need to wait for an election timeout.
            raft.trigger().elect().await.map_err(|error| internal(error.to_string()))?;
        }
        let state = self.view().state.clone();
        if state.pool_id.is_nil() {
            self.write(Command::Form { pool_id: identity.pool_id, member: self.own_member() }).await?;
        } else if state.pool_id != identity.pool_id {
            let (survivor, pool_id, state) = (identity.uuid, identity.pool_id, Box::new(state));
            self.write(Command::Recover { survivor, pool_id, state }).await?;
        }
        Ok(())
    }

    /// Leaves the current pool for the one that the identity names. The old configuration is forgotten.
    ///
    /// # Errors
    /// When the new identity cannot be stored; the node stays as it is then.
    pub(crate) async fn enter(&self, identity: Identity) -> Result<(), Error> {
        let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
        // From here on a crash ends in the new pool: at the next start the database does not fit and is made to.
        identity.save(&self.paths.identity()).map_err(|error| internal(&error))?;
        self.end_life().await;
        self.database.belong_to(identity.pool_id, identity.recovered_from).map_err(|error| internal(&error))?;
        let view = raft::stored_view(&self.database).map_err(|error| internal(&error))?;
        self.restart(identity, view).await
    }

    /// Becomes the whole pool, keeping the configuration.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(crate) async fn recover(&self) -> Result<(), Error> {
        let old = self.identity();
        let recovered_from = Some(old.pool_id);
        self.enter(Identity { pool_id: Uuid::new_v4(), origin: Origin::Formed, recovered_from, ..old }).await
    }

    async fn end_life(&self) {
        let (raft, database) = {
            let life = self.raft.read();
            (life.raft.clone(), life.database.clone())
        };
        // A failed shutdown only means that the consensus has ended by itself. Some of its tasks may still run.
        let _ = raft.shutdown().await;
        database.end();
    }

    async fn restart(&self, identity: Identity, view: View) -> Result<(), Error> {
        let internal = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Internal, error.to_string());
        self.tls.replace(&identity).map_err(|error| internal(&error))?;
        self.peers.enter_pool(identity.pool_id);
        self.view.send_replace(Arc::new(view));
        let life = Life::begin(identity.uuid, &self.database, &self.peers, &self.view)
            .await
            .map_err(|error| internal(&error))?;
        *self.raft.write() = life;
        *self.identity.write() = identity;
        self.form_if_new().await
    }

    /// A node with a pool of its own again.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(crate) async fn become_fresh(&self) -> Result<(), Error> {
        let identity =
            Identity::fresh(self.uuid()).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
        self.enter(identity).await
    }

    /// Joins a pool by its authority; the log comes from its leader.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(crate) async fn join(&self, pool_id: Uuid, authority: Authority) -> Result<(), Error> {
        let identity = Identity::of(self.uuid(), pool_id, Origin::Joined, authority)
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        self.enter(identity).await
    }

    pub(crate) fn voters(&self) -> Vec<Uuid> {
        self.metrics().membership_config.membership().voter_ids().collect()
    }

    /// Whether a majority of the voters answers, and how many do of how many.
    fn answering(&self) -> (usize, usize) {
        let voters = self.voters();
        (voters.iter().filter(|voter| self.peers.is_connected(**voter)).count(), voters.len())
    }

    fn has_majority(&self) -> bool {
        let (answering, voters) = self.answering();
        answering * 2 > voters
    }

    pub(crate) fn freshness(&self) -> Freshness {
        let metrics = self.metrics();
        Freshness {
            quorum: metrics.current_leader.is_some() && self.has_majority(),
            applied_index: self.view().applied_index,
        }
    }

    /// The refusal when no majority answers.
    pub(crate) fn no_quorum(&self) -> Error {
        let (answering, voters) = self.answering();
        let verb = if answering == 1 { "answers" } else { "answer" };
        Error::new(
            ErrorKind::NoQuorum,
            format!(
                "The pool has no quorum: {answering} of {voters} voting members {verb}, so its configuration cannot be \
                 changed. Data is served all the same. Two ways out: add a third member when all are back (it needs no \
                 brick), or, if the missing members are lost for good, 'mortar pool recover' on one that stays."
            ),
        )
    }

    /// Has a command agreed on and waits until the members that answer have applied it, so that whoever is asked next,
    /// wherever, sees the change.
    ///
    /// # Errors
    /// What the configuration refuses, or that there is no quorum.
    pub(crate) async fn write(&self, command: Command) -> Result<Applied, Error> {
        let (index, applied) = self.propose(command).await?;
        let view = self.view();
        let others = view.state.members.keys().filter(|uuid| **uuid != self.uuid() && self.peers.is_connected(**uuid));
        let reached = others.map(|uuid| async move {
            let channel = self.channel(*uuid);
            // A member that lags does not keep the others: the change is made.
            let _ = tokio::time::timeout(APPLY_TIMEOUT, channel.call(&Reached { index })).await;
        });
        futures::future::join(self.reach(index), futures::future::join_all(reached)).await;
        Ok(applied)
    }

    /// Waits until this node has applied an entry of the log, for a bounded time.
    pub(crate) async fn reach(&self, index: u64) {
        let mut view = self.view.subscribe();
        // A node that lags answers all the same: the change is made.
        let _ = tokio::time::timeout(APPLY_TIMEOUT, view.wait_for(|view| view.applied_index >= index)).await;
    }

    /// Has a command agreed on, here or by the leader; answers its place in the log.
    async fn propose(&self, command: Command) -> Result<(u64, Applied), Error> {
        let begun = Instant::now();
        let deadline = begun + WRITE_TIMEOUT;
        loop {
            if !self.has_majority() {
                if begun.elapsed() >= MAJORITY_GRACE && !self.voters().is_empty() || begun.elapsed() >= LEADER_TIMEOUT {
                    return Err(self.no_quorum());
                }
                tokio::time::sleep(WRITE_RETRY).await;
                continue;
            }
            let leader = self.metrics().current_leader;
            let attempt = match leader {
                Some(leader) if leader == self.uuid() => Some(self.propose_here(command.clone(), deadline).await?),
                Some(leader) => {
                    let request = Write { command: command.clone() };
                    let asked = self.channel(leader);
                    match tokio::time::timeout_at(deadline, asked.call(&request)).await {
                        Err(_) => return Err(self.no_quorum()),
                        Ok(Ok(written)) => Some(written.map(|written| (written.index, written.applied))),
                        // Whether a leader that is lost meanwhile took it is not known; a command that was applied is
                        // refused the second time or changes nothing.
                        Ok(Err(CallError::Refused(error))) => return Err(error),
                        Ok(Err(_)) => None,
                    }
                }
                None => None,
            };
            match attempt {
                Some(Some(done)) => return Ok(done),
                Some(None) | None if begun.elapsed() >= LEADER_TIMEOUT => return Err(self.no_quorum()),
                Some(None) | None => tokio::time::sleep(WRITE_RETRY).await,
            }
        }
    }

    /// As the leader; `None` when this node is not it any more.
    async fn propose_here(&self, command: Command, deadline: Instant) -> Result<Option<(u64, Applied)>, Error> {
        use openraft::error::{ClientWriteError, RaftError};
        let raft = self.raft();
        match tokio::time::timeout_at(deadline, raft.client_write(command)).await {
            Err(_) => Err(self.no_quorum()),
            Ok(Ok(written)) => match written.data.0 {
                Ok(applied) => {
                    // Followers apply what a heartbeat says is committed; the next regular one is too late for somebody
                    // who waits. A failure only means that it comes with that one.
                    let _ = raft.trigger().heartbeat().await;
                    Ok(Some((written.log_id.index, applied)))
                }
                Err(refusal) => Err(refusal_error(&refusal)),
            },
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Ok(None),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Internal, error.to_string())),
        }
    }

    /// A command that another member asks the leader to have agreed on. `None`: this node is not the leader.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) async fn write_for_member(&self, command: Command) -> Result<Option<(u64, Applied)>, Error> {
        if self.metrics().current_leader != Some(self.uuid()) {
            return Ok(None);
        }
        if !self.has_majority() {
            return Err(self.no_quorum());
        }
        self.propose_here(command, Instant::now() + WRITE_TIMEOUT).await
    }

    pub(crate) fn find_volume<'a>(state: &'a State, name: &str) -> Result<&'a mortar_logic::pool::Volume, Error> {
        state.volumes.get(name).ok_or_else(|| refusal_error(&Refusal::NoSuchVolume(name.to_owned())))
    }

    /// Ends the consensus; the database is closed when the last handle goes.
    pub(crate) async fn stop(&self) {
        self.end_life().await;
    }

    /// For messages.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.paths.data.clone()
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("options", &self.options).field("uuid", &self.uuid()).finish_non_exhaustive()
    }
}

/// A daemon that is just ending may still have the file open.
async fn open_database(path: &std::path::Path) -> Result<Database, DatabaseError> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        match Database::open(path) {
            Err(DatabaseError::Storage(redb::Error::DatabaseAlreadyOpen)) if Instant::now() < deadline => {
                tokio::time::sleep(WRITE_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// A refusal as the API answers it.
pub(crate) fn refusal_error(refusal: &Refusal) -> Error {
    let kind = match refusal.kind() {
        Kind::Invalid => ErrorKind::Invalid,
        Kind::NotFound => ErrorKind::NotFound,
        Kind::Conflict => ErrorKind::Conflict,
    };
    Error::new(kind, refusal.to_string())
}
