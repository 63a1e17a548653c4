//! A listing that is under way while the volume changes.

use mortar_types::Context;
use mortar_types::fop::{Opendir, Readdir};
use mortar_types::{Fd, Gfid};

use super::bricks::{Client, Local, volfile};

async fn page(client: &Client, fd: Fd, offset: u64) -> Vec<(String, u64)> {
    let request = Readdir { gfid: Gfid::ROOT, fd, offset, size: 700, xdata: None };
    let reply = client.top.fop(&Context::default(), request).await.unwrap();
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
    reply.entries.iter().map(|entry| (name(&entry.name), entry.offset)).collect()
}

async fn rest(client: &Client, fd: Fd, mut offset: u64, names: &mut Vec<String>) {
    loop {
        let entries = page(client, fd, offset).await;
        let Some(last) = entries.last() else { return };
        offset = last.1;
        names.extend(entries.into_iter().map(|(name, _)| name));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_is_listed_once() {
    let Some([one]) = Local::several() else { return };
    let (plain, other) = (volfile(&[&one], &[]), volfile(&[&one], &[("features/read-only", "read-only", "on")]));
    let client = Client::new(&plain).await;
    let mut expected = Vec::new();
    for number in 0..120 {
        let name = format!("file-{number}");
        client.create(&name).await;
        expected.push(name);
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    let fd = client.top.fop(&Context::default(), Opendir { gfid: Gfid::ROOT, xdata: None }).await.unwrap().fd;
    let mut names: Vec<String> = Vec::new();
    let mut offset = 0;
    // A change after every page.
    for round in 0.. {
        let entries = page(&client, fd, offset).await;
        let Some(last) = entries.last() else { break };
        offset = last.1;
        names.extend(entries.into_iter().map(|(name, _)| name));
        client.take(if round % 2 == 0 { &other } else { &plain }).await;
    }
    names.sort();
    names.retain(|name| !name.starts_with(".glusterfs"));
    assert_eq!(names, expected);
    // From the start again: everything once more.
    let mut again = Vec::new();
    rest(&client, fd, 0, &mut again).await;
    again.sort();
    again.retain(|name| !name.starts_with(".glusterfs"));
    assert_eq!(again, expected);
}
