//! Reading a directory of one subvolume to its end, with what tells files and link files apart.

use mortar_logic::distribute::linkto;
use mortar_types::fop::{DirentPlus, Opendir, Readdirp, Releasedir};
use mortar_types::{Dict, Fd, FileType, Gfid, Iatt, Value, keys};

use bytes::Bytes;

use super::{Error, File, Mover, Subvolume};

/// One page, in bytes, as GlusterFS's own crawlers ask for.
const PAGE_BYTES: u32 = 128 << 10;

/// A name of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Bytes,
    pub(super) stat: Iatt,
    /// The subvolume that it names, when it is a link file.
    pub(super) link: Option<String>,
}

impl Entry {
    pub(super) fn is_dir(&self) -> bool {
        self.stat.file_type() == Some(FileType::Directory)
    }
}

/// A directory that is open at one subvolume. Must be [`Self::close`]d.
pub(super) struct Listing<'a> {
    mover: Mover,
    at: &'a Subvolume,
    dir: Gfid,
    fd: Fd,
    /// Where the next page begins; `None` after the last one.
    next: Option<u64>,
}

impl<'a> Listing<'a> {
    /// `None` when the directory is not there.
    pub(super) async fn open(at: &'a Subvolume, dir: Gfid) -> Result<Option<Self>, Error> {
        let mover = Mover::new();
        let opened = mover.find(at, Opendir { gfid: dir, xdata: None }).await?;
        Ok(opened.map(|opened| Self { mover, at, dir, fd: opened.fd, next: Some(0) }))
    }

    /// The next names; `None` at the end.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let Some(offset) = self.next else { return Ok(None) };
        let xdata = Some(Dict::new().with(keys::XATTR_DHT_LINKTO, Value::Uint(256)));
        let request = Readdirp { gfid: self.dir, fd: self.fd, offset, size: PAGE_BYTES, xdata };
        let page = self.mover.must(self.at, request).await?;
        let last = page.entries.last().map(|entry| entry.entry.offset);
        self.next = last.filter(|last| !page.eof && *last != offset);
        let mut entries = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            if !matches!(&entry.entry.name[..], b"." | b"..") {
                entries.extend(self.complete(entry).await?);
            }
        }
        Ok(Some(entries))
    }

    /// An entry may come without attributes: those are asked for. `None`: it is gone.
    async fn complete(&self, entry: DirentPlus) -> Result<Option<Entry>, Error> {
        let name = entry.entry.name;
        if entry.stat.gfid != Gfid::NULL {
            let link = linkto::target(&entry.stat, entry.xdata.as_ref()).map(str::to_owned);
            return Ok(Some(Entry { name, stat: entry.stat, link }));
        }
        let file = File { parent: self.dir, name, gfid: Gfid::NULL };
        let look = self.mover.look_at_name(&file, self.at, false).await?;
        Ok(look.map(|look| {
            let link = if look.is_link() { look.points_to.clone() } else { None };
            Entry { name: file.name, stat: look.stat, link }
        }))
    }

    pub(super) async fn close(self) {
        // What was read is here; that the subvolume could not close is its own affair.
        let _closed = self.mover.must(self.at, Releasedir { gfid: self.dir, fd: self.fd, xdata: None }).await;
    }
}
