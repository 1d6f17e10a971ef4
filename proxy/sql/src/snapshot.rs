//! The catalog as a session's own connection sees it: queries for the caller to run, and rows in.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::catalog::{
    Cast, Catalog, Column, Function, OnWrite, Operator, Referenced, Relation, RelationKind,
    SessionView, TypeRef, UserType,
};

mod queries;

/// A row of a snapshot query was not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "row of catalog query {query} has no usable value in column {column}; \
     the server may be of a version that is not supported"
)]
pub struct SnapshotError {
    /// Index into [`Snapshot::QUERIES`].
    pub query: usize,
    /// Column of the row, from 0.
    pub column: usize,
}

/// Collects the rows of [`Snapshot::QUERIES`].
#[derive(Debug, Default)]
pub struct Snapshot {
    path: Vec<Arc<str>>,
    settings: Vec<(String, String)>,
    relations: Vec<Relation>,
    index: HashMap<u32, usize>,
    functions: HashMap<Arc<str>, Vec<Function>>,
    operators: HashMap<Arc<str>, Vec<Operator>>,
    types: HashMap<Arc<str>, Vec<UserType>>,
    casts: Vec<Cast>,
    made_by: HashMap<TypeRef, Vec<OnWrite>>,
}

impl Snapshot {
    /// Queries to run on the session's own connection, in this order, in text format, as any role.
    pub const QUERIES: &'static [&'static str] = &[
        queries::SEARCH_PATH,
        queries::SETTINGS,
        queries::RELATIONS,
        queries::COLUMNS,
        queries::INHERITANCE,
        queries::TRIGGERS,
        queries::ROW_SECURITY,
        queries::UNIQUE,
        queries::FOREIGN_KEYS,
        queries::FUNCTIONS,
        queries::OPERATORS,
        queries::TYPES,
        queries::CASTS,
        queries::ON_WRITE,
        queries::MADE_BY,
    ];

    /// So many of [`Snapshot::QUERIES`], from the first, are about the session; the others are
    /// about the catalog, and have the same answers in all sessions with the same fingerprint.
    pub const OF_SESSION: usize = 2;

    /// One row, one text, that changes whenever a snapshot would: to ask before a snapshot is
    /// taken again.
    pub const FINGERPRINT_QUERY: &'static str = queries::FINGERPRINT;

    /// A query that waits until nobody is changing these relations any more, as a statement that
    /// reads them would. For those of [`Facts::pending`](crate::Facts::pending).
    #[must_use]
    pub fn wait_for(relations: &[u32]) -> String {
        queries::wait_for(relations)
    }

    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Snapshot::default()
    }

    /// Takes one row of the query with this index, in the order in which the queries stand.
    ///
    /// # Errors
    /// When a value is missing or not what the query asks for.
    pub fn push_row(&mut self, query: usize, row: &[Option<&str>]) -> Result<(), SnapshotError> {
        let get = |column: usize| {
            row.get(column)
                .copied()
                .flatten()
                .ok_or(SnapshotError { query, column })
        };
        let maybe = |column: usize| row.get(column).copied().flatten();
        let oid = |column: usize| -> Result<u32, SnapshotError> {
            get(column)?
                .parse()
                .map_err(|_| SnapshotError { query, column })
        };
        let number = |column: usize| -> Result<i16, SnapshotError> {
            get(column)?
                .parse()
                .map_err(|_| SnapshotError { query, column })
        };
        let type_at = |column: usize| -> Result<TypeRef, SnapshotError> {
            Ok(TypeRef {
                schema: get(column)?.into(),
                name: get(column + 1)?.into(),
            })
        };
        let yes = |text: &str| matches!(text, "t" | "true");
        match query {
            0 => self.path.push(get(0)?.into()),
            1 => {
                if let Some(value) = maybe(1) {
                    self.settings.push((get(0)?.to_owned(), value.to_owned()));
                }
            }
            2 => {
                let relation = Relation {
                    oid: oid(0)?,
                    schema: get(1)?.into(),
                    name: get(2)?.into(),
                    kind: RelationKind::from_relkind(get(3)?),
                    columns: Vec::new(),
                    definition: maybe(4).map(str::to_owned),
                    parents: Vec::new(),
                    children: Vec::new(),
                    rules: yes(get(6)?),
                    triggers: Vec::new(),
                    policies: Vec::new(),
                    comment: maybe(5).map(str::to_owned),
                    on_write: Vec::new(),
                    referenced: Vec::new(),
                    made_of: Vec::new(),
                    pending: yes(get(7)?),
                };
                self.index.insert(relation.oid, self.relations.len());
                self.relations.push(relation);
            }
            3 => {
                let column = Column {
                    name: get(2)?.into(),
                    number: number(1)?,
                    type_ref: type_at(3)?,
                    generated: maybe(5).map(str::to_owned),
                    generated_from: None,
                    comment: maybe(6).map(str::to_owned),
                    unique: false,
                    references: Vec::new(),
                };
                if let Some(relation) = self.relation(oid(0)?) {
                    relation.columns.push(column);
                }
            }
            4 => {
                let parent = oid(1)?;
                if let Some(relation) = self.relation(oid(0)?) {
                    relation.parents.push(parent);
                }
            }
            5 => {
                let function = (get(1)?.into(), get(2)?.into());
                if let Some(relation) = self.relation(oid(0)?) {
                    relation.triggers.push(function);
                }
            }
            6 => {
                let policies: Vec<String> = [maybe(1), maybe(2)]
                    .into_iter()
                    .flatten()
                    .map(str::to_owned)
                    .collect();
                let pending = yes(get(3)?);
                if let Some(relation) = self.relation(oid(0)?) {
                    relation.policies.extend(policies);
                    relation.pending |= pending;
                }
            }
            7 => {
                let at = number(1)?;
                if let Some(relation) = self.relation(oid(0)?) {
                    for column in &mut relation.columns {
                        // Zero stands for an expression: any column may be in it.
                        column.unique |= column.number == at || at == 0;
                    }
                }
            }
            8 => {
                let (from, at, other, there) = (oid(0)?, number(1)?, oid(2)?, number(3)?);
                let (on_delete, on_update) = (get(4)?, get(5)?);
                if let Some(relation) = self.relation(from) {
                    for column in &mut relation.columns {
                        if column.number == at {
                            column.references.push((other, there));
                        }
                    }
                }
                let changes = |action: &str| matches!(action, "c" | "n" | "d");
                if let Some(relation) = self.relation(other) {
                    relation.referenced.push(Referenced {
                        by: from,
                        column: at,
                        own: there,
                        deletes: on_delete == "c",
                        clears: matches!(on_delete, "n" | "d"),
                        updates: changes(on_update),
                    });
                }
            }
            9 => {
                let arguments = get(2)?
                    .split(' ')
                    .filter(|name| !name.is_empty())
                    .map(|name| {
                        let (schema, name) = name.split_once('.').unwrap_or(("", name));
                        TypeRef {
                            schema: schema.into(),
                            name: name.into(),
                        }
                    })
                    .collect();
                let function = Function {
                    schema: get(0)?.into(),
                    name: get(1)?.into(),
                    arguments,
                    columns: get(3)?
                        .split('\n')
                        .filter(|name| !name.is_empty())
                        .map(Arc::from)
                        .collect(),
                    volatile: get(4)? == "v",
                    returns_set: yes(get(5)?),
                    flexible: yes(get(6)?),
                    version: get(7)?.to_owned(),
                };
                self.functions
                    .entry(Arc::clone(&function.name))
                    .or_default()
                    .push(function);
            }
            10 => {
                let side = |column: usize| -> Option<TypeRef> {
                    Some(TypeRef {
                        schema: maybe(column)?.into(),
                        name: maybe(column + 1)?.into(),
                    })
                };
                let operator = Operator {
                    schema: get(0)?.into(),
                    name: get(1)?.into(),
                    left: side(2),
                    right: side(4),
                };
                self.operators
                    .entry(Arc::clone(&operator.name))
                    .or_default()
                    .push(operator);
            }
            11 => self
                .types
                .entry(get(1)?.into())
                .or_default()
                .push(UserType {
                    schema: get(0)?.into(),
                    is_enum: yes(get(2)?),
                }),
            12 => self.casts.push(Cast {
                source: type_at(0)?,
                target: type_at(2)?,
                implicit: get(4)? == "i",
            }),
            13 => {
                let what = get(1)?;
                let (schema, name) = (get(2)?.into(), get(3)?.into());
                if let Some(relation) = self.relation(oid(0)?) {
                    match what {
                        "domain" => relation.made_of.push(TypeRef { schema, name }),
                        _ => relation.on_write.push(OnWrite::new(what, schema, name)),
                    }
                }
            }
            14 => {
                let runs = OnWrite::new(get(2)?, get(3)?.into(), get(4)?.into());
                self.made_by.entry(type_at(0)?).or_default().push(runs);
            }
            _ => {
                return Err(SnapshotError { query, column: 0 });
            }
        }
        Ok(())
    }

    fn relation(&mut self, oid: u32) -> Option<&mut Relation> {
        let index = *self.index.get(&oid)?;
        self.relations.get_mut(index)
    }

    /// The session alone, from the rows of the first [`Snapshot::OF_SESSION`] queries.
    ///
    /// # Errors
    /// When rows are missing.
    pub fn view(&self) -> Result<SessionView, SnapshotError> {
        let setting = |name: &str| {
            self.settings
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let missing = SnapshotError {
            query: 1,
            column: 1,
        };
        let version = setting("server_version_num")
            .and_then(|text| text.parse().ok())
            .ok_or(missing)?;
        let read = |name: &str| crate::catalog::READING.iter().any(|known| known.0 == name);
        let settings = self.settings.iter().filter(|(name, _)| read(name));
        Ok(SessionView {
            search_path: self.path.clone(),
            temp_schema: setting("temp_schema").map(Arc::from),
            role: setting("current_user").unwrap_or_default().to_owned(),
            login: setting("session_user").unwrap_or_default().to_owned(),
            superuser: setting("is_superuser") == Some("on"),
            version,
            is_frozen: !matches!(
                setting("transaction_isolation"),
                Some("read committed" | "read uncommitted")
            ),
            settings: settings.cloned().collect(),
        })
    }

    /// The catalog and the session.
    ///
    /// # Errors
    /// When the session's rows are missing.
    pub fn finish(self) -> Result<(Catalog, SessionView), SnapshotError> {
        let session = self.view()?;
        let mut relations = self.relations;
        for relation in &mut relations {
            settle_generated(relation);
        }
        let catalog = Catalog {
            relations,
            functions: self.functions,
            operators: self.operators,
            types: self.types,
            casts: self.casts,
            made_by: self.made_by,
            printed_path: self.path,
            temp_schema: session.temp_schema.clone(),
            ..Catalog::default()
        };
        Ok((catalog.seal(), session))
    }
}

