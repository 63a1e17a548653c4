//! The index of a simulated disk, by the rules of `mortar_brick::index`: an entry comes before its reason and goes after.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mortar_types::{Dict, Errno, Gfid, Value, keys};

use super::State;

/// Which directory of the index a virtual gfid stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Virtual {
    Pending,
    Dirty,
    Changes,
    NamesOf(Gfid),
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn is_dirty_key(key: &str) -> bool {
    key == keys::XATTR_AFR_DIRTY
}

impl State {
    pub(super) fn virtual_of(&self, gfid: Gfid) -> Option<Virtual> {
        let [pending, dirty, changes] = self.virtual_gfids;
        if gfid == pending {
            Some(Virtual::Pending)
        } else if gfid == dirty {
            Some(Virtual::Dirty)
        } else if gfid == changes {
            Some(Virtual::Changes)
        } else {
            let real = xor(gfid, changes);
            self.tree.changes.contains_key(&real).then_some(Virtual::NamesOf(real))
        }
    }

    pub(super) fn index_gfid(&self, key: &str) -> Option<Gfid> {
        let [pending, dirty, changes] = self.virtual_gfids;
        match key {
            keys::XATTROP_INDEX_GFID => Some(pending),
            keys::XATTROP_DIRTY_GFID => Some(dirty),
            keys::XATTROP_ENTRY_CHANGES_GFID => Some(changes),
            _ => None,
        }
    }

    pub(super) fn virtual_names(&self, dir: Virtual) -> Vec<Bytes> {
        let texts = |gfids: &BTreeSet<Gfid>| gfids.iter().map(|gfid| Bytes::from(gfid.to_string())).collect();
        match dir {
            Virtual::Pending => texts(&self.tree.pending),
            Virtual::Dirty => texts(&self.tree.dirty),
            Virtual::Changes => self.tree.changes.keys().map(|gfid| Bytes::from(gfid.to_string())).collect(),
            Virtual::NamesOf(gfid) => {
                self.tree.changes.get(&gfid).map(|names| names.iter().cloned().collect()).unwrap_or_default()
            }
        }
    }

    /// The gfid behind a name of the index.
    pub(super) fn virtual_lookup(&self, dir: Virtual, name: &Bytes) -> Result<Gfid, Errno> {
        if !self.virtual_names(dir).contains(name) {
            return Err(Errno::ENOENT);
        }
        Ok(match dir {
            Virtual::Pending | Virtual::Dirty => gfid_of(name).ok_or(Errno::ENOENT)?,
            Virtual::Changes => xor(gfid_of(name).ok_or(Errno::ENOENT)?, self.virtual_gfids[2]),
            Virtual::NamesOf(_) => Gfid::NULL,
        })
    }

    pub(super) fn virtual_remove(&mut self, dir: Virtual, name: &Bytes) -> Result<(), Errno> {
        self.remember();
        let gfid = gfid_of(name);
        let removed = match (dir, gfid) {
            (Virtual::Pending, Some(gfid)) => Arc::make_mut(&mut self.tree.pending).remove(&gfid),
            (Virtual::Dirty, Some(gfid)) => Arc::make_mut(&mut self.tree.dirty).remove(&gfid),
            (Virtual::Changes, Some(gfid)) => Arc::make_mut(&mut self.tree.changes).remove(&gfid).is_some(),
            (Virtual::NamesOf(of), _) => {
                Arc::make_mut(&mut self.tree.changes).get_mut(&of).is_some_and(|names| names.remove(name))
            }
            _ => false,
        };
        if removed { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// XATTROP ADD_ARRAY with the index around it.
    pub(super) fn add_arrays(&mut self, gfid: Gfid, dict: &Dict, xdata: Option<&Dict>) -> Result<Dict, Errno> {
        self.tree.get(gfid)?;
        self.remember();
        for (key, value) in dict.iter() {
            if value.as_bytes().is_some_and(|bytes| !is_zero(bytes)) {
                let kind = if is_dirty_key(key) { &mut self.tree.dirty } else { &mut self.tree.pending };
                Arc::make_mut(kind).insert(gfid);
            }
        }
        if let Some(name) = name_in(xdata, keys::XATTROP_ENTRY_CREATE) {
            Arc::make_mut(&mut self.tree.changes).entry(gfid).or_default().insert(name);
        }
        self.remember();
        let mut reply = Dict::new();
        for (key, value) in dict.iter() {
            let add = value.as_bytes().ok_or(Errno::EINVAL)?;
            let node = self.tree.get_mut(gfid)?;
            let old = node.xattrs.get(key).map_or_else(|| vec![0; add.len()], |old| old.to_vec());
            let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or([0; 4]));
            let sum: Vec<u8> = old
                .chunks(4)
                .zip(add.chunks(4))
                .flat_map(|(old, add)| word(old).wrapping_add(word(add)).to_be_bytes())
                .collect();
            if !is_zero(add) {
                node.xattrs.insert(key.to_owned(), Bytes::from(sum.clone()));
            }
            reply.set(key.to_owned(), Value::ptr(sum));
        }
        self.remember();
        self.leave(gfid, &reply, xdata);
        Ok(reply)
    }

    fn leave(&mut self, gfid: Gfid, reply: &Dict, xdata: Option<&Dict>) {
        let mut standing = [None; 2];
        for (key, value) in reply.iter() {
            let kind = &mut standing[usize::from(is_dirty_key(key))];
            let stands = value.as_bytes().is_some_and(|bytes| !is_zero(bytes));
            *kind = Some(*kind == Some(true) || stands);
        }
        if standing[0] == Some(false) {
            Arc::make_mut(&mut self.tree.pending).remove(&gfid);
        }
        if standing[1] == Some(false) {
            Arc::make_mut(&mut self.tree.dirty).remove(&gfid);
        }
        if let Some(name) = name_in(xdata, keys::XATTROP_ENTRY_DELETE)
            && let Some(names) = Arc::make_mut(&mut self.tree.changes).get_mut(&gfid)
        {
            names.remove(&name);
        }
        let purge = xdata.is_some_and(|xdata| xdata.contains(keys::XATTROP_PURGE_INDEX));
        if purge && standing[0] == Some(false) {
            Arc::make_mut(&mut self.tree.changes).remove(&gfid);
        }
    }
}

fn name_in(xdata: Option<&Dict>, key: &str) -> Option<Bytes> {
    xdata?.get_bytes(key).cloned()
}

fn gfid_of(name: &Bytes) -> Option<Gfid> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn xor(one: Gfid, two: Gfid) -> Gfid {
    Gfid((u128::from_be_bytes(one.0) ^ u128::from_be_bytes(two.0)).to_be_bytes())
}
