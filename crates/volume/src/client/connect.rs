//! From a host name to a connection on which the brick takes fops: glusterd, portmap, SETVOLUME.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use mortar_rpc::client::{CallError, Connection, Events};
use mortar_rpc::{AuthKind, Endpoint, Procedure, client as rpc};
use mortar_types::{Context, Dict, Errno, Value, keys};
use mortar_wire::handshake::{DUMP_ID, DumpReply, DumpRequest, SetvolumeReply, SetvolumeRequest};
use mortar_wire::message::Message;
use mortar_wire::portmap::{PortByBrickReply, PortByBrickRequest};
use mortar_wire::programs::{self, Program};
use mortar_wire::xdr::{DecodeError, Writer};
use uuid::Uuid;

use crate::client::options::Options;

/// The op-version that we tell bricks: GlusterFS 10's.
const OP_VERSION: i64 = 100_000;

/// Why there is no connection to the brick.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect to {endpoint}: {reason}")]
    Unreachable { endpoint: String, reason: String },
    #[error("{endpoint} does not answer")]
    Timeout { endpoint: String },
    #[error("brick {host}:{brick} is not running")]
    NotRunning { host: String, brick: String },
    /// The brick does not let this client in; trying again does not help before the volume's options change.
    #[error("brick {host}:{brick} refuses this client: {text}")]
    AuthFailed { host: String, brick: String, text: String },
    #[error("brick {host}:{brick} refuses the connection: {text} ({errno})")]
    Refused { host: String, brick: String, errno: Errno, text: String },
    #[error("brick {host}:{brick} belongs to another volume now ({found} instead of {expected})")]
    OtherVolume { host: String, brick: String, expected: Uuid, found: Uuid },
    #[error("{endpoint} speaks neither the file operations nor the portmap of GlusterFS 4 or later")]
    WrongProgram { endpoint: String },
    #[error("{endpoint} answers nonsense: {reason}")]
    Protocol { endpoint: String, reason: String },
    /// It was up and has closed.
    #[error("the connection to {endpoint} broke: {reason}")]
    Broken { endpoint: String, reason: String },
    /// The brick behind the connection has stopped (GF_CBK_CHILD_DOWN).
    #[error("the brick has stopped serving")]
    ChildDown,
}

/// A connection that takes fops.
pub(super) struct Ready {
    pub(super) connection: Arc<Connection>,
    pub(super) endpoint: String,
    pub(super) volume_id: Option<Uuid>,
    /// `false`: the brick behind it does not serve yet; a callback will tell.
    pub(super) child_up: bool,
    /// The brick takes the keys of compounds.
    pub(super) compounds: bool,
}

/// Goes all the way. `attempt` numbers the attempts of this client; `volume_id` is what earlier connections found.
pub(super) async fn connect(
    options: &Options,
    attempt: u64,
    volume_id: Option<Uuid>,
    events: Arc<dyn Events>,
) -> Result<Ready, ConnectError> {
    let port = match options.port {
        Some(port) => port,
        None => match find_port(options, &events).await? {
            Found::Port(port) => port,
            // The port we took for glusterd's is a brick's own.
            Found::Brick(step) => return set_volume(options, step, attempt, volume_id).await,
        },
    };
    let step = Step::connect(options, port, options.ping_timeout, events).await?;
    let programs = step.dump().await?;
    if !programs.has(programs::FOP) {
        return Err(ConnectError::WrongProgram { endpoint: step.endpoint });
    }
    set_volume(options, step, attempt, volume_id).await
}

enum Found {
    Port(u16),
    Brick(Step),
}

async fn find_port(options: &Options, events: &Arc<dyn Events>) -> Result<Found, ConnectError> {
    // The portmap connection must not tell the owner of its end; a brick found there must.
    let step = Step::connect(options, options.glusterd_port, options.ping_timeout, Arc::new(Silent)).await?;
    let programs = step.dump().await?;
    if programs.has(programs::PORTMAP) {
        let request = PortByBrickRequest { brick: options.subvolume.clone() };
        let procedure = programs::portmap::PORT_BY_BRICK;
        let reply: PortByBrickReply = step.call(programs::PORTMAP, procedure, AuthKind::V2, &request).await?;
        return match u16::try_from(reply.port) {
            Ok(port) if reply.op_ret >= 0 && port != 0 => Ok(Found::Port(port)),
            _ => Err(ConnectError::NotRunning { host: options.host.clone(), brick: options.subvolume.clone() }),
        };
    }
    if !programs.has(programs::FOP) {
        return Err(ConnectError::WrongProgram { endpoint: step.endpoint });
    }
    drop(step);
    Ok(Found::Brick(Step::connect(options, options.glusterd_port, options.ping_timeout, Arc::clone(events)).await?))
}