/// Finds which columns the generating expressions of a relation read: by number in a stored tree,
/// by name in a text.
pub(crate) fn settle_generated(relation: &mut Relation) {
    let names: Vec<(i16, Arc<str>)> = relation
        .columns
        .iter()
        .map(|column| (column.number, Arc::clone(&column.name)))
        .collect();
    for column in &mut relation.columns {
        let Some(text) = &column.generated else {
            continue;
        };
        let stored = text.starts_with('{');
        let numbers = if stored { variables(text) } else { Vec::new() };
        // Every column whose name occurs in a text is taken to be read: too many at worst.
        let text = text.to_lowercase();
        let reads = |(number, name): &&(i16, Arc<str>)| {
            if stored {
                // Zero stands for the whole row.
                numbers.contains(number) || numbers.contains(&0)
            } else {
                text.contains(&name.to_lowercase())
            }
        };
        let others = names.iter().filter(|(_, name)| *name != column.name);
        column.generated_from = Some(others.filter(reads).map(|(_, name)| name.clone()).collect());
    }
}

/// Numbers of the columns that a stored tree reads.
fn variables(tree: &str) -> Vec<i16> {
    tree.split(":varattno ")
        .skip(1)
        .map(|rest| {
            let number = rest.split([' ', '}', ')']).next().unwrap_or_default();
            // What cannot be told counts as the whole row.
            number.parse().unwrap_or(0)
        })
        .collect()
}
