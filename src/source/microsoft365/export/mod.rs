//! An exported audit log in place of the feed, which forgets after seven days.
//!
//! [`Exported`] is a source whose blobs are files; whatever else is asked of it, it asks its service. The files are what
//! people have: the CSV of a Purview search or of `Search-UnifiedAuditLog | Export-Csv`, whose column `AuditData` holds
//! the record (<https://learn.microsoft.com/purview/audit-log-export-records>), the JSON of the same rows, or records as
//! the feed gives them, in an array or one a line; in UTF-8 or UTF-16. They are read as they come, with one record in
//! memory at a time.

mod csv;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use encoding_rs::{CoderResult, Decoder, UTF_16BE, UTF_16LE};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use self::csv::Rows;
use super::record::Records;
use crate::clock::Time;
use crate::error::{Code, Error, Result, ResultExt as _};
use crate::limits;
use crate::source::{
    AttachmentBody, AttachmentRef, ContentBlob, Feed, Message, RecordChunk, ResolvedScope, Scope, SendRecord, Source,
    Usage, Window,
};

/// A service whose audit log is read from exported files.
pub struct Exported<S> {
    service: Arc<S>,
    files: Vec<File>,
    wanted: Wanted,
}

/// An exported file, called by its name in rows and messages.
#[derive(Clone)]
struct File {
    id: String,
    path: PathBuf,
}

/// Which sends count.
#[derive(Clone, Copy)]
struct Wanted {
    tenant_id: Uuid,
    from: Option<Time>,
    to: Option<Time>,
}

impl<S: Source> Exported<S> {
    /// The sends of a tenant in these files that were made in `[from, to)`. Looks at the beginning of each file.
    ///
    /// # Errors
    /// `io` when a file cannot be read, `configuration` when one is no exported audit log.
    pub fn open(
        service: Arc<S>,
        tenant_id: Uuid,
        paths: &[PathBuf],
        from: Option<Time>,
        to: Option<Time>,
    ) -> Result<Self> {
        let mut files: Vec<File> = Vec::with_capacity(paths.len());
        for path in paths {
            look_at(path).map_err(|error| error.context(cannot_read(path)))?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let mut id = format!("export:{name}");
            let mut number = 2;
            while files.iter().any(|file| file.id == id) {
                id = format!("export:{name}#{number}");
                number += 1;
            }
            files.push(File { id, path: path.clone() });
        }
        Ok(Self { service, files, wanted: Wanted { tenant_id, from, to } })
    }
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}

/// Fails when a file's beginning is that of no export.
fn look_at(path: &Path) -> Result<()> {
    let doing = "it is not there, or may not be read";
    let mut beginning = Vec::with_capacity(limits::FILE_PIECE_BYTES);
    let file = std::fs::File::open(path).or_error(Code::Io, doing)?;
    file.take(limits::FILE_PIECE_BYTES as u64).read_to_end(&mut beginning).or_error(Code::Io, doing)?;
    let mut reader = Reader::default();
    reader.split(&beginning)?;
    if beginning.len() < limits::FILE_PIECE_BYTES {
        reader.finish()?;
    }
    Ok(())
}

impl<S: Source> Source for Exported<S> {
    /// The feed is not asked, so that it need not be on.
    async fn prepare(&self) -> Result<Feed> {
        Ok(Feed::On)
    }

    /// The files, whatever the window.
    async fn list(&self, window: Window) -> Result<Vec<ContentBlob>> {
        let blob = |file: &File| ContentBlob {
            id: file.id.clone(),
            uri: file.id.clone(),
            created: window.start(),
            expires: window.end(),
        };
        Ok(self.files.iter().map(blob).collect())
    }

    fn read(&self, blob: &ContentBlob) -> BoxStream<'static, Result<RecordChunk>> {
        let (file, wanted) = (self.files.iter().find(|file| file.id == blob.id).cloned(), self.wanted);
        let id = blob.id.clone();
        let stream = async_stream::try_stream! {
            let file = file.ok_or_else(|| Error::new(Code::Internal, format!("`{id}` is none of the exported files")))?;
            let doing = cannot_read(&file.path);
            let mut input = tokio::fs::File::open(&file.path).await.or_error(Code::Io, &doing)?;
            let mut piece = vec![0; limits::FILE_PIECE_BYTES];
            let mut reader = Reader::default();
            loop {
                let count = input.read(&mut piece).await.or_error(Code::Io, &doing)?;
                if count == 0 {
                    break;
                }
                let chunk = reader.split(&piece[..count]).map_err(|error| error.context(&doing))?;
                yield wanted.of(chunk).map_err(|error| error.context(&doing))?;
            }
            let chunk = reader.finish().map_err(|error| error.context(&doing))?;
            yield wanted.of(chunk).map_err(|error| error.context(&doing))?;
        };
        stream.boxed()
    }

    async fn find(&self, send: &SendRecord) -> Result<Vec<Message>> {
        self.service.find(send).await
    }

    async fn open(&self, attachment: &AttachmentRef) -> Result<AttachmentBody> {
        self.service.open(attachment).await
    }

    async fn resolve_scope(&self, scope: &Scope) -> Result<ResolvedScope> {
        self.service.resolve_scope(scope).await
    }

    fn usage(&self) -> Usage {
        self.service.usage()
    }
}

