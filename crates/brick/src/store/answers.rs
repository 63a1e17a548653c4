//! Answers to the keys of a request's xdata, in lookups, listings and stats.
//!
//! Source: GlusterFS `posix-helpers.c: _posix_xattr_get_set`.

use mortar_sys::{Loc, Result, file, xattr};
use mortar_types::keys::{
    CONTENT, GET_SIZE, LINK_COUNT, LIST_XATTR, OPEN_ACTIVE_FD_COUNT, OPEN_FD_COUNT, XATTR_ACL_ACCESS,
    XATTR_ACL_DEFAULT, XATTR_GFID, XATTR_GFID2PATH_PREFIX, XATTR_VOLUME_ID, XATTROP_INDEX_COUNT,
};
use mortar_types::{Dict, Errno, Value};
use rustix::fs::Stat;

use super::acl_text;
use super::brick::Brick;
use super::creation::has_xattr_namespace;
use super::inode::Inode;
use super::open_flags;
use super::pattern;
use super::resolve::is_regular;

/// The most of a file that a lookup carries: quick-read's largest setting is 1 MiB.
const CONTENT_BYTES_MAX: u64 = 1024 * 1024;

/// The mode of a regular file, by which distribute sees that it is being moved.
const DHT_MODE: &str = "dht-get-mode-in-xattr";

/// What a request asks about.
pub(crate) struct Subject<'a> {
    pub(crate) inode: &'a Inode,
    pub(crate) loc: Loc<'a>,
    pub(crate) stat: &'a Stat,
}

impl Brick {
    /// The reply's xdata: a value for every key that has an answer here.
    pub(crate) fn answer(&self, subject: &Subject<'_>, request: Option<&Dict>) -> Result<Dict> {
        let mut reply = Dict::new();
        let Some(request) = request else { return Ok(reply) };
        let mut wanted = Vec::new();
        for (key, value) in request.iter() {
            match key {
                LIST_XATTR | LINK_COUNT => {}
                CONTENT => {
                    if let Some(content) = self.content(subject, value)? {
                        reply.set(CONTENT, Value::ptr(content));
                    }
                }
                OPEN_FD_COUNT => reply.set(OPEN_FD_COUNT, Value::Uint(subject.inode.open_fds().into())),
                OPEN_ACTIVE_FD_COUNT => {
                    reply.set(OPEN_ACTIVE_FD_COUNT, Value::Uint(subject.inode.open_fds().into()));
                }
                DHT_MODE if is_regular(subject.stat) => {
                    reply.set(DHT_MODE, Value::Int(i64::from(subject.stat.st_mode)));
                }
                GET_SIZE if is_regular(subject.stat) => {
                    reply.set(GET_SIZE, Value::Uint(u64::try_from(subject.stat.st_size).unwrap_or(0)));
                }
                acl_text::ACCESS_KEY => self.answer_acl(subject, XATTR_ACL_ACCESS, acl_text::ACCESS_KEY, &mut reply),
                acl_text::DEFAULT_KEY => {
                    self.answer_acl(subject, XATTR_ACL_DEFAULT, acl_text::DEFAULT_KEY, &mut reply);
                }
                "glusterfs.ancestry.path" => {
                    if let Some(path) = self.paths_of(subject.inode.gfid, subject.loc)?.into_iter().next() {
                        reply.set(key.to_owned(), Value::Str(path.into()));
                    }
                }
                _ if has_xattr_namespace(key) => wanted.push(key),
                _ => {}
            }
        }
        self.answer_link_count(Some(request), &mut reply);
        self.answer_xattrs(subject, &wanted, request.contains(LIST_XATTR), &mut reply)?;
        Ok(reply)
    }

    /// `link-count`: whether this brick's index holds anything.
    pub(crate) fn answer_link_count(&self, request: Option<&Dict>, reply: &mut Dict) {
        let asked = |key| request.is_some_and(|request| request.contains(key));
        if asked(LINK_COUNT) {
            reply.set(LINK_COUNT, Value::Int(i64::from(self.index.pending_count() > 0)));
        }
        if asked(XATTROP_INDEX_COUNT) {
            reply.set(XATTROP_INDEX_COUNT, Value::Int(i64::from(self.index.pending_count() > 0)));
        }
    }

