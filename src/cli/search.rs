//! `waybill search`: the common questions without SQL.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;

use super::exit::Exit;
use super::{Context, Memory, output, rows, times};
use crate::clock::{Clock, Time};
use crate::error::{Code, Error, Result, ResultExt};
use crate::search::query::{Criteria, Finding, Query, Selection, Sort};
use crate::search::{QueryMemory, Surface};

/// What a person wants to see of an event first.
const COLUMNS: [&str; 8] =
    ["observed_at", "sender", "recipients", "file_name", "file_size_bytes", "hash_status", "sha256", "subject"];

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake search --sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n  waybill --lake ./lake search --file-name '*.docx' --recipient gmail.com --begin 7d\n  waybill --lake ./lake search --where 'file.category is any (Archive, SourceCode) and email.recipientDomains is not contoso.example'\n\nAn option given several times means any of its values; different options must all be met.\n`*` and `?` are wildcards; upper and lower case do not matter. docs/search.md has the language of --where."
)]
pub(super) struct Arguments {
    /// SHA-256 of the file
    #[arg(long, value_name = "HASH")]
    sha256: Vec<String>,
    /// MD5 of the file
    #[arg(long, value_name = "HASH")]
    md5: Vec<String>,
    /// Name of the file
    #[arg(long, value_name = "NAME")]
    file_name: Vec<String>,
    /// Who sent it
    #[arg(long, value_name = "ADDRESS")]
    sender: Vec<String>,
    /// Who received it: an address, or a domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Vec<String>,
    /// Words of the subject
    #[arg(long, value_name = "TEXT")]
    subject: Vec<String>,
    /// Message-ID with its angle brackets
    #[arg(long, value_name = "ID")]
    message_id: Vec<String>,
    /// Sent at or after: RFC 3339, a day, or a span back from now (7d)
    #[arg(long, short, value_name = "TIME")]
    begin: Option<String>,
    /// Sent before; a day is included
    #[arg(long, short, value_name = "TIME")]
    end: Option<String>,
    /// A filter, such as `file.sizeInBytes > 1000000 and file.category is any (Archive, Pdf)`; all must be met
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<String>,
    /// A query in the JSON form of `/v2/file-events`, from a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    query: Option<String>,
    /// Columns to show, separated by commas; `*` for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// Columns to sort by, each with asc or desc, separated by commas; the newest first without it
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    order: Vec<String>,
    /// At most this many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Pass over this many events first
    #[arg(long, value_name = "COUNT", default_value_t)]
    offset: usize,
    /// Print the equivalent SQL, for `waybill sql`, psql or Spark, and do not search
    #[arg(long)]
    show_sql: bool,
    /// How events are written
    #[arg(long, value_enum, default_value_t)]
    format: rows::Format,
    /// Write them to a file, which appears when it is whole
    #[arg(long, value_name = "FILE", conflicts_with = "show_sql")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    memory: Memory,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let query = query(context, &arguments)?;
    let columns: Vec<String> = if arguments.columns.iter().any(|column| column == "*") {
        Vec::new()
    } else if arguments.columns.is_empty() && arguments.format == rows::Format::Table {
        COLUMNS.map(str::to_owned).to_vec()
    } else {
        arguments.columns
    };
    let order = arguments.order.iter().map(|text| Sort::parse(text)).collect::<Result<Vec<_>>>()?;
    let selection = Selection::new(&columns, &order)?.part(arguments.offset, arguments.limit);
    let now = context.clock.now();
    if arguments.show_sql {
        output::line(&query.sql(&selection, now))?;
        return Ok(Exit::DONE);
    }
    let engine = context.engine(arguments.memory.or(QueryMemory::alone()))?;
    let search = engine.search(&context.asker(Surface::Search)).await?;
    let question = async move { search.file_events(&query, &selection, now).await };
    let answered = rows::once(context, question, arguments.format, arguments.output_file.as_deref()).await;
    context.recorded(&engine).await;
    answered.map(|()| Exit::DONE)
}

/// All that was asked for, whichever way.
fn query(context: &Context, arguments: &Arguments) -> Result<Query> {
    hashes("--sha256", &arguments.sha256, 64)?;
    hashes("--md5", &arguments.md5, 32)?;
    let time = |text: &Option<String>, parse: fn(&str, &Clock) -> Result<Time>| {
        text.as_deref().map(|text| parse(text, &context.clock)).transpose()
    };
    let criteria = Criteria {
        sha256: arguments.sha256.clone(),
        md5: arguments.md5.clone(),
        file_name: arguments.file_name.clone(),
        sender: arguments.sender.clone(),
        recipient: arguments.recipient.clone(),
        subject: arguments.subject.clone(),
        message_id: arguments.message_id.clone(),
        begin: time(&arguments.begin, times::parse)?,
        end: time(&arguments.end, times::parse_end)?,
    };
    let mut query = criteria.query()?;
    for filter in &arguments.filters {
        query = query.and(Query::parse(filter)?);
    }
    if let Some(path) = &arguments.query {
        query = query.and(read(path)?);
    }
    Ok(query)
}

/// A query in its JSON form.
fn read(path: &str) -> Result<Query> {
    let text = if path == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).or_error(Code::Io, "cannot read standard input")?;
        text
    } else {
        std::fs::read_to_string(path).or_error(Code::Io, format!("cannot read `{path}`"))?
    };
    let json = serde_json::from_str(&text).or_error(Code::Usage, format!("`{path}` is no JSON"))?;
    Query::from_json(&json).map_err(|findings| Finding::error(&findings))
}

/// A mistyped hash must not look like a file that nobody sent.
fn hashes(option: &str, values: &[String], digits: usize) -> Result<()> {
    let is_hash =
        |value: &&String| value.trim().len() == digits && value.trim().chars().all(|digit| digit.is_ascii_hexdigit());
    match values.iter().find(|value| !is_hash(value)) {
        Some(value) => Err(Error::new(
            Code::Usage,
            format!("`{option} {value}` is no such hash: it has {digits} hexadecimal digits"),
        )),
        None => Ok(()),
    }
}
