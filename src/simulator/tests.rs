//! The services as a client sees them: requests in, answers out, without a connection between.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::*;

const BASE: &str = "http://simulator.test";

/// A simulator and tokens for it.
struct Client {
    simulator: Arc<Simulator>,
    feed: String,
    graph: String,
    /// The corpus, for what is read from it later.
    _folder: Option<tempfile::TempDir>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Status and the code in the body, in whichever of the shapes.
    fn error(&self) -> (u16, String) {
        let body = self.json();
        let code = body["error"]["code"].as_str().or(body["error"].as_str()).or(body["Message"].as_str());
        (self.status, code.unwrap_or_default().to_owned())
    }
}

async fn ask(simulator: &Arc<Simulator>, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().expect("name"), HeaderValue::from_str(value).expect("value"));
    }
    let path = path.strip_prefix(BASE).unwrap_or(path);
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = Request::new(method.parse::<Method>().expect("method"), path, map, body, BASE.to_owned());
    let (reply, kind, _, _slot) = simulator.answer(request).await;
    simulator.counters.answered(kind, reply.status.as_u16(), false);
    let headers =
        reply.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    Answer { status: reply.status.as_u16(), headers: headers.collect(), body: reply.into_bytes().await }
}

async fn token(simulator: &Arc<Simulator>, resource: &str) -> Answer {
    let tenant = &simulator.tenant;
    let body = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope={resource}/.default",
        tenant.client_id,
        utf8_percent_encode(&tenant.client_secret, NON_ALPHANUMERIC)
    );
    ask(simulator, "POST", &format!("/{}/oauth2/v2.0/token", tenant.id), &[], &body).await
}

impl Client {
    async fn new(options: Options) -> Self {
        let simulator = Arc::new(Simulator::build(&options).expect("built"));
        let mut client = Self { simulator, feed: String::new(), graph: String::new(), _folder: None };
        client.sign_in().await;
        client
    }

    /// A corpus of a few mails.
    async fn with_corpus(mails: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in mails {
            std::fs::create_dir_all(folder.path().join(name).parent().expect("parent")).expect("made");
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let content = vec![Content::Corpus(folder.path().to_owned())];
        let client = Self::new(Options { content, shift_dates_now: true, ..Options::default() }).await;
        Self { _folder: Some(folder), ..client }
    }

    async fn sign_in(&mut self) {
        let text = |answer: Answer| answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
        self.feed = text(token(&self.simulator, "https://manage.office.com").await);
        self.graph = text(token(&self.simulator, "https://graph.microsoft.com").await);
    }

    async fn feed(&self, method: &str, path: &str) -> Answer {
        let path = match path.starts_with(BASE) {
            true => path.to_owned(),
            false => format!("/api/v1.0/{}/activity/feed{path}", self.simulator.tenant.id),
        };
        ask(&self.simulator, method, &path, &[("authorization", &format!("Bearer {}", self.feed))], "").await
    }

    async fn graph_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let path = if path.starts_with(BASE) { path.to_owned() } else { format!("/v1.0{path}") };
        let authorization = format!("Bearer {}", self.graph);
        let headers = [&[("authorization", authorization.as_str())], headers].concat();
        ask(&self.simulator, method, &path, &headers, body).await
    }

    async fn graph(&self, path: &str) -> Answer {
        self.graph_with("GET", path, &[], "").await
    }

