//! The index around xattrop, and its virtual directories.

use mortar_types::fop::{Getxattr, Lookup, Opendir, Readdir, Rmdir, Unlink, Xattrop, XattropOp};
use mortar_types::keys::{
    GET_GFID_TYPE, INDEX_TYPE_REQUEST, INDEX_TYPE_RESPONSE, LINK_COUNT, XATTROP_DIRTY_GFID, XATTROP_ENTRY_CHANGES_GFID,
    XATTROP_ENTRY_CREATE, XATTROP_ENTRY_DELETE, XATTROP_INDEX_GFID, XATTROP_PURGE_INDEX,
};
use mortar_types::{Dict, Errno, Gfid, Value};

use crate::support::{Brick, bytes, xattrs_on_disk};

const PENDING: &str = "trusted.afr.vol-client-1";
const DIRTY: &str = "trusted.afr.dirty";

fn counters(data: i32, metadata: i32, entry: i32) -> Value {
    Value::ptr([data, metadata, entry].map(i32::to_be_bytes).concat())
}

fn add(brick: &Brick, gfid: Gfid, pairs: &[(&'static str, Value)], xdata: Option<Dict>) -> Result<Dict, Errno> {
    let dict = pairs.iter().fold(Dict::new(), |dict, (key, value)| dict.with(*key, value.clone()));
    let reply = brick.call(Xattrop { gfid, op: XattropOp::AddArray, dict: Some(dict), xdata })?;
    Ok(reply.dict.expect("it answers"))
}

fn virtual_gfid(brick: &Brick, key: &str) -> Gfid {
    let reply = brick.call(Getxattr { gfid: Gfid::ROOT, name: Some(bytes(key)), xdata: None }).expect("it answers");
    reply.dict.and_then(|dict| dict.get_gfid(key)).expect("a gfid")
}

fn listed(brick: &Brick, gfid: Gfid) -> Vec<(String, u32)> {
    let fd = brick.call(Opendir { gfid, xdata: None }).expect("it opens").fd;
    let xdata = Some(Dict::new().with(GET_GFID_TYPE, Value::str("yes")));
    let reply = brick.call(Readdir { gfid, fd, offset: 0, size: 65_536, xdata }).expect("it lists");
    reply.entries.iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.kind)).collect()
}

#[test]
fn an_inode_is_in_the_index_while_something_is_pending() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let pending = virtual_gfid(&brick, XATTROP_INDEX_GFID);
    let link_count = || {
        let xdata = Some(Dict::new().with(LINK_COUNT, Value::str("glusterfs.xattrop_index_count")));
        let reply = brick.lookup_with(Gfid::ROOT, "f", xdata).expect("it is there");
        reply.xdata.and_then(|xdata| xdata.get_i64(LINK_COUNT))
    };
    assert_eq!((listed(&brick, pending), link_count()), (Vec::new(), Some(0)));
    let reply = add(&brick, gfid, &[(PENDING, counters(1, 0, 0)), (DIRTY, counters(0, 0, 0))], None);
    assert_eq!(reply.expect("it adds").get_bytes(PENDING).map(|value| value[3]), Some(1));
    assert_eq!((listed(&brick, pending), link_count()), (vec![(gfid.to_string(), 8)], Some(1)));
    add(&brick, gfid, &[(PENDING, counters(-1, 0, 0))], None).expect("it subtracts");
    assert_eq!((listed(&brick, pending), link_count()), (Vec::new(), Some(0)));
}

#[test]
fn a_missing_name_is_answered_with_the_index_too() {
    let Some(brick) = Brick::new() else { return };
    add(&brick, Gfid::ROOT, &[(PENDING, counters(0, 0, 1))], None).expect("it adds");
    let xdata = Some(Dict::new().with(LINK_COUNT, Value::str("glusterfs.xattrop_index_count")));
    let request = Lookup { gfid: Gfid::NULL, parent: Gfid::ROOT, flags: 0, name: bytes("none"), xdata };
    let failure = brick.call_as(&brick.ctx(), request).expect_err("there is none");
    assert_eq!(failure.errno, Errno::ENOENT);
    assert_eq!(failure.xdata.and_then(|xdata| xdata.get_i64(LINK_COUNT)), Some(1));
}

#[test]
fn dirty_marks_have_a_folder_of_their_own() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let (pending, dirty) = (virtual_gfid(&brick, XATTROP_INDEX_GFID), virtual_gfid(&brick, XATTROP_DIRTY_GFID));
    add(&brick, gfid, &[(DIRTY, counters(1, 0, 0)), (PENDING, counters(0, 0, 0))], None).expect("it adds");
    assert_eq!((listed(&brick, dirty).len(), listed(&brick, pending).len()), (1, 0));
    add(&brick, gfid, &[(DIRTY, counters(-1, 0, 0))], None).expect("it subtracts");
    assert!(listed(&brick, dirty).is_empty());
    assert_eq!(xattrs_on_disk(&brick.root().join("f"))[DIRTY], [0; 12], "the xattr stays, as zeroes");
}

#[test]
fn adding_zero_creates_nothing() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let reply = add(&brick, gfid, &[(PENDING, counters(0, 0, 0))], None).expect("it answers");
    assert_eq!(reply.get_bytes(PENDING).map(|value| &value[..]), Some(&[0; 12][..]));
    assert!(!xattrs_on_disk(&brick.root().join("f")).contains_key(PENDING));
}

