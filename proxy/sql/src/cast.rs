//! Casts: what a value becomes, and whose code may run on the way.

use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::builtin;
use crate::expression::is_null;
use crate::from::Meant;
use crate::names::Scope;
use crate::value::{Type, Value};

impl Analyzer<'_> {
    pub(crate) fn type_cast(&mut self, cast: &nodes::TypeCast, scope: &Scope<'_>) -> Res<Value> {
        let literal = matches!(cast.arg(), Node::A_Const(_) | Node::ParamRef(_));
        let source = self.expr(cast.arg(), scope)?;
        let source_type = source.ty;
        let mut value = source.derived(Type::Unknown);
        value.observable &= !literal;
        let Some((target, modified)) = self.cast_target(cast.type_name(), cast.arg(), &mut value)
        else {
            return Ok(value);
        };
        // A cast that somebody made may stand in for PostgreSQL's own.
        if self.user_cast(source_type, target) {
            self.gap("a cast that is not PostgreSQL's own is used");
            value.absorb(&Value::unknown());
        }
        let total = literal
            || (builtin::is_text(target) && target != "char")
            || source_type == Type::Builtin(target) && !modified
            || matches!(
                (source_type, target),
                (Type::Builtin("date"), "timestamp")
                    | (Type::Builtin("timestamp" | "timestamptz"), "date" | "time")
                    | (
                        Type::Builtin("int2"),
                        "int4" | "int8" | "numeric" | "float8"
                    )
                    | (Type::Builtin("int4"), "int8" | "numeric" | "float8")
                    | (Type::Builtin("int8"), "numeric" | "float8")
                    | (Type::Builtin("json"), "jsonb")
                    | (Type::Builtin("jsonb"), "json")
            ) && !modified;
        if !total {
            self.risky(&mut value);
        }
        Ok(value)
    }

    /// Resolves the target of a cast of `argument`, if one is written, and sets the value's type.
    /// `None` when it is not a builtin type; what has to be said is said then.
    pub(crate) fn cast_target(
        &mut self,
        name: Option<&nodes::TypeName>,
        argument: Node<'_>,
        value: &mut Value,
    ) -> Option<(&'static str, bool)> {
        let Some(name) = name else {
            value.absorb(&Value::unknown());
            return None;
        };
        let names: Vec<&str> = name
            .names()
            .iter()
            .filter_map(nodes::String::sval)
            .collect();
        let modified = !name.typmods().is_empty();
        let array = !name.array_bounds().is_empty();
        let plain = !(array || modified || name.pct_type || name.setof);
        let last = names.last().copied().unwrap_or_default();
        match self.find_type(&names) {
            Type::Builtin(found) => {
                if array || name.pct_type || name.setof {
                    value.ty = Type::Unknown;
                    self.risky(value);
                    return None;
                }
                value.ty = Type::Builtin(found);
                Some((found, modified))
            }
            // NULL as a relation's row. Any other constant is read, part by part.
            Type::Row if is_null(argument) && plain && self.is_plain_row(&names) => {
                value.ty = Type::User(0);
                value.observable = true;
                None
            }
            found @ Type::User(1..) if plain && !self.user_cast(value.ty, last) => {
                // Through text: what is none of its words is an error that shows it.
                self.risky(value);
                value.ty = found;
                None
            }
            _ => {
                let shown = names.join(".");
                self.gap(&format!("type {shown} is not PostgreSQL's own"));
                value.ty = Type::User(0);
                value.absorb(&Value::unknown());
                None
            }
        }
    }

    /// Whether making a relation's rows runs nobody's code.
    fn is_plain_row(&self, names: &[&str]) -> bool {
        let meant = match names {
            [name] => self.find_relation(None, name),
            [schema, name] | [_, schema, name] => self.find_relation(Some(schema), name),
            _ => Meant::Nothing,
        };
        let Meant::Relation(relation) = meant else {
            return false;
        };
        let mut types = relation.columns.iter().map(|column| &column.type_ref);
        types.all(|type_ref| type_ref.is_builtin() || self.catalog.is_enum(type_ref))
    }
}
