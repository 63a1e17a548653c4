//! The state machine for openraft: applies commands, stores the result, shows it to the rest of the daemon.

use std::io::Cursor;
use std::sync::Arc;

use mortar_logic::pool::{self, Applied, State};
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, LogId, OptionalSend, RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError,
    StorageIOError, StoredMembership,
};
use tokio::sync::watch;
use uuid::Uuid;

use super::database::{Database, StoredMachine};
use super::log::blocking;
use super::{Outcome, TypeConfig};

/// The configuration that is in force on this node, and the log entry it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub applied_index: u64,
    pub state: State,
}

/// A snapshot as it is stored and sent: the state as JSON.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct StoredSnapshot {
    meta: SnapshotMeta<Uuid, BasicNode>,
    state: State,
}

#[derive(Debug)]
pub(super) struct Machine {
    database: Database,
    /// What was stored last; read from the file at the first use.
    current: Option<StoredMachine>,
    view: watch::Sender<Arc<View>>,
}

impl Machine {
    pub(super) const fn new(database: Database, view: watch::Sender<Arc<View>>) -> Self {
        Self { database, current: None, view }
    }

    async fn current(&mut self) -> Result<&mut StoredMachine, StorageError<Uuid>> {
        if self.current.is_none() {
            let stored = blocking(&self.database, Database::machine).await.map_err(|error| read_failed(&error))?;
            self.current = Some(stored.unwrap_or_default());
        }
        Ok(self.current.as_mut().expect("just filled"))
    }

    /// Stores the state, then shows it: nobody acts on a configuration that a crash could take back.
    async fn store(&mut self, machine: StoredMachine) -> Result<(), StorageError<Uuid>> {
        let stored = machine.clone();
        blocking(&self.database, move |database| database.save_machine(&stored))
            .await
            .map_err(|error| StorageError::IO { source: StorageIOError::write_state_machine(&error) })?;
        let applied_index = machine.applied.map_or(0, |id| id.index);
        self.view.send_replace(Arc::new(View { applied_index, state: machine.state.clone() }));
        self.current = Some(machine);
        Ok(())
    }
}

fn read_failed(error: &std::io::Error) -> StorageError<Uuid> {
    StorageError::IO { source: StorageIOError::read_state_machine(error) }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<Uuid>>, StoredMembership<Uuid, BasicNode>), StorageError<Uuid>> {
        let current = self.current().await?;
        Ok((current.applied, current.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<Uuid>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut machine = self.current().await?.clone();
        let mut outcomes = Vec::new();
        for entry in entries {
            machine.applied = Some(entry.log_id);
            outcomes.push(Outcome(match entry.payload {
                EntryPayload::Blank => Ok(Applied::default()),
                EntryPayload::Normal(command) => pool::apply(&mut machine.state, command),
                EntryPayload::Membership(membership) => {
                    machine.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Ok(Applied::default())
                }
            }));
        }
        self.store(machine).await?;
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let machine = self.current().await.map(|machine| machine.clone());
        Builder { database: self.database.clone(), machine }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError<Uuid>> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<Uuid, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<Uuid>> {
        let failed = |error: &std::io::Error| StorageError::IO {
            source: StorageIOError::read_snapshot(Some(meta.signature()), error),
        };
        let state: State =
            serde_json::from_slice(&snapshot.into_inner()).map_err(|error| failed(&std::io::Error::other(error)))?;
        let stored = StoredSnapshot { meta: meta.clone(), state: state.clone() };
        blocking(&self.database, move |database| database.save_snapshot(&stored))
            .await
            .map_err(|error| failed(&error))?;
        self.store(StoredMachine { applied: meta.last_log_id, membership: meta.last_membership.clone(), state }).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError<Uuid>> {
        let stored = blocking(&self.database, Database::snapshot::<StoredSnapshot>)
            .await
            .map_err(|error| StorageError::IO { source: StorageIOError::read_snapshot(None, &error) })?;
        stored.map(|stored| sendable(&stored)).transpose().map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &serde_json::Error) -> StorageError<Uuid> {
    StorageError::IO { source: StorageIOError::read_snapshot(None, error) }
}

fn sendable(stored: &StoredSnapshot) -> serde_json::Result<Snapshot<TypeConfig>> {
    let bytes = serde_json::to_vec(&stored.state)?;
    Ok(Snapshot { meta: stored.meta.clone(), snapshot: Box::new(Cursor::new(bytes)) })
}

/// Takes a snapshot of the state it was made with.
#[derive(Debug)]
pub(super) struct Builder {
    database: Database,
    machine: Result<StoredMachine, StorageError<Uuid>>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError<Uuid>> {
        let machine = self.machine.clone()?;
        let index = machine.applied.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: machine.applied,
            last_membership: machine.membership,
            snapshot_id: format!("{index}-{}", machine.state.revision),
        };
        let stored = StoredSnapshot { meta, state: machine.state };
        let snapshot = sendable(&stored).map_err(|error| unreadable(&error))?;
        blocking(&self.database, move |database| database.save_snapshot(&stored))
            .await
            .map_err(|error| StorageError::IO { source: StorageIOError::write_snapshot(None, &error) })?;
        Ok(snapshot)
    }
}
