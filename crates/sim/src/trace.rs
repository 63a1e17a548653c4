//! What happened, as a hash of every step and, when a seed is replayed, as text.

use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh64::Xxh64;

/// Shared by all parts of one simulation.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hash: Xxh64,
    /// `None`: only the hash is kept.
    lines: Option<Vec<String>>,
    steps: u64,
}

impl Trace {
    pub fn new(with_text: bool) -> Self {
        let lines = with_text.then(Vec::new);
        Self(Arc::new(Mutex::new(Inner { hash: Xxh64::new(0), lines, steps: 0 })))
    }

    /// One step: `facts` tell steps apart, `text` is made only for a reader.
    pub fn step(&self, facts: &[u64], text: impl FnOnce() -> String) {
        let mut inner = self.0.lock();
        inner.steps += 1;
        for fact in facts {
            inner.hash.update(&fact.to_le_bytes());
        }
        if let Some(lines) = &mut inner.lines {
            let line = text();
            lines.push(line);
        }
    }

    pub fn hash(&self) -> u64 {
        self.0.lock().hash.digest()
    }

    pub fn steps(&self) -> u64 {
        self.0.lock().steps
    }

    pub fn take_lines(&self) -> Vec<String> {
        self.0.lock().lines.take().unwrap_or_default()
    }
}