    /// A listing of the last 23 hours, page by page.
    async fn list(&self) -> Vec<Value> {
        let time = |hours| (clock::now() + chrono::Duration::hours(hours)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let first =
            format!("/subscriptions/content?contentType=Audit.Exchange&startTime={}&endTime={}", time(-22), time(1));
        let (mut next, mut items) = (Some(first), Vec::new());
        while let Some(path) = next {
            let answer = self.feed("GET", &path).await;
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            items.extend(answer.json().as_array().expect("array").clone());
            next = answer.header("nextpageuri").map(str::to_owned);
            assert!(
                next.as_ref().is_none_or(|next| next.contains("/api/v1/") && !next.contains("PublisherIdentifier"))
            );
        }
        items
    }

    async fn records(&self) -> Vec<Value> {
        let mut records = Vec::new();
        for item in self.list().await {
            let blob = self.feed("GET", item["contentUri"].as_str().expect("uri")).await;
            records.extend(blob.json().as_array().expect("array").clone());
        }
        records
    }

    async fn find(&self, user: &str, internet_message_id: &str) -> Answer {
        let id = utf8_percent_encode(internet_message_id, NON_ALPHANUMERIC).to_string();
        self.graph(&format!(
            "/users/{user}/messages?$filter=internetMessageId%20eq%20'{id}'&$select=id,isDraft,parentFolderId,hasAttachments&$expand=attachments($select=id,name,size)"
        ))
        .await
    }

    fn set_faults(&self, faults: Value) {
        self.simulator.set_faults(&Faults::parse(faults).expect("understood"));
    }
}

const MAIL: &str = "From: Ann <Ann@x.org>\r\nTo: bob@y.org\r\nSubject: Hi\r\nMessage-ID: <a+b=c@x.org>\r\nDate: Fri, 21 Nov 1997 09:55:06 -0600\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1; name=\"a;(12b).txt\"\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\n=E9=\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nx\r\n--b--\r\n";

fn generated(words: &str) -> Options {
    Options { content: vec![Content::Generate(words.parse().expect("understood"))], ..Options::default() }
}

#[tokio::test]
async fn a_mail_of_the_corpus_is_a_send_a_message_and_its_attachments() {
    let client = Client::with_corpus(&[("a/1.eml", MAIL), ("b/2.EML", "broken"), ("c.txt", "no mail")]).await;
    let records = client.records().await;
    let sends: Vec<&Value> = records.iter().filter(|record| record["Operation"] == "Send").collect();
    assert_eq!(sends.len(), 2);
    let send = sends.iter().find(|send| send["Item"]["InternetMessageId"] == "<a+b=c@x.org>").expect("there");
    assert!(send["Item"]["Attachments"].as_str().expect("text").starts_with("a;(12b).txt ("));
    assert!(send["CreationTime"].as_str().expect("text") >= "2026");
    let found = client.find("ANN@x.org", "<a+b=c@x.org>").await.json();
    let message = &found["value"][0];
    let id = message["id"].as_str().expect("id");
    let names: Vec<&Value> =
        message["attachments"].as_array().expect("list").iter().map(|attachment| &attachment["name"]).collect();
    assert_eq!(names, ["a;(12b).txt", "inner"]);
    let list = client
        .graph(&format!("/users/ann@x.org/messages/{id}/attachments?$select=id,name,contentType,size,isInline"))
        .await
        .json();
    let list = list["value"].as_array().expect("list");
    assert_eq!(
        (list[0]["@odata.type"].as_str(), list[1]["@odata.type"].as_str()),
        (Some("#microsoft.graph.fileAttachment"), Some("#microsoft.graph.itemAttachment"))
    );
    assert!(
        list[0]["size"].as_u64() > Some(200)
            && list[0].get("contentBytes").is_none()
            && list[1]["contentType"].is_null()
    );
    let value = |index: usize| {
        format!("/users/ann@x.org/messages/{id}/attachments/{}/$value", list[index]["id"].as_str().expect("id"))
    };
    assert_eq!(client.graph(&value(0)).await.body, b"\xe9"[..], "decoded, but in its own charset");
    assert_eq!(client.graph(&value(1)).await.body, b"Subject: inner\r\n\r\nx"[..]);
    assert_eq!(client.graph_with("HEAD", &value(0), &[], "").await.status, 405);
    assert_eq!(client.simulator.report().body_requests, 0);
}

#[tokio::test]
async fn what_is_not_encoded_finds_nothing() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    let plain =
        client.graph("/users/ann@x.org/messages?$filter=internetMessageId%20eq%20'<a+b=c@x.org>'&$select=id").await;
    assert_eq!((plain.status, plain.json()["value"].as_array().expect("list").len()), (200, 0));
    let encoded = client.find("ann@x.org", "<a+b=c@x.org>").await;
    assert_eq!(encoded.json()["value"].as_array().expect("list").len(), 1);
}

#[tokio::test]
async fn two_mails_with_one_id_are_two_messages_and_two_sends() {
    let client = Client::with_corpus(&[("1.eml", MAIL), ("2.eml", MAIL)]).await;
    let sends = client.records().await.into_iter().filter(|record| record["Operation"] == "Send").count();
    assert_eq!(sends, 2);
    assert_eq!(client.find("ann@x.org", "<a+b=c@x.org>").await.json()["value"].as_array().expect("list").len(), 2);
}

#[tokio::test]
async fn requests_for_bodies_are_counted() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    let id = client.find("ann@x.org", "<a+b=c@x.org>").await.json()["value"][0]["id"].as_str().expect("id").to_owned();
    client.graph(&format!("/users/ann@x.org/messages/{id}?$select=id,subject")).await;
    assert_eq!(client.simulator.report().body_requests, 0);
    for path in ["", "?$select=id,bodyPreview", "/$value"] {
        assert_eq!(client.graph(&format!("/users/ann@x.org/messages/{id}{path}")).await.status, 200);
    }
    assert_eq!(client.simulator.report().body_requests, 3);
}

