//! Rates of Mortar, of real GlusterFS and of a bare directory, taken the same way on the same machine in one run.
//!
//! Each system gets the lab of `mortar-testkit`: two servers with a brick each on ext4, replica 2, one client. The same
//! work is then done on the client's mount by this program itself. What counts is the ratio, never a rate.
#![forbid(unsafe_code)]

mod report;
mod system;
mod work;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Compare Mortar with GlusterFS on this machine")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Files per small-file operation
    #[arg(long, default_value_t = 1000)]
    files: usize,
    /// Rounds; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The mortar binary [default: beside this program]
    #[arg(long)]
    mortar: Option<PathBuf>,
    /// Also write the numbers as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these systems
    #[arg(long, value_delimiter = ',', default_value = "local,glusterfs,mortar")]
    systems: Vec<system::System>,
}

#[derive(Subcommand)]
enum Command {
    /// Do the work in a folder and print its rates as JSON (run by the harness inside the client host)
    Work { folder: PathBuf, files: usize },
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(Command::Work { folder, files }) = args.command {
        println!("{}", serde_json::to_string(&work::all(&folder, files)?)?);
        return Ok(());
    }
    let own = std::env::current_exe()?;
    let mortar = args.mortar.unwrap_or_else(|| own.with_file_name("mortar"));
    let mut results = Vec::new();
    for round in 0..args.rounds {
        for system in &args.systems {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, system.name());
            let rates = system.measure(&mortar, &own, args.files).with_context(|| system.name().to_owned())?;
            results.push((*system, rates));
        }
    }
    print!("{}", report::table(&results));
    if let Some(path) = args.json {
        std::fs::write(path, report::json(&results)?)?;
    }
    Ok(())
}
