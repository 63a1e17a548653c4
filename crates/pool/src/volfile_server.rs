//! The daemon's port 24007 as mounts, bricks and old tools know it: handshake and portmap.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::BytesMut;
use mortar_rpc::Procedure;
use mortar_rpc::server::{Connection, IncomingCall, Peer, Program, Response, Service, Session};
use mortar_types::{ClientId, Dict, Errno, Value};
use mortar_wire::handshake::{
    CommonReply, EventNotifyReply, EventNotifyRequest, GetVolumeInfoReply, GetVolumeInfoRequest, GetspecReply,
    GetspecRequest,
};
use mortar_wire::message::Message;
use mortar_wire::portmap::{
    BrickByPortReply, BrickByPortRequest, PortByBrickReply, PortByBrickRequest, SignInRequest, SignOutRequest,
    SignReply,
};
use mortar_wire::programs;
use mortar_wire::xdr::Writer;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::getspec;
use crate::peers::Peers;
use crate::portmap::{Portmap, Registration};
use crate::raft::View;
use crate::resolve;
use crate::volgen::Trust;

/// What DUMP lists, in glusterd's order and by its names.
const PROGRAMS: &[Program] = &[
    Program { name: "Gluster Portmap", number: programs::PORTMAP.number, version: programs::PORTMAP.version },
    Program {
        name: "Gluster Handshake",
        number: programs::GLUSTERD_HANDSHAKE.number,
        version: programs::GLUSTERD_HANDSHAKE.version,
    },
];

const FETCHSPEC: Procedure =
    Procedure::new(programs::CALLBACK.number, programs::CALLBACK.version, programs::callback::FETCHSPEC);

/// In GETSPEC's flags: the client wants to know the other volfile servers.
const WANTS_SERVERS: u32 = 1;

/// Shared by all connections.
#[derive(Debug)]
pub(crate) struct VolfileServer {
    view: watch::Receiver<Arc<View>>,
    portmap: Arc<Portmap>,
    peers: Arc<Peers>,
    data_dir: PathBuf,
    connections: Mutex<Vec<Weak<Connection>>>,
}

impl VolfileServer {
    pub(crate) fn new(
        view: watch::Receiver<Arc<View>>,
        portmap: Arc<Portmap>,
        peers: Arc<Peers>,
        data_dir: PathBuf,
    ) -> Arc<Self> {
        Arc::new(Self { view, portmap, peers, data_dir, connections: Mutex::new(Vec::new()) })
    }

    /// Tells every connection to fetch its volfile again, whenever a volume changes, until dropped.
    pub(crate) async fn announce_changes(self: Arc<Self>) {
        let mut view = self.view.clone();
        let mut volumes = view.borrow_and_update().state.volumes.clone();
        while view.changed().await.is_ok() {
            let changed = {
                let now = &view.borrow_and_update().state.volumes;
                let changed = *now != volumes;
                if changed {
                    volumes.clone_from(now);
                }
                changed
            };
            if changed {
                self.tell_all();
            }
        }
    }

    fn tell_all(&self) {
        let open: Vec<_> = {
            let mut connections = self.connections.lock();
            connections.retain(|connection| connection.strong_count() > 0);
            connections.iter().filter_map(Weak::upgrade).collect()
        };
        for connection in open {
            connection.callback(FETCHSPEC, BytesMut::new());
        }
    }

    fn getspec(&self, request: &GetspecRequest, trust: Trust) -> GetspecReply {
        let view = self.view.borrow().clone();
        match getspec::volfile(&view.state, &request.key, trust, &self.data_dir) {
            Ok(spec) => GetspecReply {
                op_ret: i32::try_from(spec.len()).unwrap_or(i32::MAX),
                op_errno: 0,
                spec,
                xdata: self.servers(&view, request.flags).into(),
            },
            Err(errno) => {
                tracing::info!(key = %request.key, %errno, "volfile refused");
                GetspecReply { op_ret: -1, op_errno: errno.0, spec: String::new(), xdata: Dict::new().into() }
            }
        }
    }

    /// The connected peers, for clients to turn to when this node is gone.
    fn servers(&self, view: &View, flags: u32) -> Dict {
        let others = view
            .state
            .members
            .values()
            .filter(|member| member.uuid != self.peers.local() && self.peers.is_connected(member.uuid));
        let list: String = others.map(|member| format!("{}:{} ", member.hostname, member.port)).collect();
        let mut dict = Dict::new();
        if flags & WANTS_SERVERS != 0 && !list.is_empty() {
            dict.set("cluster.brick-vol-servers", Value::str(list));
        }
        dict
    }

    fn volume_info(&self, request: GetVolumeInfoRequest) -> GetVolumeInfoReply {
        let dict = request.dict.into_dict();
        let view = self.view.borrow().clone();
        let volume = dict.get_str("volname").and_then(|name| view.state.volumes.get(name));
        match volume {
            Some(volume) => GetVolumeInfoReply {
                dict: Dict::new().with("volume_id", Value::str(volume.id.to_string())).into(),
                ..GetVolumeInfoReply::default()
            },
            None => GetVolumeInfoReply {
                op_ret: -1,
                op_errno: Errno::EINVAL.0,
                error_text: "Volume does not exist".to_owned(),
                dict: Dict::new().into(),
            },
        }
    }
}

