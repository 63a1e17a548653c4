//! The client against a small brick of this process that forgets its fds when the connection ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use mortar_rpc::server::{self, IncomingCall, Listener, Program, Response, Service, Session};
use mortar_types::fop::{
    AckReply, ChangeReply, Create, CreateReply, Fd, Flock, Flush, LockType, Open, OpenReply, Read, ReadReply, Release,
    Stat, StatReply, Write, WriteReply,
};
use mortar_types::{
    Context, Dict, Errno, FopKind, Fops, Gfid, Iatt, Outcome, Reply, Request, Upcall, UpcallSink, Value,
};
use mortar_wire::callback::Callback;
use mortar_wire::fop::{decode_request, encode_reply};
use mortar_wire::handshake::{SetvolumeReply, SetvolumeRequest};
use mortar_wire::message::Message as _;
use mortar_wire::portmap::{PortByBrickReply, PortByBrickRequest};
use mortar_wire::programs;
use mortar_wire::xdr::Writer;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{BrickClient, ConnectError, Options, State};

const FILE: Gfid = Gfid([7; 16]);

/// What the brick keeps between connections.
#[derive(Default)]
struct Brick {
    data: Mutex<Vec<u8>>,
    seen: Mutex<Vec<(Context, Request)>>,
    introductions: Mutex<Vec<Dict>>,
    connections: Mutex<Vec<Arc<server::Connection>>>,
    refuse_with: Mutex<Option<(Errno, &'static str)>>,
    child_down: AtomicBool,
    refuse_opens: AtomicBool,
    slow_opens: AtomicBool,
    open_fds: AtomicUsize,
    /// What the portmap answers; 0: not running.
    port: Mutex<u16>,
}

struct Glusterd(Arc<Brick>);
struct GlusterdSession(Arc<Brick>);
struct BrickService(Arc<Brick>);
struct BrickSession {
    brick: Arc<Brick>,
    connection: Arc<server::Connection>,
    fds: Mutex<HashMap<Fd, Gfid>>,
}

impl Service for Glusterd {
    fn connected(&self, _connection: Arc<server::Connection>) -> Arc<dyn Session> {
        Arc::new(GlusterdSession(Arc::clone(&self.0)))
    }
}

#[async_trait]
impl Session for GlusterdSession {
    fn programs(&self) -> &[Program] {
        &[programs::PORTMAP]
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        assert_eq!(PortByBrickRequest::decode(call.body).unwrap().brick, "/srv/brick");
        let port = i32::from(*self.0.port.lock());
        let op_ret = if port == 0 { -1 } else { 0 };
        success(&PortByBrickReply { op_ret, port, ..PortByBrickReply::default() })
    }

    fn disconnected(&self) {}
}

impl Service for BrickService {
    fn connected(&self, connection: Arc<server::Connection>) -> Arc<dyn Session> {
        self.0.connections.lock().push(Arc::clone(&connection));
        Arc::new(BrickSession { brick: Arc::clone(&self.0), connection, fds: Mutex::default() })
    }
}

fn success(message: &impl mortar_wire::message::Message) -> Response {
    let mut out = Writer::new();
    message.encode(&mut out);
    Response::success(out.into_inner())
}

#[async_trait]
impl Session for BrickSession {
    fn programs(&self) -> &[Program] {
        &[programs::FOP, programs::HANDSHAKE]
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        if call.procedure.program == programs::HANDSHAKE.number {
            let request = SetvolumeRequest::decode(call.body).unwrap();
            return success(&self.set_volume(request.dict.into_dict()));
        }
        let kind = FopKind::from_number(call.procedure.number).unwrap();
        let request = decode_request(kind, call.body).unwrap();
        self.brick.seen.lock().push((call.context, request.clone()));
        if kind == FopKind::Open && self.brick.slow_opens.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let outcome = self.perform(request);
        let mut out = Writer::new();
        let payload = encode_reply(kind, &outcome, &mut out);
        Response::Success { head: out.into_inner(), payload }
    }

