//! Functions, operators, types and casts: which one is meant, and whether it is trusted.

use std::sync::Arc;

use chaperone_contract::{Actions, Labels, Usages};
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res, Trust};
use crate::builtin::{self, Builtin};
use crate::catalog::{Function, TypeRef};
use crate::expression::{constant_integer, constant_text};
use crate::names::Scope;
use crate::value::{Type, Value};

/// Whether a parameter of type `wanted` could take a value of type `given`.
fn could_take(wanted: &TypeRef, given: Type, implicit: &dyn Fn(&str, &TypeRef) -> bool) -> bool {
    match given {
        Type::Unknown | Type::Literal | Type::User(0) | Type::Row => true,
        Type::User(_) => {
            // Polymorphic parameters and its own; or another type that a cast leads to.
            if wanted.is_builtin() {
                &*wanted.name == "record" || wanted.name.starts_with("any") || implicit("", wanted)
            } else {
                crate::value::user_type(wanted) == given || implicit("", wanted)
            }
        }
        Type::Builtin(name) => {
            if wanted.is_builtin() {
                // Polymorphic parameters, and whatever builtin casts reach.
                true
            } else {
                implicit(name, wanted)
            }
        }
    }
}

impl Analyzer<'_> {
    fn implicit_cast(&self, from: &str, to: &TypeRef) -> bool {
        self.catalog.casts.iter().any(|cast| {
            // Without a name any user's type may be the source.
            let source = if from.is_empty() {
                !cast.source.is_builtin()
            } else {
                &*cast.source.name == from
            };
            cast.implicit && source && cast.target == *to
        })
    }

    /// Whether a cast that is not PostgreSQL's own could apply.
    pub(crate) fn user_cast(&self, from: Type, to: &str) -> bool {
        self.catalog.casts.iter().any(|cast| {
            &*cast.target.name == to
                && match from {
                    Type::Builtin(name) => &*cast.source.name == name,
                    Type::Literal => false,
                    _ => true,
                }
        })
    }

    /// The type of a catalog column.
    pub(crate) fn type_of(&self, type_ref: &TypeRef) -> Type {
        if !type_ref.is_builtin() {
            return crate::value::user_type(type_ref);
        }
        if type_ref.name.starts_with('_') {
            // Arrays of builtin types: no user's operator is meant for those alone.
            return Type::Builtin("anyarray");
        }
        builtin::type_name(&type_ref.name).map_or(Type::Unknown, Type::Builtin)
    }

    /// What a type name means. [`Type::Row`] is a relation's row type; a user's type that is told
    /// apart is an enum.
    pub(crate) fn find_type(&self, names: &[&str]) -> Type {
        let (schema, name) = match names {
            [name] => (None, *name),
            [schema, name] | [_, schema, name] => (Some(*schema), *name),
            _ => return Type::Unknown,
        };
        let user = |schema: &str| {
            let known = self.catalog.types.get(name)?;
            known.iter().find(|known| &*known.schema == schema)
        };
        let look = |schema: &str| -> Option<Type> {
            if let Some(known) = user(schema) {
                return Some(if known.is_enum {
                    crate::value::user_type(&TypeRef {
                        schema: Arc::clone(&known.schema),
                        name: name.into(),
                    })
                } else {
                    Type::User(0)
                });
            }
            if schema == "pg_catalog" {
                return builtin::type_name(name).map(Type::Builtin);
            }
            self.catalog.relation(schema, name).map(|_| Type::Row)
        };
        if let Some(schema) = schema {
            let schema = if schema == "pg_temp" {
                self.session.temp_schema.as_deref().unwrap_or(schema)
            } else {
                schema
            };
            return look(schema).unwrap_or_default();
        }
        let path = self.path.clone();
        path.iter()
            .find_map(|schema| look(schema))
            .unwrap_or_default()
    }

    pub(crate) fn func_call(&mut self, call: &nodes::FuncCall, scope: &Scope<'_>) -> Res<Value> {
        let names: Vec<Arc<str>> = call
            .funcname()
            .iter()
            .filter_map(|node| node.as_str())
            .map(Arc::from)
            .collect();
        let mut arguments = Vec::with_capacity(call.args().len());
        for node in call.args() {
            arguments.push(self.expr(node, scope)?);
        }
        let mut value = self.call(&names, &arguments, Some(call))?;
        let mut extra = Value::default();
        for sort in call.agg_order() {
            let key = self.expr(sort.node(), scope)?;
            self.sort_operator(sort, &key);
            if !call.agg_within_group {
                self.mark(&key, Usages::ORDER);
            }
            extra.absorb(&key);
        }
        if call.agg_within_group {
            // The ordering's values are what an ordered-set aggregate picks from.
            value.absorb(&extra);
            if !matches!(names.last().map(|name| &**name), Some("mode")) {
                self.risky(&mut value);
            }
        }
        if !matches!(call.agg_filter(), Node::None) {
            let filter = self.expr(call.agg_filter(), scope)?;
            self.mark(&filter, Usages::PREDICATE);
            value.absorb(&filter);
        }
        if call.agg_distinct {
            for argument in &arguments {
                self.mark(argument, Usages::GROUP);
            }
        }
        if let Some(window) = call.over() {
            let over = self.window(window, scope)?;
            value.absorb(&over);
        }
        Ok(value)
    }

    /// What a window's clauses add to the value computed over it.
    pub(crate) fn window(&mut self, window: &nodes::WindowDef, scope: &Scope<'_>) -> Res<Value> {
        let mut value = Value::default();
        for node in window.partition_clause() {
            let key = self.expr(node, scope)?;
            self.mark(&key, Usages::GROUP);
            value.absorb(&key);
        }
        for sort in window.order_clause() {
            let key = self.expr(sort.node(), scope)?;
            self.sort_operator(sort, &key);
            self.mark(&key, Usages::ORDER);
            value.absorb(&key);
        }
        for node in [window.start_offset(), window.end_offset()] {
            let bound = self.expr(node, scope)?;
            self.mark(&bound, Usages::OTHER);
            value.absorb(&bound);
        }
        Ok(value)
    }

    /// `ORDER BY x USING operator`.
    pub(crate) fn sort_operator(&mut self, sort: &nodes::SortBy, key: &Value) {
        if !sort.use_op().is_empty() {
            let (schema, name) = crate::expression::split_name(sort.use_op());
            self.operator_by_name(schema.as_deref(), &name, key, key);
        }
    }

    /// A call written as `value.name`.
    pub(crate) fn call_by_name(
        &mut self,
        names: &[Arc<str>],
        arguments: &[Value],
        _from: bool,
    ) -> Res<Value> {
        self.call(names, arguments, None)
    }

    fn call(
        &mut self,
        names: &[Arc<str>],
        arguments: &[Value],
        written: Option<&nodes::FuncCall>,
    ) -> Res<Value> {
        let mut value = Value::default();
        for argument in arguments {
            value.absorb(argument);
        }
        let found = self.find_function(names, arguments);
        let mut value = match found {
            Found::Builtin(function) => {
                self.note_function("pg_catalog", function.name);
                // What PostgreSQL's own functions make of its own types is of its own types.
                let own = arguments
                    .iter()
                    .all(|given| matches!(given.ty, Type::Builtin(_) | Type::Literal));
                let result = match builtin::type_name(function.result) {
                    Some(name) => Type::Builtin(name),
                    None if own => Type::Builtin("any"),
                    None => Type::Unknown,
                };
                let mut value = value.derived(result);
                if let Some(why) = value.checked.clone()
                    && function.name.contains("populate_record")
                {
                    // Its parts are read from text.
                    value.reads = Some(why);
                }
                if function.flags.contains(Builtin::SET) {
                    // The number of rows tells.
                    self.risky(&mut value);
                }
                if function
                    .flags
                    .intersects(Builtin::VOLATILE | Builtin::EFFECT)
                {
                    self.volatile = true;
                    value.observable = true;
                }
                if function.flags.contains(Builtin::EFFECT) {
                    self.read_only = false;
                    self.risky(&mut value);
                }
                let total = function.flags.contains(Builtin::TOTAL)
                    || written.is_some_and(|call| total_as_written(function.name, call, arguments));
                if !total || value.observable {
                    self.risky(&mut value);
                }
                if matches!(
                    function.name,
                    "min"
                        | "max"
                        | "lag"
                        | "lead"
                        | "first_value"
                        | "last_value"
                        | "any_value"
                        | "mode"
                ) && let Some(first) = arguments.first()
                {
                    value.ty = first.ty;
                }
                value
            }
            Found::User(function, trust) => {
                self.note_function(&function.schema.clone(), &function.name.clone());
                let labels = match trust {
                    Some(_) => Labels::CLEAR,
                    None => Labels::Unknown,
                };
                self.named_object(
                    "function",
                    vec![function.schema.to_string(), function.name.to_string()],
                    Actions::EXECUTE,
                    labels,
                );
                if function.volatile || trust.is_none() {
                    self.read_only = false;
                    self.volatile = true;
                }
                if trust.is_none() {
                    self.untrusted = true;
                }
                for type_ref in &function.arguments {
                    self.makes(type_ref);
                }
                match trust {
                    None => {
                        self.gap(&format!(
                            "function {}.{} is not on the allow-list",
                            function.schema, function.name
                        ));
                        let mut value = value.derived(Type::Unknown);
                        self.risky(&mut value);
                        value.absorb(&Value::unknown());
                        value
                    }
                    Some(Trust::Derived) => {
                        let mut value = value.derived(Type::Unknown);
                        self.risky(&mut value);
                        value
                    }
                    Some(Trust::Clear) => {
                        self.risky(&mut value);
                        let mut value = Value::constant(Type::Unknown);
                        value.observable = true;
                        value
                    }
                }
            }
            Found::Nothing => {
                // `column(relation)` is a way to write `relation.column`.
                if let ([name], [argument]) = (names, arguments)
                    && let Some(row) = argument.row.clone()
                    && let Some(col) = row.iter().find(|col| col.name == *name)
                {
                    let mut value = self.col_value(col);
                    value.origin = crate::value::Origin::Unpredictable;
                    return Ok(value);
                }
                self.read_only = false;
                self.volatile = true;
                self.untrusted = true;
                self.gap(&format!(
                    "function {} is not on the allow-list",
                    names.join(".")
                ));
                self.note_function(
                    names.iter().rev().nth(1).map_or("", |schema| schema),
                    names.last().map_or("", |name| name),
                );
                let mut value = value.derived(Type::Unknown);
                self.risky(&mut value);
                value.absorb(&Value::unknown());
                value
            }
        };
        value.row = None;
        Ok(value)
    }

    fn trust(&self, function: &Function) -> Option<Trust> {
        self.options
            .trusted_functions
            .get(&format!("{}.{}", function.schema, function.name))
            .copied()
    }

    /// Which function a call means.
    pub(crate) fn find_function(&self, names: &[Arc<str>], arguments: &[Value]) -> Found {
        let (schema, name) = match names {
            [name] => (None, name),
            [schema, name] | [_, schema, name] => (Some(&**schema), name),
            _ => return Found::Nothing,
        };
        let schema = schema.map(|schema| {
            if schema == "pg_temp" {
                self.session.temp_schema.as_deref().unwrap_or(schema)
            } else {
                schema
            }
        });
        let implicit = |from: &str, to: &TypeRef| self.implicit_cast(from, to);
        let candidates: Vec<&Function> = self
            .catalog
            .functions_named(name)
            .iter()
            .filter(|function| schema.is_none_or(|schema| &*function.schema == schema))
            .filter(|function| {
                function.flexible
                    || (function.arguments.len() == arguments.len()
                        && function
                            .arguments
                            .iter()
                            .zip(arguments)
                            .all(|(wanted, given)| could_take(wanted, given.ty, &implicit)))
            })
            .collect();
        let builtin = match schema {
            None | Some("pg_catalog") => builtin::function(name),
            Some(_) => None,
        };
        // Any that is not trusted decides; otherwise the strictest trust.
        if let Some(function) = candidates
            .iter()
            .find(|function| self.trust(function).is_none())
        {
            return Found::User(Function::clone(function), None);
        }
        if let Some(function) = candidates.first() {
            let derived = builtin.is_some()
                || candidates
                    .iter()
                    .any(|function| self.trust(function) == Some(Trust::Derived));
            let trust = if derived {
                Trust::Derived
            } else {
                Trust::Clear
            };
            return Found::User(Function::clone(function), Some(trust));
        }
        builtin.map_or(Found::Nothing, Found::Builtin)
    }

    pub(crate) fn note_function(&mut self, schema: &str, name: &str) {
        let full = if schema.is_empty() {
            name.to_owned()
        } else {
            format!("{schema}.{name}")
        };
        let _ = self.depth.spend(self.functions.len());
        if !self.functions.contains(&full) {
            self.functions.push(full);
        }
    }

    /// What an operator on two values derives from; says so when it is not trusted.
    pub(crate) fn operator_by_name(
        &mut self,
        schema: Option<&str>,
        name: &str,
        left: &Value,
        right: &Value,
    ) -> Value {
        let mut value = left.clone();
        value.absorb(right);
        self.settle_constants(&mut value);
        let mut value = value.derived(Type::Unknown);
        let implicit = |from: &str, to: &TypeRef| self.implicit_cast(from, to);
        let meant = self
            .catalog
            .operators_named(name)
            .iter()
            .filter(|operator| schema.is_none_or(|schema| &*operator.schema == schema))
            .find(|operator| {
                let fits = |wanted: &Option<TypeRef>, given: Type| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| could_take(wanted, given, &implicit))
                };
                let exact = |wanted: &Option<TypeRef>| {
                    wanted.as_ref().is_none_or(|wanted| !wanted.is_builtin())
                };
                // Two literals, or a literal beside a builtin value, never mean a user's type
                // unless a cast leads there; a user's operator on builtin types always may.
                let literals = matches!(left.ty, Type::Literal | Type::Builtin(_))
                    && matches!(right.ty, Type::Literal | Type::Builtin(_))
                    && exact(&operator.left)
                    && exact(&operator.right);
                let reached = |wanted: &Option<TypeRef>, given: Type| match (wanted, given) {
                    (Some(wanted), Type::Builtin(name)) => implicit(name, wanted),
                    (Some(_), Type::Literal) => {
                        left.ty == Type::Literal && right.ty == Type::Literal
                    }
                    _ => true,
                };
                fits(&operator.left, left.ty)
                    && fits(&operator.right, right.ty)
                    && (!literals
                        || (reached(&operator.left, left.ty) && reached(&operator.right, right.ty)))
            });
        if let Some(operator) = meant {
            let text = format!(
                "operator {}.{} is not PostgreSQL's own",
                operator.schema, operator.name
            );
            self.gap(&text);
            self.read_only = false;
            self.untrusted = true;
            value.absorb(&Value::unknown());
            return value;
        }
        let known =
            matches!(schema, None | Some("pg_catalog")) && builtin::operator(name).is_some();
        if !known {
            self.gap(&format!("operator {name} is not on the allow-list"));
            self.read_only = false;
            self.untrusted = true;
            value.absorb(&Value::unknown());
            return value;
        }
        if builtin::is_condition(name) {
            value.ty = Type::Builtin("bool");
        }
        if matches!(name, "->>" | "#>>") {
            value.ty = Type::Builtin("text");
        }
        if matches!(name, "->" | "#>") {
            value.ty = left.ty;
        }
        value
    }
}