/// A service that hands out sessions; the server itself lives on in the daemon.
#[derive(Debug)]
pub(crate) struct Front(pub Arc<VolfileServer>);

impl Service for Front {
    fn connected(&self, connection: Arc<Connection>) -> Arc<dyn Session> {
        self.0.connections.lock().push(Arc::downgrade(&connection));
        let trust = trust(connection.peer());
        Arc::new(Client { server: Arc::clone(&self.0), id: connection.id(), trust })
    }
}

/// Processes of this machine get the volume's login; others are admitted by address.
fn trust(peer: &Peer) -> Trust {
    let local = match peer {
        Peer::Unix { .. } => true,
        Peer::Tcp { remote, .. } => is_local(remote.ip().to_canonical()),
    };
    if local { Trust::Trusted } else { Trust::Untrusted }
}

fn is_local(address: IpAddr) -> bool {
    resolve::is_of_this_machine(address)
}

#[derive(Debug)]
struct Client {
    server: Arc<VolfileServer>,
    id: ClientId,
    trust: Trust,
}

impl Client {
    fn handshake(&self, number: u32, body: bytes::Bytes) -> Option<Response> {
        match number {
            programs::handshake::GETSPEC => Some(answer(body, |request| self.server.getspec(&request, self.trust))),
            programs::handshake::PING => Some(reply(&CommonReply::default())),
            programs::handshake::EVENT_NOTIFY => Some(answer(body, |_: EventNotifyRequest| EventNotifyReply {
                dict: Dict::new().into(),
                ..EventNotifyReply::default()
            })),
            programs::handshake::GET_VOLUME_INFO => Some(answer(body, |request| self.server.volume_info(request))),
            _ => None,
        }
    }

    fn portmap(&self, number: u32, body: bytes::Bytes) -> Option<Response> {
        let map = &self.server.portmap;
        match number {
            programs::portmap::PORT_BY_BRICK => {
                Some(answer(body, |request: PortByBrickRequest| match map.port_of(&request.brick) {
                    Some(port) => PortByBrickReply { op_ret: 0, op_errno: 0, status: 1, port: port.into() },
                    None => PortByBrickReply { op_ret: -1, op_errno: Errno::ENOENT.0, status: 0, port: 0 },
                }))
            }
            programs::portmap::BRICK_BY_PORT => {
                Some(answer(body, |request: BrickByPortRequest| {
                    match u16::try_from(request.port).ok().and_then(|port| map.brick_at(port)) {
                        Some(brick) => BrickByPortReply { op_ret: 0, op_errno: 0, status: 1, brick },
                        None => {
                            BrickByPortReply { op_ret: -1, op_errno: Errno::ENOENT.0, status: 0, brick: String::new() }
                        }
                    }
                }))
            }
            programs::portmap::SIGN_IN => Some(answer(body, |request: SignInRequest| self.sign_in(&request))),
            programs::portmap::SIGN_OUT => Some(answer(body, |request: SignOutRequest| {
                // Whoever may sign in may sign out; both only change where clients look.
                if let Ok(port) = u16::try_from(request.port)
                    && self.trust == Trust::Trusted
                {
                    map.forget(&request.brick, port);
                }
                SignReply { op_ret: 0, op_errno: 0 }
            })),
            _ => None,
        }
    }

    fn sign_in(&self, request: &SignInRequest) -> SignReply {
        let port = u16::try_from(request.port).ok().filter(|port| *port != 0);
        match port {
            // A brick runs on this machine; a stranger must not send clients elsewhere.
            Some(port) if self.trust == Trust::Trusted => {
                let pid = u32::try_from(request.pid).unwrap_or(0);
                self.server.portmap.register(&request.brick, Registration { port, pid, by: Some(self.id) });
                SignReply { op_ret: 0, op_errno: 0 }
            }
            Some(_) => SignReply { op_ret: -1, op_errno: Errno::EPERM.0 },
            None => SignReply { op_ret: -1, op_errno: Errno::EINVAL.0 },
        }
    }
}

fn answer<Q: Message, A: Message>(body: bytes::Bytes, work: impl FnOnce(Q) -> A) -> Response {
    match Q::decode(body) {
        Ok(request) => reply(&work(request)),
        Err(_) => Response::GarbageArgs,
    }
}

fn reply(message: &impl Message) -> Response {
    let mut out = Writer::new();
    message.encode(&mut out);
    Response::success(out.into_inner())
}

#[async_trait]
impl Session for Client {
    fn programs(&self) -> &[Program] {
        PROGRAMS
    }

    async fn handle(&self, call: IncomingCall) -> Response {
        let Procedure { program, number, .. } = call.procedure;
        let response = if program == programs::PORTMAP.number {
            self.portmap(number, call.body)
        } else {
            self.handshake(number, call.body)
        };
        response.unwrap_or(Response::ProcUnavail)
    }

    fn disconnected(&self) {
        self.server.portmap.disconnected(self.id);
    }
}
