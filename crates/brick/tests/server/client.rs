//! A client that speaks to a brick over RPC.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mortar_rpc::client::{CallError, CloseReason, Connection, Events, Options};
use mortar_rpc::{AuthKind, Endpoint, Procedure};
use mortar_types::fop::{Create, CreateReply, Lookup, LookupReply};
use mortar_types::keys::GFID_REQ;
use mortar_types::{Context, Dict, Errno, Fop, Gfid, LkOwner, Pid, Upcall, Value};
use mortar_wire::callback::Callback;
use mortar_wire::fop::{decode_reply, encode_request};
use mortar_wire::handshake::{SetvolumeReply, SetvolumeRequest};
use mortar_wire::message::Message;
use mortar_wire::programs::{FOP, HANDSHAKE, handshake};
use mortar_wire::xdr::Writer;
use tokio::sync::mpsc;

use crate::brick::Directory;

/// Passes callbacks on. Unbounded: tests make few.
struct Heard(mpsc::UnboundedSender<Upcall>);

impl Events for Heard {
    fn callback(&self, procedure: Procedure, body: Bytes) {
        let upcall = Callback::decode(procedure.number, body).unwrap().into_upcall();
        let _ = self.0.send(upcall.unwrap());
    }

    fn closed(&self, _reason: &CloseReason) {}
}

pub(crate) struct Client {
    pub(crate) connection: Arc<Connection>,
    pub(crate) upcalls: mpsc::UnboundedReceiver<Upcall>,
    pub(crate) ctx: Context,
}

impl Client {
    /// Connects without a handshake.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let (sender, upcalls) = mpsc::unbounded_channel();
        let endpoint = Endpoint::Address(address);
        let connection = Connection::connect(&endpoint, Options::default(), Arc::new(Heard(sender))).await.unwrap();
        let ctx = Context { pid: Pid(1), lk_owner: LkOwner::from_u64(1), ..Context::default() };
        Self { connection, upcalls, ctx }
    }

    /// Connects and says that it mounts the brick.
    pub(crate) async fn mount(address: SocketAddr, directory: &Directory) -> Self {
        let client = Self::connect(address).await;
        let reply = client.setvolume(&params(directory)).await;
        assert_eq!(reply.op_ret, 0, "{:?}", reply.dict.into_dict().get_str("ERROR"));
        client
    }

    pub(crate) async fn setvolume(&self, params: &Dict) -> SetvolumeReply {
        let request = SetvolumeRequest { dict: params.clone().into() };
        self.message(procedure(handshake::SETVOLUME), &request).await.unwrap()
    }

    pub(crate) async fn message<R: Message>(
        &self,
        procedure: Procedure,
        request: &impl Message,
    ) -> Result<R, CallError> {
        let mut out = Writer::new();
        request.encode(&mut out);
        let body = self.connection.call(procedure, AuthKind::V3, &self.ctx, out.into_inner(), None).await?;
        Ok(R::decode(body).unwrap())
    }

    /// Performs a fop; the connection must hold.
    pub(crate) async fn fop<F: Fop>(&self, request: F) -> Result<F::Reply, Errno> {
        self.try_fop(request).await.expect("the brick answers")
    }

    pub(crate) async fn fop_as<F: Fop>(&self, ctx: &Context, request: F) -> Result<F::Reply, Errno> {
        self.try_fop_as(ctx, request).await.expect("the brick answers")
    }

    pub(crate) async fn try_fop<F: Fop>(&self, request: F) -> Result<Result<F::Reply, Errno>, CallError> {
        self.try_fop_as(&self.ctx, request).await
    }

    async fn try_fop_as<F: Fop>(&self, ctx: &Context, request: F) -> Result<Result<F::Reply, Errno>, CallError> {
        let mut out = Writer::new();
        let payload = encode_request(&request.into(), &mut out);
        let procedure = Procedure::new(FOP.number, FOP.version, F::KIND.number());
        let body = self.connection.call(procedure, AuthKind::V3, ctx, out.into_inner(), payload).await?;
        let outcome = decode_reply(F::KIND, body).expect("the brick's answer is well-formed");
        Ok(outcome.map_err(|failure| failure.errno).map(|reply| F::Reply::try_from(reply).unwrap()))
    }

    pub(crate) async fn create(&self, parent: Gfid, name: &str) -> Result<CreateReply, Errno> {
        self.fop(create(parent, name)).await
    }

    pub(crate) async fn lookup(&self, parent: Gfid, name: &str) -> Result<LookupReply, Errno> {
        self.fop(lookup(parent, name)).await
    }
}

pub(crate) fn procedure(number: u32) -> Procedure {
    Procedure::new(HANDSHAKE.number, HANDSHAKE.version, number)
}

/// What a client says at least.
pub(crate) fn params(directory: &Directory) -> Dict {
    Dict::new()
        .with("remote-subvolume", Value::str(directory.name()))
        .with("process-uuid", Value::str(format!("CTX_ID:{}", Gfid::random())))
        .with("fops-version", Value::Int(FOP.number.into()))
        .with("opversion", Value::Int(100_000))
}

pub(crate) fn name_of(name: &str) -> Bytes {
    Bytes::from(name.to_owned())
}

pub(crate) fn with_gfid() -> Option<Dict> {
    Some(Dict::new().with(GFID_REQ, Value::Gfid(Gfid::random())))
}

pub(crate) fn create(parent: Gfid, name: &str) -> Create {
    // O_RDWR | O_CREAT
    Create { parent, flags: 0o102, mode: 0o100_644, umask: 0, name: name_of(name), xdata: with_gfid() }
}

pub(crate) fn lookup(parent: Gfid, name: &str) -> Lookup {
    Lookup { gfid: Gfid::NULL, parent, flags: 0, name: name_of(name), xdata: None }
}
