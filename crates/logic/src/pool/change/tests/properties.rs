//! What holds after any sequence of changes: sets whole, numbers unique and stable, tasks that fit.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::*;

fn any_bricks() -> impl Strategy<Value = Vec<NewBrick>> {
    proptest::collection::vec((1..5_u128, 0..6_u8), 0..5).prop_map(|bricks| {
        let brick = |(number, path): (u128, u8)| brick(&format!("node{number}:/b/{path}"));
        bricks.into_iter().map(brick).collect()
    })
}

/// Indices of present bricks, so that removals often fit.
#[derive(Debug, Clone)]
enum Step {
    Plain(Command),
    Remove { at: usize, count: usize, start: bool, force: bool, replica: Option<u32> },
    Replace { at: usize, to: NewBrick },
    Reset { at: usize, commit: bool },
    Commit,
}

fn any_step() -> impl Strategy<Value = Step> {
    let replica = || prop_oneof![3 => Just(None), 1 => (1..4_u32).prop_map(Some)];
    let mode = prop_oneof![Just(TaskMode::FixLayout), Just(TaskMode::Rebalance)];
    let ended = prop_oneof![Just(TaskState::Completed), Just(TaskState::Failed), Just(TaskState::InProgress)];
    let what = prop_oneof![Just(Steer::Pause), Just(Steer::Resume), Just(Steer::Stop)];
    prop_oneof![
        4 => (any_bricks(), replica(), 0..2_u32).prop_map(|(bricks, replica, arbiter)| {
            let volume = "v".to_owned();
            Step::Plain(Command::AddBricks(AddBricks { volume, bricks, replica, arbiter, force: true, first_id: 0 }))
        }),
        4 => (0..8_usize, 1..4_usize, any::<bool>(), any::<bool>(), replica()).prop_map(
            |(at, count, start, force, replica)| Step::Remove { at, count, start, force, replica }),
        1 => Just(Step::Plain(staying(&[]))),
        2 => Just(Step::Commit),
        2 => mode.prop_map(|mode| Step::Plain(rebalance(mode))),
        1 => what.prop_map(|what| Step::Plain(steer(what))),
        4 => (1..5_u128, ended).prop_map(|(number, ended)| Step::Plain(reported(number, ended, 0))),
        2 => (0..8_usize, 1..5_u128).prop_map(|(at, number)| {
            Step::Replace { at, to: brick(&format!("node{number}:/b/r")) }
        }),
        2 => (0..8_usize, any::<bool>()).prop_map(|(at, commit)| Step::Reset { at, commit }),
        1 => any::<bool>().prop_map(|force| Step::Plain(Command::StopVolume { name: "v".to_owned(), force })),
        2 => Just(Step::Plain(Command::StartVolume { name: "v".to_owned(), force: true })),
    ]
}

fn named(brick: &crate::pool::Brick) -> NewBrick {
    NewBrick { host: brick.host.clone(), node: Some(brick.node), path: brick.path.clone() }
}

fn command_of(volume: &Volume, step: Step) -> Command {
    let name = || "v".to_owned();
    let at = |index: usize| named(&volume.bricks[index % volume.bricks.len()]);
    match step {
        Step::Plain(Command::AddBricks(add)) => Command::AddBricks(AddBricks { first_id: volume.next_brick, ..add }),
        Step::Plain(command) => command,
        Step::Remove { at, count, start, force, replica } => {
            let group = volume.layout.group().max(1) as usize;
            let first = (at % volume.subvolumes()) * group;
            let bricks = volume.bricks.iter().skip(first).take(count * group).map(named).collect();
            if start {
                Command::StartRemoval(StartRemoval { volume: name(), bricks, replica, task: TASK })
            } else {
                Command::RemoveBricks(Removal { volume: name(), bricks, replica, force })
            }
        }
        Step::Commit => {
            let bricks = volume.bricks.iter().filter(|brick| brick.decommissioned).map(named).collect();
            Command::RemoveBricks(Removal { volume: name(), bricks, replica: None, force: false })
        }
        Step::Replace { at: index, to } => {
            Command::ReplaceBrick(ReplaceBrick { volume: name(), from: at(index), to, force: true })
        }
        Step::Reset { at: index, commit } => {
            let reset = Reset { volume: name(), brick: at(index) };
            if commit { Command::CommitReset { to: reset.brick.clone(), reset } } else { Command::StartReset(reset) }
        }
    }
}

