//! Budgets: how many rows a caller may receive in a stretch of time, counted over all its sessions.
//!
//! A policy names a budget and sets its size, so that it stays pure; the count is the host's. Time
//! is cut into sixtieths of the window: a row is forgotten between one window and one window and a
//! sixtieth after it left. Counts live in memory: a restart begins anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chaperone_contract::{Budget, Session};

/// A budget belongs to a caller at a target.
type Key = (String, String, String, String);

/// Parts that a window is counted in.
const PARTS: u32 = 60;
/// Counts are looked through for old ones when there are this many.
const SWEEP: usize = 10_000;

/// All counts of the process.
#[derive(Debug, Default)]
pub struct Budgets {
    counts: Mutex<HashMap<Key, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    parts: VecDeque<(Instant, u64)>,
    window: Duration,
}

impl Count {
    fn used(&mut self, now: Instant) -> u64 {
        let window = self.window + self.window / PARTS;
        while self
            .parts
            .front()
            .is_some_and(|(since, _)| now.duration_since(*since) > window)
        {
            self.parts.pop_front();
        }
        self.parts.iter().map(|(_, rows)| rows).sum()
    }

    fn add(&mut self, now: Instant, rows: u64) {
        match self.parts.back_mut() {
            Some((since, count)) if now.duration_since(*since) < self.window / PARTS => {
                *count += rows;
            }
            _ => self.parts.push_back((now, rows)),
        }
    }
}

impl Budgets {
    /// Takes up to `wanted` rows out of every one of `budgets`, as many as all of them still hold.
    /// With `wanted` 0 nothing is taken; the answer is then what is left.
    pub(crate) fn take(
        &self,
        caller: &Session,
        budgets: &[Budget],
        wanted: Option<u64>,
        now: Instant,
    ) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() > SWEEP {
            counts.retain(|_, count| count.used(now) > 0);
        }
        let mut granted = wanted.unwrap_or(u64::MAX);
        for budget in budgets {
            let count = counts.entry(key(caller, budget)).or_default();
            // The longest window that any policy asks for holds for all.
            count.window = count
                .window
                .max(Duration::from_secs(budget.window_seconds.into()));
            granted = granted.min(budget.max.saturating_sub(count.used(now)));
        }
        if wanted.is_some() && granted > 0 {
            for budget in budgets {
                counts
                    .entry(key(caller, budget))
                    .or_default()
                    .add(now, granted);
            }
        }
        granted
    }
}

fn key(caller: &Session, budget: &Budget) -> Key {
    (
        caller.target.clone(),
        caller.issuer.clone(),
        caller.subject.clone(),
        budget.name.clone(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(max: u64) -> Budget {
        Budget {
            name: "phi-rows".into(),
            max,
            window_seconds: 60,
        }
    }

    fn caller(subject: &str) -> Session {
        Session {
            subject: subject.into(),
            ..Session::default()
        }
    }

    #[test]
    fn a_budget_is_one_caller_s_over_all_sessions_and_comes_back() {
        let budgets = Budgets::default();
        let (ann, bob) = (caller("ann"), caller("bob"));
        let start = Instant::now();
        assert_eq!(budgets.take(&ann, &[budget(10)], Some(8), start), 8);
        assert_eq!(budgets.take(&ann, &[budget(10)], None, start), 2);
        assert_eq!(budgets.take(&ann, &[budget(10)], Some(8), start), 2);
        assert_eq!(budgets.take(&ann, &[budget(10)], Some(1), start), 0);
        assert_eq!(budgets.take(&bob, &[budget(10)], Some(1), start), 1);
        let later = start + Duration::from_secs(62);
        assert_eq!(budgets.take(&ann, &[budget(10)], Some(20), later), 10);
    }

    #[test]
    fn the_smallest_of_several_budgets_holds() {
        let budgets = Budgets::default();
        let other = Budget {
            name: "other".into(),
            ..budget(3)
        };
        let both = [budget(10), other];
        assert_eq!(
            budgets.take(&caller("ann"), &both, Some(5), Instant::now()),
            3
        );
        assert_eq!(
            budgets.take(&caller("ann"), &[budget(10)], None, Instant::now()),
            7
        );
    }
}
