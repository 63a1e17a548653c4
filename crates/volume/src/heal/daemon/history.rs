//! The last sweeps of a replica set, for `heal statistics`.

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use mortar_logic::heal::Children;
use mortar_rpc::control::Crawl;
use mortar_types::SubvolId;
use parking_lot::Mutex;

use crate::heal::Error;
use crate::heal::sweep::Summary;

/// Sweeps remembered per brick, as many as GlusterFS keeps (`afr/afr-self-heald.h` AFR_STATISTICS_HISTORY_SIZE).
const CRAWLS_MAX: usize = 50;

/// Per child, oldest first.
#[derive(Default)]
pub(super) struct History(Mutex<BTreeMap<SubvolId, VecDeque<Crawl>>>);

impl History {
    /// A sweep of what `children` know begins.
    pub(super) fn begin(&self, children: Children, full: bool) {
        let crawl = Crawl { full, began: now(), ended: None, healed: 0, split_brain: 0, failed: 0 };
        let mut history = self.0.lock();
        for child in children.iter() {
            let crawls = history.entry(child).or_default();
            if crawls.len() == CRAWLS_MAX {
                crawls.pop_front();
            }
            crawls.push_back(crawl.clone());
        }
    }

    /// It has come to `summary`; `None`: it could not be finished.
    pub(super) fn end(&self, children: Children, summary: Option<&Summary>) {
        let mut history = self.0.lock();
        for child in children.iter() {
            let Some(crawl) = history.get_mut(&child).and_then(VecDeque::back_mut) else { continue };
            crawl.ended = Some(now());
            let Some(summary) = summary else { continue };
            let split = summary.left.iter().filter(|(_, error)| matches!(error, Error::SplitBrain(_))).count();
            crawl.healed = summary.healed as u64;
            crawl.split_brain = split as u64;
            crawl.failed = (summary.left.len() - split) as u64;
        }
    }

    pub(super) fn of(&self, child: SubvolId) -> Vec<Crawl> {
        self.0.lock().get(&child).map(|crawls| crawls.iter().cloned().collect()).unwrap_or_default()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use mortar_types::Gfid;

    use super::*;
    use crate::heal::SplitBrain;

    #[test]
    fn a_sweep_is_remembered_with_what_it_came_to() {
        let (history, one) = (History::default(), Children::only(SubvolId(1)));
        history.begin(one, false);
        assert_eq!(history.of(SubvolId(1))[0].ended, None);
        let left = vec![(Gfid::ROOT, Error::SplitBrain(SplitBrain::Data)), (Gfid::ROOT, Error::Busy)];
        history.end(one, Some(&Summary { healed: 3, left }));
        let crawl = &history.of(SubvolId(1))[0];
        assert_eq!((crawl.healed, crawl.split_brain, crawl.failed), (3, 1, 1));
        assert!(crawl.ended.is_some() && history.of(SubvolId(0)).is_empty());
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (history, one) = (History::default(), Children::only(SubvolId(0)));
        for number in 0..CRAWLS_MAX + 7 {
            history.begin(one, number % 2 == 0);
        }
        assert_eq!(history.of(SubvolId(0)).len(), CRAWLS_MAX);
        assert!(!history.of(SubvolId(0))[0].full, "the eighth of all");
    }
}
