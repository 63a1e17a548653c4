//! One client connection: decodes calls, keeps fd numbers, passes fops down, encodes answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mortar_api::volume::BrickClient;
use mortar_rpc::Procedure;
use mortar_rpc::server::{Connection, IncomingCall, Program, Response, Session};
use mortar_types::fop::{AckReply, Release, Releasedir};
use mortar_types::{
    ClientId, Context, Errno, Fd, FopKind, Gfid, Outcome, Pid, Reply, Request, Upcall, UpcallSink, keys,
};
use mortar_wire::handshake::{
    CommonReply, GetspecReply, GetspecRequest, SetLkVerReply, SetLkVerRequest, SetvolumeRequest,
};
use mortar_wire::message::Message;
use mortar_wire::programs::{self, FOP, HANDSHAKE, handshake as procedure};
use mortar_wire::xdr::Writer;
use mortar_wire::{dict_v3, fop};
use parking_lot::{Mutex, RwLock};

use super::Brick;
use super::fds::{FdTable, Open};
use super::handshake::{Bound, setvolume};
use super::sink::ClientSink;
use super::translate::{fds_mut, gfids_mut};
use crate::auth::{Resolved, Rules};

/// A number that real clients sent in the past; a real brick answers that it does not understand the call.
const COMPOUND: u32 = 49;
/// What GETSPEC on a brick is answered.
const GETSPEC_TEXT: &str = "<this method is not in use, use glusterd for getspec>";

const PROGRAMS: [Program; 2] = [program(FOP), program(HANDSHAKE)];

const fn program(known: programs::Program) -> Program {
    Program { name: known.name, number: known.number, version: known.version }
}

pub(super) struct ClientSession {
    brick: Arc<Brick>,
    connection: Arc<Connection>,
    /// Set by SETVOLUME.
    bound: RwLock<Option<Arc<Bound>>>,
    fds: Mutex<FdTable>,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
}

impl ClientSession {
    pub(super) fn new(brick: Arc<Brick>, connection: Arc<Connection>) -> Self {
        Self {
            brick,
            connection,
            bound: RwLock::new(None),
            fds: Mutex::new(FdTable::default()),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
        }
    }

    pub(super) fn id(&self) -> ClientId {
        self.connection.id()
    }

    /// For `volume status clients`; `None` before SETVOLUME.
    pub(super) fn describe(&self) -> Option<BrickClient> {
        let bound = self.bound()?;
        Some(BrickClient {
            hostname: self.connection.peer().to_string(),
            bytes_read: self.bytes_received.load(Ordering::Relaxed),
            bytes_written: self.bytes_sent.load(Ordering::Relaxed),
            op_version: bound.op_version,
            name: bound.process_name.clone(),
        })
    }

    /// Disconnects the client when the rules no longer admit it.
    pub(super) fn judge_again(&self, rules: &Rules, resolved: &Resolved) {
        if let Some(bound) = self.bound()
            && !bound.is_admitted(rules, resolved)
        {
            tracing::info!(peer = %self.connection.peer(), "disconnecting a client that auth.allow or auth.reject refuses now");
            self.connection.close();
        }
    }

    pub(super) fn announce_down(&self) {
        if let Some(bound) = self.bound() {
            ClientSink { connection: Arc::clone(&self.connection), root: bound.root }.upcall(Upcall::Down);
        }
    }

    fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.read().clone()
    }

    async fn handshake(&self, call: IncomingCall) -> Response {
        match call.procedure.number {
            procedure::SETVOLUME => match SetvolumeRequest::decode(call.body) {
                Ok(request) => self.setvolume(request).await,
                Err(_) => Response::GarbageArgs,
            },
            procedure::GETSPEC => match GetspecRequest::decode(call.body) {
                Ok(_) => answer(&GetspecReply {
                    op_ret: -1,
                    op_errno: Errno::ENOSYS.0,
                    spec: GETSPEC_TEXT.to_owned(),
                    xdata: dict_v3::DictV3::default(),
                }),
                Err(_) => Response::GarbageArgs,
            },
            procedure::PING => answer(&CommonReply::default()),
            procedure::SET_LK_VER => match SetLkVerRequest::decode(call.body) {
                Ok(request) => answer(&SetLkVerReply { op_ret: 0, op_errno: 0, lk_ver: request.lk_ver }),
                Err(_) => Response::GarbageArgs,
            },
            _ => Response::ProcUnavail,
        }
    }

    async fn setvolume(&self, request: SetvolumeRequest) -> Response {
        let params = request.dict.into_dict();
        let (reply, bound) = setvolume(&self.brick, self.connection.peer(), &params).await;
        if let Some(bound) = bound {
            if params.get_i64(keys::PULSE) == Some(1) {
                self.connection.want_pulse();
            }
            tracing::info!(peer = %self.connection.peer(), client = bound.process_uuid, "client connected");
            let sink: Arc<dyn UpcallSink> =
                Arc::new(ClientSink { connection: Arc::clone(&self.connection), root: bound.root });
            self.brick.stack.locks.connect(self.id(), bound.op_version, Arc::clone(&sink));
            self.brick.stack.upcall.connect(self.id(), sink);
            *self.bound.write() = Some(Arc::new(bound));
        }
        answer(&reply)
    }

    async fn fop(&self, call: IncomingCall) -> Response {
        let number = call.procedure.number;
        let kind = match (FopKind::from_number(number), number) {
            (Some(kind), _) => kind,
            (None, 0) => return Response::success(bytes::BytesMut::new()),
            (None, COMPOUND) => return Response::GarbageArgs,
            (None, _) => return Response::ProcUnavail,
        };
        let Some(bound) = self.bound() else {
            // As a real brick: RELEASE gets no answer, everything else is garbage.
            return match kind {
                FopKind::Release | FopKind::Releasedir => Response::NoReply,
                _ => Response::GarbageArgs,
            };
        };
        let Ok(request) = fop::decode_request(kind, call.body) else {
            return Response::GarbageArgs;
        };
        let mut ctx = call.context;
        let options = self.brick.options();
        options.squash.apply(&mut ctx, bound.trusted);
        let outcome = if options.read_only && kind.is_change() && !ctx.pid.is_internal() {
            Err(Errno::EROFS.into())
        } else {
            self.perform(&bound, &ctx, request).await
        };
        let mut out = Writer::with_capacity(512);
        let payload = fop::encode_reply(kind, &outcome, &mut out);
        Response::Success { head: out.into_inner(), payload }
    }

    async fn perform(&self, bound: &Bound, ctx: &Context, mut request: Request) -> Outcome<Reply> {
        if !bound.root.is_whole() {
            bound.root.enter(&mut request);
        }
        let anonymous = match self.enter_fds(&mut request) {
            Ok(anonymous) => anonymous,
            Err(Unfit::Closed) => return Ok(AckReply { xdata: None }.into()),
            Err(Unfit::Unknown(errno)) => return Err(errno.into()),
        };
        check_gfids(&mut request)?;
        let opened = opened_gfid(&request);
        let is_dir = matches!(request, Request::Opendir(_));
        let listed = match &request {
            Request::Readdir(r) => Some(r.gfid),
            Request::Readdirp(r) => Some(r.gfid),
            _ => None,
        };
        let mut outcome = self.brick.stack.top.call(ctx, request).await;
        match &mut outcome {
            Ok(reply) => {
                self.leave_fds(ctx, opened, is_dir, reply).await?;
                if !bound.root.is_whole() {
                    bound.root.leave(listed, reply);
                }
            }
            // An anonymous fd is found by a nameless lookup, which says ENOENT.
            Err(failure) if anonymous && failure.errno == Errno::ESTALE => failure.errno = Errno::ENOENT,
            Err(_) => {}
        }
        outcome
    }

    /// Replaces the client's fd numbers; whether one of them is the anonymous fd.
    fn enter_fds(&self, request: &mut Request) -> Result<bool, Unfit> {
        let is_release = matches!(request, Request::Release(_) | Request::Releasedir(_));
        let mut anonymous = false;
        for (fd, gfid) in fds_mut(request).into_iter().flatten() {
            if fd.is_anonymous() {
                anonymous = true;
                continue;
            }
            let open = if is_release { self.fds.lock().remove(*fd) } else { self.fds.lock().get(*fd) };
            match open {
                Some(open) => {
                    *fd = open.fd;
                    *gfid = open.gfid;
                }
                None if is_release => return Err(Unfit::Closed),
                // A real brick gives no reason for this one.
                None if *fd == Fd(-1) => return Err(Unfit::Unknown(Errno(0))),
                None => return Err(Unfit::Unknown(Errno::EBADF)),
            }
        }
        Ok(anonymous)
    }

    /// Gives a newly opened file its number.
    async fn leave_fds(&self, ctx: &Context, opened: Option<Gfid>, is_dir: bool, reply: &mut Reply) -> Outcome<()> {
        let (fd, gfid) = match (reply, opened) {
            (Reply::OpenReply(reply), Some(gfid)) => (&mut reply.fd, gfid),
            (Reply::CreateReply(reply), _) => {
                let gfid = reply.stat.gfid;
                (&mut reply.fd, gfid)
            }
            _ => return Ok(()),
        };
        let open = Open { fd: *fd, gfid, is_dir };
        let inserted = self.fds.lock().insert(open);
        match inserted {
            Ok(number) => *fd = number,
            Err(errno) => {
                release(&self.brick, ctx, open).await;
                return Err(errno.into());
            }
        }
        Ok(())
    }
}

