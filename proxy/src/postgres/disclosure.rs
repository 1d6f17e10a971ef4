//! What may be said about a statement besides its rows: errors, notices and notifications.
//!
//! 1. What parse analysis says of the client's own text is passed on, see
//!    [`Report::is_about_the_text`](super::report::Report::is_about_the_text).
//! 2. About a statement that touches a labelled column, or could by a cascade, nothing is passed on
//!    but severity and SQLSTATE, whatever policies say: `ssn::int` quotes the value that it cannot
//!    read.
//! 3. About one that provably touches what is clear alone, everything is.
//! 4. About one that is not understood, a message is one more output, of an origin that nobody can
//!    tell. It is passed on where the set that let the statement run would show that output, and
//!    every other one, as it is: only modules that may decide on incomplete facts can say so, and
//!    none of the others may mask.
//!
//! What was put off to the end of a transaction, or to SET CONSTRAINTS, is about every statement
//! that could have put it off.

use std::{collections::HashSet, sync::Arc};

use chaperone_contract::{
    Actions, Context, Labels, Lineage, Operation, OutputField, Session as Caller, SqlFacts,
    Transform, Verdict,
};
use chaperone_policy_host::{PolicySet, Reads};
use chaperone_sql::{Kind, Relation};

use super::decide::{Ground, Permit, Statement};

/// What a statement touches, as far as messages about it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// What is known to be clear, and nothing else.
    Clear,
    /// Something of which nobody said what it holds.
    Untold,
    /// Something that is labelled.
    Labelled,
}

impl Reach {
    pub(crate) fn of(statement: &Statement) -> Self {
        let operation = &statement.operation;
        let ground = &statement.ground;
        let objects = operation.objects.iter().map(|object| &object.labels);
        let uses = operation.uses.iter().map(|used| &used.labels);
        let mut reach = objects.chain(uses).map(Self::from_labels).max();
        if statement.is_sensitive() {
            reach = reach.max(Some(Reach::Untold));
        }
        // An object of which a part is unlabelled is unknown as a whole; its other parts count.
        for relation in relations(ground, operation) {
            reach = reach.max(Some(Self::of_columns(ground, relation)));
        }
        if !statement.effects.read_only {
            reach = reach.max(cascades(ground, operation));
        }
        reach.unwrap_or(Reach::Clear)
    }

    fn from_labels(labels: &Labels) -> Self {
        match labels {
            Labels::Unknown => Reach::Untold,
            clear if clear.is_clear() => Reach::Clear,
            Labels::Known(_) => Reach::Labelled,
        }
    }

    /// Only whether something is labelled: what is not is the analysis's to judge.
    fn of_columns(ground: &Ground, relation: &Relation) -> Self {
        let labelled = relation.columns.iter().any(|column| {
            let labels =
                ground
                    .labelling
                    .of_attribute(&ground.catalog, relation.oid, column.number);
            Self::from_labels(&labels) == Reach::Labelled
        });
        if labelled {
            Reach::Labelled
        } else {
            Reach::Clear
        }
    }
}

/// The relations that hold rows among what the operation names.
fn relations<'a>(
    ground: &'a Ground,
    operation: &'a Operation,
) -> impl Iterator<Item = &'a Relation> {
    operation.objects.iter().filter_map(|object| {
        let [schema, name] = object.path.as_slice() else {
            return None;
        };
        let relation = ground.catalog.relation(schema, name)?;
        // A view has the labels of what is used of it.
        relation.definition.is_none().then_some(relation)
    })
}

/// Foreign keys carry changes on, and say what stands in their way there.
fn cascades(ground: &Ground, operation: &Operation) -> Option<Reach> {
    let mut open: Vec<u32> = relations(ground, operation).map(|one| one.oid).collect();
    let mut seen: HashSet<u32> = open.iter().copied().collect();
    let mut reach = None;
    while let Some(oid) = open.pop() {
        for relation in ground.catalog.relations() {
            let refers = relation
                .columns
                .iter()
                .any(|column| column.references.iter().any(|(to, _)| *to == oid));
            if !refers || !seen.insert(relation.oid) {
                continue;
            }
            open.push(relation.oid);
            let columns = relation.columns.iter().map(|column| {
                let labels = &ground.labelling;
                labels.of_attribute(&ground.catalog, relation.oid, column.number)
            });
            reach = reach.max(columns.map(|labels| Reach::from_labels(&labels)).max());
            if !relation.triggers.is_empty() {
                reach = reach.max(Some(Reach::Untold));
            }
        }
    }
    reach
}

/// Statements whose effects the transaction may put off to its end: deferred constraints and
/// triggers, and the rows of a cursor that is held beyond it.
#[derive(Default)]
pub(crate) struct PutOff {
    permits: Vec<Arc<Permit>>,
    /// One of those that are no longer listed may not be talked about.
    secret: bool,
}

impl PutOff {
    /// So many are listed before they are judged.
    const MOST: usize = 256;

    pub(crate) fn note(&mut self, permit: &Arc<Permit>, caller: &Arc<Caller>) {
        let statement = &permit.statement;
        let holds = matches!(statement.kind, Kind::Declare { hold: true, .. });
        let controls = statement.kind.is_transaction_control();
        if controls || statement.effects.read_only && !holds {
            return;
        }
        if self.permits.len() >= Self::MOST {
            self.secret = !self.may_be_told(caller);
            self.permits.clear();
        }
        self.permits.push(Arc::clone(permit));
    }

    pub(crate) fn may_be_told(&self, caller: &Arc<Caller>) -> bool {
        !self.secret && self.permits.iter().all(|permit| permit.may_tell(caller))
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether a statement of this kind may end a transaction, or have done at once what was put off.
pub(crate) fn may_settle(kind: &Kind) -> bool {
    kind.is_transaction_control()
        || matches!(
            kind,
            Kind::Constraints
                | Kind::PrepareTransaction { .. }
                | Kind::Maintenance
                | Kind::Definition
                | Kind::Call
                | Kind::Do
                | Kind::Other
        )
}

/// Whether the set lets the operation pass and would show an output of unknown origin of it, and
/// every other one, as it is; and what of the context that depends on.
pub(crate) fn shows_anything(
    set: &PolicySet,
    caller: &Arc<Caller>,
    operation: &Operation,
    context: &Context,
) -> (bool, Reads) {
    let mut operation = operation.clone();
    operation
        .gaps
        .push("what the server says about it may hold anything".to_owned());
    operation.outputs.push(OutputField {
        name: "message".to_owned(),
        type_name: "text".to_owned(),
        lineage: Lineage::Unknown,
    });
    let ruling = set.decide(caller, &Arc::new(operation), context);
    let passes = matches!(ruling.verdict, Verdict::Allow | Verdict::RequireApproval(_));
    let reveals = ruling
        .outputs
        .iter()
        .all(|rule| rule.transform == Transform::Reveal);
    (passes && reveals, ruling.reads)
}

/// That a session goes on in another role than the one that it was granted.
pub(crate) fn role_change() -> Operation {
    Operation {
        protocol: "postgresql".to_owned(),
        command: "SET ROLE".to_owned(),
        actions: Actions::CONTROL,
        sql: Some(SqlFacts::default()),
        ..Operation::default()
    }
}

/// What listening to sessions that are not Chaperone's amounts to: their triggers and functions
/// notify with whatever they like.
pub(crate) fn foreign_notification() -> Operation {
    Operation {
        protocol: "postgresql".to_owned(),
        command: "LISTEN".to_owned(),
        actions: Actions::CONTROL,
        sql: Some(SqlFacts::default()),
        ..Operation::default()
    }
}
