//! Open files over a change.

use mortar_types::fop::{Fstat, Fsync, Open, Release, Setattr, Unlink, setattr_valid};
use mortar_types::{Context, Errno, Iatt};

use super::bricks::{Client, Local, volfile};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_is_used_in_the_changed_volume_and_closed_in_the_old_one() {
    let Some([one, two]) = Local::several() else { return };
    let client = Client::new(&volfile(&[&one], &[])).await;
    let file = client.create("f").await;
    client.write(file.stat.gfid, file.fd, 0, b"before").await.unwrap();
    one.accuse(&super::bricks::key(&two));
    client.take(&volfile(&[&one, &two], &[])).await;
    client.write(file.stat.gfid, file.fd, 6, b" and after").await.unwrap();
    assert_eq!(&client.read(file.stat.gfid, file.fd).await.unwrap()[..], b"before and after");
    client.take(&volfile(&[&one], &[("performance/quick-read", "cache-timeout", "7")])).await;
    assert_eq!(&client.read(file.stat.gfid, file.fd).await.unwrap()[..], b"before and after");
    let (gfid, fd, xdata) = (file.stat.gfid, file.fd, None);
    client.top.fop(&Context::default(), Release { gfid, fd, xdata: None }).await.unwrap();
    assert_eq!(client.read(gfid, fd).await, Err(Errno::EBADF.into()));
    assert_eq!(
        client.top.fop(&Context::default(), Fstat { gfid, fd, xdata }).await.map(drop),
        Err(Errno::EBADF.into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_file_without_a_name_stays_open() {
    let Some([one, two]) = Local::several() else { return };
    let client = Client::new(&volfile(&[&one], &[])).await;
    let file = client.create("f").await;
    let (gfid, fd) = (file.stat.gfid, file.fd);
    client.write(gfid, fd, 0, b"contents").await.unwrap();
    let unlink = Unlink { parent: mortar_types::Gfid::ROOT, name: "f".into(), flags: 0, xdata: None };
    client.top.fop(&Context::default(), unlink).await.unwrap();
    one.accuse(&super::bricks::key(&two));
    client.take(&volfile(&[&one, &two], &[])).await;
    assert_eq!(&client.read(gfid, fd).await.unwrap()[..], b"contents");
    client.write(gfid, fd, 8, b"!").await.unwrap();
    client.top.fop(&Context::default(), Fsync { gfid, fd, datasync: 0, xdata: None }).await.unwrap();
    assert_eq!(&client.read(gfid, fd).await.unwrap()[..], b"contents!");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_stays_open_for_who_may_not_open_it_any_more() {
    let Some([one]) = Local::several() else { return };
    let client = Client::new(&volfile(&[&one], &[])).await;
    let file = client.create("f").await;
    let gfid = file.stat.gfid;
    client.write(gfid, file.fd, 0, b"contents").await.unwrap();
    let user = Context { uid: 1000, gid: 1000, ..Context::default() };
    let fd = client.top.fop(&user, Open { gfid, flags: 0, xdata: None }).await.unwrap().fd;
    let stat = Iatt { mode: 0o100_000, ..Iatt::default() };
    let setattr = Setattr { gfid, stat, valid: setattr_valid::MODE, xdata: None };
    client.top.fop(&Context::default(), setattr).await.unwrap();
    client.take(&volfile(&[&one], &[("performance/quick-read", "cache-timeout", "7")])).await;
    assert_eq!(&client.read(gfid, fd).await.unwrap()[..], b"contents");
    assert!(client.top.fop(&user, Open { gfid, flags: 0, xdata: None }).await.is_err());
}
