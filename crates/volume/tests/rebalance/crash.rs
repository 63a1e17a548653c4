//! Moves that are cut off: after every single fop, the mover's connections to the source, to the target or to both break.
//! Whatever is left, a second mover must bring to the target, complete and once.

use mortar_types::SubvolId;
use mortar_volume::rebalance::Moved;

use crate::fixture::{SOURCE, TARGET, Volume};

/// More fops than a move takes, on one connection.
const FOPS_MAX: i64 = 40;

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The mover dies: every connection breaks.
    Mover,
    Source,
    Target,
    /// One brick of the source, or of the target.
    Brick(usize, usize),
    /// The mover dies when this brick of each set has heard one fop more than the other; the next one reads from `reader`.
    Between {
        ahead: usize,
        reader: usize,
    },
}

async fn round(volume: &Volume, cut: Cut, after: i64, content: &[u8]) -> bool {
    let file_name = format!("f{after}");
    let client = volume.stack();
    let file = client.create(&file_name, content, 0o2640).await;
    let mover = volume.stack();
    for (set, connections) in mover.connections.iter().enumerate() {
        for (brick, connection) in connections.iter().enumerate() {
            let cuts = match cut {
                Cut::Mover | Cut::Between { .. } => true,
                Cut::Source => set == 0,
                Cut::Target => set == 1,
                Cut::Brick(cut_set, cut_brick) => (set, brick) == (cut_set, cut_brick),
            };
            if cuts {
                let more = matches!(cut, Cut::Between { ahead, .. } if ahead == brick);
                connection.cut_after(after + i64::from(more));
            }
        }
    }
    let outcome = mover.migrate(&file).await;
    let complete = matches!(outcome, Ok(Moved::Moved(_)));
    let files = [volume.files(SOURCE, &file_name), volume.files(TARGET, &file_name)].concat();
    let count = files.len();
    assert!(files.iter().any(|file| file.content == content), "{cut:?} after {after}: {outcome:?}, {count} files");
    for connection in mover.connections.iter().flatten() {
        connection.cut();
    }

    let second = match cut {
        Cut::Between { reader, .. } => volume.stack_reading(Some(SubvolId(reader))),
        _ => volume.stack(),
    };
    let outcome = second.migrate(&file).await;
    if !matches!(cut, Cut::Brick(..)) {
        let arrived = volume.assert_moved(&file_name);
        assert!(arrived.content == content, "{cut:?} after {after}: {outcome:?}");
        assert_eq!(arrived.mode, 0o2640, "{cut:?} after {after}");
    }
    complete
}

async fn rounds(volume: &Volume, cut: Cut, content: &[u8]) {
    let mut complete = 0;
    for after in 0..FOPS_MAX {
        // What one round leaves to be healed shall not excuse another.
        volume.forget_missed_names();
        if round(volume, cut, after, content).await {
            complete += 1;
        }
    }
    assert!(complete > 0, "the cuts must reach beyond the last fop");
}

#[tokio::test]
async fn a_mover_that_dies_at_any_fop_loses_nothing() {
    rounds(&Volume::replicated(), Cut::Mover, b"content").await;
    rounds(&Volume::plain(), Cut::Mover, b"content").await;
}

/// Of two copies that nobody accuses one has had the last change and the other not.
#[tokio::test]
async fn a_mover_that_dies_between_two_bricks_loses_nothing_whichever_is_read_then() {
    for (ahead, reader) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        rounds(&Volume::replicated(), Cut::Between { ahead, reader }, b"content").await;
    }
}

#[tokio::test]
async fn a_source_that_dies_at_any_fop_loses_nothing() {
    rounds(&Volume::replicated(), Cut::Source, b"content").await;
    rounds(&Volume::plain(), Cut::Source, b"content").await;
}

#[tokio::test]
async fn a_target_that_dies_at_any_fop_loses_nothing() {
    rounds(&Volume::replicated(), Cut::Target, b"content").await;
    rounds(&Volume::plain(), Cut::Target, b"content").await;
}

#[tokio::test]
async fn one_brick_that_dies_at_any_fop_loses_nothing() {
    for (set, brick) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        rounds(&Volume::replicated(), Cut::Brick(set, brick), b"content").await;
    }
}

#[tokio::test]
async fn a_large_file_can_be_cut_off_too() {
    let content: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
    rounds(&Volume::replicated(), Cut::Mover, &content).await;
    for (ahead, reader) in [(0, 1), (1, 0)] {
        rounds(&Volume::replicated(), Cut::Between { ahead, reader }, &content).await;
    }
}
