//! The log for openraft. Disk work leaves the async threads.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{Entry, LogId, LogState, OptionalSend, RaftLogReader, StorageError, StorageIOError, Vote};
use uuid::Uuid;

use super::TypeConfig;
use super::database::{Database, DatabaseError};

#[derive(Debug, Clone)]
pub(super) struct Log {
    database: Database,
}

impl Log {
    pub(super) const fn new(database: Database) -> Self {
        Self { database }
    }
}

/// Runs disk work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    database: &Database,
    work: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, io::Error> {
    let database = database.clone();
    match tokio::task::spawn_blocking(move || work(&database)).await {
        Ok(done) => done.map_err(io::Error::other),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}

fn failed(error: &io::Error, wrap: impl FnOnce(&io::Error) -> StorageIOError<Uuid>) -> StorageError<Uuid> {
    StorageError::IO { source: wrap(error) }
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<TypeConfig>>, StorageError<Uuid>> {
        let range = (own(range.start_bound()), own(range.end_bound()));
        blocking(&self.database, move |database| database.entries(range))
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::read_logs(error)))
    }
}

fn own(bound: Bound<&u64>) -> Bound<u64> {
    match bound {
        Bound::Included(index) => Bound::Included(*index),
        Bound::Excluded(index) => Bound::Excluded(*index),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError<Uuid>> {
        blocking(&self.database, |database| {
            let purged = database.purged()?;
            let last = database.last_entry()?.map(|entry| entry.log_id).or(purged);
            Ok(LogState { last_purged_log_id: purged, last_log_id: last })
        })
        .await
        .map_err(|error| failed(&error, |error| StorageIOError::read_logs(error)))
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<Uuid>) -> Result<(), StorageError<Uuid>> {
        let vote = *vote;
        blocking(&self.database, move |database| database.save_vote(&vote))
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::write_vote(error)))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<Uuid>>, StorageError<Uuid>> {
        blocking(&self.database, Database::vote)
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::read_vote(error)))
    }

    async fn save_committed(&mut self, committed: Option<LogId<Uuid>>) -> Result<(), StorageError<Uuid>> {
        blocking(&self.database, move |database| database.save_committed(committed))
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::write_logs(error)))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<Uuid>>, StorageError<Uuid>> {
        blocking(&self.database, Database::committed)
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::read_logs(error)))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError<Uuid>>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let written = blocking(&self.database, move |database| database.append(&entries)).await;
        let outcome = written.as_ref().copied().map_err(|error| io::Error::other(error.to_string()));
        callback.log_io_completed(outcome);
        written.map_err(|error| failed(&error, |error| StorageIOError::write_logs(error)))
    }

    async fn truncate(&mut self, log_id: LogId<Uuid>) -> Result<(), StorageError<Uuid>> {
        blocking(&self.database, move |database| database.truncate(log_id.index))
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::write_logs(error)))
    }

    async fn purge(&mut self, log_id: LogId<Uuid>) -> Result<(), StorageError<Uuid>> {
        blocking(&self.database, move |database| database.purge(log_id))
            .await
            .map_err(|error| failed(&error, |error| StorageIOError::write_logs(error)))
    }
}
