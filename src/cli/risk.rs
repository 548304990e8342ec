//! `waybill risk`: the rules by which events are scored, and the domains that are trusted.

use std::path::PathBuf;

use chrono::NaiveDate;
use clap::Subcommand;
use serde_json::json;

use super::exit::Exit;
use super::{Context, output};
use crate::error::{Code, Error, Result, ResultExt};
use crate::search::RiskRules;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The rules in force, as a file that `set` takes
    #[command(after_help = "Example:\n  waybill --lake ./lake risk show > risk.toml")]
    Show,
    /// Replace the lake's own rules; every answer follows them from now on
    #[command(after_help = "Example:\n  waybill --lake ./lake risk set risk.toml")]
    Set {
        /// TOML, as docs/risk.md describes it
        file: PathBuf,
    },
    /// Go back to the rules that Waybill comes with; no domain is trusted then
    #[command(after_help = "Example:\n  waybill --lake ./lake risk reset")]
    Reset,
    /// Domains to which files may go
    #[command(subcommand)]
    Trust(Trust),
}

#[derive(Debug, Subcommand)]
pub(super) enum Trust {
    /// Trust a domain from a day on; what was sent before stays as it is
    #[command(after_help = "Example:\n  waybill --lake ./lake risk trust add contoso.example --from 2026-01-01")]
    Add {
        /// The domain; a scheme, a path and `www.` are taken off
        domain: String,
        /// The first day (UTC); today without it
        #[arg(long, value_name = "DAY")]
        from: Option<NaiveDate>,
        /// And every domain below it
        #[arg(long)]
        include_subdomains: bool,
    },
    /// The domains that are trusted, and since when
    #[command(after_help = "Example:\n  waybill --lake ./lake risk trust list --output json")]
    List {
        /// How to report
        #[arg(long = "output", value_enum, default_value_t, value_name = "FORMAT")]
        reporting: output::Report,
    },
    /// Trust a domain no more, at any time
    #[command(after_help = "Example:\n  waybill --lake ./lake risk trust remove contoso.example")]
    Remove {
        /// The domain
        domain: String,
    },
}

pub(super) async fn main(context: &Context, command: Command) -> Result<Exit> {
    let lake = context.lake()?;
    lake.require().await?;
    let (rules, by, now) = (RiskRules::of(&lake), context.who(), context.clock.now());
    match command {
        Command::Show => output::line(rules.show().await?.trim_end())?,
        Command::Set { file } => {
            let text =
                std::fs::read_to_string(&file).or_error(Code::Io, format!("cannot read `{}`", file.display()))?;
            rules.set(&text, &by, now).await.map_err(|error| in_file(&file, error))?;
            output::say("these rules are in force");
        }
        Command::Reset => {
            rules.reset(&by, now).await?;
            output::say("the default rules are in force, and no domain is trusted");
        }
        Command::Trust(Trust::Add { domain, from, include_subdomains }) => {
            let from = from.unwrap_or_else(|| now.date_naive());
            let trusted = rules.trust(&domain, from, include_subdomains, &by, now).await?;
            output::say(format_args!("`{}` is trusted from {} on", trusted.domain, trusted.from));
        }
        Command::Trust(Trust::List { reporting }) => {
            let trusted = rules.trusted().await?;
            match reporting {
                output::Report::Json => {
                    let shown = trusted.iter().map(|trusted| {
                        json!({"domain": trusted.domain, "from": trusted.from,
                            "include_subdomains": trusted.include_subdomains})
                    });
                    output::json(&shown.collect::<Vec<_>>())?;
                }
                output::Report::Table => output::table(
                    &["domain", "from", "subdomains"],
                    trusted.iter().map(|trusted| {
                        let below = if trusted.include_subdomains { "yes" } else { "no" };
                        vec![trusted.domain.clone(), trusted.from.to_string(), below.to_owned()]
                    }),
                )?,
            }
        }
        Command::Trust(Trust::Remove { domain }) => {
            rules.distrust(&domain, &by, now).await?;
            output::say(format_args!("`{domain}` is trusted no more"));
        }
    }
    Ok(Exit::DONE)
}

fn in_file(file: &std::path::Path, error: Error) -> Error {
    error.context(format!("cannot use the rules in `{}`", file.display()))
}
