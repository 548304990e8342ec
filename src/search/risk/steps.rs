//! The steps from an event to its risk that SQL has no words for, as functions over whole columns. No query can call
//! them: they stand in plans that Waybill makes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BooleanArray, Int64Array, Int64Builder, ListArray, ListBuilder, StringArray,
    StringBuilder,
};
use arrow::buffer::{BooleanBuffer, OffsetBuffer};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Field, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike as _};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::rules::{Label, Severity, Trust, WorkingHours, texts};
use crate::search::functions;

/// What a step computes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// `(recipient_domains, observed_at)` → those that were not trusted then.
    UntrustedDomains(Arc<Trust>),
    /// `(recipient_domains, untrusted_domains)` → whether there are domains and each of them was trusted.
    Trusted,
    /// `(untrusted_domains)` → whether one of them is a personal one.
    HasPersonalDomain,
    /// `(observed_at)` → whether nobody works at that time.
    IsOffHours(WorkingHours),
    /// `(trusted, condition…)` → the sum of the weights.
    Score(Arc<Vec<Label>>),
    /// `(score)` → the severity's name.
    SeverityOf(Severity),
    /// `(trusted, condition…)` → the names of the indicators.
    Names(Arc<Vec<Label>>),
    /// Likewise their ids.
    Ids(Arc<Vec<Label>>),
    /// Likewise their weights.
    Weights(Arc<Vec<Label>>),
}