/// What a call means.
#[derive(Debug)]
pub(crate) enum Found {
    /// A trusted function of PostgreSQL's own.
    Builtin(builtin::Function),
    /// Somebody's, trusted or not.
    User(Function, Option<Trust>),
    /// Nothing that is known.
    Nothing,
}

/// Functions that cannot fail when called as they are here: with constants in some places.
fn total_as_written(name: &str, call: &nodes::FuncCall, arguments: &[Value]) -> bool {
    let argument = |index: usize| call.args().get(index).unwrap_or(Node::None);
    let text = |index: usize| constant_text(argument(index));
    let count = arguments.len();
    if call.func_variadic {
        return false;
    }
    let is_date = |index: usize| {
        matches!(
            arguments.get(index).map(|argument| argument.ty),
            Some(Type::Builtin("date" | "timestamp" | "timestamptz"))
        )
    };
    match name {
        "substr" | "substring" => match count {
            2 => constant_integer(argument(1)).is_some(),
            3 => {
                constant_integer(argument(1)).is_some()
                    && constant_integer(argument(2)).is_some_and(|length| length >= 0)
            }
            _ => false,
        },
        "split_part" => count == 3 && constant_integer(argument(2)).is_some_and(|part| part != 0),
        "encode" => {
            text(1).is_some_and(|form| matches!(form.as_str(), "hex" | "base64" | "escape"))
        }
        "convert_to" => {
            text(1).is_some_and(|form| matches!(form.as_str(), "UTF8" | "utf8" | "UTF-8"))
        }
        "format" => text(0).is_some_and(|form| plain_format(&form, count)),
        "regexp_match"
        | "regexp_matches"
        | "regexp_split_to_array"
        | "regexp_split_to_table"
        | "regexp_like"
        | "regexp_substr" => {
            count == 2 && text(1).is_some_and(|pattern| builtin::plain_regex(&pattern))
        }
        "regexp_replace" => {
            (count == 3 || (count == 4 && text(3).is_some_and(|flags| flags == "g")))
                && text(1).is_some_and(|pattern| builtin::plain_regex(&pattern))
                && text(2).is_some_and(|replacement| !replacement.contains('\\'))
        }
        "json_build_object" | "jsonb_build_object" => {
            count.is_multiple_of(2) && (0..count).step_by(2).all(|index| text(index).is_some())
        }
        "json_object_agg" | "jsonb_object_agg" => text(0).is_some(),
        "to_char" => text(1).is_some() && is_date(0),
        "date_part" | "extract" | "date_trunc" => {
            is_date(1)
                && text(0).is_some_and(|unit| {
                    matches!(
                        unit.to_ascii_lowercase().as_str(),
                        "year" | "month" | "day" | "quarter" | "week" | "decade" | "century"
                    ) || (name != "date_trunc"
                        && matches!(unit.as_str(), "dow" | "doy" | "isodow" | "isoyear"))
                })
        }
        "lpad" | "rpad" => constant_integer(argument(1)).is_some_and(|length| length <= 10_000),
        "sum" | "avg" => matches!(
            arguments.first().map(|argument| argument.ty),
            Some(Type::Builtin("int2" | "int4" | "int8" | "numeric"))
        ),
        _ => false,
    }
}

/// A format string of `%s` and `%%` alone, with an argument for each.
fn plain_format(form: &str, count: usize) -> bool {
    let mut chars = form.chars();
    let mut wanted = 1;
    while let Some(c) = chars.next() {
        if c == '%' {
            match chars.next() {
                Some('s') => wanted += 1,
                Some('%') => {}
                _ => return false,
            }
        }
    }
    wanted <= count
}
