//! What a write sets off besides itself: triggers, rules, and what computes or checks values of the
//! rows written; and the writes that foreign keys carry on to other relations.

use std::sync::Arc;

use chaperone_contract::Actions;
use pg_raw_parse::nodes;
use pg_raw_parse::raw::DropBehavior;

use crate::analyze::{Analyzer, Options};
use crate::catalog::{Column, OnWrite, Referenced, Relation};
use crate::from::Meant;

/// Actions that make or change a row, and so compute its values and check them.
const MAKES_ROWS: Actions = Actions::CREATE.union(Actions::UPDATE);

impl<'c> Analyzer<'c> {
    /// Writing to a relation, its partitions and what inherits from it.
    pub(crate) fn write_effects(&mut self, relation: &'c Relation, actions: Actions) {
        for relation in self.catalog.descendants(relation) {
            self.own_effects(relation, actions);
            if actions.contains(Actions::DELETE) {
                self.carried(relation, |key| key.deletes, Actions::DELETE);
                self.carried(relation, |key| key.clears, Actions::UPDATE);
            }
        }
    }

    /// Changing a column that foreign keys point to, or that such a column is generated from.
    pub(crate) fn key_effects(&mut self, relation: &'c Relation, column: &Column) {
        for relation in self.catalog.descendants(relation) {
            let changed = changed_with(relation, &column.name);
            let follows = |key: &Referenced| key.updates && changed.contains(&key.own);
            self.carried(relation, follows, Actions::UPDATE);
        }
    }

    /// What `TRUNCATE` of a relation sets off.
    pub(crate) fn truncated(&mut self, range: &nodes::RangeVar, behavior: DropBehavior::Type) {
        let name = range.relname().unwrap_or_default();
        if let Meant::Relation(relation) = self.find_relation(range.schemaname(), name) {
            self.truncate_effects(relation, behavior == DropBehavior::DROP_CASCADE);
        }
    }

    /// `TRUNCATE`, and with CASCADE of whatever points to it.
    fn truncate_effects(&mut self, relation: &'c Relation, cascade: bool) {
        for relation in self.catalog.descendants(relation) {
            self.own_effects(relation, Actions::DELETE);
            if cascade {
                let everything = |_: &Referenced| true;
                for other in self.referring(relation, everything) {
                    if self.marks(other, Actions::DELETE) {
                        self.truncate_effects(other, true);
                    }
                }
            }
        }
    }

    /// A foreign key writes to the relation that it belongs to.
    fn carried(
        &mut self,
        relation: &'c Relation,
        follows: impl Fn(&Referenced) -> bool,
        action: Actions,
    ) {
        for key in relation.referenced.iter().filter(|key| follows(key)) {
            let Some(other) = self.catalog.relation_by_oid(key.by) else {
                self.gap(&format!(
                    "a foreign key points to {}.{} from what is not known",
                    relation.schema, relation.name
                ));
                continue;
            };
            if self.marks(other, action) {
                self.write_effects(other, action);
            }
            if action == Actions::UPDATE && self.carried.insert((other.oid, key.column)) {
                let mut columns = other.columns.iter();
                if let Some(column) = columns.find(|column| column.number == key.column) {
                    self.key_effects(other, column);
                }
            }
        }
    }

    /// Relations with a foreign key to this one.
    fn referring(
        &self,
        relation: &'c Relation,
        follows: impl Fn(&Referenced) -> bool,
    ) -> Vec<&'c Relation> {
        let keys = relation.referenced.iter().filter(|key| follows(key));
        keys.filter_map(|key| self.catalog.relation_by_oid(key.by))
            .collect()
    }

    /// Notes that a relation is written to, and says whether that is news.
    fn marks(&mut self, relation: &'c Relation, action: Actions) -> bool {
        let _ = self.depth.spend(1);
        self.relation_object(relation, action);
        self.written.insert((relation.oid, action))
    }

    fn own_effects(&mut self, relation: &'c Relation, actions: Actions) {
        let Relation { schema, name, .. } = relation;
        if relation.rules {
            self.gap(&format!("{schema}.{name} has rules"));
        }
        for (of, function) in &relation.triggers {
            self.runs(relation, "a trigger whose function", of, function);
        }
        if actions.intersects(MAKES_ROWS) {
            self.row_effects(relation);
        }
    }

    /// What computing the values of a relation's rows runs.
    pub(crate) fn row_effects(&mut self, relation: &'c Relation) {
        let Relation { schema, name, .. } = relation;
        for what in &relation.on_write {
            match what {
                OnWrite::Function(of, function) => {
                    self.runs(
                        relation,
                        "a default, check or index that calls",
                        of,
                        function,
                    );
                }
                OnWrite::Type(of, type_name) => {
                    self.untrusted = true;
                    self.gap(&format!(
                        "{schema}.{name} has values of the type {of}.{type_name}, whose checks are \
                         not followed"
                    ));
                }
            }
        }
    }

    /// A function that a write runs: fine if it is on the allow-list.
    fn runs(&mut self, relation: &Relation, how: &str, schema: &Arc<str>, function: &Arc<str>) {
        if self.options.trusts(schema, function) {
            return;
        }
        let full = format!("{schema}.{function}");
        self.untrusted = true;
        self.gap(&format!(
            "{}.{} has {how} {full}, which is not on the allow-list",
            relation.schema, relation.name
        ));
    }
}

impl Options {
    /// Whether a function that the database calls by itself is on the allow-list.
    pub(crate) fn trusts(&self, schema: &str, function: &str) -> bool {
        let trusted = &self.trusted_functions;
        trusted.contains_key(&format!("{schema}.{function}")) || is_harmless(schema, function)
    }
}

/// One of PostgreSQL's own that reaches nothing, or a sequence at most.
fn is_harmless(schema: &str, function: &str) -> bool {
    let own = (schema == "pg_catalog").then(|| crate::builtin::function(function));
    own.flatten().is_some_and(|known| {
        let effect = known.flags.contains(crate::builtin::Builtin::EFFECT);
        !effect || known.name == "nextval"
    })
}

/// Numbers of a column and of those that are generated from it, or may be.
fn changed_with(relation: &Relation, name: &Arc<str>) -> Vec<i16> {
    let follows = |column: &&Column| {
        let generated = column.generated.is_some();
        let from = column.generated_from.as_ref();
        column.name == *name || generated && from.is_none_or(|from| from.contains(name))
    };
    let columns = relation.columns.iter().filter(follows);
    columns.map(|column| column.number).collect()
}
