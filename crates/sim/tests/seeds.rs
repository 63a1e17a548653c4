//! Seeds that every `cargo test` runs: the same seed is the same run, and promises hold.

use mortar_sim::run::run;
use mortar_sim::scenario::{FaultSet, Scenario, Setup};

fn setup(scenario: Scenario, seed: u64, faults: FaultSet) -> Setup {
    Setup { scenario, seed, plant: None, faults, operations: 30, with_text: false }
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
