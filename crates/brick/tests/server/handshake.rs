//! SETVOLUME's answers, and what is served before it.

use mortar_rpc::client::CallError;
use mortar_types::fop::Stat;
use mortar_types::{Dict, Errno, FopKind, Gfid, Value};
use mortar_wire::handshake::{CommonReply, GetspecReply, GetspecRequest, SetvolumeReply};
use mortar_wire::header::ReplyStatus;
use mortar_wire::message::Message as _;
use mortar_wire::programs::{FOP, handshake};

use crate::brick::{Directory, Local, VOLUME_ID};
use crate::client::{Client, params, procedure};

fn text(reply: SetvolumeReply) -> (i32, i32, String) {
    let error = reply.dict.into_dict().get_str("ERROR").unwrap_or_default().to_owned();
    (reply.op_ret, reply.op_errno, error)
}

async fn answers(local: &Local, params: &Dict) -> (i32, i32, String) {
    text(Client::connect(local.address).await.setvolume(params).await)
}

#[tokio::test]
async fn refusals_have_the_texts_of_a_real_brick() {
    let Some(directory) = Directory::new("texts") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let without = |key| {
        let mut params = params(&directory);
        params.remove(key);
        params
    };
    let with = |key: &'static str, value: &str| params(&directory).with(key, Value::str(value));
    let cases = [
        (without("remote-subvolume"), Errno::EINVAL, "No remote-subvolume option specified"),
        (without("process-uuid"), Errno::EINVAL, "UUID not specified"),
        (without("fops-version"), Errno::EINVAL, "version mismatch: client(0) - client-mgmt(0)"),
        (with("fops-version", "1"), Errno::EINVAL, "version mismatch: client(1) - client-mgmt(0)"),
        (with("remote-subvolume", "/nope"), Errno::ENOENT, "Brick not found"),
        (
            with("volume-id", "00000000-0000-0000-0000-000000000009"),
            Errno::EINVAL,
            "Volume-ID different, possible case of same brick re-used in another volume",
        ),
        (with("subdir-mount", "/nope"), Errno::ENOENT, "subdirectory for mount \"/nope\" is not found"),
    ];
    for (params, errno, expected) in cases {
        assert_eq!(answers(&local, &params).await, (-1, errno.0, expected.to_owned()));
    }
}

#[tokio::test]
async fn a_success_names_the_volume() {
    let Some(directory) = Directory::new("success") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let reply = Client::connect(local.address).await.setvolume(&params(&directory)).await;
    assert_eq!(reply.op_ret, 0);
    let dict = reply.dict.into_dict();
    assert_eq!(dict.get_str("ERROR"), Some("Success"));
    assert_eq!(dict.get_str("volume-id"), Some(VOLUME_ID));
    assert_eq!(dict.get_i64("child_up"), Some(1));
}

#[tokio::test]
async fn fops_before_the_handshake_are_garbage() {
    let Some(directory) = Directory::new("before") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::connect(local.address).await;
    let early = client.try_fop(Stat { gfid: Gfid::ROOT, xdata: None }).await;
    assert_eq!(early.unwrap_err(), CallError::Refused(ReplyStatus::GarbageArgs));
    client.setvolume(&params(&directory)).await;
    client.fop(Stat { gfid: Gfid::ROOT, xdata: None }).await.unwrap();
}

#[tokio::test]
async fn procedures_that_do_not_exist_are_unavailable() {
    let Some(directory) = Directory::new("unknown") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::mount(local.address, &directory).await;
    let call = async |number| {
        let procedure = mortar_rpc::Procedure::new(FOP.number, FOP.version, number);
        client.message::<CommonReply>(procedure, &CommonReply::default()).await.unwrap_err()
    };
    assert_eq!(FopKind::from_number(200), None);
    assert_eq!(call(200).await, CallError::Refused(ReplyStatus::ProcUnavail));
    assert_eq!(call(49).await, CallError::Refused(ReplyStatus::GarbageArgs));
}

#[tokio::test]
async fn getspec_is_not_served_and_ping_is() {
    let Some(directory) = Directory::new("getspec") else { return };
    let local = Local::start(&directory.volfile(&[]));
    let client = Client::connect(local.address).await;
    let request = GetspecRequest { key: "imap0".to_owned(), ..GetspecRequest::default() };
    let reply: GetspecReply = client.message(procedure(handshake::GETSPEC), &request).await.unwrap();
    assert_eq!((reply.op_ret, reply.op_errno), (-1, Errno::ENOSYS.0));
    let mut ping = mortar_wire::xdr::Writer::new();
    ping.u32(0);
    let call = client.connection.call(
        procedure(handshake::PING),
        mortar_rpc::AuthKind::V3,
        &client.ctx,
        ping.into_inner(),
        None,
    );
    assert_eq!(CommonReply::decode(call.await.unwrap()).unwrap(), CommonReply::default());
}

#[tokio::test]
async fn rules_decide_and_changed_rules_disconnect() {
    let Some(directory) = Directory::new("auth") else { return };
    let allow = |list| directory.volfile(&[("protocol/server", "auth.addr.BRICK.allow", list)]);
    let local = Local::start(&allow("10.9.9.9"));
    let refused = (-1, Errno::EACCES.0, "Authentication failed".to_owned());
    assert_eq!(answers(&local, &params(&directory)).await, refused);

    let options = |list| mortar_brick::options::BrickOptions::from_volfile(&allow(list), None).unwrap().server;
    local.brick.reconfigure(options("127.*")).await;
    let client = Client::mount(local.address, &directory).await;
    assert_eq!(local.brick.clients().len(), 1);
    local.brick.reconfigure(options("10.9.9.9")).await;
    let ended = client.try_fop(Stat { gfid: Gfid::ROOT, xdata: None }).await;
    assert_eq!(ended.unwrap_err(), CallError::Disconnected);
}