async fn set_volume(
    options: &Options,
    step: Step,
    attempt: u64,
    volume_id: Option<Uuid>,
) -> Result<Ready, ConnectError> {
    let request = SetvolumeRequest { dict: introduction(options, attempt, volume_id).into() };
    let procedure = programs::handshake::SETVOLUME;
    let reply: SetvolumeReply = step.call(programs::HANDSHAKE, procedure, AuthKind::V3, &request).await?;
    let (op_ret, op_errno, dict) = (reply.op_ret, reply.op_errno, reply.dict.into_dict());
    let (host, brick) = (options.host.clone(), options.subvolume.clone());
    if op_ret < 0 {
        let text = dict.get_str("ERROR").unwrap_or("no reason is given").to_owned();
        return Err(match Errno(op_errno) {
            Errno::EACCES => ConnectError::AuthFailed { host, brick, text },
            // A directory that does not exist will not appear by waiting (`client-handshake.c`, subdir mounts).
            Errno::ENOENT if options.subdir.is_some() && text.contains("subdirectory") => {
                ConnectError::AuthFailed { host, brick, text }
            }
            errno => ConnectError::Refused { host, brick, errno, text },
        });
    }
    let found = dict.get_str("volume-id").and_then(|text| text.parse().ok());
    if let (Some(expected), Some(found)) = (volume_id, found)
        && expected != found
    {
        return Err(ConnectError::OtherVolume { host, brick, expected, found });
    }
    let child_up = dict.get_i64("child_up") != Some(0);
    let compounds = dict.get_i64(keys::COMPOUNDS) == Some(1);
    Ok(Ready { connection: step.connection, endpoint: step.endpoint, volume_id: found, child_up, compounds })
}

/// SETVOLUME's dict (`client-handshake.c: client_setvolume`): what bricks look at or show.
fn introduction(options: &Options, attempt: u64, volume_id: Option<Uuid>) -> Dict {
    let mut dict = Dict::new()
        .with("remote-subvolume", Value::str(options.subvolume.clone()))
        .with("remote-host", Value::str(options.host.clone()))
        .with("process-uuid", Value::str(options.identity.text(&options.name, attempt)))
        .with("process-name", Value::str(options.process_name.clone()))
        .with("fops-version", Value::Int(programs::FOP.number.into()))
        .with("client-version", Value::str(concat!("mortar-", env!("CARGO_PKG_VERSION"))))
        .with("opversion", Value::Int(OP_VERSION))
        .with("clnt-lk-version", Value::Int(1))
        .with("volfile-checksum", Value::Int(0))
        .with("volfile-key", Value::str(options.volfile_key.clone()))
        .with("ping-timeout", Value::Uint(options.ping_timeout.as_secs()))
        .with(keys::PULSE, Value::Int(1));
    let optional =
        [("username", &options.username), ("password", &options.password), ("subdir-mount", &options.subdir)];
    for (key, value) in optional {
        if let Some(value) = value {
            dict.set(key, Value::str(value.clone()));
        }
    }
    if let Some(id) = volume_id {
        dict.set("volume-id", Value::str(id.to_string()));
    }
    dict
}

/// A connection on the way, with names for its failures.
struct Step {
    connection: Arc<Connection>,
    endpoint: String,
    timeout: Duration,
}

impl Step {
    async fn connect(
        options: &Options,
        port: u16,
        ping_timeout: Duration,
        events: Arc<dyn Events>,
    ) -> Result<Self, ConnectError> {
        let endpoint = Endpoint::Host { host: options.host.clone(), port };
        let rpc_options = rpc::Options {
            connect_timeout: options.connect_timeout,
            ping_timeout,
            frame_timeout: options.frame_timeout,
            ..rpc::Options::default()
        };
        let connected = Connection::connect(&endpoint, rpc_options, events).await;
        let endpoint = endpoint.to_string();
        match connected {
            Ok(connection) => Ok(Self { connection, endpoint, timeout: options.step_timeout }),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(ConnectError::Timeout { endpoint }),
            Err(error) => Err(ConnectError::Unreachable { endpoint, reason: error.to_string() }),
        }
    }

    async fn dump(&self) -> Result<DumpReply, ConnectError> {
        let request = DumpRequest { gfs_id: DUMP_ID };
        self.call(programs::DUMP, programs::dump::DUMP, AuthKind::V2, &request).await
    }

    async fn call<Q: Message, A: Message>(
        &self,
        program: Program,
        number: u32,
        kind: AuthKind,
        request: &Q,
    ) -> Result<A, ConnectError> {
        let mut head = Writer::new();
        request.encode(&mut head);
        let procedure = Procedure::new(program.number, program.version, number);
        let answer = self.raw_call(procedure, kind, head.into_inner()).await?;
        A::decode(answer).map_err(|error: DecodeError| ConnectError::Protocol {
            endpoint: self.endpoint.clone(),
            reason: error.to_string(),
        })
    }

    async fn raw_call(&self, procedure: Procedure, kind: AuthKind, head: BytesMut) -> Result<Bytes, ConnectError> {
        let endpoint = || self.endpoint.clone();
        let context = Context::default();
        let call = self.connection.call(procedure, kind, &context, head, None);
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(CallError::Disconnected)) => {
                Err(ConnectError::Broken { endpoint: endpoint(), reason: "closed by the server".to_owned() })
            }
            Ok(Err(error)) => Err(ConnectError::Protocol { endpoint: endpoint(), reason: error.to_string() }),
            Err(_) => Err(ConnectError::Timeout { endpoint: endpoint() }),
        }
    }
}

/// Events of a connection that nobody follows.
struct Silent;

impl Events for Silent {
    fn callback(&self, _procedure: Procedure, _body: Bytes) {}

    fn closed(&self, _reason: &rpc::CloseReason) {}
}
