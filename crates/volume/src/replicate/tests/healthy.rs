//! With every child up: which requests each brick sees, in which order, for each kind of change.

use super::*;

/// Both bricks saw the same.
pub(super) fn both(kinds: &[Vec<&'static str>]) -> Vec<&'static str> {
    assert_eq!(kinds[0], kinds[1]);
    kinds[0].clone()
}

#[tokio::test(start_paused = true)]
async fn the_second_create_in_a_directory_is_one_request_per_brick() {
    let volume = Volume::new(2);
    let client = volume.client();
    client.create(Gfid::ROOT, "a").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["ENTRYLK", "CREATE"]);
    client.create(Gfid::ROOT, "b").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["CREATE"]);
    client.mkdir(Gfid::ROOT, "d").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["MKDIR"]);
    idle().await;
    assert_eq!(both(&volume.kinds()), ["ENTRYLK"], "given back when idle");
    volume.assert_clean(&[&[], &["a"], &["b"], &["d"]]);
}

#[tokio::test(start_paused = true)]
async fn all_bricks_give_a_new_inode_the_same_gfid() {
    let volume = Volume::new(3);
    let client = volume.client();
    let (gfid, _) = client.file("a").await;
    assert!(volume.bricks.iter().all(|brick| brick.at(&["a"]).unwrap().gfid == gfid));
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_writes_pays_for_lock_and_mark_once() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    volume.clear_logs();
    client.write(file, 0, "one").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["FINODELK", "FXATTROP", "WRITE"]);
    assert_eq!(volume.counters(0, &["a"], "trusted.afr.dirty"), "00000001 00000000 00000000");
    client.write(file, 3, "two").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["WRITE"]);
    idle().await;
    assert_eq!(both(&volume.kinds()), ["ENTRYLK", "FXATTROP", "FINODELK"], "appends need no flush");
    volume.assert_clean(&[&["a"]]);
    assert_eq!(client.read(file).await.unwrap(), "onetwo");
}

#[tokio::test(start_paused = true)]
async fn an_overwrite_is_flushed_before_its_mark_goes() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "one").await.unwrap();
    client.write(file, 0, "two").await.unwrap();
    volume.clear_logs();
    idle().await;
    let kinds = volume.kinds();
    let kinds: Vec<_> = kinds[0].iter().filter(|kind| **kind != "ENTRYLK").copied().collect();
    assert_eq!(kinds, ["FSYNC", "FXATTROP", "FINODELK"]);
}

#[tokio::test(start_paused = true)]
async fn fsync_reaches_every_disk_and_spares_the_later_flush() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "one").await.unwrap();
    client.write(file, 0, "two").await.unwrap();
    volume.clear_logs();
    client.fsync(file).await.unwrap();
    assert_eq!(both(&volume.kinds()), ["FSYNC"]);
    for brick in &volume.bricks {
        assert_eq!(brick.at(&["a"]).unwrap().synced, b"two");
    }
    idle().await;
    assert!(!volume.kinds()[0].contains(&"FSYNC"));
    client.fsync(file).await.unwrap();
    assert_eq!(both(&volume.kinds()), ["FSYNC"], "nothing stands: no lock, no mark");
}

#[tokio::test(start_paused = true)]
async fn attributes_share_one_lock_and_need_no_mark() {
    let volume = Volume::new(2);
    let client = volume.client();
    let (gfid, _) = client.file("a").await;
    volume.clear_logs();
    client.chmod(gfid, 0o600).await.unwrap();
    client.setxattr(gfid, "user.x").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["INODELK", "SETATTR", "SETXATTR"]);
    idle().await;
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_rename_of_a_known_file_is_one_request_and_of_a_directory_locks_the_target() {
    let volume = Volume::new(2);
    let client = volume.client();
    client.file("a").await;
    let source = client.mkdir(Gfid::ROOT, "s").await.unwrap();
    let target = client.mkdir(Gfid::ROOT, "t").await.unwrap();
    volume.clear_logs();
    client.rename((Gfid::ROOT, "a"), (Gfid::ROOT, "b")).await.unwrap();
    assert_eq!(both(&volume.kinds()), ["RENAME"]);
    client.rename((Gfid::ROOT, "s"), (Gfid::ROOT, "t")).await.unwrap();
    let logs: Vec<_> = volume.bricks[0].take_log().into_iter().map(|call| call.request).collect();
    let locks_target =
        |request: &Request| matches!(request, Request::Entrylk(lock) if lock.gfid == target && lock.name.is_none());
    assert!(logs.iter().any(locks_target), "{logs:?}");
    assert_eq!(volume.bricks[1].at(&["t"]).unwrap().gfid, source);
}

