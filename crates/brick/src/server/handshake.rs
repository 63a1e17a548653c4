//! SETVOLUME: who the client is, which brick and directory it wants, whether it may.
//!
//! Order of the checks, texts and error numbers are those of `xlators/protocol/server/src/server-handshake.c`.

use mortar_rpc::server::Peer;
use mortar_types::keys::COMPOUNDS;
use mortar_types::{Dict, Errno, Gfid, Value};
use mortar_wire::handshake::SetvolumeReply;
use mortar_wire::programs::FOP;

use super::Brick;
use super::subdir::Root;
use crate::auth::{Claim, Origin, Resolved, Rules, Verdict};

/// Addresses are resolved for at most so long: the client waits.
const RESOLVE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// No option of a client is longer; some are kept as long as it is connected.
const VALUE_BYTES_MAX: usize = 4096;

/// A client that has been admitted.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) root: Root,
    /// Knows the volume's password.
    pub(super) trusted: bool,
    pub(super) op_version: u32,
    /// `fuse`, `glustershd`, …
    pub(super) process_name: String,
    pub(super) process_uuid: String,
    identity: Identity,
}

/// What is judged, kept to judge it again when the rules change.
#[derive(Clone, Debug)]
struct Identity {
    origin: Origin,
    username: Option<String>,
    password: Option<String>,
    subdir: String,
}

impl Identity {
    fn claim(&self) -> Claim<'_> {
        Claim {
            origin: self.origin,
            username: self.username.as_deref(),
            password: self.password.as_deref(),
            certificate_name: None,
            subdir: &self.subdir,
        }
    }
}

impl Bound {
    /// Whether the client would be admitted under these rules.
    pub(super) fn is_admitted(&self, rules: &Rules, resolved: &Resolved) -> bool {
        rules.judge(&self.identity.claim(), resolved) != Verdict::Refused
    }
}

/// A refusal: error number and text of the reply.
struct Refusal(Errno, String);

impl Refusal {
    fn new(errno: Errno, text: &str) -> Self {
        Self(errno, text.to_owned())
    }
}

/// Answers SETVOLUME; with the client when it is admitted.
pub(super) async fn setvolume(brick: &Brick, peer: &Peer, params: &Dict) -> (SetvolumeReply, Option<Bound>) {
    let mut reply = Dict::new();
    match admit(brick, peer, params, &mut reply).await {
        Ok(bound) => {
            reply.set("ERROR", Value::str("Success"));
            // Real bricks leave EINVAL in the errno of a success; clients look at op_ret alone.
            (SetvolumeReply { op_ret: 0, op_errno: Errno::EINVAL.0, dict: reply.into() }, Some(bound))
        }
        Err(Refusal(errno, text)) => {
            reply.set("ERROR", Value::str(text));
            (SetvolumeReply { op_ret: -1, op_errno: errno.0, dict: reply.into() }, None)
        }
    }
}

async fn admit(brick: &Brick, peer: &Peer, params: &Dict, reply: &mut Dict) -> Result<Bound, Refusal> {
    let text = |key: &str| params.get_str(key).map(str::to_owned);
    if params.iter().any(|(_, value)| value.as_bytes().is_some_and(|bytes| bytes.len() > VALUE_BYTES_MAX)) {
        return Err(Refusal::new(Errno::EINVAL, "Internal error: failed to unserialize request dictionary"));
    }
    let wanted = params
        .get_str("remote-subvolume")
        .ok_or_else(|| Refusal::new(Errno::EINVAL, "No remote-subvolume option specified"))?;
    reply.set("child_up", Value::Int(1));
    let process_uuid = text("process-uuid").ok_or_else(|| Refusal::new(Errno::EINVAL, "UUID not specified"))?;
    // A real brick finds out last that it is another one, but then has no volume-id to compare.
    let is_ours = wanted == brick.name;
    if is_ours {
        check_volume_id(brick, params)?;
        reply.set("volume-id", Value::str(brick.volume_id.to_string()));
    }
    check_version(params)?;
    if !is_ours {
        return Err(Refusal::new(Errno::ENOENT, "Brick not found"));
    }
    let subdir = text("subdir-mount");
    let identity = Identity {
        origin: origin(peer),
        username: text("username"),
        password: text("password"),
        subdir: subdir.clone().unwrap_or_else(|| "/".to_owned()),
    };
    let rules = brick.options();
    let resolved = resolve(&rules.auth).await;
    let Verdict::Admitted { trusted } = rules.auth.judge(&identity.claim(), &resolved) else {
        tracing::error!(%peer, process_uuid, "refused a client: authentication failed");
        return Err(Refusal::new(Errno::EACCES, "Authentication failed"));
    };
    reply.set("process-uuid", Value::str(brick.process_uuid.clone()));
    reply.set("clnt-lk-version", Value::Int(0));
    // A pointer in GlusterFS; clients only print it.
    reply.set("transport-ptr", Value::Uint(1));
    // For our own clients; GlusterFS's read what they know.
    reply.set(COMPOUNDS, Value::Int(1));
    let root = find_root(brick, subdir.as_deref()).await?;
    Ok(Bound {
        root,
        trusted,
        op_version: params.get_u64("opversion").and_then(|version| version.try_into().ok()).unwrap_or(0),
        process_name: text("process-name").unwrap_or_else(|| "unknown".to_owned()),
        process_uuid,
        identity,
    })
}

fn check_volume_id(brick: &Brick, params: &Dict) -> Result<(), Refusal> {
    let Some(asked) = params.get_str("volume-id") else { return Ok(()) };
    if asked.parse::<Gfid>().is_ok_and(|asked| asked == brick.volume_id) {
        return Ok(());
    }
    let text = "Volume-ID different, possible case of same brick re-used in another volume";
    Err(Refusal::new(Errno::EINVAL, text))
}

fn check_version(params: &Dict) -> Result<(), Refusal> {
    let fops = params.get_i64("fops-version").unwrap_or(0);
    if fops == i64::from(FOP.number) {
        return Ok(());
    }
    let management = params.get_i64("mgmt-version").unwrap_or(0);
    Err(Refusal(Errno::EINVAL, format!("version mismatch: client({fops}) - client-mgmt({management})")))
}

async fn find_root(brick: &Brick, subdir: Option<&str>) -> Result<Root, Refusal> {
    let path = subdir.unwrap_or("/");
    Root::find(&brick.stack.top, path).await.map_err(|errno| {
        tracing::warn!(path, %errno, "refused a client: the directory it mounts is not there");
        Refusal(Errno::ENOENT, format!("subdirectory for mount \"{path}\" is not found"))
    })
}

fn origin(peer: &Peer) -> Origin {
    match peer {
        Peer::Tcp { remote, .. } => Origin::Address(remote.ip().to_canonical(), remote.port()),
        Peer::Unix { .. } => Origin::Unix,
    }
}

/// The addresses of the host names in the rules. A name that cannot be resolved matches nobody.
pub(super) async fn resolve(rules: &Rules) -> Resolved {
    let mut resolved = Resolved::new();
    for name in rules.host_names() {
        if resolved.contains_key(name) {
            continue;
        }
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
        let addresses = match found {
            Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
            Ok(Err(error)) => {
                tracing::warn!(name, %error, "a host name in auth.allow or auth.reject is not known");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(name, "a host name in auth.allow or auth.reject could not be resolved in time");
                Vec::new()
            }
        };
        resolved.insert(name.to_owned(), addresses);
    }
    resolved
}
