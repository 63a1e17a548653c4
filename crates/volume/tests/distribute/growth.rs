//! Subvolumes come and go under a client that works.

use std::collections::BTreeSet;
use std::sync::Arc;

use mortar_types::fop::{Opendir, Readdirp};
use mortar_types::{Fops, Gfid};
use mortar_volume::distribute::Options;

use crate::bricks::{Brick, Client, Volume, many};
use crate::can_run;

const ROOT: Gfid = Gfid::ROOT;

/// Lets the client work with all of the volume's bricks.
fn grow(volume: &Volume, client: &mut Client) {
    for at in client.connections.len()..volume.bricks.len() {
        client.connections.push(volume.bricks[at].connect(&format!("v-client-{at}")));
    }
    let subvolumes = client.connections.iter().map(|connection| Arc::clone(connection) as Arc<dyn Fops>).collect();
    client.layer.reconfigure(subvolumes, Options::default());
}

#[tokio::test]
async fn a_second_subvolume_is_taken_in_while_files_and_listings_are_open() {
    if !can_run() {
        return;
    }
    let mut volume = Volume::new(1);
    let mut client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let names = many(30);
    for name in &names {
        client.put(dir, name).await;
    }
    let (gfid, fd) = client.create(dir, "open").await.unwrap();
    client.write((gfid, fd), 0, "before").await.unwrap();
    let listing = client.fop(Opendir { gfid: dir, xdata: None }).await.unwrap().fd;
    let page = client.fop(Readdirp { gfid: dir, fd: listing, offset: 0, size: 500, xdata: None }).await.unwrap();
    assert!(!page.eof);
    volume.bricks.push(Brick::new(1));
    grow(&volume, &mut client);
    client.write((gfid, fd), 6, " after").await.unwrap();
    assert_eq!(client.read((gfid, fd)).await.unwrap(), "before after");
    client.release((gfid, fd)).await;
    let mut listed: BTreeSet<String> =
        page.entries.iter().map(|entry| String::from_utf8(entry.entry.name.to_vec()).unwrap()).collect();
    let rest = client.list_from(dir, listing, page.entries.last().unwrap().entry.offset).await;
    listed.extend(rest);
    assert_eq!(listed.len(), 31, "{listed:?}");
    for name in &names {
        assert_eq!(client.content(dir, name).await.unwrap(), *name);
    }
    // The directory has come to the new one by lookup, and names go there once it has a part.
    client.lookup(ROOT, "d").await.unwrap();
    assert!(volume.bricks[1].mode("d").is_some());
    assert!(client.layer.fix_layout(&client.ctx, dir).await.unwrap());
    assert!(!client.layer.fix_layout(&client.ctx, dir).await.unwrap());
    for name in &names {
        client.put(dir, &format!("new-{name}")).await;
        assert_eq!(client.content(dir, name).await.unwrap(), *name);
    }
    assert!(std::fs::read_dir(volume.bricks[1].root.join("d")).unwrap().count() > 5);
    assert!(volume.census("d").values().all(|(data, links)| *data == 1 && *links <= 1));
    assert_eq!(client.list(dir).await.len(), 61);
}

#[tokio::test]
async fn a_client_with_an_old_layout_is_stopped_by_the_brick() {
    if !can_run() {
        return;
    }
    let mut volume = Volume::new(2);
    let mut old = volume.client();
    let dir = old.mkdir(ROOT, "d").await.unwrap();
    volume.bricks.push(Brick::new(2));
    let new = volume.client();
    new.lookup(ROOT, "d").await.unwrap();
    grow(&volume, &mut old);
    // Knows the layout from before the fix.
    old.lookup(ROOT, "d").await.unwrap();
    assert!(new.layer.fix_layout(&new.ctx, dir).await.unwrap());
    for name in many(30) {
        old.put(dir, &name).await;
        assert_eq!(new.content(dir, &name).await.unwrap(), name);
    }
    assert!(volume.census("d").values().all(|counts| *counts == (1, 0)), "{:?}", volume.census("d"));
}

#[tokio::test]
async fn names_made_before_a_fix_are_found_after_it_and_settled_directories_trust_again() {
    if !can_run() {
        return;
    }
    let mut volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    for name in many(30) {
        client.put(dir, &name).await;
    }
    volume.bricks.push(Brick::new(2));
    let client = volume.client();
    client.lookup(ROOT, "d").await.unwrap();
    client.layer.set_volume_commit(&client.ctx, 0x5000_0001).await.unwrap();
    client.layer.fix_layout(&client.ctx, ROOT).await.unwrap();
    client.layer.fix_layout(&client.ctx, dir).await.unwrap();
    for name in many(30) {
        let located = client.layer.locate(&client.ctx, dir, name.as_bytes()).await.unwrap();
        assert!(located.cached.is_some_and(|cached| cached.name() != "v-client-2"));
        assert_eq!(volume.client().content(dir, &name).await.unwrap(), name);
    }
    assert_eq!(client.list(dir).await, many(30));
    client.layer.settle(&client.ctx, dir, 0x5000_0001).await.unwrap();
    let client = volume.client();
    client.lookup(ROOT, "d").await.unwrap();
    assert!(client.lookup(dir, "none-1").await.is_err());
    client.clear_logs();
    assert!(client.lookup(dir, "none-2").await.is_err());
    assert_eq!(client.logs().concat(), ["LOOKUP"]);
}

#[tokio::test]
async fn a_torn_layout_and_other_damage_are_healed_by_a_lookup() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    client.setxattr(dir, "user.a", "1").await.unwrap();
    client.chmod(dir, 0o750).await.unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(volume.bricks[1].root.join("d"), "trusted.glusterfs.dht", b"0123456789abcdef", flags)
        .unwrap();
    let keeper = (0..3).find(|at| volume.bricks[*at].xattr("d", "trusted.glusterfs.dht.mds").is_some()).unwrap();
    let other = (keeper + 1) % 3;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(volume.bricks[other].root.join("d"), PermissionsExt::from_mode(0o700)).unwrap();
    let fresh = volume.client();
    assert_eq!(fresh.lookup(ROOT, "d").await.unwrap().stat.mode & 0o7777, 0o750);
    assert_eq!(volume.bricks[other].mode("d"), Some(0o750));
    assert!(fresh.layer.layout(&fresh.ctx, dir).await.unwrap().anomalies().none());
    for name in many(9) {
        fresh.put(dir, &name).await;
    }
}
