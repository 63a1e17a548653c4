//! Half-done states, as a crash between two system calls leaves them, and what the store makes of each.

use std::os::unix::fs::MetadataExt;

use mortar_types::fop::{Create, Lookup};
use mortar_types::{Context, Errno, Gfid, Pid};

use crate::support::{Brick, bytes, gfid_req, xattrs_on_disk};

#[test]
fn a_named_file_without_a_handle_gets_one() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    let handle = brick.handle(gfid);
    let brick = brick.reopened_with(|_| std::fs::remove_file(&handle).expect("it was there"));
    assert_eq!(brick.stat(gfid), Err(Errno::ESTALE));
    assert_eq!(brick.lookup(Gfid::ROOT, "f").map(|stat| stat.gfid), Ok(gfid));
    assert_eq!(brick.stat(gfid).map(|stat| stat.nlink), Ok(1));
}

#[test]
fn a_listing_repairs_handles_too() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    let handle = brick.handle(gfid);
    let brick = brick.reopened_with(|_| std::fs::remove_file(&handle).expect("it was there"));
    brick.names(Gfid::ROOT);
    assert_eq!(brick.read_all(gfid), Ok(b"x".to_vec()));
}

#[test]
fn a_handle_without_a_name_is_removed_when_its_gfid_is_asked_for() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    let brick = brick.reopened_with(|root| std::fs::remove_file(root.join("f")).expect("it was there"));
    assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT));
    assert!(brick.handle(gfid).symlink_metadata().is_err());
}

#[test]
fn a_creation_is_repeated_over_the_handle_that_a_crash_left() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"old").expect("it is new");
    let brick = brick.reopened_with(|root| std::fs::remove_file(root.join("f")).expect("it was there"));
    let request =
        Create { parent: Gfid::ROOT, flags: 0o302, mode: 0o644, umask: 0, name: bytes("f"), xdata: gfid_req(gfid) };
    let reply = brick.call(request).expect("the leftover is no file of anybody");
    assert_eq!((reply.stat.gfid, reply.stat.size), (gfid, 0));
}

#[test]
fn a_directory_without_its_handle_gets_one() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let file = brick.create(gfid, "f", b"x").expect("it is new");
    let handle = brick.handle(gfid);
    let brick = brick.reopened_with(|_| std::fs::remove_file(&handle).expect("it was there"));
    assert_eq!(brick.lookup(gfid, "f"), Err(Errno::ESTALE));
    brick.lookup(Gfid::ROOT, "d").expect("it is there");
    assert_eq!(brick.lookup(gfid, "f").map(|stat| stat.gfid), Ok(file));
}

#[test]
fn a_renamed_directory_whose_handle_names_the_old_place_is_found_again() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "old").expect("it is new");
    brick.create(gfid, "f", b"x").expect("it is new");
    let brick = brick.reopened_with(|root| std::fs::rename(root.join("old"), root.join("new")).expect("a rename"));
    assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT), "its handle leads nowhere");
    assert_eq!(brick.lookup(Gfid::ROOT, "new").map(|stat| stat.gfid), Ok(gfid));
    assert_eq!(brick.names(gfid), ["f"]);
    assert!(std::fs::read_link(brick.handle(gfid)).expect("a link").ends_with("new"));
}

#[test]
fn a_renamed_or_linked_file_whose_note_is_missing_gets_it_when_it_is_healed() {
    let Some(brick) = Brick::new() else { return };
    let (from, to) = (brick.mkdir(Gfid::ROOT, "tmp").unwrap(), brick.mkdir(Gfid::ROOT, "new").unwrap());
    let moved = brick.create(from, "f", b"x").expect("it is new");
    brick.create(from, "g", b"x").expect("it is new");
    let brick = brick.reopened_with(|root| {
        std::fs::rename(root.join("tmp/f"), root.join("new/f")).expect("a rename");
        std::fs::hard_link(root.join("tmp/g"), root.join("new/g")).expect("a link");
    });
    let notes = |name: &str| {
        let path = brick.root().join("new").join(name);
        let notes = xattrs_on_disk(&path).into_iter().filter(|(key, _)| key.starts_with("trusted.gfid2path."));
        let mut notes: Vec<String> = notes.map(|(_, value)| String::from_utf8(value).expect("text")).collect();
        notes.sort();
        notes
    };
    assert_eq!(brick.lookup(to, "f").map(|stat| stat.gfid), Ok(moved));
    assert_eq!(notes("f"), [format!("{from}/f")], "a client's lookup does not pay for it");
    let healer = Context { pid: Pid::SELF_HEAL_DAEMON, ..brick.ctx() };
    for name in ["f", "g"] {
        let lookup = Lookup { gfid: Gfid::NULL, parent: to, flags: 0, name: bytes(name), xdata: None };
        brick.call_as(&healer, lookup).expect("it is there");
    }
    assert_eq!(notes("f"), [format!("{to}/f")]);
    let mut both = [format!("{from}/g"), format!("{to}/g")];
    both.sort();
    assert_eq!(notes("g"), both);
}

