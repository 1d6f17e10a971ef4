//! From a text to facts: the walk's state, and statement by statement what is a query and what is
//! not.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Lineage, Operation, OutputField, SqlFacts, Usages};
use pg_raw_parse::Node;

use crate::catalog::{Catalog, SessionView};
use crate::classify::{self, Kind};
use crate::error::ParseError;
use crate::guard::{self, Depth, Limits, Stop};
use crate::label::Labelling;
use crate::objects::{Field, Referent, Touched};
use crate::value::{Columns, More, Origin, Type, Value};

pub(crate) type Res<T> = Result<T, Stop>;

/// How far a function that is not PostgreSQL's own is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Its result never holds labelled data.
    Clear,
    /// Its result holds nothing but what its arguments hold.
    Derived,
}

/// How to look at statements.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Bounds.
    pub limits: Limits,
    /// Functions that the operator vouches for, by `schema.name`.
    pub trusted_functions: HashMap<String, Trust>,
}

/// What a statement changes besides rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// It provably only reads.
    pub read_only: bool,
    /// It may change what the catalog holds: facts of later statements need it anew.
    pub catalog: bool,
    /// It may change settings.
    pub settings: bool,
    /// It may create or drop temporary objects.
    pub temp: bool,
    /// It may answer differently next time even if nothing changed, or has effects.
    pub volatile: bool,
}

/// A column of the answer as RowDescription should report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The relation's object identifier and the attribute number, zeros for computed ones; `None`
    /// where it cannot be told.
    pub origin: Option<(u32, i16)>,
}

/// What one statement of a text does.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Bytes of the text that it takes.
    pub span: Range<usize>,
    /// What it is to a session.
    pub kind: Kind,
    /// What it does, in the contract's terms.
    pub operation: Operation,
    /// Whether it touches anything that is not known to be clear.
    pub labelled: bool,
    /// One for each of the operation's outputs.
    pub columns: Vec<Column>,
    /// Whether `columns` is surely as many as the answer has.
    pub width_known: bool,
    /// What it changes besides rows.
    pub effects: Effects,
    /// The highest number of a `$n` in it.
    pub parameters: u32,
    /// Object identifiers of relations that it touches and that somebody else is changing at this
    /// instant, so that they are not understood: see [`Snapshot::wait_for`](crate::Snapshot::wait_for).
    pub pending: Vec<u32>,
}

/// The facts of each statement of a text; one of [`Kind::Empty`] if it has none.
///
/// # Errors
/// When the text is not in PostgreSQL's grammar or beyond the limits. What is in the grammar but
/// not understood is a gap in the facts, not an error.
pub fn analyze(
    text: &str,
    catalog: &Catalog,
    session: &SessionView,
    labelling: &Labelling,
    options: &Options,
) -> Result<Vec<Facts>, ParseError> {
    guard::contained(|| {
        let tree = guard::parse(text, &options.limits)?;
        let mut all = Vec::with_capacity(tree.len());
        let mut earlier = false;
        let several = tree.len() > 1;
        for raw in tree.iter() {
            let span = classify::span(raw, text);
            let mut analyzer = Analyzer::new(catalog, session, labelling, options);
            let position = span.start;
            let facts = analyzer
                .statement(raw.stmt(), text, span, several && earlier)
                .map_err(|stop| stop.at(position, &options.limits))?;
            earlier |= changes_reading(&facts, analyzer.untrusted);
            all.push(facts);
        }
        if all.is_empty() {
            all.push(empty(text, session));
        }
        Ok(all)
    })
}

/// Whether what comes after a statement in the same text may mean something else than before it.
fn changes_reading(facts: &Facts, untrusted: bool) -> bool {
    if untrusted || facts.effects.catalog || facts.effects.temp {
        return true;
    }
    match &facts.kind {
        Kind::Set { name, .. } | Kind::Reset { name: Some(name) } => setting_matters(name),
        Kind::Reset { name: None } | Kind::Discard { .. } => true,
        // What they restore or run is not in the text.
        Kind::Rollback { .. } | Kind::RollbackTo { .. } | Kind::Execute { .. } => true,
        Kind::Do | Kind::Call | Kind::Load | Kind::PrepareTransaction { .. } => true,
        _ => false,
    }
}

