//! Bricks that GlusterFS 10.3 wrote as a 2x2 volume: every file is found where it put it, with one lookup per name.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use mortar_types::fop::{Lookup, Opendir, Read, Readdirp};
use mortar_types::{Context, Fd, FopKind, Fops, Gfid, LkOwner, Outcome, Reply, Request, UpcallSink};
use mortar_volume::distribute::{Distribute, Options};
use mortar_volume::replicate::{self, Replicate};
use parking_lot::Mutex;

use crate::bricks::Brick;
use mortar_testkit::needs::{self, Need};

use crate::can_run;

/// Counts what a replica set is asked.
struct Counted {
    inner: Arc<dyn Fops>,
    log: Mutex<Vec<FopKind>>,
}

#[async_trait]
impl Fops for Counted {
    async fn call(&self, ctx: &Context, request: Request) -> Outcome<Reply> {
        self.log.lock().push(request.kind());
        self.inner.call(ctx, request).await
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.inner.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.inner.is_up()
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

struct Mounted {
    bricks: Vec<Brick>,
    sets: Vec<Arc<Counted>>,
    top: Arc<dyn Fops>,
}

fn mount(dir: &Path) -> Option<Mounted> {
    let programs = [Need::Program("getfattr", "attr"), Need::Program("tar", "tar")];
    if !can_run() || !needs::met("GlusterFS's bricks", &programs) {
        return None;
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let brick_fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../brick/tests/fixtures");
    let mut bricks = Vec::new();
    for at in 0..4 {
        let root = dir.join(format!("brick{at}"));
        let tar = fixtures.join(format!("d-distrep-2x2-brick{at}.tar.gz"));
        let status = Command::new("sh").arg(brick_fixtures.join("extract.sh")).arg(tar).arg(&root).status().unwrap();
        assert!(status.success());
        let mut id = [0; 16];
        rustix::fs::lgetxattr(&root, "trusted.glusterfs.volume-id", &mut id[..]).unwrap();
        bricks.push(Brick::open(&root, at, Gfid(id)));
    }
    let mut sets = Vec::new();
    for set in 0..2 {
        let ids: Vec<String> = (0..2).map(|at| format!("dr-client-{}", 2 * set + at)).collect();
        let children = (0..2).map(|at| bricks[2 * set + at].connect(&ids[at]) as Arc<dyn Fops>).collect::<Vec<_>>();
        let options = replicate::Options::new(format!("dr-replicate-{set}"), ids);
        sets.push(Arc::new(Counted { inner: Replicate::new(options, children), log: Mutex::default() }));
    }
    let subvolumes = sets.iter().map(|set| Arc::clone(set) as Arc<dyn Fops>).collect();
    let top = Distribute::new("dr-dht", subvolumes, Options::default());
    Some(Mounted { bricks, sets, top })
}

impl Mounted {
    fn take_logs(&self) -> Vec<FopKind> {
        self.sets.iter().flat_map(|set| std::mem::take(&mut *set.log.lock())).collect()
    }

    fn is_link(&self, path: &str) -> bool {
        self.bricks.iter().any(|brick| brick.is_link_file(path))
    }

    async fn lookup(&self, parent: Gfid, name: &str) -> Outcome<mortar_types::fop::LookupReply> {
        let name = Bytes::from(name.to_owned());
        self.top.fop(&Context::default(), Lookup { gfid: Gfid::NULL, parent, flags: 0, name, xdata: None }).await
    }

    async fn list(&self, gfid: Gfid) -> Vec<String> {
        let ctx = Context { lk_owner: LkOwner::from_u64(1), ..Context::default() };
        let fd = self.top.fop(&ctx, Opendir { gfid, xdata: None }).await.unwrap().fd;
        let (mut offset, mut names) = (0, Vec::new());
        loop {
            let page = self.top.fop(&ctx, Readdirp { gfid, fd, offset, size: 900, xdata: None }).await.unwrap();
            for entry in &page.entries {
                offset = entry.entry.offset;
                let name = String::from_utf8(entry.entry.name.to_vec()).unwrap();
                if !matches!(&name[..], "." | "..") {
                    names.push(name);
                }
            }
            if page.eof || page.entries.is_empty() {
                names.sort();
                return names;
            }
        }
    }
}

#[tokio::test]
async fn everything_is_found_with_one_lookup_per_name() {
    let dir = tempfile::tempdir().unwrap();
    let Some(volume) = mount(dir.path()) else { return };
    let text = include_str!("../fixtures/d-distrep-2x2.manifest.tsv");
    let mut gfids = std::collections::HashMap::from([(".".to_owned(), Gfid::ROOT)]);
    let mut listings: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    let (mut plain, mut linked) = (0, 0);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [kind, mode, uid, gid, nlink, size, _mtime, content, _xattrs, path] = fields[..] else { panic!("{line}") };
        if path == "." {
            continue;
        }
        let (parent_path, name) = path.rsplit_once('/').unwrap_or((".", path));
        listings.entry(parent_path.to_owned()).or_default().push(name.to_owned());
        let parent = gfids[parent_path];
        volume.take_logs();
        let stat = volume.lookup(parent, name).await.unwrap_or_else(|error| panic!("{path}: {error}")).stat;
        let sent = volume.take_logs();
        let found = format!("{:o} {} {}", stat.mode & 0o7777, stat.uid, stat.gid);
        assert_eq!(found, format!("{mode} {uid} {gid}"), "{path}");
        gfids.insert(path.to_owned(), stat.gfid);
        if kind == "d" {
            continue;
        }
        assert_eq!((stat.nlink.to_string(), stat.size.to_string()), (nlink.to_owned(), size.to_owned()), "{path}");
        if volume.is_link(path) {
            linked += 1;
            assert_eq!(sent, [FopKind::Lookup, FopKind::Lookup], "{path}: the link file, then the file");
        } else {
            plain += 1;
            assert_eq!(sent, [FopKind::Lookup], "{path}");
        }
        if kind == "f" {
            let read = Read { gfid: stat.gfid, fd: Fd::ANONYMOUS, offset: 0, size: 1 << 16, flags: 0, xdata: None };
            let data = volume.top.fop(&Context::default(), read).await.unwrap().data;
            assert_eq!(sha256(&data), content, "{path}");
        }
    }
    assert!(plain > 30 && linked > 3, "{plain} {linked}");
    for (path, mut names) in listings {
        names.sort();
        let mut listed = volume.list(gfids[&path]).await;
        listed.retain(|name| !name.starts_with(".glusterfs"));
        assert_eq!(listed, names, "{path}");
    }
}

fn sha256(data: &[u8]) -> String {
    use std::io::Write;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(data).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned()
}
