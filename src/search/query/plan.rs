//! Conditions → an expression of the engine, in which values are literals and nothing else.

use datafusion::common::ScalarValue;
use datafusion::functions_nested::expr_fn::{
    array_has, array_has_any, array_max, array_min, array_to_string, cardinality, make_array,
};
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{col, concat, lower, regexp_like, replace};

use super::compile::{Comparison, Condition, Constant, Fold, Measure, SEPARATOR, SIGMAS, Text};

pub(super) fn expression(condition: &Condition) -> Expr {
    match condition {
        Condition::Always(holds) => lit(*holds),
        Condition::All(parts) => balanced(parts, Expr::and),
        Condition::Any(parts) => balanced(parts, Expr::or),
        Condition::Missing(column) => col(*column).is_null(),
        Condition::Present(column) => col(*column).is_not_null(),
        Condition::Filled(column) => cardinality(col(*column)).gt(lit(0_u64)),
        Condition::Empty(column) => col(*column).is_null().or(cardinality(col(*column)).eq(lit(0_u64))),
        Condition::In { text, values, negated } => is_in(self::text(*text), values.iter().map(lit).collect(), *negated),
        Condition::Like { text, pattern, negated: false } => self::text(*text).like(lit(pattern)),
        Condition::Like { text, pattern, negated: true } => self::text(*text).not_like(lit(pattern)),
        Condition::Matches { text, regular, negated } => {
            not_if(*negated, regexp_like(self::text(*text), lit(regular), None))
        }
        Condition::Has { column, values, negated } => has(column, values.iter().map(lit).collect(), *negated),
        Condition::InNumbers { column, values, negated } => {
            is_in(col(*column), values.iter().map(|value| lit(*value)).collect(), *negated)
        }
        Condition::HasNumbers { column, values, negated } => {
            has(column, values.iter().map(|value| lit(*value)).collect(), *negated)
        }
        Condition::Compare { column, comparison, constant } => {
            let (left, right) = (measure(*column), self::constant(*constant));
            match comparison {
                Comparison::Equal => left.eq(right),
                Comparison::NotEqual => left.not_eq(right),
                Comparison::Less => left.lt(right),
                Comparison::LessOrEqual => left.lt_eq(right),
                Comparison::Greater => left.gt(right),
                Comparison::GreaterOrEqual => left.gt_eq(right),
            }
        }
    }
}

/// Joined as a tree of small depth, since what walks the tree may recurse.
fn balanced(parts: &[Condition], join: fn(Expr, Expr) -> Expr) -> Expr {
    match parts {
        [] => lit(true),
        [only] => expression(only),
        parts => {
            let (left, right) = parts.split_at(parts.len() / 2);
            join(balanced(left, join), balanced(right, join))
        }
    }
}

fn not_if(negated: bool, expression: Expr) -> Expr {
    if negated { !expression } else { expression }
}

/// A column that is compared as it is can be answered by bloom filters and statistics.
fn is_in(operand: Expr, mut values: Vec<Expr>, negated: bool) -> Expr {
    match (values.len(), negated) {
        (1, false) => operand.eq(values.remove(0)),
        (1, true) => operand.not_eq(values.remove(0)),
        _ => operand.in_list(values, negated),
    }
}

fn has(column: &str, mut values: Vec<Expr>, negated: bool) -> Expr {
    let has = match values.len() {
        1 => array_has(col(column), values.remove(0)),
        _ => array_has_any(col(column), make_array(values)),
    };
    not_if(negated, has)
}

fn text(text: Text) -> Expr {
    let separator = || lit(SEPARATOR.to_string());
    let whole = match text.is_list {
        false => col(text.column),
        true => concat(vec![separator(), array_to_string(col(text.column), separator()), separator()]),
    };
    match text.fold {
        Fold::Nothing => whole,
        Fold::Case => lower(whole),
        Fold::CaseAndSigma => replace(lower(whole), lit(SIGMAS[0].to_string()), lit(SIGMAS[1].to_string())),
    }
}

fn measure(measure: Measure) -> Expr {
    match measure {
        Measure::Column(column) => col(column),
        Measure::Largest(column) => array_max(col(column)),
        Measure::Smallest(column) => array_min(col(column)),
    }
}

fn constant(constant: Constant) -> Expr {
    let value = match constant {
        Constant::Number(number) => ScalarValue::Int64(Some(number)),
        Constant::Flag(flag) => ScalarValue::Boolean(Some(flag)),
        Constant::Time(time) => ScalarValue::TimestampMicrosecond(Some(time.timestamp_micros()), Some("UTC".into())),
        Constant::Date(date) => {
            let days = (date - chrono::NaiveDate::default()).num_days();
            ScalarValue::Date32(i32::try_from(days).ok())
        }
    };
    Expr::Literal(value, None)
}
