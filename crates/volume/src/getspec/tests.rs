//! The follower against volfile servers of this process.

use async_trait::async_trait;
use bytes::BytesMut;
use mortar_rpc::server::{self, IncomingCall, Listener, Program, Response, Service, Session};
use parking_lot::Mutex;

use super::*;

#[derive(Default)]
struct Glusterd {
    volfile: Mutex<Option<&'static str>>,
    others: Mutex<String>,
    asked: Mutex<Vec<GetspecRequest>>,
    connections: Mutex<Vec<Arc<server::Connection>>>,
}

struct Shared(Arc<Glusterd>);

impl Service for Shared {
    fn connected(&self, connection: Arc<server::Connection>) -> Arc<dyn Session> {
        self.0.connections.lock().push(connection);
        Arc::new(Self(Arc::clone(&self.0)))
    }
}

#[async_trait]
impl Session for Shared {
    fn programs(&self) -> &[Program] {
        &[programs::GLUSTERD_HANDSHAKE, programs::PORTMAP]
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        self.0.asked.lock().push(GetspecRequest::decode(call.body).unwrap());
        let reply = match *self.0.volfile.lock() {
            Some(text) => {
                let others = Dict::new().with("cluster.brick-vol-servers", Value::str(self.0.others.lock().clone()));
                GetspecReply { op_ret: text.len() as i32, op_errno: 0, spec: text.into(), xdata: others.into() }
            }
            None => GetspecReply { op_ret: -1, op_errno: Errno::ENOENT.0, ..GetspecReply::default() },
        };
        let mut out = Writer::new();
        reply.encode(&mut out);
        Response::success(out.into_inner())
    }

    fn disconnected(&self) {}
}

struct Running {
    glusterd: Arc<Glusterd>,
    endpoint: Endpoint,
    port: u16,
    server: server::Server,
}

fn start(volfile: Option<&'static str>) -> Running {
    let glusterd = Arc::new(Glusterd { volfile: Mutex::new(volfile), ..Glusterd::default() });
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_address().unwrap().port();
    let server = listener.serve(Arc::new(Shared(Arc::clone(&glusterd))), server::Options::default());
    Running { glusterd, endpoint: Endpoint::Host { host: "127.0.0.1".into(), port }, port, server }
}

fn nobody() -> Endpoint {
    Endpoint::Address("127.0.0.1:1".parse().unwrap())
}

async fn connect(servers: impl Into<Vec<Endpoint>>) -> Result<VolfileServer, GetspecError> {
    VolfileServer::connect(Options::new(servers.into(), "/imap0")).await
}

async fn wait_for(volfile: &mut watch::Receiver<Arc<str>>, text: &str) {
    let found = volfile.wait_for(|now| **now == *text);
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("in time").unwrap();
}

#[tokio::test]
async fn the_first_server_that_has_the_volume_gives_it() {
    let running = start(Some("one"));
    let server = connect([nobody(), running.endpoint.clone()]).await.unwrap();
    assert_eq!(**server.volfile().borrow(), *"one");
    let asked = running.glusterd.asked.lock()[0].clone();
    assert_eq!((asked.flags, asked.key.as_str()), (1, "/imap0"));
    assert_eq!(asked.xdata.into_dict().get_str("max-op-version"), Some("100000"));
}

#[tokio::test]
async fn the_most_telling_error_is_returned() {
    let running = start(None);
    let error = connect([running.endpoint.clone(), nobody()]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("volfile server 127.0.0.1:{} has no volume /imap0", running.port));
    let error = connect([nobody()]).await.unwrap_err();
    assert!(matches!(error, GetspecError::Unreachable { .. }), "{error}");
    assert_eq!(connect([]).await.unwrap_err(), GetspecError::NoServer);
}

#[tokio::test]
async fn a_change_is_fetched_when_the_server_calls() {
    let running = start(Some("one"));
    let server = connect([running.endpoint.clone()]).await.unwrap();
    let mut volfile = server.volfile();
    *running.glusterd.volfile.lock() = Some("two");
    let (number, version) = (programs::CALLBACK.number, programs::CALLBACK.version);
    let fetchspec = Procedure::new(number, version, programs::callback::FETCHSPEC);
    running.glusterd.connections.lock()[0].callback(fetchspec, BytesMut::new());
    wait_for(&mut volfile, "two").await;
    // The same text again is no news.
    volfile.mark_unchanged();
    running.glusterd.connections.lock()[0].callback(fetchspec, BytesMut::new());
    while running.glusterd.asked.lock().len() < 3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!volfile.has_changed().unwrap());
}

#[tokio::test]
async fn a_server_that_was_only_named_by_another_takes_over() {
    let (one, two) = (start(Some("one")), start(Some("two")));
    *one.glusterd.others.lock() = format!("127.0.0.1:{} nonsense host:port ", two.port);
    let server = connect([one.endpoint.clone()]).await.unwrap();
    let mut volfile = server.volfile();
    one.server.shutdown().await;
    wait_for(&mut volfile, "two").await;
}

#[tokio::test]
async fn it_comes_back_to_the_only_server() {
    let running = start(Some("one"));
    let server = connect([running.endpoint.clone()]).await.unwrap();
    let mut volfile = server.volfile();
    running.server.shutdown().await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    *running.glusterd.volfile.lock() = Some("two");
    let listener = Listener::bind_tcp(([127, 0, 0, 1], running.port).into()).unwrap();
    let _server = listener.serve(Arc::new(Shared(running.glusterd)), server::Options::default());
    wait_for(&mut volfile, "two").await;
}

#[test]
fn servers_are_named_by_host_or_address_with_a_port() {
    let host = |host: &str, port| Some(Endpoint::Host { host: host.to_owned(), port });
    assert_eq!(endpoint("gfs1:24007"), host("gfs1", 24007));
    assert_eq!(endpoint("127.0.0.1:1"), Some(Endpoint::Address("127.0.0.1:1".parse().unwrap())));
    assert_eq!(endpoint("[::1]:1"), Some(Endpoint::Address("[::1]:1".parse().unwrap())));
    assert_eq!((endpoint("gfs1"), endpoint(":1"), endpoint("gfs1:x")), (None, None, None));
}
