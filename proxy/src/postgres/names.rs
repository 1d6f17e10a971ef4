//! Names of prepared statements and portals, as the server knows them.
//!
//! A name changes only when the server acknowledges the message that changes it. Until then the
//! change is pending, and belongs to the batch (up to Sync or a simple Query) in which it was sent:
//! within that batch an error skips everything behind, so what builds on the change may assume it;
//! a later batch may not, and waits.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The server compares no more of a name (`NAMEDATALEN` - 1).
const COMPARED: usize = 63;

/// As much of a name as the server tells names apart by.
fn compared(name: &[u8]) -> &[u8] {
    name.get(..COMPARED).unwrap_or(name)
}

/// What a look-up finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    /// The name stands for this.
    Is(T),
    /// The name stands for nothing.
    Nothing,
    /// It depends on what the server says to an earlier batch.
    Unsettled,
}

/// What a name stands for, and how much memory that takes.
pub(crate) trait Weigh {
    /// In bytes, about.
    fn weight(&self) -> usize;
}

impl<T: Weigh> Weigh for Arc<T> {
    fn weight(&self) -> usize {
        T::weight(self)
    }
}

#[derive(Debug)]
struct Change<T> {
    batch: u64,
    name: Vec<u8>,
    to: Option<T>,
}

/// Names and what they stand for.
#[derive(Debug)]
pub(crate) struct Names<T> {
    settled: HashMap<Vec<u8>, T>,
    pending: VecDeque<Change<T>>,
    /// Of all of them, in bytes.
    weight: usize,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            settled: HashMap::new(),
            pending: VecDeque::new(),
            weight: 0,
        }
    }
}

fn weight(name: &[u8], to: Option<&impl Weigh>) -> usize {
    name.len() + to.map_or(0, Weigh::weight)
}

impl<T: Clone + Weigh> Names<T> {
    /// How much memory the names take with what they stand for, in bytes, about.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// What the name stands for, for a message of the given batch.
    pub(crate) fn find(&self, name: &[u8], batch: u64) -> Found<T> {
        let name = compared(name);
        match self.pending.iter().rev().find(|change| change.name == name) {
            Some(change) if change.batch != batch => Found::Unsettled,
            Some(change) => change.to.clone().map_or(Found::Nothing, Found::Is),
            None => self
                .settled
                .get(name)
                .cloned()
                .map_or(Found::Nothing, Found::Is),
        }
    }

    /// A message that changes the name has been sent. Changes settle in the order of this.
    pub(crate) fn propose(&mut self, batch: u64, name: &[u8], to: Option<T>) {
        let name = compared(name);
        self.weight += weight(name, to.as_ref());
        self.pending.push_back(Change {
            batch,
            name: name.to_vec(),
            to,
        });
    }

    /// The server has acknowledged the oldest pending change.
    pub(crate) fn settle(&mut self) {
        if let Some(Change { name, to, .. }) = self.pending.pop_front() {
            self.lighten(&name, to.as_ref());
            self.set(name, to);
        }
    }

    /// The server has skipped or refused the oldest pending change.
    pub(crate) fn reject(&mut self) {
        if let Some(Change { name, to, .. }) = self.pending.pop_front() {
            self.lighten(&name, to.as_ref());
        }
    }

    /// A change that is known to have happened.
    pub(crate) fn set(&mut self, mut name: Vec<u8>, to: Option<T>) {
        name.truncate(COMPARED);
        if let Some(was) = self.settled.remove(&name) {
            self.lighten(&name, Some(&was));
        }
        if let Some(to) = to {
            self.weight += weight(&name, Some(&to));
            self.settled.insert(name, to);
        }
    }

    /// Keeps only the settled names for which `keep` holds.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut dropped = 0;
        self.settled.retain(|name, value| {
            let keeps = keep(value);
            dropped += if keeps { 0 } else { weight(name, Some(value)) };
            keeps
        });
        self.weight = self.weight.saturating_sub(dropped);
    }

    fn lighten(&mut self, name: &[u8], to: Option<&T>) {
        self.weight = self.weight.saturating_sub(weight(name, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    #[test]
    fn what_is_gone_weighs_nothing() {
        let mut names = Names::default();
        names.propose(1, b"ab", Some(100));
        names.propose(1, b"ab", Some(10));
        assert_eq!(names.weight(), 114);
        names.settle();
        names.settle();
        assert_eq!(names.weight(), 12);
        names.propose(2, b"c", Some(50));
        names.reject();
        names.propose(2, b"ab", None);
        assert_eq!(names.weight(), 14);
        names.settle();
        assert_eq!(names.weight(), 0);
        names.set(b"d".to_vec(), Some(7));
        names.set(b"e".to_vec(), Some(1));
        names.retain(|weight| *weight == 1);
        assert_eq!(names.weight(), 2);
    }

    #[test]
    fn a_name_changes_when_the_server_says_so() {
        let mut names = Names::default();
        names.propose(1, b"s", Some(1));
        assert_eq!(names.find(b"s", 1), Found::Is(1));
        assert_eq!(names.find(b"s", 2), Found::Unsettled);
        names.settle();
        assert_eq!(names.find(b"s", 2), Found::Is(1));
        names.propose(2, b"s", Some(2));
        assert_eq!(names.find(b"s", 2), Found::Is(2));
        names.reject();
        assert_eq!(names.find(b"s", 3), Found::Is(1));
        names.propose(3, b"s", None);
        assert_eq!(names.find(b"s", 3), Found::Nothing);
        names.settle();
        assert_eq!(names.find(b"s", 4), Found::Nothing);
    }

    #[test]
    fn the_server_looks_at_the_beginning_of_a_name() {
        let mut names = Names::default();
        let (one, other) = ([b'a'; 64], [[b'a'; 63].as_slice(), b"b"].concat());
        names.propose(1, &one, Some(1));
        assert_eq!(names.find(&other, 1), Found::Is(1));
        names.settle();
        names.set(other, None);
        assert_eq!(names.find(&one, 2), Found::Nothing);
    }
}