#[tokio::test]
async fn pages_and_windows_give_every_record_once() {
    let mut options = generated("users=3,messages=40,sends=0.1");
    options.blob_records = 7;
    options.page_blobs = 5;
    let client = Client::new(options).await;
    let items = client.list().await;
    assert_eq!(items.len(), 58);
    let created: Vec<&str> = items.iter().map(|item| item["contentCreated"].as_str().expect("time")).collect();
    assert!(created.is_sorted());
    let records = client.records().await;
    let mut ids: Vec<&str> = records.iter().map(|record| record["Id"].as_str().expect("id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((records.len(), ids.len()), (400, 400));
    assert_eq!(records.iter().filter(|record| record["Operation"] == "Send").count(), 40);
}

#[tokio::test]
async fn windows_have_rules() {
    let client = Client::new(generated("messages=1")).await;
    let time = |hours: i64| (clock::now() + chrono::Duration::hours(hours)).format("%Y-%m-%dT%H:%M:%S").to_string();
    let list = async |query: String| {
        client.feed("GET", &format!("/subscriptions/content?contentType=Audit.Exchange{query}")).await
    };
    assert_eq!(list(String::new()).await.status, 200);
    assert_eq!(list(format!("&startTime={}&endTime={}", time(-7 * 24), time(-6 * 24))).await.status, 200);
    assert_eq!(
        list(format!("&startTime={}&endTime={}", time(1), time(20))).await.status,
        200,
        "the end may lie in the future"
    );
    for (query, code) in [
        (format!("&startTime={}", time(-1)), "AF20030"),
        (format!("&startTime={}&endTime={}", time(-30), time(-1)), "AF20030"),
        (format!("&startTime={}&endTime={}", time(-1), time(-2)), "AF20055"),
        (format!("&startTime={}&endTime={}", time(-7 * 24 - 2), time(-6 * 24 - 3)), "AF20055"),
        (format!("&startTime={}&endTime={}&nextPage=x", time(-2), time(-1)), "AF20031"),
    ] {
        assert_eq!(list(query.clone()).await.error(), (400, code.to_owned()), "{query}");
    }
    assert_eq!(client.feed("GET", "/subscriptions/content?contentType=x").await.error(), (400, "AF20020".to_owned()));
    assert_eq!(client.feed("GET", "/subscriptions/content").await.error(), (400, "AF20001".to_owned()));
}

#[tokio::test]
async fn subscriptions_start_once_in_a_quarter_of_an_hour() {
    let mut options = generated("messages=5,sends=1");
    options.subscription = Subscription::Off;
    let client = Client::new(options).await;
    assert_eq!(client.feed("GET", "/subscriptions/list").await.json(), json!([]));
    assert_eq!(
        client.feed("GET", "/subscriptions/content?contentType=Audit.Exchange").await.error(),
        (400, "AF20022".to_owned())
    );
    let started = client.feed("POST", "/subscriptions/start?contentType=Audit.Exchange").await;
    assert_eq!(started.json(), json!({"contentType": "Audit.Exchange", "status": "enabled", "webhook": null}));
    let again = client.feed("POST", "/subscriptions/start?contentType=Audit.Exchange").await;
    assert_eq!(again.error(), (403, "429".to_owned()));
    assert!(again.json()["error"]["message"].as_str().expect("text").contains("after 14m 5"));
    assert!(client.list().await.is_empty(), "nothing is kept of the time before");
    let added = ask(&client.simulator, "POST", "/_simulator/messages?sent=now", &[], MAIL).await;
    assert_eq!(added.json()["internet_message_id"], "<a+b=c@x.org>");
    assert_eq!(client.records().await.len(), 1);
    assert_eq!(client.feed("POST", "/subscriptions/stop?contentType=Audit.Exchange").await.status, 200);
    assert_eq!(
        client.feed("GET", "/subscriptions/content?contentType=Audit.Exchange").await.error(),
        (400, "AF20023".to_owned())
    );
}

#[tokio::test]
async fn started_long_ago_means_that_starting_again_is_no_change() {
    let client = Client::new(generated("messages=1")).await;
    assert_eq!(
        client.feed("POST", "/subscriptions/start?contentType=Audit.Exchange").await.error(),
        (400, "AF20024".to_owned())
    );
}

#[tokio::test]
async fn tokens_open_one_service_of_one_tenant() {
    let mut client = Client::new(generated("messages=1")).await;
    let tenant = client.simulator.tenant.id.clone();
    std::mem::swap(&mut client.feed, &mut client.graph);
    assert_eq!(
        client.feed("GET", "/subscriptions/list").await.error(),
        (401, "Authorization has been denied for this request.".to_owned())
    );
    assert_eq!(client.graph("/users").await.error(), (401, "InvalidAuthenticationToken".to_owned()));
    std::mem::swap(&mut client.feed, &mut client.graph);
    let elsewhere = format!("{BASE}/api/v1.0/{}/activity/feed/subscriptions/list", uuid::Uuid::nil());
    assert_eq!(client.feed("GET", &elsewhere).await.error(), (400, "AF20010".to_owned()));
    let nowhere = format!("{BASE}/api/v1.0/contoso/activity/feed/subscriptions/list");
    assert_eq!(client.feed("GET", &nowhere).await.error(), (400, "AF20013".to_owned()));
    let ask_token = |path: String, body: String| {
        let simulator = Arc::clone(&client.simulator);
        async move { ask(&simulator, "POST", &path, &[], &body).await.json() }
    };
    let (id, secret) = (&client.simulator.tenant.client_id, &client.simulator.tenant.client_secret);
    let good = format!(
        "grant_type=client_credentials&client_id={id}&client_secret={}",
        utf8_percent_encode(secret, NON_ALPHANUMERIC)
    );
    let scope = "&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default";
    for (path, body, code) in [
        (tenant.clone(), format!("grant_type=client_credentials&client_id={id}&client_secret=x{scope}"), 7_000_215),
        (tenant.clone(), format!("grant_type=client_credentials&client_id={id}{scope}"), 7_000_218),
        (
            tenant.clone(),
            format!("grant_type=client_credentials&client_id={}&client_secret=x{scope}", uuid::Uuid::nil()),
            700_016,
        ),
        (tenant.clone(), format!("{good}&scope=https://vault.azure.net/.default"), 500_011),
        (tenant.clone(), format!("{good}&scope=Mail.Read"), 70011),
        (
            tenant.clone(),
            format!("{good}&scope=https://manage.office.com/.default%20https://graph.microsoft.com/.default"),
            700_022,
        ),
        (tenant.clone(), format!("{good}&resource=https://manage.office.com"), 901_002),
        (tenant.clone(), scope.to_owned(), 900_144),
        ("common".to_owned(), format!("{good}{scope}"), 9_001_023),
        (uuid::Uuid::nil().to_string(), format!("{good}{scope}"), 90002),
        ("nobody".to_owned(), format!("{good}{scope}"), 900_023),
    ] {
        let answer = ask_token(format!("/{path}/oauth2/v2.0/token"), body).await;
        assert_eq!(answer["error_codes"], json!([code]), "{answer}");
        assert!(answer["error_description"].as_str().expect("text").starts_with(&format!("AADSTS{code}: ")));
    }
    let first =
        ask_token(format!("/{tenant}/oauth2/token"), format!("{good}&resource=https://manage.office.com")).await;
    assert_eq!(
        (first["expires_in"].as_str(), first["resource"].as_str()),
        (Some("3599"), Some("https://manage.office.com"))
    );
    let second = ask_token(format!("/{tenant}/oauth2/v2.0/token"), format!("{good}{scope}")).await;
    assert_eq!(second["expires_in"], 3599);
    assert_eq!(second["access_token"].as_str().expect("text").split('.').count(), 3);
}

/// An assertion by the registered certificate opens; by any other key, for another audience, or too late, it does not.
#[tokio::test]
async fn assertions_are_verified() {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let folder = tempfile::tempdir().expect("folder");
    let certificate = |name: &str| {
        let (key, pem) = (folder.path().join(format!("{name}.key")), folder.path().join(format!("{name}.pem")));
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=waybill", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&pem)
            .output();
        made.is_ok_and(|made| made.status.success()).then_some((key, pem))
    };
    // Making RSA keys takes a program that not every machine has.
    let (Some((key, pem)), Some((other_key, _))) = (certificate("ours"), certificate("other")) else { return };
    let client = Client::new(Options { client_certificate: Some(pem.clone()), ..generated("messages=1") }).await;
    let path = format!("/{}/oauth2/v2.0/token", client.simulator.tenant.id);
    let text = std::fs::read_to_string(&pem).expect("read");
    let der = STANDARD.decode(text.lines().filter(|line| !line.starts_with("--")).collect::<String>()).expect("base64");
    let id = client.simulator.tenant.client_id.clone();
    let ask_with = async |key: &Path, thumbprint: &str, audience: &str, life: i64| {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::PS256);
        match thumbprint {
            "sha1" => header.x5t = Some(URL_SAFE_NO_PAD.encode(sha1::sha1(&der))),
            _ => header.x5t_s256 = Some(URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(&der))),
        }
        let now = clock::now().timestamp();
        let claims = json!({"aud": audience, "iss": id, "sub": id, "jti": "1", "nbf": now - 3600, "exp": now + life});
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(&std::fs::read(key).expect("read")).expect("key");
        let assertion = jsonwebtoken::encode(&header, &claims, &key).expect("signed");
        let body = format!(
            "grant_type=client_credentials&client_id={id}&scope=https://graph.microsoft.com/.default&client_assertion={assertion}\
             &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        );
        let answer = ask(&client.simulator, "POST", &path, &[], &body).await.json();
        answer["error_codes"][0].as_u64()
    };
    let audience = format!("{BASE}{path}");
    assert_eq!(ask_with(&key, "sha256", &audience, 300).await, None);
    assert_eq!(ask_with(&key, "sha1", &audience, 300).await, None);
    assert_eq!(ask_with(&other_key, "sha256", &audience, 300).await, Some(50012));
    assert_eq!(ask_with(&key, "sha256", "https://elsewhere", 300).await, Some(50012));
    assert_eq!(ask_with(&key, "sha256", &audience, -900).await, Some(700_024));
}

#[tokio::test]
async fn admin_consent_goes_back_to_the_application() {
    let client = Client::new(generated("messages=1")).await;
    let id = &client.simulator.tenant.client_id;
    let page = |path: &'static str| {
        let path = format!(
            "{path}client_id={id}&redirect_uri=http://localhost:1/back&state=s1&scope=https://graph.microsoft.com/.default"
        );
        let simulator = Arc::clone(&client.simulator);
        async move { ask(&simulator, "GET", &path, &[], "").await }
    };
    let shown = page("/organizations/v2.0/adminconsent?").await;
    assert!(shown.status == 200 && String::from_utf8_lossy(&shown.body).contains(">Accept</a>"));
    let location = |answer: Answer| answer.header("location").expect("location").to_owned();
    let accepted = location(page("/organizations/v2.0/adminconsent?simulate=accept&").await);
    assert!(
        accepted.starts_with("http://localhost:1/back?admin_consent=True&tenant=") && accepted.ends_with("&state=s1"),
        "{accepted}"
    );
    let cancelled = location(page("/common/adminconsent?simulate=cancel&").await);
    assert!(cancelled.contains("?error=permission_denied&") && !cancelled.contains("admin_consent"), "{cancelled}");
}

