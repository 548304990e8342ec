//! The parts of a page: the frame around it, and what pages are made of.
//!
//! Everything is written by `maud`, which escapes texts. Pages work without scripts, and load nothing but the style sheet,
//! the icon and, where it saves a click, a small script of this server, each under a name that changes with its content.

use std::sync::LazyLock;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, Render, html};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::serve::Shared;
use crate::serve::auth::{Role, Via, Viewer};
use crate::serve::form::FORM_TOKEN;
use crate::serve::headers::FormsMayLeadTo;

/// A page as it will be sent.
pub(crate) struct Page {
    status: StatusCode,
    title: String,
    viewer: Option<Viewer>,
    section: Option<Section>,
    forms_may_lead_to: Option<String>,
    is_wide: bool,
    body: Markup,
}

/// A part of the console that the navigation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Who is monitored.
    Connections,
    /// What was sent.
    Search,
}

impl Section {
    const ALL: [Self; 2] = [Self::Connections, Self::Search];

    /// Who is shown the way there.
    fn needs(self) -> Role {
        match self {
            Self::Connections => Role::Viewer,
            Self::Search => Role::Analyst,
        }
    }

    fn path_and_name(self) -> (&'static str, &'static str) {
        match self {
            Self::Connections => ("/connections", "Data Connections"),
            Self::Search => ("/search", "Forensic Search"),
        }
    }
}

/// A page with a title and a body, for whoever looks at it.
pub(crate) fn page(title: &str, viewer: Option<&Viewer>, body: Markup) -> Page {
    let (title, viewer) = (title.to_owned(), viewer.cloned());
    Page { status: StatusCode::OK, title, viewer, section: None, forms_may_lead_to: None, is_wide: false, body }
}

impl Page {
    /// Marks where in the console the page is.
    #[must_use]
    pub(crate) fn section(mut self, section: Section) -> Self {
        self.section = Some(section);
        self
    }

    /// A page of wide tables: it takes the whole window, and has the script that helps with forms.
    #[must_use]
    pub(crate) fn wide(mut self) -> Self {
        self.is_wide = true;
        self
    }

    /// Another status than 200; 422 for a form that has to be filled in again.
    #[must_use]
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Lets forms of this page lead to another host in the end (the consent page): scheme, host and port.
    #[must_use]
    pub(crate) fn forms_may_lead_to(mut self, origin: String) -> Self {
        self.forms_may_lead_to = Some(origin);
        self
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let markup = frame(&self);
        let mut response = (self.status, Html(markup.into_string())).into_response();
        if let Some(origin) = self.forms_may_lead_to {
            response.extensions_mut().insert(FormsMayLeadTo(origin));
        }
        response
    }
}

fn frame(page: &Page) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · Waybill" }
                link rel="icon" type="image/svg+xml" href=(ICON.path);
                link rel="stylesheet" href=(STYLE.path);
                @if page.is_wide { script src=(SCRIPT.path) defer {} }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "Waybill" }
                    @if let Some(viewer) = &page.viewer {
                        nav aria-label="Console" {
                            @for section in Section::ALL.into_iter().filter(|section| viewer.may(section.needs())) {
                                @let (path, name) = section.path_and_name();
                                a href=(path) aria-current=[(page.section == Some(section)).then_some("page")] { (name) }
                            }
                        }
                    }
                    @if let Some(viewer) = &page.viewer { (who(viewer)) }
                }
                main #content .wide[page.is_wide] tabindex="-1" {
                    h1 { (page.title) }
                    (page.body)
                }
            }
        }
    }
}

/// Who is signed in, and the way out.
fn who(viewer: &Viewer) -> Markup {
    html! {
        div.who {
            span { span.hidden { "Signed in as " } (viewer.who) " " span.role { (viewer.role) } }
            @if viewer.via == Via::Session {
                (form(viewer, "/sign-out", html! { button.quiet type="submit" { "Sign out" } }))
            }
        }
    }
}

