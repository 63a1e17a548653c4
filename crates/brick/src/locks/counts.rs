//! Lock counts in replies (`glusterfs.inodelk-count` and its kin): which were asked, and on which inode they are taken.
//!
//! GlusterFS (`xlators/features/locks/src/posix.c: pl_set_xdata_response`) answers them on success only: LOOKUP counts
//! the object, and the name in its parent; fops on an inode count the inode; fops on an entry count the parents.

use bytes::Bytes;
use mortar_types::keys::{
    ENTRYLK_COUNT, INODELK_COUNT, INODELK_DOM_COUNT, INODELK_DOM_PREFIX, MULTI_DOM_LK_CNT_REQ, PARENT_ENTRYLK,
    POSIXLK_COUNT,
};
use mortar_types::{Dict, Gfid, Reply, Request, Value};

use super::Locks;

/// The counts that a request asks for.
#[derive(Default)]
pub(super) struct Wanted {
    inodelk: bool,
    /// `glusterfs.inodelk-dom-count`: its domain; the answer's key is `glusterfs.inodelk-count` too.
    inodelk_domain: Option<Bytes>,
    /// `glusterfs.inodelk-dom-prefix:DOMAIN` keys.
    inodelk_domains: Vec<String>,
    entrylk: bool,
    posixlk: bool,
    parent_entrylk: bool,
    place: Place,
}

/// Where to count.
#[derive(Default)]
enum Place {
    #[default]
    Nowhere,
    Inodes(Gfid, Option<Gfid>),
    /// The object is known from the reply.
    Lookup {
        parent: Gfid,
        name: Bytes,
    },
}

impl Wanted {
    /// Takes the keys out of the request: the layers below would store some of them. `None` when there are none.
    pub(super) fn take(request: &mut Request) -> Option<Self> {
        let xdata = request.xdata_mut().as_mut()?;
        let mut wanted = Self::default();
        let mut any = false;
        xdata.retain(|key, value| {
            let known = wanted.note(key, value);
            any |= known;
            !known
        });
        if !any {
            return None;
        }
        wanted.place = place(request);
        Some(wanted)
    }

    /// Whether the key is one of ours.
    fn note(&mut self, key: &str, value: &Value) -> bool {
        match key {
            INODELK_COUNT => self.inodelk = true,
            INODELK_DOM_COUNT => self.inodelk_domain = value.as_str().map(|text| Bytes::from(text.to_owned())),
            ENTRYLK_COUNT => self.entrylk = true,
            POSIXLK_COUNT => self.posixlk = true,
            PARENT_ENTRYLK => self.parent_entrylk = true,
            MULTI_DOM_LK_CNT_REQ => {}
            key if key.starts_with(INODELK_DOM_PREFIX) => self.inodelk_domains.push(key.to_owned()),
            _ => return false,
        }
        true
    }

    /// Adds the counts to a reply.
    pub(super) fn answer(self, locks: &Locks, reply: &mut Reply) {
        let mut counts = Dict::new();
        match &self.place {
            Place::Nowhere => {}
            Place::Inodes(one, two) => {
                self.count(locks, *one, &mut counts);
                if let Some(two) = two {
                    self.count(locks, *two, &mut counts);
                }
            }
            Place::Lookup { parent, name } => {
                if self.parent_entrylk && !name.is_empty() {
                    let locked = locks.shard(*parent).lock().table.is_name_locked(*parent, name);
                    counts.set(PARENT_ENTRYLK, Value::Int(locked.into()));
                }
                if let Reply::LookupReply(reply) = reply {
                    self.count(locks, reply.stat.gfid, &mut counts);
                }
            }
        }
        let xdata = reply.xdata_mut().get_or_insert_default();
        for (key, value) in counts.iter() {
            xdata.set(key.to_owned(), value.clone());
        }
    }

    /// Counts on one inode; of two inodes the larger number is answered.
    fn count(&self, locks: &Locks, gfid: Gfid, counts: &mut Dict) {
        let shard = locks.shard(gfid).lock();
        let table = &shard.table;
        let mut put = |key: String, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let most = counts.get_i64(&key).map_or(count, |known| known.max(count));
            counts.set(key, Value::Int(most));
        };
        if self.entrylk {
            put(ENTRYLK_COUNT.to_owned(), table.entrylk_count(gfid));
        }
        if let Some(domain) = &self.inodelk_domain {
            put(INODELK_COUNT.to_owned(), table.inodelk_count(gfid, Some(domain)));
        }
        if self.inodelk {
            put(INODELK_COUNT.to_owned(), table.inodelk_count(gfid, None));
        }
        if self.posixlk {
            put(POSIXLK_COUNT.to_owned(), table.posixlk_count(gfid));
        }
        for key in &self.inodelk_domains {
            let domain = key.strip_prefix(INODELK_DOM_PREFIX).unwrap_or_default();
            let domain = domain.strip_prefix(':').unwrap_or(domain);
            put(key.clone(), table.inodelk_count(gfid, Some(domain.as_bytes())));
        }
    }
}

fn place(request: &Request) -> Place {
    use Request as R;
    let inode = |gfid: Gfid| Place::Inodes(gfid, None);
    match request {
        R::Lookup(r) => Place::Lookup { parent: r.parent, name: r.name.clone() },
        R::Mknod(r) => inode(r.parent),
        R::Mkdir(r) => inode(r.parent),
        R::Unlink(r) => inode(r.parent),
        R::Rmdir(r) => inode(r.parent),
        R::Symlink(r) => inode(r.parent),
        R::Create(r) => inode(r.parent),
        R::Put(r) => inode(r.parent),
        R::Link(r) => inode(r.new_parent),
        R::Rename(r) => Place::Inodes(r.old_parent, Some(r.new_parent)),
        R::Stat(r) => inode(r.gfid),
        R::Readlink(r) => inode(r.gfid),
        R::Truncate(r) => inode(r.gfid),
        R::Open(r) => inode(r.gfid),
        R::Read(r) => inode(r.gfid),
        R::Write(r) => inode(r.gfid),
        R::Fsync(r) => inode(r.gfid),
        R::Setxattr(r) => inode(r.gfid),
        R::Getxattr(r) => inode(r.gfid),
        R::Removexattr(r) => inode(r.gfid),
        R::Opendir(r) => inode(r.gfid),
        R::Fsyncdir(r) => inode(r.gfid),
        R::Ftruncate(r) => inode(r.gfid),
        R::Fstat(r) => inode(r.gfid),
        R::Xattrop(r) => inode(r.gfid),
        R::Fxattrop(r) => inode(r.gfid),
        R::Fgetxattr(r) => inode(r.gfid),
        R::Fsetxattr(r) => inode(r.gfid),
        R::Fremovexattr(r) => inode(r.gfid),
        R::Setattr(r) => inode(r.gfid),
        R::Fsetattr(r) => inode(r.gfid),
        R::Rchecksum(r) => inode(r.gfid),
        R::Readdir(r) => inode(r.gfid),
        R::Readdirp(r) => inode(r.gfid),
        R::Fallocate(r) => inode(r.gfid),
        R::Discard(r) => inode(r.gfid),
        R::Zerofill(r) => inode(r.gfid),
        R::Seek(r) => inode(r.gfid),
        R::CopyFileRange(r) => inode(r.gfid_out),
        _ => Place::Nowhere,
    }
}
