//! Whose mail: a new connection, or another scope for one that is there. Both show whom the scope means before anything is
//! saved; between the two steps the list travels in the form, so that the server keeps nothing.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};
use uuid::Uuid;

use crate::connection::preview::{Preview, preview};
use crate::connection::scope_csv::{self, ScopeCsv};
use crate::connection::{Connection, Intent, Layout, Order, Registry, Service, display_name};
use crate::error::{Code, Error, Result};
use crate::secret::SecretPlace;
use crate::serve::auth::{Role, Viewer};
use crate::serve::console::layout::{
    Button, Field, Kind, Page, Section, alert, button, choice, failure, field, page, upload, upload_form,
};
use crate::serve::form::Form;
use crate::serve::problem::Problem;
use crate::serve::{Server, Shared};
use crate::source::microsoft365::{Cloud, Credential};
use crate::source::{Application, Scope};

/// How names of environment variables begin that the console may name: an administrator of the console must not be able to
/// send any other of the server's secrets anywhere.
const SECRET_VARIABLES: &str = "WAYBILL_SECRET";

/// What was filled in.
#[derive(Clone, Default)]
struct Draft {
    name: String,
    tenant: String,
    client_id: String,
    credential: String,
    variable: String,
    cloud: String,
    scope: String,
    /// The scope's list, an entry a line, once it was uploaded.
    entries: String,
}

impl Draft {
    fn of(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            name: text("name"),
            tenant: text("tenant"),
            client_id: text("client_id"),
            credential: text("credential"),
            variable: text("variable"),
            cloud: text("cloud"),
            scope: text("scope"),
            entries: text("entries"),
        }
    }
}

pub(super) async fn page_to_add(viewer: Viewer) -> Result<Page, Problem> {
    viewer.require(Role::Admin)?;
    let draft = Draft {
        credential: "secret".to_owned(),
        variable: SECRET_VARIABLES.to_owned(),
        cloud: Cloud::Worldwide.to_string(),
        scope: "all".to_owned(),
        ..Draft::default()
    };
    Ok(add_page(&viewer, &draft, html! {}))
}

fn add_page(viewer: &Viewer, draft: &Draft, above: Markup) -> Page {
    let clouds: Vec<(String, String)> = Cloud::ALL.iter().map(|cloud| (cloud.to_string(), cloud.to_string())).collect();
    let clouds: Vec<(&str, &str)> = clouds.iter().map(|(value, words)| (value.as_str(), words.as_str())).collect();
    let required =
        |name, label, value, hint| field(&Field { name, label, value, hint, is_required: true, ..Field::default() });
    let body = html! {
        (above)
        (upload_form(viewer, "/connections/add", html! {
            (required("name", "Display name", &draft.name, "Unique in this lake, for example `Contoso mail`"))
            (required("tenant", "Tenant ID", &draft.tenant, "Microsoft Entra admin center, Overview"))
            (required("client_id", "Application (client) ID", &draft.client_id, "App registrations, Overview"))
            (choice(
                &Field { name: "credential", label: "How the application proves who it is", value: &draft.credential, is_required: true, ..Field::default() },
                &[
                    ("secret", "Client secret in an environment variable of this server"),
                    ("certificate", "Certificate and key (PEM) in an environment variable of this server"),
                    ("workload", "Workload identity of the platform"),
                    ("managed", "Managed identity of the Azure machine"),
                ],
            ))
            (field(&Field {
                name: "variable",
                label: "Environment variable",
                value: &draft.variable,
                hint: "Its name, which begins with `WAYBILL_SECRET`; the secret itself is never typed here",
                ..Field::default()
            }))
            (choice(&Field { name: "cloud", label: "Cloud", value: &draft.cloud, is_required: true, ..Field::default() }, &clouds))
            (scope_fields(draft))
            div.actions { (button(Button::Main, "Preview")) a.button.plain href="/connections" { "Cancel" } }
        }))
    };
    page("Add data connection", Some(viewer), body).section(Section::Connections)
}

fn scope_fields(draft: &Draft) -> Markup {
    html! {
        (choice(
            &Field { name: "scope", label: "Whose mail is monitored", value: &draft.scope, is_required: true, ..Field::default() },
            &[("all", "All mailboxes of the tenant"), ("users", "Specific users, by CSV"), ("groups", "Specific groups, by CSV; nested groups are followed")],
        ))
        (upload(
            &Field {
                name: "csv",
                label: "CSV of users or groups",
                hint: "Addresses or object ids, in any column, with or without a header; there is no limit of entries",
                ..Field::default()
            },
            ".csv,.txt,text/csv,text/plain",
        ))
    }
}

