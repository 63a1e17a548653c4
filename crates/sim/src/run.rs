//! One run: clients at work among faults, then quiet, heal, and the questions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mortar_logic::heal::blocks::Algorithm;
use mortar_logic::heal::{Children, Resolve};
use mortar_logic::replicate::changelog::Keys;
use mortar_types::fop::{Lookup, Read};
use mortar_types::{Context, Fd, Fops, Gfid, Pid};
use mortar_volume::heal::ReplicaSet;
use mortar_volume::heal::sweep::{self, Progress};
use mortar_volume::replicate::{Options, Replicate};
use parking_lot::Mutex;

use crate::actor::{Actor, BLOCKS, Stage, numbers};
use crate::brick::Brick;
use crate::disk::{BLOCK_BYTES, Disk, Node, Tree};
use crate::faults::Faults;
use crate::history::{History, Register, Value};
use crate::link::{Link, LinkHandle, LinkOptions};
use crate::net::Net;
use crate::rng::Rng;
use crate::scenario::Setup;
use crate::trace::Trace;

/// How long faults happen.
const FAULTS_MS: u64 = 8_000;
/// After the faults: for connections to come back and for bricks to notice dead clients.
const RECOVERY_MS: u64 = 10_000;
/// No operation takes longer once faults are over and connections are back.
const OPERATION_MS_MAX: u64 = 10_000;
/// No run takes longer, faults included.
const RUN_MS_MAX: u64 = 120_000;
/// Between operations on a contended file: about as long as one takes.
const CONTENDED_PAUSE_MS: u64 = 20;
const HEAL_ROUNDS_MAX: usize = 30;
const VOLUME: &str = "v-replicate-0";
const VOLUME_ID: [u8; 16] = [0x42; 16];

/// What became of a run.
pub struct Report {
    pub hash: u64,
    pub steps: u64,
    /// The first broken promise.
    pub failure: Option<String>,
    pub lines: Vec<String>,
}

/// Runs one seed to its end, in a runtime of its own.
///
/// # Panics
///
/// When no runtime can be made.
pub fn run(setup: &Setup) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let trace = Trace::new(setup.with_text);
    let failure = runtime.block_on(async {
        let play = Play::new(setup, &trace);
        match tokio::time::timeout(Duration::from_millis(RUN_MS_MAX), play.run()).await {
            Ok(result) => result.err(),
            Err(_) => Some("hang: the run did not come to its end".to_owned()),
        }
    });
    runtime.shutdown_background();
    Report { hash: trace.hash(), steps: trace.steps(), failure, lines: trace.take_lines() }
}

struct Play {
    setup: Setup,
    stage: Stage,
    bricks: Vec<Arc<Brick>>,
    links: Vec<Vec<Arc<Link>>>,
    clients: Vec<Arc<Replicate>>,
    heal_set: Arc<ReplicaSet>,
    link_options: LinkOptions,
    rng: Rng,
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("v-client-{at}")).collect()
}

impl Play {
    fn new(setup: &Setup, trace: &Trace) -> Self {
        let mut rng = Rng::new(setup.seed);
        let net = Net::start(rng.fork());
        let count = setup.scenario.bricks();
        let bricks: Vec<Arc<Brick>> = (0..count)
            .map(|id| {
                let is_arbiter = setup.scenario.arbiter() == Some(id);
                let disk = Disk::new(format!("brick{id}"), rng.fork(), setup.faults.power_cut, is_arbiter);
                Brick::new(id, disk)
            })
            .collect();
        let link_options = LinkOptions {
            compounds: setup.plant.is_none() && rng.chance(60),
            late_delivery: setup.faults.late_delivery,
            plant: setup.plant,
        };
        let clients_count = rng.between(2, 3) as usize;
        let mut links = Vec::new();
        let mut clients = Vec::new();
        for client in 0..clients_count {
            let own: Vec<Arc<Link>> =
                bricks.iter().map(|brick| Link::new(client, brick, &net, rng.fork(), trace, link_options)).collect();
            clients.push(Replicate::new(options(setup, &mut rng), handles(&own)));
            links.push(own);
        }
        // The healer has no planted bug of its own.
        let healer_options = LinkOptions { plant: None, ..link_options };
        let own: Vec<Arc<Link>> =
            bricks.iter().map(|brick| Link::new(9, brick, &net, rng.fork(), trace, healer_options)).collect();
        let heal_set = Arc::new(heal_set(setup, handles(&own)));
        links.push(own);
        let stage = Stage {
            net,
            history: History::default(),
            trace: trace.clone(),
            slowest: Arc::default(),
            bounded_from: Arc::new(Mutex::new(None)),
        };
        Self { setup: *setup, stage, bricks, links, clients, heal_set, link_options, rng }
    }

