//! `waybill connection authorize` and `permissions`: an administrator of the tenant lets the application in.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use super::connection::Reporting;
use super::exit::Exit;
use super::{Context, output, times};
use crate::connection::consent::ConsentRequest;
use crate::connection::{Order, Registry};
use crate::error::{Code, Error, Result, ResultExt};
use crate::source::Scope;
use crate::source::microsoft365::needed;

/// Bytes of a request line that are looked at; an answer of the consent page has a few hundred.
const REQUEST_LINE_BYTES: u64 = 16 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  waybill --lake ./lake connection authorize 'Contoso mail'\n\nThe application's registration must list `http://localhost:8400/authorized` as a redirect URI (platform: Web)."
)]
pub(super) struct Authorize {
    /// Display name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// Port of this machine on which the browser's answer is awaited
    #[arg(long, value_name = "PORT", default_value_t = 8400)]
    port: u16,
    /// How long the answer is awaited
    #[arg(long, value_name = "SPAN", default_value = "10m")]
    timeout: String,
    #[command(flatten)]
    reporting: Reporting,
}

#[derive(Debug, Args)]
pub(super) struct Permissions {
    /// For which scope
    #[arg(long, value_enum, default_value_t = ScopeKind::Groups)]
    scope: ScopeKind,
    #[command(flatten)]
    reporting: Reporting,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScopeKind {
    All,
    Users,
    Groups,
}

/// Prints the fewest permissions; as JSON, the fragment of an application's manifest that asks for them.
pub(super) fn permissions(arguments: Permissions) -> Result<Exit> {
    let scope = match arguments.scope {
        ScopeKind::All => Scope::All,
        ScopeKind::Users => Scope::Users(Vec::new()),
        ScopeKind::Groups => Scope::Groups(Vec::new()),
    };
    let permissions = needed(&scope);
    match arguments.reporting.output {
        output::Report::Table => output::table(
            &["permission", "service", "why"],
            permissions.iter().map(|needed| vec![needed.name.into(), needed.resource.into(), needed.why.into()]),
        )?,
        output::Report::Json => {
            let mut resources: Vec<(&str, Vec<serde_json::Value>)> = Vec::new();
            for needed in permissions {
                let access = serde_json::json!({ "id": needed.id, "type": "Role" });
                match resources.iter_mut().find(|(id, _)| *id == needed.resource_id) {
                    Some((_, accesses)) => accesses.push(access),
                    None => resources.push((needed.resource_id, vec![access])),
                }
            }
            let fragment: Vec<_> = resources
                .into_iter()
                .map(|(id, accesses)| serde_json::json!({ "resourceAppId": id, "resourceAccess": accesses }))
                .collect();
            output::json(&serde_json::json!({ "requiredResourceAccess": fragment }))?;
        }
    }
    Ok(Exit::DONE)
}

pub(super) async fn authorize(context: &Context, arguments: Authorize) -> Result<Exit> {
    let lake = context.lake()?;
    let registry = Registry::of(&lake);
    let connection = registry.get(&arguments.name).await?;
    let timeout = times::span(&arguments.timeout)
        .and_then(|span| span.to_std().ok())
        .ok_or_else(|| Error::new(Code::Usage, format!("`{}` is not a span of time, like `10m`", arguments.timeout)))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await;
    let listener = listener.or_error(Code::Io, format!("cannot listen on port {} of this machine", arguments.port))?;
    let port = listener.local_addr().or_error(Code::Io, "cannot tell the port")?.port();
    let redirect = Url::parse(&format!("http://localhost:{port}/authorized"))
        .or_error(Code::Internal, "cannot build the redirect address")?;
    let request = ConsentRequest::new(&connection, &redirect, context.clock.now())?;
    output::say(format_args!(
        "Open this address as a global administrator of the tenant, and accept:\n\n  {}\n\nWaiting for the answer on {redirect} …",
        request.url
    ));
    let answer = tokio::select! {
        answer = tokio::time::timeout(timeout, wait(&listener, &request)) => answer,
        () = context.interrupt.cancelled() => return Err(Error::new(Code::Interrupted, "the wait for consent was interrupted")),
    };
    answer.map_err(|_| Error::new(Code::ConsentRefused, format!("no answer came within {}", arguments.timeout)))??;
    let connection = registry.change(&arguments.name, Order::Authorize, &context.who(), context.clock.now()).await?;
    let source = connection.source(context.clock.clone())?;
    // Consent was given; what follows only tells how far it has spread.
    let granted = source.permissions(&connection.scope).await;
    let finding = match &granted {
        Err(error) => Some(format!("no token came yet: {error}")),
        Ok(granted) if granted.is_bare() => Some("the permissions are not in force yet".to_owned()),
        Ok(granted) if !granted.missing.is_empty() => {
            Some(format!("the tokens do not carry {} yet", granted.missing.join(", ")))
        }
        Ok(_) => None,
    };
    match &finding {
        Some(finding) => output::say(format_args!(
            "warning: {finding}; consent takes up to an hour to spread, and runs say `{}` until then",
            Code::ConsentPending
        )),
        None => output::say("The permissions are in force."),
    }
    if let Ok(granted) = &granted
        && !granted.surplus.is_empty()
    {
        output::say(format_args!(
            "warning: the application also has {}, which Waybill does not need; take it from the registration",
            granted.surplus.join(", ")
        ));
    }
    match arguments.reporting.output {
        output::Report::Json => output::json(&serde_json::json!({
            "connection": connection.name, "authorized": connection.authorized, "permissions": granted.ok(), "finding": finding,
        }))?,
        output::Report::Table => output::table(
            &[],
            [vec!["connection".to_owned(), connection.name.clone()], vec!["authorised".to_owned(), "yes".to_owned()]],
        )?,
    }
    Ok(Exit::DONE)
}

/// Answers the browser until the answer to our request comes. What else knocks is told so, and changes nothing.
async fn wait(listener: &TcpListener, request: &ConsentRequest) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.or_error(Code::Io, "cannot take the browser's answer")?;
        // A client that says nothing must not hold up the one that brings the answer.
        let Ok(Ok((target, stream))) = tokio::time::timeout(Duration::from_secs(5), read_target(stream)).await else {
            continue;
        };
        let Ok(url) = Url::parse("http://localhost").and_then(|root| root.join(&target)) else { continue };
        let query: Vec<(Cow<'_, str>, Cow<'_, str>)> = url.query_pairs().collect();
        if url.path() != "/authorized" || !request.is_answered_by(&query) {
            page(stream, "404 Not Found", "This is not the answer that Waybill waits for.").await;
            continue;
        }
        let judged = request.judge(&query);
        match &judged {
            Ok(()) => page(stream, "200 OK", "Consent was given. You can close this page.").await,
            Err(_) => page(stream, "200 OK", "Consent was not given. The terminal says why.").await,
        }
        return judged;
    }
}

async fn read_target(stream: TcpStream) -> std::io::Result<(String, TcpStream)> {
    let mut line = String::new();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(stream, REQUEST_LINE_BYTES));
    reader.read_line(&mut line).await?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((target, reader.into_inner().into_inner()))
}

async fn page(mut stream: TcpStream, status: &str, text: &str) {
    let body = format!("<!doctype html><html lang=\"en\"><title>Waybill</title><p>{text}</p></html>\n");
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         content-security-policy: default-src 'none'; frame-ancestors 'none'\r\nreferrer-policy: no-referrer\r\n\
         x-content-type-options: nosniff\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whether the browser still listens changes nothing.
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.shutdown().await);
}
