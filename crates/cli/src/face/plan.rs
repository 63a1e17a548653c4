//! A planned volume in words and in JSON.

use std::fmt::Write;

use mortar_logic::capacity::{Capacity, Failures, Set};
use mortar_logic::values::size;
use serde_json::{Value, json};

use super::Output;
use super::table::{row, table};
use crate::globals::Format;
use crate::plan::Planned;

/// The answer. GlusterFS has no such command, so there is no XML of it.
pub fn render(format: Format, planned: &Planned) -> Output {
    match format {
        Format::Text => Output::out(text(planned)),
        Format::Json => Output::out(format!("{:#}\n", document(planned))),
        Format::Xml => Output::fail("mortar: plan has no XML; use --json", 2),
    }
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn text(planned: &Planned) -> String {
    let Planned { copies, capacity } = planned;
    let kept = copies.replica - usize::from(copies.arbiter);
    let how = match (kept, copies.arbiter) {
        (1, _) => "every file is kept once".to_owned(),
        (kept, false) => format!("every file is kept {kept} times"),
        (kept, true) => format!("every file is kept {kept} times, and an arbiter knows which copy is right"),
    };
    let mut text = format!(
        "Storage: {} usable of {} ({how})\nNodes: {}, in {} of {} brick{}\n\n",
        size(capacity.usable_bytes),
        size(capacity.raw_bytes),
        capacity.nodes,
        if capacity.sets.len() == 1 { "1 set".to_owned() } else { format!("{} sets", capacity.sets.len()) },
        copies.replica,
        if copies.replica == 1 { "" } else { "s" },
    );
    text.push_str(&sets(capacity));
    text.push_str("\nWhat may fail:\n");
    let largest = capacity.sets.iter().map(|set| set.may_fail).min().unwrap_or(0);
    let _ = writeln!(text, "  while everything is read and written: {}", may_fail(capacity.serving, copies.replica));
    let _ = writeln!(text, "  for good, without a file lost: {}", may_fail(capacity.keeping, copies.replica));
    if copies.replica > 1 && largest < copies.replica {
        let _ = writeln!(text, "What not: more than {} of the same set at once.", nodes(largest));
    }
    for note in notes(planned) {
        let _ = writeln!(text, "Note: {note}");
    }
    text
}

fn may_fail(failures: Failures, replica: usize) -> String {
    match (failures.any, failures.best) {
        (0, None | Some(0)) => "no node".to_owned(),
        (any, Some(best)) if any == best => format!("any {}", nodes(any)),
        (any, best) => {
            let any = if any == 0 { "not any node".to_owned() } else { format!("any {}", nodes(any)) };
            match (best, replica) {
                (Some(best), 2) => format!("{any}; up to {} when they are of different pairs", nodes(best)),
                (Some(best), _) => format!("{any}; up to {} when no set loses too many", nodes(best)),
                (None, _) => format!("{any}; more when no set loses too many"),
            }
        }
    }
}

fn sets(capacity: &Capacity) -> String {
    let mut rows = vec![row(&["SET", "BRICKS", "USABLE", "UNUSED", "NODES THAT MAY FAIL"])];
    for (number, set) in (1..).zip(&capacity.sets) {
        let bricks: Vec<String> =
            set.bricks.iter().map(|brick| format!("{}:{}", brick.node, size(brick.size_bytes))).collect();
        rows.push(vec![
            number.to_string(),
            bricks.join(", "),
            size(set.usable_bytes),
            if set.unused_bytes == 0 { "-".to_owned() } else { size(set.unused_bytes) },
            set.may_fail.to_string(),
        ]);
    }
    table(&rows)
}

/// What an admin should know before buying.
fn notes(planned: &Planned) -> Vec<String> {
    let mut notes = Vec::new();
    let sets = &planned.capacity.sets;
    let numbers = |wanted: &dyn Fn(&Set) -> bool| {
        let found: Vec<String> =
            (1..).zip(sets).filter(|(_, set)| wanted(set)).map(|(number, _): (i32, _)| number.to_string()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    };
    if let Some(which) = numbers(&|set| set.shares_node) {
        notes.push(format!(
            "set {which} has two bricks on one node, which takes both along. Order the bricks otherwise."
        ));
    }
    if let Some(which) = numbers(&|set| set.unused_bytes > 0) {
        notes.push(format!("set {which} has bricks of different sizes; the smallest counts."));
    }
    if planned.copies.replica == 2 {
        notes.push(
            "two copies can contradict each other after both nodes failed in turns (split brain); arbiter=1 prevents it \
             with a small third brick."
                .to_owned(),
        );
    }
    if planned.copies.arbiter {
        notes.push("an arbiter's brick needs about 4 KiB for each file, and no room for data.".to_owned());
    }
    notes
}

fn failures(failures: Failures) -> Value {
    json!({ "any": failures.any, "best": failures.best })
}

fn document(planned: &Planned) -> Value {
    let Planned { copies, capacity } = planned;
    let set = |set: &Set| {
        let brick =
            |brick: &mortar_logic::capacity::Brick| json!({ "node": brick.node, "size_bytes": brick.size_bytes });
        json!({
            "bricks": set.bricks.iter().map(brick).collect::<Vec<_>>(),
            "usable_bytes": set.usable_bytes,
            "unused_bytes": set.unused_bytes,
            "nodes_that_may_fail": set.may_fail,
            "shares_node": set.shares_node,
        })
    };
    json!({
        "replica": copies.replica,
        "arbiter": u8::from(copies.arbiter),
        "usable_bytes": capacity.usable_bytes,
        "raw_bytes": capacity.raw_bytes,
        "nodes": capacity.nodes,
        "nodes_that_may_fail": { "serving": failures(capacity.serving), "keeping": failures(capacity.keeping) },
        "sets": capacity.sets.iter().map(set).collect::<Vec<_>>(),
        "notes": notes(planned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(words: &str) -> Planned {
        crate::plan::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_howtos_last_question_is_answered() {
        let words = text(&planned("replica=2 bricks=gfs1:10G,gfs2:10G,gfs3:10G,gfs4:10G"));
        let expected = "\
Storage: 20.0 GiB usable of 40.0 GiB (every file is kept 2 times)
Nodes: 4, in 2 sets of 2 bricks

SET  BRICKS                        USABLE    UNUSED  NODES THAT MAY FAIL
1    gfs1:10.0 GiB, gfs2:10.0 GiB  10.0 GiB  -       1
2    gfs3:10.0 GiB, gfs4:10.0 GiB  10.0 GiB  -       1

What may fail:
  while everything is read and written: any 1 node; up to 2 nodes when they are of different pairs
  for good, without a file lost: any 1 node; up to 2 nodes when they are of different pairs
What not: more than 1 node of the same set at once.
Note: two copies can contradict each other";
        assert!(words.starts_with(expected), "{words}");
    }

    #[test]
    fn three_copies_and_arbiters_are_told_apart() {
        let three = text(&planned("replica=3 bricks=3x10G"));
        assert!(three.contains("written: any 1 node\n") && three.contains("lost: any 2 nodes\n"), "{three}");
        let arbiter = text(&planned("replica=3 arbiter=1 bricks=10G,10G,1G"));
        assert!(
            arbiter.starts_with("Storage: 10.0 GiB usable of 20.0 GiB (every file is kept 2 times, and"),
            "{arbiter}"
        );
        assert!(arbiter.contains("about 4 KiB for each file"), "{arbiter}");
    }

    #[test]
    fn bad_orders_and_sizes_are_noted() {
        let words = text(&planned("replica=2 bricks=a:10G,a:8G,b:8G,b:8G"));
        assert!(words.contains("written: no node\n"), "{words}");
        assert!(words.contains("set 1, 2 has two bricks on one node"), "{words}");
        assert!(words.contains("set 1 has bricks of different sizes"), "{words}");
    }

    #[test]
    fn json_has_bytes() {
        let document = document(&planned("bricks=2x10G"));
        assert_eq!(document["usable_bytes"], 20_u64 << 30);
        assert_eq!(document["nodes_that_may_fail"]["serving"], json!({ "any": 0, "best": 0 }));
    }
}
