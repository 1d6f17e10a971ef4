//! What the database holds, as far as reading a statement needs it.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// First object identifier that is not PostgreSQL's own.
pub(crate) const FIRST_USER_OID: u32 = 16_384;

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelationKind {
    /// An ordinary or partitioned table.
    Table,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    ForeignTable,
    /// A sequence.
    Sequence,
    /// A composite type.
    Composite,
    /// An index or anything else that queries cannot read.
    Other,
}

impl RelationKind {
    /// As policies see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            RelationKind::Table => "table",
            RelationKind::View => "view",
            RelationKind::MaterializedView => "materialized view",
            RelationKind::ForeignTable => "foreign table",
            RelationKind::Sequence => "sequence",
            RelationKind::Composite => "type",
            RelationKind::Other => "index",
        }
    }

    pub(crate) fn from_relkind(relkind: &str) -> Self {
        match relkind {
            "r" | "p" => RelationKind::Table,
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::ForeignTable,
            "S" => RelationKind::Sequence,
            "c" => RelationKind::Composite,
            _ => RelationKind::Other,
        }
    }
}

/// A type by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TypeRef {
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name in `pg_type`: `int4`, `_text` for `text[]`.
    pub name: Arc<str>,
}

impl TypeRef {
    /// Whether it is one of PostgreSQL's own.
    pub(crate) fn is_builtin(&self) -> bool {
        &*self.schema == "pg_catalog"
    }
}

/// A column.
#[derive(Clone, Debug, Hash)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Its number in `pg_attribute`.
    pub number: i16,
    /// Its type.
    pub type_ref: TypeRef,
    /// The expression that generates it, as the catalog stores it (`pg_node_tree`) or as SQL.
    pub generated: Option<String>,
    /// Columns of the same relation that the generating expression reads; `None` when it could
    /// not be told.
    pub(crate) generated_from: Option<Vec<Arc<str>>>,
    /// `COMMENT ON COLUMN`.
    pub comment: Option<String>,
    /// Whether a unique index covers it, alone or with others: a write tells whether a value is
    /// there.
    pub unique: bool,
    /// Columns elsewhere that a foreign key of this column points to.
    pub references: Vec<(u32, i16)>,
}

/// A relation.
#[derive(Clone, Debug, Hash)]
pub struct Relation {
    /// Its object identifier.
    pub oid: u32,
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub kind: RelationKind,
    /// Its columns, in order, without dropped ones.
    pub columns: Vec<Column>,
    /// The query of a view or materialized view.
    pub definition: Option<String>,
    /// What it inherits from, or is a partition of.
    pub parents: Vec<u32>,
    /// What inherits from it.
    pub(crate) children: Vec<u32>,
    /// Whether it has rules other than a view's own.
    pub rules: bool,
    /// Functions of its triggers and of their conditions, as (schema, name).
    pub triggers: Vec<(Arc<str>, Arc<str>)>,
    /// Expressions of its row-level security policies.
    pub policies: Vec<String>,
    /// `COMMENT ON TABLE`.
    pub comment: Option<String>,
    /// What runs when rows are written, besides triggers: defaults, checks, indexes.
    pub on_write: Vec<OnWrite>,
    /// Foreign keys that point here.
    pub referenced: Vec<Referenced>,
    /// Domains in its columns' types, at any depth.
    pub(crate) made_of: Vec<TypeRef>,
    /// Somebody else is changing it or what it reads: its definition or its policies could not be
    /// read without waiting.
    pub pending: bool,
}

/// Something of a user's that runs when a row is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OnWrite {
    /// A function, as (schema, name).
    Function(Arc<str>, Arc<str>),
    /// A type that values pass through and whose checks are not followed.
    Type(Arc<str>, Arc<str>),
}

impl OnWrite {
    pub(crate) fn new(what: &str, schema: Arc<str>, name: Arc<str>) -> Self {
        match what {
            "function" => OnWrite::Function(schema, name),
            _ => OnWrite::Type(schema, name),
        }
    }
}

/// One column of a foreign key, from the side of what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Referenced {
    /// The relation that the key belongs to.
    pub by: u32,
    /// Its column.
    pub column: i16,
    /// The column here.
    pub own: i16,
    /// Deleting here deletes there.
    pub deletes: bool,
    /// Deleting here sets the column there.
    pub clears: bool,
    /// Updating the column here sets the column there.
    pub updates: bool,
}

impl Relation {
    pub(crate) fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns
            .iter()
            .enumerate()
            .find(|(_, column)| &*column.name == name)
    }
}

