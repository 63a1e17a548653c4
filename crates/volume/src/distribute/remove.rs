//! UNLINK: the data first, then what points to it (`dht-common.c` dht_unlink).

use std::sync::Arc;

use mortar_logic::distribute::{linkto, merge};
use mortar_types::fop::{ChangeReply, Lookup, Unlink};
use mortar_types::{Context, Dict, Errno, Failure, Gfid, Outcome, Reply, Value};

use super::Core;
use super::dir::nameless;
use super::known::Hint;
use super::subvols::Subvol;

const ATTEMPTS_MAX: usize = 3;
/// Asks a brick for the attributes of what it removed.
const IATT_IN_XATTR: &str = "dht-get-iatt-in-xattr";

impl Core {
    pub(super) async fn unlink(self: &Arc<Self>, ctx: &Context, request: Unlink) -> Outcome<Reply> {
        let name = (request.parent, request.name.clone());
        let mut last = Failure::from(Errno::ENOENT);
        for attempt in 0..ATTEMPTS_MAX {
            let hint = self.memories.names.get(&name).filter(|_| attempt == 0);
            let cached = match hint {
                Some(Hint { cached, .. }) => cached,
                None => {
                    let lookup = Lookup { parent: name.0, name: name.1.clone(), ..nameless(Gfid::NULL) };
                    self.find(ctx, &lookup).await?.cached
                }
            };
            let Some(cached) = cached else {
                if attempt == 0 {
                    continue;
                }
                return Err(Errno::EISDIR.into());
            };
            match self.unlink_at(ctx, &cached, &request).await {
                // What is remembered was wrong: the file has moved, or was a link file and is not any more.
                Err(failure) if matches!(failure.errno, Errno::ENOENT | Errno::ESTALE) => last = failure,
                Ok(None) => last = Errno::EIO.into(),
                Ok(Some(mut reply)) => {
                    self.unlink_pointer(ctx, &request, &cached).await;
                    self.memories.names.remove(&name);
                    merge::shown(&mut reply.pre);
                    merge::shown(&mut reply.post);
                    return Ok(reply.into());
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    /// `None`: a link file was removed, the data is elsewhere by now.
    async fn unlink_at(&self, ctx: &Context, at: &Arc<Subvol>, request: &Unlink) -> Outcome<Option<ChangeReply>> {
        let mut request = request.clone();
        request.xdata.get_or_insert_with(Dict::new).set(IATT_IN_XATTR, Value::Int(1));
        let reply = at.fop(ctx, request).await?;
        let victim = reply.xdata.as_ref().and_then(|xdata| xdata.get(IATT_IN_XATTR)).and_then(Value::as_iatt);
        let was_link = victim.is_some_and(|stat| linkto::may_be_link(stat) && stat.size == 0);
        if was_link && self.is_still_elsewhere(ctx, victim.map_or(Gfid::NULL, |stat| stat.gfid)).await {
            return Ok(None);
        }
        Ok(Some(reply))
    }

    /// Whether the file that was perhaps only pointed to is there.
    async fn is_still_elsewhere(&self, ctx: &Context, gfid: Gfid) -> bool {
        let set = self.set();
        let replies = self.look_everywhere(&super::internal(ctx), &set, &nameless(gfid), None).await;
        let is_data =
            |reply: &mortar_types::fop::LookupReply| linkto::target(&reply.stat, reply.xdata.as_ref()).is_none();
        replies.iter().any(|(_, reply)| matches!(reply, Some(Ok(reply)) if is_data(reply)))
    }

    /// Link files to what is gone; a failure leaves one that the next lookup finds stale.
    async fn unlink_pointer(self: &Arc<Self>, ctx: &Context, request: &Unlink, cached: &Arc<Subvol>) {
        let Ok(dir) = self.dir(ctx, request.parent).await else { return };
        let Some(hashed) = dir.hashed(&request.name) else { return };
        let hashed = dir.set.get(hashed);
        if Arc::ptr_eq(hashed, cached) {
            return;
        }
        let gone = self.unlink_link(&super::internal(ctx), hashed, request.parent, &request.name, false).await;
        if let Err(failure) = gone
            && failure.errno != Errno::ENOENT
        {
            tracing::debug!(parent = %request.parent, errno = %failure.errno, "a link file stays behind");
        }
    }
}
