//! Changes of the catalog that sessions of ours make, so that the others look at it anew at once, and
//! withhold what was under way meanwhile. What others make of it is noticed by its age, and by a second look.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chaperone_contract::Operation;

/// So many changes are remembered. What was under way for longer than these took counts as touched.
const REMEMBERED: usize = 1024;

/// Names that a change is about, or that a statement depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    names: HashSet<String>,
    /// It may be about anything.
    anything: bool,
}

impl Touched {
    /// What a definition changes for others.
    pub(crate) fn by_change(operation: &Operation) -> Self {
        let mut touched = Self::default();
        if matches!(
            operation.command.as_str(),
            "GRANT" | "REVOKE" | "CREATE INDEX" | "CREATE STATISTICS"
        ) {
            return touched;
        }
        touched.anything = !operation.gaps.is_empty() || operation.command.contains("OWNED");
        for object in &operation.objects {
            match (object.kind.as_str(), object.path.last()) {
                ("role" | "database" | "publication" | "subscription", _) => {}
                (
                    "table" | "view" | "materialized view" | "foreign table" | "sequence" | "index"
                    | "function" | "procedure" | "trigger" | "rule" | "policy" | "schema"
                    | "statistics",
                    Some(name),
                ) => {
                    touched.names.insert(name.clone());
                }
                _ => touched.anything = true,
            }
        }
        touched
    }

    /// Whether a definition that runs in a batch of the extended protocol, outside of a block, takes
    /// effect for others only with what ends the batch. What commits by itself, as whatever has
    /// CONCURRENTLY may, or does what nobody knows, takes effect at any time.
    pub(crate) fn waits_for_sync(operation: &Operation) -> bool {
        let Some((verb, noun)) = operation.command.split_once(' ') else {
            return operation.command == "COMMENT" && operation.gaps.is_empty();
        };
        matches!(verb, "CREATE" | "ALTER" | "DROP")
            && matches!(
                noun,
                "TABLE"
                    | "TABLE AS"
                    | "VIEW"
                    | "MATERIALIZED VIEW"
                    | "FUNCTION"
                    | "SCHEMA"
                    | "DOMAIN"
                    | "POLICY"
                    | "RULE"
                    | "TRIGGER"
                    | "SEQUENCE"
            )
            && operation.gaps.is_empty()
            && !operation.text.to_ascii_lowercase().contains("concurrently")
    }

    /// What the meaning of a statement depends on.
    pub(crate) fn by_statement(operation: &Operation) -> Self {
        let paths = operation.objects.iter().flat_map(|object| &object.path);
        let functions = operation.sql.iter().flat_map(|sql| &sql.functions);
        let parts = functions.flat_map(|name| name.split('.').map(str::to_owned));
        Self {
            names: paths.cloned().chain(parts).collect(),
            anything: false,
        }
    }

    /// Adds what another one is about.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.anything |= other.anything;
        self.names.extend(other.names);
    }

    fn meets(&self, statement: &Self) -> bool {
        self.anything || !self.names.is_disjoint(&statement.names)
    }
}

#[derive(Debug)]
struct Entry {
    number: u64,
    owner: u64,
    touched: Touched,
    under_way: bool,
}

/// All changes of a backend's catalog that went through this process.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    begun: AtomicU64,
    under_way: AtomicU64,
    owners: AtomicU64,
    recent: Mutex<VecDeque<Entry>>,
}

impl Changes {
    /// A number for a session.
    pub(crate) fn owner(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed)
    }

    /// Which changes there have been; `None` while one may be taking effect.
    pub(crate) fn seen(&self) -> Option<u64> {
        // In this order: one that begins in between is either counted or under way.
        let begun = self.begun.load(Ordering::SeqCst);
        (self.under_way.load(Ordering::SeqCst) == 0).then_some(begun)
    }

    /// Up to which change all those of others have taken effect.
    pub(crate) fn settled(&self, owner: u64) -> u64 {
        let recent = self.recent();
        let mut open = recent.iter().filter(|one| one.under_way);
        open.find(|one| one.owner != owner)
            .map_or(self.begun.load(Ordering::SeqCst), |one| one.number - 1)
    }

    /// Whether a change of somebody else's behind that one is about what a statement depends on.
    pub(crate) fn touch(&self, settled: u64, owner: u64, operation: &Operation) -> bool {
        if self.begun.load(Ordering::SeqCst) == settled {
            return false;
        }
        let statement = Touched::by_statement(operation);
        if statement.names.is_empty() {
            return false;
        }
        let recent = self.recent();
        let forgotten = recent.front().is_some_and(|one| one.number > settled + 1);
        let mut later = recent.iter().filter(|one| one.number > settled);
        forgotten || later.any(|one| one.owner != owner && one.touched.meets(&statement))
    }

    /// A change that may take effect from now on, until the answer is dropped.
    pub(crate) fn begin(self: &Arc<Self>, owner: u64, touched: Touched) -> Change {
        let mut recent = self.recent();
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        if recent.len() >= REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Entry {
            number,
            owner,
            touched,
            under_way: true,
        });
        Change {
            all: Arc::clone(self),
            number,
        }
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, number: u64, then: impl FnOnce(&mut Entry)) {
        let mut recent = self.recent();
        if let Some(entry) = recent.iter_mut().find(|one| one.number == number) {
            then(entry);
        }
    }
}