#[tokio::test]
async fn immutable_ids_are_others_and_both_work() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    let path = "/users/ann@x.org/mailFolders/sentitems/messages?$select=id";
    let plain = client.graph(path).await.json()["value"][0]["id"].as_str().expect("id").to_owned();
    let answer = client.graph_with("GET", path, &[("prefer", "IdType=\"ImmutableId\"")], "").await;
    assert_eq!(answer.header("preference-applied"), Some("IdType=ImmutableId"));
    let immutable = answer.json()["value"][0]["id"].as_str().expect("id").to_owned();
    assert_ne!(plain, immutable);
    assert_eq!(
        client.graph(&format!("/users/ann@x.org/messages/{immutable}/attachments?$select=id")).await.status,
        200
    );
    let body =
        json!({"inputIds": [plain], "sourceIdType": "restId", "targetIdType": "restImmutableEntryId"}).to_string();
    let translated = client.graph_with("POST", "/users/ann@x.org/translateExchangeIds", &[], &body).await.json();
    assert_eq!(translated["value"][0]["targetId"], immutable.as_str());
    assert_eq!(
        client.graph("/users/ann@x.org/messages/xyz").await.error(),
        (400, "ErrorInvalidIdMalformed".to_owned())
    );
    // What the audit record names is the draft, which is gone.
    let user = client.simulator.tenant.user("ann@x.org").expect("there");
    let draft = user.ids().message(ids::Item { number: 0, copy: ids::Copy::Draft }, ids::Folder::Drafts, false);
    assert_eq!(
        client.graph(&format!("/users/ann@x.org/messages/{draft}?$select=id")).await.error(),
        (404, "ErrorItemNotFound".to_owned())
    );
}

