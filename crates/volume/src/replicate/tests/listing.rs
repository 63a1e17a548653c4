//! What a listing may say of files, and what is known of a directory's names.

use super::*;

/// What a layer above learns of a file from a listing that brick 1 gives: its size, if the entry may be used.
async fn listed_size(client: &Client, name: &str) -> Option<u64> {
    let fd = client.fop(Opendir { gfid: Gfid::ROOT, xdata: None }).await.unwrap().fd;
    let list = Readdirp { gfid: Gfid::ROOT, fd, offset: 0, size: 4096, xdata: None };
    let entries = client.fop(list).await.unwrap().entries;
    let entry = entries.into_iter().find(|entry| entry.entry.name == name.as_bytes()).unwrap();
    (!entry.stat.gfid.is_null()).then_some(entry.stat.size)
}

fn reads_second(options: &mut Options) {
    options.read_subvolume = Some(SubvolId(1));
}

async fn written(client: &Client) -> (Gfid, Fd) {
    let file = client.file("a").await;
    client.write(file, 0, "old").await.unwrap();
    client.layer.quiesce().await;
    file
}

#[tokio::test(start_paused = true)]
async fn a_listing_does_not_vouch_for_a_copy_that_missed_a_write() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = written(&client).await;
    volume.bricks[1].set_up(false);
    client.write(file, 3, " and new").await.unwrap();
    client.layer.quiesce().await;
    volume.bricks[1].set_up(true);
    let reader = volume.client_with(reads_second);
    assert_eq!(listed_size(&reader, "a").await, None);
    // Looked up, it is still known to be bad there.
    assert_eq!(reader.lookup(Gfid::ROOT, "a").await.unwrap().stat.size, 11);
    assert_eq!(listed_size(&reader, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn files_that_are_known_to_be_good_are_vouched_for_while_others_await_a_heal() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = written(&client).await;
    client.file("b").await;
    volume.bricks[1].set_up(false);
    client.write(file, 0, "new").await.unwrap();
    client.layer.quiesce().await;
    volume.bricks[1].set_up(true);
    let reader = volume.client_with(reads_second);
    assert_eq!(listed_size(&reader, "b").await, None);
    reader.lookup(Gfid::ROOT, "b").await.unwrap();
    assert_eq!(listed_size(&reader, "b").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn while_nothing_awaits_a_heal_a_listing_costs_no_lookup_of_its_files() {
    let volume = Volume::new(2);
    let client = volume.client();
    written(&client).await;
    volume.clear_logs();
    assert_eq!(listed_size(&client, "a").await, Some(3));
    assert_eq!(listed_size(&client, "a").await, Some(3));
    let lookups = volume.kinds().concat().into_iter().filter(|kind| *kind == "LOOKUP").count();
    assert_eq!(lookups, 2, "the directory's, once at each brick");
}

/// Has asked for absent names often enough, and its kept lock of the root is new.
async fn knowing(volume: &Volume) -> Client {
    let client = volume.client();
    client.mkdir(Gfid::ROOT, "warm").await.unwrap();
    for _ in 0..2 {
        client.lookup(Gfid::ROOT, "absent").await.unwrap_err();
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    volume.clear_logs();
    client
}

fn is_quiet(volume: &Volume) -> bool {
    volume.kinds().concat().is_empty()
}

#[tokio::test(start_paused = true)]
async fn under_the_kept_lock_absent_names_are_answered_without_the_bricks() {
    let volume = Volume::new(2);
    let client = knowing(&volume).await;
    assert_eq!(client.lookup(Gfid::ROOT, "new").await.unwrap_err().errno, Errno::ENOENT);
    assert!(is_quiet(&volume));
    client.mkdir(Gfid::ROOT, "new").await.unwrap();
    client.lookup(Gfid::ROOT, "new").await.unwrap();
    client.lookup(Gfid::ROOT, "warm").await.unwrap();
    client.fop(Rmdir { parent: Gfid::ROOT, flags: 0, name: Bytes::from_static(b"new"), xdata: None }).await.unwrap();
    volume.clear_logs();
    assert_eq!(client.lookup(Gfid::ROOT, "new").await.unwrap_err().errno, Errno::ENOENT);
    assert!(is_quiet(&volume));
}

#[tokio::test(start_paused = true)]
async fn names_that_another_client_makes_are_seen() {
    let volume = Volume::new(2);
    let client = knowing(&volume).await;
    volume.client().mkdir(Gfid::ROOT, "theirs").await.unwrap();
    client.lookup(Gfid::ROOT, "theirs").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_the_lock_nothing_is_known() {
    let volume = Volume::new(2);
    let client = knowing(&volume).await;
    idle().await;
    volume.clear_logs();
    client.lookup(Gfid::ROOT, "absent").await.unwrap_err();
    assert!(!is_quiet(&volume));
}

#[tokio::test(start_paused = true)]
async fn with_a_brick_away_nothing_is_known() {
    let volume = Volume::new(2);
    let client = knowing(&volume).await;
    volume.bricks[1].set_up(false);
    volume.clear_logs();
    client.lookup(Gfid::ROOT, "absent").await.unwrap_err();
    assert!(!is_quiet(&volume));
}

#[tokio::test(start_paused = true)]
async fn a_rename_onto_another_name_of_the_same_file_leaves_both() {
    let volume = Volume::new(2);
    let client = knowing(&volume).await;
    let (gfid, _) = client.file("a").await;
    let link = Link { gfid, new_parent: Gfid::ROOT, new_name: Bytes::from_static(b"b"), xdata: None };
    client.fop(link).await.unwrap();
    client.rename((Gfid::ROOT, "a"), (Gfid::ROOT, "b")).await.unwrap();
    let there = volume.bricks[0].at(&["a"]).is_some();
    assert_eq!(client.lookup(Gfid::ROOT, "a").await.is_ok(), there);
}
