//! End to end: the real binary on several hosts in network namespaces, with real FUSE mounts and, where the test says so,
//! real GlusterFS as the peer. Each test says what it needs and is skipped with that reason where it is missing.
//! The ignored ones run the same scenarios on GlusterFS alone, which shows that they ask what is right: `cargo test -p mortar
//! --test e2e -- --ignored`.

mod bad_input;
mod brick_fields;
mod brick_prepare;
mod cluster;
mod exchange;
mod growth;
mod howto;
mod interop;
mod kill_rounds;
mod ledger;
mod mail;
mod outage;
mod script;
mod split_brain;
mod stalls;
mod stress;