/// How something is; each kind has its colour, its sign and its word, so that none of them is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Good to know.
    Info,
    /// As it should be.
    Good,
    /// Look at it some time.
    Warning,
    /// Something does not work.
    Error,
    /// Deliberately at rest.
    Resting,
}

impl Kind {
    fn class(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Resting => "resting",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Info => "i",
            Self::Good => "✓",
            Self::Warning => "!",
            Self::Error => "✕",
            Self::Resting => "Ⅱ",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Info => "Note",
            Self::Good => "Done",
            Self::Warning => "Warning",
            Self::Error => "Error",
            Self::Resting => "At rest",
        }
    }
}

/// A message bar: what is the matter, and the one thing to do about it.
pub(crate) fn alert(kind: Kind, title: &str, text: &str, remedy: Option<&str>) -> Markup {
    let role = if matches!(kind, Kind::Error | Kind::Warning) { "alert" } else { "status" };
    html! {
        div class={ "alert " (kind.class()) } role=(role) {
            span.sign aria-hidden="true" { (kind.sign()) }
            div {
                p.title { span.hidden { (kind.word()) ": " } (title) }
                p { (sentence(text)) }
                @if let Some(remedy) = remedy { p.remedy { strong { "What to do: " } (prose(remedy)) } }
            }
        }
    }
}

/// A failure as a message bar, with the remedy of its code.
pub(crate) fn failure(title: &str, error: &Error) -> Markup {
    alert(Kind::Error, title, error.message(), error.hint())
}

/// An error's text as a sentence: messages begin small and have no full stop, as they get joined to others.
pub(crate) fn sentence(text: &str) -> Markup {
    let mut letters = text.chars();
    let text = letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    let stop = if text.ends_with(['.', '!', '?']) || text.is_empty() { "" } else { "." };
    prose(&format!("{text}{stop}"))
}

/// Text with `literals` in backticks, as messages and remedies have them.
pub(crate) fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A short word for how something is.
pub(crate) fn badge(kind: Kind, text: &str) -> Markup {
    html! { span class={ "badge " (kind.class()) } { span.sign aria-hidden="true" { (kind.sign()) } " " (text) } }
}

/// A table; each row has a cell per header.
pub(crate) fn table(caption: &str, headers: &[&str], rows: impl IntoIterator<Item = Vec<Markup>>) -> Markup {
    table_of(caption, headers, rows.into_iter().map(|cells| Row { cells, is_failing: false }))
}

/// A row of a table.
pub(crate) struct Row {
    /// One per header.
    pub(crate) cells: Vec<Markup>,
    /// Whether it is about something that does not work.
    pub(crate) is_failing: bool,
}

