//! Building a graph in two steps, with what a graph before it can lend.
//!
//! First every section is checked and the brick connections are made; a connection to the same brick is taken over from
//! the graph before, so that what is open and locked there stays so. Then, at a moment of the caller's choice, the
//! layers above are put over them. A layer whose section is the same and whose children are the same objects is the
//! same object again; any other is made anew and hears its children's upcalls from then on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mortar_types::Fops;
use mortar_wire::volfile::{Volfile, VolfileVolume};

use super::kind::Kind;
use super::{Graph, GraphError, GraphOptions, ReplicaSet, wait};
use crate::client::{BrickClient, Identity, Options as ClientOptions, OptionsError};
use crate::distribute::{self, Distribute};
use crate::quick_read::{self, QuickRead};
use crate::read_only::ReadOnly;
use crate::replicate::{self, Replicate};
use crate::utime::Utime;

/// A graph whose bricks connect and whose layers are not there yet.
pub struct Plan {
    volfile: Volfile,
    options: GraphOptions,
    identity: Identity,
    /// By the name of their sections.
    bricks: HashMap<String, Arc<BrickClient>>,
    /// Those of `bricks` that no graph before had.
    fresh: Vec<Arc<BrickClient>>,
}

impl Plan {
    /// Checks the whole volfile before the first brick is contacted. Must be called within a tokio runtime.
    pub(super) fn new(volfile: &Volfile, options: GraphOptions, before: Option<&Graph>) -> Result<Self, GraphError> {
        let identity = Identity::of_process(hostname());
        let open_behind = open_behind(volfile);
        for section in &volfile.volumes {
            check(section, &options, &identity, open_behind)?;
        }
        let mut known = before.map(Graph::bricks).unwrap_or_default().to_vec();
        let mut plan = Self { volfile: volfile.clone(), options, identity, bricks: HashMap::new(), fresh: Vec::new() };
        for section in volfile.volumes.iter().filter(|section| Kind::of(section) == Kind::Client) {
            let options = client_options(section, &plan.options, &plan.identity)?;
            let brick = match known.iter().position(|brick| brick.leads_to(&options)) {
                Some(at) => {
                    let brick = known.swap_remove(at);
                    brick.reconfigure(options);
                    brick
                }
                None => {
                    let brick = BrickClient::new(options);
                    plan.fresh.push(Arc::clone(&brick));
                    brick
                }
            };
            plan.bricks.insert(section.name.clone(), brick);
        }
        if plan.bricks.is_empty() { Err(GraphError::Empty) } else { Ok(plan) }
    }

    /// Waits for the bricks that are new, at most `timeout`; whether all of them serve.
    pub async fn wait_new_up(&self, timeout: Duration) -> bool {
        wait::all_up(&self.fresh, timeout).await
    }

    /// The replica sets of `before` that this plan has no place for as they are: their kept locks must be given back
    /// before [`Self::finish`].
    pub fn replaced<'a>(&'a self, before: &'a Graph) -> impl Iterator<Item = &'a ReplicaSet> {
        before.replica_sets().iter().filter(|set| {
            let section = self.volfile.volume(&set.section.name);
            let same =
                section.is_some_and(|section| {
                    *section == set.section
                        && section.subvolumes.iter().zip(&set.bricks).all(|(name, brick)| {
                            self.bricks.get(name).is_some_and(|planned| Arc::ptr_eq(planned, brick))
                        })
                });
            !same
        })
    }

    /// Puts the layers over the bricks. Layers of `before` that are not taken over hear nothing any more.
    pub fn finish(self, before: Option<&Graph>) -> Result<Graph, GraphError> {
        let mut builder = Builder { plan: &self, before, layers: HashMap::new(), sets: Vec::new(), bricks: Vec::new() };
        for section in &self.volfile.volumes {
            builder.add(section)?;
        }
        let Builder { layers, sets, bricks, .. } = builder;
        let top = self.volfile.top().and_then(|section| layers.get(&section.name)).ok_or(GraphError::Empty)?;
        let top = Arc::clone(&top.fops);
        let Self { volfile, options, .. } = self;
        Ok(Graph { top, volfile, options, bricks, sets, layers })
    }
}

/// What a section has become.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) fops: Arc<dyn Fops>,
    /// When it is a brick connection itself.
    brick: Option<Arc<BrickClient>>,
    set: Option<ReplicaSet>,
    pub(super) distribute: Option<Arc<Distribute>>,
    /// What it was made from.
    section: VolfileVolume,
    below: Vec<Arc<dyn Fops>>,
}

struct Builder<'a> {
    plan: &'a Plan,
    before: Option<&'a Graph>,
    layers: HashMap<String, Layer>,
    sets: Vec<ReplicaSet>,
    bricks: Vec<Arc<BrickClient>>,
}

