//! Work goes on through every kind of change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mortar_types::fop::{Lookup, Release, Rename, Unlink};
use mortar_types::{Context, Errno, Gfid};
use mortar_volume::switch::Taken;

use super::bricks::{Client, Local, key, volfile};

/// Writes its own file again and again through one open fd, reads it back, and makes, renames and removes others.
async fn work(client: Arc<Client>, number: u64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let file = client.create(&format!("worker-{number}")).await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    let ctx = Context::default();
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("{number} {round:012}");
        client.write(gfid, fd, 0, text.as_bytes()).await.expect("a write fails");
        let found = client.read(gfid, fd).await.expect("a read fails");
        assert_eq!(&found[..], text.as_bytes(), "worker {number}, round {round}");
        let (old, new) = (format!("tmp-{number}"), format!("new-{number}"));
        let made = client.create(&old).await;
        client.write(made.stat.gfid, made.fd, 0, text.as_bytes()).await.expect("a write to a new file fails");
        let release = Release { gfid: made.stat.gfid, fd: made.fd, xdata: None };
        client.top.fop(&ctx, release).await.expect("a close fails");
        let (old_parent, new_parent) = (Gfid::ROOT, Gfid::ROOT);
        let rename = Rename { old_parent, new_parent, old_name: old.into(), new_name: new.clone().into(), xdata: None };
        client.top.fop(&ctx, rename).await.expect("a rename fails");
        let (gfid, parent, flags) = (Gfid::NULL, Gfid::ROOT, 0);
        let lookup = Lookup { gfid, parent, flags, name: new.clone().into(), xdata: None };
        assert_eq!(client.top.fop(&ctx, lookup).await.expect("a lookup fails").stat.gfid, made.stat.gfid);
        let unlink = Unlink { parent: Gfid::ROOT, name: new.into(), flags: 0, xdata: None };
        client.top.fop(&ctx, unlink).await.expect("an unlink fails");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_through_changes_of_replicas_and_options() {
    let Some([one, two, three]) = Local::several() else { return };
    let client = Arc::new(Client::new(&volfile(&[&one], &[])).await);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..4)
        .map(|number| tokio::spawn(work(Arc::clone(&client), number, Arc::clone(&stop), Arc::clone(&done))))
        .collect();
    let progress = async |what: &str| {
        let before = done.load(Ordering::Relaxed);
        for _ in 0..500 {
            if done.load(Ordering::Relaxed) > before + 8 {
                return;
            }
            assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker has ended: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing goes on: {what}");
    };
    progress("one brick").await;
    one.accuse(&key(&two));
    client.take(&volfile(&[&one, &two], &[])).await;
    progress("two replicas").await;
    client.take(&volfile(&[&one, &two], &[("cluster/replicate", "eager-lock", "off")])).await;
    progress("an option of replication").await;
    client.take(&volfile(&[&one, &two], &[("performance/quick-read", "cache-timeout", "9")])).await;
    progress("an option of a cache").await;
    for brick in [&one, &two] {
        brick.accuse(&key(&three));
    }
    client.take(&volfile(&[&one, &two, &three], &[])).await;
    progress("three replicas").await;
    client.take(&volfile(&[&one, &two], &[])).await;
    progress("two replicas again").await;
    client.take(&volfile(&[&one], &[])).await;
    progress("one brick again").await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    // The bricks that went have no client any more.
    for brick in [&two, &three] {
        for _ in 0..500 {
            if brick.brick.clients().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(brick.brick.clients().is_empty());
    }
    assert_eq!(one.brick.clients().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_comes_and_goes() {
    let Some([one]) = Local::several() else { return };
    let writable = volfile(&[&one], &[]);
    let client = Client::new(&writable).await;
    let file = client.create("f").await;
    client.take(&volfile(&[&one], &[("features/read-only", "read-only", "on")])).await;
    assert_eq!(client.write(file.stat.gfid, file.fd, 0, b"x").await, Err(Errno::EROFS.into()));
    client.take(&writable).await;
    client.write(file.stat.gfid, file.fd, 0, b"x").await.unwrap();
    assert_eq!(client.switch.take(&writable).await.unwrap(), Taken::Unchanged);
}