    async fn run(mut self) -> Result<(), String> {
        let healing = tokio::spawn(heal_now_and_then(Arc::clone(&self.heal_set), self.rng.fork()));
        let faults = Faults {
            scenario: self.setup.scenario,
            set: self.setup.faults,
            bricks: self.bricks.clone(),
            links: self.links.clone(),
            net: self.stage.net.clone(),
            trace: self.stage.trace.clone(),
            rng: self.rng.fork(),
        };
        let mut actors = Vec::new();
        for (at, client) in self.clients.iter().enumerate() {
            for thread in 0..self.rng.between(1, 2) {
                let name = format!("c{at}.{thread}");
                let number = (at as u64 + 1) * 8 + thread;
                let fops = Arc::clone(client) as Arc<dyn Fops>;
                let mut actor = Actor::new(name, fops, self.rng.fork(), self.stage.clone(), number);
                actor.clock_skew = self.rng.below(20) as i64 - 10;
                actor.contended = self.setup.contended;
                if self.setup.contended && actors.is_empty() {
                    actor.make_shared_file().await;
                }
                // So that about two thirds of the operations meet faults.
                let pause = 2 * (FAULTS_MS + RECOVERY_MS) / self.setup.operations.max(1) as u64;
                let pause = if self.setup.contended { CONTENDED_PAUSE_MS } else { pause };
                actors.push(tokio::spawn(actor.run(self.setup.operations, pause)));
            }
        }
        faults.run(FAULTS_MS).await;
        *self.stage.bounded_from.lock() = Some(self.stage.net.now_ms() + RECOVERY_MS);
        for actor in actors {
            actor.await.map_err(|error| format!("panic: an operation did not come to its end: {error}"))?;
        }
        let (took, what) = self.stage.slowest.lock().clone();
        if took > OPERATION_MS_MAX {
            return Err(format!("bound: {what} took {took} ms"));
        }
        for client in &self.clients {
            client.quiesce().await;
        }
        self.wait_for_links().await?;
        healing.abort();
        self.heal_to_the_end().await?;
        let trees: Vec<Tree> = self.bricks.iter().map(|brick| brick.disk.tree()).collect();
        self.compare(&trees)?;
        self.note_final(&trees[0]);
        self.ask_a_new_client(&trees[0]).await?;
        self.stage.history.check().map_err(|text| format!("history: {text}"))
    }

