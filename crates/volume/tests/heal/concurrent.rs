//! Clients work while heals run: nothing acknowledged is lost, and at the end both bricks are the same.

use mortar_logic::heal::Children;
use mortar_types::SubvolId;
use mortar_volume::heal::sweep::{Progress, index_sweep};

use crate::bricks::{Client, Cluster};
use crate::files::Files;
use crate::scenarios::{assert_healed, heal};

const FILE_BYTES: usize = 5 << 20;

/// Writes pieces all over the file; gives back what the file must hold.
async fn scribble(client: &Client, mut content: Vec<u8>) -> Vec<u8> {
    let files = Files(&client.top);
    for round in 0..60usize {
        let offset = (round * 7919 * 1009) % (FILE_BYTES - 70_000);
        let len = 100 + (round * 31) % 60_000;
        let data = vec![round as u8 + 100; len];
        files.write_at("busy", offset as u64, &data).await.unwrap();
        content[offset..offset + len].copy_from_slice(&data);
    }
    content
}

#[tokio::test]
async fn a_writer_and_a_heal_of_the_same_file() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.create("busy", b"").await.unwrap();
    files.write_at("busy", 0, &vec![1; FILE_BYTES]).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    let content: Vec<u8> = (0..FILE_BYTES).map(|at| (at / 1000) as u8).collect();
    files.write_at("busy", 0, &content).await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.up(1);

    let set = cluster.set();
    let progress = Progress::default();
    let (swept, expected) =
        tokio::join!(index_sweep(&set, Children::all(2), &progress), scribble(&cluster.client, content));
    swept.unwrap();
    cluster.client.replicate.quiesce().await;
    heal(&cluster).await;
    assert_healed(&cluster);
    assert!(std::fs::read(cluster.bricks[1].root.join("busy")).unwrap() == expected, "an acknowledged write is lost");
}

/// Creates, renames and removes names in a directory.
async fn churn(client: &Client) {
    let files = Files(&client.top);
    for round in 0..40 {
        files.create(&format!("d/c{round}"), format!("{round}").as_bytes()).await.unwrap();
        if round % 3 == 0 {
            files.rename(&format!("d/c{round}"), &format!("d/renamed{round}")).await.unwrap();
        } else if round % 4 == 1 {
            files.unlink(&format!("d/c{round}")).await.unwrap();
        }
    }
}

#[tokio::test]
async fn names_that_change_while_their_directory_is_healed() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.mkdir("d").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    for at in 0..80 {
        files.create(&format!("d/missed{at}"), b"missed").await.unwrap();
    }
    cluster.client.replicate.quiesce().await;
    cluster.up(1);

    let set = cluster.set();
    let other = cluster.another_client();
    let progress = Progress::default();
    let (swept, ()) = tokio::join!(index_sweep(&set, Children::all(2), &progress), churn(&other));
    swept.unwrap();
    other.replicate.quiesce().await;
    cluster.client.replicate.quiesce().await;
    heal(&cluster).await;
    assert_healed(&cluster);
    let names = std::fs::read_dir(cluster.bricks[1].root.join("d")).unwrap().count();
    assert_eq!(names, 80 + 40 - 7, "names are missing or came back");
}

#[tokio::test]
async fn two_healers_at_once() {
    if !crate::can_run() {
        return;
    }
    let cluster = Cluster::new(2);
    let files = Files(&cluster.client.top);
    files.create("big", b"").await.unwrap();
    cluster.client.replicate.quiesce().await;
    cluster.down(1);
    files.write_at("big", 0, &vec![5; 3 << 20]).await.unwrap();
    for at in 0..20 {
        files.mkdir(&format!("d{at}")).await.unwrap();
        files.create(&format!("d{at}/f"), b"f").await.unwrap();
    }
    cluster.client.replicate.quiesce().await;
    cluster.up(1);
    let (one, other) = (cluster.set(), cluster.set());
    let (first, second) = (Progress::default(), Progress::default());
    let (a, b) = tokio::join!(
        index_sweep(&one, Children::only(SubvolId(0)), &first),
        index_sweep(&other, Children::all(2), &second)
    );
    a.unwrap();
    b.unwrap();
    heal(&cluster).await;
    assert_healed(&cluster);
}
