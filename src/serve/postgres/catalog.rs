//! What tools ask the catalog that the engine cannot plan and that has only one answer here: nobody was granted anything
//! apart, and no table has options of its storage.
//!
//! Only statements about `pg_catalog` are touched: in a question about the lake, a part that cannot be planned is an error.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Array, CastKind, DataType, Expr, FunctionArguments, Statement, Value, visit_expressions_mut,
};

/// Columns of `pg_class` and its like that hold grants and options.
const NOTHING_GRANTED: [&str; 6] = ["relacl", "attacl", "nspacl", "datacl", "reloptions", "setconfig"];

/// The number of `pg_class` in every Postgres.
const PG_CLASS: i32 = 1259;

/// Columns of `pg_index` and `pg_constraint` with the places of columns.
const KEYS: [&str; 6] = ["indkey", "indclass", "indoption", "indcollation", "conkey", "confkey"];

/// Puts the one answer in the place of what cannot be planned.
pub(super) fn simplify(statement: &mut Statement, text: &str) {
    if !text.contains("pg_") {
        return;
    }
    let _ = visit_expressions_mut(statement, |expression| {
        let answer = match expression {
            Expr::Function(function) => {
                let name = function.name.0.last().map(|part| part.to_string().to_lowercase());
                match (name.as_deref(), &function.args) {
                    // No table has keys: their columns are never expanded.
                    (Some("_pg_expandarray"), _) => Some(nothing(texts())),
                    (Some("generate_subscripts"), _) => Some(nothing(DataType::Int(None))),
                    (Some("pg_get_indexdef" | "pg_get_serial_sequence"), _) => Some(nothing(DataType::Text)),
                    (Some("unnest"), _) if KEYS.iter().any(|key| function.args.to_string().contains(key)) => {
                        Some(nothing(DataType::Int(None)))
                    }
                    (Some("array_to_string"), _) => Some(nothing(DataType::Text)),
                    (Some("array"), FunctionArguments::Subquery(_)) => Some(nothing(texts())),
                    _ => None,
                }
            }
            Expr::CompoundIdentifier(parts) => {
                let last = parts.last().map(|part| part.value.to_lowercase());
                let is_granted = last.is_some_and(|last| NOTHING_GRANTED.contains(&last.as_str()));
                is_granted.then(|| nothing(texts()))
            }
            // Defaults, identities and collations of columns, which SQLAlchemy asks for: there are none.
            Expr::Subquery(query) => {
                let text = query.to_string();
                match text.contains("json_build_object") || text.contains("pg_attrdef") {
                    true => Some(nothing(DataType::Text)),
                    false => text.contains("typcollation").then(|| nothing(DataType::Int(None))),
                }
            }
            // Only what `pg_class` lists is described; the name of that comes as a parameter, which is not known yet.
            Expr::BinaryOp { left, right, .. } if is_class(left) && !matches!(**right, Expr::Value(_)) => {
                **right = Expr::Value(Value::Number(PG_CLASS.to_string(), false).into());
                None
            }
            // A member of what the above has none of.
            Expr::CompoundFieldAccess { .. } if text.contains("_pg_expandarray") => {
                Some(Expr::Value(Value::Number("0".to_owned(), false).into()))
            }
            // Here the functions of types are shown by their names, and 0 stands for none.
            Expr::BinaryOp { left, right, .. } if is_function_of_type(left) && is_zero(right) => {
                **right = Expr::Value(Value::SingleQuotedString("-".to_owned()).into());
                None
            }
            Expr::Array(Array { elem, .. }) if elem.is_empty() => Some(nothing(texts())),
            _ => None,
        };
        if let Some(answer) = answer {
            *expression = answer;
        }
        ControlFlow::<()>::Continue(())
    });
}

fn texts() -> DataType {
    DataType::Array(datafusion::sql::sqlparser::ast::ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None))
}

/// Null of a type.
fn nothing(kind: DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::Null.into())),
        data_type: kind,
        array: false,
        format: None,
    }
}

fn is_class(expression: &Expr) -> bool {
    matches!(expression, Expr::CompoundIdentifier(names) if names.last().is_some_and(|name| name.value == "classoid"))
}

fn is_function_of_type(expression: &Expr) -> bool {
    let name = match expression {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    };
    name.is_some_and(|name| matches!(name.value.as_str(), "typreceive" | "typsend" | "typinput" | "typoutput"))
}

fn is_zero(expression: &Expr) -> bool {
    matches!(expression, Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number == "0"))
}
