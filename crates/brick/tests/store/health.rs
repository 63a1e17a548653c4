//! The health check.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mortar_brick::store::{HealthFailure, StoreOptions};
use mortar_types::Errno;

use crate::support::{Brick, options};

#[test]
fn a_disk_that_cannot_be_written_is_reported_once() {
    let Some(brick) = Brick::new() else { return };
    let Brick { scratch, store, .. } = brick;
    drop(store);
    let (sender, failures) = mpsc::channel();
    let report = Arc::new(move |failure: &HealthFailure| {
        let _ = sender.send(failure.clone());
    });
    let brick = Brick::over(scratch, |root| StoreOptions {
        health_check_interval: Duration::from_millis(20),
        on_health_failure: Some(report),
        ..options(root)
    });
    let file = brick.root().join(".glusterfs/health_check");
    // It may be caught between its truncation and its writing, and the checker may be kept from running there.
    let deadline = Instant::now() + Duration::from_secs(120);
    let text = loop {
        match std::fs::read_to_string(&file) {
            Ok(text) if !text.is_empty() => break text,
            _ if Instant::now() > deadline => panic!("nothing is written"),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    assert_eq!(text.len(), "2026-11-23 03:28:53 +0000".len());
    assert!(failures.try_recv().is_err());
    // A directory of that name stands for a disk that refuses.
    while std::fs::remove_file(&file).and_then(|()| std::fs::create_dir(&file)).is_err() {}
    assert_eq!(failures.recv_timeout(Duration::from_secs(120)), Ok(HealthFailure::Io(Errno::EISDIR)));
    assert!(failures.recv_timeout(Duration::from_millis(100)).is_err(), "once");
}
