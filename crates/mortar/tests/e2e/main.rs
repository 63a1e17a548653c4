//! End to end: the real binary on several hosts in network namespaces, with real FUSE mounts and, where the test says so,
//! real GlusterFS as the peer. Each test says what it needs and is skipped with that reason where it is missing.
//! With `MORTAR_E2E_ORACLE=1` the scenarios run on GlusterFS alone as well, which shows that they ask what is right.

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