/// Whether a setting changes how later statements are read, or what of them is shown.
fn setting_matters(name: &str) -> bool {
    !matches!(
        name,
        "statement_timeout"
            | "lock_timeout"
            | "idle_in_transaction_session_timeout"
            | "idle_session_timeout"
            | "application_name"
            | "timezone"
            | "datestyle"
            | "intervalstyle"
            | "extra_float_digits"
            | "bytea_output"
            | "work_mem"
            | "maintenance_work_mem"
            | "transaction_read_only"
            | "transaction_deferrable"
            | "default_transaction_read_only"
            | "default_transaction_deferrable"
            | "random_page_cost"
            | "seq_page_cost"
            | "jit"
            | "synchronous_commit"
            | "lc_time"
            | "lc_monetary"
            | "lc_numeric"
    )
}

fn empty(text: &str, session: &SessionView) -> Facts {
    Facts {
        span: 0..text.len(),
        kind: Kind::Empty,
        operation: Operation {
            protocol: "postgresql".to_owned(),
            text: text.to_owned(),
            sql: Some(SqlFacts {
                is_filtered: true,
                is_read_only: true,
                search_path: session
                    .search_path
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                ..SqlFacts::default()
            }),
            ..Operation::default()
        },
        labelled: false,
        columns: Vec::new(),
        width_known: true,
        effects: Effects {
            read_only: true,
            ..Effects::default()
        },
        parameters: 0,
        pending: Vec::new(),
    }
}

/// More reasons than these help nobody.
const MOST_GAPS: usize = 50;

/// The state of one statement's walk.
#[derive(Debug)]
pub(crate) struct Analyzer<'c> {
    pub(crate) catalog: &'c Catalog,
    pub(crate) session: &'c SessionView,
    pub(crate) labelling: &'c Labelling,
    pub(crate) options: &'c Options,
    pub(crate) depth: Rc<Depth>,
    /// The search path that names resolve in: the session's, or a definition's.
    pub(crate) path: Vec<Arc<str>>,
    pub(crate) objects: Vec<Touched<'c>>,
    pub(crate) fields: Vec<Field>,
    pub(crate) field_index: HashMap<(u32, usize), u32>,
    pub(crate) gaps: Vec<String>,
    pub(crate) functions: Vec<String>,
    pub(crate) parameters: u32,
    pub(crate) views: HashMap<u32, Option<Rc<Vec<Value>>>>,
    pub(crate) secured: Vec<u32>,
    /// Writes that are accounted for, as (relation, actions).
    pub(crate) written: HashSet<(u32, Actions)>,
    /// Changes of columns that foreign keys have carried on, as (relation, column).
    pub(crate) carried: HashSet<(u32, i16)>,
    /// Fields of conditions in the subqueries that are open.
    pub(crate) conditions: Vec<Vec<u32>>,
    pub(crate) sublinks: usize,
    /// Objects under some condition.
    pub(crate) filtered: Vec<u32>,
    pub(crate) read_only: bool,
    pub(crate) volatile: bool,
    pub(crate) untrusted: bool,
    pub(crate) unknown_reported: bool,
    pub(crate) unsure_width: bool,
}

/// What a statement turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) outputs: Columns,
    pub(crate) effects: Effects,
    pub(crate) row_limit: Option<u64>,
    pub(crate) actions: Actions,
}

impl<'c> Analyzer<'c> {
    pub(crate) fn new(
        catalog: &'c Catalog,
        session: &'c SessionView,
        labelling: &'c Labelling,
        options: &'c Options,
    ) -> Self {
        Analyzer {
            catalog,
            session,
            labelling,
            options,
            depth: Rc::new(Depth::new(&options.limits)),
            path: session.search_path.clone(),
            objects: Vec::new(),
            fields: Vec::new(),
            field_index: HashMap::new(),
            gaps: Vec::new(),
            functions: Vec::new(),
            parameters: 0,
            views: HashMap::new(),
            secured: Vec::new(),
            written: HashSet::new(),
            carried: HashSet::new(),
            conditions: Vec::new(),
            sublinks: 0,
            filtered: Vec::new(),
            read_only: true,
            volatile: false,
            untrusted: false,
            unknown_reported: false,
            unsure_width: false,
        }
    }

    /// Adds a gap, once.
    pub(crate) fn gap(&mut self, text: &str) {
        if self.gaps.len() < MOST_GAPS && !self.gaps.iter().any(|gap| gap == text) {
            self.gaps.push(text.to_owned());
        }
    }