/// A function, procedure or aggregate that is not PostgreSQL's own.
#[derive(Clone, Debug, Hash)]
pub struct Function {
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its argument types.
    pub arguments: Vec<TypeRef>,
    /// Names of the columns that it returns as a table, if it does.
    pub columns: Vec<Arc<str>>,
    /// Whether PostgreSQL thinks it volatile.
    pub volatile: bool,
    /// Whether it returns a set.
    pub returns_set: bool,
    /// Whether it takes any number of arguments or has defaults.
    pub flexible: bool,
    /// Changes whenever the function is replaced.
    pub version: String,
}

/// An operator that is not PostgreSQL's own.
#[derive(Clone, Debug, Hash)]
pub struct Operator {
    /// Its schema.
    pub schema: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The type on the left, if it has a left side.
    pub left: Option<TypeRef>,
    /// The type on the right.
    pub right: Option<TypeRef>,
}

/// A type that is not PostgreSQL's own, apart from rows of relations.
#[derive(Clone, Debug, Hash)]
pub(crate) struct UserType {
    pub(crate) schema: Arc<str>,
    /// Reading and writing its values runs nobody's code.
    pub(crate) is_enum: bool,
}

/// A cast that is not PostgreSQL's own.
#[derive(Clone, Debug, Hash)]
pub struct Cast {
    /// From this type.
    pub source: TypeRef,
    /// To this one.
    pub target: TypeRef,
    /// Whether it is applied without being asked for.
    pub implicit: bool,
}

/// What a session's connection sees of its database. Immutable; share it in an `Arc`.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub(crate) relations: Vec<Relation>,
    pub(crate) by_name: HashMap<(Arc<str>, Arc<str>), usize>,
    pub(crate) by_oid: HashMap<u32, usize>,
    pub(crate) functions: HashMap<Arc<str>, Vec<Function>>,
    pub(crate) operators: HashMap<Arc<str>, Vec<Operator>>,
    pub(crate) types: HashMap<Arc<str>, Vec<UserType>>,
    pub(crate) casts: Vec<Cast>,
    /// What runs when a value of a user's type is made, where that is somebody's.
    pub(crate) made_by: HashMap<TypeRef, Vec<OnWrite>>,
    /// The search path under which definitions were printed.
    pub(crate) printed_path: Vec<Arc<str>>,
    pub(crate) temp_schema: Option<Arc<str>>,
    pub(crate) fingerprint: u64,
}

impl Catalog {
    /// A number for cache keys: equal catalogs have equal fingerprints.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Whether the database has functions that are not PostgreSQL's own: what it runs by itself, in
    /// a column's default or a check, may be any of them.
    #[must_use]
    pub fn has_own_functions(&self) -> bool {
        !self.functions.is_empty()
    }

    /// All relations.
    pub fn relations(&self) -> impl Iterator<Item = &Relation> {
        self.relations.iter()
    }

