//! `waybill export`: events as files elsewhere, from where the last export ended.

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::{Context, Memory, output, times};
use crate::error::{Code, Error, Result};
use crate::export::{Export, Format, SecurityLake};
use crate::lake::Outlet;
use crate::limits;
use crate::search::query::{Criteria, Query};
use crate::search::{QueryMemory, Surface};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake export --to ./out --format parquet\n  waybill --lake ./lake export --to - --format csv --where 'file.category is Archive' > archives.csv\n  waybill --lake ./lake export --to s3://security-lake-bucket --format ocsf-parquet --source waybill --region eu-central-1 --account 123456789012\n\nThe same command again exports what became searchable meanwhile. docs/export.md has more."
)]
pub(super) struct Arguments {
    /// Where to: a path, s3://…, az://… or gs://…; `-` is standard output
    #[arg(long, value_name = "URL")]
    to: String,
    /// The form of the files
    #[arg(long, value_enum)]
    format: Kind,
    /// Which view or table: file_events, events, or one of docs/views.md
    #[arg(long, value_name = "NAME")]
    view: Option<String>,
    /// A filter, such as `file.category is any (Archive, Pdf)`; all must be met
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<String>,
    /// Sent at or after: RFC 3339 or a day
    #[arg(long, short, value_name = "TIME")]
    begin: Option<String>,
    /// Sent before; a day is included
    #[arg(long, short, value_name = "TIME")]
    end: Option<String>,
    /// A file is full at about this many megabytes
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=limits::EXPORT_FILE_MB))]
    file_mb: u64,
    #[command(flatten)]
    memory: Memory,
    /// Amazon Security Lake: name of the custom source, the folder below `ext/`
    #[arg(long, value_name = "NAME", requires_all = ["region", "account"])]
    source: Option<String>,
    /// Amazon Security Lake: the AWS region
    #[arg(long, value_name = "REGION", requires = "source")]
    region: Option<String>,
    /// Amazon Security Lake: the AWS account
    #[arg(long, value_name = "ID", requires = "source")]
    account: Option<String>,
    /// How the summary is written
    #[arg(long, value_enum, default_value_t)]
    output: output::Report,
}

/// The form of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Comma-separated with a header, safe to open in a spreadsheet.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Parquet with zstd.
    Parquet,
    /// A Delta table: Parquet with zstd, and a log.
    Delta,
    /// OCSF events in the layout of a custom source of Amazon Security Lake.
    OcsfParquet,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let export = export(context, &arguments)?;
    let now = context.clock.now();
    let is_stream = arguments.to == "-";
    // It runs beside other jobs, and is about as fast when it sorts on disk.
    let usual = QueryMemory::alone().min(QueryMemory::of_mb(limits::EXPORT_MEMORY_MB));
    let engine = context.engine(arguments.memory.or(usual))?;
    let search = engine.search(&context.asker(Surface::Export)).await?;
    let exported = async {
        if is_stream {
            export.stream(&search, now, output::bytes).await?;
            return Ok(None);
        }
        let exporting = async { export.run(&search, &Outlet::at(&arguments.to)?, now).await };
        match context.interrupt.run_until_cancelled(Box::pin(exporting)).await {
            Some(exported) => exported.map(Some),
            None => {
                Err(Error::new(Code::Interrupted, "the export goes on from its last file when it is started again"))
            }
        }
    };
    let exported = Box::pin(exported).await;
    context.recorded(&engine).await;
    if let Some(exported) = exported? {
        match arguments.output {
            output::Report::Json => output::json(&exported)?,
            output::Report::Table => output::table(
                &["rows", "files", "bytes"],
                [vec![exported.rows.to_string(), exported.files.to_string(), exported.bytes.to_string()]],
            )?,
        }
    }
    Ok(Exit::DONE)
}

fn export(context: &Context, arguments: &Arguments) -> Result<Export> {
    let time = |text: &Option<String>, parse: fn(&str, &crate::clock::Clock) -> Result<crate::clock::Time>| {
        text.as_deref().map(|text| parse(text, &context.clock)).transpose()
    };
    let (begin, end) = (time(&arguments.begin, times::parse)?, time(&arguments.end, times::parse_end)?);
    let mut query = Criteria { begin, end, ..Criteria::default() }.query()?;
    for filter in &arguments.filters {
        query = query.and(Query::parse(filter)?);
    }
    let (format, usual) = match arguments.format {
        Kind::Csv => (Format::Csv, "file_events"),
        Kind::Ndjson => (Format::Ndjson, "file_events"),
        Kind::Parquet => (Format::Parquet, "file_events"),
        Kind::Delta => (Format::Delta, "file_events"),
        Kind::OcsfParquet => (Format::Parquet, "ocsf_email_file_activity"),
    };
    let view = arguments.view.clone().unwrap_or_else(|| usual.to_owned());
    let security_lake = match (arguments.format, &arguments.source, &arguments.region, &arguments.account) {
        (Kind::OcsfParquet, Some(source), Some(region), Some(account)) => {
            if !view.starts_with("ocsf_") {
                return Err(Error::new(Code::Usage, format!("`{view}` has no OCSF events for Amazon Security Lake")));
            }
            let (source, region, account) = (source.clone(), region.clone(), account.clone());
            Some(SecurityLake { source, region, account })
        }
        (Kind::OcsfParquet, ..) => {
            return Err(Error::new(Code::Usage, "`ocsf-parquet` needs `--source`, `--region` and `--account`"));
        }
        (_, None, ..) => None,
        _ => return Err(Error::new(Code::Usage, "`--source` is only for `--format ocsf-parquet`")),
    };
    let file_bytes = usize::try_from(arguments.file_mb * 1024 * 1024).unwrap_or(usize::MAX);
    Ok(Export { view, query, format, security_lake, file_bytes })
}
