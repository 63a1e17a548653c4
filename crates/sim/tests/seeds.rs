//! Seeds that every `cargo test` runs: the same seed is the same run, and promises hold.

use mortar_sim::plant::Plant;
use mortar_sim::run::run;
use mortar_sim::scenario::{FaultSet, Scenario, Setup};

fn setup(scenario: Scenario, seed: u64, faults: FaultSet) -> Setup {
    Setup { scenario, seed, plant: None, faults, operations: 30, contended: false, with_text: false }
}

fn check(scenario: Scenario, seeds: std::ops::Range<u64>, faults: &str) {
    let faults = FaultSet::parse(faults).expect("a list of faults");
    for seed in seeds {
        let report = run(&setup(scenario, seed, faults));
        assert_eq!(report.failure, None, "{} seed {seed}", scenario.name());
    }
}

#[test]
fn the_same_seed_is_the_same_run_step_for_step() {
    for scenario in Scenario::ALL {
        for seed in 0..5 {
            let runs = [(); 2].map(|()| run(&setup(scenario, seed, FaultSet::ALL)));
            assert!(runs[0].steps > 500, "{} steps", runs[0].steps);
            assert_eq!(
                (runs[0].hash, runs[0].steps, &runs[0].failure),
                (runs[1].hash, runs[1].steps, &runs[1].failure)
            );
        }
    }
    let two_seeds = [0, 1].map(|seed| run(&setup(Scenario::Replicate3, seed, FaultSet::NONE)).hash);
    assert_ne!(two_seeds[0], two_seeds[1]);
}

#[test]
fn two_copies_without_faults() {
    check(Scenario::Replicate2, 0..60, "none");
}

#[test]
fn three_copies_without_faults() {
    check(Scenario::Replicate3, 0..60, "none");
}

#[test]
fn an_arbiter_without_faults() {
    check(Scenario::Arbiter, 0..60, "none");
}

#[test]
fn one_contended_file_while_a_brick_dies() {
    let faults = FaultSet::parse("kill").expect("a list of faults");
    for seed in 0..60 {
        let setup = Setup { contended: true, operations: 40, ..setup(Scenario::Replicate2, seed, faults) };
        assert_eq!(run(&setup).failure, None, "seed {seed}");
    }
}

#[test]
fn three_copies_with_sick_disks() {
    let faults = FaultSet::parse("disk").expect("a list of faults");
    for seed in 0..100 {
        let setup = Setup { operations: 14, ..setup(Scenario::Replicate3, seed, faults) };
        assert_eq!(run(&setup).failure, None, "seed {seed}");
    }
}

/// A seed at which the bug is found, and the promise that it breaks; without the bug the same seed is green.
fn check_plant(plant: Plant, seed: u64, operations: usize, faults: &str, promise: &str) {
    let faults = FaultSet::parse(faults).expect("a list of faults");
    let sound = Setup { contended: true, operations, ..setup(Scenario::Replicate2, seed, faults) };
    assert_eq!(run(&sound).failure, None, "without the bug");
    let failure = run(&Setup { plant: Some(plant), ..sound }).failure.expect("the bug is found");
    assert!(failure.starts_with(promise), "{failure}");
}

#[test]
fn a_dropped_pre_op_loses_an_acknowledged_write() {
    check_plant(Plant::DroppedPreOp, 0, 40, "kill", "history: Block");
}

#[test]
fn an_early_acknowledgement_is_seen_by_a_reader() {
    check_plant(Plant::EarlyAcknowledgement, 24, 40, "none", "history: Block");
}

#[test]
fn a_skipped_lock_leaves_different_replicas() {
    check_plant(Plant::SkippedLock, 16, 6, "none", "replicas:");
}
