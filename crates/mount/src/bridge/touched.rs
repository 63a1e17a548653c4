//! Which requests change what, for entries that were fetched before and are shown after.

use mortar_types::Gfid;

use super::Bridge;
use crate::changes::Change;
use crate::kernel::request::{Header, Operation};
use crate::nodes::NodeId;

const O_TRUNC: u32 = 0o1000;

impl Bridge {
    /// What a request changes in names and attributes, `None` for most.
    pub(super) fn change_by(&self, header: &Header, operation: &Operation) -> Option<Change> {
        let gfid = |node: u64| self.nodes.gfid(NodeId(node));
        let inode = |gfid: Option<Gfid>| Some(Change { inodes: [gfid, None, None], ..Change::default() });
        let own = || gfid(header.node);
        match operation {
            Operation::Setattr(_)
            | Operation::Write { .. }
            | Operation::Fallocate { .. }
            | Operation::Setxattr { .. }
            | Operation::Removexattr { .. } => inode(own()),
            Operation::Open { flags, .. } if flags & O_TRUNC != 0 => inode(own()),
            Operation::CopyFileRange { node_out, .. } => inode(gfid(*node_out)),
            Operation::Create { name, .. }
            | Operation::Mknod { name, .. }
            | Operation::Mkdir { name, .. }
            | Operation::Symlink { name, .. }
            | Operation::Unlink { name }
            | Operation::Rmdir { name } => {
                let parent = own()?;
                let names = [Some((parent, name.clone())), None];
                // A file that loses a name, or one that CREATE met and truncated, may be listed under another.
                Some(Change { inodes: [Some(parent), None, None], names, links: true })
            }
            Operation::Link { old_node, name } => {
                let parent = own()?;
                let names = [Some((parent, name.clone())), None];
                Some(Change { inodes: [Some(parent), gfid(*old_node), None], names, links: false })
            }
            Operation::Rename { new_parent, name, new_name, .. } => {
                let (old, new) = (own()?, gfid(*new_parent)?);
                let names = [Some((old, name.clone())), Some((new, new_name.clone()))];
                Some(Change { inodes: [Some(old), Some(new), None], names, links: true })
            }
            _ => None,
        }
    }
}
