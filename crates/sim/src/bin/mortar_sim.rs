//! Runs seeds of a scenario in one process and says which failed, and how to see one again.
//!
//! `mortar-sim --seeds 0..1000 --scenario replicate3 [--faults all] [--plant dropped-pre-op] [--operations 40]
//! [--contended] [--shrink] [--jobs 2] [--trace]`

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use mortar_sim::plant::Plant;
use mortar_sim::run::run;
use mortar_sim::scenario::{FaultSet, Scenario, Setup};
use parking_lot::Mutex;

/// Failures told in full; more are counted.
const TOLD_MAX: usize = 20;

struct Arguments {
    from: u64,
    to: u64,
    setup: Setup,
    faults: String,
    jobs: u64,
    shrink: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = parse(std::env::args().skip(1))?;
    let began = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let steps = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.to {
                        return;
                    }
                    let report = run(&Setup { seed, ..arguments.setup });
                    for line in &report.lines {
                        println!("{line}");
                    }
                    steps.fetch_add(report.steps, Ordering::Relaxed);
                    if let Some(failure) = report.failure {
                        tell(&arguments, seed, &failure, failures.lock().len());
                        failures.lock().push(seed);
                    }
                }
            });
        }
    });
    let seeds = arguments.to - arguments.from;
    let seconds = began.elapsed().as_secs_f64();
    let failed = failures.lock().len();
    println!(
        "{}: {seeds} seeds, {failed} failed, {:.1} s, {:.0} seeds/s, {:.0} messages a seed",
        arguments.setup.scenario.name(),
        seconds,
        seeds as f64 / seconds,
        steps.load(Ordering::Relaxed) as f64 / seeds.max(1) as f64,
    );
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell(arguments: &Arguments, seed: u64, failure: &str, told: usize) {
    if told >= TOLD_MAX {
        return;
    }
    let mut setup = Setup { seed, with_text: false, ..arguments.setup };
    if arguments.shrink {
        // Fewer operations are another run, but often fail the same way and are easier to read.
        let kind = failure.split(':').next().unwrap_or_default();
        for operations in [5, 10, 15, 20, 30] {
            let smaller = Setup { operations, ..setup };
            if operations < setup.operations && run(&smaller).failure.is_some_and(|text| text.starts_with(kind)) {
                setup = smaller;
                break;
            }
        }
    }
    let plant = std::env::args().skip_while(|word| word != "--plant").nth(1);
    let plant = plant.map(|plant| format!(" --plant {plant}")).unwrap_or_default();
    let plant = if setup.contended { format!("{plant} --contended") } else { plant };
    println!("seed {seed}: {failure}");
    println!(
        "  again: cargo run --release -p mortar-sim -- --scenario {} --seeds {seed}..{} --faults {} --operations {}{plant} --trace",
        setup.scenario.name(),
        seed + 1,
        arguments.faults,
        setup.operations,
    );
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments {
        from: 0,
        to: 100,
        setup: Setup {
            scenario: Scenario::Replicate3,
            seed: 0,
            plant: None,
            faults: FaultSet::parse("kill,partition,disk,spikes").unwrap_or(FaultSet::NONE),
            operations: 40,
            contended: false,
            with_text: false,
        },
        faults: "kill,partition,disk,spikes".to_owned(),
        jobs: 1,
        shrink: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--seeds" => {
                let value = value()?;
                let (from, to) = value.split_once("..").context("--seeds wants FROM..TO")?;
                (arguments.from, arguments.to) = (from.parse()?, to.parse()?);
            }
            "--scenario" => {
                let value = value()?;
                arguments.setup.scenario = Scenario::parse(&value).with_context(|| format!("no scenario {value}"))?;
            }
            "--faults" => {
                arguments.faults = value()?;
                let set = FaultSet::parse(&arguments.faults);
                arguments.setup.faults = set.with_context(|| format!("unknown faults {}", arguments.faults))?;
            }
            "--plant" => {
                let value = value()?;
                arguments.setup.plant = Some(Plant::parse(&value).with_context(|| format!("no plant {value}"))?);
            }
            "--operations" => arguments.setup.operations = value()?.parse()?,
            "--jobs" => arguments.jobs = value()?.parse()?,
            "--contended" => arguments.setup.contended = true,
            "--trace" => arguments.setup.with_text = true,
            "--shrink" => arguments.shrink = true,
            _ => bail!("unknown argument {word}"),
        }
    }
    Ok(arguments)
}
