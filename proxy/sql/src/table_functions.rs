//! Functions, XMLTABLE and JSON_TABLE in FROM.

use std::rc::Rc;
use std::sync::Arc;

use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::JsonTableColumnType;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::builtin::Builtin;
use crate::calls::Found;
use crate::from::{Meant, opaque};
use crate::names::{Item, Scope};
use crate::value::{Col, Columns, More, Origin, Type, Value};

impl Analyzer<'_> {
    pub(crate) fn range_function(
        &mut self,
        range: &nodes::RangeFunction,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut list: Vec<Col> = Vec::new();
        let mut more = More::None;
        let count = range.functions().len();
        let alias = range.alias();
        let alias_name: Option<Arc<str>> = alias.and_then(|alias| alias.aliasname()).map(Arc::from);
        let mut function_name: Option<Arc<str>> = None;
        for entry in range.functions() {
            let Node::NodeList(pair) = entry else {
                self.gap("a function in FROM is not understood");
                return Ok(vec![opaque(alias_name)]);
            };
            let call = pair.get(0).unwrap_or(Node::None);
            // UNNEST of several arrays has a column for each.
            if let Node::FuncCall(function) = call
                && function.args().len() > 1
                && function
                    .funcname()
                    .iter()
                    .filter_map(|name| name.as_str())
                    .next_back()
                    == Some("unnest")
            {
                let name: Arc<str> = "unnest".into();
                self.note_function("pg_catalog", "unnest");
                if !self.catalog.functions_named("unnest").is_empty() {
                    self.gap("function unnest is not PostgreSQL's own alone");
                }
                for argument in function.args() {
                    let mut value = self.expr(argument, &sides)?.derived(Type::Unknown);
                    self.risky(&mut value);
                    list.push(Col::known(Arc::clone(&name), value));
                }
                function_name = Some(name);
                continue;
            }
            let value = self.expr(call, &sides)?;
            let definitions: Vec<(Arc<str>, Option<&nodes::TypeName>)> = range
                .coldeflist()
                .iter()
                .chain(
                    pair.get(1)
                        .and_then(|node| node.as_node_list())
                        .into_iter()
                        .flatten()
                        .filter_map(|node| match node {
                            Node::ColumnDef(column) => Some(column),
                            _ => None,
                        }),
                )
                .map(|column| {
                    (
                        Arc::from(column.colname().unwrap_or_default()),
                        column.type_name(),
                    )
                })
                .collect();
            let mut value = value;
            value.origin = Origin::Computed;
            if !definitions.is_empty() {
                for (name, type_name) in definitions {
                    let mut part = value.clone().derived(Type::Unknown);
                    self.cast_target(type_name, Node::None, &mut part);
                    list.push(Col::known(name, part));
                }
                continue;
            }
            let Node::FuncCall(function) = call else {
                // CURRENT_DATE and its like.
                let name: Arc<str> = alias_name.clone().unwrap_or_else(|| "?column?".into());
                list.push(Col::known(name, value));
                continue;
            };
            let names: Vec<Arc<str>> = function
                .funcname()
                .iter()
                .filter_map(|node| node.as_str())
                .map(Arc::from)
                .collect();
            let last: Arc<str> = names.last().cloned().unwrap_or_else(|| "?column?".into());
            function_name = Some(Arc::clone(&last));
            let scalar = if count == 1 {
                alias_name.clone().unwrap_or_else(|| Arc::clone(&last))
            } else {
                Arc::clone(&last)
            };
            match self.find_function(&names, &self.argument_types(function.args().len())) {
                Found::Builtin(known) if !known.columns.is_empty() => {
                    for name in known.columns.split(',') {
                        list.push(Col::known(name.into(), value.clone()));
                    }
                }
                Found::Builtin(known) if known.result.is_empty() || known.result == "record" => {
                    // Could be a row (json_populate_record, unnest of rows): any name may be meant.
                    list.push(Col::known(scalar, value.clone()));
                    if known.flags.contains(Builtin::SET) || is_row_maker(known.name) {
                        let rows = self.row_columns(function.args(), &sides, &value)?;
                        match rows {
                            Some(columns) => {
                                list.pop();
                                list.extend(columns);
                            }
                            None if is_row_maker(known.name) => {
                                list.pop();
                                more = More::Unknown;
                            }
                            None => {}
                        }
                    }
                }
                Found::Builtin(_) => list.push(Col::known(scalar, value.clone())),
                Found::User(known, _) if !known.columns.is_empty() => {
                    for name in &known.columns {
                        list.push(Col::known(Arc::clone(name), value.clone()));
                    }
                }
                _ => {
                    more = More::Unknown;
                }
            }
        }
        if range.ordinality {
            list.push(Col::known(
                "ordinality".into(),
                Value::constant(Type::Builtin("int8")),
            ));
        }
        let columns = Columns {
            list: Rc::new(list),
            more,
        };
        Ok(vec![self.aliased(
            columns,
            alias,
            function_name.or(Some("?".into())),
            None,
            None,
        )])
    }

    pub(crate) fn argument_types(&self, count: usize) -> Vec<Value> {
        vec![Value::default(); count]
    }

    /// Columns of `json_populate_record(NULL::relation, ...)` and the like.
    pub(crate) fn row_columns(
        &mut self,
        arguments: &NodeList,
        _scope: &Scope<'_>,
        value: &Value,
    ) -> Res<Option<Vec<Col>>> {
        let Some(Node::TypeCast(cast)) = arguments.get(0) else {
            return Ok(None);
        };
        let Some(name) = cast.type_name() else {
            return Ok(None);
        };
        let names: Vec<&str> = name
            .names()
            .iter()
            .filter_map(nodes::String::sval)
            .collect();
        let (schema, name) = match names.as_slice() {
            [name] => (None, *name),
            [schema, name] => (Some(*schema), *name),
            _ => return Ok(None),
        };
        match self.find_relation(schema, name) {
            Meant::Relation(relation) => Ok(Some(
                relation
                    .columns
                    .iter()
                    .map(|column| {
                        Col::known(
                            Arc::clone(&column.name),
                            value.clone().derived(Type::Unknown),
                        )
                    })
                    .collect(),
            )),
            _ => Ok(None),
        }
    }

    pub(crate) fn xml_table(
        &mut self,
        table: &nodes::RangeTableFunc,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut value = self.expr(table.docexpr(), &sides)?;
        let rows = self.expr(table.rowexpr(), &sides)?;
        value.absorb(&rows);
        let namespaces = self.all_of(table.namespaces(), &sides)?;
        value.absorb(&namespaces);
        let mut value = value.derived(Type::Unknown);
        self.risky(&mut value);
        let mut list = Vec::new();
        for column in table.columns() {
            let mut part = value.clone();
            for node in [column.colexpr(), column.coldefexpr()] {
                let more = self.expr(node, &sides)?;
                part.absorb(&more);
            }
            self.risky(&mut part);
            if !column.for_ordinality {
                self.cast_target(column.type_name(), Node::None, &mut part);
            }
            list.push(Col::known(
                column.colname().unwrap_or_default().into(),
                part,
            ));
        }
        let columns = Columns {
            list: Rc::new(list),
            more: More::None,
        };
        Ok(vec![self.aliased(
            columns,
            table.alias(),
            Some("xmltable".into()),
            None,
            None,
        )])
    }

    pub(crate) fn json_table(
        &mut self,
        table: &nodes::JsonTable,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut value = match table.context_item() {
            Some(item) => self.expr(item.raw_expr(), &sides)?,
            None => Value::unknown(),
        };
        for argument in table.passing() {
            if let Node::JsonArgument(argument) = argument
                && let Some(item) = argument.val()
            {
                let part = self.expr(item.raw_expr(), &sides)?;
                value.absorb(&part);
            }
        }
        let mut value = value.derived(Type::Unknown);
        self.risky(&mut value);
        let mut list = Vec::new();
        let mut open: Vec<&nodes::JsonTableColumn> = table.columns().iter().collect();
        open.reverse();
        while let Some(column) = open.pop() {
            self.depth.spend(1)?;
            if column.coltype == JsonTableColumnType::JTC_NESTED {
                let mut nested: Vec<_> = column
                    .columns()
                    .iter()
                    .filter_map(|node| match node {
                        Node::JsonTableColumn(column) => Some(column),
                        _ => None,
                    })
                    .collect();
                nested.reverse();
                open.extend(nested);
                continue;
            }
            let mut part = value.clone();
            for behaviour in [column.on_empty(), column.on_error()].into_iter().flatten() {
                let more = self.expr(behaviour.expr(), &sides)?;
                part.absorb(&more);
            }
            if column.coltype != JsonTableColumnType::JTC_FOR_ORDINALITY {
                self.cast_target(column.type_name(), Node::None, &mut part);
            }
            list.push(Col::known(column.name().unwrap_or_default().into(), part));
        }
        let columns = Columns {
            list: Rc::new(list),
            more: More::None,
        };
        Ok(vec![self.aliased(
            columns,
            table.alias(),
            Some("json_table".into()),
            None,
            None,
        )])
    }
}

pub(crate) fn is_row_maker(name: &str) -> bool {
    matches!(
        name,
        "json_populate_record"
            | "jsonb_populate_record"
            | "json_populate_recordset"
            | "jsonb_populate_recordset"
            | "json_to_record"
            | "jsonb_to_record"
            | "json_to_recordset"
            | "jsonb_to_recordset"
    )
}
