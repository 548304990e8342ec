//! A Delta table that Waybill fills and somebody else owns: the target of an export.
//!
//! A file is put under its final name and then committed with a number, which the table's log keeps; a number is committed
//! once, however often it is tried.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::kernel::engine::arrow_conversion::{TryIntoArrow as _, TryIntoKernel as _};
use deltalake_core::kernel::{Action, Add, StructType};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, DeltaTableError};

use super::outlet::Outlet;
use super::store::cause_in_store;
use super::table::{Attempt, Intent, connect, try_commit};
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt};
use crate::limits;

/// The transaction in the table's log whose number is that of the last file.
const DELIVERED: &str = "waybill/export";

/// An open table of an export.
pub struct Delivery {
    delta: DeltaTable,
    url: String,
}

/// A file that was put below the target.
#[derive(Debug)]
pub struct Delivered {
    /// Below the target.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Delta's statistics as JSON: `numRecords`, `minValues`, `maxValues`.
    pub stats: String,
    /// When it was put.
    pub at: Time,
}

impl Delivery {
    /// Opens the table at a target, creating it with these columns where there is none.
    ///
    /// # Errors
    /// `configuration` when the table there has other columns; `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub async fn open(to: &Outlet, columns: &SchemaRef) -> Result<Self> {
        let mut delivery = Self::load(to).await?;
        if delivery.delta.version().is_none() {
            let schema: StructType = nullable(columns)
                .as_ref()
                .try_into_kernel()
                .or_error(Code::QueryInvalid, "the view has a column that Delta has no type for")?;
            let created = delivery.delta.clone().create().with_columns(schema.fields().cloned()).await;
            match created {
                Ok(delta) => delivery.delta = delta,
                Err(error) => return Err(delivery.error(error, "cannot create")),
            }
        }
        delivery.check(columns)?;
        Ok(delivery)
    }

    async fn load(to: &Outlet) -> Result<Self> {
        let at = to.location();
        let (mut delta, _) = connect(at, at.root.clone(), &at.url);
        let url = at.url.to_string();
        let error = match delta.load().await {
            Ok(()) | Err(DeltaTableError::NotATable(_)) => return Ok(Self { delta, url }),
            Err(error) => error,
        };
        // A folder of this machine that is not there has an error of its own.
        let is_absent = matches!(delta.log_store().is_delta_table_location().await, Ok(false));
        let delivery = Self { delta, url };
        if is_absent { Ok(delivery) } else { Err(delivery.error(error, "cannot open")) }
    }

    fn check(&self, columns: &SchemaRef) -> Result<()> {
        let snapshot = self.delta.snapshot().map_err(|error| self.error(error, "cannot read the schema of"))?;
        let present: Schema = snapshot
            .schema()
            .as_ref()
            .try_into_arrow()
            .or_error(Code::LakeDamaged, format!("cannot read the schema of the table at `{}`", self.url))?;
        let named = |schema: &Schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if named(&present) == named(columns) {
            return Ok(());
        }
        Err(Error::new(
            Code::Configuration,
            format!("the table at `{}` has other columns than what is exported; choose another target", self.url),
        ))
    }

    /// Commits a file as number `number` of the table; does nothing when that was done.
    ///
    /// # Errors
    /// `lake-unavailable`, `lake-not-writable`, `lake-damaged`.
    pub async fn add(&mut self, number: i64, file: &Delivered) -> Result<()> {
        let mut unclear = None;
        for _ in 0..limits::COMMIT_ATTEMPTS {
            self.delta.update_state().await.map_err(|error| self.error(error, "cannot read the log of"))?;
            let describe = |error| self.error(error, "cannot read the transactions of");
            let snapshot = self.delta.snapshot().map_err(describe)?;
            let last = snapshot.transaction_version(self.delta.log_store().as_ref(), DELIVERED).await;
            if last.map_err(describe)?.is_some_and(|last| last >= number) {
                return Ok(());
            }
            let add = Add {
                path: file.path.clone(),
                size: i64::try_from(file.size).unwrap_or(i64::MAX),
                modification_time: file.at.timestamp_millis(),
                data_change: true,
                stats: Some(file.stats.clone()),
                ..Add::default()
            };
            let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
            let intent = Intent { operation, transactions: vec![(DELIVERED, number)], metadata: Vec::new() };
            match try_commit(&mut self.delta, vec![Action::Add(add)], intent, true).await {
                Ok(Attempt::Won) => return Ok(()),
                Ok(Attempt::Lost) => {}
                Err(error) => match self.error(error, "cannot commit to") {
                    // Whether it landed, the log tells.
                    error if error.code() == Code::LakeUnavailable => unclear = Some(error),
                    error => return Err(error),
                },
            }
        }
        Err(unclear.unwrap_or_else(|| {
            Error::new(Code::LakeUnavailable, format!("other writers kept the table at `{}` busy", self.url))
        }))
    }

    fn error(&self, error: DeltaTableError, doing: &str) -> Error {
        let code = cause_in_store(&error).unwrap_or(Code::LakeDamaged);
        Error::new(code, format!("{doing} the table at `{}`: {error}", self.url)).caused_by(error)
    }
}

/// The same columns, of which each may be null: a later export may know less.
fn nullable(columns: &SchemaRef) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    Arc::new(Schema::new(fields))
}
