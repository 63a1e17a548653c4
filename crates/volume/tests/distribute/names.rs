//! Names: where they come to lie, what a lookup costs, what becomes of them.

use mortar_types::{Errno, Gfid};
use mortar_volume::distribute::Options;

use crate::bricks::{Volume, many};
use crate::can_run;

const ROOT: Gfid = Gfid::ROOT;

#[tokio::test]
async fn files_spread_and_are_found_with_one_lookup() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let names = many(60);
    for name in &names {
        client.put(dir, name).await;
    }
    for brick in &volume.bricks {
        assert!(std::fs::read_dir(brick.root.join("d")).unwrap().count() > 5);
    }
    assert!(volume.census("d").values().all(|counts| *counts == (1, 0)));
    // Another client, in the steady state: it knows the directory.
    let other = volume.client();
    let found = other.lookup(ROOT, "d").await.unwrap().stat.gfid;
    assert_eq!(found, dir);
    for name in &names {
        other.clear_logs();
        other.lookup(dir, name).await.unwrap();
        let sent: Vec<_> = other.logs().concat();
        assert_eq!(sent, ["LOOKUP"], "{name}");
    }
    assert_eq!(other.list(dir).await, names);
}

#[tokio::test]
async fn a_missing_name_in_a_settled_directory_costs_one_lookup_too() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    assert_eq!(client.lookup(dir, "warm").await, Err(Errno::ENOENT.into()));
    client.clear_logs();
    assert_eq!(client.lookup(dir, "none").await, Err(Errno::ENOENT.into()));
    assert_eq!(client.logs().concat(), ["LOOKUP"]);
}

#[tokio::test]
async fn a_misplaced_file_is_found_and_gets_a_link_file() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    for name in many(8) {
        client.put(dir, &name).await;
        let at = volume.where_is(&format!("d/{name}")).0[0];
        let other = 1 - at;
        // Where a layout change would leave it.
        let gfid = volume.bricks[at].xattr(&format!("d/{name}"), "trusted.gfid").unwrap();
        move_by_hand(&volume, at, other, &format!("d/{name}"), &gfid);
        for brick in &volume.bricks {
            let mut layout = brick.xattr("d", "trusted.glusterfs.dht").unwrap();
            layout[..4].copy_from_slice(&[0, 0, 0, 1]);
            brick.set_xattr("d", "trusted.glusterfs.dht", &layout);
        }
        let fresh = volume.client();
        fresh.lookup(ROOT, "d").await.unwrap();
        assert_eq!(fresh.content(dir, &name).await.unwrap(), name);
        assert_eq!(volume.where_is(&format!("d/{name}")), (vec![other], vec![at]));
        fresh.clear_logs();
        fresh.lookup(dir, &name).await.unwrap();
        assert_eq!(fresh.logs().concat(), ["LOOKUP", "LOOKUP"], "the link file, then the file");
        assert_eq!(fresh.list(dir).await.iter().filter(|listed| **listed == name).count(), 1);
        // Gone with its pointer.
        fresh.unlink(dir, &name).await.unwrap();
        assert_eq!(volume.where_is(&format!("d/{name}")), (vec![], vec![]));
    }
}

/// A file from one brick to another, with its handle.
fn move_by_hand(volume: &Volume, from: usize, to: usize, path: &str, gfid: &[u8]) {
    let gfid = Gfid::from_slice(gfid).unwrap().to_string();
    let handle = format!(".glusterfs/{}/{}/{gfid}", &gfid[..2], &gfid[2..4]);
    let (from, to) = (&volume.bricks[from], &volume.bricks[to]);
    let data = std::fs::read(from.root.join(path)).unwrap();
    std::fs::write(to.root.join(path), data).unwrap();
    to.set_xattr(path, "trusted.gfid", &from.xattr(path, "trusted.gfid").unwrap());
    std::fs::create_dir_all(to.root.join(&handle).parent().unwrap()).unwrap();
    std::fs::hard_link(to.root.join(path), to.root.join(&handle)).unwrap();
    std::fs::remove_file(from.root.join(path)).unwrap();
    std::fs::remove_file(from.root.join(&handle)).unwrap();
}