/// An fd number that the client was not given.
enum Unfit {
    /// Asked to be closed: a real brick takes that for done.
    Closed,
    Unknown(Errno),
}

#[async_trait]
impl Session for ClientSession {
    fn programs(&self) -> &[Program] {
        &PROGRAMS
    }

    fn may_wait(&self, called: Procedure) -> bool {
        use FopKind as K;
        called.program == FOP.number
            && FopKind::from_number(called.number).is_some_and(|kind| {
                matches!(
                    kind,
                    K::Lk | K::Inodelk | K::Finodelk | K::Entrylk | K::Fentrylk | K::Unlink | K::Rmdir | K::Rename
                )
            })
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        self.bytes_received.fetch_add(call.body.len() as u64, Ordering::Relaxed);
        let response =
            if call.procedure.program == FOP.number { self.fop(call).await } else { self.handshake(call).await };
        if let Response::Success { head, payload } = &response {
            let sent = head.len() + payload.as_ref().map_or(0, bytes::Bytes::len);
            self.bytes_sent.fetch_add(sent as u64, Ordering::Relaxed);
        }
        response
    }

    fn disconnected(&self) {
        self.brick.sessions.lock().remove(&self.id());
        self.brick.stack.upcall.disconnect(self.id());
        // Locks first: others wait for them, and closing files may take time.
        self.brick.stack.locks.disconnect(self.id());
        let open = self.fds.lock().drain();
        if let Some(bound) = self.bound.write().take() {
            tracing::info!(peer = %self.connection.peer(), client = bound.process_uuid, "client disconnected");
        }
        if open.is_empty() {
            return;
        }
        let brick = Arc::clone(&self.brick);
        let ctx = Context { client: self.id(), ..Context::internal(Pid(0)) };
        tokio::spawn(async move {
            for open in open {
                release(&brick, &ctx, open).await;
            }
        });
    }
}

fn answer(reply: &impl Message) -> Response {
    let mut out = Writer::new();
    reply.encode(&mut out);
    Response::success(out.into_inner())
}

/// Closes a file of the layer below.
async fn release(brick: &Brick, ctx: &Context, open: Open) {
    let Open { fd, gfid, is_dir } = open;
    let request: Request =
        if is_dir { Releasedir { gfid, fd, xdata: None }.into() } else { Release { gfid, fd, xdata: None }.into() };
    if let Err(failure) = brick.stack.top.call(ctx, request).await {
        tracing::warn!(%gfid, errno = %failure.errno, "closing a file failed");
    }
}

/// The zero gfid names nothing; LOOKUP alone may leave one of its two out.
fn check_gfids(request: &mut Request) -> Result<(), Errno> {
    if let Request::Lookup(lookup) = request {
        let missing = if lookup.name.is_empty() { lookup.gfid.is_null() } else { lookup.parent.is_null() };
        return if missing { Err(Errno::EINVAL) } else { Ok(()) };
    }
    let is_missing = gfids_mut(request).into_iter().flatten().any(|gfid| gfid.is_null());
    if is_missing { Err(Errno::EINVAL) } else { Ok(()) }
}

fn opened_gfid(request: &Request) -> Option<Gfid> {
    match request {
        Request::Open(r) => Some(r.gfid),
        Request::Opendir(r) => Some(r.gfid),
        _ => None,
    }
}
