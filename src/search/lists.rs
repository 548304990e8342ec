//! Filters on lists, such as `cardinality(bcc_recipients) > 0`.
//!
//! DataFusion judges a filter while it reads, before it decodes the other columns, only where it knows each function in it to
//! be fit for lists: it knows three. [`for_the_scan`] says the others in a form that it takes, and the filter above the
//! scan still decides. [`Cardinality`] counts the elements of a list of texts without making an array of each list.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, UInt64Array};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result as PlanResult;
use datafusion::functions_nested::cardinality::cardinality_udf;
use datafusion::logical_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CaseExpr, Column, is_null};
use datafusion::physical_expr::utils::{collect_columns, conjunction};
use datafusion_datasource_parquet::can_expr_be_pushed_down_with_schemas;

/// What of these filters the scan would not judge by itself, in a form in which it does; nothing when there is none.
pub(super) fn for_the_scan(filters: &[Arc<dyn PhysicalExpr>], columns: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    let filters: Vec<_> = filters.iter().filter_map(|filter| reformed(filter, columns)).collect();
    (!filters.is_empty()).then(|| conjunction(filters))
}

fn reformed(filter: &Arc<dyn PhysicalExpr>, columns: &Schema) -> Option<Arc<dyn PhysicalExpr>> {
    if can_expr_be_pushed_down_with_schemas(filter, columns) {
        return None;
    }
    let asked = collect_columns(filter);
    let list = asked.iter().find(|column| {
        columns.field_with_name(column.name()).is_ok_and(|field| matches!(field.data_type(), DataType::List(_)))
    })?;
    // Whether a list is null is a question that the scan takes, and with it all that stands beside; here both answers are
    // the filter itself.
    let is_null = is_null(Arc::new(Column::new(list.name(), list.index()))).ok()?;
    let reformed = CaseExpr::try_new(None, vec![(is_null, Arc::clone(filter))], Some(Arc::clone(filter))).ok()?;
    let reformed: Arc<dyn PhysicalExpr> = Arc::new(reformed);
    can_expr_be_pushed_down_with_schemas(&reformed, columns).then_some(reformed)
}

/// DataFusion's `cardinality`, quick for lists of what is no list.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Cardinality(Arc<ScalarUDF>);

impl Default for Cardinality {
    fn default() -> Self {
        Self(cardinality_udf())
    }
}

impl ScalarUDFImpl for Cardinality {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn return_type(&self, given: &[DataType]) -> PlanResult<DataType> {
        self.0.return_type(given)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        match arguments.args.as_slice() {
            [ColumnarValue::Array(lists)] if is_plain(lists.data_type()) => {
                let lists = lists.as_list::<i32>();
                let lengths = lists.offsets().lengths().map(|length| length as u64);
                let lengths: ArrayRef = Arc::new(UInt64Array::new(lengths.collect(), lists.nulls().cloned()));
                Ok(ColumnarValue::Array(lengths))
            }
            _ => self.0.invoke_with_args(arguments),
        }
    }
}

fn is_plain(kind: &DataType) -> bool {
    matches!(kind, DataType::List(element) if !element.data_type().is_nested())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, RecordBatch, StringBuilder};
    use arrow::util::display::array_value_to_string;
    use datafusion::prelude::SessionContext;

    use super::*;

    #[tokio::test]
    async fn cardinality_is_that_of_datafusion() {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None, Some("b")]);
        lists.append_null();
        lists.append_value([None::<&str>; 0]);
        lists.append_value([Some("c")]);
        let lists: ArrayRef = Arc::new(lists.finish());
        let batch = RecordBatch::try_from_iter([("l", lists.slice(0, 4)), ("k", lists)]).unwrap().slice(1, 3);
        let context = SessionContext::new();
        context.register_batch("t", batch).unwrap();
        let statement = "SELECT cardinality(l) AS l, cardinality([l, k]) AS both, cardinality([1, 2]) AS two FROM t";
        let ask = async || {
            let batches = context.sql(statement).await.unwrap().collect().await.unwrap();
            let texts = batches[0].columns().iter().map(|column| {
                (0..3).map(|row| array_value_to_string(column, row).unwrap()).collect::<Vec<_>>().join(",")
            });
            texts.collect::<Vec<_>>()
        };
        let theirs = ask().await;
        context.register_udf(ScalarUDF::from(Cardinality::default()));
        assert_eq!(ask().await, theirs);
        assert_eq!(theirs[0], ",0,1");
    }
}
