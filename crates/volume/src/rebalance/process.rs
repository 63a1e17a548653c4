//! `mortar rebalance`: one process per node that does the node's part of one volume's job (GlusterFS's rebalance process).
//!
//! It answers its control socket from its start until it is told to end, also when it has nothing left to do: what it has
//! done is asked of it until the pool has taken note. SIGTERM and `terminate` let files that are under way come to their
//! end. Killed, it leaves nothing that its successor cannot go on with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mortar_api::rebalance::{Control, Mode};
use mortar_logic::rebalance::throttle::Level;
use mortar_rpc::Endpoint;
use mortar_rpc::control::{Handler, Reply, Request, StatusReply};
use mortar_wire::volfile::Volfile;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::Volume;
use super::crawl::{self, Desk, Job};
use crate::getspec::{self, VolfileServer};
use crate::graph::{Graph, GraphOptions};
use crate::role::{self, Process};

/// The node's daemon may still be starting: how long until it is asked again for a volfile.
const GETSPEC_RETRY: Duration = Duration::from_secs(1);
/// The reply to the last request is still on its way.
const LAST_REPLY: Duration = Duration::from_millis(50);

/// The command line of `mortar rebalance`.
#[derive(Clone, Debug)]
pub struct Options {
    pub role: role::Options,
    pub volume: String,
    pub mode: Mode,
    pub task: Uuid,
    pub node_uuid: Uuid,
    pub path: Option<String>,
    pub dry_run: bool,
    pub checkpoint: PathBuf,
}

/// Runs until SIGTERM, SIGINT or the control socket ends it, or until the volume has changed: the next process works with
/// it as it is then. What is wrong with the job is its state, for who asks.
pub async fn run(options: Options) -> Result<(), role::Error> {
    let mut process = Process::begin(options.role.clone())?;
    let desk = Desk::new(options.mode, options.dry_run);
    let told = Arc::new(Notify::new());
    process.answer(Arc::new(Answers { desk: Arc::clone(&desk), told: Arc::clone(&told) }))?;
    tracing::info!(volume = options.volume, mode = %options.mode, task = %options.task, "rebalance begins");
    let mut work = tokio::spawn(work(options, process.server.clone(), Arc::clone(&desk)));
    let changed = tokio::select! {
        () = process.signalled() => false,
        () = told.notified() => false,
        _ = &mut work => true,
    };
    if !changed {
        desk.order(Control::Stop);
        let _ = (&mut work).await;
        tokio::time::sleep(LAST_REPLY).await;
    }
    tracing::info!("rebalance ends");
    Ok(())
}

/// Returns when the process is to end.
async fn work(options: Options, server: Endpoint, desk: Arc<Desk>) {
    let Some(volfiles) = volfile_server(&options, server.clone(), &desk).await else { return };
    let mut volfile = volfiles.volfile();
    let text = Arc::clone(&volfile.borrow_and_update());
    let (graph, volume, level) = match built(&options, &text, &server) {
        Ok(built) => built,
        Err(message) => {
            desk.tally.fail(message);
            desk.orders.ended().await;
            return;
        }
    };
    let Options { mode, task, path, dry_run, checkpoint, .. } = options;
    let job = Job { mode, task, node: options.node_uuid, path, dry_run, checkpoint, level };
    let mut running = std::pin::pin!(crawl::run(job, volume, Arc::clone(&desk)));
    tokio::select! {
        () = &mut running => desk.orders.ended().await,
        () = becomes_other(&mut volfile, &text) => {
            tracing::info!("the volume has changed: another process goes on");
            desk.order(Control::Stop);
            running.await;
        }
    }
    drop(graph);
}

/// Asks until there is one, or until the job is to end.
async fn volfile_server(options: &Options, server: Endpoint, desk: &Desk) -> Option<VolfileServer> {
    let asked = getspec::Options::new(vec![server], format!("rebalance/{}", options.volume));
    loop {
        match VolfileServer::connect(asked.clone()).await {
            Ok(server) => return Some(server),
            Err(error) => {
                tracing::warn!(%error, "no volfile yet");
                desk.tally.say(Some(error.to_string()));
            }
        }
        if !desk.orders.sleep(GETSPEC_RETRY).await {
            return None;
        }
    }
}

fn built(options: &Options, text: &str, server: &Endpoint) -> Result<(Graph, Volume, Level), String> {
    let volfile = Volfile::parse(text).map_err(|error| error.to_string())?;
    let graph_options = GraphOptions {
        glusterd_port: getspec::port_of(server),
        ..GraphOptions::new("rebalance", format!("rebalance/{}", options.volume))
    };
    let graph = Graph::build(&volfile, graph_options).map_err(|error| error.to_string())?;
    let volume = Volume::of(&graph).ok_or_else(|| format!("volume {} is not distributed", options.volume))?;
    Ok((graph, volume, level(&volfile)))
}

/// `cluster.rebal-throttle`; what cannot be read is the default.
fn level(volfile: &Volfile) -> Level {
    let section = volfile.volumes.iter().find(|section| section.kind == "cluster/distribute");
    let text = section.and_then(|section| section.option("rebal-throttle"));
    text.and_then(Level::parse).unwrap_or_default()
}

async fn becomes_other(volfile: &mut watch::Receiver<Arc<str>>, text: &Arc<str>) {
    // The follower ends only with the process.
    if volfile.wait_for(|now| now != text).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The control socket's side.
struct Answers {
    desk: Arc<Desk>,
    told: Arc<Notify>,
}

#[async_trait]
impl Handler for Answers {
    async fn request(&self, request: Request) -> Reply {
        match request {
            Request::Status { .. } => Reply::Status(StatusReply { pid: std::process::id(), ..StatusReply::default() }),
            Request::RebalanceStatus => Reply::Rebalance(Box::new(self.desk.progress())),
            Request::Terminate | Request::RebalanceControl { control: Control::Stop } => {
                self.told.notify_one();
                Reply::Ok
            }
            Request::RebalanceControl { control } => {
                self.desk.order(control);
                Reply::Ok
            }
            // The volfile is followed anyway.
            Request::Reload => Reply::Ok,
            Request::Heal { .. } | Request::Progress { .. } | Request::Crawls { .. } => {
                Reply::Error { message: "this is a rebalance, not a heal daemon".to_owned() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_is_an_option_of_distribute() {
        let volfile = |option: &str| {
            let text = format!(
                "volume c\n type protocol/client\nend-volume\nvolume d\n type cluster/distribute\n{option} subvolumes c\nend-volume\n"
            );
            Volfile::parse(&text).unwrap()
        };
        assert_eq!(level(&volfile(" option rebal-throttle lazy\n")), Level::Lazy);
        assert_eq!(level(&volfile("")), Level::Normal);
    }
}
