//! What clients did and heard.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counted by everybody.
#[derive(Debug, Default)]
pub struct Tally {
    /// Statements that the backend has run, well or not.
    executed: AtomicU64,
    /// Statements that policies or people refused, as they had to.
    refused: AtomicU64,
    pub sessions: AtomicU64,
    pub reloads: AtomicU64,
    pub granted: AtomicU64,
    pub denied: AtomicU64,
    /// Statements that ran because somebody had approved them.
    pub released: AtomicU64,
    expected: Mutex<BTreeMap<String, u64>>,
    unexpected: Mutex<BTreeMap<String, (u64, String)>>,
}

impl Tally {
    /// So many statements were run.
    pub fn ran(&self, statements: u64) {
        self.executed.fetch_add(statements, Ordering::Relaxed);
    }

    /// One failed at the backend, as it was meant to.
    pub fn failed(&self, state: &str) {
        self.ran(1);
        self.note(state);
    }

    /// One was refused, as it was meant to.
    pub fn refused(&self, state: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.note(state);
    }

    fn note(&self, state: &str) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        *expected.entry(state.to_owned()).or_default() += 1;
    }

    /// Something that nobody asked for.
    pub fn wrong(&self, state: &str, text: &str) {
        let mut all = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let entry = all.entry(state.to_owned()).or_default();
        entry.0 += 1;
        if entry.1.is_empty() {
            text.clone_into(&mut entry.1);
        }
    }

    pub fn executed(&self) -> u64 {
        self.executed.load(Ordering::Relaxed)
    }

    pub fn line(&self) -> String {
        format!(
            "{} statements run, {} refused, {} reloads, {} approvals given and {} denied, {} sessions",
            self.executed(),
            self.refused.load(Ordering::Relaxed),
            self.reloads.load(Ordering::Relaxed),
            self.granted.load(Ordering::Relaxed),
            self.denied.load(Ordering::Relaxed),
            self.sessions.load(Ordering::Relaxed),
        )
    }

    pub fn table(&self, seconds: f64) -> String {
        let mut text = self.line();
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = self.executed() as f64 / seconds;
        let _ = writeln!(text, "\n{rate:.0} statements a second over {seconds:.0} s");
        let _ = writeln!(text, "errors by SQLSTATE, as they had to come:");
        for (state, count) in &*self.expected.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = writeln!(text, "    {state}  {count}");
        }
        let _ = write!(text, "errors that had not to come:");
        let all = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            text.push_str(" none");
        }
        for (state, (count, example)) in &*all {
            let _ = write!(text, "\n    {state}  {count}, such as {example}");
        }
        text
    }

    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let wrong = self
            .unexpected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !wrong.is_empty() {
            broken.push("clients heard errors that they had not asked for".to_owned());
        }
        let (granted, released) = (
            self.granted.load(Ordering::Relaxed),
            self.released.load(Ordering::Relaxed),
        );
        if granted != released {
            broken.push(format!(
                "{granted} approvals were given and {released} used"
            ));
        }
        for (what, count) in [
            ("statement", self.executed()),
            ("reload", self.reloads.load(Ordering::Relaxed)),
            ("approval", granted),
        ] {
            if count == 0 {
                broken.push(format!("there was no {what}"));
            }
        }
        broken
    }
}
