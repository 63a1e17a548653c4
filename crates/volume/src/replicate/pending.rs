//! Whether anything in the volume awaits a heal, as the bricks said last.
//!
//! A brick's index tells what it accuses others of, and every lookup asks whether there is anything in it. While nothing
//! is, every copy is good, and a listing from one brick may be believed with all its attributes; otherwise an entry is
//! believed only if its own inode is known to be good there (as GlusterFS's `afr_readdir_transform_entries` asks it of
//! every entry).

use std::sync::Arc;
use std::time::Duration;

use mortar_logic::replicate::Set;
use mortar_types::fop::{LookupReply, ReaddirpReply};
use mortar_types::{Context, FileType, Gfid, Outcome, SubvolId, SubvolMap, keys};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Core;
use super::fds::OpenFd;

/// How long what the bricks said of their indexes is taken for true. It adds to the age of the attributes that are believed
/// because of it, and asking again costs a listing one round trip.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

/// What is known of the bricks' indexes.
#[derive(Default)]
pub(super) struct Pending {
    said: Mutex<Option<Said>>,
}

#[derive(Clone, Copy)]
struct Said {
    generation: u64,
    at: Instant,
    nothing: bool,
}

impl Pending {
    /// Takes what the replies to a lookup that all of `up` were asked at `asked` tell of their indexes.
    pub(super) fn learn(
        &self,
        generation: u64,
        asked: Instant,
        up: &Set,
        replies: &SubvolMap<Option<Outcome<LookupReply>>>,
    ) {
        let mut nothing = true;
        for id in up.ids().filter(|id| up[*id]) {
            let Some(Ok(reply)) = &replies[id] else { return };
            let Some(count) = reply.xdata.as_ref().and_then(|xdata| xdata.get_i64(keys::LINK_COUNT)) else { return };
            nothing &= count == 0;
        }
        let mut said = self.said.lock();
        if said.is_none_or(|said| said.at <= asked) {
            *said = Some(Said { generation, at: asked, nothing });
        }
    }

    /// Whether there is nothing to heal; `None` when nobody has said lately.
    fn is_nothing(&self, generation: u64) -> Option<bool> {
        let said = (*self.said.lock())?;
        (said.generation == generation && said.at.elapsed() < BELIEVED_FOR).then_some(said.nothing)
    }
}

impl Core {
    /// Takes the identity from entries whose attributes on `child` may be those of a copy that missed something: without
    /// it, the layers above look such a name up before they use it.
    pub(super) async fn distrust_entries(
        self: &Arc<Self>,
        ctx: &Context,
        dir: Gfid,
        open: Option<&Arc<OpenFd>>,
        child: SubvolId,
        reply: &mut ReaddirpReply,
    ) {
        let up = self.children.up();
        let is_arbiter = self.arbiters.as_ref().is_some_and(|arbiters| arbiters[child]);
        if ctx.pid.is_internal() || !is_arbiter && up.ids().all(|id| !up[id] || id == child) {
            return;
        }
        let generation = self.children.generation();
        if self.pending.is_nothing(generation).is_none() {
            // Its replies are what is wanted; without them every entry is looked at.
            drop(self.refresh(ctx, &self.inodes.get(dir), open).await);
        }
        if self.pending.is_nothing(generation) == Some(true) && !is_arbiter {
            return;
        }
        for entry in &mut reply.entries {
            if matches!(&entry.entry.name[..], b"." | b"..") || entry.stat.gfid.is_null() {
                continue;
            }
            let known = self.inodes.peek(entry.stat.gfid).and_then(|inode| inode.known(generation));
            let needs_data = entry.stat.file_type() == Some(FileType::Regular);
            let is_good = known
                .is_some_and(|known| known.readable.metadata[child] && (known.readable.data[child] || !needs_data));
            if !is_good {
                entry.stat.gfid = Gfid::NULL;
                if let Some(xdata) = &mut entry.xdata {
                    xdata.remove(keys::CONTENT);
                }
            }
        }
    }
}