#[test]
fn a_handle_that_leads_to_another_directory_is_not_believed() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let brick = brick.reopened_with(|root| {
        std::fs::rename(root.join("d"), root.join("moved")).expect("a rename");
        std::fs::create_dir(root.join("d")).expect("a new directory under the old name");
    });
    assert_eq!(brick.stat(gfid), Err(Errno::ESTALE));
    assert_eq!(brick.lookup(Gfid::ROOT, "moved").map(|stat| stat.gfid), Ok(gfid));
}

#[test]
fn a_removed_directorys_handle_does_not_hinder_a_new_one() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let brick = brick.reopened_with(|root| std::fs::remove_dir(root.join("d")).expect("it was there"));
    assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT));
    let request = mortar_types::fop::Mkdir {
        parent: Gfid::ROOT,
        mode: 0o755,
        umask: 0,
        name: bytes("elsewhere"),
        xdata: gfid_req(gfid),
    };
    brick.call(request).expect("the old handle is replaced");
    assert!(std::fs::read_link(brick.handle(gfid)).expect("a link").ends_with("elsewhere"));
}

#[test]
fn an_inode_without_a_gfid_gets_the_one_of_the_lookup() {
    let Some(brick) = Brick::new() else { return };
    std::fs::create_dir(brick.root().join("d")).expect("a directory made by hand");
    std::fs::write(brick.root().join("f"), b"by hand").expect("a file made by hand");
    assert_eq!(brick.lookup(Gfid::ROOT, "f"), Err(Errno::ENODATA));
    let wanted = Gfid::random();
    let ask = |name: &str, gfid| {
        let name = bytes(name);
        brick.call(Lookup { gfid: Gfid::NULL, parent: Gfid::ROOT, flags: 0, name, xdata: gfid_req(gfid) })
    };
    assert_eq!(ask("f", wanted).map(drop), Err(Errno::ENOENT), "it may be one that is being made");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(ask("f", wanted).map(|reply| reply.stat.gfid), Ok(wanted));
    assert_eq!(brick.read_all(wanted), Ok(b"by hand".to_vec()));
    let dir = Gfid::random();
    assert_eq!(ask("d", dir).map(|reply| reply.stat.gfid), Ok(dir));
    assert!(brick.create(dir, "x", b"").is_ok());
    assert_eq!(ask("f", Gfid::random()).map(|reply| reply.stat.gfid), Ok(wanted), "given once");
}

#[test]
fn files_that_were_open_when_the_brick_died_are_gone_after_a_restart() {
    let Some(brick) = Brick::new() else { return };
    let (gfid, _) = brick.create_open(Gfid::ROOT, "f").expect("it is new");
    brick.unlink(Gfid::ROOT, "f").expect("it is there");
    let brick = brick.reopened();
    assert_eq!(std::fs::read_dir(brick.root().join(".glusterfs/unlink")).expect("it is there").count(), 0);
    assert_eq!(brick.lookup_gfid(gfid), Err(Errno::ENOENT));
}

#[test]
fn a_handle_being_replaced_at_the_crash_is_cleaned_up() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let aside = brick.root().join(".glusterfs/mortar").join(gfid.to_string());
    std::os::unix::fs::symlink("half", &aside).expect("it is new");
    brick.rename((Gfid::ROOT, "d"), (Gfid::ROOT, "e")).expect("a leftover is in nobody's way");
    std::os::unix::fs::symlink("half", &aside).expect("it was used up");
    let brick = brick.reopened();
    assert!(aside.symlink_metadata().is_err());
    assert_eq!(brick.stat(gfid).map(|stat| stat.gfid), Ok(gfid));
}

#[test]
fn a_file_with_no_notes_of_its_links_is_served_and_noted_from_then_on() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"x").expect("it is new");
    let path = brick.root().join("f");
    for key in xattrs_on_disk(&path).into_keys().filter(|key| key.starts_with("trusted.gfid2path.")) {
        rustix::fs::lremovexattr(&path, key.as_str()).expect("it was there");
    }
    brick.rename((Gfid::ROOT, "f"), (Gfid::ROOT, "g")).expect("it is there");
    assert_eq!(brick.getxattr(gfid, "glusterfs.gfidtopath"), Ok(b"/g".to_vec()));
    assert_eq!(brick.root().join("g").metadata().expect("it is there").nlink(), 2);
}