#[tokio::test]
async fn a_batch_answers_each_part_by_itself() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    let body = json!({"requests": [
        {"id": "1", "method": "GET", "url": "/users/ann@x.org?$select=mail"},
        {"id": "2", "method": "GET", "url": "/users/nobody@x.org"},
        {"id": "3", "method": "GET", "url": "/users", "dependsOn": ["2"]},
    ]});
    let answer = client.graph_with("POST", "/$batch", &[], &body.to_string()).await.json();
    let part = |id: &str| {
        answer["responses"].as_array().expect("list").iter().find(|part| part["id"] == id).expect("part").clone()
    };
    assert_eq!((part("1")["status"].as_u64(), part("1")["body"]["mail"].as_str()), (Some(200), Some("ann@x.org")));
    assert_eq!((part("2")["status"].as_u64(), part("3")["status"].as_u64()), (Some(404), Some(424)));
    let many: Vec<Value> = (0..21).map(|id| json!({"id": id.to_string(), "method": "GET", "url": "/users"})).collect();
    assert_eq!(client.graph_with("POST", "/$batch", &[], &json!({"requests": many}).to_string()).await.status, 400);
}

#[tokio::test]
async fn the_directory_has_all_kinds_of_users_and_nested_groups() {
    let directory = r#"{"users": [{"mail": "desk@x.org", "kind": "shared", "aliases": ["help@x.org"]}, {"mail": "g@home.org", "kind": "guest"},
        {"mail": "ann@x.org", "aliases": ["ann.old@x.org"]}],
        "groups": [{"mail": "all@x.org", "members": ["some@x.org", "desk@x.org"]}, {"mail": "some@x.org", "members": ["all@x.org", "ann@x.org", "new@x.org"]}]}"#;
    let client =
        Client::with_corpus(&[("1.eml", &MAIL.replace("Ann@x.org", "Ann.Old@x.org")), ("_groups.json", directory)])
            .await;
    let users = client.graph("/users?$select=mail,userType,proxyAddresses&$top=2").await.json();
    assert_eq!(users["value"].as_array().expect("list").len(), 2);
    let next = client.graph(users["@odata.nextLink"].as_str().expect("link")).await.json();
    assert_eq!((next["value"].as_array().expect("list").len(), next.get("@odata.nextLink")), (2, None));
    for filter in
        ["mail eq 'desk@x.org'", "proxyAddresses/any(x:x eq 'smtp:help@x.org')", "userPrincipalName eq 'DESK@x.org'"]
    {
        let filter = utf8_percent_encode(filter, NON_ALPHANUMERIC).to_string();
        let found = client.graph(&format!("/users?$filter={filter}")).await.json();
        assert_eq!(found["value"][0]["mail"], "desk@x.org", "{filter}");
    }
    assert_eq!(
        client.find("ann@x.org", "<a+b=c@x.org>").await.json()["value"].as_array().expect("list").len(),
        1,
        "an alias is the same mailbox"
    );
    let guest =
        client.graph("/users/g_home.org%23EXT%23@contoso.onmicrosoft.com/mailFolders/sentitems?$select=id").await;
    assert_eq!(guest.error(), (404, "MailboxNotEnabledForRESTAPI".to_owned()));
    assert_eq!(client.graph("/users/nobody@x.org/messages").await.error(), (404, "ErrorInvalidUser".to_owned()));
    let group = client.graph("/groups?$filter=mail%20eq%20'all@x.org'&$select=id").await.json()["value"][0]["id"]
        .as_str()
        .expect("id")
        .to_owned();
    let cast = format!("/groups/{group}/transitiveMembers/microsoft.graph.user?$count=true&$select=mail");
    assert_eq!(client.graph(&cast).await.error(), (400, "Request_UnsupportedQuery".to_owned()));
    let members = client.graph_with("GET", &cast, &[("consistencylevel", "eventual")], "").await.json();
    let mails: Vec<&Value> = members["value"].as_array().expect("list").iter().map(|member| &member["mail"]).collect();
    assert_eq!(mails, ["ann@x.org", "new@x.org", "desk@x.org"]);
    let mixed = client.graph(&format!("/groups/{group}/transitiveMembers?$select=mail")).await.json();
    assert_eq!(mixed["value"].as_array().expect("list").len(), 4);
}

