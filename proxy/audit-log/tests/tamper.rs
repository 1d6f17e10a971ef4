//! What verification finds, and what it cannot.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "common/scratch.rs"]
mod scratch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chaperone_audit_log::{
    Code, Digest, Ending, Expect, Log, LogOptions, Name, PrivateKey, Report, SegmentReader, Seq,
    Step,
    payload::{LoginDenied, LoginDeniedSealed},
    verify,
};
use proptest::prelude::*;
use scratch::scratch;

/// Files by their path in the directory; tests change the bytes and write them somewhere else.
#[derive(Clone)]
struct Tree(BTreeMap<PathBuf, Vec<u8>>);

impl Tree {
    fn read(dir: &Path) -> Self {
        let mut files = BTreeMap::new();
        for run in std::fs::read_dir(dir).unwrap() {
            let run = run.unwrap();
            if run.file_type().unwrap().is_file() {
                continue;
            }
            for file in std::fs::read_dir(run.path()).unwrap() {
                let path = file.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                files.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
            }
        }
        Self(files)
    }

    fn verify(&self, expect: &Expect) -> Report {
        let dir = scratch();
        for (path, bytes) in &self.0 {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        verify(dir.path(), expect).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.0
            .keys()
            .filter(|path| path.extension().is_some_and(|e| e == "seg"))
            .cloned()
            .collect()
    }

    /// The ranges of the records in a segment.
    fn records(&self, path: &Path) -> Vec<std::ops::Range<usize>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.0[path]).unwrap();
        let mut reader = SegmentReader::open(file.path()).unwrap();
        reader.begin().unwrap();
        let mut ranges = Vec::new();
        loop {
            let from = usize::try_from(reader.offset()).unwrap();
            match reader.step().unwrap() {
                Step::Record(frame) => ranges.push(from..from + frame.length),
                _ => return ranges,
            }
        }
    }
}

fn found(tree: &Tree, what: &str) -> Report {
    let report = tree.verify(&Expect::default());
    assert!(!report.ok, "{what} was not found");
    report
}

/// Runs that were closed, each with some records.
fn log(runs: usize, records: usize) -> Tree {
    let dir = scratch();
    let key = PrivateKey::generate("auditor").unwrap();
    for _ in 0..runs {
        let options = LogOptions {
            segment_bytes: 4096,
            ..LogOptions::new(vec![key.public()])
        };
        let log = Log::open(dir.path(), options, |_| {}).unwrap();
        for _ in 0..records {
            let clear = LoginDenied {
                code: Code::from_words("test"),
                client_address: Name::new("127.0.0.1"),
            };
            let sealed = LoginDeniedSealed {
                detail: "x".repeat(40),
                ..LoginDeniedSealed::default()
            };
            log.append(&clear, Some(&sealed), None).unwrap();
        }
        log.close(&Code::from_words("test")).unwrap();
    }
    let tree = Tree::read(dir.path());
    let report = tree.verify(&Expect::default());
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(report.runs.len(), runs);
    assert!(report.runs.iter().all(|run| run.ending == Ending::Closed));
    tree
}

