//! What lies on a brick after the same operations, field by field: written by GlusterFS 10.3, and by us.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mortar_testkit::lab::Lab;
use mortar_testkit::{needs, tree};
use xxhash_rust::xxh64::xxh64;

use crate::cluster::{self, Systems};

/// What is done on the mount; every kind of object, every way to change one.
const WORK: &str = r#"
set -e; cd /var/spool/imap; umask 022
mkdir -p dir/sub; mkdir -m 2750 setgid; mkdir -m 1777 sticky
echo small > file; : > empty; head -c 300000 /dev/zero | tr '\0' x > big
echo one > appended; echo two >> appended
echo long long > truncated; truncate -s 3 truncated; truncate -s 100000 sparse
ln -s file symlink; ln -s /nowhere/at/all dir/dangling
echo linked > linked; ln linked dir/hard; ln linked second; rm second
mkfifo fifo; mknod null c 1 3; mknod block b 7 0
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
echo x > chmodded; chmod 4640 chmodded
echo x > owned; chown 1234:2345 owned; mkdir owned-dir; chown 1234:2345 owned-dir
echo x > noted; setfattr -n user.note -v hello noted; setfattr -n user.gone -v x noted; setfattr -x user.gone noted
setfattr -n user.dir -v there dir
echo x > acl; setfacl -m u:1234:rw,g:2345:r acl
mkdir inherit; setfacl -d -m u:1234:rwx inherit; echo x > inherit/file; mkdir inherit/dir
echo x > before; mv before after; mkdir old; echo x > old/file; mv old new; mv new/file new/renamed
echo winner > winner; echo loser > loser; mv winner loser
echo x > moved; mv moved dir/sub/moved
echo x > gone; rm gone; mkdir gone-dir; rmdir gone-dir
touch -d '2001-02-03 04:05:06.789 UTC' touched
echo x > "a name with spaces"; echo x > "$(printf 'n%.0s' $(seq 250))"
"#;

/// What may differ, and why.
const ALLOWED: [(&str, &str); 6] = [
    (
        ".glusterfs/changelogs",
        "the change log's folders stay empty until it is switched on; GlusterFS makes them when it starts",
    ),
    (".glusterfs/mortar", "what is ours alone lives here, and GlusterFS leaves it alone"),
    ("acl: trusted.glusterfs.mdata", SETXATTR_MOVES_CTIME),
    ("dir: trusted.glusterfs.mdata", SETXATTR_MOVES_CTIME),
    ("empty: trusted.afr.dirty", MARKED_WHEN_CREATED),
    ("touched: trusted.afr.dirty", MARKED_WHEN_CREATED),
];

const MARKED_WHEN_CREATED: &str = "a file created for writing is marked with its creation, not with its first write; \
     the mark is back at zero, which GlusterFS reads as none";

const SETXATTR_MOVES_CTIME: &str =
    "setxattr moves ctime, as on every local file system; GlusterFS's client asks for that with removexattr only";

/// Facts by `PATH: FIELD`, in words that do not depend on chance (gfids, times).
type Fields = BTreeMap<String, String>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A gfid's canonical text, from its 32 hex digits.
fn gfid_text(digits: &str) -> String {
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn is_gfid_text(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_digit() || ('a'..='f').contains(&c),
        })
}

fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// `trusted.glusterfs.mdata` without the times themselves: its form, and the order of its three times.
fn mdata_shape(value: &[u8]) -> String {
    if value.len() != 57 {
        return format!("{} bytes", value.len());
    }
    let time = |at: usize| (be(&value[at..at + 8]), be(&value[at + 8..at + 16]));
    let (changed, modified, accessed) = (time(9), time(25), time(41));
    let order = |one: (u64, u64), other: (u64, u64)| match one.cmp(&other) {
        std::cmp::Ordering::Less => '<',
        std::cmp::Ordering::Equal => '=',
        std::cmp::Ordering::Greater => '>',
    };
    let fair =
        [changed, modified, accessed].iter().all(|(seconds, nanos)| *seconds > 900_000_000 && *nanos < 1_000_000_000);
    format!(
        "57 bytes, version {}, flags {}, {}, ctime{}mtime{}atime",
        value[0],
        be(&value[1..9]),
        if fair { "times fair" } else { "times odd" },
        order(changed, modified),
        order(modified, accessed),
    )
}