#[tokio::test]
async fn mail_that_cannot_be_read_says_why() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    for (action, expected) in [
        (json!("mailbox_denied"), (403, "ErrorAccessDenied")),
        (json!("mailbox_missing"), (404, "MailboxNotEnabledForRESTAPI")),
        (json!("mailbox_moving"), (503, "MailboxInfoStale")),
        (json!({"error": "ErrorInvalidUser"}), (404, "ErrorInvalidUser")),
        (json!({"status": 429, "retry_after": 7}), (429, "ApplicationThrottled")),
    ] {
        client.set_faults(json!([{"on": "mail", "match": "ann@", "do": action}]));
        let answer = client.find("ann@x.org", "<a+b=c@x.org>").await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()));
    }
    assert_eq!(client.find("ann@x.org", "<a+b=c@x.org>").await.header("retry-after"), Some("7"));
    client.set_faults(json!([{"each": true, "times": 1, "do": "message_missing"}]));
    let counts = [client.find("ann@x.org", "<a+b=c@x.org>").await, client.find("ann@x.org", "<a+b=c@x.org>").await];
    assert_eq!(counts.map(|answer| answer.json()["value"].as_array().expect("list").len()), [0, 1]);
    client.set_faults(json!([{"do": {"message_in": "recoverableitemsdeletions"}}]));
    assert!(client.find("ann@x.org", "<a+b=c@x.org>").await.json()["value"].as_array().expect("list").is_empty());
    let recoverable =
        client.graph("/users/ann@x.org/mailFolders/recoverableitemsdeletions/messages?$select=id").await.json();
    assert_eq!(recoverable["value"].as_array().expect("list").len(), 1);
    client.set_faults(json!([{"do": "draft_copy"}, {"do": "self_copy"}]));
    let copies = client.find("ann@x.org", "<a+b=c@x.org>").await.json();
    let drafts: Vec<bool> =
        copies["value"].as_array().expect("list").iter().map(|message| message["isDraft"] == true).collect();
    assert_eq!(drafts.iter().filter(|is_draft| **is_draft).count(), 1);
    assert_eq!(drafts.len(), 3);
    client.set_faults(json!([{"do": {"reference_at": 0}}]));
    let found = client.find("ann@x.org", "<a+b=c@x.org>").await.json();
    let message = &found["value"][0];
    assert_eq!(message["attachments"][0]["@odata.type"], "#microsoft.graph.referenceAttachment");
    let (id, attachment) = (message["id"].as_str().expect("id"), message["attachments"][0]["id"].as_str().expect("id"));
    assert_eq!(
        client.graph(&format!("/users/ann@x.org/messages/{id}/attachments/{attachment}/$value")).await.status,
        405
    );
}

