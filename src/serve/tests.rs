use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::routing::post;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use maud::html;
use tempfile::TempDir;

use super::auth::Viewer;
use super::console::layout::{Button, Page, button, page, upload_form};
use super::form::{Form, upload_limit};
use super::*;
use crate::clock::Time;

/// A server for this machine, with pages of the test's own.
struct Tested {
    service: TowerToHyperService<Router>,
    server: Shared,
    _folder: TempDir,
}

impl Tested {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::at(folder.path().to_str().unwrap()).unwrap();
        let (clock, config) = (Clock::manual(Time::UNIX_EPOCH), Config::default());
        let site = Site::new("127.0.0.1:1".parse().unwrap(), &config).unwrap();
        let auth = Auth::new(&site, &config, false, "local:ann", Http::new().unwrap(), clock.clone()).unwrap();
        let server = Arc::new(Server {
            engine: Engine::new(lake.clone(), clock.clone()).unwrap(),
            policies: config.policies,
            lake,
            clock,
            site,
            consents: Default::default(),
            totals: Default::default(),
            endpoints: config.endpoints,
            auth,
        });
        let pages = Router::new()
            .route("/form", axum::routing::get(form_page))
            .route("/small", post(echo))
            .route("/large", post(echo).layer(upload_limit()))
            .route("/change", post(change));
        let service = TowerToHyperService::new(router(Arc::clone(&server), pages));
        Self { service, server, _folder: folder }
    }

    async fn ask(&self, request: axum::http::request::Builder, body: impl Into<Body>) -> (u16, String) {
        let request = request.header(HOST, "localhost").body(body.into()).unwrap();
        let response = self.service.call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn form_token(&self) -> String {
        let (_, page) = self.ask(Request::get("/form"), Body::empty()).await;
        let (_, rest) = page.split_once("name=\"form_token\" value=\"").unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }

    async fn upload(&self, path: &str, parts: &[(&str, Option<&str>, &[u8])]) -> (u16, String) {
        let mut body = Vec::new();
        for (name, file_name, bytes) in parts {
            let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
            body.extend(format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n").bytes());
            body.extend_from_slice(bytes);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--b--\r\n");
        self.ask(Request::post(path).header(CONTENT_TYPE, "multipart/form-data; boundary=b"), body).await
    }
}

async fn form_page(viewer: Viewer) -> Page {
    let form = upload_form(&viewer, "/large", html! { (button(Button::Main, "Send")) });
    page("A form", Some(&viewer), form)
}

async fn echo(form: Form) -> String {
    let file = form.file("scope").map(|file| (file.name.clone(), file.bytes.len()));
    format!("{} {:?} {file:?}", form.viewer.who, form.text("name"))
}

async fn change(State(_): State<Shared>, form: Form) -> Result<&'static str, Problem> {
    form.viewer.require(Role::Admin)?;
    Ok("changed")
}

#[tokio::test]
async fn a_form_of_our_own_page_brings_texts_and_files() {
    let tested = Tested::new().await;
    let token = tested.form_token().await;
    let (status, text) = tested
        .upload(
            "/large",
            &[
                ("form_token", None, token.as_bytes()),
                ("name", None, b" Contoso mail "),
                ("scope", Some("people.csv"), b"a@b\n"),
            ],
        )
        .await;
    assert_eq!((status, text.as_str()), (200, r#"local:ann "Contoso mail" Some(("people.csv", 4))"#));
    // No file was chosen.
    let (status, text) =
        tested.upload("/large", &[("form_token", None, token.as_bytes()), ("scope", Some(""), b"")]).await;
    assert_eq!((status, text.as_str()), (200, r#"local:ann "" None"#));
}

#[tokio::test]
async fn a_form_without_this_servers_token_is_refused_also_when_nobody_has_to_sign_in() {
    let tested = Tested::new().await;
    let other = Tested::new().await.form_token().await;
    for token in ["", "x", &other] {
        let (status, text) = tested.upload("/large", &[("form_token", None, token.as_bytes())]).await;
        assert_eq!(status, 403, "{text}");
        let form = Request::post("/small").header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (status, text) = tested.ask(form, format!("form_token={token}")).await;
        assert_eq!(status, 403, "{text}");
    }
    let form = Request::post("/small").header(CONTENT_TYPE, "application/json");
    assert_eq!(tested.ask(form, "{}").await.0, 415);
}

#[tokio::test]
async fn only_the_route_for_files_takes_large_ones_and_no_form_has_endless_fields() {
    let tested = Tested::new().await;
    let token = tested.form_token().await;
    let large = vec![b'x'; limits::SERVE_BODY_BYTES];
    let parts = [("form_token", None, token.as_bytes()), ("scope", Some("people.csv"), large.as_slice())];
    assert_eq!(tested.upload("/large", &parts).await.0, 200);
    assert_eq!(tested.upload("/small", &parts).await.0, 413);
    let many: Vec<(&str, Option<&str>, &[u8])> = vec![("name", None, b"x"); limits::SERVE_FORM_FIELDS + 1];
    let (status, text) = tested.upload("/large", &many).await;
    assert!(status == 400 && text.contains("too many fields"), "{status} {text}");
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let tested = Tested::new().await;
    let tokens = Tokens::of(&tested.server.lake);
    let (now, expires) = (Time::UNIX_EPOCH, Time::UNIX_EPOCH + chrono::Duration::days(1));
    for (name, role, expected) in
        [("looks", Role::Viewer, 403), ("searches", Role::Analyst, 403), ("changes", Role::Admin, 200)]
    {
        let token = tokens.add(name, role, "test", now, expires).await.unwrap();
        let request = Request::post("/change")
            .header(AUTHORIZATION, format!("Bearer {}", token.expose()))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let (status, text) = tested.ask(request, "").await;
        assert_eq!(status, expected, "{text}");
        if expected == 403 {
            let said = format!("this needs the role `admin`, and `token:{name}` has `{role}`");
            assert!(text.contains(&said) && text.contains("not-allowed"), "{text}");
        }
    }
}