/// A brick: where it lies, and the path of each gfid on it.
struct Brick {
    root: PathBuf,
    path_of: BTreeMap<String, String>,
}

impl Brick {
    fn open(root: PathBuf) -> Result<Self> {
        let mut path_of = BTreeMap::new();
        for path in tree::walk(&root, &[".glusterfs"], &|_| false)?.into_keys() {
            if let Some(gfid) = tree::xattrs(&root.join(&path))?.get("trusted.gfid") {
                let place = if path.as_os_str().is_empty() { "/".to_owned() } else { path.display().to_string() };
                path_of.entry(gfid_text(&hex(gfid))).or_insert(place);
            }
        }
        Ok(Self { root, path_of })
    }

    fn place(&self, gfid: &str) -> String {
        self.path_of.get(gfid).map_or_else(|| "an unknown gfid".to_owned(), |path| format!("gfid of {path}"))
    }

    /// The field's name and the shape of its value.
    fn shape(&self, path: &Path, name: &str, value: &[u8]) -> (String, String) {
        let shape = match name {
            "trusted.gfid" if path.as_os_str().is_empty() => hex(value),
            "trusted.gfid" | "trusted.glusterfs.volume-id" => format!("{} bytes", value.len()),
            "trusted.glusterfs.mdata" => mdata_shape(value),
            _ if name.starts_with("trusted.afr.") => {
                let zero = value.iter().all(|byte| *byte == 0);
                format!("{} bytes, {}", value.len(), if zero { "zero" } else { "NOT ZERO" })
            }
            _ if name.starts_with("trusted.gfid2path.") => return self.gfid2path_shape(name, value),
            _ => hex(value),
        };
        (name.to_owned(), shape)
    }

    /// One field per hard link: which name of which directory, and whether the key is the value's hash.
    fn gfid2path_shape(&self, name: &str, value: &[u8]) -> (String, String) {
        let text = String::from_utf8_lossy(value);
        let (parent, base) = text.split_once('/').unwrap_or(("", &text));
        let key = name.trim_start_matches("trusted.gfid2path.");
        let hash = if key == format!("{:016x}", xxh64(value, 0)) { "key is its XXH64" } else { "KEY IS ANOTHER" };
        (format!("trusted.gfid2path of {base}"), format!("{}/{base}, {hash}", self.place(parent)))
    }

    /// The fields of everything that has a name.
    fn names(&self) -> Result<Fields> {
        let mut fields = Fields::new();
        for path in tree::walk(&self.root, &[".glusterfs"], &|_| false)?.into_keys() {
            let label = if path.as_os_str().is_empty() { "/".to_owned() } else { path.display().to_string() };
            if label.starts_with(cluster::PARKING_PLACE) {
                continue;
            }
            let at = self.root.join(&path);
            let meta = fs::symlink_metadata(&at)?;
            let size = if meta.is_dir() { 0 } else { meta.size() };
            // A directory's links count what is beside the names: `.glusterfs` and the parking place.
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let stat = format!(
                "{:o} {}:{} size {size} links {links} rdev {}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev()
            );
            fields.insert(format!("{label}: stat"), stat);
            for (name, value) in tree::xattrs(&at)? {
                let (name, shape) = self.shape(&path, &name, &value);
                fields.insert(format!("{label}: {name}"), shape);
            }
        }
        Ok(fields)
    }

