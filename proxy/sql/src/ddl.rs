//! A catalog from DDL text, for tests and the policy SDK's test kit.

use std::sync::Arc;

use pg_raw_parse::raw::{FunctionParameterMode, ObjectType};
use pg_raw_parse::{Node, nodes};
use thiserror::Error;

use crate::analyze::{Analyzer, Options};
use crate::builtin;
use crate::catalog::{
    Cast, Catalog, Column, FIRST_USER_OID, Function, OnWrite, Operator, Relation, RelationKind,
    SessionView, TypeRef, UserType,
};
use crate::error::ParseError;
use crate::guard;
use crate::label::Labelling;

mod table;

/// Why DDL did not make a catalog.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DdlError {
    /// It cannot be parsed.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It names what is not there.
    #[error("the statement at byte {position} names {name}, which is not there; define it first")]
    Missing {
        /// Byte offset.
        position: usize,
        /// What it names.
        name: String,
    },
    /// It is of a kind that this model does not follow.
    #[error(
        "the statement at byte {position} is of a kind that is not followed here; leave it out"
    )]
    Unsupported {
        /// Byte offset.
        position: usize,
    },
}

fn names(list: &pg_raw_parse::list::NodeList) -> (Arc<str>, Arc<str>) {
    let (schema, name) = crate::expression::split_name(list);
    (schema.unwrap_or_else(|| "public".into()), name)
}

fn range_names(range: &nodes::RangeVar) -> (Arc<str>, Arc<str>) {
    let default = if range.relpersistence == b't' as std::os::raw::c_char {
        "pg_temp_1"
    } else {
        "public"
    };
    (
        Arc::from(range.schemaname().unwrap_or(default)),
        Arc::from(range.relname().unwrap_or_default()),
    )
}

struct Builder {
    catalog: Catalog,
    next_oid: u32,
}

impl Catalog {
    /// A catalog of what the DDL creates: tables, views (also materialized), foreign tables,
    /// sequences, types, functions, operators, casts, triggers, rules, comments. Object identifiers
    /// start at 16384 in the order of the text; unqualified names are in `public`.
    ///
    /// # Errors
    /// When the text cannot be parsed, or a comment or view names what is not there.
    pub fn from_ddl(text: &str) -> Result<Catalog, DdlError> {
        let options = Options::default();
        let tree = guard::parse(text, &options.limits)?;
        let mut builder = Builder {
            catalog: Catalog {
                printed_path: vec!["pg_catalog".into(), "public".into()],
                ..Catalog::default()
            },
            next_oid: FIRST_USER_OID,
        };
        for raw in tree.iter() {
            let span = crate::classify::span(raw, text);
            let statement = text.get(span.clone()).unwrap_or_default().trim();
            builder.statement(raw.stmt(), statement, span.start)?;
        }
        Ok(builder.catalog.seal())
    }
}

impl Builder {
    fn oid(&mut self) -> u32 {
        let oid = self.next_oid;
        self.next_oid += 1;
        oid
    }

    fn type_ref(&self, name: Option<&nodes::TypeName>) -> TypeRef {
        let Some(name) = name else {
            return TypeRef::default();
        };
        let parts: Vec<&str> = name
            .names()
            .iter()
            .filter_map(nodes::String::sval)
            .collect();
        let last = parts.last().copied().unwrap_or_default();
        let known = match parts.as_slice() {
            [_, _] => parts.first().copied() == Some("pg_catalog"),
            _ => {
                builtin::type_name(last).is_some()
                    || matches!(last, "serial" | "bigserial" | "smallserial")
            }
        };
        let last = match last {
            "serial" => "int4",
            "bigserial" => "int8",
            "smallserial" => "int2",
            other => other,
        };
        let schema = if known {
            "pg_catalog"
        } else if parts.len() > 1 {
            parts.first().copied().unwrap_or_default()
        } else {
            "public"
        };
        let array = if name.array_bounds().is_empty() {
            ""
        } else {
            "_"
        };
        TypeRef {
            schema: schema.into(),
            name: format!("{array}{last}").into(),
        }
    }