pub(super) async fn add(State(server): State<Shared>, form: Form) -> Result<Response, Problem> {
    form.viewer.require(Role::Admin)?;
    let draft = Draft::of(&form);
    let refused = |error: &Error| {
        add_page(&form.viewer, &draft, failure("The connection was not added", error))
            .status(StatusCode::UNPROCESSABLE_ENTITY)
            .into_response()
    };
    let drafted = async {
        let (scope, csv) = read_scope(&draft, &form)?;
        let connection = connection(&server, &draft, scope.clone())?;
        let registry = Registry::of(&server.lake);
        if registry.list().await?.iter().any(|other| other.name.to_lowercase() == connection.name.to_lowercase()) {
            let message = format!("the display name `{}` is taken", connection.name);
            return Err(Error::new(Code::ConnectionConflict, message));
        }
        Ok((connection, csv))
    };
    let (connection, csv) = match drafted.await {
        Ok(drafted) => drafted,
        Err(error) => return Ok(refused(&error)),
    };
    if form.text("step") == "save" {
        return Ok(match Registry::of(&server.lake).add(&connection, &form.viewer.who).await {
            Ok(()) => Redirect::to(&format!("/connections/{}", connection.id)).into_response(),
            Err(error) => refused(&error),
        });
    }
    let asked = async { preview(&connection.source(server.clock.clone())?, &connection.scope, csv.as_ref()).await };
    let shown = shown(asked.await, csv.as_ref());
    let body = html! {
        (shown)
        (upload_form(&form.viewer, "/connections/add", html! {
            @for (name, value) in [
                ("name", &draft.name), ("tenant", &draft.tenant), ("client_id", &draft.client_id), ("credential", &draft.credential),
                ("variable", &draft.variable), ("cloud", &draft.cloud), ("scope", &draft.scope),
            ] {
                input type="hidden" name=(name) value=(value);
            }
            (carried(&connection.scope))
            div.actions { (button(Button::Main, "Add connection")) a.button.plain href="/connections/add" { "Start again" } }
        }))
    };
    Ok(page(&format!("Add {}?", connection.name), Some(&form.viewer), body)
        .section(Section::Connections)
        .into_response())
}

pub(super) async fn page_to_rescope(
    State(server): State<Shared>,
    viewer: Viewer,
    Path(id): Path<String>,
) -> Result<Page, Problem> {
    viewer.require(Role::Admin)?;
    let connection = Registry::of(&server.lake).get(&id).await?;
    Ok(rescope_page(&viewer, &connection, html! {}))
}

fn rescope_page(viewer: &Viewer, connection: &Connection, above: Markup) -> Page {
    let draft = Draft { scope: connection.scope.kind().to_owned(), ..Draft::default() };
    let body = html! {
        (above)
        p { "The new list takes the place of the old one. Monitoring of newly scoped people starts with the next run; what was recorded stays." }
        (upload_form(viewer, &format!("/connections/{}/scope", connection.id), html! {
            (scope_fields(&draft))
            div.actions { (button(Button::Main, "Preview")) a.button.plain href={ "/connections/" (connection.id) } { "Cancel" } }
        }))
    };
    page(&format!("Scope of {}", connection.name), Some(viewer), body).section(Section::Connections)
}