    /// What lies below `.glusterfs`, gfids named by their path, with modes; the 256 first folders as a count.
    fn inside(&self) -> Result<Fields> {
        let top = self.root.join(".glusterfs");
        let (mut fields, mut folders) = (Fields::new(), BTreeMap::<String, usize>::new());
        for path in tree::walk(&top, &[], &|_| false)?.into_keys() {
            let meta = fs::symlink_metadata(top.join(&path))?;
            let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let two_digits = |part: &String| part.len() == 2 && u8::from_str_radix(part, 16).is_ok();
            let depth = parts.iter().take_while(|part| two_digits(part)).count();
            match (depth, parts.last()) {
                (1 | 2, Some(last)) if two_digits(last) => {
                    *folders.entry(format!("level {depth} folders of mode {:o}", meta.mode())).or_default() += 1;
                }
                (2, Some(gfid)) => {
                    let (place, fact) = self.handle(&parts, gfid, &path, &meta)?;
                    // Heal makes its parking place when it comes to it.
                    if !format!("{place} {fact}").contains(cluster::PARKING_PLACE) {
                        fields.insert(place, fact);
                    }
                }
                _ => {
                    let (label, fact) = inner_file(&path, &meta);
                    fields.insert(label, fact);
                }
            }
        }
        // Which second levels there are is chance: one per handle, if no two gfids share their first bytes.
        fields.extend(
            folders
                .into_iter()
                .filter(|(what, _)| what.starts_with("level 1"))
                .map(|(what, count)| (format!(".glusterfs: {what}"), count.to_string())),
        );
        Ok(fields)
    }

    fn handle(&self, parts: &[String], gfid: &str, path: &Path, meta: &fs::Metadata) -> Result<(String, String)> {
        let place = self.path_of.get(gfid).cloned().unwrap_or_else(|| "an unknown gfid".to_owned());
        let home =
            gfid.get(0..2) == parts.first().map(String::as_str) && gfid.get(2..4) == parts.get(1).map(String::as_str);
        let home = if home { "" } else { ", IN THE WRONG FOLDER" };
        let at = self.root.join(".glusterfs").join(path);
        let own = self.root.join(place.trim_start_matches('/'));
        let same = fs::symlink_metadata(&own).is_ok_and(|named| named.ino() == meta.ino());
        let fact = if same {
            "hard link of the named object".to_owned()
        } else if meta.is_symlink() {
            let text = fs::read_link(&at)?.display().to_string();
            let mut words: Vec<String> = text.split('/').map(ToOwned::to_owned).collect();
            if let Some(at) = words.iter().position(|word| is_gfid_text(word)) {
                let fits =
                    at >= 2 && words[at].starts_with(&words[at - 2]) && words[at][2..].starts_with(&words[at - 1]);
                words[at] = format!("{}{}", self.place(&words[at]), if fits { "" } else { " IN A WRONG FOLDER" });
                words.drain(at.saturating_sub(2)..at);
            }
            format!("symlink {}", words.join("/"))
        } else {
            format!("mode {:o}", meta.mode())
        };
        Ok((format!(".glusterfs: handle of {place}"), format!("{fact}{home}")))
    }
}

/// What is no handle: index folders, their base files (named by chance), marks.
fn inner_file(path: &Path, meta: &fs::Metadata) -> (String, String) {
    let label: Vec<String> = path
        .iter()
        .map(|part| {
            let part = part.to_string_lossy();
            match part.len().checked_sub(36).and_then(|at| part.split_at_checked(at)) {
                Some((head, tail)) if is_gfid_text(tail) => format!("{head}GFID"),
                _ => part.into_owned(),
            }
        })
        .collect();
    let links = if meta.is_dir() { String::new() } else { format!(" links {}", meta.nlink()) };
    (format!(".glusterfs/{}", label.join("/")), format!("mode {:o} {}:{}{links}", meta.mode(), meta.uid(), meta.gid()))
}

