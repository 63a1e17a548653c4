//! How the content of a file is brought over: by comparing blocks, by copying them, or by leaving holes.

use std::ops::Range;

/// One locked step of a data heal, in bytes: the largest that every peer's transport carries in one message
/// (`data-self-heal-window-size` 8 times 128 KiB).
pub const BLOCK_BYTES: u64 = 1 << 20;

/// How to find out what differs (`cluster.data-self-heal-algorithm`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Algorithm {
    /// Compare where both sides have something, copy where only the source has.
    #[default]
    Auto,
    /// Always read and write.
    Full,
    /// Always compare checksums first.
    Diff,
}

/// How one block is brought to one sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Compare checksums and copy when they differ.
    Compare,
    /// The sink has nothing here (it was extended by truncate): write, unless the source's block is all zeros, which the
    /// hole already is.
    Fill,
    /// Write whatever is there.
    Copy,
}

/// The blocks of a file of `size` bytes: offset and length.
pub fn blocks(size: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..size.div_ceil(BLOCK_BYTES)).map(move |at| {
        let offset = at * BLOCK_BYTES;
        (offset, BLOCK_BYTES.min(size - offset))
    })
}

/// The step for the block at `offset` on a sink that held `sink_size` bytes before it was cut or extended.
pub const fn step(algorithm: Algorithm, offset: u64, sink_size: u64) -> Step {
    match algorithm {
        _ if offset >= sink_size => Step::Fill,
        Algorithm::Full => Step::Copy,
        Algorithm::Auto | Algorithm::Diff => Step::Compare,
    }
}

pub fn is_zeros(data: &[u8]) -> bool {
    data.iter().all(|byte| *byte == 0)
}

/// What holes are looked for in: a hole smaller than this is written out rather than paid for with one more call.
pub const HOLE_BYTES: usize = 64 << 10;

/// The parts of a block that must be written where the sink has a hole: everything but runs of zeros.
pub fn written_parts(data: &[u8]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for (at, piece) in data.chunks(HOLE_BYTES).enumerate() {
        if is_zeros(piece) {
            continue;
        }
        let start = at * HOLE_BYTES;
        match parts.last_mut() {
            Some(last) if last.end == start => last.end += piece.len(),
            _ => parts.push(start..start + piece.len()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_is_short() {
        let all: Vec<_> = blocks(2 * BLOCK_BYTES + 7).collect();
        assert_eq!(all, [(0, BLOCK_BYTES), (BLOCK_BYTES, BLOCK_BYTES), (2 * BLOCK_BYTES, 7)]);
        assert_eq!(blocks(0).count(), 0);
    }

    #[test]
    fn runs_of_zeros_are_not_written() {
        let mut data = vec![0; 5 * HOLE_BYTES + 3];
        assert!(written_parts(&data).is_empty());
        data[HOLE_BYTES] = 1;
        data[2 * HOLE_BYTES + 9] = 1;
        data[5 * HOLE_BYTES] = 1;
        assert_eq!(written_parts(&data), [HOLE_BYTES..3 * HOLE_BYTES, 5 * HOLE_BYTES..5 * HOLE_BYTES + 3]);
    }

    #[test]
    fn what_the_sink_never_had_is_filled_and_the_rest_compared() {
        assert_eq!(step(Algorithm::Auto, 0, 1), Step::Compare);
        assert_eq!(step(Algorithm::Auto, BLOCK_BYTES, BLOCK_BYTES), Step::Fill);
        assert_eq!(step(Algorithm::Full, 0, 1), Step::Copy);
        assert_eq!(step(Algorithm::Full, 0, 0), Step::Fill);
    }
}