    fn add(&mut self, relation: Relation) {
        self.catalog.relations.push(relation);
        let catalog = std::mem::take(&mut self.catalog);
        self.catalog = catalog.seal();
    }

    fn blank(&mut self, range: Option<&nodes::RangeVar>, kind: RelationKind) -> Relation {
        let (schema, name) = range.map_or_else(|| ("public".into(), "?".into()), range_names);
        Relation {
            oid: self.oid(),
            schema,
            name,
            kind,
            columns: Vec::new(),
            definition: None,
            parents: Vec::new(),
            children: Vec::new(),
            rules: false,
            triggers: Vec::new(),
            policies: Vec::new(),
            comment: None,
            on_write: Vec::new(),
            referenced: Vec::new(),
            made_of: Vec::new(),
            pending: false,
        }
    }

    fn find(
        &mut self,
        schema: &str,
        name: &str,
        position: usize,
    ) -> Result<&mut Relation, DdlError> {
        self.catalog
            .relations
            .iter_mut()
            .find(|relation| &*relation.schema == schema && &*relation.name == name)
            .ok_or_else(|| DdlError::Missing {
                position,
                name: format!("{schema}.{name}"),
            })
    }

    fn view(
        &mut self,
        range: Option<&nodes::RangeVar>,
        kind: RelationKind,
        aliases: &pg_raw_parse::list::NodeList,
        query: Node<'_>,
        text: &str,
    ) {
        let mut relation = self.blank(range, kind);
        relation.definition = Some(text.to_owned());
        let session = SessionView {
            temp_schema: Some("pg_temp_1".into()),
            ..SessionView::default()
        };
        let labelling = Labelling::new();
        let options = Options::default();
        let names = {
            let mut analyzer = Analyzer::new(&self.catalog, &session, &labelling, &options);
            analyzer.query(query, None, &None).map(|columns| {
                columns
                    .list
                    .iter()
                    .map(|col| {
                        let value = analyzer.col_value(col);
                        let type_ref = match value.ty {
                            crate::value::Type::Builtin("anyarray" | "any") => TypeRef {
                                schema: "pg_catalog".into(),
                                name: "_text".into(),
                            },
                            crate::value::Type::Builtin(name) => TypeRef {
                                schema: "pg_catalog".into(),
                                name: name.into(),
                            },
                            crate::value::Type::Literal => TypeRef {
                                schema: "pg_catalog".into(),
                                name: "text".into(),
                            },
                            _ => TypeRef::default(),
                        };
                        (Arc::clone(&col.name), type_ref)
                    })
                    .collect::<Vec<_>>()
            })
        };
        let mut aliases = aliases.iter().filter_map(|node| node.as_str());
        for (index, (name, type_ref)) in names.unwrap_or_default().into_iter().enumerate() {
            relation.columns.push(Column {
                name: aliases.next().map_or(name, Arc::from),
                number: i16::try_from(index + 1).unwrap_or(i16::MAX),
                type_ref,
                generated: None,
                generated_from: None,
                comment: None,
                unique: false,
                references: Vec::new(),
            });
        }
        self.catalog
            .relations
            .retain(|known| known.schema != relation.schema || known.name != relation.name);
        self.add(relation);
    }

