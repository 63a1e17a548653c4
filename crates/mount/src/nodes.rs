//! The node table: which gfid the kernel means by a node id, and how often it has looked it up.
//!
//! A node id is a slot and the slot's generation, so an id is never used again in a mount's life: a late forget or
//! notification cannot hit another inode. A node lives while the kernel holds lookups of it; the root always does.

use std::collections::HashMap;

use bytes::Bytes;
use mortar_types::Gfid;
use parking_lot::Mutex;

use crate::kernel::abi::ROOT_ID;

/// The kernel's number of a node. The root is 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u64);

impl NodeId {
    pub const ROOT: Self = Self(ROOT_ID);

    const fn new(slot: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | (slot as u64 + ROOT_ID))
    }

    /// Slot and generation; `None` for 0 and other numbers that we never gave.
    fn parts(self) -> Option<(usize, u32)> {
        let slot = (self.0 & 0xffff_ffff).checked_sub(ROOT_ID)?;
        Some((usize::try_from(slot).ok()?, (self.0 >> 32) as u32))
    }
}

/// Where a node was last seen: what to invalidate when the volume says that its entry changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub parent: NodeId,
    pub name: Bytes,
}

#[derive(Debug)]
struct Node {
    gfid: Gfid,
    /// Lookups that the kernel has not forgotten.
    lookups: u64,
    place: Option<Place>,
    /// Permission bits as last reported: whether a write must clear set-user-id bits is decided by them.
    mode: u32,
    /// Handles of open files on this node, for operations that come without one after the last name is gone.
    open: Vec<u64>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    node: Option<Node>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_gfid: HashMap<Gfid, NodeId>,
}

/// All nodes that the kernel knows.
#[derive(Debug)]
pub struct NodeTable {
    table: Mutex<Table>,
}

impl NodeTable {
    /// A table with nothing but the root, which is the inode `root` (another directory's gfid for a sub-directory mount
    /// that the client resolves itself).
    pub fn new(root: Gfid) -> Self {
        let mut table = Table::default();
        let node = Node { gfid: root, lookups: 1, place: None, mode: 0, open: Vec::new() };
        table.slots.push(Slot { generation: 0, node: Some(node) });
        table.by_gfid.insert(root, NodeId::ROOT);
        Self { table: Mutex::new(table) }
    }

    /// The node of a gfid that the kernel is about to be told, with one lookup more.
    pub fn looked_up(&self, gfid: Gfid, mode: u32, place: Option<Place>) -> NodeId {
        self.table.lock().looked_up(gfid, mode, place)
    }

    /// Takes `lookups` back; the last one frees the node.
    pub fn forget(&self, id: NodeId, lookups: u64) {
        self.table.lock().forget(id, lookups);
    }

    pub fn gfid(&self, id: NodeId) -> Option<Gfid> {
        self.table.lock().node(id).map(|node| node.gfid)
    }

    /// The directory in which the node was last seen.
    pub fn parent(&self, id: NodeId) -> Option<Gfid> {
        let mut table = self.table.lock();
        let parent = table.node(id)?.place.as_ref()?.parent;
        Some(table.node(parent)?.gfid)
    }

    /// The node's mode as last reported; 0 for a node that the kernel does not know.
    pub fn mode(&self, id: NodeId) -> u32 {
        self.table.lock().node(id).map_or(0, |node| node.mode)
    }

    pub fn set_mode(&self, id: NodeId, mode: u32) {
        if let Some(node) = self.table.lock().node(id) {
            node.mode = mode;
        }
    }

    /// The node of a gfid and its last place, when the kernel knows it.
    pub fn find(&self, gfid: Gfid) -> Option<(NodeId, Option<Place>)> {
        let mut table = self.table.lock();
        let id = *table.by_gfid.get(&gfid)?;
        let place = table.node(id).and_then(|node| node.place.clone());
        Some((id, place))
    }

    /// Remembers that `handle` is an open file of the node.
    pub fn opened(&self, id: NodeId, handle: u64) {
        if let Some(node) = self.table.lock().node(id) {
            node.open.push(handle);
        }
    }

    /// Takes back [`Self::opened`].
    pub fn released(&self, id: NodeId, handle: u64) {
        if let Some(node) = self.table.lock().node(id) {
            node.open.retain(|known| *known != handle);
        }
    }

    /// Some open file of the node.
    pub fn any_open(&self, id: NodeId) -> Option<u64> {
        self.table.lock().node(id).and_then(|node| node.open.last().copied())
    }

    /// Every gfid that the kernel knows.
    pub fn gfids(&self) -> Vec<Gfid> {
        self.table.lock().by_gfid.keys().copied().collect()
    }

    /// How many nodes the kernel knows, the root included.
    pub fn count(&self) -> usize {
        self.table.lock().by_gfid.len()
    }
}

impl Table {
    fn node(&mut self, id: NodeId) -> Option<&mut Node> {
        let (slot, generation) = id.parts()?;
        let slot = self.slots.get_mut(slot).filter(|slot| slot.generation == generation)?;
        slot.node.as_mut()
    }