#[tokio::test]
async fn tokens_can_lack_roles_and_can_end() {
    let mut client = Client::new(generated("messages=1")).await;
    client.set_faults(json!([{"do": "no_roles", "times": 2}]));
    client.sign_in().await;
    assert_eq!(client.feed("GET", "/subscriptions/list").await.error(), (401, "AF10001".to_owned()));
    assert_eq!(client.graph("/users").await.error(), (403, "Authorization_RequestDenied".to_owned()));
    let user = "user00000@contoso.onmicrosoft.com";
    assert_eq!(
        client.graph(&format!("/users/{user}/messages?$select=id")).await.error(),
        (403, "ErrorAccessDenied".to_owned())
    );
    client.sign_in().await;
    assert_eq!(client.graph("/users").await.status, 200);
    client.set_faults(json!([{"on": "users", "times": 1, "do": "expire_token"}]));
    assert_eq!(client.graph("/users").await.error(), (401, "InvalidAuthenticationToken".to_owned()));
    assert_eq!(client.graph("/users").await.status, 401, "until a new one is asked for");
    client.sign_in().await;
    assert_eq!(client.graph("/users").await.status, 200);
}

#[tokio::test]
async fn the_feed_fails_in_its_own_words() {
    let client = Client::new(generated("messages=20,sends=0.5")).await;
    let uri = client.list().await[0]["contentUri"].as_str().expect("uri").to_owned();
    for (action, expected) in [
        (json!("af429"), (403, "AF429")),
        (json!("expire_blob"), (400, "AF20051")),
        (json!("missing_blob"), (404, "AF20050")),
        (json!("subscription_disabled"), (400, "AF20023")),
        (json!({"error": "AF50000"}), (500, "AF50000")),
        (json!({"status": 401}), (401, "Authorization has been denied for this request.")),
    ] {
        client.set_faults(json!([{"on": "blob", "do": action}]));
        assert_eq!(client.feed("GET", &uri).await.error(), (expected.0, expected.1.to_owned()));
    }
    client.set_faults(json!([{"do": "auditing_disabled"}]));
    let disabled = client.feed("POST", "/subscriptions/start?contentType=Audit.Exchange").await.json();
    assert!(disabled["error"]["code"].as_str().expect("text").starts_with("StartSubscription [CorrId="));
    assert!(disabled["error"]["message"].as_str().expect("text").contains("DataServiceException: Tenant "));
    client.set_faults(json!([]));
    let plain = client.feed("GET", &uri).await.json().as_array().expect("list").len();
    for (action, extra) in
        [("malformed_record", 1), ("record_without_id", 1), ("duplicates", plain.div_ceil(2)), ("shuffle", 0)]
    {
        client.set_faults(json!([{"do": action}]));
        assert_eq!(client.feed("GET", &uri).await.json().as_array().expect("list").len(), plain + extra, "{action}");
    }
    client.set_faults(json!([{"times": 1, "do": "empty_page"}]));
    assert_eq!(client.records().await.len(), 40, "a page that is empty is not the last one");
    client.set_faults(
        json!([{"do": {"repeated": {"share": 0.5, "seconds": 0}}}, {"do": {"late": {"share": 0.2, "seconds": 3600}}}]),
    );
    let records = client.records().await;
    let mut ids: Vec<&str> = records.iter().map(|record| record["Id"].as_str().expect("id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert!(records.len() > ids.len(), "some are repeated");
    assert_eq!(
        client
            .feed("GET", &format!("{BASE}/api/v1.0/{}/activity/feed/audit/x", client.simulator.tenant.id))
            .await
            .error(),
        (400, "AF20052".to_owned())
    );
}

#[tokio::test]
async fn more_than_four_requests_on_a_mailbox_are_throttled() {
    let client = Client::with_corpus(&[("1.eml", MAIL)]).await;
    client.set_faults(json!([{"do": {"latency_ms": 50}}]));
    let answers = futures::future::join_all((0..6).map(|_| client.find("ann@x.org", "<a+b=c@x.org>"))).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0].error().1, "ApplicationThrottled");
    assert!(refused[0].header("retry-after").is_some());
    let report = client.simulator.report();
    assert_eq!((report.mailbox_concurrency_max, report.mailbox_concurrency["ann@x.org"]), (5, 5));
    client.set_faults(json!([]));
    assert_eq!(client.find("ann@x.org", "<a+b=c@x.org>").await.status, 200, "places are free again");
}