#[tokio::test]
async fn renames_keep_the_data_where_it_is_and_leave_one_name() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let sub = client.mkdir(dir, "sub").await.unwrap();
    // All arrangements come up: names that hash anywhere, over nothing and over files anywhere.
    for at in 0..60 {
        let (old, new) = (format!("old-{at}"), format!("new-{}", at % 20));
        let gfid = client.put(dir, &old).await;
        let before = volume.where_is(&format!("d/{old}")).0;
        let reply = client.rename((dir, &old), (sub, &new)).await.unwrap();
        assert_eq!(reply.stat.gfid, gfid);
        assert_eq!(volume.where_is(&format!("d/{old}")), (vec![], vec![]), "{old}");
        let (data, links) = volume.where_is(&format!("d/sub/{new}"));
        assert_eq!((data, links.len() <= 1), (before, true));
        assert_eq!(client.content(sub, &new).await.unwrap(), old);
        let again = format!("again-{}", at % 15);
        client.rename((sub, &new), (dir, &again)).await.unwrap();
        let other = volume.client();
        assert_eq!(other.content(dir, &again).await.unwrap(), old);
        assert_eq!(client.lookup(sub, &new).await, Err(Errno::ENOENT.into()));
    }
    let names = client.list(dir).await;
    assert_eq!(names.len(), 16);
    for (name, (data, links)) in volume.census("d") {
        assert_eq!(data, if name == "sub" { 3 } else { 1 }, "{name}");
        assert!(links <= 1, "{name}");
    }
    for name in names.iter().filter(|name| *name != "sub") {
        client.unlink(dir, name).await.unwrap();
    }
    assert_eq!(volume.census("d").len(), 1);
    assert_eq!(client.rename((dir, "none"), (dir, "x")).await.unwrap_err().errno, Errno::ENOENT);
}

#[tokio::test]
async fn hard_links_lie_beside_the_data() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let gfid = client.put(dir, "file").await;
    let home = volume.where_is("d/file").0;
    for name in many(10) {
        client.link(gfid, dir, &name).await.unwrap();
        assert_eq!(volume.where_is(&format!("d/{name}")).0, home);
        assert_eq!(client.content(dir, &name).await.unwrap(), "file");
        assert_eq!(client.link(gfid, dir, &name).await.unwrap_err().errno, Errno::EEXIST);
        assert_eq!(volume.where_is(&format!("d/{name}")).0, home);
        // Both names of one file: nothing happens.
        client.rename((dir, "file"), (dir, &name)).await.unwrap();
    }
    assert_eq!(client.lookup(dir, "file").await.unwrap().stat.nlink, 11);
    for name in many(10) {
        client.unlink(dir, &name).await.unwrap();
    }
    assert_eq!(volume.census("d").into_iter().collect::<Vec<_>>(), [("file".to_owned(), (1, 0))]);
}

#[tokio::test]
async fn directories_are_everywhere_and_go_everywhere() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(3);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let sub = client.mkdir(dir, "sub").await.unwrap();
    assert_eq!(client.mkdir(dir, "sub").await.unwrap_err().errno, Errno::EEXIST);
    assert_eq!(client.rmdir(ROOT, "d").await.unwrap_err().errno, Errno::ENOTEMPTY);
    client.put(sub, "f").await;
    client.rename((dir, "sub"), (ROOT, "moved")).await.unwrap();
    assert!(volume.bricks.iter().all(|brick| brick.mode("moved").is_some() && brick.mode("d/sub").is_none()));
    assert_eq!(client.content(sub, "f").await.unwrap(), "f");
    client.chmod(sub, 0o700).await.unwrap();
    client.setxattr(sub, "user.a", "1").await.unwrap();
    for brick in &volume.bricks {
        assert_eq!(brick.mode("moved"), Some(0o700));
        assert_eq!(brick.xattr("moved", "user.a").as_deref(), Some(&b"1"[..]));
    }
    let stat = client.lookup(ROOT, "moved").await.unwrap().stat;
    assert_eq!((stat.size, stat.mode & 0o7777), (4096, 0o700));
    assert_eq!(client.list(ROOT).await, ["d", "moved"]);
    assert_eq!(client.rmdir(ROOT, "moved").await.unwrap_err().errno, Errno::ENOTEMPTY);
    client.rename((ROOT, "d"), (sub, "d")).await.unwrap();
    client.unlink(sub, "f").await.unwrap();
    client.rmdir(sub, "d").await.unwrap();
    client.rmdir(ROOT, "moved").await.unwrap();
    assert!(volume.census("").is_empty());
}

