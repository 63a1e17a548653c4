//! Compounds with bricks that take them.

use super::healthy::both;
use super::*;
use crate::testing::Fault;

const DIRTY: &str = "00000001 00000000 00000000";

fn compounds(replicas: usize) -> Volume {
    let volume = Volume::new(replicas);
    for brick in &volume.bricks {
        brick.set_compounds(true);
    }
    volume
}

/// Holds the entry lock of the root already.
async fn warm(volume: &Volume) -> Client {
    let client = volume.client();
    client.mkdir(Gfid::ROOT, "warm").await.unwrap();
    volume.clear_logs();
    client
}

fn dirty(volume: &Volume, name: &str) -> Vec<String> {
    (0..volume.bricks.len()).map(|brick| volume.counters(brick, &[name], "trusted.afr.dirty")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_small_file_costs_two_round_trips_and_one_behind() {
    let volume = compounds(2);
    let client = warm(&volume).await;
    let file = client.file("a").await;
    client.write(file, 0, "one").await.unwrap();
    client.fop(Flush { gfid: file.0, fd: file.1, xdata: None }).await.unwrap();
    client.release(file).await;
    assert_eq!(both(&volume.kinds()), ["CREATE", "WRITE"]);
    assert_eq!(dirty(&volume, "a"), [DIRTY, DIRTY]);
    idle().await;
    let behind = both(&volume.kinds());
    let behind: Vec<_> = behind.into_iter().filter(|kind| *kind != "ENTRYLK").collect();
    assert_eq!(behind, ["FXATTROP", "RELEASE"], "mark and lock go in one message");
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn mail_delivery_costs_four_round_trips() {
    let volume = compounds(2);
    let client = warm(&volume).await;
    for (temporary, name) in [("tmp", "new"), ("tmp2", "new2")] {
        let file = client.file(temporary).await;
        client.write(file, 0, "mail").await.unwrap();
        client.fsync(file).await.unwrap();
        client.fop(Flush { gfid: file.0, fd: file.1, xdata: None }).await.unwrap();
        client.release(file).await;
        client.rename((Gfid::ROOT, temporary), (Gfid::ROOT, name)).await.unwrap();
        assert_eq!(both(&volume.kinds()), ["CREATE", "WRITE", "FSYNC", "RENAME"]);
    }
    idle().await;
    volume.assert_clean(&[&["new"], &["new2"]]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_on_an_old_file_pays_one_message_for_lock_and_mark() {
    let volume = compounds(2);
    let client = warm(&volume).await;
    let file = client.file("a").await;
    idle().await;
    volume.clear_logs();
    client.write(file, 0, "one").await.unwrap();
    client.write(file, 3, "two").await.unwrap();
    assert_eq!(both(&volume.kinds()), ["FXATTROP", "WRITE", "WRITE"]);
    assert_eq!(dirty(&volume, "a"), [DIRTY, DIRTY]);
    idle().await;
    assert_eq!(both(&volume.kinds()), ["FXATTROP"]);
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_file_only_read_or_already_there_brings_no_lock() {
    let volume = compounds(2);
    let client = warm(&volume).await;
    let name = Bytes::from_static(b"r");
    let create = Create { parent: Gfid::ROOT, flags: 0, mode: 0o644, umask: 0, name, xdata: None };
    client.fop(create).await.unwrap();
    // Without O_EXCL the bricks open it, under its own gfid.
    client.create(Gfid::ROOT, "r").await.unwrap();
    for brick in &volume.bricks {
        assert_eq!(brick.locks_count(), 1, "the entry lock alone");
    }
    assert_eq!(dirty(&volume, "r"), ["-", "-"]);
}

#[tokio::test(start_paused = true)]
async fn one_brick_without_compounds_and_no_key_is_sent() {
    let volume = compounds(2);
    volume.bricks[1].set_compounds(false);
    let client = warm(&volume).await;
    let file = client.file("a").await;
    client.write(file, 0, "one").await.unwrap();
    idle().await;
    for brick in &volume.bricks {
        for call in brick.take_log() {
            let has_key = call.request.xdata().is_some_and(|xdata| xdata.keys().any(|key| key.starts_with("mortar.")));
            assert!(!has_key, "{:?}", call.request);
        }
    }
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_created_files_lock_is_given_to_who_wants_it() {
    let volume = compounds(2);
    let (one, two) = (volume.client(), volume.client());
    let file = one.file("a").await;
    let other = (file.0, two.open(file.0, 2).await.unwrap());
    let before = tokio::time::Instant::now();
    two.write(other, 0, "two").await.unwrap();
    assert!(before.elapsed() < Duration::from_millis(10), "waited {:?}", before.elapsed());
    one.write(file, 3, "one").await.unwrap();
    assert_eq!(volume.bricks[1].at(&["a"]).unwrap().data, b"twoone");
    idle().await;
    idle().await;
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_granted_by_one_brick_only_is_taken_back_with_its_mark() {
    let volume = compounds(2);
    let (one, two) = (volume.client(), volume.client());
    let file = one.file("a").await;
    let other = (file.0, two.open(file.0, 2).await.unwrap());
    one.layer.quiesce().await;
    two.write(other, 0, "two").await.unwrap();
    // The second brick has lost its locks and is back: only the first one refuses.
    volume.bricks[1].set_up(false);
    volume.bricks[1].set_up(true);
    volume.clear_logs();
    one.write(file, 3, "one").await.unwrap();
    for _ in 0..3 {
        idle().await;
    }
    for brick in &volume.bricks {
        assert_eq!(brick.locks_count(), 0);
    }
    assert_eq!(volume.bricks[0].at(&["a"]).unwrap().data, b"twoone");
    let marks = volume.bricks[0].counter(&["a"], "trusted.afr.dirty");
    assert_eq!(marks.as_deref(), Some("00000000 00000000 00000000"));
}

#[tokio::test(start_paused = true)]
async fn a_brick_that_dies_in_a_create_leaves_its_lock_to_nobody() {
    let volume = compounds(2);
    let client = warm(&volume).await;
    volume.bricks[1].set_plan(|call| match call.request {
        Request::Create(_) => Fault::DieAfter,
        _ => Fault::None,
    });
    let file = client.file("a").await;
    client.write(file, 0, "one").await.unwrap();
    idle().await;
    assert_eq!(volume.bricks[0].locks_count(), 0);
    assert_ne!(volume.counters(0, &["a"], PENDING[1]), "-", "the dead one is accused");
}
