//! `waybill search`: the common questions without SQL.

use clap::Args;

use super::exit::Exit;
use super::{Context, output, times};
use crate::error::{Code, Error, Result};
use crate::search::{Filter, Surface};

/// What a person wants to see of an event first.
const COLUMNS: [&str; 8] =
    ["observed_at", "sender", "recipients", "file_name", "file_size_bytes", "hash_status", "sha256", "subject"];

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill --lake ./lake search --sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n  waybill --lake ./lake search --file-name '*.docx' --recipient gmail.com --begin 7d\n\nAn option given several times means any of its values; different options must all be met.\n`*` and `?` are wildcards; upper and lower case do not matter."
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
    /// Columns to show, separated by commas; `*` for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
    /// At most this many events, the newest first
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// How events are written
    #[arg(long, value_enum, default_value_t)]
    format: output::Rows,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    hashes("--sha256", &arguments.sha256, 64)?;
    hashes("--md5", &arguments.md5, 32)?;
    let filter = Filter {
        sha256: arguments.sha256,
        md5: arguments.md5,
        file_name: arguments.file_name,
        sender: arguments.sender,
        recipient: arguments.recipient,
        subject: arguments.subject,
        message_id: arguments.message_id,
        begin: arguments.begin.map(|text| times::parse(&text, &context.clock)).transpose()?,
        end: arguments.end.map(|text| times::parse_end(&text, &context.clock)).transpose()?,
    };
    let columns: Vec<String> = if arguments.columns.iter().any(|column| column == "*") {
        Vec::new()
    } else if arguments.columns.is_empty() && arguments.format == output::Rows::Table {
        COLUMNS.map(str::to_owned).to_vec()
    } else {
        arguments.columns
    };
    let engine = context.engine()?;
    let search = engine.search(&context.asker(Surface::Search)).await?;
    let answered =
        async { output::rows(search.file_events(&filter, &columns, arguments.limit).await?, arguments.format).await };
    let answered = answered.await;
    context.recorded(&engine).await;
    answered
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
