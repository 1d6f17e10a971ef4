//! JSON constructors and functions that are grammar.

use chaperone_contract::Usages;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::names::Scope;
use crate::value::{Type, Value};

impl Analyzer<'_> {
    pub(crate) fn json(&mut self, node: Node<'_>, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::default();
        let mut risky = false;
        let mut ty = Type::Builtin("json");
        let mut parts: Vec<Node<'_>> = Vec::new();
        let mut output = None;
        // Before PostgreSQL 16 and 17 these were calls of functions with these names.
        if !matches!(
            node,
            Node::JsonValueExpr(_) | Node::JsonKeyValue(_) | Node::JsonIsPredicate(_)
        ) {
            self.once_a_call(&crate::column_names::column_name(node));
        }
        match node {
            Node::JsonValueExpr(expr) => {
                let value = self.expr(expr.raw_expr(), scope)?;
                return Ok(value.derived(Type::Unknown));
            }
            Node::JsonKeyValue(pair) => {
                let key = self.expr(pair.key(), scope)?;
                value.absorb(&key);
                risky = !key.is_plain_constant();
                if let Some(item) = pair.value() {
                    parts.push(item.raw_expr());
                }
            }
            Node::JsonIsPredicate(test) => {
                parts.push(test.expr());
                ty = Type::Builtin("bool");
            }
            Node::JsonObjectConstructor(object) => {
                for pair in object.exprs() {
                    let pair = self.expr(Node::JsonKeyValue(pair), scope)?;
                    value.absorb(&pair);
                }
                risky = object.unique;
                output = object.output();
            }
            Node::JsonArrayConstructor(array) => {
                parts.extend(array.exprs().iter().map(|item| item.raw_expr()));
                output = array.output();
            }
            Node::JsonArrayQueryConstructor(array) => {
                self.conditions.push(Vec::new());
                self.sublinks += 1;
                let columns = self.query(array.query(), Some(scope), &scope.ctes);
                self.sublinks -= 1;
                let conditions = self.conditions.pop().unwrap_or_default();
                if let Some(outer) = self.conditions.last_mut() {
                    crate::value::merge(outer, &conditions);
                }
                crate::value::merge(&mut value.fields, &conditions);
                for col in columns?.list.iter() {
                    let part = self.col_value(col);
                    value.absorb(&part);
                }
                value.observable = true;
                output = array.output();
            }
            Node::JsonParseExpr(parse) => {
                parts.extend(parse.expr().map(|item| item.raw_expr()));
                risky = true;
                output = parse.output();
            }
            Node::JsonScalarExpr(scalar) => {
                parts.push(scalar.expr());
                output = scalar.output();
            }
            Node::JsonSerializeExpr(serialize) => {
                parts.extend(serialize.expr().map(|item| item.raw_expr()));
                risky = true;
                ty = Type::Builtin("text");
                output = serialize.output();
            }
            Node::JsonFuncExpr(function) => {
                parts.extend(function.context_item().map(|item| item.raw_expr()));
                parts.push(function.pathspec());
                for argument in function.passing() {
                    if let Node::JsonArgument(argument) = argument {
                        parts.extend(argument.val().map(|item| item.raw_expr()));
                    } else {
                        self.gap("a JSON argument is not understood");
                    }
                }
                parts.extend(
                    [function.on_empty(), function.on_error()]
                        .into_iter()
                        .flatten()
                        .map(|behaviour| behaviour.expr()),
                );
                risky = true;
                ty = Type::Unknown;
                output = function.output();
            }
            Node::JsonObjectAgg(aggregate) => {
                if let Some(pair) = aggregate.arg() {
                    let pair = self.expr(Node::JsonKeyValue(pair), scope)?;
                    value.absorb(&pair);
                }
                risky = aggregate.unique;
                output = self.json_aggregate(aggregate.constructor(), &mut value, scope)?;
            }
            Node::JsonArrayAgg(aggregate) => {
                parts.extend(aggregate.arg().map(|item| item.raw_expr()));
                output = self.json_aggregate(aggregate.constructor(), &mut value, scope)?;
            }
            _ => {
                self.gap("an expression is of a kind that is not understood");
                self.read_only = false;
                return Ok(Value::unknown());
            }
        }
        for part in parts {
            let part = self.expr(part, scope)?;
            value.absorb(&part);
        }
        let mut value = value.derived(ty);
        if let Some(name) = output.and_then(|output| output.type_name()) {
            self.cast_target(Some(name), Node::None, &mut value);
            risky = true;
        }
        if risky {
            self.risky(&mut value);
        }
        Ok(value)
    }

    /// What is grammar for our parser is a function of somebody's for an older server.
    pub(crate) fn once_a_call(&mut self, name: &str) {
        let functions = self.catalog.functions_named(name);
        let json_functions = if name.starts_with("json_") {
            ["json_value", "json_query", "json_exists"]
                .iter()
                .any(|name| !self.catalog.functions_named(name).is_empty())
        } else {
            false
        };
        if self.session.version < 180_000 && (!functions.is_empty() || json_functions) {
            self.gap(&format!(
                "{name} may mean a function that is not on the allow-list"
            ));
            self.read_only = false;
            self.untrusted = true;
        }
    }

    pub(crate) fn json_aggregate<'t>(
        &mut self,
        constructor: Option<&'t nodes::JsonAggConstructor>,
        value: &mut Value,
        scope: &Scope<'_>,
    ) -> Res<Option<&'t nodes::JsonOutput>> {
        let Some(constructor) = constructor else {
            return Ok(None);
        };
        let filter = self.expr(constructor.agg_filter(), scope)?;
        self.mark(&filter, Usages::PREDICATE);
        value.absorb(&filter);
        for sort in constructor.agg_order() {
            if let Node::SortBy(sort) = sort {
                let key = self.expr(sort.node(), scope)?;
                self.mark(&key, Usages::ORDER);
            }
        }
        if let Some(window) = constructor.over() {
            let over = self.window(window, scope)?;
            value.absorb(&over);
        }
        Ok(constructor.output())
    }
}