#[tokio::test(start_paused = true)]
async fn rmdir_locks_the_victim_and_reports_a_full_one() {
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(Gfid::ROOT, "d").await.unwrap();
    client.create(dir, "x").await.unwrap();
    let rmdir = Rmdir { parent: Gfid::ROOT, flags: 0, name: Bytes::from_static(b"d"), xdata: None };
    assert_eq!(client.fop(rmdir.clone()).await.unwrap_err().errno, Errno::ENOTEMPTY);
    client.unlink(dir, "x").await.unwrap();
    client.fop(rmdir).await.unwrap();
    idle().await;
    volume.assert_clean(&[&[]]);
    assert!(volume.bricks[0].at(&["d"]).is_none());
}

#[tokio::test(start_paused = true)]
async fn reads_ask_one_child_and_closing_asks_none() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "hello").await.unwrap();
    volume.clear_logs();
    assert_eq!(client.read(file).await.unwrap(), "hello");
    client.fop(Stat { gfid: file.0, xdata: None }).await.unwrap();
    let kinds = volume.kinds();
    assert_eq!(kinds.iter().map(Vec::len).sum::<usize>(), 2, "{kinds:?}");
    client.fop(Flush { gfid: file.0, fd: file.1, xdata: None }).await.unwrap();
    assert_eq!(both(&volume.kinds()), [""; 0]);
    client.release(file).await;
    idle().await;
    assert!(volume.bricks.iter().all(|brick| brick.at(&["a"]).unwrap().opens == 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_refusal_everywhere_leaves_no_trace() {
    let volume = Volume::new(2);
    let client = volume.client();
    client.file("a").await;
    assert!(client.create(Gfid::ROOT, "a").await.is_ok(), "without O_EXCL it is opened");
    assert_eq!(client.mkdir(Gfid::ROOT, "a").await.unwrap_err().errno, Errno::EEXIST);
    assert_eq!(client.unlink(Gfid::ROOT, "missing").await.unwrap_err().errno, Errno::ENOENT);
    idle().await;
    volume.assert_clean(&[&[], &["a"]]);
}

#[tokio::test(start_paused = true)]
async fn an_unlinked_open_file_is_still_written_and_leaves_no_mark() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.unlink(Gfid::ROOT, "a").await.unwrap();
    client.write(file, 0, "x").await.unwrap();
    assert_eq!(client.read(file).await.unwrap(), "x");
    idle().await;
    let dirty = volume.bricks[0].node(file.0).unwrap().xattrs["trusted.afr.dirty"].clone();
    assert!(dirty.iter().all(|byte| *byte == 0));
    assert!(volume.bricks.iter().all(|brick| brick.locks_count() == 0));
}

#[tokio::test(start_paused = true)]
async fn removing_a_file_just_written_clears_its_mark_first() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "x").await.unwrap();
    client.release(file).await;
    volume.clear_logs();
    client.unlink(Gfid::ROOT, "a").await.unwrap();
    let kinds = volume.kinds();
    let at = |kind| kinds[0].iter().position(|known| *known == kind);
    assert!(at("FXATTROP") < at("UNLINK"), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn quiesce_leaves_nothing_behind() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "x").await.unwrap();
    client.chmod(file.0, 0o600).await.unwrap();
    client.layer.quiesce().await;
    volume.assert_clean(&[&[], &["a"]]);
}

