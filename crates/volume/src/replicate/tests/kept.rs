//! Kept locks between several clients.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_writer_gets_the_lock_at_once() {
    let volume = Volume::new(2);
    let (one, two) = (volume.client(), volume.client());
    let file = one.file("a").await;
    one.write(file, 0, "one").await.unwrap();
    let other = (file.0, two.open(file.0, 2).await.unwrap());
    let before = tokio::time::Instant::now();
    two.write(other, 3, "two").await.unwrap();
    assert!(before.elapsed() < Duration::from_millis(10), "waited {:?}", before.elapsed());
    assert_eq!(volume.bricks[1].at(&["a"]).unwrap().data, b"onetwo");
    idle().await;
    volume.assert_clean(&[&["a"]]);
}

#[tokio::test(start_paused = true)]
async fn two_clients_in_one_directory_settle_on_single_names() {
    let volume = Volume::new(2);
    let (one, two) = (volume.client(), volume.client());
    one.file("a").await;
    two.file("b").await;
    volume.clear_logs();
    one.file("c").await;
    two.file("d").await;
    let locks: Vec<_> = volume.bricks[0]
        .take_log()
        .into_iter()
        .filter_map(|call| match call.request {
            Request::Entrylk(lock) if lock.cmd == EntrylkCmd::LockNonBlocking => Some(lock.name),
            _ => None,
        })
        .collect();
    assert_eq!(locks, [Some(Bytes::from_static(b"c")), Some(Bytes::from_static(b"d"))]);
    tokio::time::sleep(Duration::from_secs(6)).await;
    volume.clear_logs();
    one.file("e").await;
    one.file("f").await;
    assert_eq!(volume.kinds()[0], ["ENTRYLK", "CREATE", "CREATE"], "alone again: the whole directory");
    idle().await;
    volume.assert_clean(&[&[]]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_in_constant_use_is_still_given_back_in_time() {
    let volume = Volume::new(1);
    let client = volume.client();
    let file = client.file("a").await;
    volume.clear_logs();
    for at in 0..240 {
        client.write(file, at, "x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = volume.kinds()[0].iter().filter(|kind| **kind == "FINODELK").count();
    assert!((14..=18).contains(&calls), "{calls} calls to lock and unlock in 24 s");
}

#[tokio::test(start_paused = true)]
async fn a_returning_child_ends_the_burst_that_it_missed() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    volume.bricks[1].set_up(false);
    client.write(file, 0, "one").await.unwrap();
    volume.bricks[1].set_up(true);
    client.write(file, 3, "two").await.unwrap();
    let second = volume.bricks[1].at(&["a"]).unwrap();
    assert_eq!(&second.data[3..], b"two", "takes part again");
    assert_eq!(volume.counters(0, &["a"], PENDING[1]), "00000001 00000000 00000000");
}

#[tokio::test(start_paused = true)]
async fn clients_that_rename_across_each_other_do_not_deadlock() {
    let volume = Volume::new(2);
    let clients = [volume.client(), volume.client()];
    let dirs = [clients[0].mkdir(Gfid::ROOT, "x").await.unwrap(), clients[0].mkdir(Gfid::ROOT, "y").await.unwrap()];
    let mut tasks = Vec::new();
    for (at, client) in clients.into_iter().enumerate() {
        let (from, to) = (dirs[at], dirs[1 - at]);
        tasks.push(tokio::spawn(async move {
            for n in 0..50 {
                let name = format!("{at}-{n}");
                client.create(from, &name).await.unwrap();
                client.rename((from, &name), (to, &name)).await.unwrap();
            }
            client.layer.quiesce().await;
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(600), task).await.expect("no deadlock").unwrap();
    }
    volume.assert_clean(&[&["x"], &["y"]]);
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_change_is_finished_and_its_locks_go() {
    let volume = Volume::new(2);
    let client = volume.client();
    let file = client.file("a").await;
    for brick in &volume.bricks {
        brick.set_delay(|| Duration::from_millis(5));
    }
    let write = client.write(file, 0, "half");
    assert!(tokio::time::timeout(Duration::from_millis(12), write).await.is_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    volume.assert_clean(&[&["a"]]);
    assert_eq!(volume.bricks[1].at(&["a"]).unwrap().data, b"half");
}