/// A table whose rows may be marked as failing. It scrolls by itself where it is too wide.
pub(crate) fn table_of(caption: &str, headers: &[&str], rows: impl IntoIterator<Item = Row>) -> Markup {
    html! {
        div.scroll role="region" aria-label=(caption) tabindex="0" {
            table {
                caption { (caption) }
                thead { tr { @for header in headers { th scope="col" { (header) } } } }
                tbody {
                    @for row in rows {
                        tr.failing[row.is_failing] {
                            @for (index, cell) in row.cells.iter().enumerate() {
                                @if index == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Names and what they stand for.
pub(crate) fn definitions<'a>(items: impl IntoIterator<Item = (&'a str, Markup)>) -> Markup {
    html! { dl { @for (name, value) in items { div { dt { (name) } dd { (value) } } } } }
}

/// A form that only this viewer's pages can send.
pub(crate) fn form(viewer: &Viewer, action: &str, body: impl Render) -> Markup {
    html! { form method="post" action=(action) { (token(viewer)) (body) } }
}

/// A form with files in it.
pub(crate) fn upload_form(viewer: &Viewer, action: &str, body: impl Render) -> Markup {
    html! { form method="post" action=(action) enctype="multipart/form-data" { (token(viewer)) (body) } }
}

fn token(viewer: &Viewer) -> Markup {
    html! { input type="hidden" name=(FORM_TOKEN) value=(viewer.form_token().expose()); }
}

/// A line of a form to type into.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Field<'a> {
    /// What the form calls it.
    pub(crate) name: &'a str,
    /// What people call it.
    pub(crate) label: &'a str,
    /// What is in it.
    pub(crate) value: &'a str,
    /// What to write there.
    pub(crate) hint: &'a str,
    /// What is wrong with what was written there.
    pub(crate) error: Option<&'a str>,
    /// Whether it may not be empty.
    pub(crate) is_required: bool,
}

/// A line to type into.
pub(crate) fn field(field: &Field<'_>) -> Markup {
    labelled(
        field,
        html! {
            input #(field.name) type="text" name=(field.name) value=(field.value) required[field.is_required]
                aria-invalid=[field.error.map(|_| "true")] aria-describedby=[described_by(field)];
        },
    )
}

/// A file to choose; `value` has no use here, as browsers do not let a page choose.
pub(crate) fn upload(field: &Field<'_>, accept: &str) -> Markup {
    labelled(
        field,
        html! {
            input #(field.name) type="file" name=(field.name) accept=(accept) required[field.is_required]
                aria-invalid=[field.error.map(|_| "true")] aria-describedby=[described_by(field)];
        },
    )
}

/// One of several: values with their words. `field.value` is the chosen one.
pub(crate) fn choice(field: &Field<'_>, options: &[(&str, &str)]) -> Markup {
    html! {
        fieldset.field aria-describedby=[described_by(field)] {
            legend { (field.label) }
            (hint_and_error(field))
            @for (value, words) in options {
                label.option {
                    input type="radio" name=(field.name) value=(value) checked[*value == field.value]
                        required[field.is_required];
                    " " (words)
                }
            }
        }
    }
}

fn labelled(field: &Field<'_>, input: Markup) -> Markup {
    html! { div.field { label for=(field.name) { (field.label) } (hint_and_error(field)) (input) } }
}

fn hint_and_error(field: &Field<'_>) -> Markup {
    html! {
        @if !field.hint.is_empty() { p.hint id={ (field.name) "-hint" } { (prose(field.hint)) } }
        @if let Some(error) = field.error {
            p.wrong id={ (field.name) "-error" } { span aria-hidden="true" { "✕ " } (sentence(error)) }
        }
    }
}

fn described_by(field: &Field<'_>) -> Option<String> {
    let mut ids = Vec::new();
    if !field.hint.is_empty() {
        ids.push(format!("{}-hint", field.name));
    }
    if field.error.is_some() {
        ids.push(format!("{}-error", field.name));
    }
    (!ids.is_empty()).then(|| ids.join(" "))
}

/// What a button is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Button {
    /// The thing to do on this page; at most one.
    Main,
    /// Something else.
    Plain,
    /// What cannot be taken back.
    Danger,
}

/// A button that sends its form.
pub(crate) fn button(kind: Button, text: &str) -> Markup {
    let class = match kind {
        Button::Main => "main",
        Button::Plain => "plain",
        Button::Danger => "danger",
    };
    html! { button class=(class) type="submit" { (text) } }
}

/// A bar of a chart.
pub(crate) struct Bar {
    /// What it stands for, in words: a time, mostly.
    pub(crate) label: String,
    /// Its height.
    pub(crate) value: u64,
    /// How it went.
    pub(crate) kind: Kind,
}

/// Bars from left to right, in one picture; a table beside it says the same in words. `id` is unique on the page.
pub(crate) fn bar_chart(id: &str, title: &str, headers: [&str; 2], bars: &[Bar]) -> Markup {
    const HEIGHT: u64 = 60;
    const WIDTH: u64 = 10;
    const STEP: u64 = 14;
    let most = bars.iter().map(|bar| bar.value).max().unwrap_or(0).max(1);
    let failing = bars.iter().filter(|bar| bar.kind == Kind::Error).count();
    let description =
        format!("{} bars from oldest to newest, the highest {most}, {failing} of them failed.", bars.len());
    let width = (bars.len() as u64 * STEP).max(STEP);
    html! {
        figure.chart {
            svg viewBox={ "0 0 " (width) " " (HEIGHT + 2) } width=(width) height=(HEIGHT + 2) role="img"
                aria-labelledby={ (id) "-title " (id) "-text" } {
                title id={ (id) "-title" } { (title) }
                desc id={ (id) "-text" } { (description) }
                @for (index, bar) in bars.iter().enumerate() {
                    // One that is 0 shows as a line, so that it can be told from none.
                    @let height = (u128::from(bar.value) * u128::from(HEIGHT) / u128::from(most)).max(1) as u64;
                    rect class=(bar.kind.class()) x=(index as u64 * STEP + 2) y=(HEIGHT + 1 - height) width=(WIDTH)
                        height=(height) rx="1" { title { (bar.label) ": " (bar.value) } }
                }
            }
            figcaption {
                details {
                    summary { (title) " as a table" }
                    (table(title, &[headers[0], headers[1], "Outcome"], bars.iter().map(|bar| vec![
                        html! { (bar.label) }, html! { (bar.value) }, html! { (bar.kind.word()) },
                    ])))
                }
            }
        }
    }
}

/// Something that never changes under its name.
struct Asset {
    path: String,
    etag: HeaderValue,
    kind: HeaderValue,
    bytes: &'static [u8],
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| asset("style", "css", "text/css; charset=utf-8", include_bytes!("style.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| asset("search", "js", "text/javascript; charset=utf-8", include_bytes!("search/search.js")));
static ICON: LazyLock<Asset> = LazyLock::new(|| asset("icon", "svg", "image/svg+xml", include_bytes!("icon.svg")));

fn asset(name: &str, extension: &str, kind: &'static str, bytes: &'static [u8]) -> Asset {
    let hash: String = Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    // Hex digits in quotes are a header's value.
    let etag = HeaderValue::from_str(&format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""));
    Asset { path: format!("/assets/{name}-{hash}.{extension}"), etag, kind: HeaderValue::from_static(kind), bytes }
}

impl Asset {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let is_known = headers.get(IF_NONE_MATCH).is_some_and(|etag| *etag == self.etag);
        let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { self.bytes.into_response() };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.kind.clone());
        headers.insert(ETAG, self.etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        response
    }
}

/// What every page loads.
pub(in crate::serve) fn assets() -> Router<Shared> {
    Router::new()
        .route(&STYLE.path, get(async |headers: HeaderMap| STYLE.answer(&headers)))
        .route(&SCRIPT.path, get(async |headers: HeaderMap| SCRIPT.answer(&headers)))
        .route(&ICON.path, get(async |headers: HeaderMap| ICON.answer(&headers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_literals_are_marked() {
        assert_eq!(sentence("cannot read `<b>`").into_string(), "Cannot read <code>&lt;b&gt;</code>.");
        let text = alert(Kind::Error, "<script>", "x", Some("do `y`")).into_string();
        assert!(text.contains("&lt;script&gt;") && text.contains("do <code>y</code>"), "{text}");
    }

    #[test]
    fn the_style_sheet_is_small_and_asks_no_other_host() {
        let style = std::str::from_utf8(STYLE.bytes).unwrap();
        assert!(style.len() < 12_000, "{}", style.len());
        assert!(!style.contains("url(") && !style.contains("@import"));
    }

    #[test]
    fn a_chart_says_in_words_what_it_shows() {
        let bars = [("mon", 0, Kind::Good), ("tue", 7, Kind::Error)].map(|(label, value, kind)| Bar {
            label: label.to_owned(),
            value,
            kind,
        });
        let text = bar_chart("runs", "Rows per run", ["Run", "Rows"], &bars).into_string();
        assert!(text.contains("2 bars from oldest to newest, the highest 7, 1 of them failed."), "{text}");
        assert!(text.contains("aria-labelledby=\"runs-title runs-text\"") && text.contains("<caption>Rows per run"));
    }
}