    /// The relation with this name.
    #[must_use]
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.by_name
            .get(&(Arc::from(schema), Arc::from(name)))
            .and_then(|&index| self.relations.get(index))
    }

    /// The relation with this object identifier.
    #[must_use]
    pub fn relation_by_oid(&self, oid: u32) -> Option<&Relation> {
        self.by_oid
            .get(&oid)
            .and_then(|&index| self.relations.get(index))
    }

    /// A relation, its partitions and what inherits from it, at any depth.
    #[must_use]
    pub fn descendants<'c>(&'c self, relation: &'c Relation) -> Vec<&'c Relation> {
        let mut all = vec![relation];
        let mut at = 0;
        while let Some(relation) = all.get(at) {
            for oid in &relation.children {
                if let Some(child) = self.relation_by_oid(*oid)
                    && !all.iter().any(|known| known.oid == child.oid)
                {
                    all.push(child);
                }
            }
            at += 1;
        }
        all
    }

    /// All functions that are not PostgreSQL's own.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.values().flatten()
    }

    /// Functions of this name that are not PostgreSQL's own.
    pub(crate) fn functions_named(&self, name: &str) -> &[Function] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }

    /// Operators of this name that are not PostgreSQL's own.
    pub(crate) fn operators_named(&self, name: &str) -> &[Operator] {
        self.operators.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether a type is a user's enumeration.
    pub(crate) fn is_enum(&self, type_ref: &TypeRef) -> bool {
        let known = self.types.get(&type_ref.name);
        let mut known = known.map_or(&[][..], Vec::as_slice).iter();
        known.any(|known| known.is_enum && known.schema == type_ref.schema)
    }

    /// The same with the temporary relations of the session whose catalog `other` is, in place of any
    /// of its own.
    #[must_use]
    pub fn with_temporary_of(&self, other: &Catalog) -> Catalog {
        let is_temporary =
            |of: &Catalog, relation: &Relation| of.temp_schema.as_ref() == Some(&relation.schema);
        let lasting = self.relations.iter().filter(|one| !is_temporary(self, one));
        let temporary = other
            .relations
            .iter()
            .filter(|one| is_temporary(other, one));
        Catalog {
            relations: lasting.chain(temporary).cloned().collect(),
            printed_path: other.printed_path.clone(),
            temp_schema: other.temp_schema.clone(),
            ..self.clone()
        }
        .seal()
    }

    /// Builds the indexes and the fingerprint.
    pub(crate) fn seal(mut self) -> Self {
        self.by_oid.clear();
        self.by_name.clear();
        for (index, relation) in self.relations.iter_mut().enumerate() {
            relation.children.clear();
            self.by_oid.insert(relation.oid, index);
            self.by_name.insert(
                (Arc::clone(&relation.schema), Arc::clone(&relation.name)),
                index,
            );
        }
        let links: Vec<(u32, usize)> = self
            .relations
            .iter()
            .flat_map(|relation| {
                relation
                    .parents
                    .iter()
                    .map(|&parent| (relation.oid, parent))
            })
            .filter_map(|(child, parent)| Some((child, *self.by_oid.get(&parent)?)))
            .collect();
        for (child, parent) in links {
            if let Some(parent) = self.relations.get_mut(parent) {
                parent.children.push(child);
            }
        }
        let mut hasher = DefaultHasher::new();
        self.relations.hash(&mut hasher);
        let mut names: Vec<_> = self.functions.iter().collect();
        names.sort_by(|a, b| a.0.cmp(b.0));
        names.hash(&mut hasher);
        let mut names: Vec<_> = self.operators.iter().collect();
        names.sort_by(|a, b| a.0.cmp(b.0));
        names.hash(&mut hasher);
        let mut names: Vec<_> = self.types.iter().collect();
        names.sort_by(|a, b| a.0.cmp(b.0));
        names.hash(&mut hasher);
        self.casts.hash(&mut hasher);
        let mut made: Vec<_> = self.made_by.iter().collect();
        made.sort_by_key(|(type_ref, _)| (&type_ref.schema, &type_ref.name));
        made.hash(&mut hasher);
        self.printed_path.hash(&mut hasher);
        self.temp_schema.hash(&mut hasher);
        self.fingerprint = hasher.finish();
        self
    }
}

/// What of a session changes how its statements are read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionView {
    /// `current_schemas(true)`: in order, system schemas and the temporary one included.
    pub search_path: Vec<Arc<str>>,
    /// The session's temporary schema, `pg_temp_3`, once it has one.
    pub temp_schema: Option<Arc<str>>,
    /// `current_user`.
    pub role: String,
    /// `session_user`.
    pub login: String,
    /// Whether `current_user` is a superuser.
    pub superuser: bool,
    /// `server_version_num`.
    pub version: u32,
    /// Transactions see all data, the catalog's too, as it was at their start, while the server
    /// resolves names by the catalog as it is: `transaction_isolation` is above read committed.
    pub is_frozen: bool,
    /// Settings that change how SQL is read, as (name, value).
    pub settings: Vec<(String, String)>,
}

impl Default for SessionView {
    /// A plain session with `public` in its path.
    fn default() -> Self {
        SessionView {
            search_path: vec!["pg_catalog".into(), "public".into()],
            temp_schema: None,
            role: String::new(),
            login: String::new(),
            superuser: false,
            version: 150_000,
            is_frozen: false,
            settings: Vec::new(),
        }
    }
}

/// Settings that change how SQL is read, and what the parser assumes of them.
pub(crate) const READING: &[(&str, &[&str])] = &[
    ("client_encoding", &["UTF8", "SQL_ASCII"]),
    ("server_encoding", &["UTF8"]),
    ("standard_conforming_strings", &["on"]),
    ("backslash_quote", &["safe_encoding", "off", "on"]),
    ("transform_null_equals", &["off"]),
    ("quote_all_identifiers", &["on", "off"]),
    ("array_nulls", &["on"]),
    ("operator_precedence_warning", &["off"]),
    ("sql_inheritance", &["on"]),
    ("default_with_oids", &["off"]),
    ("restrict_nonsystem_relation_kind", &[""]),
    ("plpgsql.variable_conflict", &["error"]),
];

impl SessionView {
    /// The setting that is away from what the parser assumes, if one is.
    #[must_use]
    pub fn misread(&self) -> Option<&str> {
        self.settings.iter().find_map(|(name, value)| {
            let (_, assumed) = READING.iter().find(|(known, _)| known == name)?;
            let fits = assumed.iter().any(|good| {
                good.eq_ignore_ascii_case(value)
                    || (name == "client_encoding" && value.eq_ignore_ascii_case("UTF-8"))
            });
            (!fits).then_some(name.as_str())
        })
    }
}
