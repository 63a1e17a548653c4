//! What distribution decides, without I/O: GlusterFS's DHT rules as plain functions (`xlators/cluster/dht/src/`).
//!
//! * [`hash`]: the place of a name on the 32-bit ring, and what of the name counts;
//! * [`layout`]: a directory's division of the ring, its xattr, and what can be wrong with it;
//! * [`assign`]: divisions for new directories, and new ones for old directories with little movement;
//! * [`space`]: which subvolume takes a new file when the hashed one is full;
//! * [`linkto`]: link files and the marks of a file on its way between subvolumes;
//! * [`lookup`]: what the replies of a lookup on all subvolumes add up to;
//! * [`rename`]: the steps of a rename;
//! * [`moves`]: which file a rebalance moves where;
//! * [`merge`]: attributes of a directory and of the volume from those of its parts;
//! * [`offset`]: one number for a subvolume and a place in its listing.

pub mod assign;
pub mod hash;
pub mod layout;
pub mod linkto;
pub mod lookup;
pub mod merge;
pub mod moves;
pub mod offset;
pub mod rename;
pub mod space;
