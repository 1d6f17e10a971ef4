//! The catalog as a session's own connection sees it: queries for the caller to run, and rows in.

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::catalog::{
    Cast, Catalog, Column, Function, Operator, Relation, RelationKind, SessionView, TypeRef,
};

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
    types: HashMap<Arc<str>, Vec<Arc<str>>>,
    casts: Vec<Cast>,
}

/// One catalog's row versions as one number.
macro_rules! fingerprint {
    ($table:literal, $filter:literal) => {
        concat!(
            "(SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(",
            "pg_catalog.hashtextextended(pg_catalog.concat(x.ctid, ' ', x.xmin), 0))) ",
            "FROM pg_catalog.",
            $table,
            " AS x ",
            $filter,
            ")"
        )
    };
}

/// Everything that the catalog holds for us changes this one row's one text: row versions of the
/// system catalogs, seen by the session's own snapshot. Runs on PostgreSQL 13 to 18 as any role.
pub const FINGERPRINT_QUERY: &str = concat!(
    "SELECT pg_catalog.concat_ws(' ', pg_catalog.current_schemas(true)::pg_catalog.text, ",
    fingerprint!("pg_class", ""),
    ", ",
    fingerprint!(
        "pg_attribute",
        "WHERE x.attrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_attrdef", ""),
    ", ",
    fingerprint!(
        "pg_rewrite",
        "WHERE x.ev_class OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_trigger", ""),
    ", ",
    fingerprint!("pg_policy", ""),
    ", ",
    fingerprint!("pg_inherits", ""),
    ", ",
    fingerprint!(
        "pg_index",
        "WHERE x.indrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_constraint", ""),
    ", ",
    fingerprint!("pg_namespace", ""),
    ", ",
    fingerprint!(
        "pg_proc",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_type",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_operator",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_cast",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_description",
        "WHERE x.classoid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid \
        AND x.objoid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ")"
);

/// Relations of users' schemas and of the session's own temporary one.
macro_rules! ours {
    () => {
        "(n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[])) \
         AND (n.nspname OPERATOR(pg_catalog.!~~) 'pg\\_toast%'::pg_catalog.text) \
         AND ((n.nspname OPERATOR(pg_catalog.!~~) 'pg\\_temp%'::pg_catalog.text) \
              OR (n.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()))"
    };
}

/// Columns of a join that starts at `pg_class AS c`.
macro_rules! from_ours {
    () => {
        "FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) c.relnamespace) "
    };
}

