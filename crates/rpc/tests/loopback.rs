//! Server and client of one process talk over loopback and a Unix socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use mortar_rpc::client::{self, CallError, CloseReason, Events};
use mortar_rpc::server::{self, IncomingCall, Listener, Program, Response, Service, Session};
use mortar_rpc::{AuthKind, Endpoint, Procedure, dump};
use mortar_types::{Context, LkOwner, Pid};
use mortar_wire::header::ReplyStatus;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

const PROGRAM: u32 = 400_400;
const ECHO: Procedure = Procedure::new(PROGRAM, 3, 1);
/// Answers after as many milliseconds as its body says.
const SLEEP: Procedure = Procedure::new(PROGRAM, 3, 2);
const CALL_BACK: Procedure = Procedure::new(PROGRAM, 3, 3);
const NO_REPLY: Procedure = Procedure::new(PROGRAM, 3, 4);
const WHO: Procedure = Procedure::new(PROGRAM, 3, 5);
const HANG_UP: Procedure = Procedure::new(PROGRAM, 3, 6);
/// Waits forever, as a lock may.
const WAIT: Procedure = Procedure::new(PROGRAM, 3, 7);
/// Keeps the connection's task for as many milliseconds as its body says, as a disk may.
const BLOCK: Procedure = Procedure::new(PROGRAM, 3, 8);

#[derive(Default)]
struct TestService {
    ended: Arc<AtomicUsize>,
}

struct TestSession {
    connection: Arc<server::Connection>,
    ended: Arc<AtomicUsize>,
    programs: [Program; 2],
}

impl Service for TestService {
    fn connected(&self, connection: Arc<server::Connection>) -> Arc<dyn Session> {
        connection.want_pulse();
        let program = |version| Program { name: "test", number: PROGRAM, version };
        Arc::new(TestSession { connection, ended: Arc::clone(&self.ended), programs: [program(1), program(3)] })
    }
}

#[async_trait]
impl Session for TestSession {
    fn programs(&self) -> &[Program] {
        &self.programs
    }

    fn may_wait(&self, procedure: Procedure) -> bool {
        procedure == WAIT
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        match call.procedure {
            ECHO => Response::Success { head: BytesMut::from(&call.body[..4]), payload: Some(call.body.slice(4..)) },
            SLEEP => {
                let millis = u32::from_be_bytes(call.body[..].try_into().unwrap());
                tokio::time::sleep(Duration::from_millis(millis.into())).await;
                Response::success(BytesMut::from(&call.body[..]))
            }
            CALL_BACK => {
                self.connection.callback(Procedure::new(1, 2, 3), BytesMut::from(&call.body[..]));
                Response::success(BytesMut::new())
            }
            NO_REPLY => Response::NoReply,
            WHO => {
                assert_eq!(call.context.client, self.connection.id());
                let mut head = BytesMut::new();
                head.put_u32(call.context.uid);
                head.put_u32(call.context.groups.len() as u32);
                head.extend_from_slice(&call.context.lk_owner.0);
                Response::success(head)
            }
            HANG_UP => {
                self.connection.close();
                Response::NoReply
            }
            WAIT => std::future::pending().await,
            BLOCK => {
                let millis = u32::from_be_bytes(call.body[..].try_into().unwrap());
                std::thread::sleep(Duration::from_millis(millis.into()));
                Response::success(BytesMut::new())
            }
            _ => Response::ProcUnavail,
        }
    }