    /// The stored xattrs that the keys, which may be patterns, name. One list call answers all keys that are not there,
    /// which are most.
    fn answer_xattrs(&self, subject: &Subject<'_>, wanted: &[&str], all: bool, reply: &mut Dict) -> Result<()> {
        if let ([key], false) = (wanted, all)
            && !pattern::is_pattern(key)
        {
            if is_answered(key.as_bytes())
                && let Some(value) = read(subject.loc, key.as_bytes())?
            {
                reply.set((*key).to_owned(), Value::ptr(value));
            }
            return Ok(());
        }
        if wanted.is_empty() && !all {
            return Ok(());
        }
        let names = match xattr::list(subject.loc) {
            Ok(names) => names,
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error),
        };
        for name in names.iter() {
            let named = || wanted.iter().any(|key| pattern::matches(key.as_bytes(), name));
            if !is_answered(name) || !((all && is_listed(name)) || named()) {
                continue;
            }
            // A name that is not text cannot travel in a dict.
            let Ok(key) = std::str::from_utf8(name) else { continue };
            if let Some(value) = read(subject.loc, name)? {
                reply.set(key.to_owned(), Value::ptr(value));
            }
        }
        Ok(())
    }

    fn content(&self, subject: &Subject<'_>, max: &Value) -> Result<Option<Vec<u8>>> {
        let max = max.as_u64().unwrap_or(0).min(CONTENT_BYTES_MAX);
        let size = u64::try_from(subject.stat.st_size).unwrap_or(u64::MAX);
        if !is_regular(subject.stat) || size > max {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(Vec::new()));
        }
        let Loc::At(dir, name) = subject.loc else { return Ok(None) };
        let opened = mortar_sys::at::open(dir, name, open_flags::of_client(0), 0)?;
        let data = file::read_at(std::os::fd::AsFd::as_fd(&opened), 0, size as usize)?;
        // Grown or cut since the stat: content that contradicts the attributes would be cached as truth.
        Ok((data.len() as u64 == size).then_some(data))
    }

    fn answer_acl(&self, subject: &Subject<'_>, xattr_name: &str, key: &'static str, reply: &mut Dict) {
        let value = xattr::get(subject.loc, xattr_name.as_bytes()).ok().flatten();
        if let Some(text) = value.as_deref().and_then(acl_text::to_text) {
            reply.set(key, Value::str(text));
        }
    }
}

/// Reads one that was listed; gone meanwhile, or not readable through this file system, is as good as absent.
fn read(loc: Loc<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    match xattr::get(loc, name) {
        Err(Errno::EOPNOTSUPP) => Ok(None),
        result => result,
    }
}

/// Never answered by name: the gfid travels in the attributes, links are the brick's own notes.
fn is_answered(name: &[u8]) -> bool {
    name != XATTR_GFID.as_bytes() && !name.starts_with(XATTR_GFID2PATH_PREFIX.as_bytes())
}

/// Whether `list-xattr` includes it: what replicas compare and heal copies (`posix-helpers.c: _handle_list_xattr`).
pub(crate) fn is_listed(name: &[u8]) -> bool {
    const OWN: [&[u8]; 3] = [XATTR_GFID.as_bytes(), XATTR_VOLUME_ID.as_bytes(), b"security.selinux"];
    const PATTERNS: [&[u8]; 6] = [
        b"trusted.glusterfs.quota.*",
        b"trusted.glusterfs.*.xtime",
        b"*.glusterfs.*.stime",
        b"*.glusterfs.*.entry_stime",
        b"*.glusterfs.lockinfo",
        b"*.glusterfs.volume-mark*",
    ];
    !OWN.contains(&name)
        && !name.starts_with(XATTR_GFID2PATH_PREFIX.as_bytes())
        && !PATTERNS.iter().any(|pattern| pattern::matches(pattern, name))
}
