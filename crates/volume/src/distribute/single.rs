//! One subvolume: everything goes to it, but directories get the layout xattr that GlusterFS's own clients expect on
//! each of them.

use std::sync::Arc;

use bytes::Bytes;
use mortar_types::{Context, Dict, Errno, Outcome, Reply, Request, Value, keys};

use super::is_own_key;
use super::subvols::Subvol;

/// The whole hash ring: commit hash 0, type 0, from 0 to the last (`dht-layout.c`, observed on 10.3).
const WHOLE_RING: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

pub(super) async fn call(child: &Arc<Subvol>, ctx: &Context, mut request: Request) -> Outcome<Reply> {
    match &mut request {
        Request::Mkdir(mkdir) => {
            let xdata = mkdir.xdata.get_or_insert_default();
            xdata.set(keys::XATTR_DHT, Value::Ptr(Bytes::from_static(&WHOLE_RING)));
        }
        // Layouts are not the users' to change.
        change if !ctx.pid.is_internal() && changes_layout(change) => return Err(Errno::EPERM.into()),
        _ => {}
    }
    let lists = matches!(request, Request::Getxattr(_) | Request::Fgetxattr(_));
    let mut reply = child.call(ctx, request).await?;
    if lists {
        hide_own_keys(ctx, &mut reply);
    }
    Ok(reply)
}

/// Takes the layer's xattrs out of a list for users.
pub(super) fn hide_own_keys(ctx: &Context, reply: &mut Reply) {
    if let (false, Reply::DictReply(reply)) = (ctx.pid.is_internal(), reply)
        && let Some(dict) = &mut reply.dict
    {
        dict.retain(|key, _| !is_own_key(key));
    }
}

pub(super) fn changes_layout(request: &Request) -> bool {
    let sets = |dict: &Option<Dict>| dict.as_ref().is_some_and(|dict| dict.keys().any(is_own_key));
    match request {
        Request::Setxattr(set) => sets(&set.dict),
        Request::Fsetxattr(set) => sets(&set.dict),
        Request::Removexattr(remove) => remove.name.starts_with(keys::XATTR_DHT.as_bytes()),
        Request::Fremovexattr(remove) => remove.name.starts_with(keys::XATTR_DHT.as_bytes()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use mortar_types::fop::{DictReply, Getxattr, Mkdir, Removexattr};
    use mortar_types::{Fops, Gfid, Pid};
    use parking_lot::Mutex;

    use super::super::{Distribute, Options};
    use super::*;

    #[derive(Default)]
    struct Child(Mutex<Vec<Request>>);

    #[async_trait]
    impl Fops for Child {
        async fn call(&self, _ctx: &Context, request: Request) -> Outcome<Reply> {
            self.0.lock().push(request);
            let dict = Dict::new().with(keys::XATTR_DHT, Value::ptr(vec![0])).with("user.a", Value::ptr(vec![1]));
            Ok(DictReply { len: 0, dict: Some(dict), xdata: None }.into())
        }
    }

    #[tokio::test]
    async fn a_directory_is_made_with_the_whole_ring() {
        let child = Arc::new(Child::default());
        let layer = Distribute::new("dht", vec![Arc::clone(&child) as Arc<dyn Fops>], Options::default());
        let mkdir = Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: Bytes::from_static(b"d"), xdata: None };
        let _ = layer.call(&Context::default(), mkdir.into()).await;
        let sent = child.0.lock();
        assert_eq!(sent[0].xdata().unwrap().get_bytes(keys::XATTR_DHT).unwrap()[..], WHOLE_RING);
    }

    #[tokio::test]
    async fn users_neither_see_nor_change_layouts() {
        let layer = Distribute::new("dht", vec![Arc::new(Child::default())], Options::default());
        let list: Request = Getxattr { gfid: Gfid::ROOT, name: None, xdata: None }.into();
        let remove: Request =
            Removexattr { gfid: Gfid::ROOT, name: Bytes::from_static(b"trusted.glusterfs.dht"), xdata: None }.into();
        let (user, healer) = (Context::default(), Context::internal(Pid::SELF_HEAL_DAEMON));
        let keys_seen = |reply| match reply {
            Ok(Reply::DictReply(DictReply { dict: Some(dict), .. })) => dict.keys().count(),
            other => panic!("{other:?}"),
        };
        assert_eq!(keys_seen(layer.call(&user, list.clone()).await), 1);
        assert_eq!(keys_seen(layer.call(&healer, list).await), 2);
        assert_eq!(layer.call(&user, remove.clone()).await, Err(Errno::EPERM.into()));
        assert!(layer.call(&healer, remove).await.is_ok());
    }
}