    fn disconnected(&self) {
        let fds = self.fds.lock().drain().count();
        self.brick.open_fds.fetch_sub(fds, Ordering::SeqCst);
    }
}

impl BrickSession {
    fn set_volume(&self, introduction: Dict) -> SetvolumeReply {
        self.brick.introductions.lock().push(introduction);
        if let Some((errno, text)) = *self.brick.refuse_with.lock() {
            let dict = Dict::new().with("ERROR", Value::str(text));
            return SetvolumeReply { op_ret: -1, op_errno: errno.0, dict: dict.into() };
        }
        let child_up = !self.brick.child_down.load(Ordering::SeqCst);
        let dict = Dict::new()
            .with("ERROR", Value::str("Success"))
            .with("volume-id", Value::str(Uuid::from_u128(5).to_string()))
            .with("child_up", Value::Int(child_up.into()));
        // Real bricks leave EINVAL in a success.
        SetvolumeReply { op_ret: 0, op_errno: 22, dict: dict.into() }
    }

    fn perform(&self, request: Request) -> Outcome<Reply> {
        let stat = Iatt { gfid: FILE, mode: 0o100_644, ..Iatt::default() };
        let (pre, post, preparent, postparent) = (stat, stat, stat, stat);
        let known =
            |fd: Fd| if fd.is_anonymous() || self.fds.lock().contains_key(&fd) { Ok(()) } else { Err(Errno::EBADF) };
        let xdata = None;
        match request {
            Request::Open(open) => Ok(OpenReply { fd: self.open(open.gfid)?, xdata }.into()),
            Request::Opendir(open) => Ok(OpenReply { fd: self.open(open.gfid)?, xdata }.into()),
            Request::Create(_) => Ok(CreateReply { fd: self.open(FILE)?, stat, preparent, postparent, xdata }.into()),
            Request::Write(write) => {
                known(write.fd)?;
                let (mut data, end) = (self.brick.data.lock(), write.offset as usize + write.data.len());
                if data.len() < end {
                    data.resize(end, 0);
                }
                data[write.offset as usize..end].copy_from_slice(&write.data);
                Ok(WriteReply { written: write.data.len() as u32, pre, post, xdata }.into())
            }
            Request::Read(read) => {
                known(read.fd)?;
                let data = Bytes::copy_from_slice(&self.brick.data.lock()[read.offset as usize..]);
                Ok(ReadReply { stat, data, eof: true, xdata }.into())
            }
            Request::Stat(_) => Ok(StatReply { stat, xdata }.into()),
            Request::Flush(flush) => known(flush.fd).map(|()| AckReply { xdata }.into()).map_err(Into::into),
            Request::Fsync(fsync) => {
                known(fsync.fd).map(|()| ChangeReply { pre, post, xdata }.into()).map_err(Into::into)
            }
            Request::Release(Release { fd, .. }) => {
                if self.fds.lock().remove(&fd).is_some() {
                    self.brick.open_fds.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(AckReply { xdata }.into())
            }
            // Tells the client of contention first, as a brick would meanwhile.
            Request::Statfs(_) => {
                let flock = Flock {
                    kind: LockType::Write,
                    whence: 0,
                    start: 0,
                    len: 0,
                    pid: 0,
                    owner: mortar_types::LkOwner::default(),
                };
                let domain = Bytes::from_static(b"v-replicate-0");
                self.call_back(&Upcall::InodelkContention { gfid: FILE, flock, domain }.into());
                Err(Errno::ENOSYS.into())
            }
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    fn open(&self, gfid: Gfid) -> Result<Fd, Errno> {
        if self.brick.refuse_opens.load(Ordering::SeqCst) {
            return Err(Errno::ENOENT);
        }
        let mut fds = self.fds.lock();
        // Numbers differ from connection to connection.
        let fd = Fd((0..).find(|fd| !fds.contains_key(&Fd(*fd))).unwrap());
        fds.insert(fd, gfid);
        self.brick.open_fds.fetch_add(1, Ordering::SeqCst);
        Ok(fd)
    }

    fn call_back(&self, callback: &Callback) {
        call_back(&self.connection, callback);
    }
}

fn call_back(connection: &server::Connection, callback: &Callback) {
    let mut out = Writer::new();
    callback.encode(&mut out);
    let (number, version) = (programs::CALLBACK.number, programs::CALLBACK.version);
    let body: BytesMut = out.into_inner();
    connection.callback(mortar_rpc::Procedure::new(number, version, callback.procedure()), body);
}

#[derive(Default)]
struct Sink(Mutex<Vec<Upcall>>);

impl UpcallSink for Sink {
    fn upcall(&self, upcall: Upcall) {
        self.0.lock().push(upcall);
    }
}

impl Sink {
    fn ups_and_downs(&self) -> String {
        let letter = |upcall: &Upcall| match upcall {
            Upcall::Up => 'U',
            Upcall::Down => 'D',
            _ => '.',
        };
        self.0.lock().iter().map(letter).collect()
    }
}

struct Lab {
    brick: Arc<Brick>,
    address: SocketAddr,
    server: Option<server::Server>,
    _glusterd: server::Server,
    options: Options,
}

fn listen(address: SocketAddr) -> Listener {
    Listener::bind_tcp(address).unwrap()
}

impl Lab {
    fn new() -> Self {
        let brick = Arc::new(Brick::default());
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = listen(any);
        let address = listener.local_address().unwrap();
        *brick.port.lock() = address.port();
        let server = Some(listener.serve(Arc::new(BrickService(Arc::clone(&brick))), server::Options::default()));
        let listener = listen(any);
        let glusterd_port = listener.local_address().unwrap().port();
        let glusterd = listener.serve(Arc::new(Glusterd(Arc::clone(&brick))), server::Options::default());
        let mut options = Options::new("v-client-0", "127.0.0.1", "/srv/brick");
        options.glusterd_port = glusterd_port;
        options.process_name = "fuse".to_owned();
        Self { brick, address, server, _glusterd: glusterd, options }
    }

    fn client(&self) -> (Arc<BrickClient>, Arc<Sink>) {
        let client = BrickClient::new(self.options.clone());
        let sink = Arc::new(Sink::default());
        client.subscribe(Arc::clone(&sink) as Arc<dyn UpcallSink>);
        (client, sink)
    }

    async fn connected(&self) -> (Arc<BrickClient>, Arc<Sink>) {
        let (client, sink) = self.client();
        wait_for(&client, State::Up).await;
        (client, sink)
    }

    async fn stop(&mut self) {
        self.server.take().unwrap().shutdown().await;
    }

    fn restart(&mut self) {
        let service = Arc::new(BrickService(Arc::clone(&self.brick)));
        self.server = Some(listen(self.address).serve(service, server::Options::default()));
    }
}

async fn wait_for(client: &BrickClient, state: State) {
    let mut states = client.state();
    tokio::time::timeout(Duration::from_secs(10), states.wait_for(|now| *now == state))
        .await
        .expect("in time")
        .unwrap();
}

async fn wait_down(client: &BrickClient) -> ConnectError {
    let mut states = client.state();
    let down = states.wait_for(|now| matches!(now, State::Down(_)));
    tokio::time::timeout(Duration::from_secs(10), down).await.expect("in time").unwrap();
    client.last_error().unwrap()
}

async fn call(client: &Arc<BrickClient>, request: impl Into<Request>) -> Outcome<Reply> {
    client.call(&Context::default(), request.into()).await
}

async fn open(client: &Arc<BrickClient>) -> Fd {
    let layer: Arc<dyn Fops> = Arc::clone(client) as Arc<dyn Fops>;
    layer.fop(&Context::default(), Open { gfid: FILE, flags: 0o1002, xdata: None }).await.unwrap().fd
}

fn write(fd: Fd, data: &'static [u8]) -> Write {
    Write { gfid: FILE, fd, offset: 0, flags: 0, data: Bytes::from_static(data), xdata: None }
}

fn flush(fd: Fd) -> Flush {
    Flush { gfid: FILE, fd, xdata: None }
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "it did not become true within 10 s");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn it_introduces_itself_and_then_serves() {
    let lab = Lab::new();
    let (client, sink) = lab.connected().await;
    assert_eq!((sink.ups_and_downs().as_str(), client.is_up(), client.name()), ("U", true, "v-client-0"));
    assert_eq!(client.volume_id(), Some(Uuid::from_u128(5)));
    let introduction = lab.brick.introductions.lock()[0].clone();
    assert_eq!(introduction.get_str("remote-subvolume"), Some("/srv/brick"));
    assert_eq!(introduction.get_i64("fops-version"), Some(1_298_437));
    assert!(introduction.get_str("process-uuid").unwrap().ends_with("-PC_NAME:v-client-0-RECON_NO:-0"));
    assert!(call(&client, Stat { gfid: FILE, xdata: None }).await.is_ok());
}

#[tokio::test]
async fn a_file_is_made_written_read_and_closed() {
    let lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    let create = Create {
        parent: Gfid::ROOT,
        flags: 2,
        mode: 0o644,
        umask: 0,
        name: Bytes::from_static(b"f"),
        xdata: Some(Dict::new()),
    };
    let Ok(Reply::CreateReply(created)) = call(&client, create).await else { panic!("not created") };
    assert!(call(&client, write(created.fd, b"hello")).await.is_ok());
    let read = Read { gfid: FILE, fd: created.fd, offset: 1, size: 9, flags: 0, xdata: None };
    let Ok(Reply::ReadReply(read)) = call(&client, read).await else { panic!("not read") };
    assert_eq!((&read.data[..], read.eof), (&b"ello"[..], true));
    assert_eq!(lab.brick.open_fds.load(Ordering::SeqCst), 1);
    call(&client, Release { gfid: FILE, fd: created.fd, xdata: None }).await.unwrap();
    assert_eq!(lab.brick.open_fds.load(Ordering::SeqCst), 0);
    assert_eq!(call(&client, flush(created.fd)).await, Err(Errno::EBADFD.into()));
}

#[tokio::test]
async fn open_files_survive_the_brick() {
    let mut lab = Lab::new();
    let (client, sink) = lab.connected().await;
    let (first, second) = (open(&client).await, open(&client).await);
    call(&client, Release { gfid: FILE, fd: first, xdata: None }).await.unwrap();
    lab.stop().await;
    wait_down(&client).await;
    assert_eq!(call(&client, write(second, b"x")).await, Err(Errno::ENOTCONN.into()));
    assert_eq!(call(&client, Open { gfid: FILE, flags: 0, xdata: None }).await, Err(Errno::ENOTCONN.into()));
    lab.restart();
    wait_for(&client, State::Up).await;
    assert_eq!(sink.ups_and_downs(), "UDU");
    // Opened again without truncating, before anybody heard of the brick.
    let reopened = lab.brick.seen.lock().iter().rev().find_map(|(_, request)| match request {
        Request::Open(open) => Some(open.flags),
        _ => None,
    });
    assert_eq!(reopened, Some(2));
    assert!(call(&client, flush(second)).await.is_ok());
    assert!(lab.brick.introductions.lock().last().unwrap().get_str("volume-id").is_some());
}

#[tokio::test]
async fn what_could_not_be_opened_again_is_reached_by_gfid_where_that_is_allowed() {
    let mut lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    let fd = open(&client).await;
    lab.stop().await;
    wait_down(&client).await;
    lab.brick.refuse_opens.store(true, Ordering::SeqCst);
    lab.restart();
    wait_for(&client, State::Up).await;
    assert!(call(&client, write(fd, b"x")).await.is_ok());
    let last = lab.brick.seen.lock().last().unwrap().1.clone();
    assert!(matches!(last, Request::Write(Write { fd: Fd::ANONYMOUS, .. })));
    assert_eq!(call(&client, flush(fd)).await, Err(Errno::EBADFD.into()));
    assert!(call(&client, flush(Fd::ANONYMOUS)).await.is_ok());
}

#[tokio::test]
async fn a_file_closed_while_the_brick_is_away_stays_closed() {
    let mut lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    let fd = open(&client).await;
    lab.stop().await;
    wait_down(&client).await;
    call(&client, Release { gfid: FILE, fd, xdata: None }).await.unwrap();
    lab.restart();
    wait_for(&client, State::Up).await;
    assert_eq!(lab.brick.open_fds.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_open_whose_caller_left_is_closed_again() {
    let lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    lab.brick.slow_opens.store(true, Ordering::SeqCst);
    let open = call(&client, Open { gfid: FILE, flags: 0, xdata: None });
    assert!(tokio::time::timeout(Duration::from_millis(10), open).await.is_err());
    let released = || lab.brick.seen.lock().iter().any(|(_, request)| matches!(request, Request::Release(_)));
    eventually(released).await;
    eventually(|| lab.brick.open_fds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn calls_under_way_fail_when_the_brick_dies() {
    let lab = Lab::new();
    let (client, sink) = lab.connected().await;
    lab.brick.slow_opens.store(true, Ordering::SeqCst);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        lab.brick.connections.lock().last().unwrap().close();
    };
    let (outcome, ()) = tokio::join!(call(&client, Open { gfid: FILE, flags: 0, xdata: None }), kill);
    assert_eq!(outcome, Err(Errno::ENOTCONN.into()));
    // It comes back at once: no waiting after a connection that worked.
    eventually(|| sink.ups_and_downs() == "UDU").await;
}

#[tokio::test]
async fn a_brick_that_is_not_running_is_reported_and_found_later() {
    let lab = Lab::new();
    let port = std::mem::take(&mut *lab.brick.port.lock());
    let (client, sink) = lab.client();
    let error = wait_down(&client).await;
    assert_eq!(error.to_string(), "brick 127.0.0.1:/srv/brick is not running");
    assert_eq!((sink.ups_and_downs().as_str(), client.is_up()), ("D", false));
    *lab.brick.port.lock() = port;
    wait_for(&client, State::Up).await;
    assert_eq!(sink.ups_and_downs(), "DU");
}

#[tokio::test]
async fn a_refusal_can_be_told_from_an_outage() {
    let lab = Lab::new();
    *lab.brick.refuse_with.lock() = Some((Errno::EACCES, "Authentication failed"));
    let (client, _sink) = lab.client();
    let error = wait_down(&client).await;
    assert!(matches!(&error, ConnectError::AuthFailed { text, .. } if text == "Authentication failed"), "{error:?}");
    *lab.brick.refuse_with.lock() = Some((Errno::EAGAIN, "try again later"));
    eventually(|| matches!(client.last_error(), Some(ConnectError::Refused { errno: Errno::EAGAIN, .. }))).await;
    *lab.brick.refuse_with.lock() = None;
    wait_for(&client, State::Up).await;
}

#[tokio::test]
async fn a_known_port_needs_no_portmap() {
    let mut lab = Lab::new();
    lab.options.port = Some(lab.address.port());
    lab.options.glusterd_port = 1;
    lab.connected().await;
}

#[tokio::test]
async fn a_brick_on_glusterds_port_is_used_as_it_is() {
    let mut lab = Lab::new();
    lab.options.glusterd_port = lab.address.port();
    let (client, _sink) = lab.connected().await;
    assert!(call(&client, Stat { gfid: FILE, xdata: None }).await.is_ok());
    lab.stop().await;
    wait_down(&client).await;
}

#[tokio::test]
async fn the_brick_behind_the_connection_comes_and_goes() {
    let lab = Lab::new();
    lab.brick.child_down.store(true, Ordering::SeqCst);
    let (client, sink) = lab.client();
    assert_eq!(wait_down(&client).await, ConnectError::ChildDown);
    let connection = lab.brick.connections.lock().last().cloned().unwrap();
    call_back(&connection, &Callback::ChildUp);
    wait_for(&client, State::Up).await;
    call_back(&connection, &Callback::ChildDown);
    wait_down(&client).await;
    assert_eq!(sink.ups_and_downs(), "DUD");
}

#[tokio::test]
async fn contention_is_passed_on() {
    let lab = Lab::new();
    let (client, sink) = lab.connected().await;
    let statfs = mortar_types::fop::Statfs { gfid: Gfid::ROOT, xdata: None };
    assert_eq!(call(&client, statfs).await, Err(Errno::ENOSYS.into()));
    eventually(|| sink.ups_and_downs() == "U.").await;
    assert!(
        matches!(&sink.0.lock()[1], Upcall::InodelkContention { gfid: FILE, domain, .. } if domain == "v-replicate-0")
    );
}

#[tokio::test]
async fn a_late_subscriber_hears_what_is_known() {
    let lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    let late = Arc::new(Sink::default());
    client.subscribe(Arc::clone(&late) as Arc<dyn UpcallSink>);
    assert_eq!(late.ups_and_downs(), "U");
}

#[tokio::test]
async fn dropping_the_client_ends_its_connection() {
    let lab = Lab::new();
    let (client, _sink) = lab.connected().await;
    let connection = lab.brick.connections.lock().last().cloned().unwrap();
    drop(client);
    eventually(|| connection.is_closed()).await;
}

#[tokio::test]
async fn another_brick_is_gone_to_when_the_options_say_so() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (client, _sink) = lab.connected().await;
    client.reconfigure(other.options.clone());
    eventually(|| !other.brick.introductions.lock().is_empty()).await;
    wait_for(&client, State::Up).await;
}
