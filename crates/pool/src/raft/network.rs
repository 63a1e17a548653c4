//! Raft's messages as routes of the peers' HTTP service.

use std::sync::Arc;

use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
    VoteResponse,
};
use openraft::{AnyError, BasicNode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::TypeConfig;
use crate::peers::{CallError, Channel, Peers};

pub(crate) const APPEND: &str = "raft/append";
pub(crate) const VOTE: &str = "raft/vote";
pub(crate) const SNAPSHOT: &str = "raft/snapshot";

/// Makes a connection per member that is sent to.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    peers: Arc<Peers>,
}

impl Network {
    pub(crate) const fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: Uuid, node: &BasicNode) -> Connection {
        self.peers.learn_address(target, &node.addr);
        Connection { local: self.peers.local(), target, channel: self.peers.channel(target) }
    }
}

/// One member's.
#[derive(Debug)]
pub(crate) struct Connection {
    local: Uuid,
    target: Uuid,
    channel: Channel,
}

impl Connection {
    async fn send<Q, A, E>(
        &self,
        path: &str,
        request: &Q,
        option: &RPCOption,
        action: RPCTypes,
    ) -> Result<A, RPCError<Uuid, BasicNode, RaftError<Uuid, E>>>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
        E: std::error::Error + DeserializeOwned,
    {
        let timeout = option.hard_ttl();
        let answered =
            tokio::time::timeout(timeout, self.channel.post::<Q, Result<A, RaftError<Uuid, E>>>(path, request));
        match answered.await {
            Err(_) => Err(RPCError::Timeout(Timeout { action, id: self.local, target: self.target, timeout })),
            Ok(Err(error @ CallError::Connect(_))) => Err(RPCError::Unreachable(Unreachable::new(&error))),
            Ok(Err(error)) => Err(RPCError::Network(NetworkError::from(AnyError::new(&error)))),
            Ok(Ok(Err(error))) => Err(RPCError::RemoteError(RemoteError::new(self.target, error))),
            Ok(Ok(Ok(answer))) => Ok(answer),
        }
    }
}

impl RaftNetwork<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Uuid>, RPCError<Uuid, BasicNode, RaftError<Uuid>>> {
        self.send(APPEND, &request, &option, RPCTypes::AppendEntries).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<Uuid>, RPCError<Uuid, BasicNode, RaftError<Uuid, InstallSnapshotError>>> {
        self.send(SNAPSHOT, &request, &option, RPCTypes::InstallSnapshot).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Uuid>,
        option: RPCOption,
    ) -> Result<VoteResponse<Uuid>, RPCError<Uuid, BasicNode, RaftError<Uuid>>> {
        self.send(VOTE, &request, &option, RPCTypes::Vote).await
    }
}