impl Step {
    /// The call of the step.
    pub(super) fn call(self, arguments: Vec<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Call { step: self, signature }).call(arguments)
    }

    pub(super) fn gives(&self) -> DataType {
        match self {
            Self::UntrustedDomains(_) | Self::Names(_) | Self::Ids(_) => texts(),
            Self::Trusted | Self::HasPersonalDomain | Self::IsOffHours(_) => DataType::Boolean,
            Self::Score(_) => DataType::Int64,
            Self::SeverityOf(_) => DataType::Utf8,
            Self::Weights(_) => DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Call {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for Call {
    fn name(&self) -> &str {
        match self.step {
            Step::UntrustedDomains(_) => "risk_untrusted_domains",
            Step::Trusted => "risk_trusted",
            Step::HasPersonalDomain => "risk_has_personal_domain",
            Step::IsOffHours(_) => "risk_is_off_hours",
            Step::Score(_) => "risk_sum_of_weights",
            Step::SeverityOf(_) => "risk_severity_of",
            Step::Names(_) => "risk_names",
            Step::Ids(_) => "risk_ids",
            Step::Weights(_) => "risk_weights",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(self.step.gives())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns: PlanResult<Vec<ArrayRef>> =
            arguments.args.iter().map(|argument| argument.to_array(rows)).collect();
        let columns = columns?;
        let answer: ArrayRef = match &self.step {
            Step::UntrustedDomains(trust) => untrusted_domains(trust, &columns[0], &columns[1])?,
            Step::Trusted => trusted(&columns[0], &columns[1])?,
            Step::HasPersonalDomain => has_personal_domain(&columns[0])?,
            Step::IsOffHours(hours) => is_off_hours(hours, &columns[0])?,
            Step::Score(labels) => Arc::new(score(labels, &columns)?),
            Step::SeverityOf(severity) => {
                let scores = columns[0].as_primitive::<arrow::datatypes::Int64Type>();
                Arc::new(scores.iter().map(|score| Some(severity.of(score?))).collect::<StringArray>())
            }
            Step::Names(labels) => listed(labels, &columns, StringBuilder::new(), |list, label| {
                list.append_value(&label.name);
            })?,
            Step::Ids(labels) => listed(labels, &columns, StringBuilder::new(), |list, label| {
                list.append_value(&label.id);
            })?,
            Step::Weights(labels) => listed(labels, &columns, Int64Builder::new(), |list, label| {
                list.append_value(label.weight);
            })?,
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// Times as microseconds, whatever the unit and zone of the column.
pub(super) fn micros(column: &ArrayRef) -> PlanResult<ArrayRef> {
    Ok(cast(column, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?)
}

/// The places of a row's texts among those of all rows of a column of lists.
pub(super) fn places(lists: &ListArray, row: usize) -> Range<usize> {
    if lists.is_null(row) {
        return 0..0;
    }
    let [first, end] = [lists.value_offsets()[row], lists.value_offsets()[row + 1]];
    // Offsets of a list are never negative.
    usize::try_from(first).unwrap_or_default()..usize::try_from(end).unwrap_or_default()
}

fn untrusted_domains(trust: &Trust, domains: &ArrayRef, observed_at: &ArrayRef) -> PlanResult<ArrayRef> {
    let (domains, times) = (cast(domains, &texts())?, micros(observed_at)?);
    let (domains, times) = (domains.as_list::<i32>(), times.as_primitive::<TimestampMicrosecondType>());
    let names = domains.values().as_string::<i32>();
    let mut is_untrusted = vec![false; names.len()];
    let mut lengths = Vec::with_capacity(domains.len());
    for row in 0..domains.len() {
        // What was sent at no known time was trusted at no time.
        let time = times.is_valid(row).then(|| times.value(row)).and_then(DateTime::from_timestamp_micros);
        let day = time.map(|time| time.date_naive());
        let mut length = 0;
        for place in places(domains, row).filter(|place| names.is_valid(*place)) {
            is_untrusted[place] = !day.is_some_and(|day| trust.covers(names.value(place), day));
            length += usize::from(is_untrusted[place]);
        }
        lengths.push(length);
    }
    let untrusted = filter(names, &BooleanArray::from(is_untrusted))?;
    let element = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let lengths = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(element, lengths, untrusted, domains.nulls().cloned())?))
}

fn trusted(domains: &ArrayRef, untrusted: &ArrayRef) -> PlanResult<ArrayRef> {
    let (domains, untrusted) = (cast(domains, &texts())?, cast(untrusted, &texts())?);
    let (domains, untrusted) = (domains.as_list::<i32>(), untrusted.as_list::<i32>());
    let is_trusted =
        |row| !places(domains, row).is_empty() && untrusted.is_valid(row) && places(untrusted, row).is_empty();
    Ok(Arc::new((0..domains.len()).map(|row| Some(is_trusted(row))).collect::<BooleanArray>()))
}

fn has_personal_domain(domains: &ArrayRef) -> PlanResult<ArrayRef> {
    let domains = cast(domains, &texts())?;
    let domains = domains.as_list::<i32>();
    let names = domains.values().as_string::<i32>();
    let is_personal = |place| names.is_valid(place) && functions::is_free_mail(names.value(place));
    let has = |row| domains.is_valid(row).then(|| places(domains, row).any(is_personal));
    Ok(Arc::new((0..domains.len()).map(has).collect::<BooleanArray>()))
}

fn is_off_hours(work: &WorkingHours, observed_at: &ArrayRef) -> PlanResult<ArrayRef> {
    let times = micros(observed_at)?;
    let is_off = |time: i64| {
        let time = functions::in_zone(time, work.zone)?;
        Some(!(work.days.contains(&time.weekday()) && work.hours.contains(&time.time())))
    };
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    Ok(Arc::new(times.map(|time| is_off(time?)).collect::<BooleanArray>()))
}

/// The indicators that hold, of each the rows: none where the event is trusted.
fn holding(columns: &[ArrayRef]) -> PlanResult<(usize, Vec<BooleanBuffer>)> {
    let mut flags =
        columns.iter().map(|column| Ok(functions::are_true(cast(column, &DataType::Boolean)?.as_boolean())));
    let Some(trusted) = flags.next().transpose()? else { return Ok((0, Vec::new())) };
    let untrusted = !&trusted;
    let held = flags.map(|flags: PlanResult<BooleanBuffer>| Ok(&flags? & &untrusted));
    Ok((trusted.len(), held.collect::<PlanResult<_>>()?))
}

fn score(labels: &[Label], columns: &[ArrayRef]) -> PlanResult<Int64Array> {
    let (rows, held) = holding(columns)?;
    let mut scores = vec![0; rows];
    for (label, held) in labels.iter().zip(&held).filter(|(label, _)| label.weight != 0) {
        held.set_indices().for_each(|row| scores[row] += label.weight);
    }
    Ok(scores.into())
}

fn listed<B: arrow::array::ArrayBuilder>(
    labels: &[Label],
    columns: &[ArrayRef],
    values: B,
    add: impl Fn(&mut B, &Label),
) -> PlanResult<ArrayRef> {
    let (rows, held) = holding(columns)?;
    let mut lists = ListBuilder::new(values);
    for row in 0..rows {
        for (label, _) in labels.iter().zip(&held).filter(|(_, held)| held.value(row)) {
            add(lists.values(), label);
        }
        lists.append(true);
    }
    Ok(Arc::new(lists.finish()))
}
