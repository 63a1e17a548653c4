//! Port 24007 as GlusterFS's clients know it, over a real connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_api::volume::{GetSpec, Set, Start, Status};
use mortar_rpc::client::{CloseReason, Connection, Events, Options};
use mortar_rpc::{AuthKind, Endpoint, Procedure, dump};
use mortar_types::{Context, Dict, Errno, Value};
use mortar_wire::handshake::{DumpReply, GetVolumeInfoReply, GetVolumeInfoRequest, GetspecReply, GetspecRequest};
use mortar_wire::message::Message;
use mortar_wire::portmap::{
    BrickByPortReply, BrickByPortRequest, PortByBrickReply, PortByBrickRequest, SignInRequest, SignReply,
};
use mortar_wire::programs::{self, Program};
use mortar_wire::xdr::Writer;
use tokio::sync::Notify;

use crate::cluster::{Node, replica_2, wait_for};

/// A mount's connection to the daemon.
struct Client {
    connection: Arc<Connection>,
    news: Arc<News>,
}

#[derive(Default)]
struct News {
    fetchspec: Notify,
}

impl Events for News {
    fn callback(&self, procedure: Procedure, body: Bytes) {
        let expected = (programs::CALLBACK.number, programs::callback::FETCHSPEC);
        assert_eq!((procedure.program, procedure.number), expected);
        assert!(body.is_empty());
        self.fetchspec.notify_one();
    }

    fn closed(&self, _reason: &CloseReason) {}
}

impl Client {
    async fn connect(node: &Node) -> Self {
        let endpoint = Endpoint::Address(SocketAddr::new(node.address, node.port()));
        let news = Arc::new(News::default());
        let connection = Connection::connect(&endpoint, Options::default(), Arc::clone(&news) as Arc<dyn Events>).await;
        Self { connection: connection.expect("24007 answers"), news }
    }

    async fn call<Q: Message, A: Message>(&self, program: Program, number: u32, request: &Q) -> A {
        let mut body = Writer::new();
        request.encode(&mut body);
        let procedure = Procedure::new(program.number, program.version, number);
        let context = Context::default();
        let answer = self.connection.call(procedure, AuthKind::V2, &context, body.into_inner(), None).await;
        A::decode(answer.expect("a reply")).expect("the reply's shape")
    }

    async fn getspec(&self, key: &str) -> GetspecReply {
        let request = GetspecRequest { flags: 1, key: key.to_owned(), xdata: Dict::new().into() };
        self.call(programs::HANDSHAKE, programs::handshake::GETSPEC, &request).await
    }

    async fn port_of(&self, brick: &str) -> PortByBrickReply {
        let request = PortByBrickRequest { brick: brick.to_owned() };
        self.call(programs::PORTMAP, programs::portmap::PORT_BY_BRICK, &request).await
    }
}

fn ping_timeout(seconds: &str) -> Set {
    Set { name: "imap0".to_owned(), options: vec![("network.ping-timeout".to_owned(), seconds.to_owned())] }
}

