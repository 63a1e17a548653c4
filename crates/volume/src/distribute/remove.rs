//! UNLINK: the data first, then what points to it (`dht-common.c` dht_unlink).

use std::sync::Arc;

use mortar_logic::distribute::{linkto, merge};
use mortar_types::fop::{ChangeReply, Lookup, LookupReply, Unlink};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Outcome, Reply, Value};

use super::Core;
use super::attempts::Attempts;
use super::dir::nameless;
use super::known::Hint;
use super::lock::Ask;
use super::subvols::Subvol;

/// Asks a brick for the attributes of what it removed.
const IATT_IN_XATTR: &str = "dht-get-iatt-in-xattr";

/// What an unlink at one subvolume removed.
enum Removed {
    File(Box<ChangeReply>),
    /// Only what pointed to the file, which has moved to `data`.
    Link {
        gfid: Gfid,
        data: Arc<Subvol>,
    },
}

impl Core {
    pub(super) async fn unlink(self: &Arc<Self>, ctx: &Context, request: Unlink) -> Outcome<Reply> {
        let name = (request.parent, request.name.clone());
        let mut last = Failure::from(Errno::ENOENT);
        let mut moved_to: Option<Hint> = None;
        let mut attempts = Attempts::default();
        while let Some(attempt) = attempts.next().await {
            let hint = self.memories.names.get(&name).filter(|_| attempt == 0);
            let Hint { gfid, cached } = match moved_to.take().or(hint) {
                Some(hint) => hint,
                None => {
                    let lookup = Lookup { parent: name.0, name: name.1.clone(), ..nameless(Gfid::NULL) };
                    let entry = self.find(ctx, &lookup).await?;
                    Hint { gfid: entry.reply.stat.gfid, cached: entry.cached }
                }
            };
            let Some(cached) = cached else {
                if attempt == 0 {
                    continue;
                }
                return Err(Errno::EISDIR.into());
            };
            match self.unlink_name(ctx, gfid, &cached, &request).await {
                // What is remembered was wrong: the file has moved, or is another one.
                Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => last = failure,
                Ok(Removed::Link { gfid, data }) => moved_to = Some(Hint { gfid, cached: Some(data) }),
                Ok(Removed::File(mut reply)) => {
                    self.memories.names.remove(&name);
                    merge::shown(&mut reply.pre);
                    merge::shown(&mut reply.post);
                    return Ok((*reply).into());
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// Data at its hashed subvolume is one unlink. Elsewhere there are two, between which nobody may give the name to
    /// another file: its pointer would be taken for this one's.
    async fn unlink_name(
        self: &Arc<Self>,
        ctx: &Context,
        gfid: Gfid,
        cached: &Arc<Subvol>,
        request: &Unlink,
    ) -> Outcome<Removed> {
        let (parent, name) = (request.parent, &request.name);
        let dir = self.dir(ctx, parent).await?;
        let hashed = dir.hashed(name).map(|id| dir.set.get(id)).filter(|hashed| !Arc::ptr_eq(hashed, cached));
        let Some(hashed) = hashed else { return self.unlink_at(ctx, cached, request).await };
        let root = super::internal(ctx);
        // The file first, as a rename does: a brick lets nobody remove a file that another client has locked.
        let asks = [Ask::migrate(Arc::clone(cached), gfid)].into_iter().chain(Ask::namespace(hashed, parent, name));
        let _held = self.lock(&root, asks).await?;
        let lookup = Lookup { parent, name: name.clone(), xdata: super::dir::ask(None), ..nameless(Gfid::NULL) };
        let looks = futures::future::join(cached.fop(&root, lookup.clone()), hashed.fop(&root, lookup));
        let (data, pointer) = looks.await;
        if data?.stat.gfid != gfid {
            return Err(Errno::ENOENT.into());
        }
        let pointed = match pointer {
            Ok(reply) => match linkto::target(&reply.stat, reply.xdata.as_ref()) {
                Some(target) if target == cached.name && reply.stat.gfid == gfid => true,
                // Another file has the name by now.
                _ => return Err(Errno::ENOENT.into()),
            },
            Err(failure) if failure.errno == Errno::ENOENT => false,
            Err(failure) => return Err(failure),
        };
        let removed = self.unlink_at(ctx, cached, request).await?;
        if pointed
            && matches!(removed, Removed::File(_))
            && let Err(failure) = self.unlink_link(&root, hashed, parent, name, false).await
        {
            // The next lookup finds it stale.
            tracing::debug!(%parent, errno = %failure.errno, "a link file stays behind");
        }
        Ok(removed)
    }

    async fn unlink_at(&self, ctx: &Context, at: &Arc<Subvol>, request: &Unlink) -> Outcome<Removed> {
        let mut request = request.clone();
        request.xdata.get_or_insert_with(Dict::new).set(IATT_IN_XATTR, Value::Int(1));
        let reply = at.fop(ctx, request).await?;
        let victim = reply.xdata.as_ref().and_then(|xdata| xdata.get(IATT_IN_XATTR)).and_then(Value::as_iatt);
        let link = victim.filter(|stat| linkto::may_be_link(stat) && stat.size == 0).map(|stat| stat.gfid);
        if let Some(gfid) = link
            && let Some(data) = self.elsewhere(ctx, gfid).await
        {
            return Ok(Removed::Link { gfid, data });
        }
        Ok(Removed::File(Box::new(reply)))
    }

    /// Where the file is that was perhaps only pointed to.
    async fn elsewhere(&self, ctx: &Context, gfid: Gfid) -> Option<Arc<Subvol>> {
        let set = self.set();
        let replies = self.look_everywhere(&super::internal(ctx), &set, &nameless(gfid), None).await;
        let is_data = |reply: &LookupReply| linkto::target(&reply.stat, reply.xdata.as_ref()).is_none();
        let found = replies.iter().find(|(_, reply)| matches!(reply, Some(Ok(reply)) if is_data(reply)));
        found.map(|(id, _)| Arc::clone(set.get(id)))
    }
}
