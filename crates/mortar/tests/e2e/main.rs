//! End to end: the real binary on several hosts in network namespaces, with real FUSE mounts and, where the test says so,
//! real GlusterFS as the peer. Each test says what it needs and is skipped with that reason where it is missing.

mod cluster;
mod howto;
mod outage;