    async fn wait_for_links(&self) -> Result<(), String> {
        for _ in 0..200 {
            let mut all = self.links.iter().flatten().map(|link| LinkHandle(Arc::clone(link)));
            if all.all(|link| link.is_up()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("bound: a connection does not come back".to_owned())
    }

    async fn heal_to_the_end(&self) -> Result<(), String> {
        let progress = Progress::default();
        let mut left = String::new();
        if self.setup.faults.power_cut {
            // What a power cut undid without a mark is found by comparing everything.
            drop(sweep::full_sweep(&self.heal_set, &progress).await);
        }
        for _ in 0..HEAL_ROUNDS_MAX {
            match sweep::index_sweep(&self.heal_set, self.heal_set.all(), &progress).await {
                Ok(summary) => left = format!("{:?}", summary.left),
                Err(error) => left = format!("{error:?}"),
            }
            drop(sweep::empty_parking(&self.heal_set).await);
            if self.bricks.iter().all(|brick| brick.disk.indexed() == 0) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let counts: Vec<usize> = self.bricks.iter().map(|brick| brick.disk.indexed()).collect();
        Err(format!("heal: does not converge, index {counts:?}, left {left}"))
    }

    fn compare(&self, trees: &[Tree]) -> Result<(), String> {
        let parking = self.heal_set.parking_gfid();
        let model = &trees[0];
        for (id, tree) in trees.iter().enumerate() {
            let with_data = self.setup.scenario.arbiter() != Some(id);
            for (gfid, node) in &tree.nodes {
                for (key, value) in node.xattrs.iter().filter(|(key, _)| key.starts_with("trusted.afr.")) {
                    if value.iter().any(|byte| *byte != 0) {
                        return Err(format!("replicas: brick {id} {gfid} still has {key}={value:?}"));
                    }
                }
                if *gfid == parking {
                    if !node.entries.is_empty() {
                        return Err(format!("replicas: brick {id} still parks {:?}", node.entries));
                    }
                    continue;
                }
                let Some(other) = model.nodes.get(gfid) else {
                    return Err(format!("replicas: {gfid} is on brick {id} and not on brick 0"));
                };
                let (one, two) = (facts(node, with_data), facts(other, with_data));
                if one != two {
                    return Err(format!("replicas: {gfid} differs: brick {id} {one} brick 0 {two}"));
                }
            }
            if let Some(gfid) = model.nodes.keys().find(|gfid| **gfid != parking && !tree.nodes.contains_key(*gfid)) {
                return Err(format!("replicas: {gfid} is on brick 0 and not on brick {id}"));
            }
            check_names(id, tree)?;
        }
        Ok(())
    }

    /// The state at the end is a read of every register.
    fn note_final(&self, tree: &Tree) {
        let began = self.stage.history.tick();
        let read = |register, value| self.stage.history.read("the end", register, value, began);
        for (gfid, node) in &tree.nodes {
            if node.is_dir() {
                for name in ["a", "b", "c", "d", "l0", "l1", "x", "y"] {
                    let value = node.entries.get(name.as_bytes()).map_or(Value::Absent, |gfid| Value::Inode(*gfid));
                    read(Register::Name(*gfid, Bytes::from_static(name.as_bytes())), value);
                }
                continue;
            }
            read(Register::Mode(*gfid), Value::Number((node.mode & 0o7777).into()));
            let number = node.xattrs.get("user.k").and_then(|value| value[..].try_into().ok());
            read(Register::Xattr(*gfid), Value::Number(number.map_or(0, u64::from_le_bytes)));
            for (block, number) in (0..).zip(numbers(&node.data)) {
                read(Register::Block(*gfid, block), Value::Number(number));
            }
        }
    }

    /// A client that knows nothing sees what is on the disks.
    async fn ask_a_new_client(&mut self, tree: &Tree) -> Result<(), String> {
        let options = LinkOptions { plant: None, ..self.link_options };
        let links: Vec<Arc<Link>> = self
            .bricks
            .iter()
            .map(|brick| Link::new(8, brick, &self.stage.net, self.rng.fork(), &self.stage.trace, options))
            .collect();
        let setup = self.setup;
        let client = Replicate::new(self::options(&setup, &mut self.rng), handles(&links)) as Arc<dyn Fops>;
        let ctx = Context { pid: Pid(1), ..Context::default() };
        for (parent, dir) in tree.nodes.iter().filter(|(_, node)| node.is_dir()) {
            for (name, gfid) in &dir.entries {
                if *gfid == self.heal_set.parking_gfid() || *parent == self.heal_set.parking_gfid() {
                    continue;
                }
                let lookup = Lookup { gfid: Gfid::NULL, parent: *parent, flags: 0, name: name.clone(), xdata: None };
                let found = client.fop(&ctx, lookup).await;
                if found.as_ref().map(|reply| reply.stat.gfid) != Ok(*gfid) {
                    return Err(format!("new client: {parent}/{name:?} is {found:?}, should be {gfid}"));
                }
                let node = &tree.nodes[gfid];
                if node.is_dir() {
                    continue;
                }
                let size = (BLOCKS * BLOCK_BYTES as u64) as u32;
                let read = Read { gfid: *gfid, fd: Fd::ANONYMOUS, offset: 0, size, flags: 0, xdata: None };
                let data = client.fop(&ctx, read).await.map(|reply| reply.data);
                if data.as_ref().map(|data| &data[..]) != Ok(&node.data[..]) {
                    return Err(format!("new client: {gfid} reads {data:?}, should be {:?}", node.data));
                }
            }
        }
        Ok(())
    }
}

fn handles(links: &[Arc<Link>]) -> Vec<Arc<dyn Fops>> {
    links.iter().map(|link| Arc::new(LinkHandle(Arc::clone(link))) as Arc<dyn Fops>).collect()
}

fn options(setup: &Setup, rng: &mut Rng) -> Options {
    let mut options = Options::new(VOLUME, keys(setup.scenario.bricks()));
    options.quorum = setup.scenario.quorum();
    options.arbiter_count = usize::from(setup.scenario.arbiter().is_some());
    options.choose_local = false;
    options.eager_lock = rng.chance(85);
    options.optimistic_change_log = rng.chance(85);
    options.keep_idle = Duration::from_millis(rng.between(20, 1_000));
    options
}

fn heal_set(setup: &Setup, children: Vec<Arc<dyn Fops>>) -> ReplicaSet {
    let count = children.len();
    ReplicaSet {
        name: VOLUME.to_owned(),
        children: children.into(),
        keys: Keys::new(keys(count)),
        volume_id: VOLUME_ID,
        arbiter: setup.scenario.arbiter().map(mortar_types::SubvolId),
        quorum: (setup.scenario.bricks() > 2).then_some(count / 2 + 1),
        granular: true,
        algorithm: Algorithm::Auto,
        policy: Resolve::Leave,
    }
}

async fn heal_now_and_then(set: Arc<ReplicaSet>, mut rng: Rng) {
    let progress = Progress::default();
    loop {
        let wait = rng.between(200, 2_500);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        // What cannot be healed now is tried again.
        drop(sweep::index_sweep(&set, Children::all(set.children.len()), &progress).await);
    }
}

fn facts(node: &Node, with_data: bool) -> String {
    let xattrs: BTreeMap<_, _> = node.xattrs.iter().filter(|(key, _)| !key.starts_with("trusted.afr.")).collect();
    let entries: BTreeMap<_, _> =
        node.entries.iter().filter(|(name, _)| !name.starts_with(b".glusterfs-anonymous-inode-")).collect();
    let data = if with_data { numbers(&node.data) } else { Vec::new() };
    let size = if with_data { node.data.len() } else { 0 };
    format!("mode {:o} links {} size {size} data {data:?} xattrs {xattrs:?} names {entries:?}", node.mode, node.nlink)
}

/// Every inode has as many names as it says, a directory exactly one.
fn check_names(id: usize, tree: &Tree) -> Result<(), String> {
    let mut counts: BTreeMap<Gfid, u32> = BTreeMap::new();
    for node in tree.nodes.values() {
        for gfid in node.entries.values() {
            *counts.entry(*gfid).or_default() += 1;
            if !tree.nodes.contains_key(gfid) {
                return Err(format!("names: brick {id} names {gfid}, which is not there"));
            }
        }
    }
    for (gfid, node) in tree.nodes.iter().filter(|(gfid, _)| **gfid != Gfid::ROOT) {
        let count = counts.get(gfid).copied().unwrap_or(0);
        if count != node.nlink || (node.is_dir() && count != 1) {
            return Err(format!("names: brick {id} {gfid} has {count} names and says {}", node.nlink));
        }
    }
    Ok(())
}
