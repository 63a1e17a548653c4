//! Bricks in a wrong state, on volumes of their own (`gfs1`, `/srv/small`), and volfiles that no brick can be made of.

use anyhow::{Context, Result};
use mortar_testkit::lab::{Host, Lab};

use super::Exit::{Failure, Is};
use super::Row;
use crate::cluster::System;

/// Volfiles given to the brick process itself.
pub(super) fn brick_volfiles(lab: &Lab) -> Result<Vec<Row>> {
    let gfs1 = lab.host("gfs1");
    let mut rows = Vec::new();
    let node = "8e5de0f7-91d3-4ec1-8f28-8b4b4a9f2f10";
    let cases = [
        ("is missing", ":", "volfile | No such file"),
        ("is empty", ": > /run/wrong.vol", "volfile"),
        ("is noise", "head -c 2000 /dev/urandom > /run/wrong.vol", "volfile"),
        ("never ends its volume", "printf 'volume a\\n type storage/posix\\n' > /run/wrong.vol", "volfile | volume"),
        (
            "has no directory",
            "printf 'volume a\\n type storage/posix\\nend-volume\\n' > /run/wrong.vol",
            "directory | volfile",
        ),
        ("is a client's", "gluster system:: getspec imap0 > /run/wrong.vol", "volfile"),
    ];
    for (case, make, words) in cases {
        gfs1.ok(&format!("rm -f /run/wrong.vol; {make}"))?;
        let line = format!(
            "timeout 20 mortar brick --volfile /run/wrong.vol --listen 127.0.0.1 --port 49999 --control /run/wrong.ctl \
             --pid-file /run/wrong.pid --log-file /run/wrong.log --node-uuid {node}; code=$?; cat /run/wrong.log; exit $code"
        );
        let mut row = Row::typed(gfs1, &line, Failure, words)?;
        row.what = format!("mortar brick --volfile: the file {case}");
        rows.push(row);
    }
    Ok(rows)
}

/// A way to spoil a stopped brick.
struct State {
    name: &'static str,
    /// Done to the brick `B` of the stopped volume.
    spoil: &'static str,
    /// What `volume start` then says; empty: it must succeed.
    words: &'static str,
    /// Undoes it.
    mend: &'static str,
}

const STATES: [State; 7] = [
    State {
        name: "another volume-id",
        spoil: "setfattr -n trusted.glusterfs.volume-id -v 0x00112233445566778899aabbccddeeff $B",
        words: "olume id mismatch | olume-id | volume id",
        mend: "setfattr -n trusted.glusterfs.volume-id -v $ID $B",
    },
    State {
        name: "no volume-id",
        spoil: "setfattr -x trusted.glusterfs.volume-id $B",
        words: "trusted.glusterfs.volume-id | volume-id",
        mend: "setfattr -n trusted.glusterfs.volume-id -v $ID $B",
    },
    State {
        name: "no directory",
        spoil: "mv $B $B.away",
        words: "Failed to find brick directory | No such file or directory",
        mend: "mv $B.away $B",
    },
    State {
        name: "a file in its place",
        spoil: "mv $B $B.away; echo x > $B",
        words: "ailed",
        mend: "rm $B; mv $B.away $B",
    },
    State {
        name: "another gfid on the root",
        spoil: "setfattr -n trusted.gfid -v 0x00000000000000000000000000000077 $B",
        words: "ailed",
        mend: "setfattr -n trusted.gfid -v 0x00000000000000000000000000000001 $B",
    },
    State { name: "no gfid on the root", spoil: "setfattr -x trusted.gfid $B", words: "", mend: ":" },
    State { name: "no .glusterfs", spoil: "rm -rf $B/.glusterfs", words: "", mend: ":" },
];

const BRICK: &str = "/srv/small/brick";

/// One-brick volume `small` on a disk of 64 MiB, mounted on the server itself.
fn make_small(gfs1: &Host) -> Result<String> {
    gfs1.ok("mkdir -p /srv/small /run/small; truncate -s 64M /srv/small.img && mkfs.ext4 -q -F /srv/small.img")?;
    gfs1.ok("mount -o loop /srv/small.img /srv/small")?;
    gfs1.ok(&format!("gluster --mode=script volume create small gfs1:{BRICK}"))?;
    gfs1.ok("gluster volume start small && mount -t glusterfs gfs1:/small /run/small")?;
    gfs1.ok("mkdir /run/small/dir && echo precious > /run/small/dir/file && umount /run/small")?;
    let id = format!("getfattr --only-values -n trusted.glusterfs.volume-id {BRICK} | od -An -tx1 | tr -d ' \\n'");
    Ok(format!("0x{}", gfs1.ok(&id)?.trim()))
}

