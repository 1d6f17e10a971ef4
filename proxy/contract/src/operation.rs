//! What is asked, in terms that hold for every protocol.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

use crate::UNKNOWN_LABEL;

bitflags! {
    /// What is done to an object.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Actions: u16 {
        /// Data is read.
        const READ = 1;
        /// Data is added.
        const CREATE = 1 << 1;
        /// Data is changed.
        const UPDATE = 1 << 2;
        /// Data is removed.
        const DELETE = 1 << 3;
        /// The object itself is created, altered or dropped.
        const DEFINE = 1 << 4;
        /// Rights on the object change.
        const GRANT = 1 << 5;
        /// Code runs: a function, a procedure, a tool.
        const EXECUTE = 1 << 6;
        /// The session or the server is steered.
        const CONTROL = 1 << 7;
        /// Anything else.
        const OTHER = 1 << 8;
    }

    /// Where a field's value is used. All but `OUTPUT` can leak by inference: they move the number
    /// of rows, their order, an error or the time taken.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Usages: u16 {
        /// In a value that would leave.
        const OUTPUT = 1;
        /// Compared for equality with a constant or a parameter, in a conjunct of a filter.
        const EQUALITY = 1 << 1;
        /// In any other condition.
        const PREDICATE = 1 << 2;
        /// In a join condition.
        const JOIN = 1 << 3;
        /// In an ordering.
        const ORDER = 1 << 4;
        /// In a grouping, DISTINCT or a set operation that compares rows.
        const GROUP = 1 << 5;
        /// Written somewhere else.
        const WRITE_SOURCE = 1 << 6;
        /// Anything else that can be observed, above all an expression that can fail for some
        /// values and not for others.
        const OTHER = 1 << 7;
    }
}

/// What is known about the labels of an object or field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Labels {
    /// Exactly these; an empty list means "known to be clear".
    Known(Vec<String>),
    /// Nobody said. Matches every label.
    Unknown,
}

impl Labels {
    /// Known to be clear.
    pub const CLEAR: Labels = Labels::Known(Vec::new());

    /// Known, and none.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        matches!(self, Labels::Known(labels) if labels.is_empty())
    }

    /// Whether `label` is among them, or nobody knows.
    #[must_use]
    pub fn matches(&self, label: &str) -> bool {
        match self {
            Labels::Known(labels) => labels.iter().any(|l| l == label),
            Labels::Unknown => true,
        }
    }

    /// Whether any of `labels` matches. Unknown labels match even an empty question, so that a
    /// policy with nothing in its list still sees them.
    #[must_use]
    pub fn matches_any(&self, labels: &[String]) -> bool {
        match self {
            Labels::Known(known) => labels.iter().any(|label| known.contains(label)),
            Labels::Unknown => true,
        }
    }

    /// As a list for the contract: [`UNKNOWN_LABEL`] alone stands for unknown.
    #[must_use]
    pub fn to_list(&self) -> Vec<String> {
        match self {
            Labels::Known(labels) => labels.clone(),
            Labels::Unknown => vec![UNKNOWN_LABEL.to_owned()],
        }
    }

    /// Both together; unknown wins.
    #[must_use]
    pub fn union(&self, other: &Labels) -> Labels {
        match (self, other) {
            (Labels::Known(a), Labels::Known(b)) => {
                let mut all = a.clone();
                all.extend(b.iter().filter(|label| !a.contains(label)).cloned());
                Labels::Known(all)
            }
            _ => Labels::Unknown,
        }
    }
}

/// A table, view, function, role, FHIR resource type, S3 object, MCP tool, ...
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// `table`, `view`, `materialized view`, `foreign table`, `function`, `role`, `database`, ...
    pub kind: String,
    /// From the outermost name inwards, for SQL `[schema, name]`.
    pub path: Vec<String>,
    /// What is done to it.
    pub actions: Actions,
    /// The union of its fields' labels, and its own.
    pub labels: Labels,
}

/// One base field (column, JSON path) of an object, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldUse {
    /// Index into [`Operation::objects`].
    pub object: u32,
    /// The column's name; `*` for a whole object whose fields are not known.
    pub field: String,
    /// What the field holds.
    pub labels: Labels,
    /// Every way in which the operation uses it.
    pub usages: Usages,
}

/// What a value derives from; numbers index [`Operation::uses`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lineage {
    /// From no field at all.
    Constant,
    /// The unchanged value of one field (or NULL).
    Exact(u32),
    /// Computed from these fields.
    Derived(Vec<u32>),
    /// Nobody knows. Never written as an empty list.
    Unknown,
}

impl Lineage {
    /// The uses it derives from; empty for constants *and* for unknown lineage.
    #[must_use]
    pub fn uses(&self) -> &[u32] {
        match self {
            Lineage::Exact(index) => std::slice::from_ref(index),
            Lineage::Derived(list) => list,
            Lineage::Constant | Lineage::Unknown => &[],
        }
    }
}

/// A value that would leave: output column, JSON path, header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputField {
    /// Its name in the answer.
    pub name: String,
    /// Its type where it is known (`text`, `date`), else empty.
    pub type_name: String,
    /// What it derives from.
    pub lineage: Lineage,
}

/// A bind parameter or body value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// SQL NULL, JSON null.
    Null,
    /// Text.
    Text(String),
    /// Bytes in a format of their own.
    Binary(Vec<u8>),
    /// The length in bytes of what is too long to hand over.
    Truncated(u64),
}

