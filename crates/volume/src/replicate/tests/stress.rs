//! Many tasks of several clients on few files, with random delays: nothing hangs, copies agree, nothing is left.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// With bricks of our own, with GlusterFS's, and with both kinds.
async fn run(seed: u64, replicas: usize, kill: bool) {
    for compounds in [|_| true, |_| false, |at| at > 0] {
        run_with(seed, replicas, kill, compounds).await;
    }
}

/// Tells which run it was when something in it panics.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

async fn run_with(seed: u64, replicas: usize, kill: bool, compounds: fn(usize) -> bool) {
    let takers: Vec<bool> = (0..replicas).map(compounds).collect();
    let _told = Told(format!("seed {seed}, {replicas} replicas, kill {kill}, compounds {takers:?}"));
    let volume = Volume::new(replicas);
    for (at, brick) in volume.bricks.iter().enumerate() {
        brick.set_compounds(compounds(at));
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
                step(seed, &client, dir, &mut rng).await;
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
async fn step(seed: u64, client: &Client, dir: Gfid, rng: &mut SmallRng) {
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
        assert!(
            matches!(failure.errno, Errno::ENOENT | Errno::ESTALE | Errno::EEXIST),
            "seed {seed} {what} {failure:?}"
        );
    }
}

/// The seeds `from..from + count`, or as many as `MORTAR_STRESS_SEEDS` says.
fn seeds(from: u64, count: u64) -> std::ops::Range<u64> {
    let count = std::env::var("MORTAR_STRESS_SEEDS").map_or(count, |count| count.parse().expect("a number of seeds"));
    from..from + count
}

#[tokio::test(start_paused = true)]
async fn two_replicas_agree_after_any_interleaving() {
    for seed in seeds(0, 40) {
        run(seed, 2, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_replicas_agree_after_any_interleaving() {
    for seed in seeds(100, 20) {
        run(seed, 3, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_hangs_or_fails_when_a_brick_dies_in_between() {
    for seed in seeds(200, 40) {
        run(seed, 3, true).await;
    }
}
