//! Statements that are prepared first and answered later, with values for their parameters: `$1`, `$2`.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;

use super::{Answer, Search, query_error};
use crate::error::{Code, Error, Result};
use crate::limits;

/// A query that was planned and judged, and waits for its values.
#[derive(Clone, Debug)]
pub struct Statement {
    plan: LogicalPlan,
    text: String,
}

impl Search {
    /// Plans one query that is asked later.
    ///
    /// # Errors
    /// Like [`Search::plan`].
    pub async fn prepare(&self, text: &str) -> Result<Statement> {
        Ok(Statement { plan: self.plan(text).await?, text: text.to_owned() })
    }

    /// Plans one query in another wording than the one that the record of searches has.
    ///
    /// # Errors
    /// Like [`Search::plan`].
    pub async fn prepare_as(&self, text: &str, recorded: &str) -> Result<Statement> {
        let plan = self.plan_as(text, recorded).await?;
        Ok(Statement { plan, text: recorded.to_owned() })
    }

    /// Asks what was prepared.
    ///
    /// # Errors
    /// Like [`Search::answer`].
    pub async fn ask(&self, statement: Statement) -> Result<Answer> {
        self.answer(statement.plan, &statement.text).await
    }
}

impl Statement {
    /// The columns of its answer.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(self.plan.schema().inner())
    }

    /// Its parameters in their order, with the type that the statement wants; Arrow's null where it wants none in particular.
    ///
    /// # Errors
    /// `query-invalid` when one is wanted as two types, or the names are not `$1`, `$2` and so on.
    pub fn parameters(&self) -> Result<SchemaRef> {
        let types = self.plan.get_parameter_types().map_err(|error| query_error(error, Code::QueryInvalid))?;
        let number = |name: &String| name.trim_start_matches('$').parse::<usize>().ok();
        let count = types.keys().filter_map(number).max().unwrap_or_default();
        if count > limits::STATEMENT_PARAMETERS || types.keys().any(|name| number(name).is_none()) {
            let most = limits::STATEMENT_PARAMETERS;
            return Err(Error::new(Code::QueryInvalid, format!("parameters are called $1 to ${most}")));
        }
        // One that is nowhere in the statement may be anything.
        let kind = |number| types.get(&format!("${number}")).cloned().flatten().unwrap_or(DataType::Null);
        let fields: Vec<Field> =
            (1..=count).map(|number| Field::new(format!("${number}"), kind(number), true)).collect();
        Ok(Schema::new(fields).into())
    }

    /// The same with values for its parameters: the columns of one row.
    ///
    /// # Errors
    /// `query-invalid` when there are fewer or more than parameters, or one has a type that does not fit.
    pub fn bind(self, values: &RecordBatch) -> Result<Self> {
        let wrong = |what: String| Error::new(Code::QueryInvalid, what);
        if values.num_rows() != 1 {
            return Err(wrong(format!("a statement is asked with one row of values, not with {}", values.num_rows())));
        }
        let parameters = self.parameters()?;
        if parameters.fields().len() != values.num_columns() {
            let (wanted, given) = (parameters.fields().len(), values.num_columns());
            return Err(wrong(format!("the statement has {wanted} parameters, and {given} values were given")));
        }
        let invalid = |error| query_error(error, Code::QueryInvalid);
        let cast = parameters.fields().iter().zip(values.columns()).map(|(field, column)| {
            let value = ScalarValue::try_from_array(column, 0).map_err(invalid)?;
            match field.data_type() {
                DataType::Null => Ok(value),
                kind => value.cast_to(kind).map_err(invalid),
            }
        });
        self.bind_values(ParamValues::from(cast.collect::<Result<Vec<_>>>()?))
    }

    /// The same with values that have the types of its parameters.
    ///
    /// # Errors
    /// `query-invalid` when they do not fit.
    pub fn bind_values(self, values: ParamValues) -> Result<Self> {
        let shown: Vec<String> = match &values {
            ParamValues::List(values) => values.iter().map(|value| value.value.to_string()).collect(),
            ParamValues::Map(values) => values.iter().map(|(name, value)| format!("{name}={}", value.value)).collect(),
        };
        let plan = self.plan.with_param_values(values).map_err(|error| query_error(error, Code::QueryInvalid))?;
        if shown.is_empty() {
            return Ok(Self { plan, text: self.text });
        }
        // The record of searches has the values too.
        Ok(Self { plan, text: format!("{} -- values: {}", self.text, shown.join(", ")) })
    }

    /// What it asks, as the record of searches has it.
    pub fn text(&self) -> &str {
        &self.text
    }
}