pub(super) async fn rescope(
    State(server): State<Shared>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, Problem> {
    form.viewer.require(Role::Admin)?;
    let registry = Registry::of(&server.lake);
    let connection = registry.get(&id).await?;
    let (scope, csv) = match read_scope(&Draft::of(&form), &form) {
        Ok(read) => read,
        Err(error) => {
            let refused = rescope_page(&form.viewer, &connection, failure("The scope was not changed", &error));
            return Ok(refused.status(StatusCode::UNPROCESSABLE_ENTITY).into_response());
        }
    };
    let back = format!("/connections/{}", connection.id);
    if form.text("step") == "save" {
        registry.change(&id, Order::Rescope(scope), &form.viewer.who, server.clock.now()).await?;
        return Ok(Redirect::to(&back).into_response());
    }
    let asked = async { preview(&connection.source(server.clock.clone())?, &scope, csv.as_ref()).await };
    let shown = shown(asked.await, csv.as_ref());
    let body = html! {
        (shown)
        (upload_form(&form.viewer, &format!("{back}/scope"), html! {
            input type="hidden" name="scope" value=(scope.kind());
            (carried(&scope))
            div.actions { (button(Button::Main, "Change scope")) a.button.plain href=(back) { "Cancel" } }
        }))
    };
    let title = format!("New scope of {}?", connection.name);
    Ok(page(&title, Some(&form.viewer), body).section(Section::Connections).into_response())
}

/// The list on its way to the second step.
fn carried(scope: &Scope) -> Markup {
    let entries = match scope {
        Scope::All => String::new(),
        Scope::Users(entries) | Scope::Groups(entries) => entries.join("\n"),
    };
    html! {
        input type="hidden" name="step" value="save";
        textarea name="entries" hidden { (entries) }
    }
}

/// Whom the scope means, or why nobody can tell yet.
fn shown(asked: Result<Preview>, csv: Option<&ScopeCsv>) -> Markup {
    match asked {
        Ok(preview) => html! {
            @match preview.people {
                None => p { "The scope means every mailbox of the tenant." },
                Some(people) => {
                    p { "The scope means " strong { (people) } " people." }
                    ul { @for member in &preview.sample { li { (member.address) } } }
                    @if people > preview.sample.len() { p.muted { "… and others." } }
                },
            }
            (findings(&preview.findings))
        },
        Err(error) => html! {
            (alert(
                Kind::Warning,
                "Whom the scope means cannot be asked yet",
                &format!("{error}; the connection can be added all the same, and authorised then"),
                error.hint(),
            ))
            @if let Some(csv) = csv { p { "The list has " strong { (csv.entries.len()) } " entries." } (findings(&csv.findings)) }
        },
    }
}

fn findings(findings: &[String]) -> Markup {
    html! {
        @if !findings.is_empty() {
            h2 { "Findings" }
            ul { @for finding in findings { li { (finding) } } }
        }
    }
}

/// The scope of the form: from the file, or from the list that came with the second step.
fn read_scope(draft: &Draft, form: &Form) -> Result<(Scope, Option<ScopeCsv>)> {
    let scope: fn(Vec<String>) -> Scope = match draft.scope.as_str() {
        "all" => return Ok((Scope::All, None)),
        "users" => Scope::Users,
        "groups" => Scope::Groups,
        other => return Err(Error::new(Code::Usage, format!("`{other}` is no scope"))),
    };
    let csv = match form.file("csv") {
        Some(file) => scope_csv::read(&file.bytes).map_err(|error| error.context(format!("`{}`", file.name)))?,
        None if !draft.entries.is_empty() => scope_csv::read(draft.entries.as_bytes())?,
        None => return Err(Error::new(Code::Usage, "choose the CSV that names the users or groups")),
    };
    Ok((scope(csv.entries.clone()), Some(csv)))
}

fn connection(server: &Server, draft: &Draft, scope: Scope) -> Result<Connection> {
    let id = |what: &str, text: &str| {
        text.parse::<Uuid>().map_err(|_| {
            Error::new(Code::Usage, format!("`{text}` is no {what}: 8-4-4-4-12 digits and letters a to f"))
        })
    };
    let place = || {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if draft.variable.starts_with(SECRET_VARIABLES) && draft.variable.chars().all(is_name) {
            return Ok(SecretPlace::Env(draft.variable.clone()));
        }
        Err(Error::new(
            Code::Usage,
            format!(
                "the environment variable's name must begin with `{SECRET_VARIABLES}`; others are no business of the console"
            ),
        ))
    };
    let credential = match draft.credential.as_str() {
        "secret" => Credential::Secret(place()?),
        "certificate" => Credential::Certificate(place()?),
        "workload" => Credential::WorkloadIdentity { token_file: None },
        "managed" => Credential::ManagedIdentity,
        other => return Err(Error::new(Code::Usage, format!("`{other}` is no way to prove who the application is"))),
    };
    if let Credential::Secret(place) | Credential::Certificate(place) = &credential {
        place.read()?;
    }
    let now = server.clock.now();
    Ok(Connection {
        id: Uuid::new_v4(),
        name: display_name(&draft.name)?,
        service: Service::Microsoft365,
        application: Application {
            tenant_id: id("tenant id", &draft.tenant)?,
            client_id: id("application id", &draft.client_id)?,
        },
        credential,
        cloud: draft.cloud.parse()?,
        endpoints: server.endpoints.clone(),
        scope,
        since: now,
        created: now,
        intent: Intent::Monitor,
        layout: Layout::default(),
        authorized: None,
        revision: 0,
        unrecorded: Vec::new(),
    })
}
