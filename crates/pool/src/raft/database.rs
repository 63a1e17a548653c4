//! The redb file: the log, the vote, and the applied state. Every write is on disk when its function returns.

use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mortar_logic::pool::State;
use openraft::{BasicNode, Entry, LogId, StoredMembership, Vote};
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::TypeConfig;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

const POOL: &str = "pool";
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const COMMITTED: &str = "committed";
const MACHINE: &str = "machine";
const SNAPSHOT: &str = "snapshot";

/// What can go wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the pool's database: {0}")]
    Storage(#[from] redb::Error),
    #[error("an entry of the pool's database is not understood: {0}")]
    Decode(#[from] serde_json::Error),
    /// The consensus that asks has been ended; its last tasks must not write into its successor's log.
    #[error("this use of the pool's database has ended")]
    Ended,
}

macro_rules! from_redb {
    ($($error:ident),*) => {
        $(impl From<redb::$error> for DatabaseError {
            fn from(error: redb::$error) -> Self {
                Self::Storage(error.into())
            }
        })*
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// The applied state, and where in the log it stands.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct StoredMachine {
    pub(super) applied: Option<LogId<Uuid>>,
    pub(super) membership: StoredMembership<Uuid, BasicNode>,
    pub(super) state: State,
}

/// A handle; clones share the file and their end.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    file: Arc<redb::Database>,
    ended: Arc<AtomicBool>,
}

impl Database {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be made, is not a redb file, or another process has it open.
    pub(crate) fn open(path: &Path) -> Result<Self, DatabaseError> {
        let file = redb::Database::create(path)?;
        let transaction = file.begin_write()?;
        transaction.open_table(LOG)?;
        transaction.open_table(META)?;
        transaction.commit()?;
        Ok(Self { file: Arc::new(file), ended: Arc::default() })
    }

    /// A handle for one life of the consensus.
    pub(crate) fn life(&self) -> Self {
        Self { file: Arc::clone(&self.file), ended: Arc::default() }
    }

    /// From now on this life's handles write nothing any more. What has begun to be written is finished before the next
    /// write of another life.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn begin_write(&self) -> Result<redb::WriteTransaction, DatabaseError> {
        let transaction = self.file.begin_write()?;
        // Looked at with the file's only write lock in hand, so that nothing slips in behind the end.
        if self.ended.load(Ordering::Acquire) {
            transaction.abort()?;
            return Err(DatabaseError::Ended);
        }
        Ok(transaction)
    }

    /// Makes it the database of a pool: what it holds of another one is forgotten, except for the configuration when
    /// the new pool goes on from it.
    ///
    /// # Errors
    /// When the file cannot be read or written; it is as it was then.
    pub(crate) fn belong_to(&self, pool_id: Uuid, recovered_from: Option<Uuid>) -> Result<(), DatabaseError> {
        let found = self.pool_id()?;
        if found == Some(pool_id) {
            return Ok(());
        }
        let goes_on = found.is_some() && found == recovered_from;
        let kept = if goes_on { self.machine()?.map(|stored| stored.state) } else { None };
        let transaction = self.begin_write()?;
        transaction.delete_table(LOG)?;
        transaction.delete_table(META)?;
        transaction.open_table(LOG)?;
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(POOL, serde_json::to_vec(&pool_id)?.as_slice())?;
            if let Some(state) = kept {
                let machine = StoredMachine { state, ..StoredMachine::default() };
                meta.insert(MACHINE, serde_json::to_vec(&machine)?.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DatabaseError> {
        let transaction = self.file.begin_read()?;
        let table = transaction.open_table(META)?;
        let Some(bytes) = table.get(key)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(bytes.value())?))
    }

    fn put<T: Serialize>(&self, key: &str, value: &T) -> Result<(), DatabaseError> {
        let bytes = serde_json::to_vec(value)?;
        let transaction = self.begin_write()?;
        transaction.open_table(META)?.insert(key, bytes.as_slice())?;
        transaction.commit()?;
        Ok(())
    }

    /// The pool that the content belongs to.
    ///
    /// # Errors
    /// When the file cannot be read.
    fn pool_id(&self) -> Result<Option<Uuid>, DatabaseError> {
        self.get(POOL)
    }

    pub(super) fn vote(&self) -> Result<Option<Vote<Uuid>>, DatabaseError> {
        self.get(VOTE)
    }

    pub(super) fn save_vote(&self, vote: &Vote<Uuid>) -> Result<(), DatabaseError> {
        self.put(VOTE, vote)
    }

    pub(super) fn committed(&self) -> Result<Option<LogId<Uuid>>, DatabaseError> {
        self.get::<Option<LogId<Uuid>>>(COMMITTED).map(Option::flatten)
    }

    pub(super) fn save_committed(&self, committed: Option<LogId<Uuid>>) -> Result<(), DatabaseError> {
        self.put(COMMITTED, &committed)
    }

    pub(super) fn machine(&self) -> Result<Option<StoredMachine>, DatabaseError> {
        self.get(MACHINE)
    }

    pub(super) fn save_machine(&self, machine: &StoredMachine) -> Result<(), DatabaseError> {
        self.put(MACHINE, machine)
    }

    /// The last snapshot's metadata and content.
    pub(super) fn snapshot<T: DeserializeOwned>(&self) -> Result<Option<T>, DatabaseError> {
        self.get(SNAPSHOT)
    }

    pub(super) fn save_snapshot<T: Serialize>(&self, snapshot: &T) -> Result<(), DatabaseError> {
        self.put(SNAPSHOT, snapshot)
    }

    pub(super) fn purged(&self) -> Result<Option<LogId<Uuid>>, DatabaseError> {
        self.get(PURGED)
    }

    pub(super) fn last_entry(&self) -> Result<Option<Entry<TypeConfig>>, DatabaseError> {
        let transaction = self.file.begin_read()?;
        let table = transaction.open_table(LOG)?;
        let Some((_, bytes)) = table.last()? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(bytes.value())?))
    }

    pub(super) fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry<TypeConfig>>, DatabaseError> {
        let transaction = self.file.begin_read()?;
        let table = transaction.open_table(LOG)?;
        let mut entries = Vec::new();
        for found in table.range::<u64>((cloned(range.start_bound()), cloned(range.end_bound())))? {
            entries.push(serde_json::from_slice(found?.1.value())?);
        }
        Ok(entries)
    }

    pub(super) fn append(&self, entries: &[Entry<TypeConfig>]) -> Result<(), DatabaseError> {
        let transaction = self.begin_write()?;
        {
            let mut table = transaction.open_table(LOG)?;
            for entry in entries {
                table.insert(entry.log_id.index, serde_json::to_vec(entry)?.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Drops the entry and all behind it.
    pub(super) fn truncate(&self, from: u64) -> Result<(), DatabaseError> {
        let transaction = self.begin_write()?;
        transaction.open_table(LOG)?.retain_in(from.., |_, _| false)?;
        transaction.commit()?;
        Ok(())
    }

    /// Drops the entry and all before it.
    pub(super) fn purge(&self, upto: LogId<Uuid>) -> Result<(), DatabaseError> {
        let transaction = self.begin_write()?;
        transaction.open_table(META)?.insert(PURGED, serde_json::to_vec(&upto)?.as_slice())?;
        transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
        transaction.commit()?;
        Ok(())
    }
}

fn cloned(bound: Bound<&u64>) -> Bound<u64> {
    match bound {
        Bound::Included(index) => Bound::Included(*index),
        Bound::Excluded(index) => Bound::Excluded(*index),
        Bound::Unbounded => Bound::Unbounded,
    }
}
