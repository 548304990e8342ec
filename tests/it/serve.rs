//! The console: whoever is not allowed in stays out, and what a browser or a program is told.

use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, HeaderMap, LOCATION, ORIGIN, SET_COOKIE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::support::{Lake, Process, Tenant, write};

/// `waybill serve` in a process of its own.
struct Server {
    url: String,
    process: Process,
    errors: std::fs::File,
}

impl Server {
    fn start(lake: &Lake, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut errors = tempfile::tempfile().unwrap();
        let mut all = vec!["--log", "waybill=debug", "serve"];
        if !arguments.contains(&"--http") {
            all.extend(["--http", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        let mut command = lake.command(&all);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(errors.try_clone().unwrap());
        let mut process = Process::start(&mut command);
        let mut line = String::new();
        BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let announcement: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            process.kill();
            let mut text = String::new();
            errors.rewind().unwrap();
            errors.read_to_string(&mut text).unwrap();
            panic!("`waybill serve` did not start: {text}")
        });
        Self { url: announcement["http"].as_str().unwrap().to_owned(), process, errors }
    }

    /// With sign-in at a simulated tenant.
    fn with_sign_in(lake: &Lake, tenant: &Tenant, others: &[&str]) -> Self {
        let issuer = format!("{}/{}/v2.0", tenant.get("login"), tenant.get("tenant_id"));
        let mut arguments = vec!["--oidc-issuer", &issuer, "--oidc-client-id", tenant.get("client_id")];
        arguments.extend(["--oidc-client-secret-env", "WAYBILL_TEST_OIDC"]);
        arguments.extend(others);
        Self::start(lake, &arguments, &[("WAYBILL_TEST_OIDC", tenant.get("client_secret"))])
    }

    /// Ends it as a service manager does; what it logged.
    fn stop(mut self) -> String {
        let id = self.process.child().id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.process.child().wait().unwrap().success());
        let mut text = String::new();
        self.errors.rewind().unwrap();
        self.errors.read_to_string(&mut text).unwrap();
        text
    }
}

/// A browser: it keeps cookies, follows nothing, and says that it takes HTML.
struct Browser {
    client: reqwest::Client,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn new() -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self { client: client.no_proxy().build().unwrap(), cookies: Vec::new() }
    }

    fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    async fn send(&mut self, method: Method, url: &str, headers: &[(&str, &str)], body: Option<String>) -> Response {
        let mut request = self.client.request(method, url).header(ACCEPT, "text/html,*/*;q=0.8");
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header(COOKIE, cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        }
        let response = request.send().await.unwrap();
        for line in response.headers().get_all(SET_COOKIE) {
            let (name, value) = line.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(other, _)| other != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        response
    }

    async fn get(&mut self, url: &str) -> Response {
        self.send(Method::GET, url, &[], None).await
    }

    async fn post(&mut self, url: &str, headers: &[(&str, &str)], body: &str) -> Response {
        self.send(Method::POST, url, headers, Some(body.to_owned())).await
    }

    /// Begins to sign in; the address to which the provider sends the browser back.
    async fn come_back_address(&mut self, server: &Server, choice: &str) -> String {
        let provider = location(&self.get(&format!("{}/sign-in?to=/connections", server.url)).await);
        location(&self.get(&format!("{provider}&simulate={choice}")).await)
    }

    /// Signs in whole.
    async fn sign_in(&mut self, server: &Server, choice: &str) -> Response {
        let back = self.come_back_address(server, choice).await;
        self.get(&back).await
    }
}

fn location(response: &Response) -> String {
    let status = response.status();
    assert!(status.is_redirection(), "{status}");
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

/// The hidden field of a page.
fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form_token\" value=\"").expect("a form");
    rest.split_once('"').unwrap().0.to_owned()
}