#[test]
fn every_flipped_byte_is_found_where_it_is() {
    let tree = log(1, 10);
    let dir = scratch();
    for (path, bytes) in &tree.0 {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    for path in tree.segments() {
        let records = tree.records(&path);
        for at in 0..tree.0[&path].len() {
            let mut bytes = tree.0[&path].clone();
            bytes[at] ^= 1 << (at % 8);
            std::fs::write(dir.path().join(&path), &bytes).unwrap();
            let report = verify(dir.path(), &Expect::default()).unwrap();
            let problem = report.problems.first();
            let problem = problem.unwrap_or_else(|| panic!("{path:?} byte {at} was not found"));
            assert_eq!(Path::new(&problem.file), path, "byte {at}");
            let start = records.iter().find(|range| range.contains(&at));
            assert_eq!(
                problem.offset,
                Some(start.map_or(0, |range| range.start as u64)),
                "byte {at}"
            );
        }
        std::fs::write(dir.path().join(&path), &tree.0[&path]).unwrap();
    }
}

#[test]
fn removed_doubled_and_swapped_records_are_found() {
    let tree = log(1, 20);
    for path in tree.segments() {
        let records = tree.records(&path);
        let bytes = &tree.0[&path];
        for (index, range) in records.iter().enumerate() {
            let last = index + 1 == records.len();
            let stop = last && path == *tree.segments().last().unwrap();
            let mut without = tree.clone();
            without.0.get_mut(&path).unwrap().drain(range.clone());
            if stop {
                // The one cut that no chain shows: it is said, and an expectation finds it.
                let report = without.verify(&Expect::default());
                assert!(report.ok);
                assert_eq!(report.runs[0].ending, Ending::Unfinished);
            } else {
                found(&without, "a missing record");
            }
            let mut doubled = tree.clone();
            let copy = bytes[range.clone()].to_vec();
            doubled
                .0
                .get_mut(&path)
                .unwrap()
                .splice(range.end..range.end, copy);
            found(&doubled, "a doubled record");
            if let Some(next) = records.get(index + 1) {
                let mut swapped = bytes[..range.start].to_vec();
                swapped.extend_from_slice(&bytes[next.clone()]);
                swapped.extend_from_slice(&bytes[range.clone()]);
                swapped.extend_from_slice(&bytes[next.end..]);
                let mut tree = tree.clone();
                tree.0.insert(path.clone(), swapped);
                found(&tree, "swapped records");
            }
        }
    }
}

#[test]
fn missing_swapped_and_foreign_segments_are_found() {
    let tree = log(2, 30);
    let segments = tree.segments();
    for path in &segments {
        let mut without = tree.clone();
        let bytes = without.0.remove(path).unwrap();
        let report = found(&without, "a missing segment");
        assert!(
            report.problems.iter().any(|p| p.file.contains(".seg")),
            "{:?}",
            report.problems
        );
        let other = segments.iter().find(|other| *other != path).unwrap();
        let mut swapped = tree.clone();
        let there = swapped.0.insert(other.clone(), bytes).unwrap();
        swapped.0.insert(path.clone(), there);
        found(&swapped, "swapped segments");
        let mut empty = tree.clone();
        empty.0.insert(path.clone(), Vec::new());
        found(&empty, "an emptied segment");
    }
    let folder = segments[0].parent().unwrap();
    for name in ["notes.txt", "000009.seg", "1.seg", "000001.seg.bak"] {
        let mut more = tree.clone();
        more.0.insert(folder.join(name), b"x".to_vec());
        found(&more, name);
    }
}

#[test]
fn missing_foreign_and_renamed_runs_are_found() {
    let tree = log(3, 5);
    let mut folders: Vec<_> = tree
        .segments()
        .iter()
        .map(|path| path.parent().unwrap().to_owned())
        .collect();
    folders.dedup();
    let without = |folder: &Path| {
        let mut tree = tree.clone();
        tree.0.retain(|path, _| !path.starts_with(folder));
        tree
    };
    found(&without(&folders[0]), "a missing first run");
    found(&without(&folders[1]), "a missing run in the middle");
    // The last run as a whole: only an expectation finds it.
    let head = tree.verify(&Expect::default()).head.unwrap();
    let cut = without(&folders[2]);
    assert!(cut.verify(&Expect::default()).ok);
    let expect = Expect {
        head: Some(head.hash),
        ..Expect::default()
    };
    assert!(!cut.verify(&expect).ok);
    assert!(tree.verify(&expect).ok);

    let mut foreign = tree.clone();
    for (path, bytes) in log(1, 5).0 {
        foreign.0.insert(path, bytes);
    }
    found(&foreign, "a foreign run");

    let mut renamed = without(&folders[1]);
    for (path, bytes) in &tree.0 {
        if let Ok(file) = path.strip_prefix(&folders[1]) {
            let folder = "019d0000-0000-7000-8000-000000000000";
            renamed
                .0
                .insert(Path::new(folder).join(file), bytes.clone());
        }
    }
    found(&renamed, "a renamed run");
}

#[test]
fn a_cut_at_any_byte_is_found_or_said() {
    let tree = log(1, 5);
    let head = tree.verify(&Expect::default()).head.unwrap();
    let path = tree.segments().pop().unwrap();
    let bounds: Vec<_> = tree.records(&path).iter().map(|r| r.start).collect();
    for length in 0..tree.0[&path].len() {
        let mut cut = tree.clone();
        cut.0.get_mut(&path).unwrap().truncate(length);
        let report = cut.verify(&Expect::default());
        if bounds.contains(&length) && length > bounds[0] {
            assert!(report.ok, "{:?}", report.problems);
            assert_eq!(report.runs[0].ending, Ending::Unfinished, "it is said");
        } else if tree.segments().len() > 1 && length > 0 {
            assert!(!report.ok, "cut to {length} bytes");
        }
        for expect in [
            Expect {
                head: Some(head.hash),
                ..Expect::default()
            },
            Expect {
                at_least: Some((None, head.seq)),
                ..Expect::default()
            },
            Expect {
                at_least: Some((Some(head.log), head.seq)),
                ..Expect::default()
            },
        ] {
            assert!(!cut.verify(&expect).ok, "cut to {length} bytes");
        }
    }
}

#[test]
fn expectations_hold_for_what_is_there() {
    let tree = log(2, 5);
    let report = tree.verify(&Expect::default());
    for run in &report.runs {
        let expect = Expect {
            head: Some(run.head.hash),
            at_least: Some((Some(run.head.log), run.head.seq)),
        };
        assert!(tree.verify(&expect).ok);
        let expect = Expect {
            at_least: Some((Some(run.head.log), Seq(run.head.seq.0 + 1))),
            ..Expect::default()
        };
        assert!(!tree.verify(&expect).ok);
    }
    let expect = Expect {
        head: Some(Digest::of(b"another")),
        ..Expect::default()
    };
    assert!(!tree.verify(&expect).ok);
}

#[test]
fn reserved_zeros_are_no_problem_but_nothing_else_is() {
    let tree = log(1, 5);
    let path = tree.segments().pop().unwrap();
    let mut zeros = tree.clone();
    zeros
        .0
        .get_mut(&path)
        .unwrap()
        .extend_from_slice(&[0; 9000]);
    assert!(zeros.verify(&Expect::default()).ok);
    let length = zeros.0[&path].len();
    for at in [length - 9000, length - 5000, length - 1] {
        let mut changed = zeros.clone();
        changed.0.get_mut(&path).unwrap()[at] = 1;
        found(&changed, "a byte in the reserved space");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_damage_is_found(
        segment in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 0..80),
        removed in 0usize..80,
    ) {
        let tree = log(2, 6);
        let segments = tree.segments();
        let path = segment.get(&segments);
        let before = &tree.0[path];
        let at = at.index(before.len());
        let end = (at + removed).min(before.len());
        let mut after = before.clone();
        after.splice(at..end, junk);
        prop_assume!(after != *before);
        let mut changed = tree.clone();
        changed.0.insert(path.clone(), after);
        let report = changed.verify(&Expect::default());
        // What is left after a cut at a record's boundary is whole; it is no longer closed.
        let open = report.runs.iter().any(|run| run.ending != Ending::Closed);
        prop_assert!(!report.ok || open);
        let heads = tree.verify(&Expect::default()).head;
        let expect = Expect { head: heads.map(|head| head.hash), ..Expect::default() };
        prop_assert!(!changed.verify(&expect).ok);
    }
}
