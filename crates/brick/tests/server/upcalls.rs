//! Cache invalidation on the wire.

use mortar_brick::upcall::flags;
use mortar_types::fop::{Stat, Write};
use mortar_types::{Gfid, Upcall};

use crate::brick::{Directory, Local};
use crate::client::{Client, name_of};

#[tokio::test]
async fn a_viewer_hears_of_another_clients_write_and_the_writer_does_not() {
    let Some(directory) = Directory::new("upcall") else { return };
    let local = Local::start(&directory.volfile(&[("features/upcall", "cache-invalidation", "on")]));
    let mut viewer = Client::mount(local.address, &directory).await;
    let mut writer = Client::mount(local.address, &directory).await;
    let file = writer.create(Gfid::ROOT, "a").await.unwrap();
    let gfid = file.stat.gfid;
    viewer.fop(Stat { gfid, xdata: None }).await.unwrap();
    let data = name_of("hello");
    writer.fop(Write { gfid, fd: file.fd, offset: 0, flags: 0, data, xdata: None }).await.unwrap();
    let Some(Upcall::CacheInvalidation { gfid: told, flags: bits, stat, .. }) = viewer.upcalls.recv().await else {
        panic!("another upcall");
    };
    assert_eq!((told, bits, stat.size), (gfid, flags::SIZE | flags::TIMES, 5));
    assert!(writer.upcalls.try_recv().is_err());
}