impl Wanted {
    /// Leaves out what was made at another time. The wrong tenant's log is a mistake of the whole file.
    fn of(&self, mut chunk: RecordChunk) -> Result<RecordChunk> {
        for send in &chunk.sends {
            if let Some(tenant) = send.tenant_id.as_deref().and_then(|id| id.parse::<Uuid>().ok())
                && tenant != self.tenant_id
            {
                let message =
                    format!("its records are of the tenant `{tenant}`, and the connection's is `{}`", self.tenant_id);
                return Err(Error::new(Code::Configuration, message));
            }
        }
        let is_wanted = |time: Time| self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to);
        chunk.sends.retain(|send| is_wanted(send.created));
        Ok(chunk)
    }
}

/// Bytes of a file of unknown encoding and form → records.
#[derive(Default)]
struct Reader {
    /// The first bytes, until they tell the encoding and the form.
    beginning: Vec<u8>,
    encoding: Option<Encoding>,
    form: Option<Form>,
}

enum Encoding {
    /// As it is; a byte that is no UTF-8 is replaced where its record is read.
    Utf8,
    Utf16(Box<Decoder>),
}

enum Form {
    Json(Box<Records>),
    Csv(Rows),
}

impl Reader {
    /// Takes the next piece of the file and gives the records that it completes.
    ///
    /// # Errors
    /// `configuration` when this is no export.
    fn split(&mut self, bytes: &[u8]) -> Result<RecordChunk> {
        // As many bytes as tell UTF-16 without a mark.
        const TELLING: usize = 4;
        if self.encoding.is_none() {
            self.beginning.extend_from_slice(bytes);
            if self.beginning.len() < TELLING {
                return Ok(RecordChunk::default());
            }
            let beginning = std::mem::take(&mut self.beginning);
            return self.begin(&beginning);
        }
        self.decode(bytes, false)
    }

    /// Ends the file.
    ///
    /// # Errors
    /// `configuration` when this was no export.
    fn finish(mut self) -> Result<RecordChunk> {
        let mut all = RecordChunk::default();
        if self.encoding.is_none() {
            let beginning = std::mem::take(&mut self.beginning);
            append(&mut all, self.begin(&beginning)?);
        }
        append(&mut all, self.decode(b"", true)?);
        let rest = match self.form {
            Some(Form::Json(records)) => records.finish()?,
            Some(Form::Csv(rows)) => rows.finish()?,
            // Nothing but blanks: nothing was found when it was exported.
            None => RecordChunk::default(),
        };
        append(&mut all, rest);
        Ok(all)
    }

    /// Tells the encoding; PowerShell writes UTF-16 unless told otherwise, with a mark or without.
    fn begin(&mut self, beginning: &[u8]) -> Result<RecordChunk> {
        let wide = |encoding: &'static encoding_rs::Encoding| {
            Encoding::Utf16(Box::new(encoding.new_decoder_without_bom_handling()))
        };
        let (encoding, mark_bytes) = match beginning {
            [0xff, 0xfe, ..] => (wide(UTF_16LE), 2),
            [0xfe, 0xff, ..] => (wide(UTF_16BE), 2),
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            [first, 0, second, 0, ..] if *first != 0 && *second != 0 => (wide(UTF_16LE), 0),
            [0, first, 0, second, ..] if *first != 0 && *second != 0 => (wide(UTF_16BE), 0),
            _ => (Encoding::Utf8, 0),
        };
        self.encoding = Some(encoding);
        self.decode(&beginning[mark_bytes..], false)
    }

    fn decode(&mut self, bytes: &[u8], is_last: bool) -> Result<RecordChunk> {
        match &mut self.encoding {
            Some(Encoding::Utf16(decoder)) => {
                let mut text = String::new();
                let mut at = 0;
                loop {
                    text.reserve(decoder.max_utf8_buffer_length(bytes.len() - at).unwrap_or(bytes.len()).max(16));
                    // What is no character is replaced.
                    let (result, read, _) = decoder.decode_to_string(&bytes[at..], &mut text, is_last);
                    at += read;
                    match result {
                        CoderResult::InputEmpty => break,
                        CoderResult::OutputFull => {}
                    }
                }
                self.parse(text.as_bytes())
            }
            Some(Encoding::Utf8) | None => self.parse(bytes),
        }
    }

    fn parse(&mut self, text: &[u8]) -> Result<RecordChunk> {
        if self.form.is_none() {
            let Some(first) = text.iter().find(|byte| !byte.is_ascii_whitespace()) else {
                return Ok(RecordChunk::default());
            };
            self.form = Some(match first {
                b'[' | b'{' => Form::Json(Box::new(Records::exported())),
                _ => Form::Csv(Rows::default()),
            });
        }
        match &mut self.form {
            Some(Form::Json(records)) => records.split(text),
            Some(Form::Csv(rows)) => rows.split(text),
            None => Ok(RecordChunk::default()),
        }
    }
}

#[cfg(test)]
impl Reader {
    /// What is held of the file.
    fn held_bytes(&self) -> usize {
        match &self.form {
            Some(Form::Json(records)) => records.held_bytes(),
            Some(Form::Csv(rows)) => rows.held_bytes(),
            None => self.beginning.capacity(),
        }
    }
}

fn append(all: &mut RecordChunk, more: RecordChunk) {
    all.records += more.records;
    all.bytes += more.bytes;
    all.sends.extend(more.sends);
    all.unreadable.extend(more.unreadable);
}

#[cfg(test)]
mod tests;
