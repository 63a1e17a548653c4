//! Mounts a brick's directory without any network: `mountdir BRICK DIRECTORY`. What the adapter and the store do together
//! can be tried (pjdfstest, rates) before bricks and volumes come into it. Ends with umount(8).

use std::path::Path;
use std::sync::Arc;

use mortar_brick::store::{Store, StoreOptions, initialise};
use mortar_mount::mountpoint::Attachment;
use mortar_mount::options::{Face, Options, TRANSFER_BYTES_MAX};
use mortar_mount::running::Running;
use mortar_mount::source::Source;
use mortar_types::{Fops, Gfid};
use rustix::mount::MountFlags;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (brick, directory, list) = match &words[..] {
        [brick, directory] => (brick, directory, ""),
        [brick, directory, dash_o, list] if dash_o == "-o" => (brick, directory, list.as_str()),
        _ => return Err("usage: mountdir BRICK DIRECTORY [-o OPTIONS]".into()),
    };
    mortar_observe::init(None, mortar_observe::Level::Info)?;
    let mut options = Options::new(Face::Mortar, Source::File(brick.into()), brick, directory);
    for word in list.split(',').filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some((key, value)) => options.set(key, Some(value))?,
            None => options.set(word, None)?,
        }
    }
    options.complete();
    let mut id = [0_u8; 16];
    let volume_id = match rustix::fs::getxattr(Path::new(brick), "trusted.glusterfs.volume-id", &mut id[..]) {
        Ok(_) => Gfid(id),
        Err(_) => {
            let id = Gfid::random();
            initialise(Path::new(brick), id)?;
            id
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(options.threads).enable_all().build()?;
    runtime.block_on(async {
        let store: Arc<dyn Fops> = Store::open(StoreOptions::new(brick.as_str(), volume_id))?;
        let attachment = Attachment {
            source: brick.clone(),
            subtype: "mortar".into(),
            flags: MountFlags::empty(),
            allow_other: true,
            default_permissions: !options.config.acl,
            max_read: TRANSFER_BYTES_MAX,
            further: vec![],
        };
        let wishes = options.wishes();
        let running =
            Running::start(store, Gfid::ROOT, Path::new(directory), &attachment, options.config.clone(), &wishes)
                .await?;
        Ok(running.ended().await?)
    })
}