#[tokio::test(start_paused = true)]
async fn counters_are_hidden_from_callers_and_cannot_be_set() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "x").await.unwrap();
    let list = client.fop(Getxattr { gfid: file.0, name: None, xdata: None }).await.unwrap();
    assert!(!list.dict.unwrap().keys().any(|key| key.starts_with("trusted.afr")));
    assert_eq!(client.setxattr(file.0, "trusted.afr.dirty").await.unwrap_err().errno, Errno::EPERM);
    let lookup = client.lookup(Gfid::ROOT, "a").await.unwrap();
    assert!(!lookup.xdata.unwrap().keys().any(|key| key.starts_with("trusted.afr")));
}

#[tokio::test(start_paused = true)]
async fn pathinfo_wraps_every_child() {
    let volume = Volume::new(2);
    let client = volume.client();
    let name = Some(Bytes::from_static(keys::PATHINFO.as_bytes()));
    let reply = client.fop(Getxattr { gfid: Gfid::ROOT, name, xdata: None }).await.unwrap();
    assert_eq!(
        reply.dict.unwrap().get_str(keys::PATHINFO),
        Some(
            "(<REPLICATE:v-replicate-0> <POSIX(/v-client-0):host:/v-client-0/x> <POSIX(/v-client-1):host:/v-client-1/x>)"
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_listing_stays_with_one_child() {
    let volume = Volume::new(2);
    let client = volume.client();
    client.file("a").await;
    let fd = client.fop(Opendir { gfid: Gfid::ROOT, xdata: None }).await.unwrap().fd;
    client.fop(Stat { gfid: Gfid::ROOT, xdata: None }).await.unwrap();
    volume.clear_logs();
    for offset in [0, 1] {
        client.fop(Readdirp { gfid: Gfid::ROOT, fd, offset, size: 4096, xdata: None }).await.unwrap();
    }
    let kinds = volume.kinds();
    assert!(kinds.contains(&vec!["READDIRP", "READDIRP"]) && kinds.contains(&vec![]), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn posix_locks_go_child_by_child_and_a_conflict_takes_nothing() {
    let volume = Volume::new(2);
    let (one, two) = (volume.client(), volume.client());
    let file = one.file("a").await;
    let other = (file.0, two.open(file.0, 2).await.unwrap());
    let lock = |file: (Gfid, Fd), kind, owner: u64| {
        let owner = LkOwner::from_u64(owner);
        let flock = Flock { kind, whence: 0, start: 0, len: 0, pid: 1, owner };
        Lk { gfid: file.0, fd: file.1, cmd: LockCmd::Set, kind, flock, xdata: None }
    };
    one.fop(lock(file, LockType::Write, 1)).await.unwrap();
    assert_eq!(two.fop(lock(other, LockType::Write, 2)).await.unwrap_err().errno, Errno::EAGAIN);
    let mut get = lock(other, LockType::Write, 2);
    get.cmd = LockCmd::Get;
    assert_eq!(two.fop(get).await.unwrap().flock.kind, LockType::Write);
    one.fop(lock(file, LockType::Unlock, 1)).await.unwrap();
    two.fop(lock(other, LockType::Write, 2)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_replica_works_like_many() {
    let volume = Volume::new(1);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "x").await.unwrap();
    assert_eq!(client.read(file).await.unwrap(), "x");
    client.layer.quiesce().await;
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_late_read_is_answered_by_another_child() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    client.write(file, 0, "data").await.unwrap();
    client.read(file).await.unwrap();
    for late in [0, 1] {
        volume.bricks[late].set_delay(|| Duration::from_secs(20));
        let start = tokio::time::Instant::now();
        assert_eq!(client.read(file).await.unwrap(), "data");
        assert!(start.elapsed() < Duration::from_millis(300), "{:?}", start.elapsed());
        volume.bricks[late].set_delay(|| Duration::ZERO);
        // What was asked first is not waited for.
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
}
