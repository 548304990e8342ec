use std::sync::Mutex;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::secret::SecretPlace;
use crate::source::microsoft365::{Cloud, Credential, Microsoft365, Overrides, Settings};
use crate::source::{Application, Source};

fn found(id: &str, folder: &str, sent: &str) -> Found {
    let message = json!({"id": id, "internetMessageId": "<1@x>", "sentDateTime": sent, "parentFolderId": folder});
    serde_json::from_value(message).unwrap()
}

fn chosen(messages: &[(&str, &str, &str)], sent_items: Option<&str>, created: &str) -> Vec<String> {
    let messages = messages.iter().map(|(id, folder, sent)| found(id, folder, sent)).collect();
    let created = parse_time(created).unwrap();
    choose(messages, sent_items, created).into_iter().map(|message| message.id).collect()
}

#[test]
fn messages_of_one_id_are_told_apart_by_folder_and_time() {
    let sent = [
        ("a", "sent", "2026-11-23T10:00:00Z"),
        ("b", "sent", "2026-11-23T12:00:00Z"),
        ("c", "sent", "2026-11-23T12:00:00Z"),
        ("d", "inbox", "2026-11-23T12:00:01Z"),
    ];
    assert_eq!(chosen(&sent, Some("sent"), "2026-11-23T10:00:02Z"), ["a"]);
    assert_eq!(chosen(&sent, Some("sent"), "2026-11-23T12:00:01Z"), ["b", "c"]);
    // As far from one as from the other: the earlier one, always.
    assert_eq!(chosen(&sent, Some("sent"), "2026-11-23T11:00:00Z"), ["a"]);
    // No copy lies in Sent Items: one stands for all.
    assert_eq!(chosen(&sent, Some("elsewhere"), "2026-11-23T12:00:01Z"), ["d"]);
    assert_eq!(chosen(&sent[..3], None, "2026-11-23T12:00:01Z"), ["b"]);
    assert_eq!(chosen(&[], Some("sent"), "2026-11-23T12:00:01Z"), Vec::<String>::new());
}

type Asked = Arc<Mutex<Vec<String>>>;

/// A mailbox whose answers come on pages, some of them empty.
async fn answer(State(asked): State<Asked>, uri: Uri, headers: HeaderMap) -> Json<Value> {
    locked(&asked).push(uri.to_string());
    if uri.path().ends_with("/token") {
        return Json(json!({"token_type": "Bearer", "expires_in": 3599, "access_token": "t"}));
    }
    assert_eq!(headers["prefer"], "IdType=\"ImmutableId\"");
    let host = headers["host"].to_str().unwrap();
    let next = |to: &str| format!("http://{host}/v1.0/{to}");
    let attachment = |id: &str, kind: &str| json!({"@odata.type": format!("#microsoft.graph.{kind}"), "id": id, "name": id, "size": 7, "isInline": id == "2"});
    Json(match uri.path() {
        "/v1.0/users/ann%40x.org/messages" => json!({"value": [], "@odata.nextLink": next("second")}),
        "/v1.0/second" => json!({"value": [{
            "id": "m", "internetMessageId": "<1@x>", "subject": "", "isDraft": false, "sentDateTime": "2026-11-23T10:00:00Z",
            "from": {"emailAddress": {"name": "Ann", "address": "ann@x.org"}}, "sender": null,
            "toRecipients": [{"emailAddress": {"name": "B"}}, {"emailAddress": {}}, {}],
            "attachments": [attachment("1", "fileAttachment")], "attachments@odata.nextLink": next("more"),
        }]}),
        "/v1.0/more" => json!({"value": [attachment("2", "itemAttachment")], "@odata.nextLink": next("last")}),
        "/v1.0/last" => json!({"value": [attachment("3", "referenceAttachment")]}),
        path => panic!("nobody should ask for {path}"),
    })
}

#[tokio::test]
async fn further_pages_of_messages_and_of_attachments_are_followed() {
    let asked = Asked::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let mut overrides = Overrides::default();
    ["login", "graph"].iter().for_each(|name| overrides.set(name, &url).unwrap());
    let source = Microsoft365::new(Settings {
        application: Application { tenant_id: Uuid::from_u128(1), client_id: Uuid::from_u128(2) },
        credential: Credential::Secret(SecretPlace::File(secret.path().to_owned())),
        cloud: Cloud::Worldwide,
        overrides,
        clock: Clock::System,
    })
    .unwrap();
    let send: SendRecord = serde_json::from_value(json!({
        "id": "1", "operation": "Send", "created": "2026-11-23T10:00:00Z", "actor": "ann@x.org", "mailbox": "ann@x.org",
        "internet_message_id": "<1@x>", "attachments": [], "recipients": [],
    }))
    .unwrap();
    let message = source.find(&send).await.unwrap().remove(0);
    let attachments: Vec<_> =
        message.attachments.iter().map(|one| (one.id.as_str(), one.kind, one.is_inline)).collect();
    let (file, item, reference) = (AttachmentKind::File, AttachmentKind::Item, AttachmentKind::Reference);
    assert_eq!(attachments, [("1", file, false), ("2", item, true), ("3", reference, false)]);
    assert_eq!(message.subject, None);
    assert_eq!(message.to, [Mailbox { address: "B".into(), name: Some("B".into()) }]);
    let asked = locked(&asked);
    assert_eq!(asked.len(), 5);
    // Nothing of a body, and the bytes of no attachment.
    assert_eq!(
        asked[1],
        "/v1.0/users/ann%40x.org/messages?$filter=internetMessageId%20eq%20%27%3C1%40x%3E%27\
         &$select=id%2CinternetMessageId%2Csubject%2Cfrom%2Csender%2CtoRecipients%2CccRecipients%2CbccRecipients%2CsentDateTime\
         %2CisDraft%2CparentFolderId\
         &$expand=attachments%28%24select%3Did%2Cname%2CcontentType%2Csize%2CisInline%2ClastModifiedDateTime%29&$top=25"
    );
}