pub(super) fn brick_states(lab: &Lab, servers: System) -> Result<Vec<Row>> {
    let gfs1 = lab.host("gfs1");
    let id = make_small(gfs1)?;
    let mut rows = Vec::new();
    // GlusterFS itself cannot start a brick again whose handles were removed.
    let given = STATES.iter().filter(|state| servers == System::Mortar || state.name != "no .glusterfs");
    for state in given {
        rows.push(brick_state(gfs1, &id, state).with_context(|| format!("a brick with {}", state.name))?);
    }
    rows.push(read_only(gfs1)?);
    rows.push(nameless_file(gfs1)?);
    rows.push(full_disk(gfs1)?);
    if servers == System::Glusterfs {
        // What GlusterFS says in these states is no promise of ours.
        rows.iter_mut().for_each(|row| row.wrong = None);
    }
    gfs1.ok(
        "umount -l /run/small; gluster --mode=script volume stop small && gluster --mode=script volume delete small",
    )?;
    Ok(rows)
}

fn brick_state(gfs1: &Host, id: &str, state: &State) -> Result<Row> {
    let with = |line: &str| format!("B={BRICK}; ID={id}; {line}");
    gfs1.ok("gluster --mode=script volume stop small")?;
    gfs1.ok(&with(state.spoil))?;
    let exit = if state.words.is_empty() { Is(0) } else { Failure };
    let words = if state.words.is_empty() { "success" } else { state.words };
    let mut row = Row::typed(gfs1, "gluster volume start small", exit, words)?;
    row.what = format!("a brick with {}", state.name);
    gfs1.run("gluster --mode=script volume stop small force")?;
    gfs1.ok(&with(state.mend))?;
    gfs1.ok("gluster volume start small").context("start after mending")?;
    gfs1.ok("mount -t glusterfs gfs1:/small /run/small")?;
    gfs1.ok("grep -q precious /run/small/dir/file && ls /run/small/dir > /dev/null")
        .context("the file after mending")?;
    gfs1.ok("umount /run/small")?;
    Ok(row)
}

/// A brick on a disk that became read-only is served, as GlusterFS does it; who writes is told.
fn read_only(gfs1: &Host) -> Result<Row> {
    gfs1.ok("gluster --mode=script volume stop small && mount -o remount,ro /srv/small && gluster volume start small")?;
    gfs1.ok("mount -t glusterfs gfs1:/small /run/small && grep -q precious /run/small/dir/file")?;
    let mut row = Row::typed(gfs1, "echo more >> /run/small/dir/file", Failure, "Read-only file system")?;
    row.what = "a brick on a read-only disk".to_owned();
    gfs1.ok("umount /run/small && gluster --mode=script volume stop small && mount -o remount,rw /srv/small")?;
    gfs1.ok("gluster volume start small && sleep 1")?;
    Ok(row)
}

/// A file put onto the brick behind the volume's back gets its gfid when it is looked for.
fn nameless_file(gfs1: &Host) -> Result<Row> {
    gfs1.ok(&format!("echo stray > {BRICK}/dir/stray && touch -d '1 minute ago' {BRICK}/dir/stray && sleep 2"))?;
    gfs1.ok("mount -t glusterfs gfs1:/small /run/small")?;
    let line = format!("cat /run/small/dir/stray && getfattr -n trusted.gfid -e hex {BRICK}/dir/stray");
    let mut row = Row::typed(gfs1, &line, Is(0), "trusted.gfid=0x")?;
    row.what = "a file without a gfid on the brick".to_owned();
    gfs1.ok("umount /run/small")?;
    Ok(row)
}

fn full_disk(gfs1: &Host) -> Result<Row> {
    gfs1.ok("mount -t glusterfs gfs1:/small /run/small")?;
    // The reserve is looked at every five seconds; the second file must meet the end of the disk or the reserve.
    gfs1.run("dd if=/dev/zero of=/run/small/fill bs=128k count=400 2>/dev/null; sleep 6")?;
    let mut row =
        Row::typed(gfs1, "dd if=/dev/zero of=/run/small/more bs=128k count=400", Failure, "No space left on device")?;
    row.what = "a full disk".to_owned();
    gfs1.ok("grep -q precious /run/small/dir/file && rm /run/small/fill && rm -f /run/small/more && sleep 6")?;
    gfs1.ok("echo again > /run/small/dir/again && grep -q again /run/small/dir/again").context("after making room")?;
    Ok(row)
}
