//! The names that PostgreSQL gives outputs without one (its `FigureColname`).

use std::sync::Arc;

use pg_raw_parse::raw::{
    A_Expr_Kind, JsonExprOp, MinMaxOp, SQLValueFunctionOp, SubLinkType, XmlExprOp,
};
use pg_raw_parse::{Node, nodes};

use crate::select::ends_in_star;

/// The name that PostgreSQL gives an output without one (its `FigureColname`).
pub(crate) fn column_name(node: Node<'_>) -> Arc<str> {
    figure(node).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// The name, and whether it is a strong one that a cast leaves alone.
pub(crate) fn figure(node: Node<'_>) -> Option<(Arc<str>, bool)> {
    let mut node = node;
    let mut weak: Option<Arc<str>> = None;
    for _ in 0..10_000 {
        let strong = |name: &str| Some((Arc::from(name), true));
        return match node {
            Node::ColumnRef(column) => column
                .fields()
                .iter()
                .filter_map(|field| field.as_str())
                .next_back()
                .and_then(strong),
            Node::A_Indirection(expr) => {
                match expr.indirection().iter().filter_map(|step| step.as_str()).next_back() {
                    Some(name) => strong(name),
                    None => {
                        node = expr.arg();
                        continue;
                    }
                }
            }
            Node::FuncCall(call) => call
                .funcname()
                .iter()
                .filter_map(|name| name.as_str())
                .next_back()
                .and_then(strong),
            Node::A_Expr(expr) if expr.kind == A_Expr_Kind::AEXPR_NULLIF => strong("nullif"),
            Node::TypeCast(cast) => {
                let name = cast
                    .type_name()
                    .and_then(|name| name.names().iter().filter_map(nodes::String::sval).next_back());
                // The outermost cast's name stands if nothing stronger is inside.
                if weak.is_none() {
                    weak = name.map(Arc::from);
                }
                node = cast.arg();
                continue;
            }
            Node::CollateClause(clause) => {
                node = clause.arg();
                continue;
            }
            Node::GroupingFunc(_) => strong("grouping"),
            Node::MergeSupportFunc(_) => strong("merge_action"),
            Node::SubLink(link) => match link.sub_link_type {
                SubLinkType::EXISTS_SUBLINK => strong("exists"),
                SubLinkType::ARRAY_SUBLINK => strong("array"),
                SubLinkType::EXPR_SUBLINK => {
                    let Node::SelectStmt(mut select) = link.subselect() else {
                        return weak.map(|name| (name, false));
                    };
                    while let Some(left) = select.larg() {
                        select = left;
                    }
                    match select.target_list().first() {
                        Some(target) => match target.name() {
                            Some(name) => strong(name),
                            None => {
                                node = target.val();
                                if matches!(node, Node::ColumnRef(column) if ends_in_star(column.fields())) {
                                    return None;
                                }
                                continue;
                            }
                        },
                        None if !select.values_lists().is_empty() => strong("column1"),
                        None => None,
                    }
                }
                _ => None,
            },
            Node::CaseExpr(case) => match figure_shallow(case.defresult()) {
                Some(name) => strong(&name),
                None => Some((weak.clone().unwrap_or_else(|| "case".into()), false)),
            },
            Node::A_ArrayExpr(_) => strong("array"),
            Node::RowExpr(_) => strong("row"),
            Node::CoalesceExpr(_) => strong("coalesce"),
            Node::MinMaxExpr(expr) => strong(if expr.op == MinMaxOp::IS_GREATEST { "greatest" } else { "least" }),
            Node::SQLValueFunction(function) => strong(match function.op {
                SQLValueFunctionOp::SVFOP_CURRENT_DATE => "current_date",
                SQLValueFunctionOp::SVFOP_CURRENT_TIME | SQLValueFunctionOp::SVFOP_CURRENT_TIME_N => "current_time",
                SQLValueFunctionOp::SVFOP_CURRENT_TIMESTAMP | SQLValueFunctionOp::SVFOP_CURRENT_TIMESTAMP_N => {
                    "current_timestamp"
                }
                SQLValueFunctionOp::SVFOP_LOCALTIME | SQLValueFunctionOp::SVFOP_LOCALTIME_N => "localtime",
                SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP | SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP_N => "localtimestamp",
                SQLValueFunctionOp::SVFOP_CURRENT_ROLE => "current_role",
                SQLValueFunctionOp::SVFOP_CURRENT_USER => "current_user",
                SQLValueFunctionOp::SVFOP_USER => "user",
                SQLValueFunctionOp::SVFOP_SESSION_USER => "session_user",
                SQLValueFunctionOp::SVFOP_CURRENT_CATALOG => "current_catalog",
                _ => "current_schema",
            }),
            Node::XmlExpr(expr) => match expr.op {
                XmlExprOp::IS_XMLCONCAT => strong("xmlconcat"),
                XmlExprOp::IS_XMLELEMENT => strong("xmlelement"),
                XmlExprOp::IS_XMLFOREST => strong("xmlforest"),
                XmlExprOp::IS_XMLPARSE => strong("xmlparse"),
                XmlExprOp::IS_XMLPI => strong("xmlpi"),
                XmlExprOp::IS_XMLROOT => strong("xmlroot"),
                _ => None,
            },
            Node::XmlSerialize(_) => strong("xmlserialize"),
            Node::JsonParseExpr(_) => strong("json"),
            Node::JsonScalarExpr(_) => strong("json_scalar"),
            Node::JsonSerializeExpr(_) => strong("json_serialize"),
            Node::JsonObjectConstructor(_) => strong("json_object"),
            Node::JsonArrayConstructor(_) | Node::JsonArrayQueryConstructor(_) => strong("json_array"),
            Node::JsonFuncExpr(function) => strong(match function.op {
                JsonExprOp::JSON_EXISTS_OP => "json_exists",
                JsonExprOp::JSON_QUERY_OP => "json_query",
                JsonExprOp::JSON_VALUE_OP => "json_value",
                _ => "json_table",
            }),
            Node::JsonObjectAgg(_) => strong("json_objectagg"),
            Node::JsonArrayAgg(_) => strong("json_arrayagg"),
            _ => None,
        }
        .or_else(|| weak.clone().map(|name| (name, false)));
    }
    None
}

/// The strong name of a CASE's last branch, where it is a plain one.
pub(crate) fn figure_shallow(node: Node<'_>) -> Option<String> {
    match node {
        Node::ColumnRef(column) => column
            .fields()
            .iter()
            .filter_map(|field| field.as_str())
            .next_back()
            .map(str::to_owned),
        Node::FuncCall(call) => call
            .funcname()
            .iter()
            .filter_map(|name| name.as_str())
            .next_back()
            .map(str::to_owned),
        _ => None,
    }
}