/// Does the work on a fresh volume; what then lies on its first brick.
fn fields_written_by(systems: Systems) -> Result<Fields> {
    let lab = cluster::imap0_of(systems)?;
    cluster::mount_with(&lab, "kolab", cluster::SPOOL, "acl")?;
    cluster::both_bricks_written(&lab)?;
    let script = lab.dir().join("work.sh");
    fs::write(&script, WORK)?;
    lab.host("kolab").ok(&format!("bash {}", script.display())).context("the work on the mount")?;
    cluster::healed(&lab, Duration::from_secs(30))?;
    cluster::bricks_are_identical(&lab)?;
    let of = |host: &str| brick_fields(&lab, host);
    let (first, second) = (of("gfs1")?, of("gfs2")?);
    let apart = differences(&first, &second);
    ensure!(apart.is_empty(), "the two bricks differ:\n{}", table(&apart));
    Ok(first)
}

fn brick_fields(lab: &Lab, host: &str) -> Result<Fields> {
    let brick = Brick::open(cluster::brick_path(lab, host))?;
    let mut fields = brick.names()?;
    fields.extend(brick.inside()?);
    Ok(fields)
}

type Row = (String, String, String);

fn differences(left: &Fields, right: &Fields) -> Vec<Row> {
    let keys: std::collections::BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let value = |side: &Fields, key: &String| side.get(key).cloned().unwrap_or_else(|| "(absent)".to_owned());
    keys.into_iter()
        .map(|key| (key.clone(), value(left, key), value(right, key)))
        .filter(|row| row.1 != row.2)
        .collect()
}

fn table(rows: &[Row]) -> String {
    rows.iter().map(|(field, left, right)| format!("{field}\n    left:  {left}\n    right: {right}\n")).collect()
}

fn print_fields(fields: &Fields, other: &Fields) {
    for (field, value) in fields {
        let same = if other.get(field) == Some(value) { "=" } else { "!" };
        println!("{same} {field:<60} {value}");
    }
}

fn compare(left: Systems, right: Systems) -> Result<()> {
    let theirs = fields_written_by(left).context("written by the first")?;
    let ours = fields_written_by(right).context("written by the second")?;
    print_fields(&theirs, &ours);
    let mut apart = differences(&theirs, &ours);
    println!("{} fields of GlusterFS, {} of the other, {} differ", theirs.len(), ours.len(), apart.len());
    apart.retain(|(field, ..)| {
        let reason = ALLOWED.iter().find(|(allowed, _)| field.starts_with(allowed)).map(|(_, reason)| reason);
        if let Some(reason) = reason {
            println!("allowed: {field}: {reason}");
        }
        reason.is_none()
    });
    ensure!(apart.is_empty(), "fields differ (left: GlusterFS):\n{}", table(&apart));
    Ok(())
}

#[test]
fn bricks_hold_what_glusterfs_would_have_written() {
    if needs::met("bricks_hold_what_glusterfs_would_have_written", &cluster::with_glusterfs(&needs::LAB)) {
        cluster::must(compare(Systems::GLUSTERFS, Systems::OURS));
    }
}

/// Our client on GlusterFS's bricks: what the client decides about a brick's fields.
#[test]
fn our_client_leaves_what_glusterfs_would_have_left() {
    if needs::met("our_client_leaves_what_glusterfs_would_have_left", &cluster::with_glusterfs(&needs::LAB)) {
        cluster::must(compare(Systems::GLUSTERFS, Systems::THEIR_SERVERS));
    }
}

#[test]
#[ignore = "GlusterFS itself, which proves the scenario: cargo test -p mortar --test e2e -- --ignored"]
fn glusterfs_writes_the_same_twice() {
    if needs::met("glusterfs_writes_the_same_twice", &cluster::with_glusterfs(&needs::LAB)) {
        cluster::must(compare(Systems::GLUSTERFS, Systems::GLUSTERFS));
    }
}
