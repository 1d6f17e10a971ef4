//! How quick storage is, which decides who writes and when.
//!
//! Waking a thread and being woken by it costs tens of microseconds. While a sync takes less than a
//! few of those, whoever appends writes for itself, and has all records of its turn share one; a
//! sync that takes longer must be waited for by a thread that has nothing else to do. Where a sync
//! costs next to nothing (memory), there is nothing to be won by sharing it either.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

/// A write and sync that take no longer are not worth sharing.
const INSTANT: Duration = Duration::from_micros(15);
/// A write and sync that take no longer are quick: others can wait for them.
const QUICK: Duration = Duration::from_micros(400);

/// What was learnt from the batches so far.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    instant: Trust,
    quick: Trust,
}

impl Pace {
    /// Only whoever holds the writer calls this, so that nothing is lost between load and store.
    pub(crate) fn note(&self, took: Duration) {
        self.instant.note(took <= INSTANT);
        self.quick.note(took <= QUICK);
    }

    /// Each record may be written by itself.
    pub(crate) fn is_instant(&self) -> bool {
        self.instant.is_there()
    }

    /// Whoever appends had better write for itself.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick.is_there()
    }
}

/// A count of batches that kept a promise, of which one that broke it takes back several.
#[derive(Debug, Default)]
struct Trust(AtomicU8);

impl Trust {
    /// So sure one can get.
    const MOST: u8 = 16;
    /// So sure one has to be.
    const ENOUGH: u8 = 8;

    fn note(&self, kept: bool) {
        let score = self.0.load(Ordering::Relaxed);
        let score = if kept {
            score.saturating_add(1).min(Self::MOST)
        } else {
            score.saturating_sub(4)
        };
        self.0.store(score, Ordering::Relaxed);
    }

    fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= Self::ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_slowly_and_lost_soon() {
        let trust = Trust::default();
        for _ in 0..Trust::ENOUGH {
            assert!(!trust.is_there());
            trust.note(true);
        }
        assert!(trust.is_there());
        trust.note(false);
        assert!(!trust.is_there());
        // One that was merely interrupted now and then stays trusted.
        for n in 0..1000 {
            trust.note(n % 50 != 49);
        }
        assert!(trust.is_there());
        // What breaks its promise most of the time never is.
        for n in 0..1000 {
            trust.note(n % 3 == 0);
            assert!(n < 10 || !trust.is_there());
        }
    }

    #[test]
    fn memory_is_instant_a_good_disk_quick_and_a_slow_one_neither() {
        for (micros, instant, quick) in [(3, true, true), (90, false, true), (5000, false, false)] {
            let pace = Pace::default();
            (0..100).for_each(|_| pace.note(Duration::from_micros(micros)));
            assert_eq!((pace.is_instant(), pace.is_quick()), (instant, quick));
        }
    }
}