fn assert_hardened(headers: &HeaderMap) {
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in
        ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
    {
        assert!(policy.contains(part) && !policy.contains("unsafe"), "{policy}");
    }
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-frame-options"], "DENY");
    assert_eq!(headers["referrer-policy"], "same-origin");
    assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
    assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    assert!(headers.contains_key("permissions-policy") && headers.contains_key("cache-control"));
}

/// Refused at the start: the exit code and the first line of what was said.
fn refused(lake: &Lake, arguments: &[&str]) -> (i32, String) {
    let mut all = vec!["serve"];
    all.extend(arguments);
    let output = lake.command(&all).env("WAYBILL_TEST_OIDC", "x").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said.lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_at_this_machine_is_an_administrator_without_signing_in() {
    let lake = Lake::temp();
    let server = Server::start(&lake, &[], &[("USER", "ann")]);
    let mut browser = Browser::new();
    assert_eq!(location(&browser.get(&server.url).await), "/connections");
    let page = browser.get(&format!("{}/connections", server.url)).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_hardened(page.headers());
    assert!(browser.cookies.is_empty());
    let page = page.text().await.unwrap();
    assert!(page.contains("local:ann <span class=\"role\">admin</span>"), "{page}");
    // Nothing is loaded from anywhere else.
    assert!(!page.contains("://") && !page.contains("<script"), "{page}");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_name_for_this_machine_and_a_proxy_in_front_of_it_are_refused() {
    let lake = Lake::temp();
    let server = Server::start(&lake, &[], &[]);
    let mut browser = Browser::new();
    let url = format!("{}/connections", server.url);
    let headers: [&[(&str, &str)]; 4] = [
        &[(HOST.as_str(), "rebound.example")],
        &[(HOST.as_str(), "rebound.example:80")],
        &[(HOST.as_str(), "127.0.0.1.rebound.example")],
        &[("x-forwarded-for", "203.0.113.7")],
    ];
    for headers in headers {
        let response = browser.send(Method::GET, &url, headers, None).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{headers:?}");
        assert_hardened(response.headers());
        let page = response.text().await.unwrap();
        assert!(page.contains("request-refused") && !page.contains("There is no connection yet"), "{page}");
    }
    assert_eq!(browser.send(Method::GET, &url, &[(HOST.as_str(), "localhost")], None).await.status(), StatusCode::OK);
}

#[test]
fn a_network_is_not_served_without_sign_in_or_without_encryption() {
    let lake = Lake::temp();
    let oidc = [
        "--oidc-issuer",
        "https://login.example/t/v2.0",
        "--oidc-client-id",
        "c",
        "--oidc-client-secret-env",
        "WAYBILL_TEST_OIDC",
    ];
    let case = |arguments: &[&str]| refused(&lake, arguments);
    let (exit, said) = case(&["--http", "0.0.0.0:0"]);
    assert_eq!(exit, 2);
    assert!(said.contains("needs TLS"), "{said}");
    let (exit, said) = case(&["--http", "0.0.0.0:0", "--behind-proxy"]);
    assert_eq!((exit, said.contains("needs sign-in")), (2, true), "{said}");
    let (exit, said) = case(&["--http", "127.0.0.1:0", "--behind-proxy"]);
    assert_eq!((exit, said.contains("needs sign-in")), (2, true), "{said}");
    let (exit, said) = case(&[&["--http", "0.0.0.0:0"], oidc.as_slice()].concat());
    assert_eq!((exit, said.contains("needs TLS")), (2, true), "{said}");
    let (exit, said) = case(&[&["--http", "0.0.0.0:0", "--behind-proxy"], oidc.as_slice()].concat());
    assert_eq!((exit, said.contains("--public-url")), (2, true), "{said}");
    let (exit, said) =
        case(&["--http", "0.0.0.0:0", "--tls-cert", "/nonexistent", "--tls-key", "/nonexistent", "--behind-proxy"]);
    assert_eq!((exit, said.contains("of no use")), (2, true), "{said}");
    let (exit, said) = case(&[
        "--http",
        "127.0.0.1:0",
        "--oidc-issuer",
        "http://login.example/t",
        "--oidc-client-id",
        "c",
        "--oidc-client-secret-env",
        "WAYBILL_TEST_OIDC",
    ]);
    assert_eq!((exit, said.contains("http://login.example")), (2, true), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_with_the_organisations_account_and_out_again() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let server = Server::with_sign_in(&lake, &tenant, &[]);
    let mut browser = Browser::new();
    let user = tenant.announcement["users"][0].as_str().unwrap().to_owned();

    // Whoever is not signed in is led to the sign-in, and with it to the provider.
    let asked = browser.get(&format!("{}/connections", server.url)).await;
    assert_eq!(location(&asked), "/sign-in?to=%2Fconnections");
    let begun = browser.get(&format!("{}/sign-in?to=%2Fconnections", server.url)).await;
    let provider = location(&begun);
    let query: Vec<(String, String)> = url::Url::parse(&provider).unwrap().query_pairs().into_owned().collect();
    let given = |name: &str| query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    assert_eq!((given("response_type"), given("code_challenge_method")), ("code", "S256"));
    assert_eq!(given("redirect_uri"), format!("{}/sign-in/callback", server.url));
    assert!(given("state").len() == 43 && given("nonce").len() == 43 && given("code_challenge").len() == 43);
    let cookie = begun.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    assert!(!provider.contains(tenant.get("client_secret")));

    // A page of the provider, on which somebody picks who they are.
    let page = browser.get(&provider).await.text().await.unwrap();
    assert!(page.contains("id=\"user-0-admin\"") && page.contains("id=\"cancel\""), "{page}");
    let back = location(&browser.get(&format!("{provider}&simulate={user}:analyst")).await);
    let signed_in = browser.get(&back).await;
    assert_eq!(location(&signed_in), "/connections");
    let page = browser.get(&format!("{}/connections", server.url)).await.text().await.unwrap();
    assert!(page.contains(&format!("{user} <span class=\"role\">analyst</span>")), "{page}");
    assert!(browser.cookie("waybill").is_some() && browser.cookie("waybill-sign-in").is_none());

    let token = form_token(&page);
    let out = browser.post(&format!("{}/sign-out", server.url), &[], &format!("form_token={token}")).await;
    assert_eq!(location(&out), "/signed-out");
    assert!(browser.cookies.is_empty());
    let page = browser.get(&format!("{}/signed-out", server.url)).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_hardened(page.headers());
    let log = server.stop();
    assert!(log.contains("signed in") && log.contains("signed out"), "{log}");
    let secrets = [tenant.get("client_secret"), &token, given("state"), given("nonce")];
    assert!(secrets.iter().all(|secret| !log.contains(secret)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_somebody_prepared_is_not_the_one_that_is_signed_in() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let server = Server::with_sign_in(&lake, &tenant, &[]);
    let user = tenant.announcement["users"][0].as_str().unwrap();
    let mut browser = Browser::new();
    let prepared = "A".repeat(43);
    browser.cookies.push(("waybill".to_owned(), prepared.clone()));
    browser.sign_in(&server, &format!("{user}:admin")).await;
    let first = browser.cookie("waybill").unwrap().to_owned();
    assert_ne!(first, prepared);
    // Signing in again makes a new one, and ends the one before.
    browser.sign_in(&server, &format!("{user}:admin")).await;
    let second = browser.cookie("waybill").unwrap().to_owned();
    assert_ne!(first, second);
    for (id, status) in [(prepared, StatusCode::SEE_OTHER), (first, StatusCode::SEE_OTHER), (second, StatusCode::OK)] {
        let mut other = Browser::new();
        other.cookies.push(("waybill".to_owned(), id));
        assert_eq!(other.get(&format!("{}/connections", server.url)).await.status(), status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_was_begun_elsewhere_changed_replayed_or_cancelled_is_refused() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let server = Server::with_sign_in(&lake, &tenant, &[]);
    let choice = format!("{}:admin", tenant.announcement["users"][0].as_str().unwrap());
    let assert_refused = async |response: Response, browser: &Browser, why: &str| {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{why}");
        assert_hardened(response.headers());
        assert!(browser.cookie("waybill").is_none(), "{why}");
        let page = response.text().await.unwrap();
        assert!(page.contains(why) && page.contains("What to do:"), "{why}: {page}");
    };

    // Somebody's link in a victim's browser: the victim would act in the attacker's name.
    let (mut attacker, mut victim) = (Browser::new(), Browser::new());
    let link = attacker.come_back_address(&server, &choice).await;
    assert_refused(victim.get(&link).await, &victim, "not begun in this browser").await;
    victim.get(&format!("{}/sign-in", server.url)).await;
    assert_refused(victim.get(&link).await, &victim, "begun somewhere else").await;

    // The attacker's own browser may use it, once.
    assert_eq!(location(&attacker.get(&link).await), "/connections");
    let mut again = Browser::new();
    assert_refused(again.get(&link).await, &again, "not begun in this browser").await;

    // A code that was used, in an attempt of its own: the provider refuses it.
    let used = link.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let mut browser = Browser::new();
    let own = browser.come_back_address(&server, &choice).await;
    let own_code = own.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_refused(browser.get(&own.replace(&own_code, &used)).await, &browser, "already redeemed").await;

    // A code of somebody else's attempt: its challenge does not fit our verifier.
    let (mut one, mut other) = (Browser::new(), Browser::new());
    let foreign = one.come_back_address(&server, &choice).await;
    let foreign_code = foreign.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let own = other.come_back_address(&server, &choice).await;
    let own_code = own.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_refused(other.get(&own.replace(&own_code, &foreign_code)).await, &other, "code_verifier does not match")
        .await;

    let mut browser = Browser::new();
    assert_refused(browser.sign_in(&server, "cancel").await, &browser, "User declined").await;
    let log = server.stop();
    assert!(!log.contains(&used) && !log.contains(&own_code), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_a_role_is_told_so_and_stays_out() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let users = &tenant.announcement["users"];
    let (first, second) = (users[0].as_str().unwrap(), users[1].as_str().unwrap());
    let issuer = format!("{}/{}/v2.0", tenant.get("login"), tenant.get("tenant_id"));
    let config = format!(
        "[sign_in]\nissuer = \"{issuer}\"\nclient_id = \"{}\"\nclient_secret = {{ env = \"WAYBILL_TEST_OIDC\" }}\n\n\
         [roles.viewer]\naddresses = [\"{}\"]\n\n[roles.admin]\nclaims = [\"Waybill.Admin\"]\n",
        tenant.get("client_id"),
        second.to_uppercase()
    );
    let config = write(&lake.beside().join("serve.toml"), config);
    let secret = [("WAYBILL_TEST_OIDC", tenant.get("client_secret"))];
    let server = Server::start(&lake, &["--config", config.to_str().unwrap()], &secret);
    let mut browser = Browser::new();
    let response = browser.sign_in(&server, &format!("{first}:admin")).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let page = response.text().await.unwrap();
    assert!(page.contains("not-allowed") && page.contains("has no role here"), "{page}");
    assert!(browser.cookie("waybill").is_none());
    for (choice, role) in [(format!("{second}:"), "viewer"), (format!("{first}:Waybill.Admin"), "admin")] {
        let mut browser = Browser::new();
        assert_eq!(location(&browser.sign_in(&server, &choice).await), "/connections");
        let page = browser.get(&format!("{}/connections", server.url)).await.text().await.unwrap();
        assert!(page.contains(&format!("<span class=\"role\">{role}</span>")), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_page_changes_nothing() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let server = Server::with_sign_in(&lake, &tenant, &[]);
    let mut browser = Browser::new();
    let user = tenant.announcement["users"][0].as_str().unwrap();
    browser.sign_in(&server, &format!("{user}:admin")).await;
    let (pages, out) = (format!("{}/connections", server.url), format!("{}/sign-out", server.url));
    let token = form_token(&browser.get(&pages).await.text().await.unwrap());
    let own = format!("form_token={token}");
    let mut other = Browser::new();
    other.sign_in(&server, &format!("{user}:admin")).await;
    let others = format!("form_token={}", form_token(&other.get(&pages).await.text().await.unwrap()));
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[], ""),
        (&[], "form_token="),
        (&[], "form_token=x"),
        (&[], &others),
        (&[(ORIGIN.as_str(), "https://evil.example")], &own),
        (&[(ORIGIN.as_str(), "null")], &own),
        (&[("sec-fetch-site", "cross-site")], &own),
        (&[("sec-fetch-site", "same-site")], &own),
    ];
    for (headers, body) in cases {
        let response = browser.post(&out, headers, body).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{headers:?} {body}");
        assert!(response.text().await.unwrap().contains("request-refused"));
        assert_eq!(browser.get(&pages).await.status(), StatusCode::OK, "still signed in");
    }
    let same = [(ORIGIN.as_str(), server.url.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(location(&browser.post(&out, &same, &own).await), "/signed-out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_asks_with_a_token_until_it_is_taken_back_or_expires() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let made: Value = serde_json::from_str(
        &lake.text(&["serve", "token", "add", "--name", "CI", "--role", "viewer", "--output", "json"]),
    )
    .unwrap();
    let token = made["token"].as_str().unwrap().to_owned();
    let server = Server::with_sign_in(&lake, &tenant, &[]);
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let ask = async |method: Method, path: &str, bearer: &str| {
        let request = client.request(method, format!("{}{path}", server.url));
        request.header(AUTHORIZATION, format!("Bearer {bearer}")).send().await.unwrap()
    };
    let answer = ask(Method::GET, "/connections", &token).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key(SET_COOKIE));
    let page = answer.text().await.unwrap();
    assert!(page.contains("token:CI <span class=\"role\">viewer</span>") && !page.contains(&token), "{page}");

    let listed = lake.text(&["serve", "token", "list", "--output", "json"]);
    assert!(listed.contains("\"CI\"") && !listed.contains(&token) && !listed.contains("sha256"), "{listed}");
    let file = lake.path().join("serve/tokens.json");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(!kept.contains(&token) && kept.contains("sha256"), "{kept}");

    let assert_out = async |bearer: &str| {
        let answer = ask(Method::GET, "/connections", bearer).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{bearer}");
        assert_eq!(answer.headers()[WWW_AUTHENTICATE], "Bearer");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        assert_hardened(answer.headers());
        let problem: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&"not-signed-in".into(), &401.into()), "{problem}");
        assert!(problem["hint"].as_str().unwrap().contains("API token"), "{problem}");
    };
    for bearer in ["", "wb_", "x", &token[..45], &format!("{token}x"), &token.to_uppercase()] {
        assert_out(bearer).await;
    }
    // It has expired.
    let mut document: Value = serde_json::from_str(&kept).unwrap();
    document["tokens"][0]["expires"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(&file, document.to_string()).unwrap();
    assert_out(&token).await;
    std::fs::write(&file, &kept).unwrap();
    assert_eq!(ask(Method::GET, "/connections", &token).await.status(), StatusCode::OK);
    // It was taken back.
    lake.text(&["serve", "token", "remove", "--name", "ci"]);
    assert_out(&token).await;
    let changes = lake.sql("SELECT action, detail FROM changes ORDER BY changed_at");
    let actions: Vec<&str> = changes.iter().map(|change| change["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["token_added", "token_removed"], "{changes:?}");
    let log = server.stop();
    assert!(!log.contains(&token), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_hardened_and_says_what_failed_to_a_person_and_to_a_program() {
    let lake = Lake::temp();
    let server = Server::start(&lake, &[], &[]);
    let mut browser = Browser::new();
    let page = browser.get(&format!("{}/connections", server.url)).await.text().await.unwrap();
    let style = page.split("rel=\"stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let asset = browser.get(&format!("{}{style}", server.url)).await;
    assert_eq!(asset.headers()["cache-control"], "public, max-age=31536000, immutable");
    assert_hardened(asset.headers());
    let etag = asset.headers()["etag"].to_str().unwrap().to_owned();
    let again = browser.send(Method::GET, &format!("{}{style}", server.url), &[("if-none-match", &etag)], None).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    let big = "x".repeat(2 << 20);
    for (method, path, body, status) in [
        (Method::GET, "/nowhere", None, StatusCode::NOT_FOUND),
        (Method::GET, "/sign-in/callback", None, StatusCode::UNAUTHORIZED),
        (Method::DELETE, "/connections", None, StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/sign-out", None, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (Method::POST, "/sign-out", Some(big), StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let url = format!("{}{path}", server.url);
        let for_person = browser.send(method.clone(), &url, &[], body.clone()).await;
        assert_eq!(for_person.status(), status, "{path}");
        assert_hardened(for_person.headers());
        assert_eq!(for_person.headers()["cache-control"], "no-store");
        let page = for_person.text().await.unwrap();
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("What to do:"), "{page}");
        let mut request = browser.client.request(method, &url);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        }
        let for_program = request.send().await.unwrap();
        assert_eq!(for_program.status(), status, "{path}");
        assert_hardened(for_program.headers());
        let problem: Value = serde_json::from_str(&for_program.text().await.unwrap()).unwrap();
        assert_eq!(problem["status"], status.as_u16(), "{problem}");
        assert!(page.contains(problem["code"].as_str().unwrap()), "{problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_cookies_are_for_https_and_this_host_only() {
    let (lake, tenant) = (Lake::temp(), Tenant::corpus());
    let (certificate, key) = certificate();
    let certificate_file = write(&lake.beside().join("server.pem"), &certificate);
    let key_file = write(&lake.beside().join("server.key"), key);
    let tls = ["--tls-cert", certificate_file.to_str().unwrap(), "--tls-key", key_file.to_str().unwrap()];
    let server = Server::with_sign_in(&lake, &tenant, &tls);
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    let mut browser = Browser::new();
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).add_root_certificate(root);
    browser.client = client.build().unwrap();
    let user = tenant.announcement["users"][0].as_str().unwrap();
    let signed_in = browser.sign_in(&server, &format!("{user}:viewer")).await;
    assert!(signed_in.headers()["strict-transport-security"].to_str().unwrap().starts_with("max-age="));
    let cookies: Vec<&str> =
        signed_in.headers().get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2);
    assert!(
        cookies[0].starts_with("__Host-waybill=") && cookies[0].ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{cookies:?}"
    );
    assert!(cookies[1].starts_with("__Host-waybill-sign-in=;") && cookies[1].ends_with("; Max-Age=0"), "{cookies:?}");
    assert_eq!(browser.get(&format!("{}/connections", server.url)).await.status(), StatusCode::OK);
}

/// A certificate of `127.0.0.1`, signed by itself, and its key.
fn certificate() -> (String, String) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    (signed.cert.pem(), signed.signing_key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_request_under_way_end() {
    let lake = Lake::temp();
    let mut server = Server::start(&lake, &[], &[]);
    let mut half = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    half.write_all(b"POST /sign-out HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 4\r\n\r\na=").unwrap();
    // Once a later request has its answer, the server has seen the earlier one.
    Browser::new().get(&format!("{}/connections", server.url)).await;
    let id = server.process.child().id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    half.write_all(b"1&").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(server.process.child().wait().unwrap().success());
}
