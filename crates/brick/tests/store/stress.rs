//! Many callers at once: no deadlock, and the disk is consistent afterwards.

use std::sync::Arc;

use mortar_brick::store::{Store, initialise};
use mortar_types::fop::{Create, Mkdir, Release, Rename, Rmdir, Unlink};
use mortar_types::{Context, Fops, Gfid};

use crate::support::{Brick, Scratch, VOLUME, bytes, gfid_req, options};

const CALLERS: usize = 6;
const ROUNDS: usize = 150;

/// Makes, renames and removes the same few names in the same few directories as everybody else; any errno will do.
async fn disturb(store: Arc<dyn Fops>, dirs: [Gfid; 3], caller: usize) {
    let ctx = Context::default();
    for round in 0..ROUNDS {
        let at = |step: usize| dirs[(caller + round + step) % 3];
        let name = |step: usize| bytes(["a", "b", "c"][(caller * 7 + round * 3 + step) % 3]);
        let xdata = || gfid_req(Gfid::random());
        let create = Create { parent: at(0), flags: 0o102, mode: 0o644, umask: 0, name: name(0), xdata: xdata() };
        let created = store.fop(&ctx, create).await;
        let rename = Rename { old_parent: at(0), new_parent: at(1), old_name: name(0), new_name: name(1), xdata: None };
        let _ = store.fop(&ctx, rename).await;
        let _ = store.fop(&ctx, Mkdir { parent: at(2), mode: 0o755, umask: 0, name: name(2), xdata: xdata() }).await;
        let _ = store.fop(&ctx, Unlink { parent: at(1), name: name(1), flags: 0, xdata: None }).await;
        let flags = i32::from(round % 5 == 0);
        let _ = store.fop(&ctx, Rmdir { parent: at(2), flags, name: name(2), xdata: None }).await;
        if let Ok(reply) = created {
            store.fop(&ctx, Release { gfid: reply.stat.gfid, fd: reply.fd, xdata: None }).await.expect("always");
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn callers_that_meet_everywhere_leave_a_consistent_brick() {
    let scratch = Scratch::new();
    if initialise(&scratch.0, VOLUME).is_err() {
        mortar_testkit::needs::skip("no trusted xattrs here");
        return;
    }
    let brick = Brick::over(scratch, options);
    let dirs = ["x", "y", "z"].map(|name| brick.mkdir(Gfid::ROOT, name).expect("it is new"));
    let Brick { scratch, store, .. } = brick;
    drop(store);
    let store = Store::open(options(&scratch.0)).expect("it opens");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    runtime.block_on(async {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let store: Arc<dyn Fops> = store.clone();
                tokio::spawn(disturb(store, dirs, caller))
            })
            .collect();
        for caller in callers {
            caller.await.expect("no caller panics");
        }
    });
    assert_eq!(store.open_fds(), 0);
    drop(store);
    let unlinked = std::fs::read_dir(scratch.0.join(".glusterfs/unlink")).expect("it is there").count();
    assert_eq!(unlinked, 0, "nothing is open, so nothing is parked");
    let brick = Brick::over(scratch, options);
    for dir in dirs {
        for (name, stat) in brick.list(dir, 65_536).expect("it lists") {
            assert_eq!(brick.stat(stat.gfid).map(|found| found.gfid), Ok(stat.gfid), "{name} is found by its gfid");
        }
    }
}
