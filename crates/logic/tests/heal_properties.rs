//! What holds for every changelog matrix, whatever bricks and crashes left behind.

use mortar_logic::heal::data::{self, Copy};
use mortar_logic::heal::{Children, Matrix, Resolve, SLOTS, find_direction, undo};
use mortar_logic::heal::{entry, metadata, undo::drop_accusations};
use mortar_logic::replicate::changelog::Slot;
use mortar_types::{SubvolId, Timespec};
use proptest::collection::vec;
use proptest::prelude::*;

fn matrices() -> impl Strategy<Value = Matrix> {
    (2usize..=4).prop_flat_map(|count| {
        let cell = prop_oneof![4 => Just(0u32), 2 => 1u32..4, 1 => Just(u32::MAX)];
        (vec(vec(cell.clone(), count), count), vec(cell, count)).prop_map(|(rows, dirty)| {
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            Matrix::from_rows(&rows, &dirty)
        })
    })
}

fn copies(count: usize) -> impl Strategy<Value = Vec<Option<Copy>>> {
    let copy = (0u64..3, 0i64..3).prop_map(|(size, sec)| {
        let time = Timespec::new(sec, 0);
        Some(Copy { size, mtime: time, ctime: time, is_arbiter: false })
    });
    vec(copy, count)
}

fn matrices_with_copies() -> impl Strategy<Value = (Matrix, Vec<Option<Copy>>)> {
    matrices().prop_flat_map(|matrix| {
        let count = matrix.len();
        (Just(matrix), copies(count))
    })
}

fn apply(matrix: &mut Matrix, corrections: &mortar_types::SubvolMap<Option<mortar_logic::heal::Correction>>) {
    for (child, correction) in corrections.iter() {
        if let Some(correction) = correction {
            matrix.apply(child, correction);
        }
    }
}

proptest! {
    #[test]
    fn a_sink_is_never_a_source(matrix in matrices(), quorum in prop_oneof![Just(None), Just(Some(2))]) {
        for kind in SLOTS {
            let direction = find_direction(kind, &matrix, matrix.children(), quorum);
            if !direction.sinks.is_empty() {
                prop_assert!(direction.sources.and(direction.sinks).is_empty());
            }
        }
    }

    #[test]
    fn a_plan_splits_the_children_and_never_copies_from_an_accused_onto_an_unaccused(
        (matrix, copies) in matrices_with_copies(),
    ) {
        let all = matrix.children();
        let direction = find_direction(Slot::Data, &matrix, all, None);
        if let data::Decision::Heal(plan) = data::decide(&direction, all, &copies.into(), Resolve::Leave) {
            prop_assert!(plan.sources.contains(plan.source));
            prop_assert!(plan.sources.and(plan.sinks).is_empty());
            prop_assert_eq!(plan.sources.or(plan.sinks), all);
            if !plan.resolved_split_brain {
                prop_assert_eq!(matrix.accusers(plan.source), 0);
            }
        }
    }

    #[test]
    fn a_clean_matrix_heals_nothing(count in 2usize..5, size in 0u64..9) {
        let zeros = vec![0; count];
        let rows: Vec<&[u32]> = (0..count).map(|_| zeros.as_slice()).collect();
        let matrix = Matrix::from_rows(&rows, &zeros);
        let all = matrix.children();
        let copies = vec![Some(Copy { size, ..Copy::default() }); count].into();
        let data = data::decide(&find_direction(Slot::Data, &matrix, all, None), all, &copies, Resolve::Leave);
        prop_assert_eq!(data, data::Decision::Clean);
        let entry = entry::decide(&find_direction(Slot::Entry, &matrix, all, None), all);
        prop_assert_eq!(entry, entry::Decision::Clean);
        let copies = vec![Some(metadata::Attributes::default()); count].into();
        let direction = find_direction(Slot::Metadata, &matrix, all, None);
        prop_assert_eq!(metadata::decide(&direction, all, &copies, Resolve::Leave), metadata::Decision::Clean);
    }

    #[test]
    fn after_the_undo_of_a_complete_heal_the_matrix_is_clean(matrix in matrices()) {
        let mut after = matrix.clone();
        apply(&mut after, &undo(&matrix, matrix.children(), Children::NONE));
        prop_assert!(after.is_clean());
    }

    #[test]
    fn a_failed_sink_stays_a_sink_and_the_next_heal_converges((matrix, copies) in matrices_with_copies(), failing: u8) {
        let all = matrix.children();
        let direction = find_direction(Slot::Data, &matrix, all, None);
        let Decided::Plan(plan) = decided(&direction, all, &copies) else { return Ok(()) };
        let mut now = matrix.clone();
        if plan.resolved_split_brain {
            apply(&mut now, &drop_accusations(&matrix, plan.source, plan.sinks));
        }
        let failed = plan.sinks.filter(|child| failing & (1 << child.0) != 0);
        let read = now.clone();
        apply(&mut now, &undo(&read, all.minus(failed), failed));

        // The healed ones now look like the source.
        let healed: Vec<_> = (0..matrix.len())
            .map(|at| if failed.contains(SubvolId(at)) { copies[at] } else { copies[plan.source.0] })
            .collect();
        let next = find_direction(Slot::Data, &now, all, None);
        if failed.is_empty() {
            prop_assert!(now.is_clean());
            prop_assert_eq!(decided(&next, all, &healed), Decided::Clean);
            return Ok(());
        }
        let accusing_good = failed.iter().any(|child| {
            now.self_accused().contains(child) || all.minus(failed).iter().any(|good| now.count(child, good) != 0)
        });
        if !accusing_good {
            let Decided::Plan(again) = decided(&next, all, &healed) else { panic!("the failed sink was forgotten") };
            prop_assert!(failed.minus(again.sinks).is_empty(), "{again:?}");
            prop_assert!(!again.resolved_split_brain);
        }
    }
}

#[derive(PartialEq, Debug)]
enum Decided {
    Clean,
    Plan(data::Plan),
    Left,
}

fn decided(direction: &mortar_logic::heal::Direction, all: Children, copies: &[Option<Copy>]) -> Decided {
    match data::decide(direction, all, &copies.to_vec().into(), Resolve::Leave) {
        data::Decision::Clean => Decided::Clean,
        data::Decision::Heal(plan) => Decided::Plan(plan),
        _ => Decided::Left,
    }
}
