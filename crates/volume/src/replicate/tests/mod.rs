//! The layer over bricks in memory.

mod compound;
mod degraded;
mod healthy;
mod kept;
mod listing;
mod lost;
mod stress;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_types::fop::*;
use mortar_types::*;

use super::{Options, Replicate};
use crate::testing::Brick;

pub(super) struct Volume {
    pub(super) bricks: Vec<Arc<Brick>>,
}

pub(super) struct Client {
    pub(super) layer: Arc<Replicate>,
    fops: Arc<dyn Fops>,
    pub(super) ctx: Context,
}

pub(super) const PENDING: [&str; 3] = ["trusted.afr.v-client-0", "trusted.afr.v-client-1", "trusted.afr.v-client-2"];

impl Volume {
    pub(super) fn new(replicas: usize) -> Self {
        Self { bricks: (0..replicas).map(|at| Brick::new(format!("v-client-{at}"))).collect() }
    }

    pub(super) fn client(&self) -> Client {
        self.client_with(|_| ())
    }

    pub(super) fn client_with(&self, change: impl FnOnce(&mut Options)) -> Client {
        let ids: Vec<String> = (0..self.bricks.len()).map(|at| format!("v-client-{at}")).collect();
        let mut options = Options::new("v-replicate-0", ids);
        options.choose_local = false;
        change(&mut options);
        let children = self.bricks.iter().map(|brick| brick.connect() as Arc<dyn Fops>).collect();
        let layer = Replicate::new(options, children);
        Client { fops: Arc::clone(&layer) as Arc<dyn Fops>, layer, ctx: Context::default() }
    }

    pub(super) fn kinds(&self) -> Vec<Vec<&'static str>> {
        self.bricks.iter().map(|brick| brick.take_kinds().iter().map(|kind| kind.label()).collect()).collect()
    }

    pub(super) fn clear_logs(&self) {
        self.kinds();
    }

    pub(super) fn counters(&self, brick: usize, path: &[&str], key: &str) -> String {
        self.bricks[brick].counter(path, key).unwrap_or_else(|| "-".to_owned())
    }

    /// No lock, no dirty mark and no accusation is left, and the copies are the same.
    pub(super) fn assert_clean(&self, paths: &[&[&str]]) {
        for brick in &self.bricks {
            assert_eq!(brick.locks_count(), 0, "locks left");
        }
        for path in paths {
            let copies: Vec<_> = self.bricks.iter().map(|brick| brick.at(path).expect("there")).collect();
            for copy in &copies {
                assert_eq!(
                    (&copy.data, copy.mode, &copy.entries),
                    (&copies[0].data, copies[0].mode, &copies[0].entries)
                );
                for (key, value) in &copy.xattrs {
                    assert!(!key.starts_with("trusted.afr") || value.iter().all(|byte| *byte == 0), "{path:?} {key}");
                }
            }
        }
    }
}

impl Volume {
    /// Copies that nobody accuses are the same, and there is one: what a heal needs. (A client that meets another one's
    /// create or removal half-way may find a copy missing and accuse it.)
    pub(super) fn assert_healable(&self, path: &[&str]) {
        let accused = |child: usize, slot: usize| {
            self.bricks.iter().any(|brick| {
                brick
                    .at(path)
                    .and_then(|node| node.xattrs.get(PENDING[child]).cloned())
                    .is_some_and(|value| value[slot * 4..slot * 4 + 4] != [0; 4])
            })
        };
        let good = |slot| -> Vec<_> {
            (0..self.bricks.len())
                .filter(|at| !accused(*at, slot))
                .map(|at| self.bricks[at].at(path).unwrap())
                .collect()
        };
        let (data, metadata) = (good(0), good(1));
        assert!(!data.is_empty() && !metadata.is_empty(), "{path:?} is split-brain");
        assert!(data.iter().all(|copy| copy.data == data[0].data), "{path:?} differs in data");
        assert!(metadata.iter().all(|copy| copy.mode == metadata[0].mode), "{path:?} differs in mode");
    }
}

