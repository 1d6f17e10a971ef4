//! What is touched: objects, their fields, and how each field is used.

use std::sync::Arc;

use chaperone_contract::{Actions, FieldUse, Labels, Object, Usages};

use crate::analyze::Analyzer;
use crate::catalog::{Relation, RelationKind};
use crate::system::SystemRelation;
use crate::value::{Col, ColValue, Origin, Type, Value};

/// What an object is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Referent<'c> {
    /// A relation of the catalog.
    Relation(&'c Relation),
    /// One of PostgreSQL's own clear relations.
    System(&'static SystemRelation),
    /// Anything else: a role, a function, what does not exist yet.
    Named,
}

/// An object under way.
#[derive(Debug)]
pub(crate) struct Touched<'c> {
    pub(crate) kind: &'static str,
    pub(crate) path: Vec<String>,
    pub(crate) actions: Actions,
    pub(crate) referent: Referent<'c>,
    /// For what is no relation.
    pub(crate) labels: Labels,
    /// Fields that a view's columns derive from.
    pub(crate) through: Vec<u32>,
    pub(crate) through_unknown: bool,
    /// Rows of it are read or written by this statement.
    pub(crate) rows: bool,
}

/// A field under way.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) object: u32,
    pub(crate) name: Arc<str>,
    /// Its number in the relation, from 0.
    pub(crate) index: usize,
    pub(crate) usages: Usages,
}

/// Columns of otherwise clear system relations with values of users' tables in them.
fn holds_data(name: &str) -> bool {
    // pg_attribute's value for rows that are older than the column.
    name == "attmissingval"
}

impl<'c> Analyzer<'c> {
    /// The object for a relation, with `actions` added.
    pub(crate) fn relation_object(&mut self, relation: &'c Relation, actions: Actions) -> u32 {
        let _ = self.depth.spend(self.objects.len());
        for (index, object) in (0_u32..).zip(self.objects.iter_mut()) {
            if let Referent::Relation(known) = object.referent
                && known.oid == relation.oid
            {
                object.actions |= actions;
                return index;
            }
        }
        self.push_object(Touched {
            kind: relation.kind.name(),
            path: vec![relation.schema.to_string(), relation.name.to_string()],
            actions,
            referent: Referent::Relation(relation),
            labels: Labels::Unknown,
            through: Vec::new(),
            through_unknown: false,
            rows: false,
        })
    }

    pub(crate) fn system_object(
        &mut self,
        relation: &'static SystemRelation,
        actions: Actions,
    ) -> u32 {
        for (index, object) in (0_u32..).zip(self.objects.iter_mut()) {
            if let Referent::System(known) = object.referent
                && std::ptr::eq(known, relation)
            {
                object.actions |= actions;
                return index;
            }
        }
        self.push_object(Touched {
            kind: if relation.is_view { "view" } else { "table" },
            path: vec![relation.schema.to_owned(), relation.name.to_owned()],
            actions,
            referent: Referent::System(relation),
            labels: Labels::CLEAR,
            through: Vec::new(),
            through_unknown: false,
            rows: false,
        })
    }

    /// An object that is no relation of the catalog.
    pub(crate) fn named_object(
        &mut self,
        kind: &'static str,
        path: Vec<String>,
        actions: Actions,
        labels: Labels,
    ) -> u32 {
        // What runs out here ends the walk at its next step.
        let _ = self.depth.spend(self.objects.len());
        for (index, object) in (0_u32..).zip(self.objects.iter_mut()) {
            if matches!(object.referent, Referent::Named)
                && object.kind == kind
                && object.path == path
            {
                object.actions |= actions;
                object.labels = object.labels.union(&labels);
                return index;
            }
        }
        self.push_object(Touched {
            kind,
            path,
            actions,
            referent: Referent::Named,
            labels,
            through: Vec::new(),
            through_unknown: false,
            rows: false,
        })
    }