#[tokio::test]
async fn users_see_no_xattrs_of_the_layer() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let list = mortar_types::fop::Getxattr { gfid: dir, name: None, xdata: None };
    let keys: Vec<String> = client.fop(list.clone()).await.unwrap().dict.unwrap().keys().map(str::to_owned).collect();
    assert!(!keys.iter().any(|key| key.contains("dht")), "{keys:?}");
    let name = Some(bytes::Bytes::from_static(b"trusted.glusterfs.dht"));
    let one = mortar_types::fop::Getxattr { name, ..list.clone() };
    assert_eq!(client.fop(one).await.unwrap_err().errno, Errno::ENODATA);
    assert_eq!(client.setxattr(dir, "trusted.glusterfs.dht", "x").await.unwrap_err().errno, Errno::EPERM);
    let name = Some(bytes::Bytes::from_static(b"trusted.glusterfs.pathinfo"));
    let info = client.fop(mortar_types::fop::Getxattr { name, ..list }).await.unwrap().dict.unwrap();
    let text = info.get_str("trusted.glusterfs.pathinfo").unwrap();
    assert!(text.starts_with("((<DISTRIBUTE:v-dht> <POSIX(") && text.contains("v-dht-layout (v-client-"), "{text}");
}

#[tokio::test]
async fn a_full_subvolume_gets_link_files_instead_of_data() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    volume.bricks[0].pretend_free(50);
    volume.bricks[1].pretend_free(50);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    volume.bricks[1].pretend_free(3);
    let client = volume.client();
    for name in many(12) {
        client.put(dir, &name).await;
        assert_eq!(volume.where_is(&format!("d/{name}")).0, [0]);
        assert_eq!(client.content(dir, &name).await.unwrap(), name);
    }
    assert!(volume.census("d").values().any(|(_, links)| *links == 1));
}

#[tokio::test]
async fn decommissioned_subvolumes_get_nothing_new() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let dir = volume.client().mkdir(ROOT, "d").await.unwrap();
    let options = Options { decommissioned: ["v-client-1".to_owned()].into(), ..Options::default() };
    let client = volume.client_with(options);
    for name in many(12) {
        client.put(dir, &name).await;
        assert_eq!(volume.where_is(&format!("d/{name}")).0, [0]);
    }
    assert!(client.layer.fix_layout(&client.ctx, dir).await.unwrap());
    let layout = client.layer.layout(&client.ctx, dir).await.unwrap();
    assert!(layout.spans_exactly(|id| id.0 == 0));
    let new = client.mkdir(ROOT, "new").await.unwrap();
    client.put(new, "f").await;
    assert_eq!(volume.where_is("new/f"), (vec![0], vec![]));
}

#[tokio::test]
async fn files_of_a_subvolume_that_is_away_are_unreachable_not_missing() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    for name in many(12) {
        client.put(dir, &name).await;
    }
    client.connections[1].cut();
    for name in many(12) {
        let at = volume.where_is(&format!("d/{name}")).0[0];
        let outcome = client.lookup(dir, &name).await.map(|_| ()).map_err(|failure| failure.errno);
        assert_eq!(outcome, if at == 0 { Ok(()) } else { Err(Errno::ENOTCONN) }, "{name}");
        if at == 1 {
            assert_eq!(client.create(dir, &name).await.unwrap_err().errno, Errno::ENOTCONN);
            assert_eq!(client.unlink(dir, &name).await.unwrap_err().errno, Errno::ENOTCONN);
        }
    }
    assert!(client.lookup(ROOT, "d").await.unwrap().stat.is_dir());
    assert_eq!(client.rmdir(ROOT, "d").await.unwrap_err().errno, Errno::ENOTCONN);
    client.connections[1].mend();
    for name in many(12) {
        assert_eq!(client.content(dir, &name).await.unwrap(), name);
    }
    assert!(volume.census("d").values().all(|counts| *counts == (1, 0)));
}

#[tokio::test]
async fn a_create_that_finds_a_link_file_opens_the_file() {
    if !can_run() {
        return;
    }
    let volume = Volume::new(2);
    let client = volume.client();
    let dir = client.mkdir(ROOT, "d").await.unwrap();
    let mut pointed = 0;
    for (at, name) in many(16).iter().enumerate() {
        let old = format!("old-{at}");
        let gfid = client.put(dir, &old).await;
        client.rename((dir, &old), (dir, name)).await.unwrap();
        pointed += volume.where_is(&format!("d/{name}")).1.len();
        let (opened, fd) = client.create(dir, name).await.unwrap();
        assert_eq!(opened, gfid);
        assert_eq!(client.read((gfid, fd)).await.unwrap(), old);
        client.release((gfid, fd)).await;
        assert_eq!(client.create_with(dir, name, 0o302).await.unwrap_err().errno, Errno::EEXIST);
    }
    assert!(pointed > 0);
}
