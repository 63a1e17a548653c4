//! Two clients at once on the same names: nothing is lost, nothing doubled.

use std::collections::BTreeSet;
use std::sync::Arc;

use mortar_types::{Errno, Gfid};

use crate::bricks::Volume;
use crate::can_run;

const ROOT: Gfid = Gfid::ROOT;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renames_of_the_same_files_lose_none() {
    if !can_run() {
        return;
    }
    const FILES: usize = 12;
    let volume = Volume::new(3);
    let clients = [Arc::new(volume.client()), Arc::new(volume.client())];
    let dir = clients[0].mkdir(ROOT, "d").await.unwrap();
    clients[1].lookup(ROOT, "d").await.unwrap();
    for at in 0..FILES {
        clients[0].put(dir, &format!("{at}-0")).await;
    }
    let mut tasks = Vec::new();
    for client in &clients {
        for half in 0..2 {
            let client = Arc::clone(client);
            tasks.push(tokio::spawn(async move {
                let mut won = 0;
                for step in 0..10 {
                    for at in (0..FILES).filter(|at| at % 2 == half) {
                        let (old, new) = (format!("{at}-{step}"), format!("{at}-{}", step + 1));
                        match client.rename((dir, &old), (dir, &new)).await {
                            Ok(_) => won += 1,
                            // The other client was faster.
                            Err(failure) => assert_eq!(failure.errno, Errno::ENOENT, "{old}"),
                        }
                    }
                }
                won
            }));
        }
    }
    let mut won = 0;
    for task in tasks {
        won += tokio::time::timeout(std::time::Duration::from_secs(120), task).await.unwrap().unwrap();
    }
    assert!(won >= FILES * 9, "{won}");
    let fresh = volume.client();
    fresh.lookup(ROOT, "d").await.unwrap();
    let names = fresh.list(dir).await;
    assert_eq!(names.len(), FILES, "{names:?}");
    let mut contents = BTreeSet::new();
    for name in &names {
        contents.insert(fresh.content(dir, name).await.unwrap());
    }
    assert_eq!(contents.len(), FILES, "{contents:?}");
    let census = volume.census("d");
    assert!(census.values().all(|(data, links)| *data <= 1 && *links <= 1), "{census:?}");
    assert_eq!(census.values().filter(|(data, _)| *data == 1).count(), FILES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creates_and_unlinks_of_the_same_names_leave_one_or_none() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let clients = [Arc::new(volume.client()), Arc::new(volume.client())];
    let dir = clients[0].mkdir(ROOT, "d").await.unwrap();
    clients[1].lookup(ROOT, "d").await.unwrap();
    let mut tasks = Vec::new();
    for (who, client) in clients.iter().enumerate() {
        for half in 0..2 {
            let client = Arc::clone(client);
            tasks.push(tokio::spawn(async move {
                for round in 0..120_usize {
                    let name = format!("n{}", (round * 7 + who + half) % 6);
                    let moved = format!("m{}", (round * 5 + who) % 4);
                    let outcome = match (round + half) % 4 {
                        0 | 1 => client.create(dir, &name).await.map(drop),
                        2 => client.rename((dir, &name), (dir, &moved)).await.map(drop),
                        _ => client.unlink(dir, if round % 3 == 0 { &moved } else { &name }).await.map(drop),
                    };
                    if let Err(failure) = outcome {
                        assert_eq!(failure.errno, Errno::ENOENT, "{half} {round} {name} {moved}");
                    }
                }
            }));
        }
    }
    for task in tasks {
        tokio::time::timeout(std::time::Duration::from_secs(120), task).await.unwrap().unwrap();
    }
    let fresh = volume.client();
    fresh.lookup(ROOT, "d").await.unwrap();
    let names = fresh.list(dir).await;
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
    for name in &names {
        fresh.lookup(dir, name).await.unwrap();
    }
    let census = volume.census("d");
    assert!(census.values().all(|(data, _)| *data <= 1), "{census:?}");
    for name in names {
        fresh.unlink(dir, &name).await.unwrap();
    }
    fresh.rmdir(ROOT, "d").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_made_and_removed_by_two_clients_are_everywhere_or_nowhere() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let clients = [Arc::new(volume.client()), Arc::new(volume.client())];
    let mut tasks = Vec::new();
    for client in &clients {
        let client = Arc::clone(client);
        tasks.push(tokio::spawn(async move {
            for round in 0..60_usize {
                let name = format!("d{}", round % 3);
                let outcome = match round % 2 {
                    0 => client.mkdir(ROOT, &name).await.map(drop),
                    _ => client.rmdir(ROOT, &name).await.map(drop),
                };
                if let Err(failure) = outcome {
                    let expected = [Errno::ENOENT, Errno::EEXIST, Errno::ESTALE];
                    assert!(expected.contains(&failure.errno), "{round} {failure:?}");
                }
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(std::time::Duration::from_secs(120), task).await.unwrap().unwrap();
    }
    let fresh = volume.client();
    for name in fresh.list(ROOT).await {
        let gfid = fresh.lookup(ROOT, &name).await.unwrap().stat.gfid;
        assert!(volume.bricks.iter().all(|brick| brick.mode(&name).is_some()), "{name}");
        assert!(fresh.layer.layout(&fresh.ctx, gfid).await.unwrap().anomalies().none());
        fresh.rmdir(ROOT, &name).await.unwrap();
    }
    assert!(volume.census("").is_empty(), "{:?}", volume.census(""));
}