impl Client {
    pub(super) async fn fop<F: Fop>(&self, request: F) -> Outcome<F::Reply> {
        self.fops.fop(&self.ctx, request).await
    }

    pub(super) async fn create(&self, parent: Gfid, name: &str) -> Outcome<CreateReply> {
        let name = Bytes::from(name.to_owned());
        self.fop(Create { parent, flags: 2, mode: 0o644, umask: 0, name, xdata: None }).await
    }

    pub(super) async fn file(&self, name: &str) -> (Gfid, Fd) {
        let reply = self.create(Gfid::ROOT, name).await.unwrap();
        (reply.stat.gfid, reply.fd)
    }

    pub(super) async fn mkdir(&self, parent: Gfid, name: &str) -> Outcome<Gfid> {
        let name = Bytes::from(name.to_owned());
        Ok(self.fop(Mkdir { parent, mode: 0o755, umask: 0, name, xdata: None }).await?.stat.gfid)
    }

    pub(super) async fn write(&self, file: (Gfid, Fd), offset: u64, data: &str) -> Outcome<WriteReply> {
        let data = Bytes::from(data.to_owned());
        self.fop(Write { gfid: file.0, fd: file.1, offset, flags: 0, data, xdata: None }).await
    }

    pub(super) async fn read(&self, file: (Gfid, Fd)) -> Outcome<String> {
        let read = Read { gfid: file.0, fd: file.1, offset: 0, size: 1 << 20, flags: 0, xdata: None };
        Ok(String::from_utf8(self.fop(read).await?.data.to_vec()).unwrap())
    }

    pub(super) async fn chmod(&self, gfid: Gfid, mode: u32) -> Outcome<ChangeReply> {
        let stat = Iatt { mode, ..Iatt::default() };
        self.fop(Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: None }).await
    }

    pub(super) async fn setxattr(&self, gfid: Gfid, key: &'static str) -> Outcome<AckReply> {
        let dict = Some(Dict::new().with(key, Value::ptr(vec![1])));
        self.fop(Setxattr { gfid, flags: 0, dict, xdata: None }).await
    }

    pub(super) async fn truncate(&self, gfid: Gfid, offset: u64) -> Outcome<ChangeReply> {
        self.fop(Truncate { gfid, offset, xdata: None }).await
    }

    pub(super) async fn fsync(&self, file: (Gfid, Fd)) -> Outcome<ChangeReply> {
        self.fop(Fsync { gfid: file.0, fd: file.1, datasync: 0, xdata: None }).await
    }

    pub(super) async fn unlink(&self, parent: Gfid, name: &str) -> Outcome<ChangeReply> {
        self.fop(Unlink { parent, name: Bytes::from(name.to_owned()), flags: 0, xdata: None }).await
    }

    pub(super) async fn rename(&self, old: (Gfid, &str), new: (Gfid, &str)) -> Outcome<RenameReply> {
        let (old_name, new_name) = (Bytes::from(old.1.to_owned()), Bytes::from(new.1.to_owned()));
        self.fop(Rename { old_parent: old.0, new_parent: new.0, old_name, new_name, xdata: None }).await
    }

    pub(super) async fn lookup(&self, parent: Gfid, name: &str) -> Outcome<LookupReply> {
        let name = Bytes::from(name.to_owned());
        self.fop(Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None }).await
    }

    pub(super) async fn open(&self, gfid: Gfid, flags: u32) -> Outcome<Fd> {
        Ok(self.fop(Open { gfid, flags, xdata: None }).await?.fd)
    }

    pub(super) async fn release(&self, file: (Gfid, Fd)) {
        self.fop(Release { gfid: file.0, fd: file.1, xdata: None }).await.unwrap();
    }
}

/// Longer than locks are kept unused.
pub(super) async fn idle() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}
