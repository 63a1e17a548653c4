//! The table of medians and ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;

use crate::system::System;
use crate::work::{OPERATIONS, Rates};

/// Median of a system's rates of one operation; `None` when it was not measured.
fn median(results: &[(System, Rates)], system: System, operation: &str) -> Option<f64> {
    let mut rates: Vec<f64> = results
        .iter()
        .filter(|(found, _)| *found == system)
        .filter_map(|(_, rates)| rates.get(operation).copied())
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

/// Operations as rows, systems and ratios as columns.
pub(crate) fn table(results: &[(System, Rates)]) -> String {
    let mut text = format!(
        "{:<14}{:>12}{:>12}{:>12}{:>20}{:>16}\n",
        "operation/s", "local", "glusterfs", "mortar", "mortar:glusterfs", "mortar:local"
    );
    let number = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
    let ratio = |over: Option<f64>, under: Option<f64>| match (over, under) {
        (Some(over), Some(under)) => format!("{:.2}", over / under),
        _ => "-".to_owned(),
    };
    for operation in OPERATIONS {
        let rate = |system| median(results, system, operation);
        let (local, glusterfs, mortar) = (rate(System::Local), rate(System::Glusterfs), rate(System::Mortar));
        let _ = writeln!(
            text,
            "{operation:<14}{:>12}{:>12}{:>12}{:>20}{:>16}",
            number(local),
            number(glusterfs),
            number(mortar),
            ratio(mortar, glusterfs),
            ratio(mortar, local),
        );
    }
    text.push_str("streams in MiB/s; medians over the rounds\n");
    text
}

/// The medians by system and operation.
pub(crate) fn json(results: &[(System, Rates)]) -> Result<String> {
    let mut medians: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for system in [System::Local, System::Glusterfs, System::Mortar] {
        for operation in OPERATIONS {
            if let Some(rate) = median(results, system, operation) {
                medians.entry(system.name()).or_default().insert(operation, rate);
            }
        }
    }
    Ok(serde_json::to_string_pretty(&medians)?)
}
