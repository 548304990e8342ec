//! A connection: who it is, and what each message of theirs gets.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch, into_pg_type};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use futures::{Sink, SinkExt as _, StreamExt as _};
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldInfo, QueryResponse, Response};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionGuard, ConnectionHandle, ConnectionManager, METADATA_USER,
    PgWireConnectionState, PgWireServerHandlers, PidSecretKeyGenerator as _, RandomPidSecretKeyGenerator, Type,
};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::startup::{Authentication, PasswordMessageFamily};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::{Mutex, OnceCell};

use super::scram::Exchange;
use super::statement::{Prepared, Wanted, read, sqlstate, tag};
use crate::error::{Code, Error, Result};
use crate::search::{POSTGRES_VERSION, Search, Statement, Surface};
use crate::serve::Shared;
use crate::serve::auth::Viewer;

/// Codes of failures: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) mod state {
    pub(in super::super) const CONNECTION_FAILURE: &str = "08006";
    pub(in super::super) const DIVISION_BY_ZERO: &str = "22012";
    pub(in super::super) const INVALID_TEXT_REPRESENTATION: &str = "22P02";
    pub(in super::super) const IN_FAILED_TRANSACTION: &str = "25P02";
    pub(in super::super) const INVALID_AUTHORIZATION: &str = "28000";
    pub(in super::super) const INVALID_PASSWORD: &str = "28P01";
    pub(in super::super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(in super::super) const SYNTAX_ERROR: &str = "42601";
    pub(in super::super) const SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: &str = "42000";
    pub(in super::super) const UNDEFINED_COLUMN: &str = "42703";
    pub(in super::super) const UNDEFINED_FUNCTION: &str = "42883";
    pub(in super::super) const UNDEFINED_TABLE: &str = "42P01";
    pub(in super::super) const TOO_MANY_CONNECTIONS: &str = "53300";
    pub(in super::super) const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub(in super::super) const QUERY_CANCELED: &str = "57014";
    pub(in super::super) const INTERNAL_ERROR: &str = "XX000";
}

/// One connection.
pub(super) struct Connection {
    server: Shared,
    address: IpAddr,
    /// Whether only this machine reaches the port.
    is_local: bool,
    running: Arc<ConnectionManager>,
    parser: PostgresCompatibilityParser,
    /// The exchange that shows who it is, while it goes on: with the name that was given.
    exchange: Mutex<Option<(String, Option<Exchange>)>>,
    /// Once it is known who it is.
    session: OnceCell<Arc<Search>>,
}

/// The same for the library, which asks for each kind of handler apart.
pub(super) struct Handlers(pub(super) Arc<Connection>);

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        Arc::clone(&self.0)
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        Arc::new(Extended(Arc::clone(&self.0)))
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        Arc::clone(&self.0)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::new(DefaultCancelHandler::new(Arc::clone(&self.0.running)))
    }
}

/// A failure that ends a connection.
fn fatal(code: &str, message: &str, hint: Option<&str>) -> PgWireError {
    let mut info = ErrorInfo::new("FATAL".to_owned(), code.to_owned(), message.to_owned());
    info.hint = hint.map(str::to_owned);
    PgWireError::UserError(Box::new(info))
}

/// A failure of a statement, with the remedy.
fn failed(error: Error) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".to_owned(), sqlstate(&error).to_owned(), error.message().to_owned());
    info.detail = Some(format!("Code: {}", error.code()));
    info.hint = error.code().hint().map(str::to_owned);
    if sqlstate(&error) == state::INTERNAL_ERROR {
        tracing::warn!(code = %error.code(), %error, "a statement failed");
    }
    PgWireError::UserError(Box::new(info))
}

impl Connection {
    pub(super) fn new(server: Shared, address: IpAddr, is_local: bool, running: Arc<ConnectionManager>) -> Self {
        let parser = PostgresCompatibilityParser::new();
        Self { server, address, is_local, running, parser, exchange: Mutex::default(), session: OnceCell::new() }
    }

    /// Opens the session of somebody who is known.
    async fn open(&self, viewer: Viewer) -> Result<()> {
        let asker = viewer.asker(Surface::Postgres)?;
        let search = self.server.engine.search(&asker).await?.for_postgres().await?;
        self.session.set(Arc::new(search)).map_err(|_| Error::new(Code::Internal, "a session was opened twice"))
    }

    fn session(&self) -> Result<Arc<Search>> {
        self.session.get().cloned().ok_or_else(|| Error::new(Code::NotSignedIn, "nobody has signed in"))
    }

    /// Plans a query on the lake as it is now, or as the transaction's first statement saw it.
    async fn plan(&self, text: &str, asked: &str, is_in_transaction: bool) -> Result<(Arc<Search>, Statement)> {
        let session = self.session()?;
        if !is_in_transaction {
            session.refresh()?;
        }
        let statement = session.prepare_as(text, asked).await?;
        Ok((session, statement))
    }

    /// Does what there is to do for a statement that is no query: a transaction sees the lake as it is at its beginning.
    fn hear(&self, wanted: &Wanted) -> Result<()> {
        match wanted {
            Wanted::Begin => self.session()?.refresh(),
            _ => Ok(()),
        }
    }

