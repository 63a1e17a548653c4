//! The tables: wrong commands on a server, wrong mounts on a client, and what wrong packets get.
//!
//! Sentences and codes are GlusterFS 10.3's, where it has them. Alternatives are parted by ` | `.

use super::Exit::{self, Failure, Is};

/// A line typed on `gfs1`, its exit code, and words of what it says.
pub(super) const COMMANDS: [(&str, Exit, &str); 34] = [
    ("gluster badword", Is(1), "unrecognized word: badword"),
    ("gluster volume", Is(1), "unrecognized command"),
    ("gluster peer probe", Is(1), "Usage:"),
    ("gluster peer probe nosuchhost", Is(1), "peer probe: failed: Probe returned with"),
    ("gluster --mode=script peer detach nosuchhost", Is(1), "nosuchhost is not part of cluster"),
    ("gluster --mode=script peer detach localhost", Is(1), "localhost is localhost"),
    ("gluster --mode=script peer detach gfs2", Failure, "hosts one or more bricks"),
    ("gluster --mode=script volume create", Is(1), "Usage:"),
    ("gluster --mode=script volume create two", Is(1), "Usage:"),
    ("gluster --mode=script volume create imap0 gfs1:/srv/gfs/x", Is(1), "Volume imap0 already exists"),
    ("gluster --mode=script volume create two gfs1:relative", Is(1), "Wrong brick type: gfs1:relative"),
    ("gluster --mode=script volume create bad/name gfs1:/srv/gfs/x", Is(1), "Usage:"),
    (
        "gluster --mode=script volume create two gfs1:/srv/gfs/brick",
        Is(1),
        "containing or be contained by an existing brick",
    ),
    (
        "gluster --mode=script volume create two gfs1:/srv/gfs/brick/sub",
        Is(1),
        "containing or be contained by an existing brick",
    ),
    (
        "gluster --mode=script volume create two otherhost:/srv/gfs/x",
        Is(1),
        "Host otherhost is not in 'Peer in Cluster' state",
    ),
    (
        "gluster --mode=script volume create two replica 2 gfs1:/srv/gfs/x gfs2:/srv/gfs/x gfs1:/srv/gfs/y force",
        Is(1),
        "number of bricks | Failed to create volume files",
    ),
    (
        "gluster --mode=script volume create two replica 2 gfs1:/srv/gfs/x gfs1:/srv/gfs/y",
        Is(1),
        "Multiple bricks of a replicate volume",
    ),
    ("gluster --mode=script volume create two gfs1:/opt/on-the-root", Is(1), "root partition"),
    ("gluster --mode=script volume create two gfs1:/srv/gfs", Is(1), "is a mount point | containing or be contained"),
    (
        "gluster --mode=script volume create two gfs1:/srv/gfs/a-file",
        Is(1),
        "Not a directory | is not a directory | not a directory",
    ),
    ("gluster --mode=script volume create two gfs1:/srv/gfs/used", Is(1), "is already part of a volume"),
    ("gluster volume start nosuch", Is(1), "Volume nosuch does not exist"),
    ("gluster volume start imap0", Is(1), "Volume imap0 already started"),
    ("gluster --mode=script --xml volume start nosuch", Is(0), "<opRet>-1</opRet>"),
    ("gluster --mode=script volume stop nosuch", Is(1), "Volume nosuch does not exist"),
    ("echo maybe | gluster volume stop imap0", Is(0), "Invalid input, please enter y/n"),
    ("echo n | gluster volume stop imap0", Is(0), "(y/n)"),
    ("gluster --mode=script volume delete imap0", Is(1), "needs to be stopped before deletion"),
    ("gluster --mode=script volume set imap0 no.such.option 1", Is(1), "option : no.such.option does not exist"),
    ("gluster --mode=script volume set imap0 network.ping-timeout abc", Is(1), "abc"),
    ("gluster --mode=script volume get imap0 no.such.option", Is(1), "no.such.option | Did you mean"),
    ("gluster --mode=script volume reset imap0 no.such", Is(1), "Option no.such does not exist"),
    ("gluster volume info nosuch", Is(1), "Volume nosuch does not exist"),
    ("gluster volume heal nosuch info", Is(254), "Volume nosuch does not exist"),
];

