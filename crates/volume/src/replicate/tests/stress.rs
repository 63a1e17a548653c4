//! Many tasks of several clients on few files, with random delays: nothing hangs, copies agree, nothing is left.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

async fn run(seed: u64, replicas: usize, kill: bool) {
    let volume = Volume::new(replicas);
    // Every other run with bricks of our own; some with one that takes no compounds.
    for (at, brick) in volume.bricks.iter().enumerate() {
        brick.set_compounds(seed.is_multiple_of(2) && !(seed % 8 == 6 && at == 0));
    }
    for (at, brick) in volume.bricks.iter().enumerate() {
        let mut rng = SmallRng::seed_from_u64(seed * 31 + at as u64);
        brick.set_delay(move || Duration::from_micros(rng.random_range(10..3_000)));
    }
    let clients = [Arc::new(volume.client()), Arc::new(volume.client())];
    let dir = clients[0].mkdir(Gfid::ROOT, "d").await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..8u64 {
        let client = Arc::clone(&clients[task as usize % clients.len()]);
        tasks.push(tokio::spawn(async move {
            let mut rng = SmallRng::seed_from_u64(seed * 1_000 + task);
            for _ in 0..40 {
                step(&client, dir, &mut rng).await;
                tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
            }
        }));
    }
    if kill {
        tokio::time::sleep(Duration::from_millis(100 + seed * 7 % 200)).await;
        volume.bricks[replicas - 1].set_up(false);
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(3_600), task).await.expect("no hang").unwrap();
    }
    for client in &clients {
        client.layer.quiesce().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    if kill {
        for brick in &volume.bricks[..replicas - 1] {
            assert_eq!(brick.locks_count(), 0, "seed {seed}");
        }
        return;
    }
    let names: Vec<String> = volume.bricks[0]
        .at(&["d"])
        .unwrap()
        .entries
        .keys()
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .collect();
    volume.assert_clean(&[&["d"]]);
    for name in names {
        volume.assert_healable(&["d", &name]);
    }
}

/// One random operation; refusals for what is not there are fine, anything else is not.
async fn step(client: &Client, dir: Gfid, rng: &mut SmallRng) {
    let name = format!("f{}", rng.random_range(0..4));
    let other = format!("f{}", rng.random_range(0..4));
    let what = rng.random_range(0..6);
    let outcome = match what {
        0 => match client.create(dir, &name).await {
            Ok(reply) => {
                let file = (reply.stat.gfid, reply.fd);
                let written = client.write(file, rng.random_range(0..64), &name).await.map(|_| ());
                client.release(file).await;
                written
            }
            Err(failure) => Err(failure),
        },
        1 => client.unlink(dir, &name).await.map(|_| ()),
        2 => client.rename((dir, &name), (dir, &other)).await.map(|_| ()),
        3 => match client.lookup(dir, &name).await {
            Ok(reply) => client.chmod(reply.stat.gfid, rng.random_range(0..0o777)).await.map(|_| ()),
            Err(failure) => Err(failure),
        },
        4 => match client.lookup(dir, &name).await {
            Ok(reply) => {
                client.write((reply.stat.gfid, Fd::ANONYMOUS), rng.random_range(0..64), &other).await.map(|_| ())
            }
            Err(failure) => Err(failure),
        },
        _ => client.lookup(dir, &name).await.map(|_| ()),
    };
    if let Err(failure) = outcome {
        assert!(matches!(failure.errno, Errno::ENOENT | Errno::ESTALE | Errno::EEXIST), "{what} {failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_replicas_agree_after_any_interleaving() {
    for seed in 0..40 {
        run(seed, 2, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_replicas_agree_after_any_interleaving() {
    for seed in 100..120 {
        run(seed, 3, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_hangs_or_fails_when_a_brick_dies_in_between() {
    for seed in 200..240 {
        run(seed, 3, true).await;
    }
}