/// A change of the catalog that is under way.
#[derive(Debug)]
pub(crate) struct Change {
    all: Arc<Changes>,
    number: u64,
}

impl Change {
    /// It is about these as well.
    pub(crate) fn extend(&self, touched: Touched) {
        self.all
            .entry(self.number, |entry| entry.touched.absorb(touched));
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.all.entry(self.number, |entry| entry.under_way = false);
        self.all.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use chaperone_contract::{Actions, Labels, Object};

    use super::*;

    fn operation(command: &str, kind: &str, path: &[&str]) -> Operation {
        Operation {
            command: command.to_owned(),
            objects: vec![Object {
                kind: kind.to_owned(),
                path: path.iter().map(ToString::to_string).collect(),
                actions: Actions::DEFINE,
                labels: Labels::CLEAR,
            }],
            ..Operation::default()
        }
    }

    #[test]
    fn nothing_is_as_it_was_while_a_change_is_under_way_or_behind_it() {
        let changes = Arc::new(Changes::default());
        let before = changes.seen();
        assert!(before.is_some());
        let first = changes.begin(1, Touched::default());
        let second = changes.begin(1, Touched::default());
        drop(first);
        assert_eq!(changes.seen(), None);
        drop(second);
        assert!(changes.seen().is_some() && changes.seen() != before);
    }

    #[test]
    fn what_may_commit_by_itself_is_not_put_off_to_the_end_of_its_batch() {
        let waits = |command: &str, text: &str, gap: Option<&str>| {
            let mut operation = operation(command, "table", &["t"]);
            operation.text = text.to_owned();
            operation.gaps.extend(gap.map(str::to_owned));
            Touched::waits_for_sync(&operation)
        };
        assert!(waits("CREATE VIEW", "CREATE VIEW v AS SELECT 1", None));
        assert!(waits("COMMENT", "COMMENT ON TABLE t IS ''", None));
        assert!(!waits("CREATE VIEW", "", Some("not understood")));
        assert!(!waits("COMMENT", "", Some("not understood")));
        let detach = "ALTER TABLE t DETACH PARTITION p Concurrently";
        assert!(!waits("ALTER TABLE", detach, None));
        for command in [
            "CALL",
            "DO",
            "VACUUM",
            "CREATE DATABASE",
            "DROP INDEX",
            "REINDEX",
        ] {
            assert!(!waits(command, "", None), "{command}");
        }
    }

    #[test]
    fn a_change_touches_what_names_the_same_and_was_decided_before() {
        let changes = Arc::new(Changes::default());
        let (me, other) = (changes.owner(), changes.owner());
        let read = operation("SELECT", "view", &["public", "shown"]);
        let apart = operation("SELECT", "table", &["public", "item"]);
        let define = operation("CREATE VIEW", "view", &["shown"]);
        let before = changes.settled(me);
        let change = changes.begin(other, Touched::by_change(&define));
        assert!(changes.touch(before, me, &read));
        assert!(!changes.touch(before, me, &apart));
        assert!(!changes.touch(before, other, &read));
        // Who looks while it is under way cannot tell.
        assert_eq!(changes.settled(me), before);
        drop(change);
        assert!(changes.touch(before, me, &read));
        assert!(!changes.touch(changes.settled(me), me, &read));
        // It may be about more by its end, or about anything.
        let before = changes.settled(me);
        let change = changes.begin(other, Touched::default());
        assert!(!changes.touch(before, me, &apart));
        change.extend(Touched::by_change(&operation("CREATE CAST", "cast", &[])));
        assert!(changes.touch(before, me, &apart));
        drop(change);
        let before = changes.settled(me);
        for _ in 0..REMEMBERED + 1 {
            changes.begin(other, Touched::default());
        }
        assert!(changes.touch(before, me, &apart));
    }
}