/// What must hold of the volume after `before` became `after` by `command`.
fn is_sound(before: &Volume, after: &Volume, command: &Command) {
    let group = after.layout.group() as usize;
    assert!(!after.bricks.is_empty() && after.bricks.len().is_multiple_of(group), "sets are whole");
    let ids: BTreeSet<&str> = after.bricks.iter().map(|brick| brick.brick_id.as_str()).collect();
    assert_eq!(ids.len(), after.bricks.len(), "numbers are unique");
    let places: BTreeSet<_> = after.bricks.iter().map(|brick| (brick.node, &brick.path)).collect();
    assert_eq!(places.len(), after.bricks.len());
    assert!(after.next_brick >= before.next_brick);
    let old: BTreeMap<_, _> = before.bricks.iter().map(|brick| ((brick.node, &brick.path), &brick.brick_id)).collect();
    for brick in &after.bricks {
        let number: u32 = brick.brick_id.strip_prefix("v-client-").and_then(|id| id.parse().ok()).expect("a number");
        assert!(number < after.next_brick);
        match old.get(&(brick.node, &brick.path)) {
            Some(id) => assert_eq!(*id, &brick.brick_id, "a brick keeps its number"),
            None if matches!(command, Command::ReplaceBrick(_)) => {}
            None => assert!(number >= before.next_brick, "a new brick gets a new number"),
        }
    }
    for set in after.bricks.chunks(group) {
        assert!(set.iter().all(|brick| brick.decommissioned == set[0].decommissioned), "sets leave as a whole");
        let arbiters = set.iter().filter(|brick| brick.arbiter).count();
        let wanted = match after.layout {
            Layout::Replicate { arbiter, .. } => arbiter as usize,
            Layout::Distribute | Layout::Disperse { .. } => 0,
        };
        assert_eq!(arbiters, wanted);
        assert!(wanted == 0 || set[group - 1].arbiter);
    }
    assert!(after.bricks.iter().any(|brick| !brick.decommissioned), "something stays");
    if after.is_removing() {
        assert_eq!(after.task.as_ref().map(|task| task.mode), Some(TaskMode::Decommission));
    }
    if let Some(task) = &after.task {
        let unfinished = task.nodes.values().any(|part| !part.state.is_final());
        assert_eq!(unfinished, task.state == TaskState::InProgress, "a task ends with its last part");
    }
    // Sets only ever lose or gain as a whole, or all in the same way: who was together stays together.
    if !matches!(command, Command::RemoveBricks(_)) {
        for set in before.bricks.chunks(before.layout.group() as usize) {
            let at = |id: &str| after.bricks.iter().position(|brick| brick.brick_id == id).map(|index| index / group);
            let now: BTreeSet<_> = set.iter().map(|brick| at(&brick.brick_id)).collect();
            assert!(now.len() == 1 && !now.contains(&None));
        }
    }
}

proptest! {
    #[test]
    fn volumes_stay_sound_under_any_commands(steps in proptest::collection::vec(any_step(), 0..60)) {
        let mut state = two_by_two();
        for step in steps {
            let before = state.clone();
            let command = command_of(&before.volumes["v"], step);
            match apply(&mut state, command.clone()) {
                Ok(_) => is_sound(&before.volumes["v"], &state.volumes["v"], &command),
                Err(_) => assert_eq!(state, before, "a refused command changes nothing"),
            }
        }
        assert!(matches!(state.volumes["v"].state, VolumeState::Started | VolumeState::Stopped));
        let stored = serde_json::to_string(&state).expect("serialises");
        assert_eq!(serde_json::from_str::<State>(&stored).expect("reads back"), state);
    }
}