/// A line typed on `kolab`; `/run/here` is where nothing may be mounted afterwards.
pub(super) const MOUNTS: [(&str, Exit, &str); 11] = [
    ("mount -t glusterfs gfs1:/nosuch /run/here", Failure, "ailed | has no volume"),
    ("mount -t glusterfs nosuchhost:/imap0 /run/here", Failure, "ailed | nosuchhost"),
    ("mount -t glusterfs gfs1:/imap0 /run/nowhere", Failure, "does not exist"),
    ("mount -t glusterfs gfs1:/imap0 /run/here/garbage", Failure, "does not exist"),
    ("mount -t glusterfs kolab:/imap0 /run/here", Failure, "ailed | refused"),
    ("mount -t glusterfs gfs1:/imap0/no/such/folder /run/here", Failure, "ailed | not found | No such"),
    ("mount -t glusterfs /run/garbage.vol /run/here", Failure, "ailed | volfile"),
    ("mount -t glusterfs /run/noise.vol /run/here", Failure, "ailed | cannot be read"),
    ("mount -t glusterfs /run/empty.vol /run/here", Failure, "ailed | volfile"),
    ("mount -t glusterfs /run/unknown.vol /run/here", Failure, "ailed | no/such"),
    ("mount -t glusterfs /run/dangling.vol /run/here", Failure, "ailed | subvolume"),
];

/// What a packet may get, by its name in `packets.py`.
pub(super) fn packet_answer(what: &str) -> &'static str {
    match what.split_once(": ").map_or(what, |(_, packet)| packet) {
        "noise" | "a record of 2 GiB" | "half a header" | "HTTP" | "TLS" => "closed",
        "an empty record" | "a reply that nobody asked for" => "closed | silence",
        "RPC version 3" => "denied 0 | closed",
        "unknown program" => "accepted 1",
        "unknown version" => "accepted 2",
        "unknown procedure" | "unknown fop" => "accepted 3",
        "a credential of 4 GiB" => "closed | denied 1 | accepted 4",
        "a string longer than the message" => "accepted 4 | closed | ret -1 errno 22",
        "volfile of no volume" | "volfile ../../../etc/passwd" => "ret -1 errno 2 | ret -1 errno 22",
        "port of no brick" => "ret -1 errno 0 | ret -1 errno 2",
        "a fop before the handshake" | "truncated fop" => "accepted 4",
        "a handshake of noise" => "ret -1 errno 22 | accepted 4",
        "handshake for no brick" => "ret -1 errno 2",
        "handshake without a version" | "handshake without an identity" | "handshake for another volume" => {
            "ret -1 errno 22"
        }
        // Names that leave the directory are refused before the disk is asked.
        "lookup of .." => "ret -1 errno 61 | ret -1 errno 1 | ret -1 errno 22",
        "lookup of a/b" | "mkdir of ../evil" | "unlink of .." => "ret -1 errno 1 | ret -1 errno 22",
        "lookup of .glusterfs" | "removal of trusted.gfid" => "ret -1 errno 1",
        "lookup of 300 letters" => "ret -1 errno 36",
        "stat of gfid 0" => "ret -1 errno 22",
        "mkdir without a gfid" => "ret -1 errno 22 | ret -1 errno 1",
        "stat of an unknown gfid" => "ret -1 errno 116",
        "fstat of an unknown fd" => "ret -1 errno 9",
        "read of a directory" => "ret -1 errno 21",
        "a dict of 4 billion pairs" => "accepted 4",
        "a write longer than said" => "accepted 4 | ret -1 errno 21 | ret -1 errno 22 | ret -1 errno 9",
        _ => "(a packet that the table does not know)",
    }
}
