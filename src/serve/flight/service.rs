//! The requests of Flight SQL.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult,
    ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::Sha256;
use tonic::{Code as GrpcCode, Request, Response, Status, Streaming};

use crate::error::{Code, Error};
use crate::event::schema::COMMENT;
use crate::search::{Answer, CATALOG, SCHEMA, Search, Statement, Surface};
use crate::serve::Shared;
use crate::serve::auth::Viewer;

/// The name under which drivers look for a column's description: Flight SQL, "Flight Server Metadata".
const REMARKS: &str = "ARROW:FLIGHT:SQL:REMARKS";

type Stepped<T> = Result<T, Status>;
type Batches = Response<Pin<Box<dyn Stream<Item = Stepped<FlightData>> + Send>>>;

/// What answers.
#[derive(Clone)]
pub(super) struct Service {
    server: Shared,
    /// Whether only this machine reaches it.
    is_local: bool,
    seal: Seal,
}

impl Service {
    /// # Errors
    /// `internal` when the machine has no randomness to give.
    pub(super) fn new(server: Shared, is_local: bool) -> Result<Self, Error> {
        Ok(Self { server, is_local, seal: Seal::new()? })
    }

    async fn viewer<T>(&self, request: &Request<T>) -> Stepped<Viewer> {
        let headers = request.metadata().clone().into_headers();
        let address = request.remote_addr().as_ref().map(SocketAddr::ip);
        self.server.program(&headers, address, self.is_local).await.map_err(status)
    }

    async fn search<T>(&self, request: &Request<T>) -> Stepped<Search> {
        let viewer = self.viewer(request).await?;
        let asker = viewer.asker(Surface::Flight).map_err(status)?;
        self.server.engine.search(&asker).await.map_err(status)
    }

    /// The statement of a handle, with its values.
    async fn statement(&self, search: &Search, handle: &[u8]) -> Stepped<Statement> {
        let Handle { statement, values } = Handle::read(&self.seal, handle)?;
        let statement = search.prepare(&statement).await.map_err(status)?;
        match values {
            Some(values) => statement.bind(&values).map_err(status),
            None => Ok(statement),
        }
    }
}

/// What only this server can put on a handle: the library that reads values trusts their form, so nothing is read that
/// somebody else made up.
#[derive(Clone)]
struct Seal(Hmac<Sha256>);

impl Seal {
    fn new() -> Result<Self, Error> {
        let failed = |what| Error::new(Code::Internal, format!("cannot make a key for tickets: {what}"));
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| failed(error.to_string()))?;
        Hmac::new_from_slice(&key).map(Self).map_err(|error| failed(error.to_string()))
    }

    fn on(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(bytes);
        mac
    }
}

/// Bytes of a seal.
const SEAL: usize = 32;

/// A statement and the values of its parameters, as a ticket or the handle of a prepared statement: a seal, the length of the
/// statement in four bytes, the statement, and one row as an Arrow IPC stream where there are values.
struct Handle {
    statement: String,
    values: Option<RecordBatch>,
}

impl Handle {
    fn read(seal: &Seal, bytes: &[u8]) -> Stepped<Self> {
        let strange = || Status::invalid_argument("the ticket or handle is none that this server gave");
        let (given, bytes) = bytes.split_at_checked(SEAL).ok_or_else(strange)?;
        seal.on(bytes).verify_slice(given).map_err(|_| strange())?;
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(strange)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| strange())?;
        let (statement, values) = rest.split_at_checked(length).ok_or_else(strange)?;
        let statement = String::from_utf8(statement.to_vec()).map_err(|_| strange())?;
        let values = match values {
            [] => None,
            values => {
                let mut reader = StreamReader::try_new(values, None).map_err(|_| strange())?;
                Some(reader.next().ok_or_else(strange)?.map_err(|_| strange())?)
            }
        };
        Ok(Self { statement, values })
    }

    fn write(&self, seal: &Seal) -> Stepped<Bytes> {
        let too_long = |_| Status::invalid_argument("the statement is too long");
        let mut bytes = u32::try_from(self.statement.len()).map_err(too_long)?.to_be_bytes().to_vec();
        bytes.extend(self.statement.as_bytes());
        if let Some(values) = &self.values {
            let failed = |error| Status::internal(format!("cannot keep the values: {error}"));
            let mut writer = StreamWriter::try_new(&mut bytes, &values.schema()).map_err(failed)?;
            writer.write(values).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        let mut sealed = seal.on(&bytes).finalize().into_bytes().to_vec();
        sealed.extend(bytes);
        Ok(sealed.into())
    }
}

