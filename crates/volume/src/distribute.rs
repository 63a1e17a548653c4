//! Distribution over one subvolume (GlusterFS's `cluster/distribute`): everything goes to it, but directories get the
//! layout xattr that GlusterFS's own clients expect on each of them.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use mortar_types::{Context, Dict, Errno, Fops, Outcome, Reply, Request, UpcallSink, Value, keys};

/// The whole hash ring: commit hash 0, type 0, from 0 to the last (`dht-layout.c`, observed on 10.3).
const WHOLE_RING: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

pub struct Distribute {
    name: String,
    child: Arc<dyn Fops>,
}

impl Distribute {
    pub fn new(name: impl Into<String>, child: Arc<dyn Fops>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), child })
    }
}

#[async_trait]
impl Fops for Distribute {
    async fn call(&self, ctx: &Context, mut request: Request) -> Outcome<Reply> {
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
        let mut reply = self.child.call(ctx, request).await?;
        if let (true, Reply::DictReply(reply)) = (lists && !ctx.pid.is_internal(), &mut reply)
            && let Some(dict) = &mut reply.dict
        {
            dict.retain(|key, _| !is_layout(key));
        }
        Ok(reply)
    }

    fn subscribe(&self, sink: Arc<dyn UpcallSink>) {
        self.child.subscribe(sink);
    }

    fn is_up(&self) -> bool {
        self.child.is_up()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The layout and its companions (`.mds`, `.linkto`, …).
fn is_layout(key: &str) -> bool {
    key.starts_with(keys::XATTR_DHT)
}

fn changes_layout(request: &Request) -> bool {
    let sets = |dict: &Option<Dict>| dict.as_ref().is_some_and(|dict| dict.keys().any(is_layout));
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
    use mortar_types::fop::{DictReply, Getxattr, Mkdir, Removexattr};
    use mortar_types::{Gfid, Pid};
    use parking_lot::Mutex;

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
        let layer = Distribute::new("dht", Arc::clone(&child) as Arc<dyn Fops>);
        let mkdir = Mkdir { parent: Gfid::ROOT, mode: 0o755, umask: 0, name: Bytes::from_static(b"d"), xdata: None };
        let _ = layer.call(&Context::default(), mkdir.into()).await;
        let sent = child.0.lock();
        assert_eq!(sent[0].xdata().unwrap().get_bytes(keys::XATTR_DHT).unwrap()[..], WHOLE_RING);
    }

    #[tokio::test]
    async fn users_neither_see_nor_change_layouts() {
        let layer = Distribute::new("dht", Arc::new(Child::default()));
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