/// What only SQL has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlFacts {
    /// Functions that the statement calls, schema-qualified, without duplicates.
    pub functions: Vec<String>,
    /// Whether every read or written base relation stands under some WHERE or JOIN condition of
    /// the statement's top level that is not constant.
    pub is_filtered: bool,
    /// A constant LIMIT (or FETCH FIRST) of the outermost query.
    pub row_limit: Option<u64>,
    /// Whether the statement provably only reads: by allow-list, not by its first word.
    pub is_read_only: bool,
    /// The effective search path, system schemas included, in order.
    pub search_path: Vec<String>,
}

/// What is asked, apart from what changes with every execution ([`Context`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// `postgresql`, `http`, `s3`, `mcp`.
    pub protocol: String,
    /// `SELECT`, `DROP TABLE`, `GET`, `tools/call`.
    pub command: String,
    /// The union of what is done.
    pub actions: Actions,
    /// The statement or request line as the caller wrote it.
    pub text: String,
    /// Why facts are incomplete; empty = complete. Sentences for people, without literals of the
    /// statement in them.
    pub gaps: Vec<String>,
    /// What is touched.
    pub objects: Vec<Object>,
    /// Which fields, and how.
    pub uses: Vec<FieldUse>,
    /// What would leave.
    pub outputs: Vec<OutputField>,
    /// Present when `protocol` is `postgresql`.
    pub sql: Option<SqlFacts>,
}

/// An [`Operation`] without its text: the same for statements that differ in constants alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OperationFacts<'o> {
    protocol: &'o str,
    command: &'o str,
    actions: Actions,
    gaps: &'o [String],
    objects: &'o [Object],
    uses: &'o [FieldUse],
    outputs: &'o [OutputField],
    sql: Option<&'o SqlFacts>,
}

impl Operation {
    /// All but the text.
    #[must_use]
    pub fn facts(&self) -> OperationFacts<'_> {
        OperationFacts {
            protocol: &self.protocol,
            command: &self.command,
            actions: self.actions,
            gaps: &self.gaps,
            objects: &self.objects,
            uses: &self.uses,
            outputs: &self.outputs,
            sql: self.sql.as_ref(),
        }
    }

    /// Indexes of the objects with one of `labels`, or with unknown labels.
    #[must_use]
    pub fn objects_labelled(&self, labels: &[String]) -> Vec<u32> {
        indexes(&self.objects, |object| object.labels.matches_any(labels))
    }

    /// Indexes of the uses in one of `usages` with one of `labels`, or with unknown labels.
    #[must_use]
    pub fn uses_labelled(&self, labels: &[String], usages: Usages) -> Vec<u32> {
        indexes(&self.uses, |used| {
            used.usages.intersects(usages) && used.labels.matches_any(labels)
        })
    }

    /// (index of the output, index of the label in `labels`), for every pair that matches. An
    /// output of unknown lineage, or that derives from a field of unknown labels, matches every
    /// label.
    #[must_use]
    pub fn outputs_labelled(&self, labels: &[String]) -> Vec<(u32, u32)> {
        let mut pairs = Vec::new();
        for (output, field) in (0u32..).zip(&self.outputs) {
            let known = self.output_labels(field);
            for (index, label) in (0u32..).zip(labels) {
                if known.matches(label) {
                    pairs.push((output, index));
                }
            }
        }
        pairs
    }

    /// The labels that an output carries through its lineage.
    #[must_use]
    pub fn output_labels(&self, output: &OutputField) -> Labels {
        match &output.lineage {
            Lineage::Unknown => Labels::Unknown,
            lineage => lineage
                .uses()
                .iter()
                .map(|&used| {
                    self.uses
                        .get(used as usize)
                        .map_or(&Labels::Unknown, |used| &used.labels)
                })
                .fold(Labels::CLEAR, |all, labels| all.union(labels)),
        }
    }
}

fn indexes<T>(items: &[T], wanted: impl Fn(&T) -> bool) -> Vec<u32> {
    (0u32..)
        .zip(items)
        .filter(|(_, item)| wanted(item))
        .map(|(index, _)| index)
        .collect()
}

/// What changes from one execution of an operation to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Bind values, in order.
    pub parameters: Vec<Value>,
    /// The host's clock when the operation arrived, Unix seconds.
    pub received_at: u64,
    /// Whether a transaction block is open.
    pub in_transaction: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Operation {
        let used = |field: &str, labels: Labels, usages| FieldUse {
            object: 0,
            field: field.into(),
            labels,
            usages,
        };
        let output = |lineage| OutputField {
            name: "c".into(),
            type_name: String::new(),
            lineage,
        };
        Operation {
            uses: vec![
                used("ssn", Labels::Known(vec!["ssn".into()]), Usages::OUTPUT),
                used("id", Labels::CLEAR, Usages::PREDICATE),
                used("x", Labels::Unknown, Usages::ORDER),
            ],
            outputs: vec![
                output(Lineage::Exact(0)),
                output(Lineage::Constant),
                output(Lineage::Unknown),
                output(Lineage::Derived(vec![1, 2])),
                output(Lineage::Derived(vec![7])),
            ],
            ..Operation::default()
        }
    }

    #[test]
    fn unknown_matches_every_question() {
        let labels = ["ssn".to_owned(), "name".to_owned()];
        assert_eq!(
            operation().outputs_labelled(&labels),
            [(0, 0), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1)]
        );
        assert_eq!(operation().uses_labelled(&labels, Usages::all()), [0, 2]);
        assert_eq!(operation().uses_labelled(&[], Usages::ORDER), [2]);
    }
}
