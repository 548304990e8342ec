//! `waybill serve`: the web console, the ports for programs, and their API tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::exit::Exit;
use super::{Context, Memory, output, times};
use crate::error::{Code, Error, Result};
use crate::secret::SecretPlace;
use crate::serve::{Addresses, ApiToken, Config, Role, SignIn, TlsFiles, Tokens, start};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  waybill serve --http 127.0.0.1:8080\n  waybill serve --http 0.0.0.0:443 --tls-cert server.pem --tls-key server.key --config serve.toml\n  waybill serve --postgres 127.0.0.1:5432 --flight 127.0.0.1:32010\n  waybill serve token add --name CI --role viewer\n\nOnce it listens, one JSON line tells where. On a loopback address nobody has to sign in; anything else needs sign-in\nand TLS. See docs/console.md."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, Args)]
struct Serve {
    /// Address of the console and the HTTP API; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Address of the Postgres wire protocol, for psql, drivers and BI tools
    #[arg(long, value_name = "HOST:PORT")]
    postgres: Option<String>,
    /// Address of Arrow Flight SQL, for ADBC and JDBC drivers
    #[arg(long, value_name = "HOST:PORT")]
    flight: Option<String>,
    /// Certificate (PEM), with those between it and its authority
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy in front speaks TLS; nothing that it says about the request is believed
    #[arg(long)]
    behind_proxy: bool,
    /// The address under which browsers reach the console
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Sign-in provider: https://login.microsoftonline.com/TENANT/v2.0
    #[arg(long, value_name = "URL", requires_all = ["oidc_client_id", "oidc_client_secret_env"])]
    oidc_issuer: Option<String>,
    /// The application's id at the provider
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    oidc_client_id: Option<String>,
    /// Environment variable that holds the application's secret
    #[arg(long, value_name = "VAR", requires = "oidc_issuer")]
    oidc_client_secret_env: Option<String>,
    /// Another endpoint than the cloud's for connections that are added in the console: `login=URL`, `graph=URL`, `activity=URL`
    #[arg(long = "endpoint", value_name = "NAME=URL")]
    endpoints: Vec<String>,
    /// TOML with the same and with who has which role (see docs/console.md); options win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    memory: Memory,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// API tokens, with which programs ask
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is shown once
    #[command(after_help = "Example:\n  waybill serve token add --name CI --role viewer --expires 30d")]
    Add {
        /// What it is for
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: RoleName,
        /// How long it is good, at most 400d
        #[arg(long, value_name = "SPAN", default_value = "90d")]
        expires: String,
        /// How to report
        #[arg(long = "output", value_enum, default_value_t, value_name = "FORMAT")]
        reporting: output::Report,
    },
    /// Every token, without what opens anything
    #[command(after_help = "Example:\n  waybill serve token list --output json")]
    List {
        /// How to report
        #[arg(long = "output", value_enum, default_value_t, value_name = "FORMAT")]
        reporting: output::Report,
    },
    /// Take a token back, at once
    #[command(after_help = "Example:\n  waybill serve token remove --name CI")]
    Remove {
        /// The token's name
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    /// Sees the connections and their state.
    Viewer,
    /// Searches what was recorded.
    Analyst,
    /// Changes what is monitored.
    Admin,
}

impl Arguments {
    /// Whether it serves, and is not about tokens.
    pub(super) fn is_service(&self) -> bool {
        self.command.is_none()
    }
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    match arguments.command {
        Some(Command::Token(command)) => token(context, command).await,
        None => serve(context, arguments.serve).await,
    }
}

async fn serve(context: &Context, arguments: Serve) -> Result<Exit> {
    let addresses = Addresses {
        http: arguments.http.clone(),
        flight: arguments.flight.clone(),
        postgres: arguments.postgres.clone(),
    };
    let running =
        start(context.lake()?, context.clock.clone(), &addresses, arguments.config()?, &context.who()).await?;
    output::json(running.urls())?;
    output::flush()?;
    context.interrupt.cancelled().await;
    running.stop().await;
    Ok(Exit::DONE)
}

impl Serve {
    fn config(self) -> Result<Config> {
        let endpoints = self.endpoints;
        let mut config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
        config.behind_proxy |= self.behind_proxy;
        config.query_memory_mb = self.memory.query_memory_mb.or(config.query_memory_mb);
        config.public_url = self.public_url.or(config.public_url);
        if let (Some(certificate), Some(key)) = (self.tls_cert, self.tls_key) {
            config.tls = Some(TlsFiles { certificate, key });
        }
        if let (Some(issuer), Some(client_id), Some(variable)) =
            (self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret_env)
        {
            config.sign_in = Some(SignIn { issuer, client_id, client_secret: SecretPlace::Env(variable) });
        }
        for text in &endpoints {
            let (name, url) = text
                .split_once('=')
                .ok_or_else(|| Error::new(Code::Usage, format!("`--endpoint {text}` is not of the form NAME=URL")))?;
            config.endpoints.set(name, url)?;
        }
        Ok(config)
    }
}

async fn token(context: &Context, command: TokenCommand) -> Result<Exit> {
    let lake = context.lake()?;
    let (tokens, now, by) = (Tokens::of(&lake), context.clock.now(), context.who());
    match command {
        TokenCommand::Add { name, role, expires, reporting } => {
            let span = times::span(&expires)
                .ok_or_else(|| Error::new(Code::Usage, format!("`{expires}` is not a span of time, like `30d`")))?;
            let role = match role {
                RoleName::Viewer => Role::Viewer,
                RoleName::Analyst => Role::Analyst,
                RoleName::Admin => Role::Admin,
            };
            let token = tokens.add(&name, role, &by, now, now + span).await?;
            match reporting {
                output::Report::Json => output::json(&json!({"name": name.trim(), "token": token.expose()}))?,
                output::Report::Table => {
                    output::say("this is shown once; the lake keeps its hash only");
                    output::line(token.expose())?;
                }
            }
        }
        TokenCommand::List { reporting } => list(&tokens.list().await?, reporting)?,
        TokenCommand::Remove { name } => {
            let removed = tokens.remove(&name, &by, now).await?;
            output::say(format_args!("`{}` is good for nothing any more", removed.name));
        }
    }
    Ok(Exit::DONE)
}

fn list(tokens: &[ApiToken], reporting: output::Report) -> Result<()> {
    match reporting {
        output::Report::Json => {
            let shown = |token: &ApiToken| {
                json!({"name": token.name, "role": token.role, "created": token.created, "created_by": token.created_by,
                    "expires": token.expires})
            };
            output::json(&tokens.iter().map(shown).collect::<Vec<_>>())
        }
        output::Report::Table => output::table(
            &["name", "role", "created", "by", "expires"],
            tokens.iter().map(|token| {
                let day = |time: crate::clock::Time| time.format("%Y-%m-%d").to_string();
                let (created, expires) = (day(token.created), day(token.expires));
                vec![token.name.clone(), token.role.to_string(), created, token.created_by.clone(), expires]
            }),
        ),
    }
}
