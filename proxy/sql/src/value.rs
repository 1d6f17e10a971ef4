//! What a value derives from, while a statement is walked.

use std::rc::Rc;
use std::sync::Arc;

use crate::catalog::TypeRef;

/// A value's type, as far as it matters for telling which function or operator is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Type {
    /// Cannot be told.
    #[default]
    Unknown,
    /// A quoted literal, NULL or parameter: takes the type that its place wants.
    Literal,
    /// One of PostgreSQL's own.
    Builtin(&'static str),
    /// A row.
    Row,
    /// Anything defined by a user; which one, where that is known, else 0.
    User(u64),
}

/// A number for a user's type, to tell types apart by.
pub(crate) fn user_type(type_ref: &TypeRef) -> Type {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    type_ref.hash(&mut hasher);
    Type::User(hasher.finish().max(1))
}

/// What a client's RowDescription says about where a column comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Computed: zero and zero.
    #[default]
    Computed,
    /// This relation and attribute.
    At(u32, i16),
    /// Cannot be told.
    Unpredictable,
}

/// What a value derives from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    /// Fields, sorted, without duplicates.
    pub(crate) fields: Vec<u32>,
    /// Derives from something that is not known.
    pub(crate) unknown: bool,
    /// The unchanged value of its one field.
    pub(crate) exact: bool,
    /// Some part of it can fail, has an effect, or takes its time.
    pub(crate) observable: bool,
    pub(crate) ty: Type,
    pub(crate) origin: Origin,
    /// Its parts, if it is a row whose parts are known.
    pub(crate) row: Option<Rc<Vec<Col>>>,
    /// It has, or may have, a type whose values somebody's functions check: what these are.
    pub(crate) checked: Option<Arc<str>>,
    /// It is a constant as written or a parameter, or has one in it, that takes its type from its
    /// place.
    pub(crate) bare: bool,
    /// Such a constant stands beside such a value, and may be read as one.
    pub(crate) reads: Option<Arc<str>>,
}

impl Value {
    pub(crate) fn constant(ty: Type) -> Self {
        Value {
            ty,
            ..Value::default()
        }
    }

    /// A quoted literal or a parameter.
    pub(crate) fn bare() -> Self {
        Value {
            ty: Type::Literal,
            bare: true,
            ..Value::default()
        }
    }

    pub(crate) fn unknown() -> Self {
        Value {
            unknown: true,
            observable: true,
            origin: Origin::Unpredictable,
            ..Value::default()
        }
    }

    /// Adds what `other` derives from.
    pub(crate) fn absorb(&mut self, other: &Value) {
        self.unknown |= other.unknown;
        self.observable |= other.observable;
        self.meet(other);
        merge(&mut self.fields, &other.fields);
    }

    /// A constant in one may be read as what the other is.
    fn meet(&mut self, other: &Value) {
        if self.reads.is_none() {
            let beside = |checked: &Option<Arc<str>>, bare| checked.clone().filter(|_| bare);
            self.reads = other.reads.clone();
            self.reads = self.reads.take().or(beside(&self.checked, other.bare));
            self.reads = self.reads.take().or(beside(&other.checked, self.bare));
        }
        if self.checked.is_none() {
            self.checked.clone_from(&other.checked);
        }
        self.bare |= other.bare;
    }

    /// The same, as something computed from it.
    pub(crate) fn derived(mut self, ty: Type) -> Self {
        self.bare = false;
        if matches!(ty, Type::Builtin(name) if !name.starts_with("any")) {
            self.checked = None;
        }
        self.exact = false;
        self.origin = Origin::Computed;
        self.row = None;
        self.ty = ty;
        self
    }

    /// Whether it derives from nothing but the statement itself.
    pub(crate) fn is_plain_constant(&self) -> bool {
        self.fields.is_empty() && !self.unknown && !self.observable
    }
}

/// Adds sorted `more` to sorted `fields`.
pub(crate) fn merge(fields: &mut Vec<u32>, more: &[u32]) {
    for field in more {
        if let Err(at) = fields.binary_search(field) {
            fields.insert(at, *field);
        }
    }
}

/// A column of something in FROM, or of a query's result.
#[derive(Clone, Debug)]
pub(crate) struct Col {
    pub(crate) name: Arc<str>,
    pub(crate) value: ColValue,
}

/// A column's value; a relation's column becomes a field only when it is used.
#[derive(Clone, Debug)]
pub(crate) enum ColValue {
    /// Column number (from 0) of an object.
    Base(u32, usize),
    /// Something computed before.
    Known(Rc<Value>),
}

impl Col {
    pub(crate) fn known(name: Arc<str>, value: Value) -> Self {
        Col {
            name,
            value: ColValue::Known(Rc::new(value)),
        }
    }
}

/// Columns of a query or a thing in FROM.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) list: Rc<Vec<Col>>,
    /// What else may be in it.
    pub(crate) more: More,
}

/// What columns there may be besides the listed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum More {
    /// None.
    #[default]
    None,
    /// Others of a clear system relation (the object).
    Clear(u32),
    /// Nobody knows.
    Unknown,
}