impl Builder<'_> {
    /// Makes a checked section's layer, or takes it over.
    fn add(&mut self, section: &VolfileVolume) -> Result<(), GraphError> {
        // The volfile's parser has seen that each is defined before.
        let below: Vec<Layer> = section.subvolumes.iter().filter_map(|child| self.layers.get(child).cloned()).collect();
        let mut layer = match self.same_before(section, &below) {
            Some(layer) => layer,
            None => self.make(section, &below)?,
        };
        self.bricks.extend(layer.brick.clone().filter(|_| Kind::of(section) == Kind::Client));
        self.sets.extend(layer.set.clone().filter(|_| Kind::of(section) == Kind::Replicate));
        layer.section = section.clone();
        layer.below = below.into_iter().map(|child| child.fops).collect();
        self.layers.insert(section.name.clone(), layer);
        Ok(())
    }

    fn same_before(&self, section: &VolfileVolume, below: &[Layer]) -> Option<Layer> {
        let before = self.before?;
        let layer = before.layers.get(&section.name)?;
        let same_children =
            layer.below.len() == below.len() && layer.below.iter().zip(below).all(|(old, new)| is_same(old, &new.fops));
        // Open-behind has no layer of its own: its options are quick-read's.
        let same_options =
            Kind::of(section) != Kind::QuickRead || open_behind(before.volfile()) == open_behind(&self.plan.volfile);
        let is_taken = Kind::of(section) != Kind::Client && layer.section == *section && same_children && same_options;
        is_taken.then(|| layer.clone())
    }

    fn make(&self, section: &VolfileVolume, below: &[Layer]) -> Result<Layer, GraphError> {
        let name = section.name.as_str();
        let first = || below.first().map(|child| Arc::clone(&child.fops)).ok_or(GraphError::Empty);
        let fops: Arc<dyn Fops> = match Kind::of(section) {
            Kind::Client => return self.brick(section),
            Kind::Replicate => return replicate(section, below),
            Kind::PassThrough => return below.first().cloned().ok_or(GraphError::Empty),
            Kind::Distribute => return distribute(section, below),
            Kind::Utime => Utime::new(name, first()?),
            Kind::QuickRead => {
                QuickRead::new(quick_read::Options::from_volfile(section, open_behind(&self.plan.volfile))?, first()?)
            }
            Kind::ReadOnly => ReadOnly::new(name, first()?),
            Kind::NotServed(_) | Kind::Unknown => {
                return Err(GraphError::UnknownType { name: name.to_owned(), kind: section.kind.clone() });
            }
        };
        Ok(Layer::new(section, fops))
    }

    fn brick(&self, section: &VolfileVolume) -> Result<Layer, GraphError> {
        let brick = self.plan.bricks.get(&section.name).ok_or(GraphError::Empty)?;
        let fops = Arc::clone(brick) as Arc<dyn Fops>;
        Ok(Layer { brick: Some(Arc::clone(brick)), ..Layer::new(section, fops) })
    }
}

impl Layer {
    fn new(section: &VolfileVolume, fops: Arc<dyn Fops>) -> Self {
        Self { fops, brick: None, set: None, distribute: None, section: section.clone(), below: Vec::new() }
    }
}

fn replicate(section: &VolfileVolume, below: &[Layer]) -> Result<Layer, GraphError> {
    let options = replicate::Options::from_volfile(section)?;
    let layer = Replicate::new(options, below.iter().map(|child| Arc::clone(&child.fops)).collect());
    let bricks = below.iter().filter_map(|child| child.brick.clone()).collect();
    let set = ReplicaSet { section: section.clone(), layer: Arc::clone(&layer), bricks };
    Ok(Layer { set: Some(set), ..Layer::new(section, layer) })
}

fn distribute(section: &VolfileVolume, below: &[Layer]) -> Result<Layer, GraphError> {
    let options = distribute::Options::from_volfile(section)?;
    let children = below.iter().map(|child| Arc::clone(&child.fops)).collect();
    let layer = Distribute::new(section.name.as_str(), children, options);
    Ok(Layer { distribute: Some(Arc::clone(&layer)), ..Layer::new(section, layer) })
}

/// Whether both are one object.
pub(crate) fn is_same(left: &Arc<dyn Fops>, right: &Arc<dyn Fops>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(left), Arc::as_ptr(right))
}

fn open_behind(volfile: &Volfile) -> Option<&VolfileVolume> {
    volfile.volumes.iter().find(|section| section.kind == "performance/open-behind")
}

/// Everything that can be wrong with a section.
fn check(
    section: &VolfileVolume,
    options: &GraphOptions,
    identity: &Identity,
    open_behind: Option<&VolfileVolume>,
) -> Result<(), GraphError> {
    let (name, kind) = (section.name.clone(), section.kind.clone());
    let found = section.subvolumes.len();
    let (fits, expected) = match Kind::of(section) {
        Kind::Unknown => return Err(GraphError::UnknownType { name, kind }),
        Kind::NotServed(what) => return Err(GraphError::NotServed { name, what }),
        Kind::Client => {
            client_options(section, options, identity)?;
            (found == 0, "none")
        }
        Kind::Replicate => {
            replicate::Options::from_volfile(section)?;
            (found > 0, "at least one")
        }
        // heald's volfiles end in one that collects all replica sets.
        Kind::PassThrough => (found > 0, "at least one"),
        Kind::QuickRead => {
            quick_read::Options::from_volfile(section, open_behind)?;
            (found == 1, "one")
        }
        Kind::Distribute => {
            distribute::Options::from_volfile(section)?;
            (found > 0, "at least one")
        }
        Kind::Utime | Kind::ReadOnly => (found == 1, "one"),
    };
    if fits { Ok(()) } else { Err(GraphError::Subvolumes { name, kind, expected, found }) }
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn client_options(
    section: &VolfileVolume,
    options: &GraphOptions,
    identity: &Identity,
) -> Result<ClientOptions, OptionsError> {
    let mut client = ClientOptions::from_volfile(section, identity)?;
    client.process_name.clone_from(&options.process_name);
    client.volfile_key.clone_from(&options.volfile_key);
    client.subdir.clone_from(&options.subdir);
    if let Some(ping_timeout) = options.ping_timeout {
        client.ping_timeout = ping_timeout;
    }
    if let Some(port) = options.glusterd_port {
        client.glusterd_port = port;
    }
    Ok(client)
}