/// A failure as gRPC has it, with the remedy.
fn status(error: Error) -> Status {
    let code = match error.code() {
        Code::NotSignedIn => GrpcCode::Unauthenticated,
        Code::NotAllowed | Code::QueryRefused => GrpcCode::PermissionDenied,
        Code::QueryInvalid | Code::Usage => GrpcCode::InvalidArgument,
        Code::QueryTimeout => GrpcCode::DeadlineExceeded,
        Code::QueryTooLarge => GrpcCode::ResourceExhausted,
        Code::QueriesBusy | Code::LakeUnavailable => GrpcCode::Unavailable,
        Code::NoLake => GrpcCode::NotFound,
        _ => GrpcCode::Internal,
    };
    let hint = error.code().hint().map(|hint| format!("\nHint: {hint}"));
    // A status travels in a header of HTTP/2, of which there is room for some thousand letters.
    let message: String = error.message().chars().take(1_000).collect();
    Status::new(code, format!("{message} ({}){}", error.code(), hint.unwrap_or_default()))
}

fn refused(what: &str) -> Status {
    Status::permission_denied(format!("{what} is refused: the lake is read-only here ({})", Code::QueryRefused))
}

/// The columns with their descriptions where drivers look for them.
fn described(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| {
        let remark = field.metadata().get(COMMENT).map(|text| (REMARKS.to_owned(), text.clone()));
        let metadata: HashMap<_, _> = field.metadata().clone().into_iter().chain(remark).collect();
        Field::clone(field).with_metadata(metadata)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// One place where the batches of a question are.
fn info(schema: &Schema, ticket: impl Into<Bytes>, descriptor: FlightDescriptor) -> Stepped<Response<FlightInfo>> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
    let info = FlightInfo::new()
        .try_with_schema(schema)
        .map_err(|error| Status::internal(format!("cannot write the columns: {error}")))?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

fn stream_of(answer: Answer) -> Batches {
    let schema = SchemaRef::clone(answer.schema());
    let batches = answer.into_stream().map_err(|error| FlightError::Tonic(Box::new(status(error))));
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(batches);
    Response::new(data.map_err(Status::from).boxed())
}

fn stream_of_one(batch: arrow_flight::error::Result<RecordBatch>) -> Stepped<Batches> {
    let batch = batch.map_err(Status::from)?;
    let schema = batch.schema();
    let data = FlightDataEncoderBuilder::new().with_schema(schema).build(futures::stream::iter([Ok(batch)]));
    Ok(Response::new(data.map_err(Status::from).boxed()))
}

/// What drivers ask about the server before they ask it anything.
static SERVER: LazyLock<arrow_flight::error::Result<SqlInfoData>> = LazyLock::new(|| {
    let mut builder = SqlInfoDataBuilder::new();
    builder.append(SqlInfo::FlightSqlServerName, "Waybill");
    builder.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    builder.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    builder.append(SqlInfo::FlightSqlServerReadOnly, true);
    builder.append(SqlInfo::FlightSqlServerSql, true);
    builder.append(SqlInfo::FlightSqlServerSubstrait, false);
    builder.append(SqlInfo::FlightSqlServerCancel, false);
    builder.append(SqlInfo::SqlDdlCatalog, false);
    builder.append(SqlInfo::SqlDdlSchema, false);
    builder.append(SqlInfo::SqlDdlTable, false);
    builder.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    builder.build()
});

/// The types of columns are Arrow's own; there is no list of others.
static TYPES: LazyLock<arrow_flight::error::Result<XdbcTypeInfoData>> =
    LazyLock::new(|| XdbcTypeInfoDataBuilder::new().build());

fn known<T>(made: &'static arrow_flight::error::Result<T>) -> Stepped<&'static T> {
    made.as_ref().map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl FlightSqlService for Service {
    type FlightService = Self;

    /// The token's name and text, by HTTP Basic, for what to present from then on: the token.
    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Stepped<Response<Pin<Box<dyn Stream<Item = Stepped<HandshakeResponse>> + Send>>>> {
        self.viewer(&request).await?;
        let presented = request.metadata().clone().into_headers().remove(http_authorization());
        let token =
            presented.as_ref().and_then(crate::serve::auth::Credentials::of).map(|given| given.token().to_owned());
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().unwrap_or_default().into() };
        let mut response = Response::new(futures::stream::iter([Ok(answer)]).boxed() as Pin<Box<_>>);
        if let Some(bearer) = token.and_then(|token| format!("Bearer {token}").parse().ok()) {
            response.metadata_mut().insert("authorization", bearer);
        }
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        let statement = self.search(&request).await?.prepare(&query.query).await.map_err(status)?;
        let handle = Handle { statement: query.query, values: None }.write(&self.seal)?;
        let ticket = TicketStatementQuery { statement_handle: handle }.as_any().encode_to_vec();
        info(&described(&statement.schema()), ticket, request.into_inner())
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, request: Request<Ticket>) -> Stepped<Batches> {
        let search = self.search(&request).await?;
        let statement = self.statement(&search, &ticket.statement_handle).await?;
        Ok(stream_of(search.ask(statement).await.map_err(status)?))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Stepped<ActionCreatePreparedStatementResult> {
        let statement = self.search(&request).await?.prepare(&query.query).await.map_err(status)?;
        let written = |schema: &Schema| {
            let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
            message
                .map(|message| message.0)
                .map_err(|error| Status::internal(format!("cannot write the columns: {error}")))
        };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Handle { statement: query.query, values: None }.write(&self.seal)?,
            dataset_schema: written(&described(&statement.schema()))?,
            parameter_schema: written(statement.parameters().map_err(status)?.as_ref())?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        request: Request<Action>,
    ) -> Stepped<()> {
        // Nothing was kept.
        self.viewer(&request).await.map(drop)
    }

    /// The handle with the values in it.
    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Stepped<DoPutPreparedStatementResult> {
        let search = self.search(&request).await?;
        let Handle { statement, .. } = Handle::read(&self.seal, &query.prepared_statement_handle)?;
        let data = request.into_inner().map_err(|status| FlightError::Tonic(Box::new(status)));
        let mut batches = FlightRecordBatchStream::new_from_flight_data(data);
        let mut values = None;
        while let Some(batch) = batches.try_next().await.map_err(Status::from)? {
            if batch.num_rows() > 0 && values.replace(batch).is_some() {
                return Err(Status::invalid_argument("a statement is asked with one row of values"));
            }
        }
        if let Some(values) = &values {
            search.prepare(&statement).await.and_then(|statement| statement.bind(values)).map_err(status)?;
        }
        let handle = Handle { statement, values }.write(&self.seal)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        let search = self.search(&request).await?;
        let statement = self.statement(&search, &query.prepared_statement_handle).await?;
        info(&described(&statement.schema()), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<Ticket>,
    ) -> Stepped<Batches> {
        let search = self.search(&request).await?;
        let statement = self.statement(&search, &query.prepared_statement_handle).await?;
        Ok(stream_of(search.ask(statement).await.map_err(status)?))
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        info(&query.into_builder().schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Stepped<Batches> {
        self.search(&request).await?;
        let mut builder = query.into_builder();
        builder.append(CATALOG);
        stream_of_one(builder.build())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        info(&query.clone().into_builder().schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Stepped<Batches> {
        self.search(&request).await?;
        let mut builder = query.into_builder();
        builder.append(CATALOG, SCHEMA);
        stream_of_one(builder.build())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        info(&query.clone().into_builder().schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Stepped<Batches> {
        let search = self.search(&request).await?;
        let mut builder = query.into_builder();
        for (table, columns) in search.tables().await.map_err(status)? {
            let kind = if table.is_view { "VIEW" } else { "TABLE" };
            let appended = builder.append(CATALOG, SCHEMA, &table.name, kind, &described(&columns));
            appended.map_err(Status::from)?;
        }
        stream_of_one(builder.build())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        info(&query.into_builder().schema(), query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, request: Request<Ticket>) -> Stepped<Batches> {
        self.viewer(&request).await?;
        let mut builder = query.into_builder();
        builder.append("TABLE");
        builder.append("VIEW");
        stream_of_one(builder.build())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        let schema = query.clone().into_builder(known(&SERVER)?).schema();
        info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, request: Request<Ticket>) -> Stepped<Batches> {
        self.viewer(&request).await?;
        stream_of_one(query.into_builder(known(&SERVER)?).build())
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Stepped<Response<FlightInfo>> {
        self.viewer(&request).await?;
        let schema = query.into_builder(known(&TYPES)?).schema();
        info(&schema, query.as_any().encode_to_vec(), request.into_inner())
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, request: Request<Ticket>) -> Stepped<Batches> {
        self.viewer(&request).await?;
        stream_of_one(query.into_builder(known(&TYPES)?).build())
    }

    async fn do_put_statement_update(
        &self,
        _query: arrow_flight::sql::CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Stepped<i64> {
        Err(refused("a change"))
    }

    async fn do_put_prepared_statement_update(
        &self,
        _query: arrow_flight::sql::CommandPreparedStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Stepped<i64> {
        Err(refused("a change"))
    }

    async fn do_put_statement_ingest(
        &self,
        _query: arrow_flight::sql::CommandStatementIngest,
        _request: Request<PeekableFlightDataStream>,
    ) -> Stepped<i64> {
        Err(refused("an ingest"))
    }

    async fn register_sql_info(&self, _id: i32, _info: &SqlInfo) {}
}

fn http_authorization() -> axum::http::HeaderName {
    axum::http::header::AUTHORIZATION
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    #[test]
    fn a_handle_is_read_as_it_was_written_and_strange_bytes_are_refused() {
        let values = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![5])) as _)]).unwrap();
        let seal = Seal::new().unwrap();
        for values in [None, Some(values)] {
            let handle = Handle { statement: "SELECT 1".to_owned(), values: values.clone() };
            let written = handle.write(&seal).unwrap();
            let read = Handle::read(&seal, &written).unwrap();
            assert_eq!((read.statement.as_str(), &read.values), ("SELECT 1", &values));
            assert!(Handle::read(&Seal::new().unwrap(), &written).is_err(), "of another server");
            for index in 0..written.len() {
                assert!(Handle::read(&seal, &written[..index]).is_err(), "shortened to {index}");
                let mut changed = written.to_vec();
                changed[index] ^= 0x55;
                assert!(Handle::read(&seal, &changed).is_err(), "changed at {index}");
            }
        }
    }
}