    fn looked_up(&mut self, gfid: Gfid, mode: u32, place: Option<Place>) -> NodeId {
        if let Some(id) = self.by_gfid.get(&gfid).copied()
            && let Some(node) = self.node(id)
        {
            node.lookups += 1;
            node.mode = mode;
            node.place = place.or_else(|| node.place.take());
            return id;
        }
        let node = Node { gfid, lookups: 1, place, mode, open: Vec::new() };
        let id = self.insert(node);
        self.by_gfid.insert(gfid, id);
        id
    }

    fn insert(&mut self, node: Node) -> NodeId {
        if let Some(slot) = self.free.pop()
            && let Some(free) = self.slots.get_mut(slot as usize)
        {
            free.generation = free.generation.wrapping_add(1);
            free.node = Some(node);
            return NodeId::new(slot, free.generation);
        }
        let slot = u32::try_from(self.slots.len()).expect("a kernel that holds 2^32 inodes is out of memory first");
        self.slots.push(Slot { generation: 0, node: Some(node) });
        NodeId::new(slot, 0)
    }

    fn forget(&mut self, id: NodeId, lookups: u64) {
        if id == NodeId::ROOT {
            return;
        }
        let Some(node) = self.node(id) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups > 0 {
            return;
        }
        let gfid = node.gfid;
        self.by_gfid.remove(&gfid);
        if let Some((slot, _)) = id.parts() {
            self.slots[slot].node = None;
            self.free.extend(u32::try_from(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gfid(number: u8) -> Gfid {
        Gfid([number; 16])
    }

    #[test]
    fn the_root_is_node_one_and_is_never_forgotten() {
        let nodes = NodeTable::new(Gfid::ROOT);
        assert_eq!(nodes.looked_up(Gfid::ROOT, 0, None), NodeId::ROOT);
        nodes.forget(NodeId::ROOT, 100);
        assert_eq!(nodes.gfid(NodeId::ROOT), Some(Gfid::ROOT));
    }

    #[test]
    fn a_node_lives_until_its_last_lookup_is_forgotten() {
        let nodes = NodeTable::new(Gfid::ROOT);
        let id = nodes.looked_up(gfid(7), 0, None);
        assert_eq!(nodes.looked_up(gfid(7), 0, None), id);
        nodes.forget(id, 1);
        assert_eq!(nodes.gfid(id), Some(gfid(7)));
        nodes.forget(id, 1);
        assert_eq!(nodes.gfid(id), None);
    }

    #[test]
    fn an_id_is_not_used_again_although_its_slot_is() {
        let nodes = NodeTable::new(Gfid::ROOT);
        let first = nodes.looked_up(gfid(1), 0, None);
        nodes.forget(first, 1);
        let second = nodes.looked_up(gfid(2), 0, None);
        assert_ne!(first, second);
        assert_eq!(first.0 & 0xffff_ffff, second.0 & 0xffff_ffff);
        nodes.forget(first, 1);
        assert_eq!((nodes.gfid(first), nodes.gfid(second)), (None, Some(gfid(2))));
    }

    #[test]
    fn the_last_place_is_remembered() {
        let nodes = NodeTable::new(Gfid::ROOT);
        let place = |name: &'static str| Some(Place { parent: NodeId::ROOT, name: Bytes::from(name) });
        nodes.looked_up(gfid(1), 0, place("a"));
        nodes.looked_up(gfid(1), 0, place("b"));
        nodes.looked_up(gfid(1), 0, None);
        assert_eq!(nodes.find(gfid(1)).unwrap().1, place("b"));
    }

    #[test]
    fn open_files_are_found_by_their_node() {
        let nodes = NodeTable::new(Gfid::ROOT);
        let id = nodes.looked_up(gfid(1), 0, None);
        nodes.opened(id, 10);
        nodes.opened(id, 11);
        nodes.released(id, 11);
        assert_eq!(nodes.any_open(id), Some(10));
    }

    proptest! {
        /// Against the obvious: a map from gfid to its count of lookups.
        #[test]
        fn counts_agree_with_a_plain_map(steps in proptest::collection::vec((0_u8..6, any::<bool>()), 0..200)) {
            let nodes = NodeTable::new(Gfid::ROOT);
            let mut model: HashMap<u8, (NodeId, u64)> = HashMap::new();
            for (number, look) in steps {
                let number = number + 2;
                if look {
                    let id = nodes.looked_up(gfid(number), 0, None);
                    let known = model.entry(number).or_insert((id, 0));
                    prop_assert_eq!(known.0, id);
                    known.1 += 1;
                } else if let Some((id, count)) = model.get_mut(&number) {
                    nodes.forget(*id, 1);
                    *count -= 1;
                    if *count == 0 {
                        let (id, _) = model.remove(&number).unwrap();
                        prop_assert_eq!(nodes.gfid(id), None);
                    }
                }
            }
            prop_assert_eq!(nodes.count(), model.len() + 1);
            for (number, (id, _)) in model {
                prop_assert_eq!(nodes.gfid(id), Some(gfid(number)));
            }
        }
    }
}