    async fn finish<C>(&self, client: &mut C, viewer: Viewer) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.open(viewer).await.map_err(|error| fatal(sqlstate(&error), error.message(), error.code().hint()))?;
        let (pid, key) = RandomPidSecretKeyGenerator::default().generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let (handle, guard) = self.running.register(pid, key);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(handle);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        finish_authentication(client, &Parameters).await
    }
}

/// What clients are told about the server when they come.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let named = |name: &str| client.metadata().get(name).cloned().unwrap_or_default();
        let parameters = [
            ("server_version", POSTGRES_VERSION.to_owned()),
            ("server_encoding", "UTF8".to_owned()),
            ("client_encoding", "UTF8".to_owned()),
            ("DateStyle", "ISO, YMD".to_owned()),
            ("IntervalStyle", "postgres".to_owned()),
            ("TimeZone", "UTC".to_owned()),
            ("integer_datetimes", "on".to_owned()),
            ("standard_conforming_strings", "on".to_owned()),
            ("default_transaction_read_only", "on".to_owned()),
            ("in_hot_standby", "off".to_owned()),
            ("is_superuser", "off".to_owned()),
            ("search_path", "public".to_owned()),
            ("application_name", named("application_name")),
            ("session_authorization", named(METADATA_USER)),
        ];
        Some(parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// The one mechanism.
const SCRAM: &str = "SCRAM-SHA-256";

#[async_trait]
impl StartupHandler for Connection {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match message {
            PgWireFrontendMessage::Startup(startup) => {
                if !self.is_local && !client.is_secure() && !self.server.site.is_behind_proxy() {
                    let hint = "Connect with `sslmode=require` or stricter.";
                    return Err(fatal(state::INVALID_AUTHORIZATION, "this server speaks with TLS only", Some(hint)));
                }
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                let local = self.server.program(&Default::default(), Some(self.address), self.is_local).await;
                if let Ok(viewer) = local {
                    return self.finish(client, viewer).await;
                }
                let name = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                *self.exchange.lock().await = Some((name, None));
                client.set_state(PgWireConnectionState::AuthenticationInProgress);
                let offer = Authentication::SASL(vec![SCRAM.to_owned()]);
                client.send(PgWireBackendMessage::Authentication(offer)).await?;
                Ok(())
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => self.prove(client, message).await,
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// The steps of SCRAM.
    async fn prove<C>(&self, client: &mut C, message: PasswordMessageFamily) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let strange = || fatal(state::INVALID_AUTHORIZATION, "the exchange of SCRAM-SHA-256 was broken off", None);
        let mut exchange = self.exchange.lock().await;
        match exchange.take() {
            Some((name, None)) => {
                let first = message.into_sasl_initial_response()?;
                let data = first.data.filter(|_| first.auth_method == SCRAM).ok_or_else(strange)?;
                let known = self.server.token_named(&name).await.map_err(failed)?;
                let mut random = [0; 18];
                getrandom::fill(&mut random).map_err(|_| strange())?;
                let verifier = known.and_then(|token| token.scram);
                let begun = Exchange::begin(&data, &name, verifier, &STANDARD.encode(random));
                let (begun, answer) = begun.ok_or_else(strange)?;
                *exchange = Some((name, Some(begun)));
                let answer = Authentication::SASLContinue(answer.into());
                client.send(PgWireBackendMessage::Authentication(answer)).await?;
                Ok(())
            }
            Some((name, Some(begun))) => {
                let last = message.into_sasl_response()?;
                let refused = || {
                    let hint =
                        "The user is an API token's name, the password the token itself: see docs/connect-tools.md.";
                    fatal(state::INVALID_PASSWORD, "the API token is not known, or has expired", Some(hint))
                };
                let answer = begun.end(&last.data).ok_or_else(refused)?;
                // Looked up again: it may have been taken back since the exchange began.
                let token = self.server.token_named(&name).await.map_err(failed)?.ok_or_else(refused)?;
                client.send(PgWireBackendMessage::Authentication(Authentication::SASLFinal(answer.into()))).await?;
                let viewer = self.server.holder(&token, Some(self.address)).map_err(failed)?;
                self.finish(client, viewer).await
            }
            None => Err(strange()),
        }
    }
}

/// The rows of an answer as the client wants them; the query begins when the first is asked for, and ends when `client` asks
/// for that on another connection.
fn rows(
    client: &impl ClientInfo,
    search: Arc<Search>,
    statement: Statement,
    format: &Format,
) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(arrow_schema_to_pg_fields(&statement.schema(), format, None)?);
    let encoded = Arc::clone(&fields);
    let handle = client.session_extensions().get::<Arc<ConnectionHandle>>();
    let rows = async_stream::stream! {
        let cancelled = async {
            if let Some(handle) = handle
                && handle.start_query().await.await.is_ok()
            {
                return;
            }
            // The next query waits for cancellation from now on.
            std::future::pending().await
        };
        let mut cancelled = std::pin::pin!(cancelled);
        let mut answer = match search.ask(statement).await {
            Ok(answer) => answer,
            Err(error) => {
                yield Err(failed(error));
                return;
            }
        };
        loop {
            let next = tokio::select! {
                next = answer.next() => next,
                () = &mut cancelled => {
                    yield Err(PgWireError::QueryCanceled);
                    return;
                }
            };
            match next {
                Ok(Some(batch)) => {
                    for row in encode_recordbatch(Arc::clone(&encoded), batch) {
                        yield row;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    yield Err(failed(error));
                    break;
                }
            }
        }
    };
    Ok(QueryResponse::new(fields, rows.boxed()))
}

/// Refuses what follows a failure within a transaction, as Postgres does.
fn check_transaction(client: &impl ClientInfo, wanted: &Wanted) -> PgWireResult<bool> {
    let status = client.transaction_status();
    if matches!(status, TransactionStatus::Error) && !wanted.ends_transaction() {
        let message = "the transaction has failed; statements are ignored until it ends".to_owned();
        let info = ErrorInfo::new("ERROR".to_owned(), state::IN_FAILED_TRANSACTION.to_owned(), message);
        return Err(PgWireError::UserError(Box::new(info)));
    }
    Ok(matches!(status, TransactionStatus::Transaction))
}

fn word(wanted: &Wanted) -> Option<Response> {
    match wanted {
        Wanted::Query { .. } => None,
        Wanted::Begin => Some(Response::TransactionStart(tag("BEGIN"))),
        Wanted::End(word) => Some(Response::TransactionEnd(tag(word))),
        Wanted::Heard(word) => Some(Response::Execution(tag(word))),
    }
}

#[async_trait]
impl SimpleQueryHandler for Connection {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let mut responses = Vec::new();
        for wanted in read(&self.parser, query).map_err(failed)? {
            let is_in_transaction = check_transaction(client, &wanted)?;
            responses.push(match (&wanted, word(&wanted)) {
                (Wanted::Query { text, asked }, _) => {
                    let (search, statement) = self.plan(text, asked, is_in_transaction).await.map_err(failed)?;
                    Response::Query(rows(client, search, statement, &Format::UnifiedText)?)
                }
                (_, heard) => {
                    self.hear(&wanted).map_err(failed)?;
                    heard.unwrap_or(Response::EmptyQuery)
                }
            });
        }
        if responses.is_empty() {
            responses.push(Response::EmptyQuery);
        }
        Ok(responses)
    }
}

/// Prepared statements and portals.
pub(super) struct Extended(Arc<Connection>);

/// The types in which parameters are expected.
fn wire_types(parameters: &Schema) -> PgWireResult<Vec<Type>> {
    let kind = |field: &Arc<Field>| match field.data_type() {
        // Whatever the client has.
        DataType::Null => Ok(Type::UNKNOWN),
        kind => into_pg_type(kind),
    };
    parameters.fields().iter().map(kind).collect()
}

#[async_trait]
impl QueryParser for Extended {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = read(&self.0.parser, sql).map_err(failed)?.into_iter();
        let Some(wanted) = statements.next() else { return Ok(None) };
        if statements.next().is_some() {
            let error = Error::new(Code::QueryInvalid, "a prepared statement is one statement");
            return Err(failed(error));
        }
        let is_in_transaction = check_transaction(client, &wanted)?;
        let nothing = || SchemaRef::from(Schema::empty());
        let (columns, parameters) = match &wanted {
            Wanted::Query { text, asked } => {
                let (_, statement) = self.0.plan(text, asked, is_in_transaction).await.map_err(failed)?;
                (statement.schema(), statement.parameters().map_err(failed)?)
            }
            _ => (nothing(), nothing()),
        };
        Ok(Some(Prepared { wanted, columns, parameters }))
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        wire_types(&statement.parameters)
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        arrow_schema_to_pg_fields(&statement.columns, format.unwrap_or(&Format::UnifiedText), None)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Extended {
    type Statement = Prepared;
    type QueryParser = Self;

    fn query_parser(&self) -> Arc<Self> {
        Arc::new(Self(Arc::clone(&self.0)))
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let is_in_transaction = check_transaction(client, &prepared.wanted)?;
        let Wanted::Query { text, asked } = &prepared.wanted else {
            self.0.hear(&prepared.wanted).map_err(failed)?;
            return Ok(word(&prepared.wanted).unwrap_or(Response::EmptyQuery));
        };
        // Planned anew, so that a statement that was prepared long ago sees the lake of today.
        let (search, statement) = self.0.plan(text, asked, is_in_transaction).await.map_err(failed)?;
        let types: Vec<Option<&DataType>> = prepared
            .parameters
            .fields()
            .iter()
            .map(|field| Some(field.data_type()).filter(|kind| !kind.is_null()))
            .collect();
        let wire = wire_types(&prepared.parameters)?;
        let wire: Vec<Option<&Type>> = wire.iter().map(Some).collect();
        let values = deserialize_parameters_with_server_types(portal, &types, &wire)?;
        let statement = statement.bind_values(values).map_err(failed)?;
        Ok(Response::Query(rows(client, search, statement, &portal.result_column_format)?))
    }
}