impl Snapshot {
    /// Queries to run on the session's own connection, in this order, in text format. Every name
    /// and operator is qualified, so that they mean the same under any search path; any role may
    /// run them.
    pub const QUERIES: &'static [&'static str] = &[
        // 0: the effective search path.
        "SELECT s.name::pg_catalog.text FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) \
         WITH ORDINALITY AS s(name, number) ORDER BY s.number",
        // 1: settings.
        "SELECT s.name, pg_catalog.current_setting(s.name, true) FROM pg_catalog.unnest(\
         '{client_encoding,server_encoding,standard_conforming_strings,backslash_quote,\
         transform_null_equals,array_nulls,restrict_nonsystem_relation_kind,\
         server_version_num,is_superuser}'::pg_catalog.text[]) AS s(name) \
         UNION ALL SELECT 'current_user'::pg_catalog.text, CURRENT_USER::pg_catalog.text \
         UNION ALL SELECT 'session_user'::pg_catalog.text, SESSION_USER::pg_catalog.text \
         UNION ALL SELECT 'temp_schema'::pg_catalog.text, (SELECT t.nspname::pg_catalog.text FROM pg_catalog.pg_namespace AS t \
         WHERE t.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())",
        // 2: relations.
        concat!(
            "SELECT c.oid::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, ",
            "CASE WHEN (c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog.\"char\"[])) THEN pg_catalog.pg_get_viewdef(c.oid) END, ",
            "pg_catalog.obj_description(c.oid, 'pg_class'::pg_catalog.name), ",
            "EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite AS r WHERE (r.ev_class OPERATOR(pg_catalog.=) c.oid) ",
            "AND (r.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name))::pg_catalog.text ",
            from_ours!(),
            "WHERE (c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S,c}'::pg_catalog.\"char\"[])) AND ",
            ours!()
        ),
        // 3: columns; a domain's type is what it is made of.
        concat!(
            "SELECT a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text, a.attname::pg_catalog.text, ",
            "tn.nspname::pg_catalog.text, t.typname::pg_catalog.text, ",
            "CASE WHEN (a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\") THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END, ",
            "pg_catalog.col_description(a.attrelid, a.attnum::pg_catalog.int4) ",
            from_ours!(),
            "JOIN pg_catalog.pg_attribute AS a ON (a.attrelid OPERATOR(pg_catalog.=) c.oid) ",
            "JOIN pg_catalog.pg_type AS y ON (y.oid OPERATOR(pg_catalog.=) a.atttypid) ",
            "JOIN pg_catalog.pg_type AS t ON (t.oid OPERATOR(pg_catalog.=) CASE WHEN (y.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\") THEN y.typbasetype ELSE y.oid END) ",
            "JOIN pg_catalog.pg_namespace AS tn ON (tn.oid OPERATOR(pg_catalog.=) t.typnamespace) ",
            "LEFT JOIN pg_catalog.pg_attrdef AS d ON (d.adrelid OPERATOR(pg_catalog.=) a.attrelid) AND (d.adnum OPERATOR(pg_catalog.=) a.attnum) ",
            "WHERE (a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2) AND (NOT a.attisdropped) ",
            "AND (c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S,c}'::pg_catalog.\"char\"[])) AND ",
            ours!(),
            " ORDER BY a.attrelid, a.attnum"
        ),
        // 4: inheritance and partitions.
        "SELECT i.inhrelid::pg_catalog.text, i.inhparent::pg_catalog.text FROM pg_catalog.pg_inherits AS i",
        // 5: triggers.
        concat!(
            "SELECT g.tgrelid::pg_catalog.text, pn.nspname::pg_catalog.text, p.proname::pg_catalog.text ",
            from_ours!(),
            "JOIN pg_catalog.pg_trigger AS g ON (g.tgrelid OPERATOR(pg_catalog.=) c.oid) ",
            "JOIN pg_catalog.pg_proc AS p ON (p.oid OPERATOR(pg_catalog.=) g.tgfoid) ",
            "JOIN pg_catalog.pg_namespace AS pn ON (pn.oid OPERATOR(pg_catalog.=) p.pronamespace) ",
            "WHERE (NOT g.tgisinternal) AND ",
            ours!()
        ),
        // 6: row-level security.
        concat!(
            "SELECT c.oid::pg_catalog.text, pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) ",
            from_ours!(),
            "JOIN pg_catalog.pg_policy AS p ON (p.polrelid OPERATOR(pg_catalog.=) c.oid) ",
            "WHERE c.relrowsecurity AND ",
            ours!()
        ),
        // 7: unique columns.
        concat!(
            "SELECT i.indrelid::pg_catalog.text, k.number::pg_catalog.text ",
            from_ours!(),
            "JOIN pg_catalog.pg_index AS i ON (i.indrelid OPERATOR(pg_catalog.=) c.oid) ",
            "CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) AS k(number) ",
            "WHERE (i.indisunique OR i.indisexclusion) AND ",
            ours!()
        ),
        // 8: foreign keys.
        concat!(
            "SELECT k.conrelid::pg_catalog.text, a.number::pg_catalog.text, k.confrelid::pg_catalog.text, b.number::pg_catalog.text ",
            from_ours!(),
            "JOIN pg_catalog.pg_constraint AS k ON (k.conrelid OPERATOR(pg_catalog.=) c.oid) ",
            "CROSS JOIN LATERAL pg_catalog.unnest(k.conkey) WITH ORDINALITY AS a(number, place) ",
            "JOIN LATERAL pg_catalog.unnest(k.confkey) WITH ORDINALITY AS b(number, place) ON (a.place OPERATOR(pg_catalog.=) b.place) ",
            "WHERE (k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\") AND ",
            ours!()
        ),
        // 9: functions that are not PostgreSQL's own, whatever their schema.
        "SELECT n.nspname::pg_catalog.text, p.proname::pg_catalog.text, \
         pg_catalog.array_to_string(ARRAY(SELECT pg_catalog.concat(an.nspname, '.', at.typname) \
           FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u(id, place) \
           JOIN pg_catalog.pg_type AS at ON (at.oid OPERATOR(pg_catalog.=) u.id) \
           JOIN pg_catalog.pg_namespace AS an ON (an.oid OPERATOR(pg_catalog.=) at.typnamespace) ORDER BY u.place), ' '::pg_catalog.text), \
         pg_catalog.array_to_string(ARRAY(SELECT m.name FROM ROWS FROM (pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes)) \
           WITH ORDINALITY AS m(name, mode, place) \
           WHERE (m.mode OPERATOR(pg_catalog.=) ANY ('{o,b,t}'::pg_catalog.\"char\"[])) ORDER BY m.place), E'\\n'::pg_catalog.text), \
         p.provolatile::pg_catalog.text, p.proretset::pg_catalog.text, \
         ((p.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) OR (p.pronargdefaults OPERATOR(pg_catalog.>) 0::pg_catalog.int2) \
           OR (p.prokind OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"))::pg_catalog.text \
         FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) p.pronamespace) \
         WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid",
        // 10: operators likewise.
        "SELECT n.nspname::pg_catalog.text, o.oprname::pg_catalog.text, ln.nspname::pg_catalog.text, l.typname::pg_catalog.text, \
         rn.nspname::pg_catalog.text, r.typname::pg_catalog.text \
         FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) o.oprnamespace) \
         LEFT JOIN pg_catalog.pg_type AS l ON (l.oid OPERATOR(pg_catalog.=) o.oprleft) \
         LEFT JOIN pg_catalog.pg_namespace AS ln ON (ln.oid OPERATOR(pg_catalog.=) l.typnamespace) \
         LEFT JOIN pg_catalog.pg_type AS r ON (r.oid OPERATOR(pg_catalog.=) o.oprright) \
         LEFT JOIN pg_catalog.pg_namespace AS rn ON (rn.oid OPERATOR(pg_catalog.=) r.typnamespace) \
         WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid",
        // 11: types likewise, without the row types of relations.
        "SELECT n.nspname::pg_catalog.text, t.typname::pg_catalog.text FROM pg_catalog.pg_type AS t \
         JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) t.typnamespace) \
         WHERE (t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) \
         AND (t.typtype OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\") AND (t.typname OPERATOR(pg_catalog.!~~) '\\_%'::pg_catalog.text)",
        // 12: casts likewise.
        "SELECT sn.nspname::pg_catalog.text, s.typname::pg_catalog.text, tn.nspname::pg_catalog.text, t.typname::pg_catalog.text, \
         k.castcontext::pg_catalog.text \
         FROM pg_catalog.pg_cast AS k \
         JOIN pg_catalog.pg_type AS s ON (s.oid OPERATOR(pg_catalog.=) k.castsource) \
         JOIN pg_catalog.pg_namespace AS sn ON (sn.oid OPERATOR(pg_catalog.=) s.typnamespace) \
         JOIN pg_catalog.pg_type AS t ON (t.oid OPERATOR(pg_catalog.=) k.casttarget) \
         JOIN pg_catalog.pg_namespace AS tn ON (tn.oid OPERATOR(pg_catalog.=) t.typnamespace) \
         WHERE k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid",
    ];

    /// One row, one text, that changes whenever a snapshot would: to ask before a snapshot is
    /// taken again.
    pub const FINGERPRINT_QUERY: &'static str = FINGERPRINT_QUERY;

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
                if let Some(relation) = self.relation(oid(0)?) {
                    relation.policies.extend(policies);
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
                let (at, other, there) = (number(1)?, oid(2)?, number(3)?);
                if let Some(relation) = self.relation(oid(0)?) {
                    for column in &mut relation.columns {
                        if column.number == at {
                            column.references.push((other, there));
                        }
                    }
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
                .push(get(0)?.into()),
            12 => self.casts.push(Cast {
                source: type_at(0)?,
                target: type_at(2)?,
                implicit: get(4)? == "i",
            }),
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

    /// The catalog and the session.
    ///
    /// # Errors
    /// When the session's rows are missing.
    pub fn finish(self) -> Result<(Catalog, SessionView), SnapshotError> {
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
        let temp_schema: Option<Arc<str>> = setting("temp_schema").map(Arc::from);
        let version = setting("server_version_num")
            .and_then(|text| text.parse().ok())
            .ok_or(missing)?;
        let session = SessionView {
            search_path: self.path.clone(),
            temp_schema: temp_schema.clone(),
            role: setting("current_user").unwrap_or_default().to_owned(),
            login: setting("session_user").unwrap_or_default().to_owned(),
            superuser: setting("is_superuser") == Some("on"),
            version,
            settings: self
                .settings
                .iter()
                .filter(|(name, _)| {
                    crate::catalog::READING
                        .iter()
                        .any(|(known, _)| known == name)
                })
                .cloned()
                .collect(),
        };
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
            printed_path: self.path,
            temp_schema,
            ..Catalog::default()
        };
        Ok((catalog.seal(), session))
    }
}

/// Finds which columns the generating expressions of a relation read.
pub(crate) fn settle_generated(relation: &mut Relation) {
    let names: Vec<Arc<str>> = relation
        .columns
        .iter()
        .map(|column| Arc::clone(&column.name))
        .collect();
    for column in &mut relation.columns {
        let Some(text) = &column.generated else {
            continue;
        };
        // Every column whose name occurs in the text is taken to be read: too many at worst.
        let text = text.to_lowercase();
        column.generated_from = Some(
            names
                .iter()
                .filter(|name| **name != column.name && text.contains(&name.to_lowercase()))
                .cloned()
                .collect(),
        );
    }
}