    fn disconnected(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

struct Recorder {
    callbacks: mpsc::UnboundedSender<(Procedure, Bytes)>,
    closed: mpsc::UnboundedSender<String>,
}

impl Events for Recorder {
    fn callback(&self, procedure: Procedure, body: Bytes) {
        self.callbacks.send((procedure, body)).unwrap();
    }

    fn closed(&self, reason: &CloseReason) {
        let _ = self.closed.send(reason.to_string());
    }
}

struct Client {
    connection: Arc<client::Connection>,
    callbacks: mpsc::UnboundedReceiver<(Procedure, Bytes)>,
    closed: mpsc::UnboundedReceiver<String>,
}

async fn client_with(endpoint: &Endpoint, options: client::Options) -> Client {
    let (callbacks_sender, callbacks) = mpsc::unbounded_channel();
    let (closed_sender, closed) = mpsc::unbounded_channel();
    let events = Arc::new(Recorder { callbacks: callbacks_sender, closed: closed_sender });
    let connection = client::Connection::connect(endpoint, options, events).await.unwrap();
    Client { connection, callbacks, closed }
}

async fn client(endpoint: &Endpoint) -> Client {
    client_with(endpoint, client::Options::default()).await
}

impl Client {
    async fn call(&self, procedure: Procedure, body: &[u8]) -> Result<Bytes, CallError> {
        self.connection.call(procedure, AuthKind::V3, &Context::default(), BytesMut::from(body), None).await
    }

    async fn sleep(&self, time: u32) -> Result<Bytes, CallError> {
        self.call(SLEEP, &millis(time)).await
    }
}

struct Running {
    endpoint: Endpoint,
    ended: Arc<AtomicUsize>,
    server: server::Server,
}

fn start(options: server::Options) -> Running {
    let service = TestService::default();
    let ended = Arc::clone(&service.ended);
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = Endpoint::Address(listener.local_address().unwrap());
    let server = listener.serve(Arc::new(service), options);
    Running { endpoint, ended, server }
}

/// The body of a [`SLEEP`] call.
fn millis(millis: u32) -> Vec<u8> {
    millis.to_be_bytes().to_vec()
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "it did not become true within 10 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_payload_comes_back_whole_over_tcp_and_unix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    let unix = Listener::bind_unix(&path).unwrap().serve(Arc::new(TestService::default()), server::Options::default());
    let tcp = start(server::Options::default());
    for endpoint in [tcp.endpoint.clone(), Endpoint::Unix(path.clone())] {
        let client = client(&endpoint).await;
        for size in [1usize, 100, 9000, 131_072, 3 << 20] {
            let payload: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
            let head = BytesMut::from(&b"head"[..]);
            let context = Context::default();
            let reply =
                client.connection.call(ECHO, AuthKind::V3, &context, head, Some(payload.clone())).await.unwrap();
            assert_eq!((&reply[..4], reply.slice(4..)), (&b"head"[..], payload));
        }
    }
    unix.shutdown().await;
    assert!(!path.exists(), "the socket's file is removed");
}

#[tokio::test]
async fn replies_come_out_of_order() {
    let running = start(server::Options::default());
    let client = client(&running.endpoint).await;
    let slow = client.sleep(200);
    let fast = client.sleep(0);
    tokio::pin!(slow, fast);
    tokio::select! {
        biased;
        _ = &mut slow => panic!("the slow call ended first"),
        reply = &mut fast => assert_eq!(reply.unwrap(), millis(0)),
    }
    assert_eq!(slow.await.unwrap(), millis(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_connection() {
    let running = start(server::Options::default());
    let client = Arc::new(client(&running.endpoint).await);
    let tasks: Vec<_> = (0..300u32)
        .map(|number| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let body = [number.to_be_bytes(), (number ^ 1).to_be_bytes()].concat();
                let procedure = if number % 3 == 0 { SLEEP } else { ECHO };
                let body = if procedure == SLEEP { &body[2..4] } else { &body[..] };
                let body = if procedure == SLEEP { [0, 0, body[0], body[1]].to_vec() } else { body.to_vec() };
                assert_eq!(client.call(procedure, &body).await.unwrap(), &body[..]);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn the_credential_arrives() {
    let running = start(server::Options::default());
    let client = client(&running.endpoint).await;
    let context = Context {
        pid: Pid(77),
        uid: 12,
        groups: Arc::from([1, 2, 3]),
        lk_owner: LkOwner::from_slice(b"own"),
        ..Context::default()
    };
    let reply = client.connection.call(WHO, AuthKind::V3, &context, BytesMut::new(), None).await.unwrap();
    assert_eq!(&reply[..], b"\0\0\0\x0c\0\0\0\x03own");
    let too_long = context.with_owner(LkOwner::from_slice(&[1; 100]));
    let error = client.connection.call(WHO, AuthKind::V3, &too_long, BytesMut::new(), None).await.unwrap_err();
    assert_eq!(error.errno(), mortar_types::Errno::E2BIG);
    client.call(WHO, b"").await.expect("the connection goes on after a call that was not sent");
}

#[tokio::test]
async fn callbacks_reach_the_client() {
    let running = start(server::Options::default());
    let mut client = client(&running.endpoint).await;
    client.call(CALL_BACK, b"news").await.unwrap();
    assert_eq!(client.callbacks.recv().await.unwrap(), (Procedure::new(1, 2, 3), Bytes::from_static(b"news")));
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_its_reason() {
    let running = start(server::Options::default());
    let client = client(&running.endpoint).await;
    let refused = |status| Err(CallError::Refused(status));
    assert_eq!(client.call(Procedure::new(9, 1, 1), b"").await, refused(ReplyStatus::ProgUnavail));
    let mismatch = ReplyStatus::ProgMismatch { low: 1, high: 3 };
    assert_eq!(client.call(Procedure::new(PROGRAM, 2, 1), b"").await, refused(mismatch));
    assert_eq!(client.call(Procedure::new(PROGRAM, 3, 99), b"").await, refused(ReplyStatus::ProcUnavail));
    let mismatch = ReplyStatus::ProgMismatch { low: 1, high: 1 };
    assert_eq!(client.call(Procedure::new(dump::PROGRAM, 2, 1), b"").await, refused(mismatch));
}

#[tokio::test]
async fn dump_lists_the_programs_and_ping_is_answered() {
    let running = start(server::Options::default());
    let client = client(&running.endpoint).await;
    assert_eq!(client.call(dump::PING, b"").await.unwrap(), &[0; 12][..]);
    let answer = client.call(dump::DUMP, &0xcaed_u64.to_be_bytes()).await.unwrap();
    let mut reader = mortar_wire::xdr::Reader::new(answer.slice(16..));
    let mut programs = Vec::new();
    while reader.u32().unwrap() == 1 {
        programs.push((reader.opaque().unwrap(), reader.u64().unwrap(), reader.u64().unwrap()));
    }
    reader.finish().unwrap();
    let expected = [("GF-DUMP", dump::PROGRAM, 1), ("test", PROGRAM, 1), ("test", PROGRAM, 3)];
    let expected: Vec<_> =
        expected.iter().map(|(name, number, version)| (Bytes::from(*name), u64::from(*number), *version)).collect();
    assert_eq!(programs, expected);
}

#[tokio::test]
async fn outstanding_calls_fail_when_the_server_goes() {
    let running = start(server::Options::default());
    let mut client = client(&running.endpoint).await;
    let pending = client.call(NO_REPLY, b"");
    let hang_up = client.call(HANG_UP, b"");
    assert_eq!(tokio::join!(pending, hang_up), (Err(CallError::Disconnected), Err(CallError::Disconnected)));
    assert_eq!(client.closed.recv().await.unwrap(), "closed by the server");
    assert_eq!(client.call(ECHO, b"late").await, Err(CallError::Disconnected));
    eventually(|| running.ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn shutdown_ends_every_session() {
    let running = start(server::Options::default());
    let (one, two) = (client(&running.endpoint).await, client(&running.endpoint).await);
    one.call(dump::PING, b"").await.unwrap();
    two.call(dump::PING, b"").await.unwrap();
    running.server.shutdown().await;
    assert_eq!(running.ended.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn dropping_the_client_ends_the_session_and_its_waiting_calls() {
    let running = start(server::Options::default());
    let client = client(&running.endpoint).await;
    let given_up = tokio::time::timeout(Duration::from_millis(20), client.call(WAIT, b"")).await;
    assert!(given_up.is_err());
    drop(client);
    eventually(|| running.ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_ping_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Address(listener.local_addr().unwrap());
    let silent = tokio::spawn(async move { listener.accept().await.unwrap() });
    let options = client::Options { ping_timeout: Duration::from_millis(120), ..client::Options::default() };
    let mut client = client_with(&endpoint, options).await;
    let start = Instant::now();
    assert_eq!(client.call(ECHO, b"body").await, Err(CallError::Disconnected));
    assert!(start.elapsed() >= Duration::from_millis(100) && start.elapsed() < Duration::from_secs(5));
    assert_eq!(client.closed.recv().await.unwrap(), "the server has not responded in the last 120ms");
    drop(silent.await);
}

#[tokio::test]
async fn pings_keep_a_connection_with_a_long_call() {
    let running = start(server::Options::default());
    let options = client::Options { ping_timeout: Duration::from_millis(100), ..client::Options::default() };
    let client = client_with(&running.endpoint, options).await;
    client.sleep(500).await.unwrap();
}

/// A client that bears 600 ms of silence, and a call that keeps the server for 2 s.
async fn a_call_that_blocks(pulse: bool) -> Result<Bytes, CallError> {
    let running = start(server::Options { pulse, ..server::Options::default() });
    let options = client::Options { ping_timeout: Duration::from_millis(600), ..client::Options::default() };
    let client = client_with(&running.endpoint, options).await;
    client.call(BLOCK, &2000_u32.to_be_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_server_that_waits_for_its_disk_is_not_taken_for_dead() {
    assert_eq!(a_call_that_blocks(true).await, Ok(Bytes::new()));
    assert_eq!(a_call_that_blocks(false).await, Err(CallError::Disconnected));
}

#[tokio::test]
async fn an_old_call_fails_and_the_connection_stays() {
    let running = start(server::Options::default());
    let options = client::Options {
        ping_timeout: Duration::from_millis(200),
        frame_timeout: Duration::from_millis(50),
        ..client::Options::default()
    };
    let client = client_with(&running.endpoint, options).await;
    assert_eq!(client.call(WAIT, b"").await, Err(CallError::Timeout));
    client.call(ECHO, b"body").await.unwrap();
}

#[tokio::test]
async fn beyond_the_outstanding_limit_nothing_is_read_but_lock_waiters_do_not_count() {
    let running = start(server::Options { outstanding_max: 1, waiting_max: 2, ..server::Options::default() });
    let client = client(&running.endpoint).await;
    let lock_one = client.call(WAIT, b"");
    let lock_two = client.call(WAIT, b"");
    let lock_three = client.call(WAIT, b"");
    let slow = client.sleep(100);
    let fast = client.sleep(0);
    tokio::pin!(lock_one, lock_two, lock_three, slow, fast);
    tokio::select! {
        biased;
        _ = &mut lock_one => panic!("nobody answers"),
        _ = &mut lock_two => panic!("nobody answers"),
        refused = &mut lock_three => assert_eq!(refused, Err(CallError::Refused(ReplyStatus::SystemErr))),
    }
    tokio::select! {
        biased;
        _ = &mut slow => {}
        _ = &mut fast => panic!("it was read while another call was outstanding"),
    }
    fast.await.unwrap();
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let running = start(server::Options::default());
    let Endpoint::Address(address) = running.endpoint else { unreachable!() };
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.0\r\n\r\n",
        &[0xff; 64],
        &[0x80, 0, 0, 4, 0, 0, 0, 0],
        &[0x80, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0],
        &[0; 64 << 10],
    ];
    for bytes in garbage {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // An end of file or a reset.
        let _ =
            tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await.expect("it is closed");
        assert!(rest.is_empty());
    }
    client(&running.endpoint).await.call(ECHO, b"body").await.unwrap();
}

#[tokio::test]
async fn a_garbled_reply_closes_the_client() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::Address(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let mut client = client(&endpoint).await;
    assert_eq!(client.call(ECHO, b"body").await, Err(CallError::Disconnected));
    assert!(client.closed.recv().await.unwrap().starts_with("the server does not speak RPC"));
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // "localhost" may give ::1 first, where nothing listens.
    let running = start(server::Options::default());
    let Endpoint::Address(address) = running.endpoint else { unreachable!() };
    let endpoint = Endpoint::Host { host: "localhost".into(), port: address.port() };
    client(&endpoint).await.call(ECHO, b"body").await.unwrap();
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_a_live_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rpc.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let live = Listener::bind_unix(&path).unwrap();
    assert!(Listener::bind_unix(&path).is_err());
    drop(live);
    let file = folder.path().join("file");
    std::fs::write(&file, "data").unwrap();
    assert!(Listener::bind_unix(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"data");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_by_callbacks() {
    struct Shouting(Mutex<Option<Arc<server::Connection>>>);
    impl Service for Shouting {
        fn connected(&self, connection: Arc<server::Connection>) -> Arc<dyn Session> {
            *self.0.lock() = Some(Arc::clone(&connection));
            TestService::default().connected(connection)
        }
    }
    let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_address().unwrap();
    let service = Arc::new(Shouting(Mutex::new(None)));
    let _server = listener.serve(Arc::clone(&service) as Arc<dyn Service>, server::Options::default());
    let _deaf = tokio::net::TcpStream::connect(address).await.unwrap();
    eventually(|| service.0.lock().is_some()).await;
    let connection = service.0.lock().clone().unwrap();
    for _ in 0..200 {
        connection.callback(Procedure::new(1, 1, 1), BytesMut::zeroed(1 << 20));
        tokio::task::yield_now().await;
    }
    assert!(connection.is_closed());
}