#[tokio::test(flavor = "multi_thread")]
async fn volfiles_are_served_and_changes_told() {
    let first = Node::up("127.78.21.1", 34310).await;
    let second = Node::up("127.78.21.2", 34310).await;
    first.probe(&second).await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    let client = Client::connect(&first).await;
    let reply = client.getspec("/imap0").await;
    let spec = first.must(&GetSpec { volfile_id: "imap0".to_owned() }).await;
    assert_eq!((reply.op_ret, &reply.spec), (i32::try_from(spec.len()).expect("is short"), &spec));
    assert!(spec.contains("option password"), "this machine is trusted");
    let servers = reply.xdata.into_dict();
    assert_eq!(servers.get_str("cluster.brick-vol-servers"), Some("127.78.21.2:34310 "));
    let other = Client::connect(&second).await;
    assert_eq!(other.getspec("imap0").await.spec, spec, "the same text from every server");

    first.must(&ping_timeout("20")).await;
    for told in [&client, &other] {
        tokio::time::timeout(Duration::from_secs(3), told.news.fetchspec.notified()).await.expect("FETCHSPEC comes");
        assert!(told.getspec("imap0").await.spec.contains("option ping-timeout 20"));
    }
    let reply = client.getspec("nosuch").await;
    assert_eq!((reply.op_ret, reply.op_errno, reply.spec.as_str()), (-1, Errno::ENOENT.0, ""));
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volfiles_and_ports_are_there_at_once_after_a_restart_without_quorum() {
    let mut first = Node::up("127.78.22.1", 34320).await;
    let mut second = Node::up("127.78.22.2", 34320).await;
    first.probe(&second).await;
    first.must(&replica_2("imap0", [first.brick("b"), second.brick("b")])).await;
    first.must(&Start { name: "imap0".to_owned(), force: false }).await;
    let brick = first.brick("b").path;
    let port = Client::connect(&first).await.port_of(&brick).await.port;
    second.stop().await;
    first.stop().await;
    first.start().await;
    let client = Client::connect(&first).await;
    assert!(client.getspec("imap0").await.op_ret > 0);
    wait_for("the brick to be adopted", Duration::from_secs(3), async || client.port_of(&brick).await.port == port)
        .await;
    second.start().await;
    first.end().await;
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portmap() {
    let node = Node::up("127.78.23.1", 34330).await;
    node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    let client = Client::connect(&node).await;
    let brick = node.brick("a").path;
    let none = client.port_of(&brick).await;
    assert_eq!((none.op_ret, none.port), (-1, 0), "the volume is not started");

    node.must(&Start { name: "imap0".to_owned(), force: false }).await;
    let request = Status { name: Some("imap0".to_owned()), brick: None, detail: false, clients: false };
    let shown = node.must(&request).await.remove(0).processes[0].port.map(i32::from);
    let found = client.port_of(&brick).await;
    assert_eq!((found.op_ret, Some(found.port)), (0, shown));
    let request = BrickByPortRequest { port: found.port };
    let back: BrickByPortReply = client.call(programs::PORTMAP, programs::portmap::BRICK_BY_PORT, &request).await;
    assert_eq!(back.brick, brick);

    // A brick that signs in itself is known as long as its connection lasts.
    let process = Client::connect(&node).await;
    let request = SignInRequest { brick: "/other".to_owned(), port: 49999, pid: 1 };
    let signed: SignReply = process.call(programs::PORTMAP, programs::portmap::SIGN_IN, &request).await;
    assert_eq!(signed.op_ret, 0);
    assert_eq!(client.port_of("/other").await.port, 49999);
    process.connection.close();
    wait_for("the registration to end", Duration::from_secs(2), async || client.port_of("/other").await.port == 0)
        .await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_handshake() {
    let node = Node::up("127.78.24.1", 34340).await;
    let created = node.must(&replica_2("imap0", [node.brick("a"), node.brick("b")])).await;
    let client = Client::connect(&node).await;
    let dict = Dict::new().with("flags", Value::str("1")).with("volname", Value::str("imap0"));
    let request = GetVolumeInfoRequest { dict: dict.into() };
    let reply: GetVolumeInfoReply =
        client.call(programs::HANDSHAKE, programs::handshake::GET_VOLUME_INFO, &request).await;
    let dict = reply.dict.into_dict();
    assert_eq!((reply.op_ret, dict.get_str("volume_id")), (0, Some(created.id.to_string().as_str())));

    let mut body = Writer::new();
    body.u64(0);
    let answer = client.connection.call(dump::DUMP, AuthKind::V2, &Context::default(), body.into_inner(), None).await;
    let listed = DumpReply::decode(answer.expect("a reply")).expect("the reply's shape");
    assert!(listed.has(programs::PORTMAP), "by this a client knows a daemon");
    assert!(listed.has(programs::HANDSHAKE) && !listed.has(programs::FOP));
    node.end().await;
}