    fn push_object(&mut self, object: Touched<'c>) -> u32 {
        self.objects.push(object);
        u32::try_from(self.objects.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn object_oid(&self, object: u32) -> u32 {
        match self
            .objects
            .get(object as usize)
            .map(|object| object.referent)
        {
            Some(Referent::Relation(relation)) => relation.oid,
            _ => 0,
        }
    }

    /// The field for a column (from 0) of an object.
    pub(crate) fn field(&mut self, object: u32, index: usize, name: &Arc<str>) -> u32 {
        if let Some(&field) = self.field_index.get(&(object, index)) {
            return field;
        }
        self.fields.push(Field {
            object,
            name: Arc::clone(name),
            index,
            usages: Usages::empty(),
        });
        let field = u32::try_from(self.fields.len() - 1).unwrap_or(u32::MAX);
        self.field_index.insert((object, index), field);
        field
    }

    /// A column of a clear system relation that the list does not have (of another version).
    pub(crate) fn clear_field(&mut self, object: u32, name: &Arc<str>) -> Value {
        if holds_data(name) {
            return Value::unknown();
        }
        let known = self
            .fields
            .iter()
            .position(|field| field.object == object && field.name == *name);
        let _ = self.depth.spend(self.fields.len());
        let field = match known {
            Some(field) => u32::try_from(field).unwrap_or(u32::MAX),
            None => {
                let index = 100_000 + self.fields.len();
                self.field(object, index, name)
            }
        };
        Value {
            fields: vec![field],
            exact: true,
            ty: Type::Builtin("any"),
            origin: Origin::Unpredictable,
            ..Value::default()
        }
    }

    /// The value of a column.
    pub(crate) fn col_value(&mut self, col: &Col) -> Value {
        let (object, index) = match &col.value {
            ColValue::Known(value) => return Value::clone(value),
            ColValue::Base(object, index) => (*object, *index),
        };
        let mut checked = None;
        let (name, ty, origin) = match self
            .objects
            .get(object as usize)
            .map(|object| object.referent)
        {
            Some(Referent::Relation(relation)) => match relation.columns.get(index) {
                Some(column) => {
                    checked = self.made_by(&column.type_ref);
                    (
                        Arc::clone(&column.name),
                        self.type_of(&column.type_ref),
                        Origin::At(relation.oid, column.number),
                    )
                }
                None => return Value::unknown(),
            },
            Some(Referent::System(relation)) => match relation.columns.get(index) {
                Some(name) if holds_data(name) => return Value::unknown(),
                // Some type of PostgreSQL's own.
                Some(name) => (
                    Arc::clone(name),
                    Type::Builtin("any"),
                    Origin::Unpredictable,
                ),
                None => return Value::unknown(),
            },
            _ => return Value::unknown(),
        };
        let field = self.field(object, index, &name);
        Value {
            fields: vec![field],
            exact: true,
            ty,
            origin,
            checked,
            ..Value::default()
        }
    }

    /// Adds `usages` to every field that the value derives from.
    pub(crate) fn mark(&mut self, value: &Value, usages: Usages) {
        self.mark_fields(&value.fields, usages);
        if value.unknown && !self.unknown_reported {
            self.unknown_reported = true;
            self.gap("a value of unknown origin is used");
        }
    }

    pub(crate) fn mark_fields(&mut self, fields: &[u32], usages: Usages) {
        let _ = self.depth.spend(fields.len() / 8);
        let condition = Usages::PREDICATE | Usages::JOIN | Usages::EQUALITY;
        for field in fields {
            if let Some(entry) = self.fields.get_mut(*field as usize) {
                entry.usages |= usages;
            }
        }
        if usages.intersects(condition)
            && let Some(open) = self.conditions.last_mut()
        {
            crate::value::merge(open, fields);
        }
    }

    /// The value can fail, warn, or otherwise show without being sent.
    pub(crate) fn risky(&mut self, value: &mut Value) {
        value.observable = true;
        self.mark_fields(&value.fields, Usages::OTHER);
    }

    fn field_labels(&self, field: &Field) -> Labels {
        match self
            .objects
            .get(field.object as usize)
            .map(|object| object.referent)
        {
            Some(Referent::Relation(relation)) => {
                if relation.kind == RelationKind::Sequence {
                    return Labels::CLEAR;
                }
                match relation.columns.get(field.index) {
                    Some(column) => self.labelling.column(self.catalog, relation, column),
                    None => Labels::Unknown,
                }
            }
            Some(Referent::System(_)) => Labels::CLEAR,
            _ => Labels::Unknown,
        }
    }

    fn object_labels(&self, object: &Touched<'c>) -> Labels {
        match object.referent {
            Referent::Relation(relation) => match relation.kind {
                RelationKind::Sequence | RelationKind::Composite => Labels::CLEAR,
                RelationKind::View | RelationKind::MaterializedView => {
                    let own = if object.through_unknown {
                        Labels::Unknown
                    } else {
                        Labels::CLEAR
                    };
                    object
                        .through
                        .iter()
                        .filter_map(|field| self.fields.get(*field as usize))
                        .fold(own, |all, field| all.union(&self.field_labels(field)))
                }
                _ => relation.columns.iter().fold(Labels::CLEAR, |all, column| {
                    all.union(&self.labelling.column(self.catalog, relation, column))
                }),
            },
            Referent::System(_) => Labels::CLEAR,
            Referent::Named => object.labels.clone(),
        }
    }

    /// Objects and uses for the contract, and where each field went.
    pub(crate) fn finish_objects(&mut self) -> (Vec<Object>, Vec<FieldUse>, Vec<Option<u32>>) {
        let mut moved = Vec::with_capacity(self.fields.len());
        let mut uses = Vec::new();
        for field in &self.fields {
            if field.usages.is_empty() {
                moved.push(None);
                continue;
            }
            moved.push(u32::try_from(uses.len()).ok());
            uses.push(FieldUse {
                object: field.object,
                field: field.name.to_string(),
                labels: self.field_labels(field),
                usages: field.usages,
            });
        }
        let mut objects = Vec::with_capacity(self.objects.len());
        let mut gaps = Vec::new();
        for object in &self.objects {
            let labels = self.object_labels(object);
            if let Referent::Relation(relation) = object.referent
                && matches!(
                    relation.kind,
                    RelationKind::Table | RelationKind::ForeignTable
                )
                && !self.labelling.knows(self.catalog, relation)
            {
                gaps.push(format!(
                    "{} {}.{} has no labels",
                    object.kind, relation.schema, relation.name
                ));
            }
            objects.push(Object {
                kind: object.kind.to_owned(),
                path: object.path.clone(),
                actions: object.actions,
                labels,
            });
        }
        for gap in gaps {
            self.gap(&gap);
        }
        (objects, uses, moved)
    }
}
