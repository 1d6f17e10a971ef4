//! Whether storage is so quick that whoever appends had better write for itself.
//!
//! Waking a thread and being woken by it costs some ten microseconds of processor time. A sync that
//! takes less (memory, a controller with a battery) is cheaper done where the record comes from;
//! one that takes longer must be waited for by a thread that has nothing else to do.

use std::{
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

/// A write and sync that take no longer are quick.
const QUICK: Duration = Duration::from_micros(30);
/// So sure one can get.
const MOST: u8 = 16;
/// So sure one has to be.
const ENOUGH: u8 = 8;

/// A count of quick batches, of which a slow one takes back several.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU8);

impl Pace {
    /// Only whoever holds the writer calls this, so that nothing is lost between load and store.
    pub(crate) fn note(&self, took: Duration) {
        let score = self.0.load(Ordering::Relaxed);
        let score = if took <= QUICK {
            score.saturating_add(1).min(MOST)
        } else {
            score.saturating_sub(4)
        };
        self.0.store(score, Ordering::Relaxed);
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_is_earned_slowly_and_lost_soon() {
        let pace = Pace::default();
        let (quick, slow) = (Duration::from_micros(3), Duration::from_millis(1));
        for _ in 0..ENOUGH {
            assert!(!pace.is_quick());
            pace.note(quick);
        }
        assert!(pace.is_quick());
        pace.note(slow);
        assert!(!pace.is_quick());
        // One that was merely interrupted now and then stays trusted.
        for n in 0..1000 {
            pace.note(if n % 50 == 49 { slow } else { quick });
        }
        assert!(pace.is_quick());
        // A disk never is, even if every third sync has nothing to do.
        for n in 0..1000 {
            pace.note(if n % 3 == 0 { quick } else { slow });
            assert!(n < 10 || !pace.is_quick());
        }
    }
}
