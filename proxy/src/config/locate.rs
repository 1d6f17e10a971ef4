//! From a key to its place in the text, and back.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One step of a key's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Step::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Step::Index(index)
    }
}

/// `key!["targets", 0, "name"]`.
macro_rules! key {
    ($($step:expr),* $(,)?) => { vec![$($crate::config::locate::Step::from($step)),*] };
}
pub(super) use key;

/// Line and column (characters), from 1.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

/// `targets[0].labels."public.staff"`.
pub(super) fn show(steps: &[Step]) -> String {
    let mut shown = String::new();
    for step in steps {
        match step {
            Step::Index(index) => shown.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                if !shown.is_empty() {
                    shown.push('.');
                }
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if key.chars().all(bare) {
                    shown.push_str(key);
                } else {
                    shown.push_str(&format!("{key:?}"));
                }
            }
        }
    }
    shown
}

/// The deepest key whose value holds `span`, or that is itself at `span`.
pub(super) fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let document = DeTable::parse(text).ok()?;
    let mut steps = Vec::new();
    descend_table(document.get_ref(), span, &mut steps);
    (!steps.is_empty()).then(|| show(&steps))
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn descend_table(table: &DeTable<'_>, span: &Range<usize>, steps: &mut Vec<Step>) {
    for (key, value) in table.iter() {
        steps.push(Step::Key(key.get_ref().to_string()));
        // A [header] table's own span is its header; what is in it lies elsewhere, so look inside first.
        let depth = steps.len();
        descend_value(value.get_ref(), span, steps);
        if steps.len() > depth || holds(&value.span(), span) || holds(&key.span(), span) {
            return;
        }
        steps.pop();
    }
}

fn descend_value(value: &DeValue<'_>, span: &Range<usize>, steps: &mut Vec<Step>) {
    match value {
        DeValue::Table(table) => descend_table(table, span, steps),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                steps.push(Step::Index(index));
                let depth = steps.len();
                descend_value(item.get_ref(), span, steps);
                if steps.len() > depth || holds(&item.span(), span) {
                    return;
                }
                steps.pop();
            }
        }
        _ => {}
    }
}

/// Where the value of a key is; for a key that is not there, the nearest that is.
pub(super) fn span_of(text: &str, steps: &[Step]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let (first, rest) = steps.split_first()?;
    let Step::Key(key) = first else { return None };
    let mut value = document.get_ref().get(key.as_str())?;
    for step in rest {
        let next = match (step, value.get_ref()) {
            (Step::Key(key), DeValue::Table(table)) => table.get(key.as_str()),
            (Step::Index(index), DeValue::Array(array)) => array.get(*index),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}