    fn statement(&mut self, node: Node<'_>, text: &str, position: usize) -> Result<(), DdlError> {
        match node {
            Node::CreateStmt(create) => self.table(create, RelationKind::Table, text, position)?,
            Node::ViewStmt(view) => {
                self.view(
                    view.view(),
                    RelationKind::View,
                    view.aliases(),
                    view.query(),
                    text,
                );
            }
            Node::CreateTableAsStmt(create) => {
                let Some(into) = create.into() else {
                    return Err(DdlError::Unsupported { position });
                };
                if create.objtype == ObjectType::OBJECT_MATVIEW {
                    self.view(
                        into.rel(),
                        RelationKind::MaterializedView,
                        into.col_names(),
                        create.query(),
                        text,
                    );
                } else {
                    return Err(DdlError::Unsupported { position });
                }
            }
            Node::CreateSeqStmt(create) => {
                let mut relation = self.blank(create.sequence(), RelationKind::Sequence);
                for (number, name) in (1_i16..).zip(["last_value", "log_cnt", "is_called"]) {
                    relation.columns.push(Column {
                        name: name.into(),
                        number,
                        type_ref: TypeRef {
                            schema: "pg_catalog".into(),
                            name: if number == 3 { "bool" } else { "int8" }.into(),
                        },
                        generated: None,
                        generated_from: None,
                        comment: None,
                        unique: false,
                        references: Vec::new(),
                    });
                }
                self.add(relation);
            }
            Node::CompositeTypeStmt(create) => {
                let mut relation = self.blank(create.typevar(), RelationKind::Composite);
                for (number, definition) in (1_i16..).zip(create.coldeflist()) {
                    let column = self.column(definition, number, "");
                    relation.columns.push(column);
                }
                self.made_of_columns(&mut relation);
                self.add(relation);
            }
            Node::CreateEnumStmt(create) => self.new_type(create.type_name(), true),
            Node::CreateDomainStmt(create) => {
                self.new_type(create.domainname(), false);
                self.domain(create);
            }
            Node::CreateRangeStmt(create) => self.new_type(create.type_name(), false),
            Node::CreateFunctionStmt(create) => self.function(create),
            Node::DefineStmt(define) => self.define(define),
            Node::CreateCastStmt(cast) => {
                let cast = Cast {
                    source: self.type_ref(cast.sourcetype()),
                    target: self.type_ref(cast.targettype()),
                    implicit: cast.context == 0,
                };
                self.catalog.casts.push(cast);
            }
            Node::CommentStmt(comment) => self.comment(comment, position)?,
            Node::CreateTrigStmt(create) => {
                let (schema, name) = create.relation().map_or_else(Default::default, range_names);
                let mut functions = vec![names(create.funcname())];
                for runs in self.calls(create.when_clause()) {
                    if let OnWrite::Function(of, called) = runs {
                        functions.push((of, called));
                    }
                }
                let relation = self.find(&schema, &name, position)?;
                relation.triggers.extend(functions);
            }
            Node::RuleStmt(rule) => {
                let (schema, name) = rule.relation().map_or_else(Default::default, range_names);
                self.find(&schema, &name, position)?.rules = true;
            }
            Node::CreatePolicyStmt(create) => {
                let (schema, name) = create.table().map_or_else(Default::default, range_names);
                // The text of a policy's expression cannot be cut out; what calls nothing is kept.
                self.find(&schema, &name, position)?;
            }
            Node::CreateSchemaStmt(_)
            | Node::IndexStmt(_)
            | Node::GrantStmt(_)
            | Node::GrantRoleStmt(_)
            | Node::CreateRoleStmt(_)
            | Node::VariableSetStmt(_)
            | Node::CreateExtensionStmt(_)
            | Node::CreateStatsStmt(_)
            | Node::CreateForeignServerStmt(_)
            | Node::CreateFdwStmt(_)
            | Node::InsertStmt(_)
            | Node::TransactionStmt(_) => {}
            Node::AlterTableStmt(_) | Node::AlterOwnerStmt(_) => {}
            _ => return Err(DdlError::Unsupported { position }),
        }
        Ok(())
    }

    fn new_type(&mut self, parts: &pg_raw_parse::list::CastNodeList<nodes::String>, is_enum: bool) {
        let parts: Vec<&str> = parts.iter().filter_map(nodes::String::sval).collect();
        let (schema, name) = match parts.as_slice() {
            [schema, name] => (*schema, *name),
            [name] => ("public", *name),
            _ => return,
        };
        self.catalog
            .types
            .entry(name.into())
            .or_default()
            .push(UserType {
                schema: schema.into(),
                is_enum,
            });
    }

