//! `waybill doctor`: what is wrong, and what to do about it.

use clap::Args;

use super::exit::Exit;
use super::{Context, output, times};
use crate::connection::Registry;
use crate::doctor::{self, Check, Inquiry, Verdict};
use crate::error::{Code, Result};
use crate::lake::Lake;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake doctor\n  waybill --lake ./lake doctor --connection 'Contoso mail'\n  waybill --lake ./lake doctor --connection 'Contoso mail' --user ann@contoso.example --message-id '<id@contoso.example>'\n\nExit codes: 0 all is well; 3 something to know; 1, 10 or 12 as the first failed check says."
)]
pub(super) struct Arguments {
    /// Only this connection, by display name or id; all of them when absent
    #[arg(long, value_name = "NAME")]
    connection: Option<String>,
    /// Why is this message not there: its Message-ID, angle brackets included
    #[arg(long, value_name = "ID", requires = "connection")]
    message_id: Option<String>,
    /// … who sent it
    #[arg(long, value_name = "ADDRESS", requires = "connection")]
    user: Option<String>,
    /// … and about when
    #[arg(long, value_name = "TIME", requires = "user")]
    at: Option<String>,
    /// How the findings are written
    #[arg(long, value_enum, default_value_t)]
    output: output::Report,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let lake = context.lake()?;
    let registry = Registry::of(&lake);
    if arguments.message_id.is_some() || arguments.user.is_some() {
        let connection = registry.get(arguments.connection.as_deref().unwrap_or_default()).await?;
        let at = arguments.at.as_deref().map(|at| times::parse(at, &context.clock)).transpose()?;
        let inquiry = Inquiry { message_id: arguments.message_id, user: arguments.user, at };
        let answer = doctor::inquire(&lake, &connection, &inquiry, &context.clock).await?;
        match arguments.output {
            output::Report::Json => output::json(&answer)?,
            output::Report::Table => {
                table(&answer.checks)?;
                output::line(&format!("\n{}", answer.conclusion))?;
                if let Some(hint) = answer.checks.last().and_then(|check| check.hint) {
                    output::line(&format!("What to do: {hint}"))?;
                }
            }
        }
        return Ok(Exit::DONE);
    }
    examine(&lake, context, arguments.connection.as_deref(), arguments.output).await
}

/// Examines the lake and one connection.
pub(super) async fn connection(context: &Context, name: &str, format: output::Report) -> Result<Exit> {
    examine(&context.lake()?, context, Some(name), format).await
}

async fn examine(lake: &Lake, context: &Context, name: Option<&str>, format: output::Report) -> Result<Exit> {
    let registry = Registry::of(lake);
    let lake_checks = doctor::examine_lake(lake).await?;
    let mut examinations = Vec::new();
    if lake_checks.first().is_some_and(|check| check.verdict == Verdict::Good) {
        let connections = match name {
            Some(name) => vec![registry.get(name).await?],
            None => registry.list().await?,
        };
        for connection in connections {
            examinations.push(doctor::examine(lake, &connection, &context.clock).await?);
        }
    }
    let all = || lake_checks.iter().chain(examinations.iter().flat_map(|examination| &examination.checks));
    let exit = all().map(exit_of).fold(Exit::DONE, Exit::worse);
    match format {
        output::Report::Json => {
            output::json(
                &serde_json::json!({ "lake": lake_checks, "connections": examinations, "exit_code": exit.0 }),
            )?;
        }
        output::Report::Table => {
            table(&lake_checks)?;
            for examination in &examinations {
                output::line(&format!("\n{}", examination.connection))?;
                table(&examination.checks)?;
            }
            let first = |verdict| all().find(move |check| check.verdict == verdict);
            match first(Verdict::Bad).or_else(|| first(Verdict::Warning)) {
                None => output::line("\nAll is well.")?,
                Some(check) => {
                    let what = check.hint.unwrap_or("nothing, or as the finding says");
                    output::line(&format!("\nFirst of all, {}: {}\nWhat to do: {what}", check.name, check.finding))?;
                }
            }
        }
    }
    Ok(exit)
}

fn exit_of(check: &Check) -> Exit {
    let code = Code::ALL.iter().find(|code| Some(code.as_str()) == check.code);
    match check.verdict {
        Verdict::Good | Verdict::Skipped => Exit::DONE,
        Verdict::Warning => Exit(3),
        Verdict::Bad => Exit(code.map_or(1, |code| code.exit_code())),
    }
}

fn table(checks: &[Check]) -> Result<()> {
    output::table(
        &["", "check", "finding"],
        checks.iter().map(|check| {
            let mark = match check.verdict {
                Verdict::Good => "ok",
                Verdict::Warning => "note",
                Verdict::Bad => "BAD",
                Verdict::Skipped => "-",
            };
            let code = check.code.map(|code| format!(" [{code}]")).unwrap_or_default();
            vec![mark.to_owned(), check.name.to_owned(), format!("{}{code}", check.finding)]
        }),
    )
}
