//! The listening sockets of the HTTP service.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::Caller;
use crate::node::Node;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a request's head within this time the connection is closed; members keep theirs busy with heartbeats.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Beyond, new connections wait in the backlog: a pool's members keep a handful each.
const CONNECTIONS_MAX: usize = 512;
const BACKLOG: u32 = 128;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound pool port.
#[derive(Debug)]
pub(crate) struct PeerListener(TcpListener);

impl PeerListener {
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket.listen(BACKLOG)?))
    }
}

/// Serves members, and strangers who want to claim this node, until dropped.
pub(crate) async fn serve_peers(listener: PeerListener, node: Arc<Node>, router: Router) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let accepted = loop {
            tokio::select! {
                accepted = listener.0.accept() => break accepted,
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            Ok((stream, address)) => {
                let (node, router) = (Arc::clone(&node), router.clone());
                connections.spawn(async move {
                    if let Err(error) = serve_peer(stream, address, &node, router).await {
                        tracing::debug!(%address, %error, "a peer's connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a peer failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_peer(stream: TcpStream, address: SocketAddr, node: &Node, router: Router) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let material = node.tls.current();
    let handshake = TlsAcceptor::from(Arc::clone(&material.server)).accept(stream);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(node_of);
    let caller = match shown {
        Some(uuid) => Caller::Member { uuid, generation: material.generation },
        None => Caller::Stranger { address },
    };
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

/// The node that a verified certificate names: its host name is `UUID.mortar` (see `identity::tls_name`). The name is
/// found by its bytes, because its place in the certificate is fixed by our own writing of it and the signature has
/// been checked.
fn node_of(certificate: &CertificateDer<'static>) -> Option<Uuid> {
    const SUFFIX: &[u8] = b".mortar";
    const UUID_BYTES: usize = 36;
    let bytes = certificate.as_ref();
    let end = bytes.windows(SUFFIX.len()).position(|window| window == SUFFIX)?;
    let text = bytes.get(end.checked_sub(UUID_BYTES)?..end)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Serves root of this machine until dropped. A socket left behind by a killed daemon is replaced; one that answers is
/// an error.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn serve_unix(path: &Path, router: Router) -> io::Result<impl Future<Output = ()> + use<>> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon answers there"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let router = router.layer(Extension(Caller::Local));
    Ok(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the API socket ended");
        }
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use uuid::Uuid;

    use super::node_of;
    use crate::identity::Identity;

    #[test]
    fn a_certificate_names_its_node() {
        let uuid = Uuid::new_v4();
        let identity = Identity::fresh(uuid).expect("makes");
        let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("is PEM");
        assert_eq!(node_of(&der), Some(uuid));
        let authority = CertificateDer::from_pem_slice(identity.authority.certificate.as_bytes()).expect("is PEM");
        assert_eq!(node_of(&authority), None);
    }
}