    fn function(&mut self, create: &nodes::CreateFunctionStmt) {
        let (schema, name) = names(create.funcname());
        let mut arguments = Vec::new();
        let mut columns = Vec::new();
        let mut flexible = false;
        for parameter in create.parameters() {
            let output = matches!(
                parameter.mode,
                FunctionParameterMode::FUNC_PARAM_OUT
                    | FunctionParameterMode::FUNC_PARAM_INOUT
                    | FunctionParameterMode::FUNC_PARAM_TABLE
            );
            if output {
                columns.extend(parameter.name().map(Arc::from));
            }
            if !matches!(
                parameter.mode,
                FunctionParameterMode::FUNC_PARAM_OUT | FunctionParameterMode::FUNC_PARAM_TABLE
            ) {
                arguments.push(self.type_ref(parameter.arg_type()));
            }
            flexible |= parameter.mode == FunctionParameterMode::FUNC_PARAM_VARIADIC
                || !matches!(parameter.defexpr(), Node::None);
        }
        let volatile = !create.options().iter().any(|option| {
            option.defname() == Some("volatility")
                && matches!(option.arg().as_str(), Some("immutable" | "stable"))
        });
        let returns_set = create.return_type().is_some_and(|name| name.setof);
        let function = Function {
            schema,
            name: Arc::clone(&name),
            arguments,
            columns,
            volatile,
            returns_set,
            flexible,
            version: String::new(),
        };
        self.catalog
            .functions
            .entry(name)
            .or_default()
            .push(function);
    }

    fn define(&mut self, define: &nodes::DefineStmt) {
        let parts: Vec<&str> = define
            .defnames()
            .iter()
            .filter_map(nodes::String::sval)
            .collect();
        let (schema, name) = match parts.as_slice() {
            [schema, name] => (*schema, *name),
            [name] => ("public", *name),
            _ => return,
        };
        match define.kind {
            ObjectType::OBJECT_OPERATOR => {
                let side = |wanted: &str| {
                    define.definition().iter().find_map(|option| {
                        match (option.defname(), option.arg()) {
                            (Some(name), Node::TypeName(type_name)) if name == wanted => {
                                Some(self.type_ref(Some(type_name)))
                            }
                            _ => None,
                        }
                    })
                };
                let operator = Operator {
                    schema: schema.into(),
                    name: name.into(),
                    left: side("leftarg"),
                    right: side("rightarg"),
                };
                self.catalog
                    .operators
                    .entry(name.into())
                    .or_default()
                    .push(operator);
            }
            ObjectType::OBJECT_AGGREGATE => {
                let function = Function {
                    schema: schema.into(),
                    name: name.into(),
                    arguments: Vec::new(),
                    columns: Vec::new(),
                    volatile: false,
                    returns_set: false,
                    flexible: true,
                    version: String::new(),
                };
                self.catalog
                    .functions
                    .entry(name.into())
                    .or_default()
                    .push(function);
            }
            ObjectType::OBJECT_TYPE => {
                self.catalog
                    .types
                    .entry(name.into())
                    .or_default()
                    .push(UserType {
                        schema: schema.into(),
                        is_enum: false,
                    })
            }
            _ => {}
        }
    }

    fn comment(&mut self, comment: &nodes::CommentStmt, position: usize) -> Result<(), DdlError> {
        let text = comment.comment().map(str::to_owned);
        let Node::NodeList(list) = comment.object() else {
            return Ok(());
        };
        let parts: Vec<&str> = list.iter().filter_map(|node| node.as_str()).collect();
        match comment.objtype {
            ObjectType::OBJECT_COLUMN => {
                let (schema, table, column) = match parts.as_slice() {
                    [schema, table, column] => (*schema, *table, *column),
                    [table, column] => ("public", *table, *column),
                    _ => return Err(DdlError::Unsupported { position }),
                };
                let relation = self.find(schema, table, position)?;
                match relation
                    .columns
                    .iter_mut()
                    .find(|known| &*known.name == column)
                {
                    Some(known) => known.comment = text,
                    None => {
                        return Err(DdlError::Missing {
                            position,
                            name: format!("{schema}.{table}.{column}"),
                        });
                    }
                }
            }
            ObjectType::OBJECT_TABLE
            | ObjectType::OBJECT_VIEW
            | ObjectType::OBJECT_MATVIEW
            | ObjectType::OBJECT_FOREIGN_TABLE => {
                let (schema, table) = match parts.as_slice() {
                    [schema, table] => (*schema, *table),
                    [table] => ("public", *table),
                    _ => return Err(DdlError::Unsupported { position }),
                };
                self.find(schema, table, position)?.comment = text;
            }
            _ => {}
        }
        Ok(())
    }
}