#[test]
fn what_is_pending_is_known_after_a_restart_and_heal_can_drop_it() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    add(&brick, gfid, &[(PENDING, counters(1, 0, 0))], None).expect("it adds");
    let brick = brick.reopened();
    let pending = virtual_gfid(&brick, XATTROP_INDEX_GFID);
    assert_eq!(listed(&brick, pending).len(), 1);
    let entry = || Unlink { parent: pending, name: bytes(&gfid.to_string()), flags: 0, xdata: None };
    brick.call(entry()).expect("it is there");
    assert_eq!(brick.call(entry()).map(drop), Err(Errno::ENOENT));
    assert!(listed(&brick, pending).is_empty());
    add(&brick, gfid, &[(PENDING, counters(1, 0, 0))], None).expect("it adds");
    assert_eq!(listed(&brick, pending).len(), 1, "entered again, though the inode was remembered as entered");
}

#[test]
fn changed_names_are_listed_per_directory_until_purged() {
    let Some(brick) = Brick::new() else { return };
    let dir = brick.mkdir(Gfid::ROOT, "d").expect("it is new");
    let note = |key: &'static str, name: &str| Some(Dict::new().with(key, Value::str(name)));
    let one = [(PENDING, counters(0, 0, 1))];
    add(&brick, dir, &one, note(XATTROP_ENTRY_CREATE, "a")).expect("it adds");
    add(&brick, dir, &one, note(XATTROP_ENTRY_CREATE, "b")).expect("it adds");
    let changes = virtual_gfid(&brick, XATTROP_ENTRY_CHANGES_GFID);
    assert_eq!(listed(&brick, changes).into_iter().map(|(name, _)| name).collect::<Vec<_>>(), [dir.to_string()]);
    let folder = brick.lookup(changes, &dir.to_string()).expect("it is there").gfid;
    let mut names: Vec<_> = listed(&brick, folder).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    let zero = [(PENDING, counters(0, 0, 0))];
    add(&brick, dir, &zero, note(XATTROP_ENTRY_DELETE, "a")).expect("it answers");
    assert_eq!(listed(&brick, folder).len(), 1);
    brick.call(Unlink { parent: folder, name: bytes("b"), flags: 0, xdata: None }).expect("it is there");
    assert!(listed(&brick, folder).is_empty());
    let purge = Some(Dict::new().with(XATTROP_PURGE_INDEX, Value::Int(1)));
    add(&brick, dir, &[(PENDING, counters(0, 0, -2))], purge).expect("it subtracts");
    assert!(listed(&brick, changes).is_empty());
    add(&brick, dir, &one, note(XATTROP_ENTRY_CREATE, "c")).expect("it adds");
    let request = Rmdir { parent: changes, flags: 0, name: bytes(&dir.to_string()), xdata: None };
    brick.call(request).expect("heal may drop it");
    assert!(listed(&brick, changes).is_empty());
}

#[test]
fn the_other_operations_of_xattrop() {
    let Some(brick) = Brick::new() else { return };
    let gfid = brick.create(Gfid::ROOT, "f", b"").expect("it is new");
    let run = |op, value: &[u8]| {
        let dict = Some(Dict::new().with("trusted.x", Value::ptr(value.to_vec())));
        let reply = brick.call(Xattrop { gfid, op, dict, xdata: None }).expect("it works");
        reply.dict.and_then(|dict| dict.get_bytes("trusted.x").map(|value| value.to_vec()))
    };
    assert_eq!(run(XattropOp::AddArray64, &[0, 0, 0, 0, 0, 0, 0, 5]), Some(vec![0, 0, 0, 0, 0, 0, 0, 5]));
    assert_eq!(run(XattropOp::Or, &[0x80, 0, 0, 0, 0, 0, 0, 2]), Some(vec![0x80, 0, 0, 0, 0, 0, 0, 7]));
    assert_eq!(run(XattropOp::And, &[0xff, 0, 0, 0, 0, 0, 0, 6]), Some(vec![0x80, 0, 0, 0, 0, 0, 0, 6]));
    assert_eq!(run(XattropOp::GetAndSet, b"new"), Some(vec![0x80, 0, 0, 0, 0, 0, 0, 6]));
    assert_eq!(brick.getxattr(gfid, "trusted.x"), Ok(b"new".to_vec()));
    let own = Some(Dict::new().with("trusted.gfid", Value::ptr(vec![1; 16])));
    let request = Xattrop { gfid, op: XattropOp::AddArray, dict: own, xdata: None };
    assert_eq!(brick.call(request).map(drop), Err(Errno::EPERM));
}

/// GlusterFS's self-heal daemon sweeps nothing unless it is told what the entries are.
#[test]
fn a_virtual_directory_says_what_its_entries_are() {
    let Some(brick) = Brick::new() else { return };
    for (key, kind) in [(XATTROP_INDEX_GFID, 1), (XATTROP_DIRTY_GFID, 1), (XATTROP_ENTRY_CHANGES_GFID, 2)] {
        let gfid = virtual_gfid(&brick, key);
        let xdata = Some(Dict::new().with(INDEX_TYPE_REQUEST, Value::Int(1)));
        let request = Lookup { gfid, parent: Gfid::NULL, flags: 0, name: bytes(""), xdata };
        let answer = brick.call(request).expect("it is there").xdata.expect("an answer");
        assert_eq!(answer.get_u64(INDEX_TYPE_RESPONSE), Some(kind), "{key}");
    }
}
