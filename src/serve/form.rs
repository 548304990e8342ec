//! What a form sent, once it is clear that it came from one of our own pages.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::auth::{Via, Viewer};
use super::problem::Problem;
use crate::error::{Code, Error};
use crate::limits;

/// The hidden field that proves that a form is from one of our pages.
pub(crate) const FORM_TOKEN: &str = "form_token";

/// The fields of a form. It cannot be had unless somebody is signed in and the form is one of ours (or a program sent it
/// with its API token, which no foreign page can).
#[derive(Debug)]
pub(crate) struct Form {
    /// Who sent it.
    pub(crate) viewer: Viewer,
    texts: Vec<(String, String)>,
    files: Vec<(String, File)>,
}

/// An uploaded file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// What the browser says it is called; never a path of ours.
    pub(crate) name: String,
    /// Its bytes, at most [`limits::SERVE_UPLOAD_BYTES`].
    pub(crate) bytes: Bytes,
}

impl Form {
    /// A field, trimmed; empty when it was not sent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.texts.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.trim())
    }

    /// An uploaded file, if one was chosen.
    pub(crate) fn file(&self, name: &str) -> Option<&File> {
        self.files.iter().find(|(other, _)| other == name).map(|(_, file)| file)
    }
}

/// For the one route that takes files: how much it may be sent.
pub(crate) fn upload_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(limits::SERVE_UPLOAD_BYTES)
}

impl FromRequest<Shared> for Form {
    type Rejection = Problem;

    async fn from_request(request: Request, server: &Shared) -> Result<Self, Problem> {
        let viewer = Viewer::of(request.extensions())?;
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let mut form = Self { viewer, texts: Vec::new(), files: Vec::new() };
        match kind.as_str() {
            "multipart/form-data" => form.read_parts(Multipart::from_request(request, server).await).await?,
            "application/x-www-form-urlencoded" => {
                let body = Bytes::from_request(request, server).await;
                let body = body.map_err(|refusal| refused(refusal.status(), &refusal.body_text()))?;
                let pairs = url::form_urlencoded::parse(&body).into_owned();
                form.texts.extend(pairs.take(limits::SERVE_FORM_FIELDS));
            }
            _ => return Err(refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a form was expected")),
        }
        form.check()
    }
}

impl Form {
    async fn read_parts<E: std::fmt::Display>(&mut self, parts: Result<Multipart, E>) -> Result<(), Problem> {
        let mut parts = parts.map_err(|error| refused(StatusCode::BAD_REQUEST, &error.to_string()))?;
        while let Some(field) = parts.next_field().await.map_err(|error| refused(error.status(), &error.body_text()))? {
            if self.texts.len() + self.files.len() >= limits::SERVE_FORM_FIELDS {
                return Err(refused(StatusCode::BAD_REQUEST, "the form has too many fields"));
            }
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().map(str::to_owned);
            let bytes = field.bytes().await.map_err(|error| refused(error.status(), &error.body_text()))?;
            match file_name {
                // A file field without a file is sent with neither name nor bytes.
                Some(file_name) if file_name.is_empty() && bytes.is_empty() => {}
                Some(file_name) => self.files.push((name, File { name: file_name, bytes })),
                None => self.texts.push((name, String::from_utf8_lossy(&bytes).into_owned())),
            }
        }
        Ok(())
    }

    fn check(self) -> Result<Self, Problem> {
        let is_ours = match self.viewer.via {
            Via::Token => true,
            Via::Local | Via::Session => {
                let expected = self.viewer.form_token().expose().as_bytes();
                self.text(FORM_TOKEN).as_bytes().ct_eq(expected).into()
            }
        };
        if !is_ours {
            return Err(refused(StatusCode::FORBIDDEN, "the form is not from a page of this session"));
        }
        Ok(self)
    }
}

fn refused(status: StatusCode, why: &str) -> Problem {
    Problem::new(status, Error::new(Code::RequestRefused, why))
}