#[tokio::test]
async fn an_export_is_served_as_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("audit.json");
    let record = r#"{"Id": "1", "UserId":"Zoe@x.org", "Operation":"Send", "n": 1.0}"#;
    std::fs::write(&path, format!("{record}\n{record}\n")).expect("written");
    let client = Client::new(Options { content: vec![Content::Audit(path)], ..Options::default() }).await;
    let uri = client.list().await[0]["contentUri"].as_str().expect("uri").to_owned();
    assert_eq!(client.feed("GET", &uri).await.body, format!("[{record},{record}]"));
    assert_eq!(client.graph("/users/zoe@x.org/messages?$select=id").await.json()["value"], json!([]));
}

#[tokio::test]
async fn the_truth_names_every_attachment_with_its_digest() {
    let client = Client::new(generated("users=2,messages=3,attachments=1,size=20")).await;
    let truth = ask(&client.simulator, "GET", "/_simulator/truth", &[], "").await.json();
    let messages = truth["messages"].as_array().expect("list");
    assert_eq!(messages.len(), 3);
    let (user, id) =
        (messages[0]["mailbox"].as_str().expect("text"), messages[0]["internet_message_id"].as_str().expect("text"));
    let found = client.find(user, id).await.json();
    let attachment = &found["value"][0]["attachments"][0];
    let path = format!(
        "/users/{user}/messages/{}/attachments/{}/$value",
        found["value"][0]["id"].as_str().expect("id"),
        attachment["id"].as_str().expect("id")
    );
    let bytes = client.graph(&path).await.body;
    use sha2::Digest;
    let digest: String = sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((bytes.len(), messages[0]["attachments"][0]["sha256"].as_str()), (20, Some(digest.as_str())));
}

/// What happens to bodies on the wire can only be seen on the wire.
#[tokio::test]
async fn bodies_break_on_the_wire_as_they_are_told() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let faults = json!([
        {"match": "/short", "do": {"short_body": 10}}, {"match": "/reset", "do": {"reset": 10}},
        {"match": "/truncate", "do": {"truncate": 10}}, {"match": "/bom", "do": "bom"},
    ]);
    let options = Options { faults: Some(Faults::parse(faults).expect("understood")), ..generated("messages=1") };
    let running = start(options).await.expect("started");
    let get = async |name: &str| {
        let mut stream = tokio::net::TcpStream::connect(running.address()).await.expect("connected");
        let request =
            format!("GET /{name}/.well-known/openid-configuration HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("read");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let short = get("short").await;
    let announced =
        short.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("announced");
    assert!(
        announced.parse::<usize>().expect("number") > 100 && short.split("\r\n\r\n").nth(1).expect("body").len() == 10,
        "{short}"
    );
    let reset = get("reset").await;
    assert!(reset.contains("chunked") && !reset.contains("\r\n0\r\n"), "{reset}");
    let truncated = get("truncate").await;
    assert!(truncated.ends_with("\r\n0\r\n\r\n"), "{truncated}");
    assert!(get("bom").await.contains("\r\n\r\n\u{feff}{"));
    assert_eq!(running.report().count("discovery"), 4);
    running.stop().await;
}
