//! Expressions: what a value derives from, and what else of it shows.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::Usages;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::{A_Expr_Kind, BoolExprType, SubLinkType, XmlExprOp};
use pg_raw_parse::{ConstValue, Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::builtin;
use crate::names::Scope;
use crate::value::{Col, Origin, Type, Value};

/// The text of a quoted constant, also behind a cast to text.
pub(crate) fn constant_text(node: Node<'_>) -> Option<String> {
    match node {
        Node::A_Const(constant) => match constant.val()? {
            ConstValue::String(text) => Some(text.to_owned()),
            _ => None,
        },
        Node::TypeCast(cast) => {
            let name = cast.type_name()?;
            let last = name.names().iter().next_back()?.sval()?;
            let Node::A_Const(constant) = cast.arg() else {
                return None;
            };
            match constant.val()? {
                ConstValue::String(text)
                    if builtin::is_text(last)
                        && name.array_bounds().is_empty()
                        && name.typmods().is_empty() =>
                {
                    Some(text.to_owned())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The value of an integer constant.
pub(crate) fn constant_integer(node: Node<'_>) -> Option<i64> {
    match node {
        Node::A_Const(constant) => match constant.val()? {
            ConstValue::Integer(number) => Some(i64::from(number)),
            ConstValue::Float(text) => text.parse().ok(),
            _ => None,
        },
        Node::A_Expr(expr)
            if expr.kind == A_Expr_Kind::AEXPR_OP && matches!(expr.lexpr(), Node::None) =>
        {
            let sign = expr.name().first().and_then(|name| name.as_str())?;
            (sign == "-")
                .then(|| constant_integer(expr.rexpr()))?
                .map(|n| -n)
        }
        _ => None,
    }
}

/// The last part of a name, and the schema before it.
pub(crate) fn split_name(names: &NodeList) -> (Option<Arc<str>>, Arc<str>) {
    let mut parts = names.iter().filter_map(|node| node.as_str());
    let mut schema = None;
    let mut name = parts.next().unwrap_or_default();
    for part in parts {
        schema = Some(name);
        name = part;
    }
    (schema.map(Arc::from), Arc::from(name))
}

pub(crate) fn is_null(node: Node<'_>) -> bool {
    matches!(node, Node::A_Const(constant) if constant.isnull)
}

impl Analyzer<'_> {
    /// [`Self::expr`], apart from what its constants are read as.
    pub(crate) fn any_expr(&mut self, node: Node<'_>, scope: &Scope<'_>) -> Res<Value> {
        let _level = self.depth.enter()?;
        match node {
            Node::None | Node::SetToDefault(_) => Ok(Value::constant(Type::Literal)),
            Node::ColumnRef(column) => self.column_ref(column.fields(), scope),
            Node::FuncCall(call)
                if self.session.version < 160_000
                    && call.args().is_empty()
                    && call
                        .funcname()
                        .iter()
                        .filter_map(|name| name.as_str())
                        .next_back()
                        == Some("system_user") =>
            {
                // A keyword since PostgreSQL 16, a column's name before.
                self.gap("system_user may mean a column here");
                Ok(Value::unknown())
            }
            Node::ParamRef(parameter) => {
                let number = u32::try_from(parameter.number).unwrap_or(u32::MAX);
                self.parameters = self.parameters.max(number);
                Ok(Value::bare())
            }
            Node::A_Const(constant) => Ok(match constant.val() {
                Some(ConstValue::Integer(_)) => Value::constant(Type::Builtin("int4")),
                Some(ConstValue::Float(_)) => Value::constant(Type::Builtin("numeric")),
                Some(ConstValue::Boolean(_)) => Value::constant(Type::Builtin("bool")),
                Some(ConstValue::BitString(_)) => Value::constant(Type::Builtin("bit")),
                Some(ConstValue::String(_)) => Value::bare(),
                _ => Value::constant(Type::Literal),
            }),
            Node::A_Expr(expr) => self.operator_expr(expr, scope),
            Node::BoolExpr(expr) => self.bool_expr(expr, scope),
            Node::TypeCast(cast) => self.type_cast(cast, scope),
            Node::FuncCall(call) => self.func_call(call, scope),
            Node::SubLink(link) => self.sub_link(link, scope),
            Node::CaseExpr(case) => self.case(case, scope),
            Node::CoalesceExpr(expr) => self.guarded_list(expr.args(), scope),
            Node::MinMaxExpr(expr) => self.all_of(expr.args(), scope),
            Node::A_Indirection(expr) => self.indirection(expr, scope),
            Node::A_ArrayExpr(expr) => {
                let mut value = Value::default();
                let mut builtin = true;
                for node in expr.elements() {
                    let part = self.expr(node, scope)?;
                    builtin &= matches!(part.ty, Type::Builtin(_) | Type::Literal);
                    value.absorb(&part);
                }
                Ok(value.derived(if builtin {
                    Type::Builtin("anyarray")
                } else {
                    Type::Unknown
                }))
            }
            Node::RowExpr(expr) => self.row(expr.args(), scope),
            Node::NullTest(test) => {
                let value = self.expr(test.arg(), scope)?;
                Ok(value.derived(Type::Builtin("bool")))
            }
            Node::BooleanTest(test) => {
                let value = self.expr(test.arg(), scope)?;
                Ok(value.derived(Type::Builtin("bool")))
            }
            Node::CollateClause(clause) => {
                let mut value = self.expr(clause.arg(), scope)?;
                value.origin = Origin::Computed;
                Ok(value)
            }
            Node::NamedArgExpr(argument) => self.expr(argument.arg(), scope),
            Node::SQLValueFunction(_) => Ok(Value::constant(Type::Unknown)),
            Node::GroupingFunc(function) => {
                let value = self.all_of(function.args(), scope)?;
                // It tells the grouping set, not a value.
                let _ = value;
                Ok(Value::constant(Type::Builtin("int4")))
            }
            Node::MergeSupportFunc(_) => {
                self.once_a_call("merge_action");
                Ok(Value::constant(Type::Builtin("text")))
            }
            Node::CurrentOfExpr(_) => {
                self.gap("WHERE CURRENT OF depends on a cursor");
                self.read_only = false;
                Ok(Value::unknown())
            }
            Node::XmlExpr(expr) => {
                let mut value = self.all_of(expr.args(), scope)?;
                let named = self.all_of(expr.named_args(), scope)?;
                value.absorb(&named);
                let mut value = value.derived(Type::Builtin("xml"));
                if !matches!(
                    expr.op,
                    XmlExprOp::IS_XMLELEMENT | XmlExprOp::IS_XMLFOREST | XmlExprOp::IS_XMLCONCAT
                ) {
                    self.risky(&mut value);
                }
                Ok(value)
            }
            Node::XmlSerialize(expr) => {
                let mut value = self.expr(expr.expr(), scope)?.derived(Type::Unknown);
                self.cast_target(expr.type_name(), Node::None, &mut value);
                self.risky(&mut value);
                Ok(value)
            }
            Node::ResTarget(target) => self.expr(target.val(), scope),
            Node::NodeList(list) => self.all_of(list, scope),
            Node::MultiAssignRef(assign) => self.expr(assign.source(), scope),
            other => self.json(other, scope),
        }
    }

    /// Everything in a list, as one value.
    pub(crate) fn all_of(&mut self, list: &NodeList, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::constant(Type::Unknown);
        let mut only = None;
        for (index, node) in list.iter().enumerate() {
            let part = self.expr(node, scope)?;
            value.absorb(&part);
            only = (index == 0).then_some(part.ty);
        }
        value.ty = only.unwrap_or_default();
        Ok(value)
    }

    /// Like [`Self::all_of`] where earlier values tell whether later ones are computed at all: if
    /// those can fail, the earlier ones show.
    fn guarded_list(&mut self, list: &NodeList, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::constant(Type::Unknown);
        let mut ty = Type::Literal;
        let mut observable = false;
        for (index, node) in list.iter().enumerate() {
            let part = self.expr(node, scope)?;
            if part.observable && index > 0 {
                observable = true;
            }
            if ty == Type::Literal {
                ty = part.ty;
            }
            value.absorb(&part);
        }
        if observable {
            self.risky(&mut value);
        }
        value.ty = ty;
        Ok(value)
    }

    fn bool_expr(&mut self, expr: &nodes::BoolExpr, scope: &Scope<'_>) -> Res<Value> {
        if expr.boolop == BoolExprType::NOT_EXPR {
            let value = self.all_of(expr.args(), scope)?;
            return Ok(value.derived(Type::Builtin("bool")));
        }
        // PostgreSQL may evaluate the parts in any order and stop early.
        let mut value = Value::default();
        let mut observable = 0;
        for node in expr.args() {
            let part = self.expr(node, scope)?;
            observable += usize::from(part.observable);
            value.absorb(&part);
        }
        if observable > 0 {
            self.risky(&mut value);
        }
        Ok(value.derived(Type::Builtin("bool")))
    }

    fn case(&mut self, case: &nodes::CaseExpr, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::default();
        let mut ty = Type::Literal;
        let subject = self.expr(case.arg(), scope)?;
        value.absorb(&subject);
        let has_subject = !matches!(case.arg(), Node::None);
        let mut observable = false;
        for node in case.args() {
            let Node::CaseWhen(when) = node else {
                self.gap("a CASE branch is not understood");
                return Ok(Value::unknown());
            };
            let condition = self.expr(when.expr(), scope)?;
            if has_subject {
                self.operator_by_name(None, "=", &subject, &condition);
            }
            let result = self.expr(when.result(), scope)?;
            observable |= condition.observable | result.observable;
            if ty == Type::Literal {
                ty = result.ty;
            }
            value.absorb(&condition);
            value.absorb(&result);
        }
        let otherwise = self.expr(case.defresult(), scope)?;
        observable |= otherwise.observable;
        if ty == Type::Literal {
            ty = otherwise.ty;
        }
        value.absorb(&otherwise);
        if observable {
            self.risky(&mut value);
        }
        Ok(value.derived(ty))
    }

    pub(crate) fn row(&mut self, list: &NodeList, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::constant(Type::Row);
        let mut parts = Vec::with_capacity(list.len());
        for node in list {
            let part = self.expr(node, scope)?;
            value.absorb(&part);
            let name = format!("f{}", parts.len() + 1);
            parts.push(Col::known(name.into(), part));
        }
        // `ROW(relation.*)` has more parts than are written.
        let starred = list.iter().any(|node| {
            matches!(node, Node::ColumnRef(column)
                if column.fields().iter().any(|field| matches!(field, Node::A_Star(_))))
        });
        if !starred {
            value.row = Some(Rc::new(parts));
        }
        Ok(value)
    }

    fn sub_link(&mut self, link: &nodes::SubLink, scope: &Scope<'_>) -> Res<Value> {
        let test = self.expr(link.testexpr(), scope)?;
        self.conditions.push(Vec::new());
        self.sublinks += 1;
        let columns = self.query(link.subselect(), Some(scope), &scope.ctes);
        self.sublinks -= 1;
        let conditions = self.conditions.pop().unwrap_or_default();
        if let Some(outer) = self.conditions.last_mut() {
            crate::value::merge(outer, &conditions);
        }
        let columns = columns?;
        let mut value = Value::default();
        crate::value::merge(&mut value.fields, &conditions);
        // A query in a branch takes its time, or not.
        value.observable = true;
        let mut ty = Type::Unknown;
        if link.sub_link_type == SubLinkType::EXISTS_SUBLINK {
            for col in columns.list.iter() {
                let part = self.col_value(col);
                value.observable |= part.observable;
            }
            return Ok(value.derived(Type::Builtin("bool")));
        }
        let mut single = None;
        for col in columns.list.iter() {
            let part = self.col_value(col);
            if single.is_none() {
                ty = part.ty;
            }
            single = Some(part.clone());
            value.absorb(&part);
        }
        if columns.more == crate::value::More::Unknown {
            value.absorb(&Value::unknown());
        }
        match link.sub_link_type {
            SubLinkType::EXPR_SUBLINK => {
                // More than one row is an error: which rows match then shows.
                self.mark_fields(&conditions, Usages::OTHER);
                if let Some(only) = single
                    && columns.list.len() == 1
                {
                    let exact = only.exact && value.fields.len() == 1 && conditions.is_empty();
                    let row = only.row.clone();
                    let mut value = value.derived(only.ty);
                    value.exact = exact;
                    value.row = row;
                    return Ok(value);
                }
                Ok(value.derived(ty))
            }
            SubLinkType::ARRAY_SUBLINK => Ok(value.derived(match ty {
                Type::Builtin(_) | Type::Literal => Type::Builtin("anyarray"),
                _ => Type::Unknown,
            })),
            SubLinkType::ANY_SUBLINK | SubLinkType::ALL_SUBLINK => {
                let (schema, name) = split_name(link.oper_name());
                let name: &str = if name.is_empty() { "=" } else { &name };
                let inner = value.clone().derived(ty);
                let result = self.operator_by_name(schema.as_deref(), name, &test, &inner);
                value.absorb(&test);
                value.absorb(&result);
                Ok(value.derived(Type::Builtin("bool")))
            }
            _ => {
                value.absorb(&test);
                let mut value = value.derived(Type::Unknown);
                self.risky(&mut value);
                Ok(value)
            }
        }
    }

    fn indirection(&mut self, expr: &nodes::A_Indirection, scope: &Scope<'_>) -> Res<Value> {
        let base = expr.arg();
        let mut value = self.expr(base, scope)?;
        let plain = matches!(base, Node::ColumnRef(_));
        for (index, step) in expr.indirection().iter().enumerate() {
            match step {
                Node::A_Indices(indices) => {
                    for node in [indices.lidx(), indices.uidx()] {
                        let at = self.expr(node, scope)?;
                        value.absorb(&at);
                    }
                    value = match value.ty {
                        Type::Builtin("anyarray") => value.derived(Type::Builtin("any")),
                        Type::Builtin("jsonb") => value.derived(Type::Builtin("jsonb")),
                        _ => value.derived(Type::Unknown),
                    };
                }
                Node::String(name) => {
                    let name: Arc<str> = Arc::from(name.sval().unwrap_or_default());
                    value = self.select_field(value, &name, plain && index == 0)?;
                }
                Node::A_Star(_) => {
                    value = value.derived(Type::Row);
                }
                _ => {
                    self.gap("a subscript is not understood");
                    return Ok(Value::unknown());
                }
            }
        }
        Ok(value)
    }

    /// `(value).name`: a part of a row, or a function of it.
    pub(crate) fn select_field(
        &mut self,
        value: Value,
        name: &Arc<str>,
        keep_origin: bool,
    ) -> Res<Value> {
        if let Some(row) = value.row.clone() {
            let mut found = row.iter().filter(|col| col.name == *name);
            if let (Some(col), None) = (found.next(), found.next()) {
                let mut part = self.col_value(col);
                part.observable |= value.observable;
                if !keep_origin {
                    part.origin = Origin::Computed;
                }
                return Ok(part);
            }
            return self.call_by_name(&[Arc::clone(name)], &[value], false);
        }
        if !self.catalog.functions_named(name).is_empty() || value.ty == Type::Row {
            return self.call_by_name(&[Arc::clone(name)], &[value], false);
        }
        // A part of a row whose parts are not known; at worst a builtin function of that name.
        let mut value = value.derived(Type::Unknown);
        if builtin::function(name).is_some() {
            self.risky(&mut value);
        }
        Ok(value)
    }

    fn operator_expr(&mut self, expr: &nodes::A_Expr, scope: &Scope<'_>) -> Res<Value> {
        let (schema, name) = split_name(expr.name());
        let left = self.expr(expr.lexpr(), scope)?;
        let pattern = expr.rexpr();
        match expr.kind {
            A_Expr_Kind::AEXPR_OP => {
                if let (Node::RowExpr(a), Node::RowExpr(b)) = (expr.lexpr(), pattern)
                    && a.args().len() == b.args().len()
                    && left.row.is_some()
                {
                    return self.row_compare(schema.as_deref(), &name, a.args(), b.args(), scope);
                }
                let right = self.expr(pattern, scope)?;
                self.apply(schema.as_deref(), &name, &left, &right, pattern)
            }
            A_Expr_Kind::AEXPR_OP_ANY | A_Expr_Kind::AEXPR_OP_ALL => {
                let mut right = self.expr(pattern, scope)?;
                right.ty = match right.ty {
                    Type::Builtin(_) => Type::Builtin("any"),
                    Type::Literal => Type::Literal,
                    _ => Type::Unknown,
                };
                self.apply(schema.as_deref(), &name, &left, &right, Node::None)
            }
            A_Expr_Kind::AEXPR_DISTINCT | A_Expr_Kind::AEXPR_NOT_DISTINCT => {
                let right = self.expr(pattern, scope)?;
                self.apply(schema.as_deref(), "=", &left, &right, pattern)
            }
            A_Expr_Kind::AEXPR_NULLIF => {
                let right = self.expr(pattern, scope)?;
                let mut value = self.apply(None, "=", &left, &right, pattern)?;
                value.ty = left.ty;
                Ok(value)
            }
            A_Expr_Kind::AEXPR_IN => {
                let mut value = left.clone();
                if let Node::NodeList(list) = pattern {
                    for node in list {
                        let right = self.expr(node, scope)?;
                        let part = self.apply(schema.as_deref(), &name, &left, &right, node)?;
                        value.absorb(&part);
                    }
                } else {
                    let right = self.expr(pattern, scope)?;
                    let part = self.apply(schema.as_deref(), &name, &left, &right, pattern)?;
                    value.absorb(&part);
                }
                Ok(value.derived(Type::Builtin("bool")))
            }
            A_Expr_Kind::AEXPR_LIKE | A_Expr_Kind::AEXPR_ILIKE => {
                // With ESCAPE the pattern is a call of like_escape.
                let right = self.expr(pattern, scope)?;
                self.apply(schema.as_deref(), &name, &left, &right, pattern)
            }
            A_Expr_Kind::AEXPR_SIMILAR => {
                let right = self.expr(pattern, scope)?;
                let mut value = self.apply(schema.as_deref(), &name, &left, &right, Node::None)?;
                self.risky(&mut value);
                Ok(value)
            }
            A_Expr_Kind::AEXPR_BETWEEN
            | A_Expr_Kind::AEXPR_NOT_BETWEEN
            | A_Expr_Kind::AEXPR_BETWEEN_SYM
            | A_Expr_Kind::AEXPR_NOT_BETWEEN_SYM => {
                let mut value = left.clone();
                let Node::NodeList(list) = pattern else {
                    self.gap("a BETWEEN is not understood");
                    return Ok(Value::unknown());
                };
                for node in list {
                    let right = self.expr(node, scope)?;
                    for name in [">=", "<="] {
                        let part = self.apply(None, name, &left, &right, Node::None)?;
                        value.absorb(&part);
                    }
                }
                Ok(value.derived(Type::Builtin("bool")))
            }
            _ => {
                self.gap("an operator is not understood");
                Ok(Value::unknown())
            }
        }
    }

    /// Two written rows are compared part by part.
    fn row_compare(
        &mut self,
        schema: Option<&str>,
        name: &str,
        left: &NodeList,
        right: &NodeList,
        scope: &Scope<'_>,
    ) -> Res<Value> {
        let mut value = Value::default();
        for (a, b) in left.iter().zip(right.iter()) {
            let a = self.expr(a, scope)?;
            let right = self.expr(b, scope)?;
            let part = self.apply(schema, name, &a, &right, b)?;
            value.absorb(&part);
        }
        if value.observable {
            self.risky(&mut value);
        }
        Ok(value.derived(Type::Builtin("bool")))
    }

    /// An operator on two values; `pattern` is the right side as written.
    fn apply(
        &mut self,
        schema: Option<&str>,
        name: &str,
        left: &Value,
        right: &Value,
        pattern: Node<'_>,
    ) -> Res<Value> {
        let mut value = self.operator_by_name(schema, name, left, right);
        let total = match builtin::operator(name) {
            Some(builtin::Operator::Total) => true,
            Some(builtin::Operator::Like) => {
                constant_text(pattern).is_some_and(|pattern| builtin::plain_like(&pattern))
            }
            Some(builtin::Operator::Regex) => {
                constant_text(pattern).is_some_and(|pattern| builtin::plain_regex(&pattern))
            }
            Some(builtin::Operator::Concat) => {
                let text = |ty| matches!(ty, Type::Builtin(name) if builtin::is_text(name));
                let plain = |ty| match ty {
                    Type::Literal => true,
                    Type::Builtin(name) => !matches!(
                        name,
                        "json"
                            | "jsonb"
                            | "tsvector"
                            | "tsquery"
                            | "bytea"
                            | "bit"
                            | "varbit"
                            | "any"
                            | "anyarray"
                    ),
                    _ => false,
                };
                value.ty = Type::Builtin("text");
                (text(left.ty) && plain(right.ty)) || (text(right.ty) && plain(left.ty))
            }
            _ => false,
        };
        if !total || left.observable || right.observable {
            let observable = !total || value.observable;
            value.observable = observable;
            if observable {
                self.risky(&mut value);
            }
        }
        Ok(value)
    }
}
