//! `waybill simulate`: a Microsoft 365 tenant on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::exit::Exit;
use super::{Context, output, times};
use crate::error::{Code, Error, Result, ResultExt};
use crate::simulator::{Content, Faults, Generate, Options, Subscription, start};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  waybill simulate --corpus mails/ --shift-dates now --listen 127.0.0.1:0\n  waybill simulate --audit export.csv\n  waybill simulate --generate users=50,messages=2000,days=3,seed=7\n\nOnce it listens, one JSON line tells where: login, graph, activity, tenant_id, client_id, client_secret, users.\n`GET /_simulator/report` says what was asked of it."
)]
pub(super) struct Arguments {
    /// Directory of .eml files, searched below: mailboxes with sent messages
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// Exported audit log whose records are served as they are: JSON lines, a JSON array, or CSV with AuditData
    #[arg(long, value_name = "FILE")]
    audit: Vec<PathBuf>,
    /// A generated tenant: users=…,messages=…,days=…,seed=…[,attachments=…][,size=…][,sends=…]
    #[arg(long, value_name = "WORDS")]
    generate: Option<String>,
    /// Move the corpus's dates so that the newest mail was sent just now
    #[arg(long, value_enum, value_name = "now")]
    shift_dates: Option<ShiftDates>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What goes wrong, JSON (see docs/simulator.md)
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Whether the audit subscription is on when it starts
    #[arg(long, value_enum, default_value_t = SubscriptionState::On)]
    subscription: SubscriptionState,
    /// The span before the start over which the audit content became available
    #[arg(long, value_name = "SPAN", default_value = "1h")]
    content_over: String,
    /// Records of a content blob
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    blob_records: usize,
    /// Content blobs on a page of a listing
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    page_blobs: usize,
    /// Speak https, with a certificate of an authority made at the start
    #[arg(long)]
    tls: bool,
    /// Write that authority's certificate (PEM) to a file
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// Certificate (PEM) that the application has registered for signed assertions
    #[arg(long, value_name = "FILE")]
    client_certificate: Option<PathBuf>,
    /// Whether the tenant's administrator has consented to the application before the start
    #[arg(long, value_enum, default_value_t = ConsentState::Given)]
    consent: ConsentState,
    /// How long consent that is given on the page takes until tokens carry its permissions
    #[arg(long, value_name = "SPAN", default_value = "0s")]
    consent_spreads: String,
    /// Ids and everything else that looks random follow from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShiftDates {
    /// The newest mail was sent just now.
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConsentState {
    /// Long ago.
    Given,
    /// Not yet: tokens carry no permission until somebody accepts on the consent page.
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SubscriptionState {
    /// Started long ago: all content is there.
    On,
    /// Not started yet.
    Off,
}

pub(super) async fn main(context: &Context, arguments: Arguments) -> Result<Exit> {
    let running = start(arguments.options()?)
        .await
        .map_err(|error| Error::new(Code::Configuration, format!("cannot simulate: {error}")).caused_by(error))?;
    output::json(running.announcement())?;
    output::flush()?;
    context.interrupt.cancelled().await;
    running.stop().await;
    Ok(Exit::DONE)
}

impl Arguments {
    fn options(self) -> Result<Options> {
        let mut content: Vec<Content> = self.corpus.into_iter().map(Content::Corpus).collect();
        content.extend(self.audit.into_iter().map(Content::Audit));
        if let Some(words) = &self.generate {
            let generate: Generate = words
                .parse()
                .map_err(|error| Error::new(Code::Usage, format!("cannot use `--generate {words}`: {error}")))?;
            content.push(Content::Generate(generate));
        }
        if content.is_empty() {
            return Err(Error::new(Code::Usage, "there is nothing to simulate: give --corpus, --audit or --generate"));
        }
        let span = |text: &str| {
            times::span(text)
                .and_then(|span| span.to_std().ok())
                .ok_or_else(|| Error::new(Code::Usage, format!("`{text}` is not a span of time, like `1h` or `7d`")))
        };
        let (content_over, consent_spreads) = (span(&self.content_over)?, span(&self.consent_spreads)?);
        let read = |path: PathBuf| Faults::read(&path).or_error(Code::Configuration, "cannot use the faults file");
        Ok(Options {
            content,
            shift_dates_now: self.shift_dates.is_some(),
            listen: self.listen,
            faults: self.faults.map(read).transpose()?,
            subscription: match self.subscription {
                SubscriptionState::On => Subscription::StartedLongAgo,
                SubscriptionState::Off => Subscription::Off,
            },
            content_over,
            blob_records: self.blob_records,
            page_blobs: self.page_blobs,
            tls: self.tls,
            ca_file: self.ca_file,
            client_certificate: self.client_certificate,
            is_consented: self.consent == ConsentState::Given,
            consent_spreads,
            seed: self.seed,
        })
    }
}