    fn statement(
        &mut self,
        node: Node<'_>,
        text: &str,
        span: Range<usize>,
        after_change: bool,
    ) -> Res<Facts> {
        let kind = classify::kind(node);
        let outcome = self.body(node, &kind)?;
        if after_change && !kind.is_transaction_control() {
            self.gap("an earlier statement of the same text may change what this one means");
        }
        if let Some(setting) = self.session.misread()
            && !kind.is_transaction_control()
            && !matches!(&kind, Kind::Set { name, .. } | Kind::Reset { name: Some(name) } if name == setting)
            && !matches!(&kind, Kind::Reset { name: None })
        {
            self.gap(&format!("the setting {setting} changes how SQL is read"));
        }
        let columns = std::mem::take(&mut self.outputs_of(&outcome.outputs)?);
        Ok(self.finish(node, text, span, kind, outcome, columns))
    }

    /// The outputs' values, marked as such.
    fn outputs_of(&mut self, columns: &Columns) -> Res<Vec<(String, Value)>> {
        self.depth.spend(columns.list.len())?;
        let mut all = Vec::with_capacity(columns.list.len());
        for col in columns.list.iter() {
            let value = self.col_value(col);
            self.mark_fields(&value.fields, Usages::OUTPUT);
            if value.unknown {
                self.gap("an output column is of unknown origin");
            }
            all.push((col.name.to_string(), value));
        }
        Ok(all)
    }

    fn finish(
        &mut self,
        node: Node<'_>,
        text: &str,
        span: Range<usize>,
        kind: Kind,
        outcome: Outcome,
        outputs: Vec<(String, Value)>,
    ) -> Facts {
        let filtered = self.filtered.clone();
        let rows: Vec<u32> = (0_u32..)
            .zip(&self.objects)
            .filter(|(_, object)| object.rows && matches!(object.kind, "table" | "foreign table"))
            .map(|(index, _)| index)
            .collect();
        let is_filtered = rows
            .iter()
            .all(|object| filtered.binary_search(object).is_ok());
        let pending = self.pending();
        let (objects, uses, moved) = self.finish_objects();
        let mut columns = Vec::with_capacity(outputs.len());
        let mut fields = Vec::with_capacity(outputs.len());
        for (name, value) in outputs {
            let mapped: Vec<u32> = value
                .fields
                .iter()
                .filter_map(|field| moved.get(*field as usize).copied().flatten())
                .collect();
            let lineage = if value.unknown {
                Lineage::Unknown
            } else {
                match (mapped.as_slice(), value.exact) {
                    ([], _) => Lineage::Constant,
                    ([only], true) => Lineage::Exact(*only),
                    _ => Lineage::Derived(mapped),
                }
            };
            let type_name = match value.ty {
                Type::Builtin("anyarray" | "any") | Type::Unknown | Type::Row | Type::User(_) => {
                    String::new()
                }
                Type::Literal => "text".to_owned(),
                Type::Builtin(name) => name.to_owned(),
            };
            fields.push(OutputField {
                name: name.clone(),
                type_name,
                lineage,
            });
            columns.push(Column {
                name,
                origin: match value.origin {
                    Origin::Computed => Some((0, 0)),
                    Origin::At(oid, number) => Some((oid, number)),
                    Origin::Unpredictable => None,
                },
            });
        }
        let actions = objects
            .iter()
            .fold(outcome.actions, |all, object| all | object.actions);
        let effects = outcome.effects;
        let labelled = !self.gaps.is_empty()
            || objects.iter().any(|object| !object.labels.is_clear())
            || uses.iter().any(|used| !used.labels.is_clear());
        let width_known = outcome.outputs.more == More::None && !self.unsure_width;
        Facts {
            operation: Operation {
                protocol: "postgresql".to_owned(),
                command: crate::tags::tag(node).to_owned(),
                actions,
                text: text.get(span.clone()).unwrap_or(text).trim().to_owned(),
                gaps: std::mem::take(&mut self.gaps),
                objects,
                uses,
                outputs: fields,
                sql: Some(SqlFacts {
                    functions: std::mem::take(&mut self.functions),
                    is_filtered,
                    row_limit: outcome.row_limit,
                    is_read_only: effects.read_only,
                    search_path: self
                        .session
                        .search_path
                        .iter()
                        .map(ToString::to_string)
                        .collect(),
                }),
            },
            span,
            kind,
            labelled,
            columns,
            width_known,
            effects,
            parameters: self.parameters,
            pending,
        }
    }

    /// What of the statement's relations somebody else is changing.
    fn pending(&self) -> Vec<u32> {
        let relations = self
            .objects
            .iter()
            .filter_map(|object| match object.referent {
                Referent::Relation(relation) => Some(relation),
                _ => None,
            });
        let pending = relations.filter(|relation| relation.pending);
        pending.map(|relation| relation.oid).collect()
    }
}
